//! What enters a step's keys, and what is left out on purpose.
//!
//! | step | part | why it can change the result |
//! | --- | --- | --- |
//! | image | `image` | its id: the digest of its config, which names all layers |
//! | URL | `URL` | the digest of the file behind it, and its name; of a repository, the commit and what is taken of it |
//! | RUN | `command` | program and arguments, the shell included |
//! | RUN | `ENV NAME`, `ARG NAME` | each variable of the environment by name |
//! | RUN | `working directory` | where the process starts |
//! | RUN | `user` | as written; what it resolves to is in the parent |
//! | RUN | `network` | what the process can reach |
//! | RUN | `security` | with `--security=insecure`: what the process may do |
//! | RUN | `host name` | the process can read it |
//! | RUN | `extra hosts` | names only |
//! | RUN | `mount TARGET` | kind, source path, access, tmpfs size, secret's or agent's id, mode and owner |
//! | RUN | `secret ID` | its value, keyed with the store's salt, if the secret was given with `cache=hash` |
//! | RUN | `script` | a heredoc that begins with `#!` |
//! | RUN | `platform` | what the process's code runs on |
//! | COPY | `sources` | how each source is written: decides names in the destination |
//! | COPY | `destination` | where to, and whether it is written as a directory |
//! | COPY | `owner` | `--chown`; names are resolved in the parent |
//! | COPY | `mode` | `--chmod` |
//! | COPY | `excludes` | `--exclude`, in order |
//! | COPY | `flags` | `--parents`, `--link`, and whether archives are unpacked, fetched ones too |
//! | COPY | `heredoc NAME` | content of a file that stands in the Dockerfile |
//! | WORKDIR | `directory` | what is made |
//! | WORKDIR | `user` | who owns it |
//! | COPY, RUN | `files of SOURCE` | name, type, mode, owner, size, link target, xattrs and content of what a context or (content key) another step gives |
//! | COPY, RUN | `step SOURCE` | definition key only: the step that files come from |
//! | COPY, RUN, WORKDIR | `time` | what `SOURCE_DATE_EPOCH` gives to the files made or seen, if it is set |
//! | all but image and URL | `parent` | the step below; absent for `COPY --link` |
//!
//! Left out, since it cannot change the result or must not: what a server says of a file besides its bytes; other mtimes, inode numbers and owners
//! of context files; files that no source names or an ignore file hides; mode and owner of files where `--chmod` and `--chown` replace them; proxy
//! variables; variables that a step does not see; what a COPY is not made by, such as user, shell, network and platform; addresses of extra hosts; the
//! identity, sharing and content of cache mounts; values of other secrets; what an ssh agent has; what is in a directory of the
//! machine that `--volume` shows; resource limits; how the Dockerfile is laid out; the
//! name of a stage or tag; LABEL, CMD and everything else that only the image's config has.
//!
//! Tests of `rbuild` build with one attribute changed for each of these words.

use std::fmt;

use oci::{ContentDigest, Digest, Hasher};
use plan::{Mount, Op, Source, Step, VariableOrigin};
use store::RecordKey;

/// Changes whenever equal parts no longer mean equal results, for example when COPY is mended. Old records are then not found.
const KEY_VERSION: &[u8] = b"rbuild key 2";

/// The name of one part of a key, as `explain` shows it.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum PartName {
    /// Id of an image.
    Image,
    /// What is behind a URL.
    Url(String),
    /// Program and arguments.
    Command,
    /// A variable that ENV or the base image set.
    Env(String),
    /// A variable that ARG set.
    Arg(String),
    /// Where a process starts.
    WorkingDirectory,
    /// Who runs it, or owns a WORKDIR.
    User,
    /// What it can reach.
    Network,
    /// What it may do, if more than others.
    Security,
    /// What the machine is called.
    HostName,
    /// Names in `/etc/hosts`.
    ExtraHosts,
    /// One `--mount`, by its target.
    Mount(String),
    /// The value of a secret that counts.
    Secret(String),
    /// A `#!` heredoc.
    Script,
    /// What the code runs on.
    Platform,
    /// Source arguments.
    Sources,
    /// Where a copy goes.
    Destination,
    /// `--chown`.
    Owner,
    /// `--chmod`.
    Mode,
    /// `--exclude`.
    Excludes,
    /// Flags that are on or off.
    Flags,
    /// A heredoc that becomes a file.
    Heredoc(String),
    /// What a WORKDIR makes.
    Directory,
    /// What a source gives, by content.
    Files(String),
    /// The step a source is, by definition.
    SourceStep(String),
    /// What `SOURCE_DATE_EPOCH` gives to files.
    Time,
    /// The filesystem below.
    Parent,
}

impl PartName {
    /// Whether the part stands for the outcome of another step.
    #[must_use]
    pub fn is_input(&self) -> bool {
        matches!(self, Self::Files(_) | Self::SourceStep(_) | Self::Parent)
    }
}

impl fmt::Display for PartName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image => f.write_str("image"),
            Self::Url(url) => f.write_str(url),
            Self::Command => f.write_str("command"),
            Self::Env(name) => write!(f, "ENV {name}"),
            Self::Arg(name) => write!(f, "ARG {name}"),
            Self::WorkingDirectory => f.write_str("working directory"),
            Self::User => f.write_str("user"),
            Self::Network => f.write_str("network"),
            Self::Security => f.write_str("security"),
            Self::HostName => f.write_str("host name"),
            Self::ExtraHosts => f.write_str("extra hosts"),
            Self::Mount(target) => write!(f, "mount {target}"),
            Self::Secret(id) => write!(f, "secret {id}"),
            Self::Script => f.write_str("script"),
            Self::Platform => f.write_str("platform"),
            Self::Sources => f.write_str("sources"),
            Self::Destination => f.write_str("destination"),
            Self::Owner => f.write_str("owner"),
            Self::Mode => f.write_str("mode"),
            Self::Excludes => f.write_str("excludes"),
            Self::Flags => f.write_str("flags"),
            Self::Heredoc(name) => write!(f, "heredoc {name}"),
            Self::Directory => f.write_str("directory"),
            Self::Files(source) => write!(f, "files of {source}"),
            Self::SourceStep(source) => write!(f, "step {source}"),
            Self::Time => f.write_str("time"),
            Self::Parent => f.write_str("parent"),
        }
    }
}

/// The parts of one key, in a fixed order.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Parts(Vec<(PartName, Digest)>);

/// Both keys of a step.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Keys {
    /// Known before anything runs.
    pub definition: RecordKey,
    /// Known when the inputs are.
    pub content: RecordKey,
}

impl Parts {
    /// What a step says itself; its inputs are still missing.
    #[must_use]
    pub fn of(step: &Step) -> Self {
        let mut parts = Self::default();
        match &step.op {
            Op::Scratch => {}
            Op::Image(image) => parts.add(PartName::Image, [image.image.to_string()]),
            Op::Remote(remote) => {
                let name = PartName::Url(remote.request.shown().to_owned());
                let digest = std::iter::once(remote.content.digest.to_string());
                parts.add(name, digest.chain(remote.content.file_name.clone()));
            }
            Op::Run(run) => {
                parts.add_run(run);
                parts.add(PartName::Platform, [step.platform.to_string()]);
            }
            Op::Copy(copy) => parts.add_copy(copy),
            Op::Workdir(workdir) => {
                parts.add(PartName::Directory, [workdir.path.as_str()]);
                parts.add(PartName::User, workdir.user.iter().map(plan::UserSpec::as_str));
            }
        }
        if let Some(time) = step.op.time() {
            parts.add(PartName::Time, [time.to_string()]);
        }
        parts
    }

    /// Adds what another step or a context contributes.
    #[must_use]
    pub fn with_input(mut self, name: PartName, digest: Digest) -> Self {
        self.0.push((name, digest));
        self
    }

    /// Names and digests, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&PartName, &Digest)> {
        self.0.iter().map(|(name, digest)| (name, digest))
    }

    /// The definition key, if the inputs were added by definition.
    #[must_use]
    pub fn definition_key(&self) -> RecordKey {
        self.key(b"definition")
    }

    /// The content key, if the inputs were added by content.
    #[must_use]
    pub fn content_key(&self) -> RecordKey {
        self.key(b"content")
    }

    fn key(&self, kind: &[u8]) -> RecordKey {
        let mut hasher = Hasher::sha256();
        hasher.update_field(KEY_VERSION);
        hasher.update_field(kind);
        for (name, digest) in self.iter() {
            hasher.update_field(name.to_string());
            hasher.update_field(digest.as_bytes());
        }
        RecordKey::new(hasher.finish())
    }

    fn add(&mut self, name: PartName, fields: impl IntoIterator<Item = impl AsRef<[u8]>>) {
        let mut hasher = Hasher::sha256();
        fields.into_iter().for_each(|field| hasher.update_field(field));
        self.0.push((name, hasher.finish()));
    }

    fn add_run(&mut self, run: &plan::Run) {
        self.add(PartName::Command, &run.args);
        for variable in &run.env {
            let name = variable.name.clone();
            let name = match variable.origin {
                VariableOrigin::Env => PartName::Env(name),
                VariableOrigin::Arg => PartName::Arg(name),
            };
            self.add(name, [&variable.value]);
        }
        self.add(PartName::WorkingDirectory, [run.cwd.as_str()]);
        self.add(PartName::User, run.user.iter().map(plan::UserSpec::as_str));
        self.add(PartName::Network, [network_name(run.network)]);
        if run.security == plan::SecurityMode::Insecure {
            self.add(PartName::Security, ["insecure"]);
        }
        self.add(PartName::HostName, [&run.hostname]);
        self.add(PartName::ExtraHosts, run.extra_hosts.iter().map(|host| &host.name));
        for (index, mount) in run.mounts.iter().enumerate() {
            self.add(PartName::Mount(mount_name(mount, index)), mount_fields(mount));
        }
        if let Some(script) = &run.script {
            self.add(PartName::Script, [&script.name, &script.content]);
        }
    }

    fn add_copy(&mut self, copy: &plan::Copy) {
        self.add(PartName::Sources, copy.paths.iter().flat_map(|path| [&path.pivot, &path.pattern]));
        self.add(
            PartName::Destination,
            [copy.destination.path.as_str(), &format!("{:?}", copy.destination.form)],
        );
        let fetched = copy.paths.iter().filter_map(|path| path.fetched).map(|fetched| fetched.archives);
        let flags = format!("{:?} {:?} {:?}", copy.parents, copy.linkage, copy.archives);
        let flags = std::iter::once(flags).chain(fetched.map(|archives| format!("{archives:?}")));
        self.add(PartName::Owner, copy.owner.iter().map(ToString::to_string));
        self.add(PartName::Mode, copy.mode.iter().map(|mode| format!("{mode:?}")));
        self.add(PartName::Excludes, &copy.exclude);
        self.add(PartName::Flags, flags);
        for file in &copy.inline {
            self.add(PartName::Heredoc(file.name.clone()), [&file.content]);
        }
    }
}

fn network_name(network: plan::NetworkMode) -> &'static str {
    match network {
        plan::NetworkMode::Default => "default",
        plan::NetworkMode::None => "none",
        plan::NetworkMode::Host => "host",
    }
}

/// The target, or for a secret without one its variable.
fn mount_name(mount: &Mount, index: usize) -> String {
    match (mount.target(), mount) {
        (Some(target), _) => target.to_string(),
        (None, Mount::Secret(secret)) => secret.env.clone().unwrap_or_else(|| secret.id.clone()),
        (None, _) => index.to_string(),
    }
}

fn mount_fields(mount: &Mount) -> Vec<String> {
    match mount {
        Mount::Bind(bind) => vec!["bind".to_owned(), bind.path.to_string(), format!("{:?}", bind.access)],
        // Two RUNs that differ in the cache they use still promise the same result: that is what a cache mount is for.
        Mount::Cache(_) => vec!["cache".to_owned()],
        Mount::Tmpfs(tmpfs) => {
            vec!["tmpfs".to_owned(), format!("{:?}", tmpfs.size_bytes), format!("{:?}", tmpfs.access)]
        }
        Mount::Secret(secret) => vec![
            "secret".to_owned(),
            secret.id.clone(),
            format!("{:?}", secret.target),
            format!("{:?}", secret.env),
            format!("{:o} {}:{}", secret.mode, secret.uid, secret.gid),
        ],
        Mount::Ssh(ssh) => {
            vec!["ssh".to_owned(), ssh.id.clone(), format!("{:o} {}:{}", ssh.mode, ssh.uid, ssh.gid)]
        }
        Mount::Host(host) => {
            vec!["host".to_owned(), host.source.display().to_string(), format!("{:?}", host.access)]
        }
    }
}

/// How a source is called in part names: the context's name, or what the step is.
#[must_use]
pub fn source_name(source: &Source, steps: &[Step]) -> String {
    match source {
        Source::Context(plan::ContextName::Main) => "context".to_owned(),
        Source::Context(plan::ContextName::Named(name)) => format!("context {name}"),
        Source::Step(id) => match &steps[id.index()] {
            Step { op: Op::Image(image), place: None, .. } => image.reference.familiar(),
            Step { op: Op::Remote(remote), .. } => remote.request.shown().to_owned(),
            Step { place: Some(place), .. } => match &place.stage.name {
                Some(name) => name.clone(),
                None => format!("stage {}", place.stage.index),
            },
            step => step.title.clone(),
        },
    }
}

/// What a layer list contains, in one digest: the parent part of a content key.
#[must_use]
pub fn content_of<'c>(layers: impl IntoIterator<Item = &'c ContentDigest>) -> Digest {
    let mut hasher = Hasher::sha256();
    layers.into_iter().for_each(|layer| hasher.update_field(layer.digest().as_bytes()));
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = include_str!("key.rs");

    /// The second column of the table at the top of this file.
    fn documented_parts() -> Vec<&'static str> {
        SOURCE
            .lines()
            .map_while(|line| line.strip_prefix("//!"))
            .filter_map(|line| line.split('|').nth(2))
            .flat_map(|cell| cell.split('`').skip(1).step_by(2))
            .collect()
    }

    #[test]
    fn the_table_names_every_part_and_no_other() {
        let named = |text: &str| {
            PartName::to_string(&match text {
                "ENV" => PartName::Env("NAME".to_owned()),
                "ARG" => PartName::Arg("NAME".to_owned()),
                "mount" => PartName::Mount("TARGET".to_owned()),
                "heredoc" => PartName::Heredoc("NAME".to_owned()),
                "secret" => PartName::Secret("ID".to_owned()),
                "URL" => PartName::Url("URL".to_owned()),
                "files" => PartName::Files("SOURCE".to_owned()),
                _ => PartName::SourceStep("SOURCE".to_owned()),
            })
        };
        let mut expected: Vec<String> =
            ["ENV", "ARG", "URL", "mount", "heredoc", "secret", "files", "step"].map(named).into();
        let plain = [
            PartName::Image,
            PartName::Command,
            PartName::WorkingDirectory,
            PartName::User,
            PartName::Network,
            PartName::Security,
            PartName::HostName,
            PartName::ExtraHosts,
            PartName::Script,
            PartName::Platform,
            PartName::Sources,
            PartName::Destination,
            PartName::Owner,
            PartName::Mode,
            PartName::Excludes,
            PartName::Flags,
            PartName::Directory,
            PartName::Time,
            PartName::Parent,
        ];
        expected.extend(plain.iter().map(ToString::to_string));
        expected.sort();
        let mut documented: Vec<String> = documented_parts().into_iter().map(ToOwned::to_owned).collect();
        documented.sort();
        documented.dedup();
        assert_eq!(documented, expected);
    }

    #[test]
    fn a_key_depends_on_names_values_and_kind() {
        let part = |name: PartName, text: &str| Parts::default().with_input(name, Digest::of(text));
        let key = part(PartName::Parent, "a").definition_key();
        assert_eq!(key, part(PartName::Parent, "a").definition_key());
        assert_ne!(key, part(PartName::Parent, "b").definition_key());
        assert_ne!(key, part(PartName::Command, "a").definition_key());
        assert_ne!(key, part(PartName::Parent, "a").content_key());
    }
}
