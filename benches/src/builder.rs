//! How each program is told to do a workload.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use anyhow::{Context, Error, Result, bail, ensure};
use rustix::process::{Resource, getrlimit};

use crate::material::Material;
use crate::registry::{Registry, within};
use crate::sample::Daemon;
use crate::workload::{Codec, Measured, Workload};

/// The name of the base image.
const BASE: &str = "bench-base";

/// buildah's and podman's configuration, in the work directory.
const LIMITS: &str = "containers.conf";

/// The layout that skopeo pushes, in the work directory.
const TO_PUSH: &str = "skopeo-layout";

/// Something that builds.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Builder {
    /// Ours.
    Rbuild,
    /// BuildKit as part of docker, by `docker buildx`.
    BuildKit,
    /// Docker's builder before BuildKit, in the same docker.
    Classic,
    /// buildah; podman where a container is run.
    Buildah,
    /// skopeo, which moves images, and unpacks none.
    Skopeo,
}

impl Builder {
    /// All, in the order of their turns.
    pub const ALL: [Self; 5] = [Self::Rbuild, Self::BuildKit, Self::Classic, Self::Buildah, Self::Skopeo];

    /// Whether it can do the workload at all.
    #[must_use]
    pub fn can(self, workload: Workload) -> bool {
        match workload.measured() {
            // `docker save` does not compress, and `docker run` is the same for both of docker's builders.
            Measured::Export(_)
            | Measured::Run
            | Measured::BuildNamed
            | Measured::PushCompressing
            | Measured::BuildPush => !matches!(self, Self::Classic | Self::Skopeo),
            Measured::Pull | Measured::Push => self != Self::Classic,
            Measured::Build | Measured::BuildWithoutCache => self != Self::Skopeo,
        }
    }
}

impl FromStr for Builder {
    type Err = Error;

    /// Any that one may leave out.
    fn from_str(text: &str) -> Result<Self, Error> {
        Ok(match text {
            "buildkit" => Self::BuildKit,
            "classic" => Self::Classic,
            "buildah" => Self::Buildah,
            "skopeo" => Self::Skopeo,
            _ => bail!("`{text}` is none of buildkit, classic, buildah, skopeo"),
        })
    }
}

impl fmt::Display for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rbuild => "rbuild",
            Self::BuildKit => "BuildKit",
            Self::Classic => "docker classic",
            Self::Buildah => "buildah",
            Self::Skopeo => "skopeo",
        })
    }
}

/// Where the other builders are.
pub struct Peers<'p> {
    /// A command there, with `/exchange` as working directory.
    pub command: &'p dyn Fn(&str) -> Command,
    /// The directory that is `/exchange` there.
    pub exchange: PathBuf,
    /// Docker's daemon, process 1 there.
    pub init: u32,
    /// Name and version of each.
    pub versions: Vec<(String, String)>,
}

/// Whether a build may use what is cached.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cache {
    /// It may.
    Used,
    /// It may not.
    Unused,
}

/// The builders and what they work on.
pub struct Site<'s> {
    /// The program to measure.
    pub rbuild: &'s Path,
    /// The others, if they are to be measured.
    pub peers: Option<&'s Peers<'s>>,
    /// Those that take no part.
    pub left_out: &'s [Builder],
    /// A directory that all of them see.
    pub work: &'s Path,
    /// The contexts, in `work`.
    pub material: &'s Material,
    /// Where images come from and go, if a workload wants it.
    pub registry: Option<&'s Registry>,
}

impl Site<'_> {
    /// Those that are here.
    #[must_use]
    pub fn builders(&self) -> Vec<Builder> {
        let is_here = |builder: &Builder| *builder == Builder::Rbuild || self.peers.is_some();
        Builder::ALL
            .into_iter()
            .filter(|builder| is_here(builder) && !self.left_out.contains(builder))
            .collect()
    }

    /// Makes the configuration that a builder needs. buildah raises the limits of every process, which not every root may.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn configure(&self) -> Result<()> {
        let limits = [("nofile", Resource::Nofile), ("nproc", Resource::Nproc)].map(|(name, resource)| {
            let limit = getrlimit(resource);
            let text = |value: Option<u64>| value.map_or_else(|| "-1".to_owned(), |value| value.to_string());
            format!("\"{name}={}:{}\"", text(limit.current), text(limit.maximum))
        });
        let text = format!("[containers]\ndefault_ulimits = [{}]\n", limits.join(", "));
        Ok(fs::write(self.work.join(LIMITS), text)?)
    }

    /// The daemon that works for a builder.
    ///
    /// # Errors
    /// If it is not there.
    pub fn daemon(&self, builder: Builder) -> Result<Option<Daemon>> {
        match (builder, self.peers) {
            (Builder::BuildKit | Builder::Classic, Some(peers)) => Daemon::of(peers.init).map(Some),
            _ => Ok(None),
        }
    }

    /// Builds the Dockerfile of a directory below `benches/builds`, over the context of that name, as `bench-NAME`.
    ///
    /// # Errors
    /// If the peers are needed and not there.
    pub fn build(&self, builder: Builder, name: &str, cache: Cache) -> Result<Command> {
        let tag = if name == "base" { BASE.to_owned() } else { format!("bench-{name}") };
        self.build_as(builder, name, cache, &tag)
    }

    fn build_as(&self, builder: Builder, name: &str, cache: Cache, tag: &str) -> Result<Command> {
        let mut command = self.program(builder)?;
        command.arg("build");
        match builder {
            Builder::Rbuild => command.args(["--network=none", "--progress=plain"]),
            Builder::BuildKit => command.args(["--network=none", "--progress=plain", "--provenance=false"]),
            Builder::Classic => command.args(["--network=none"]),
            // Without `--layers` buildah keeps no cache, without `--jobs` it builds one stage after the other.
            Builder::Buildah => command.args(["--network=none", "--layers", "--jobs=8", "--pull=never"]),
            Builder::Skopeo => bail!("skopeo builds nothing"),
        };
        if cache == Cache::Unused {
            command.arg("--no-cache");
        }
        let dockerfile = self.work.join("builds").join(name).join("Dockerfile");
        command.arg("--tag").arg(tag);
        command.arg("--file").arg(self.seen_by(builder, &dockerfile)?);
        command.arg(self.seen_by(builder, &self.material.context(name))?);
        Ok(command)
    }

    /// The command that is measured.
    ///
    /// # Errors
    /// If the peers are needed and not there.
    pub fn measured(&self, builder: Builder, workload: Workload) -> Result<Command> {
        match workload.measured() {
            Measured::Build => self.build(builder, workload.directory(), Cache::Used),
            Measured::BuildWithoutCache => self.build(builder, workload.directory(), Cache::Unused),
            Measured::Export(codec) => self.export(builder, workload.directory(), codec),
            Measured::Run => self.run(builder),
            Measured::Pull => self.pull(builder),
            Measured::BuildNamed => self.build_named(builder),
            Measured::PushCompressing if builder == Builder::BuildKit => self.build_push(builder),
            Measured::Push | Measured::PushCompressing => self.push(builder),
            Measured::BuildPush => self.build_push(builder),
        }
    }

    /// Forgets all builds but the base image.
    ///
    /// # Errors
    /// If that cannot be done.
    pub fn forget(&self, builder: Builder) -> Result<()> {
        match builder {
            Builder::Rbuild => {
                let store = self.store();
                if store.exists() {
                    fs::remove_dir_all(&store)?;
                }
                self.make_base(builder)
            }
            Builder::BuildKit | Builder::Classic => {
                // An image keeps the build cache of its layers alive.
                let images = "docker image ls --quiet --filter reference='bench-*' --filter reference='127.0.0.1:*/*/*' | sort -u";
                let keep =
                    format!("docker image inspect --format '{{{{.Id}}}}' {BASE} | cut -d: -f2 | cut -c1-12");
                let script = format!(
                    "for image in $({images}); do test $image = $({keep}) || docker image rm --force $image; done
                     docker image prune --force; docker builder prune --all --force"
                );
                quiet(self.peer("sh")?.args(["-euc", &script]))
            }
            Builder::Buildah => {
                let mut command = self.program(builder)?;
                quiet(command.args(["rmi", "--all", "--force"]))?;
                self.make_base(builder)
            }
            Builder::Skopeo => {
                let pulled = self.work.join("skopeo");
                if pulled.exists() {
                    fs::remove_dir_all(pulled)?;
                }
                Ok(())
            }
        }
    }

    /// Builds the base image.
    ///
    /// # Errors
    /// If that fails.
    pub fn make_base(&self, builder: Builder) -> Result<()> {
        if builder == Builder::Skopeo {
            return Ok(());
        }
        quiet(&mut self.build(builder, "base", Cache::Used)?)
    }

    /// The name at the registry that an image is pulled by, or pushed to by one builder.
    fn name_there(&self, of: &str) -> Result<String> {
        let registry = self.registry.context("there is no registry")?;
        Ok(format!("{}/{of}/layers", registry.host()))
    }

    /// Sees to it that the registry has the image that everybody pulls.
    ///
    /// # Errors
    /// If that fails.
    pub fn fill_registry(&self) -> Result<()> {
        quiet(&mut self.build(Builder::Rbuild, "layers", Cache::Used)?)?;
        let name = self.name_there("all")?;
        quiet(self.program(Builder::Rbuild)?.args(["tag", "bench-layers", &name]))?;
        quiet(self.program(Builder::Rbuild)?.args(["push", &name]))
    }

    fn pull(&self, builder: Builder) -> Result<Command> {
        let name = self.name_there("all")?;
        let mut command = self.program(builder)?;
        match builder {
            Builder::Rbuild | Builder::BuildKit | Builder::Classic => command.args(["pull", &name]),
            Builder::Buildah => command.args(["pull", "--quiet", "--tls-verify=false", &name]),
            Builder::Skopeo => {
                let to = self.seen_by(builder, &self.work.join("skopeo"))?;
                command.args(["copy", "--quiet", "--src-tls-verify=false"]);
                command.args([format!("docker://{name}"), format!("oci:{to}:layers")])
            }
        };
        Ok(command)
    }

    /// Builds the image anew, by the name that it is pushed by.
    ///
    /// # Errors
    /// If that fails.
    pub fn prepare_push(&self, builder: Builder) -> Result<()> {
        match builder {
            Builder::Skopeo => self.lay_out(&self.work.join(TO_PUSH)),
            _ => quiet(&mut self.build_named(builder)?),
        }
    }

    /// Builds it so that nobody has compressed what is new, and gives it that name then.
    ///
    /// # Errors
    /// If that fails.
    pub fn prepare_push_compressing(&self, builder: Builder) -> Result<()> {
        let mut build = self.build(builder, "layers", Cache::Used)?;
        if builder == Builder::BuildKit {
            // As an image it would be compressed now.
            return quiet(build.args(["--output", "type=cacheonly"]));
        }
        quiet(&mut build)?;
        quiet(self.program(builder)?.args(["tag", "bench-layers", &self.name_of(builder)?]))
    }

    fn build_named(&self, builder: Builder) -> Result<Command> {
        self.build_as(builder, "layers", Cache::Used, &self.name_of(builder)?)
    }

    /// The name by which a builder pushes.
    fn name_of(&self, builder: Builder) -> Result<String> {
        self.name_there(&format!("{builder}").to_lowercase().replace(' ', "-"))
    }

    /// Makes an OCI layout of the image.
    fn lay_out(&self, directory: &Path) -> Result<()> {
        if directory.exists() {
            fs::remove_dir_all(directory)?;
        }
        let output = format!("type=oci,tar=false,dest={}", directory.display());
        quiet(self.build(Builder::Rbuild, "layers", Cache::Used)?.args(["--output", &output]))
    }

    /// Pushes an image by the name that it has.
    ///
    /// # Errors
    /// If there is no registry.
    pub fn push(&self, builder: Builder) -> Result<Command> {
        let name = self.name_of(builder)?;
        let mut command = self.program(builder)?;
        match builder {
            Builder::Buildah => command.args(["push", "--quiet", "--tls-verify=false", &name]),
            Builder::Skopeo => {
                let from = self.seen_by(builder, &self.work.join(TO_PUSH))?;
                command.args(["copy", "--quiet", "--dest-tls-verify=false"]);
                command.args([format!("oci:{from}"), format!("docker://{name}")])
            }
            _ => command.args(["push", &name]),
        };
        Ok(command)
    }

    fn export(&self, builder: Builder, name: &str, codec: Codec) -> Result<Command> {
        let archive = self.work.join(format!("{builder}.tar"));
        if archive.exists() {
            fs::remove_file(&archive)?;
        }
        let archive = self.seen_by(builder, &archive)?;
        if builder == Builder::Buildah {
            let mut command = self.program(builder)?;
            command.args(["push", "--quiet", "--compression-format", codec.name()]);
            command.args([format!("bench-{name}"), format!("oci-archive:{archive}")]);
            return Ok(command);
        }
        let mut command = self.build(builder, name, Cache::Used)?;
        let output = format!("type=oci,compression={},dest={archive}", codec.name());
        command.args(["--output", &output]);
        Ok(command)
    }

    fn build_push(&self, builder: Builder) -> Result<Command> {
        let mut build = self.build_named(builder)?;
        if builder != Builder::Buildah {
            build.arg("--push");
            return Ok(build);
        }
        // It does so in two commands.
        let mut both = self.peer("sh")?;
        let words = |command: &Command| {
            let words = std::iter::once(command.get_program()).chain(command.get_args());
            words.map(|word| format!("'{}'", word.to_string_lossy())).collect::<Vec<_>>()
        };
        // What enters the engine's namespaces is done once.
        let entered = words(&self.peer("true")?).len() - 1;
        let script =
            [words(&build), words(&self.push(builder)?)].map(|words| words[entered..].join(" ")).join(" && ");
        both.args(["-c", &script]);
        Ok(both)
    }

    /// How large the archive is that a builder wrote last.
    pub(crate) fn exported_bytes(&self, builder: Builder) -> Option<u64> {
        fs::metadata(self.work.join(format!("{builder}.tar"))).map(|file| file.len()).ok()
    }

    fn run(&self, builder: Builder) -> Result<Command> {
        let mut command = match builder {
            Builder::Buildah => self.in_storage("podman")?,
            other => self.program(other)?,
        };
        command.args(["run", "--network=none"]);
        match builder {
            Builder::Rbuild => command.args([BASE, "true"]),
            _ => command.args(["--rm", BASE, "true"]),
        };
        Ok(command)
    }

    fn program(&self, builder: Builder) -> Result<Command> {
        Ok(match builder {
            Builder::Rbuild => {
                let mut command = match self.registry {
                    Some(_) => within(self.peers.map(|peers| peers.init), self.rbuild),
                    None => Command::new(self.rbuild),
                };
                command.arg("--root").arg(self.store());
                command
            }
            Builder::BuildKit => self.peer("docker")?,
            Builder::Classic => {
                let mut command = self.peer("env")?;
                command.args(["DOCKER_BUILDKIT=0", "docker"]);
                command
            }
            Builder::Buildah => self.in_storage("buildah")?,
            Builder::Skopeo => self.peer("skopeo")?,
        })
    }

    /// buildah or podman on a storage of its own, with the runtime that takes any layout of cgroups.
    fn in_storage(&self, program: &str) -> Result<Command> {
        let storage = self.seen_by(Builder::Buildah, &self.work.join("buildah"))?;
        let mut command = self.peer("env")?;
        command.arg("BUILDAH_RUNTIME=runc");
        let limits = self.seen_by(Builder::Buildah, &self.work.join(LIMITS))?;
        command.arg(format!("CONTAINERS_CONF_OVERRIDE={limits}")).arg(program);
        command.args(["--root", &format!("{storage}/storage"), "--runroot", &format!("{storage}/run")]);
        command.args(["--storage-driver", "overlay"]);
        if program == "podman" {
            command.args(["--runtime", "runc", "--cgroup-manager", "cgroupfs"]);
        }
        Ok(command)
    }

    fn peer(&self, program: &str) -> Result<Command> {
        let peers = self.peers.context("the other builders are not running")?;
        Ok((peers.command)(program))
    }

    fn store(&self) -> PathBuf {
        self.work.join("rbuild-store")
    }

    fn seen_by(&self, builder: Builder, path: &Path) -> Result<String> {
        let path = match (builder, self.peers) {
            (Builder::Rbuild, _) | (_, None) => path.to_owned(),
            (_, Some(peers)) => Path::new("/exchange").join(path.strip_prefix(&peers.exchange)?),
        };
        path.into_os_string().into_string().ok().context("paths of the bench are text")
    }
}

/// Runs what is not measured.
pub(crate) fn quiet(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} ended with {}:\n{said}", output.status);
    Ok(())
}

/// Builds before a measurement.
pub(crate) fn build_unmeasured(site: &Site<'_>, builder: Builder, workload: Workload) -> Result<()> {
    let mut command = site.build(builder, workload.directory(), Cache::Used)?;
    if builder == Builder::BuildKit && matches!(workload.measured(), Measured::Export(_)) {
        // As an image it would be compressed now, and the export would only copy.
        command.args(["--output", "type=cacheonly"]);
    }
    quiet(&mut command)
}
