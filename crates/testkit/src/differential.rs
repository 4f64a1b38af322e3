//! The differential corpus, `fixtures/differential/`: one directory per Dockerfile, with what a reference builder made of it.
//!
//! ```text
//! NAME/README             the section of the specification it covers, and anything notable
//! NAME/Dockerfile         (NAME/Dockerfile.dockerignore, if present, lies beside it at the build)
//! NAME/args.json          what the command line says, see `Arguments`; optional
//! NAME/context/           the context as git holds it: directories become 0755, files 0644, or 0755 if executable
//! NAME/context.manifest   made on top of it, see `manifest`; both are optional
//! NAME/images/TAG/        a Dockerfile built first, over the same context, and tagged TAG; optional
//! NAME/expected/          config.json, history.json, tree.txt; or error.txt if the reference builder fails
//! ```
//!
//! The recorder (`cargo xtask peers --record`) and the test that runs the corpus through rbuild both start from
//! [`Case::prepare`], so that both builders see the same bytes.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use walkdir::WalkDir;

use crate::manifest::Manifest;
use crate::observed::KnownFiles;

/// The static shell of the base images: as it is on this machine, so listed by name and not by content.
pub const BUSYBOX: &str = "/bin/busybox";

/// One directory of the corpus.
#[derive(Clone, Debug)]
pub struct Case {
    /// The directory's name.
    pub name: String,
    /// Where it lies.
    pub directory: PathBuf,
    /// What `args.json` says.
    pub arguments: Arguments,
}

/// What the command line of a case says beside file and context.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Arguments {
    /// `--target`.
    pub target: Option<String>,
    /// `--build-arg`; null is the form without a value, taken from `environment`.
    pub build_args: BTreeMap<String, Option<String>>,
    /// The environment of the command line.
    pub environment: BTreeMap<String, String>,
    /// `--build-context`: `docker-image://REF` as it is, or the name of a directory (or manifest) of the case.
    pub contexts: BTreeMap<String, String>,
    /// `--label`.
    pub labels: BTreeMap<String, String>,
    /// `--secret`, by id.
    pub secrets: BTreeMap<String, String>,
    /// `--add-host`, name to address.
    pub hosts: BTreeMap<String, String>,
    /// Where in the context the Dockerfile lies; by default it lies outside.
    pub file: Option<PathBuf>,
    /// The reference builder refuses this case.
    pub fails: bool,
}

/// A case laid out for a builder.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// `--file`.
    pub dockerfile: PathBuf,
    /// The context directory.
    pub context: PathBuf,
    /// `--build-context`, directories by their path.
    pub contexts: BTreeMap<String, String>,
    /// `--secret id=KEY,src=VALUE`.
    pub secrets: BTreeMap<String, PathBuf>,
    /// Images to build first, in this order: tag and Dockerfile, over `context`.
    pub images: Vec<(String, PathBuf)>,
}

impl Case {
    /// Every case below `corpus`, by name.
    ///
    /// # Errors
    /// A directory cannot be read or an `args.json` is wrong.
    pub fn all(corpus: &Path) -> Result<Vec<Self>> {
        let mut cases = Vec::new();
        for name in names(corpus)? {
            let directory = corpus.join(&name);
            if directory.join("Dockerfile").is_file() {
                let arguments = read_arguments(&directory.join("args.json"))?;
                cases.push(Self { name, directory, arguments });
            }
        }
        Ok(cases)
    }

    /// Lays the case out below the empty directory `work`.
    ///
    /// # Errors
    /// Something of it cannot be read or made; devices and owners need root.
    pub fn prepare(&self, work: &Path) -> Result<Prepared> {
        let context = self.tree("context", work)?;
        let dockerfile = match &self.arguments.file {
            Some(inside) => context.join(inside),
            None => work.join("Dockerfile"),
        };
        self.copy_dockerfile(&dockerfile)?;
        let contexts = self.arguments.contexts.iter();
        let contexts = contexts.map(|(name, value)| Ok((name.clone(), self.named_context(value, work)?)));
        Ok(Prepared {
            dockerfile,
            contexts: contexts.collect::<Result<_>>()?,
            secrets: self.secrets(work)?,
            images: self.images(work)?,
            context,
        })
    }

    fn copy_dockerfile(&self, target: &Path) -> Result<()> {
        fs::create_dir_all(target.parent().context("a Dockerfile has a parent")?)?;
        fs::copy(self.directory.join("Dockerfile"), target)?;
        let ignore = self.directory.join("Dockerfile.dockerignore");
        if ignore.is_file() {
            let mut beside = target.as_os_str().to_owned();
            beside.push(".dockerignore");
            fs::copy(ignore, beside)?;
        }
        Ok(())
    }

    /// Makes the directory `name` below `work`, from the case's directory and manifest of that name.
    fn tree(&self, name: &str, work: &Path) -> Result<PathBuf> {
        let target = work.join(name);
        make_directory(&target)?;
        let checked_in = self.directory.join(name);
        if checked_in.is_dir() {
            copy_tree(&checked_in, &target)?;
        }
        let manifest = self.directory.join(format!("{name}.manifest"));
        if manifest.is_file() {
            let text = fs::read_to_string(&manifest)?;
            Manifest::parse(&text)
                .and_then(|manifest| manifest.materialise(&target))
                .with_context(|| format!("`{}`", manifest.display()))?;
        }
        Ok(target)
    }

    fn named_context(&self, value: &str, work: &Path) -> Result<String> {
        if value.contains("://") {
            return Ok(value.to_owned());
        }
        Ok(self.tree(value, work)?.display().to_string())
    }

    fn secrets(&self, work: &Path) -> Result<BTreeMap<String, PathBuf>> {
        let mut files = BTreeMap::new();
        for (id, value) in &self.arguments.secrets {
            let path = work.join(format!("secret-{id}"));
            fs::write(&path, value)?;
            files.insert(id.clone(), path);
        }
        Ok(files)
    }

    fn images(&self, work: &Path) -> Result<Vec<(String, PathBuf)>> {
        let directory = self.directory.join("images");
        if !directory.is_dir() {
            return Ok(Vec::new());
        }
        let mut images = Vec::new();
        for tag in names(&directory)? {
            let dockerfile = work.join(format!("Dockerfile.{tag}"));
            fs::copy(directory.join(&tag).join("Dockerfile"), &dockerfile)?;
            images.push((tag, dockerfile));
        }
        Ok(images)
    }
}

/// Makes the base images of the corpus as tars below `target`: one for each `bases/NAME.manifest`, called `NAME.tar`.
///
/// Returns name and path of each. The same machine gives the same bytes.
///
/// # Errors
/// A manifest is wrong, or the machine has no [`BUSYBOX`].
pub fn make_bases(corpus: &Path, target: &Path) -> Result<Vec<(String, PathBuf)>> {
    fs::create_dir_all(target)?;
    let mut bases = Vec::new();
    for file in names(&corpus.join("bases"))? {
        let Some(name) = file.strip_suffix(".manifest") else { continue };
        let text = fs::read_to_string(corpus.join("bases").join(&file))?;
        Manifest::parse(&text)
            .and_then(|manifest| manifest.materialise(target))
            .with_context(|| file.clone())?;
        let tar = target.join(format!("{name}.tar"));
        ensure!(tar.is_file(), "`{file}` does not make `{name}.tar`");
        bases.push((name.to_owned(), tar));
    }
    Ok(bases)
}

/// The files that the listings of the corpus show by name.
///
/// # Errors
/// The machine has no [`BUSYBOX`].
pub fn known_files() -> Result<KnownFiles> {
    let mut known = KnownFiles::default();
    known.add(Path::new(BUSYBOX), "busybox")?;
    Ok(known)
}

fn read_arguments(path: &Path) -> Result<Arguments> {
    if !path.is_file() {
        return Ok(Arguments::default());
    }
    serde_json::from_str(&fs::read_to_string(path)?).with_context(|| format!("`{}`", path.display()))
}

fn names(directory: &Path) -> Result<Vec<String>> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("cannot list `{}`", directory.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Copies what git checked out, whatever the umask of that checkout was.
fn copy_tree(source: &Path, target: &Path) -> Result<()> {
    for entry in WalkDir::new(source).min_depth(1) {
        let entry = entry?;
        let (from, to) = (entry.path(), target.join(entry.path().strip_prefix(source)?));
        if entry.file_type().is_dir() {
            make_directory(&to)?;
        } else if entry.path_is_symlink() {
            symlink(fs::read_link(from)?, &to)?;
        } else {
            fs::copy(from, &to)?;
            let executable = entry.metadata()?.permissions().mode() & 0o100 != 0;
            fs::set_permissions(&to, fs::Permissions::from_mode(if executable { 0o755 } else { 0o644 }))?;
        }
    }
    Ok(())
}

fn make_directory(path: &Path) -> Result<()> {
    if !path.is_dir() {
        fs::create_dir(path)?;
    }
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn corpus() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/differential")
    }

    #[test]
    fn every_case_names_its_section_and_has_its_recording() {
        let cases = Case::all(&corpus()).unwrap();
        assert!(cases.len() >= 60, "{} cases", cases.len());
        for case in cases {
            let readme = fs::read_to_string(case.directory.join("README")).unwrap();
            let section = readme.strip_prefix('A').and_then(|text| text.chars().next());
            assert!(section.is_some_and(|digit| digit.is_ascii_digit()), "{}: {readme}", case.name);
            let expected = names(&case.directory.join("expected")).unwrap();
            let wanted: &[&str] = if case.arguments.fails {
                &["error.txt"]
            } else {
                &["config.json", "history.json", "tree.txt"]
            };
            assert_eq!(expected, wanted, "{}", case.name);
        }
    }

    #[test]
    fn every_manifest_of_the_corpus_is_understood() {
        for case in Case::all(&corpus()).unwrap() {
            for file in names(&case.directory).unwrap().iter().filter(|name| name.ends_with(".manifest")) {
                let text = fs::read_to_string(case.directory.join(file)).unwrap();
                assert!(Manifest::parse(&text).is_ok(), "{}/{file}: {:?}", case.name, Manifest::parse(&text));
            }
        }
    }

    #[test]
    fn a_case_is_laid_out_with_everything_its_build_needs() {
        let directory = tempfile::tempdir().unwrap();
        let case = directory.path().join("case");
        for (path, text) in [
            ("Dockerfile", "FROM base"),
            ("Dockerfile.dockerignore", "x"),
            (
                "args.json",
                r#"{"file": "sub/Dockerfile", "contexts": {"n": "other", "i": "docker-image://base"}, "secrets": {"s": "v"}}"#,
            ),
            ("context/a", "a"),
            ("context.manifest", "file b content=b"),
            ("other.manifest", "file c"),
            ("images/parent/Dockerfile", "FROM scratch"),
        ] {
            fs::create_dir_all(case.join(path).parent().unwrap()).unwrap();
            fs::write(case.join(path), text).unwrap();
        }
        let work = directory.path().join("work");
        fs::create_dir(&work).unwrap();
        let cases = Case::all(directory.path()).unwrap();
        let prepared = cases[0].prepare(&work).unwrap();
        assert_eq!(names(&prepared.context).unwrap(), ["a", "b", "sub"]);
        assert_eq!(prepared.dockerfile, work.join("context/sub/Dockerfile"));
        assert_eq!(names(&work.join("context/sub")).unwrap(), ["Dockerfile", "Dockerfile.dockerignore"]);
        assert_eq!(prepared.contexts["i"], "docker-image://base");
        assert_eq!(names(Path::new(&prepared.contexts["n"])).unwrap(), ["c"]);
        assert_eq!(fs::read_to_string(&prepared.secrets["s"]).unwrap(), "v");
        assert_eq!(prepared.images[0].0, "parent");
    }

    #[test]
    fn bases_are_the_same_bytes_each_time() {
        if !Path::new(BUSYBOX).is_file() {
            eprintln!("skipped: this machine has no {BUSYBOX}");
            return;
        }
        let bytes = || {
            let directory = tempfile::tempdir().unwrap();
            let bases = make_bases(&corpus(), directory.path()).unwrap();
            bases.iter().map(|(name, tar)| (name.clone(), fs::read(tar).unwrap())).collect::<Vec<_>>()
        };
        assert!(bytes() == bytes());
        assert_eq!(bytes().len(), 4);
    }
}
