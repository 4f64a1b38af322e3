//! The text of an `--output`.

use std::path::PathBuf;

use image::export::{Annotation, Encoding, Format};
use layer::compress;
use oci::{Compression, Reference};

use super::{Kind, Output, Target, annotations};
use crate::commands::names;
use crate::commands::push::Push;
use crate::failure::Failure;

const HELP: &str = "write it as type=image, type=registry (with compression=CODEC, compression-level=N, force-compression=true, name=NAME, push-by-digest=true, registry.insecure=true), type=oci|docker|tar,dest=FILE (`-` is standard output), or type=local,dest=DIRECTORY (with mode=delete: nothing else in it)";

/// The fields of one `--output` before they are understood.
#[derive(Default)]
struct Fields {
    kind: Option<String>,
    destination: Option<String>,
    /// Of an OCI layout: whether it is to be an archive.
    is_tar: Option<bool>,
    compression: Option<Compression>,
    compression_level: Option<i32>,
    /// Whether what came in another compression is changed.
    forces_compression: Option<bool>,
    /// Whether files in layers are to be no younger than `SOURCE_DATE_EPOCH`.
    rewrites_times: Option<bool>,
    names: Vec<Reference>,
    /// Those that were written with a tag.
    tagged: Vec<String>,
    annotations: Vec<Annotation>,
    splits_platforms: Option<bool>,
    /// Of a directory: whether it is to hold nothing else.
    removes_others: Option<bool>,
    /// Whether it is sent to a registry.
    push: Option<bool>,
    /// Whether it gets no name there but its digest.
    pushes_by_digest: Option<bool>,
    /// Whether it is called NAME@DIGEST here, too.
    names_digest: Option<bool>,
    /// Whether anybody who answers for the registry is believed.
    is_insecure: Option<bool>,
}

/// Whether images are to have files no younger than `SOURCE_DATE_EPOCH`: `rewrite-timestamp` of the outputs, which is of one image and so must
/// be the same for all that have any.
pub(crate) fn rewrites_times(texts: &[String]) -> Result<bool, Failure> {
    let mut asked = None;
    for text in texts.iter().filter(|text| text.contains('=')) {
        let fields = Fields::parse(text)?;
        if matches!(fields.kind.as_deref(), Some("local" | "tar")) {
            continue;
        }
        let here = fields.rewrites_times.unwrap_or(false);
        if asked.is_some_and(|before| before != here) {
            return Err(wrong(
                text,
                "has another `rewrite-timestamp` than an output before it, and it is one image",
            ));
        }
        asked = Some(here);
    }
    Ok(asked.unwrap_or(false))
}

impl Output {
    /// Reads `type=TYPE[,dest=PATH][,tar=false][,compression=CODEC]`; a path alone is a directory for the files, `-` alone a tar.
    ///
    /// With `pushes`, images are pushed whether it is said here or not.
    pub(crate) fn parse(text: &str, pushes: bool) -> Result<Self, Failure> {
        if text == "-" {
            return Ok(Self::new(Kind::Tar(Target::Stdout)));
        }
        if !text.contains('=') {
            return Ok(Self::new(Kind::Directory(PathBuf::from(text))));
        }
        let mut fields = Fields::parse(text)?;
        if pushes && fields.kind.as_deref() == Some("image") {
            if fields.push == Some(false) {
                return Err(wrong(text, "is not to be pushed, and there is `--push`"));
            }
            fields.push = Some(true);
        }
        fields.check(text)?;
        let destination =
            || fields.destination.clone().ok_or_else(|| wrong(text, "says not where to: it has no `dest`"));
        let encoding = |default: Compression| fields.encoding(text, default);
        let kind = match fields.kind.as_deref() {
            Some("image" | "registry") => Kind::Image,
            Some("oci") if fields.is_tar == Some(false) => {
                let directory = PathBuf::from(destination()?);
                Kind::Layout { encoding: encoding(Compression::Gzip)?, directory }
            }
            Some("oci") => {
                let (encoding, to) = (encoding(Compression::Gzip)?, Target::of(destination()?));
                Kind::Archive { format: Format::Oci, encoding, to }
            }
            Some("docker") => {
                let (encoding, to) = (encoding(Compression::None)?, Target::of(destination()?));
                Kind::Archive { format: Format::Docker, encoding, to }
            }
            Some("local") => Kind::Directory(PathBuf::from(destination()?)),
            Some("tar") => Kind::Tar(Target::of(destination()?)),
            Some(_) => return Err(wrong(text, "has an unknown type")),
            None => return Err(wrong(text, "has no type")),
        };
        let push = || -> Result<Push, Failure> {
            Ok(Push {
                encoding: encoding(Compression::Gzip)?,
                by_digest: fields.pushes_by_digest.unwrap_or(false),
                names_digest: fields.names_digest.unwrap_or(false),
            })
        };
        let push = fields.is_pushed().then(push).transpose()?;
        let compresses = fields.compresses_kept();
        let is_insecure = fields.is_insecure.unwrap_or(false);
        let removes_others = fields.removes_others.unwrap_or(false);
        let Fields { names, tagged, annotations, splits_platforms, .. } = fields;
        let fields = Self { names, tagged, annotations, splits_platforms, ..Self::new(kind) };
        Ok(Self { push, compresses, is_insecure, removes_others, ..fields })
    }
}

impl Fields {
    fn parse(text: &str) -> Result<Self, Failure> {
        let mut fields = Self::default();
        for field in crate::fields::split(text) {
            let (key, value) = field.split_once('=').unwrap_or((&field, ""));
            let is_set = || match value {
                "true" => Ok(true),
                "false" => Ok(false),
                _ => Err(wrong(text, &format!("has a `{key}` that is neither true nor false"))),
            };
            match key {
                "type" => fields.kind = Some(value.to_owned()),
                "dest" => fields.destination = Some(value.to_owned()),
                "tar" => fields.is_tar = Some(is_set()?),
                "compression" => {
                    fields.compression = Some(value.parse().map_err(|why: String| wrong(text, &why))?);
                }
                "compression-level" => {
                    let level = value
                        .parse()
                        .map_err(|_| wrong(text, "has a `compression-level` that is no number"))?;
                    fields.compression_level = Some(level);
                }
                "force-compression" => fields.forces_compression = Some(is_set()?),
                "rewrite-timestamp" => fields.rewrites_times = Some(is_set()?),
                "platform-split" => fields.splits_platforms = Some(is_set()?),
                "name" => {
                    fields.names = value.split(',').map(names::new_name).collect::<Result<_, _>>()?;
                    fields.tagged =
                        value.split(',').filter(|name| names::has_tag(name)).map(ToOwned::to_owned).collect();
                }
                // What is so by itself.
                "store" | "unpack" | "oci-mediatypes" if is_set()? => {}
                "mode" => {
                    fields.removes_others = Some(match value {
                        "copy" => false,
                        "delete" => true,
                        _ => return Err(wrong(text, "has a `mode` that is neither copy nor delete")),
                    });
                }
                "push" => fields.push = Some(is_set()?),
                "push-by-digest" => fields.pushes_by_digest = Some(is_set()?),
                "name-canonical" => fields.names_digest = Some(is_set()?),
                "registry.insecure" => fields.is_insecure = Some(is_set()?),
                _ => match annotations::of_field(key, value) {
                    Some(found) => fields.annotations.push(found?),
                    None => return Err(wrong(text, &format!("has an unknown field `{field}`"))),
                },
            }
        }
        Ok(fields)
    }

    fn encoding(&self, text: &str, default: Compression) -> Result<Encoding, Failure> {
        let compression = self.compression.unwrap_or(default);
        let usual = Encoding::from(compression);
        let levels = compress::levels(compression);
        match self.compression_level {
            Some(level) if !levels.contains(&level) => {
                let why = match compression {
                    Compression::None => "has a `compression-level`, and nothing is compressed".to_owned(),
                    _ => format!(
                        "has a `compression-level` that is not of {} to {}",
                        levels.start(),
                        levels.end()
                    ),
                };
                Err(wrong(text, &why))
            }
            level => Ok(Encoding {
                level: level.unwrap_or(usual.level),
                is_forced: self.forces_compression.unwrap_or(false),
                ..usual
            }),
        }
    }

    /// Whether it says anything of how layers are compressed.
    fn compresses(&self) -> bool {
        self.compression.is_some() || self.compression_level.is_some() || self.forces_compression.is_some()
    }

    /// Of an image that is only kept: whether it is compressed for a push later, if that is said.
    fn compresses_kept(&self) -> Option<bool> {
        let is_kept = self.kind.as_deref() == Some("image") && !self.is_pushed();
        self.compression.filter(|_| is_kept).map(|codec| codec != Compression::None)
    }

    /// Whether it says more of compression than whether.
    fn says_how_to_compress(&self) -> bool {
        let is_usual = matches!(self.compression, None | Some(Compression::None | Compression::Gzip));
        !is_usual || self.compression_level.is_some() || self.forces_compression == Some(true)
    }

    fn says_how_to_push(&self) -> bool {
        self.pushes_by_digest == Some(true)
            || self.is_insecure == Some(true)
            || self.names_digest == Some(true)
    }

    fn is_pushed(&self) -> bool {
        self.push == Some(true) || self.kind.as_deref() == Some("registry")
    }

    /// Refuses what would have no effect: whoever wrote it expects one.
    fn check(&self, text: &str) -> Result<(), Failure> {
        match self.kind.as_deref() {
            Some("image") if self.destination.is_some() => {
                Err(wrong(text, "has a `dest`, and the image stays in the store"))
            }
            Some("local" | "tar" | "oci" | "docker") if self.push == Some(true) => {
                Err(wrong(text, "has a `push`, which is for type=image"))
            }
            Some("registry") if self.push == Some(false) => Err(wrong(text, "is nothing but a push")),
            Some("registry") if self.destination.is_some() => {
                Err(wrong(text, "has a `dest`, and goes where its names say"))
            }
            Some(_) if self.says_how_to_push() && !self.is_pushed() => {
                Err(wrong(text, "says how it is pushed, and is not pushed"))
            }
            Some("image") if !self.is_pushed() && self.says_how_to_compress() => {
                let title = format!("`--output {text}` says how it is compressed, and is not pushed");
                let help = "push it in the same command, with `push=true`; or later, with `rbuild push`, which has --compression and --force-compression";
                Err(Failure::usage(title, help))
            }
            Some("local" | "tar") if self.compresses() => {
                Err(wrong(text, "has a `compression`, and files by themselves have none"))
            }
            Some("image" | "registry" | "local" | "tar") if self.is_tar.is_some() => {
                Err(wrong(text, "has a `tar`, which is for OCI layouts"))
            }
            Some("local" | "tar") if self.rewrites_times.is_some() => {
                Err(wrong(text, "has a `rewrite-timestamp`, and files by themselves are always rewritten"))
            }
            Some("docker") if self.is_tar == Some(false) => {
                Err(wrong(text, "asks for a directory, which Docker does not load"))
            }
            Some("image" | "local" | "tar") if !self.annotations.is_empty() && !self.is_pushed() => {
                Err(wrong(text, "has annotations, and there is no manifest for them to stand in"))
            }
            Some("local" | "tar") if !self.names.is_empty() => {
                Err(wrong(text, "has a `name`, and files by themselves have none"))
            }
            Some("image" | "registry" | "oci" | "docker") if self.splits_platforms.is_some() => {
                Err(wrong(text, "has a `platform-split`, which is for files by themselves"))
            }
            Some(kind) if kind != "local" && self.removes_others.is_some() => {
                Err(wrong(text, "has a `mode`, which is for type=local"))
            }
            Some("local") if self.destination.as_deref() == Some("-") => {
                Err(wrong(text, "asks for files on standard output; `type=tar` goes there"))
            }
            _ => Ok(()),
        }
    }
}

pub(crate) fn wrong(text: &str, why: &str) -> Failure {
    let title = format!("`--output {text}` {why}");
    Failure::usage(title, HELP)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    #[track_caller]
    fn check(text: &str, expected: Expect) {
        let shown = Output::parse(text, false)
            .map_or_else(|f| f.diagnostics[0].title.clone(), |o| format!("{:?}", o.kind));
        expected.assert_eq(&shown);
    }

    #[test]
    fn outputs_are_read_as_buildx_reads_them() {
        check("type=image", expect!["Image"]);
        check("out", expect![[r#"Directory("out")"#]]);
        check("-", expect!["Tar(Stdout)"]);
        check("type=local,dest=out", expect![[r#"Directory("out")"#]]);
        check(
            "type=oci,dest=a.tar",
            expect![[
                r#"Archive { format: Oci, encoding: Encoding { compression: Gzip, level: 4, is_forced: false }, to: File("a.tar") }"#
            ]],
        );
        check(
            "type=oci,dest=a,tar=false,compression=zstd",
            expect![[
                r#"Layout { encoding: Encoding { compression: Zstd, level: 3, is_forced: false }, directory: "a" }"#
            ]],
        );
        check(
            "type=docker,dest=-",
            expect![
                "Archive { format: Docker, encoding: Encoding { compression: None, level: 0, is_forced: false }, to: Stdout }"
            ],
        );
        check(
            "type=docker,dest=a,tar=false",
            expect![
                "`--output type=docker,dest=a,tar=false` asks for a directory, which Docker does not load"
            ],
        );
        check(
            "type=image,dest=x",
            expect!["`--output type=image,dest=x` has a `dest`, and the image stays in the store"],
        );
        check(
            "type=oci,dest=a,compression=zstd,compression-level=23",
            expect![
                "`--output type=oci,dest=a,compression=zstd,compression-level=23` has a `compression-level` that is not of 1 to 22"
            ],
        );
        check(
            "type=oci,dest=a,compression-level=x",
            expect![
                "`--output type=oci,dest=a,compression-level=x` has a `compression-level` that is no number"
            ],
        );
        check(
            "type=docker,dest=a,compression-level=1",
            expect![
                "`--output type=docker,dest=a,compression-level=1` has a `compression-level`, and nothing is compressed"
            ],
        );
        check("type=image,compression=uncompressed", expect!["Image"]);
        for how in ["compression=zstd", "compression-level=9", "force-compression=true"] {
            let text = format!("type=image,{how}");
            let refused = Output::parse(&text, false).unwrap_err().diagnostics.remove(0);
            assert_eq!(
                refused.title,
                format!("`--output {text}` says how it is compressed, and is not pushed")
            );
        }
        check(
            "type=oci,dest=a,compression=zstd,compression-level=19,force-compression=true",
            expect![[
                r#"Archive { format: Oci, encoding: Encoding { compression: Zstd, level: 19, is_forced: true }, to: File("a") }"#
            ]],
        );
        check(
            "type=local,dest=x,compression=gzip",
            expect![
                "`--output type=local,dest=x,compression=gzip` has a `compression`, and files by themselves have none"
            ],
        );
        check(
            "type=tar,dest=x,tar=true",
            expect!["`--output type=tar,dest=x,tar=true` has a `tar`, which is for OCI layouts"],
        );
        check(
            "type=local,dest=-",
            expect!["`--output type=local,dest=-` asks for files on standard output; `type=tar` goes there"],
        );
        check(
            "type=oci,dest=x,rewrite-timestamp=maybe",
            expect![
                "`--output type=oci,dest=x,rewrite-timestamp=maybe` has a `rewrite-timestamp` that is neither true nor false"
            ],
        );
        check(
            "type=tar,dest=x,rewrite-timestamp=true",
            expect![
                "`--output type=tar,dest=x,rewrite-timestamp=true` has a `rewrite-timestamp`, and files by themselves are always rewritten"
            ],
        );
        check("type=oci", expect!["`--output type=oci` says not where to: it has no `dest`"]);
        check("type=oci,dets=x", expect!["`--output type=oci,dets=x` has an unknown field `dets=x`"]);
        check("dest=x", expect!["`--output dest=x` has no type"]);
        check(
            "type=registry,dest=x",
            expect!["`--output type=registry,dest=x` has a `dest`, and goes where its names say"],
        );
    }

    #[test]
    fn outputs_of_one_image_agree_on_its_times() {
        let check = |texts: &[&str], expected: Option<bool>| {
            let texts: Vec<String> = texts.iter().map(ToString::to_string).collect();
            assert_eq!(rewrites_times(&texts).ok(), expected, "{texts:?}");
        };
        check(&[], Some(false));
        check(&["type=image,rewrite-timestamp=true", "type=local,dest=x", "out"], Some(true));
        check(&["type=image,rewrite-timestamp=true", "type=oci,dest=x,rewrite-timestamp=true"], Some(true));
        check(&["type=image,rewrite-timestamp=true", "type=oci,dest=x"], None);
    }
}
