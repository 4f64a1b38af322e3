//! The differential corpus, `fixtures/differential/`: one directory per Dockerfile, with what a reference builder made of it.
//!
//! ```text
//! NAME/README             the section of the specification it covers, and anything notable
//! NAME/Dockerfile         (NAME/Dockerfile.dockerignore, if present, lies beside it at the build)
//! NAME/args.json          what the command line says, see `Arguments`; optional
//! NAME/context/           the context as git holds it: directories become 0755, files 0644, or 0755 if executable
//! NAME/context.manifest   made on top of it, see `manifest`; both are optional
//! NAME/images/TAG/        a Dockerfile built first, over the same context, and tagged TAG; optional
//! NAME/site.manifest      what a web server serves during the build, see `Site::serve_directory`; optional
//! NAME/earlier/           a build made before, of which this one may reuse steps; optional
//! NAME/expected/          config.json, history.json, tree.txt; or error.txt if the reference builder fails
//! ```
//!
//! A Dockerfile knows the site by the argument SITE, `args.json` by `$SITE`; what is compared calls it `http://site`.
//!
//! `earlier/` holds files of a case, and stands for those of `NAME/` that it does not hold. A build with an earlier one uses the cache, every
//! other one does not. What ran again can be seen by what its steps count in a cache mount.
//!
//! The recorder (`cargo xtask peers --record`) and the test that runs the corpus through rbuild both start from
//! [`Case::prepare`], so that both builders see the same bytes, and from [`Prepared::command_line`], so that they are asked for the same.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use walkdir::WalkDir;

use crate::agent::Agent;
use crate::manifest::Manifest;
use crate::observed::{KnownFiles, Observed, Times};
use crate::site::Site;

/// The static shell of the base images: as it is on this machine, so listed by name and not by content.
pub const BUSYBOX: &str = "/bin/busybox";

/// How a Dockerfile is told where the site of its case is.
const SITE_ARGUMENT: &str = "SITE";

/// One directory of the corpus.
#[derive(Clone, Debug)]
pub struct Case {
    /// The directory's name.
    pub name: String,
    /// Where it lies.
    pub directory: PathBuf,
    /// What `args.json` says.
    pub arguments: Arguments,
    /// The build before this one.
    pub earlier: Option<Box<Case>>,
    /// Of an earlier build: the case that has the files it does not have.
    fallback: Option<PathBuf>,
}

/// What the command line of a case says beside file and context.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Arguments {
    /// `--target`.
    pub target: Option<String>,
    /// `--platform`.
    pub platform: Option<String>,
    /// `--build-arg`; null is the form without a value, taken from `environment`.
    pub build_args: BTreeMap<String, Option<String>>,
    /// The environment of the command line.
    pub environment: BTreeMap<String, String>,
    /// `--build-context`: the name of a directory (or manifest) of the case; `oci-layout://TAG` for one of its images; what else has a
    /// scheme, and a path of the site, as it is.
    pub contexts: BTreeMap<String, String>,
    /// `--label`.
    pub labels: BTreeMap<String, String>,
    /// `--secret`, by id.
    pub secrets: BTreeMap<String, String>,
    /// `--ssh`: ids of agents without keys.
    pub ssh: Vec<String>,
    /// `--allow`.
    pub allow: Vec<String>,
    /// `--add-host`, name to address.
    pub hosts: BTreeMap<String, String>,
    /// Where in the context the Dockerfile lies, or `-`; by default it lies outside of a directory, and where every builder looks for it in
    /// another context.
    pub file: Option<String>,
    /// The context: `-`, or a URL; by default the directory of that name.
    pub context: Option<String>,
    /// Which file of the case (`context/…` for one of the context) is standard input.
    pub stdin: Option<PathBuf>,
    /// Times are compared, too.
    pub times: bool,
    /// `--output …,rewrite-timestamp=true`.
    pub rewrite_timestamp: bool,
    /// The reference builder refuses this case.
    pub fails: bool,
}

/// A case laid out for a builder.
pub struct Prepared {
    /// What `args.json` says, with the address of the site.
    pub arguments: Arguments,
    /// Images to build first, in this order.
    pub images: Vec<Image>,
    /// A build to make before, by itself without cache.
    pub earlier: Option<Box<Prepared>>,
    /// `--file` of a context that is a directory.
    dockerfile: PathBuf,
    /// The context directory.
    context: PathBuf,
    /// `--build-context`, directories by their path.
    contexts: BTreeMap<String, NamedContext>,
    /// `--secret id=KEY,src=VALUE`.
    secrets: BTreeMap<String, PathBuf>,
    agents: Vec<(String, Agent)>,
    site: Option<Site>,
    work: PathBuf,
}

/// An image that a case needs.
pub struct Image {
    /// Its name.
    pub tag: String,
    /// Where it is to be written as an OCI layout, too.
    pub layout: Option<PathBuf>,
    dockerfile: PathBuf,
    context: PathBuf,
}

/// What is to the right of `--build-context NAME=`.
enum NamedContext {
    Directory(PathBuf),
    Layout(PathBuf),
    Address(String),
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
            if directory.join("README").is_file() {
                cases.push(Self::read(name, directory)?);
            }
        }
        Ok(cases)
    }

    fn read(name: String, directory: PathBuf) -> Result<Self> {
        let mut case =
            Self { name, directory, arguments: Arguments::default(), earlier: None, fallback: None };
        case.arguments = read_arguments(&case.file("args.json"))?;
        let earlier = case.directory.join("earlier");
        if earlier.is_dir() {
            let mut earlier =
                Self { directory: earlier, fallback: Some(case.directory.clone()), ..case.clone() };
            earlier.arguments = read_arguments(&earlier.file("args.json"))?;
            case.earlier = Some(Box::new(earlier));
        }
        Ok(case)
    }

    /// Where the case has its file or directory `name`.
    fn file(&self, name: &str) -> PathBuf {
        let own = self.directory.join(name);
        match &self.fallback {
            Some(fallback) if !own.exists() => fallback.join(name),
            _ => own,
        }
    }

    /// Lays the case out below the empty directory `work`; if it has a site, that is where `listen` listens.
    ///
    /// # Errors
    /// Something of it cannot be read or made; devices and owners need root.
    pub fn prepare(&self, work: &Path, listen: impl FnOnce() -> io::Result<TcpListener>) -> Result<Prepared> {
        let site = if self.directory.join("site.manifest").is_file() {
            let site = Site::start_at(listen()?);
            site.serve_directory(&self.tree("site", work)?)?;
            Some(site)
        } else {
            None
        };
        let host = site.as_ref().map(|site| site.server().host());
        let mut prepared = self.lay_out(work, host.as_deref())?;
        if let Some(earlier) = &self.earlier {
            let work = work.join("earlier");
            fs::create_dir(&work)?;
            prepared.earlier = Some(Box::new(earlier.lay_out(&work, host.as_deref())?));
        }
        prepared.site = site;
        Ok(prepared)
    }

    fn lay_out(&self, work: &Path, host: Option<&str>) -> Result<Prepared> {
        let context = self.tree("context", work)?;
        let dockerfile = match &self.arguments.file {
            Some(inside) if inside != "-" => context.join(inside),
            _ => work.join("Dockerfile"),
        };
        self.copy_dockerfile(&dockerfile)?;
        let arguments = with_address(self.arguments.clone(), host);
        let contexts = arguments.contexts.iter();
        let contexts = contexts.map(|(name, value)| Ok((name.clone(), self.named_context(value, work)?)));
        let contexts: BTreeMap<_, _> = contexts.collect::<Result<_>>()?;
        Ok(Prepared {
            dockerfile,
            secrets: self.secrets(work)?,
            images: self.images(work, &context, &contexts)?,
            agents: self.agents(work)?,
            earlier: None,
            site: None,
            work: work.to_owned(),
            arguments,
            contexts,
            context,
        })
    }

    fn copy_dockerfile(&self, target: &Path) -> Result<()> {
        fs::create_dir_all(target.parent().context("a Dockerfile has a parent")?)?;
        let copy = |name: &str, target: PathBuf| {
            let source = self.file(name);
            if source.is_file() { fs::copy(source, target).map(drop) } else { Ok(()) }
        };
        copy("Dockerfile", target.to_owned())?;
        let mut beside = target.as_os_str().to_owned();
        beside.push(".dockerignore");
        Ok(copy("Dockerfile.dockerignore", beside.into())?)
    }

    /// Makes the directory `name` below `work`, from the case's directory and manifest of that name.
    fn tree(&self, name: &str, work: &Path) -> Result<PathBuf> {
        let target = work.join(name);
        make_directory(&target)?;
        let checked_in = self.file(name);
        if checked_in.is_dir() {
            copy_tree(&checked_in, &target)?;
        }
        let manifest = self.file(&format!("{name}.manifest"));
        if manifest.is_file() {
            let text = fs::read_to_string(&manifest)?;
            Manifest::parse(&text)
                .and_then(|manifest| manifest.materialise(&target))
                .with_context(|| format!("`{}`", manifest.display()))?;
        }
        Ok(target)
    }

    fn named_context(&self, value: &str, work: &Path) -> Result<NamedContext> {
        Ok(match value.strip_prefix("oci-layout://") {
            Some(tag) => NamedContext::Layout(work.join(format!("layout-{tag}"))),
            None if value.contains("://") => NamedContext::Address(value.to_owned()),
            None => NamedContext::Directory(self.tree(value, work)?),
        })
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

    fn agents(&self, work: &Path) -> Result<Vec<(String, Agent)>> {
        let agents = self.arguments.ssh.iter();
        let start = |id: &String| Agent::start(&work.join(format!("agent-{id}")));
        agents.map(|id| Ok((id.clone(), start(id)?))).collect()
    }

    fn images(
        &self,
        work: &Path,
        context: &Path,
        contexts: &BTreeMap<String, NamedContext>,
    ) -> Result<Vec<Image>> {
        let directory = self.directory.join("images");
        if !directory.is_dir() {
            return Ok(Vec::new());
        }
        let mut images = Vec::new();
        for tag in names(&directory)? {
            let dockerfile = work.join(format!("Dockerfile.{tag}"));
            fs::copy(directory.join(&tag).join("Dockerfile"), &dockerfile)?;
            let layout = work.join(format!("layout-{tag}"));
            let is_wanted =
                contexts.values().any(|value| matches!(value, NamedContext::Layout(path) if *path == layout));
            let layout = is_wanted.then_some(layout);
            images.push(Image { tag, layout, dockerfile, context: context.to_owned() });
        }
        Ok(images)
    }
}

impl Image {
    /// What stands behind `build`; `path` says how the builder names a path of this machine.
    pub fn command_line(&self, path: &dyn Fn(&Path) -> String) -> Vec<String> {
        let mut line = vec![format!("--tag={}", self.tag), format!("--file={}", path(&self.dockerfile))];
        if let Some(layout) = &self.layout {
            line.push(format!("--output=type=oci,tar=false,dest={}", path(layout)));
        }
        line.push(path(&self.context));
        line
    }
}

impl Prepared {
    /// What stands behind `build`, but for the output; `path` says how the builder names a path of this machine.
    pub fn command_line(&self, path: &dyn Fn(&Path) -> String) -> Vec<String> {
        let mut line = Vec::new();
        let mut flag = |name: &str, value: &str| line.push(format!("--{name}={value}"));
        let arguments = &self.arguments;
        match (arguments.file.as_deref(), arguments.context.as_deref()) {
            (Some("-"), _) => flag("file", "-"),
            (Some(inside), Some(_)) => flag("file", inside),
            (None, Some(_)) => {}
            (_, None) => flag("file", &path(&self.dockerfile)),
        }
        for (name, value) in [("target", &arguments.target), ("platform", &arguments.platform)] {
            value.iter().for_each(|value| flag(name, value));
        }
        for (name, value) in &arguments.build_args {
            flag(
                "build-arg",
                &value.as_ref().map_or_else(|| name.clone(), |value| format!("{name}={value}")),
            );
        }
        for (name, value) in &self.contexts {
            let value = match value {
                NamedContext::Directory(directory) => path(directory),
                NamedContext::Layout(directory) => format!("oci-layout://{}", path(directory)),
                NamedContext::Address(address) => address.clone(),
            };
            flag("build-context", &format!("{name}={value}"));
        }
        for (name, value) in &arguments.labels {
            flag("label", &format!("{name}={value}"));
        }
        for (id, file) in &self.secrets {
            flag("secret", &format!("id={id},src={}", path(file)));
        }
        for (id, agent) in &self.agents {
            flag("ssh", &format!("{id}={}", path(agent.socket())));
        }
        arguments.allow.iter().for_each(|right| flag("allow", right));
        for (name, address) in &arguments.hosts {
            flag("add-host", &format!("{name}:{address}"));
        }
        line.push(arguments.context.clone().unwrap_or_else(|| path(&self.context)));
        line
    }

    /// `--output` of an OCI archive, without compression, which no two builders do alike.
    #[must_use]
    pub fn output(&self, archive: &str) -> String {
        let rewritten = if self.arguments.rewrite_timestamp { ",rewrite-timestamp=true" } else { "" };
        format!("--output=type=oci,dest={archive},compression=uncompressed{rewritten}")
    }

    /// What is compared of the archive at `path`.
    ///
    /// # Errors
    /// It is not one image.
    pub fn observe(&self, path: &Path, known: &KnownFiles) -> Result<Observed> {
        let times = if self.arguments.times { Times::Shown } else { Times::LeftOut };
        Ok(Observed::read(path, known, times)?.map(|text| self.without_places(text)))
    }

    /// What the builder reads.
    ///
    /// # Errors
    /// The case has no such file.
    pub fn stdin(&self) -> Result<Stdio> {
        let Some(file) = &self.arguments.stdin else { return Ok(Stdio::null()) };
        let file = self.work.join(file);
        Ok(File::open(&file).with_context(|| format!("`{}` is no file", file.display()))?.into())
    }

    /// Leaves out what differs from run to run: where the site is, and where the case lies.
    #[must_use]
    pub fn without_places(&self, text: &str) -> String {
        let text = text.replace(&format!("{}/", self.work.display()), "");
        self.site.as_ref().map_or_else(|| text.clone(), |site| text.replace(&site.server().host(), "site"))
    }
}

/// Fills in where the site is.
fn with_address(mut arguments: Arguments, host: Option<&str>) -> Arguments {
    let Some(host) = host else { return arguments };
    let address = format!("http://{host}");
    for value in arguments.contexts.values_mut().chain(&mut arguments.context) {
        *value = value.replace("$SITE", &address);
    }
    arguments.build_args.insert(SITE_ARGUMENT.to_owned(), Some(address));
    arguments
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
    use std::collections::BTreeSet;

    use super::*;

    fn corpus() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/differential")
    }

    #[test]
    fn every_case_names_its_section_and_has_its_recording() {
        let cases = Case::all(&corpus()).unwrap();
        assert!(cases.len() >= 300, "{} cases", cases.len());
        let mut sections = BTreeSet::new();
        for case in cases {
            let readme = fs::read_to_string(case.directory.join("README")).unwrap();
            let (place, _) = readme.split_once(':').unwrap_or((&readme, ""));
            let named =
                place.split([' ', ',', '.']).filter_map(|word| word.strip_prefix('A')?.parse::<u32>().ok());
            let named: Vec<u32> = named.collect();
            assert!(!named.is_empty(), "{}: {readme}", case.name);
            sections.extend(named);
            let expected = names(&case.directory.join("expected")).unwrap();
            let wanted: &[&str] = if case.arguments.fails {
                &["error.txt"]
            } else {
                &["config.json", "history.json", "tree.txt"]
            };
            assert_eq!(expected, wanted, "{}", case.name);
        }
        assert_eq!(sections.into_iter().collect::<Vec<_>>(), (1..=13).collect::<Vec<_>>());
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
                r#"{"file": "sub/Dockerfile", "secrets": {"s": "v"}, "stdin": "context/b",
                    "contexts": {"n": "other", "i": "docker-image://base", "l": "oci-layout://parent", "s": "$SITE/f"}}"#,
            ),
            ("site.manifest", "file f content=f"),
            ("earlier/args.json", r#"{"labels": {"a": "b"}}"#),
            ("earlier/context/a", "before"),
            ("context/a", "a"),
            ("context.manifest", "file b content=b"),
            ("other.manifest", "file c"),
            ("images/parent/Dockerfile", "FROM scratch"),
        ] {
            fs::create_dir_all(case.join(path).parent().unwrap()).unwrap();
            fs::write(case.join(path), text).unwrap();
        }
        fs::write(case.join("README"), "A1: x").unwrap();
        let work = directory.path().join("work");
        fs::create_dir(&work).unwrap();
        let cases = Case::all(directory.path()).unwrap();
        let listen = || TcpListener::bind(("127.0.0.1", 0));
        let prepared = cases[0].prepare(&work, listen).unwrap();
        assert_eq!(names(&work.join("context")).unwrap(), ["a", "b", "sub"]);
        assert_eq!(names(&work.join("context/sub")).unwrap(), ["Dockerfile", "Dockerfile.dockerignore"]);
        assert_eq!(names(&work.join("other")).unwrap(), ["c"]);
        assert_eq!(fs::read_to_string(work.join("secret-s")).unwrap(), "v");
        let path = |path: &Path| format!("WORK/{}", path.strip_prefix(&work).unwrap().display());
        let line = prepared.command_line(&path).join(" ");
        assert_eq!(
            prepared.without_places(&line),
            "--file=WORK/context/sub/Dockerfile --build-arg=SITE=http://site --build-context=i=docker-image://base \
             --build-context=l=oci-layout://WORK/layout-parent --build-context=n=WORK/other \
             --build-context=s=http://site/f --secret=id=s,src=WORK/secret-s WORK/context"
        );
        assert_eq!(
            prepared.images[0].command_line(&path).join(" "),
            "--tag=parent --file=WORK/Dockerfile.parent --output=type=oci,tar=false,dest=WORK/layout-parent WORK/context"
        );
        let earlier = prepared.earlier.as_deref().unwrap();
        assert_eq!(
            prepared.without_places(&earlier.command_line(&path).join(" ")),
            "--file=WORK/earlier/Dockerfile --build-arg=SITE=http://site --label=a=b WORK/earlier/context"
        );
        assert_eq!(fs::read_to_string(work.join("earlier/context/a")).unwrap(), "before");
        assert_eq!(names(&work.join("earlier/context")).unwrap(), ["a", "b"]);
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
