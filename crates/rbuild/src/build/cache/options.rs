//! The text of a `--cache-from` and a `--cache-to`.

use std::fmt;
use std::path::{Path, PathBuf};

use image::export::Encoding;
use layer::compress;
use oci::{Compression, Reference};

use super::mounts::Mounts;
use suggest::nearest;

use crate::commands::names;
use crate::failure::Failure;

/// Caches that buildx knows and that are not there.
const OTHERS: [&str; 3] = ["gha", "s3", "azblob"];

/// Where a cache is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Where {
    /// Under a name of a registry.
    Registry(Reference),
    /// In an OCI layout.
    Local { directory: PathBuf, tag: String },
}

impl Where {
    /// On this machine.
    pub(crate) fn directory(&self) -> Option<&Path> {
        match self {
            Self::Local { directory, .. } => Some(directory),
            _ => None,
        }
    }
}

impl fmt::Display for Where {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(reference) => f.write_str(&reference.familiar()),
            Self::Local { directory, tag } if tag == LATEST => write!(f, "{}", directory.display()),
            Self::Local { directory, tag } => write!(f, "{}:{tag}", directory.display()),
        }
    }
}

/// One `--cache-from`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct CacheFrom {
    pub(crate) place: Where,
}

/// One `--cache-to`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct CacheTo {
    /// `None` for the manifest of the image itself.
    pub(crate) place: Option<Where>,
    pub(crate) mode: Mode,
    pub(crate) encoding: Encoding,
    /// Which cache mounts go with them.
    pub(crate) mounts: Mounts,
    /// Whether the build succeeds although the cache cannot be written.
    pub(crate) ignores_error: bool,
}

/// Which steps travel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Mode {
    /// Those whose layers the image has.
    Min,
    /// All.
    Max,
}

/// What a directory's cache is called in it, unless it is said.
const LATEST: &str = "latest";

/// What was written behind an option.
#[derive(Clone, Copy, Debug)]
struct Written<'o> {
    flag: &'static str,
    text: &'o str,
    /// For whoever wrote it wrongly.
    help: &'static str,
    keys: &'static [&'static str],
}

const FROM_HELP: &str =
    "write it as a name in a registry, type=registry,ref=NAME or type=local,src=DIRECTORY[,tag=TAG]";
const TO_HELP: &str = "write it as type=inline, or as type=registry,ref=NAME or type=local,dest=DIRECTORY[,tag=TAG] with mode=min|max, mounts=all|ID,…, compression=gzip|zstd|uncompressed, compression-level=N, force-compression=true and ignore-error=true if wanted";

impl CacheFrom {
    /// Reads `type=registry,ref=NAME` or `type=local,src=DIRECTORY`; a text without `=` is a name.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        let keys = &["type", "ref", "src", "tag"];
        let option = Written { flag: "--cache-from", text, help: FROM_HELP, keys };
        let place = match option.fields()? {
            None => Where::Registry(option.reference(text)?),
            Some(fields) => option.place(&fields, "src")?,
        };
        Ok(Self { place })
    }
}

impl CacheTo {
    /// Reads `type=registry,ref=NAME[,mode=…]` or `type=local,dest=DIRECTORY[,mode=…]`; a text without `=` is a name.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        let keys = &[
            "type",
            "ref",
            "dest",
            "tag",
            "mode",
            "compression",
            "compression-level",
            "force-compression",
            "ignore-error",
            "mounts",
            "oci-mediatypes",
            "image-manifest",
        ];
        let option = Written { flag: "--cache-to", text, help: TO_HELP, keys };
        let Some(fields) = option.fields()? else {
            let place = Some(Where::Registry(names::new_name(text)?));
            return Ok(Self {
                place,
                mode: Mode::Min,
                encoding: Compression::Gzip.into(),
                mounts: Mounts::None,
                ignores_error: false,
            });
        };
        let mode = option.mode(&fields)?;
        let compression = match fields.get("compression").map(str::parse) {
            None => Compression::Gzip,
            Some(read) => read.map_err(|why: String| option.wrong(&why))?,
        };
        let usual = Encoding::from(compression);
        let level = match fields.get("compression-level") {
            None => usual.level,
            Some(text) => option.level(text, compression)?,
        };
        let is_forced = option.is_set(&fields, "force-compression", false)?;
        let encoding = Encoding { level, is_forced, ..usual };
        let place = option.place_to(&fields, mode)?;
        let ignores_error = option.is_set(&fields, "ignore-error", false)?;
        Ok(Self { place, mode, encoding, mounts: fields.mounts(), ignores_error })
    }
}

impl Written<'_> {
    fn mode(self, fields: &Fields) -> Result<Mode, Failure> {
        match fields.get("mode") {
            None | Some("min") => Ok(Mode::Min),
            Some("max") => Ok(Mode::Max),
            Some(other) => Err(self.wrong(&format!("has the mode `{other}`; there are min and max"))),
        }
    }

    fn level(self, text: &str, compression: Compression) -> Result<i32, Failure> {
        let levels = compress::levels(compression);
        let level = text.parse().ok().filter(|level| levels.contains(level));
        level.ok_or_else(|| {
            let (first, last) = (levels.start(), levels.end());
            self.wrong(&format!(
                "has the compression level `{text}`; of {compression} there are {first} to {last}"
            ))
        })
    }

    /// `None` for the manifest of the image.
    fn place_to(self, fields: &Fields, mode: Mode) -> Result<Option<Where>, Failure> {
        // What is so by itself.
        for key in ["oci-mediatypes", "image-manifest"] {
            if !self.is_set(fields, key, true)? {
                let why = format!("asks for `{key}=false`, and caches are OCI image manifests");
                return Err(self.wrong(&why));
            }
        }
        if fields.get("type") == Some("inline") {
            return self.check_inline(fields, mode).map(|()| None);
        }
        match self.place(fields, "dest")? {
            Where::Registry(reference) if reference.digest().is_some() => {
                Err(self.wrong("has a digest, which follows from the content: leave out the part from `@`"))
            }
            place => Ok(Some(place)),
        }
    }
}

/// Fields, each once.
struct Fields(Vec<(String, String)>);

impl Fields {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }
}

impl Fields {
    fn mounts(&self) -> Mounts {
        match self.get("mounts") {
            None => Mounts::None,
            Some("all") => Mounts::All,
            Some(ids) => Mounts::Ids(ids.split(',').map(ToOwned::to_owned).collect()),
        }
    }
}

impl Written<'_> {
    fn wrong(self, why: &str) -> Failure {
        Failure::usage(format!("`{} {}` {why}", self.flag, self.text), self.help)
    }

    /// `None` for a name alone.
    fn fields(self) -> Result<Option<Fields>, Failure> {
        if !self.text.contains('=') {
            return Ok(None);
        }
        let mut fields = Fields(Vec::new());
        let written = crate::fields::split(self.text);
        // Before their fields, which are others: the type is what must change.
        if let Some(other) = OTHERS.iter().find(|other| written.contains(&format!("type={other}"))) {
            return Err(self.wrong(&format!(
                "is of the type `{other}`, which rbuild does not have: caches are in registries and directories"
            )));
        }
        for field in written {
            // Several ids are a list like any other.
            if let Some((key, ids)) = fields.0.last_mut()
                && key == "mounts"
                && !field.contains('=')
                && !field.is_empty()
            {
                ids.push(',');
                ids.push_str(&field);
                continue;
            }
            let (key, value) = field.split_once('=').unwrap_or((&field, ""));
            if !self.keys.contains(&key) {
                let meant = nearest(key, self.keys.iter().copied());
                let meant = meant.map(|meant| format!("; did you mean `{meant}`?")).unwrap_or_default();
                return Err(self.wrong(&format!("has an unknown field `{field}`{meant}")));
            }
            if fields.get(key).is_some() {
                return Err(self.wrong(&format!("has `{key}` twice")));
            }
            if value.is_empty() {
                return Err(self.wrong(&format!("has a `{key}` without a value")));
            }
            fields.0.push((key.to_owned(), value.to_owned()));
        }
        Ok(Some(fields))
    }

    fn is_set(self, fields: &Fields, key: &str, default: bool) -> Result<bool, Failure> {
        match fields.get(key) {
            None => Ok(default),
            // As Go's programs read them.
            Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
            Some(_) => Err(self.wrong(&format!("has a `{key}` that is neither true nor false"))),
        }
    }

    fn place(self, fields: &Fields, directory: &str) -> Result<Where, Failure> {
        let refuse = |keys: &[&str], of: &str| match keys.iter().find(|key| fields.get(key).is_some()) {
            Some(key) => Err(self.wrong(&format!("has a `{key}`, which is for {of}"))),
            None => Ok(()),
        };
        match fields.get("type") {
            Some("registry") => {
                refuse(&[directory, "tag"], "type=local")?;
                let name = fields.get("ref").ok_or_else(|| self.wrong("has no `ref`"))?;
                Ok(Where::Registry(self.reference(name)?))
            }
            Some("local") => {
                refuse(&["ref"], "type=registry")?;
                let path =
                    fields.get(directory).ok_or_else(|| self.wrong(&format!("has no `{directory}`")))?;
                let tag = fields.get("tag").unwrap_or(LATEST).to_owned();
                Ok(Where::Local { directory: PathBuf::from(path), tag })
            }
            Some("inline") => {
                Err(self
                    .wrong("is of the type `inline`; to import it, name the image: type=registry,ref=IMAGE"))
            }
            Some(other) => {
                let meant = nearest(other, ["registry", "local", "inline"]);
                let meant = meant.map(|meant| format!("; did you mean `{meant}`?")).unwrap_or_default();
                Err(self.wrong(&format!("has an unknown type `{other}`{meant}")))
            }
            None => Err(self.wrong("has no type")),
        }
    }

    /// Of what stands in an image nothing can be said that is not said of the image.
    fn check_inline(self, fields: &Fields, mode: Mode) -> Result<(), Failure> {
        if mode == Mode::Max {
            return Err(
                self.wrong("has the mode `max`, and an image has its own layers only: use type=registry")
            );
        }
        match fields.0.iter().find(|(key, _)| !matches!(key.as_str(), "type" | "mode")) {
            Some((key, _)) => {
                Err(self.wrong(&format!("has a `{key}`, and stands in the image as that is pushed")))
            }
            None => Ok(()),
        }
    }

    fn reference(self, name: &str) -> Result<Reference, Failure> {
        Reference::parse(name)
            .map_err(|error| self.wrong(&format!("names no place: `{name}` is no image name: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn title(failure: Failure) -> String {
        failure.diagnostics.into_iter().next().map(|first| first.title).unwrap_or_default()
    }

    #[track_caller]
    fn from(text: &str, expected: Expect) {
        expected.assert_eq(&CacheFrom::parse(text).map_or_else(title, |from| from.place.to_string()));
    }

    #[track_caller]
    fn to(text: &str, expected: Expect) {
        let shown = CacheTo::parse(text).map_or_else(title, |to| {
            let CacheTo { place, mode, encoding, mounts, ignores_error } = to;
            let Encoding { compression, level, is_forced } = encoding;
            let place = place.map_or("inline".to_owned(), |place| place.to_string());
            format!("{place} {mode:?} {compression} {level} {is_forced} {mounts:?} {ignores_error}")
        });
        expected.assert_eq(&shown);
    }

    #[test]
    fn caches_to_import_are_read_as_buildx_reads_them() {
        from("r.io/app:cache", expect!["r.io/app:cache"]);
        from("type=registry,ref=r.io/app", expect!["r.io/app:latest"]);
        from("type=local,src=dir", expect!["dir"]);
        from("type=local,src=dir,tag=x", expect!["dir:x"]);
        from(
            "type=local,dest=dir",
            expect!["`--cache-from type=local,dest=dir` has an unknown field `dest=dir`"],
        );
        from("type=local", expect!["`--cache-from type=local` has no `src`"]);
        from("type=local,src=", expect!["`--cache-from type=local,src=` has a `src` without a value"]);
        from(
            "type=local,src=a,ref=b",
            expect!["`--cache-from type=local,src=a,ref=b` has a `ref`, which is for type=registry"],
        );
        from(
            "type=registry,ref=a,tag=b",
            expect!["`--cache-from type=registry,ref=a,tag=b` has a `tag`, which is for type=local"],
        );
        from(
            "type=registry,ref=A",
            expect![
                "`--cache-from type=registry,ref=A` names no place: `A` is no image name: repository name `A` has an upper-case letter"
            ],
        );
        from(
            "type=gha",
            expect![
                "`--cache-from type=gha` is of the type `gha`, which rbuild does not have: caches are in registries and directories"
            ],
        );
        from(
            "type=regsitry,ref=a",
            expect![
                "`--cache-from type=regsitry,ref=a` has an unknown type `regsitry`; did you mean `registry`?"
            ],
        );
        from(
            "type=inline",
            expect![
                "`--cache-from type=inline` is of the type `inline`; to import it, name the image: type=registry,ref=IMAGE"
            ],
        );
        from("ref=a", expect!["`--cache-from ref=a` has no type"]);
    }

    #[test]
    fn caches_to_export_are_read_as_buildx_reads_them() {
        to("type=local,dest=d,mounts=all", expect!["d Min gzip 4 false All false"]);
        to(
            "type=local,dest=d,mounts=npm,/root/.cache,mode=max",
            expect![[r#"d Max gzip 4 false Ids(["npm", "/root/.cache"]) false"#]],
        );
        to(
            "type=local,dest=d,mode=max,npm",
            expect!["`--cache-to type=local,dest=d,mode=max,npm` has an unknown field `npm`"],
        );
        to(
            "type=inline,mounts=all",
            expect![
                "`--cache-to type=inline,mounts=all` has a `mounts`, and stands in the image as that is pushed"
            ],
        );
        to("type=inline", expect!["inline Min gzip 4 false None false"]);
        to("type=inline,mode=min", expect!["inline Min gzip 4 false None false"]);
        to(
            "type=inline,mode=max",
            expect![
                "`--cache-to type=inline,mode=max` has the mode `max`, and an image has its own layers only: use type=registry"
            ],
        );
        to(
            "type=inline,ref=a",
            expect!["`--cache-to type=inline,ref=a` has a `ref`, and stands in the image as that is pushed"],
        );
        to("r.io/app:cache", expect!["r.io/app:cache Min gzip 4 false None false"]);
        to(
            "type=registry,ref=r.io/a,mode=max,compression=zstd,ignore-error=true",
            expect!["r.io/a:latest Max zstd 3 false None true"],
        );
        to("type=local,dest=dir,mode=min,ignore-error=false", expect!["dir Min gzip 4 false None false"]);
        to(
            "type=registry,ref=a,oci-mediatypes=true,image-manifest=true",
            expect!["a:latest Min gzip 4 false None false"],
        );
        to(
            "type=registry,ref=a,image-manifest=false",
            expect![
                "`--cache-to type=registry,ref=a,image-manifest=false` asks for `image-manifest=false`, and caches are OCI image manifests"
            ],
        );
        to(
            "type=registry,ref=a,mdoe=max",
            expect![
                "`--cache-to type=registry,ref=a,mdoe=max` has an unknown field `mdoe=max`; did you mean `mode`?"
            ],
        );
        to(
            "type=registry,ref=a,mode=all",
            expect!["`--cache-to type=registry,ref=a,mode=all` has the mode `all`; there are min and max"],
        );
        to(
            "type=registry,ref=a,mode=max,mode=min",
            expect!["`--cache-to type=registry,ref=a,mode=max,mode=min` has `mode` twice"],
        );
        to(
            "type=registry,ref=a,ignore-error=yes",
            expect![
                "`--cache-to type=registry,ref=a,ignore-error=yes` has a `ignore-error` that is neither true nor false"
            ],
        );
        to("type=registry,ref=a,ignore-error=1", expect!["a:latest Min gzip 4 false None true"]);
        to(
            "type=local,dest=d,oci-mediatypes=true,compression=zstd,compression-level=19,force-compression=true",
            expect!["d Min zstd 19 true None false"],
        );
        to(
            "type=local,dest=d,compression-level=13",
            expect![
                "`--cache-to type=local,dest=d,compression-level=13` has the compression level `13`; of gzip there are 1 to 12"
            ],
        );
        to(
            "type=registry,ref=a,compression=lz",
            expect![
                "`--cache-to type=registry,ref=a,compression=lz` `lz` is not a compression: use uncompressed, gzip or zstd"
            ],
        );
        to(
            "type=s3,bucket=b",
            expect![
                "`--cache-to type=s3,bucket=b` is of the type `s3`, which rbuild does not have: caches are in registries and directories"
            ],
        );
        to(
            "type=azblob",
            expect![
                "`--cache-to type=azblob` is of the type `azblob`, which rbuild does not have: caches are in registries and directories"
            ],
        );
    }
}
