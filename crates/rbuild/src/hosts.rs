//! Which files say where registries are and whom to trust there, and reading them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use registry::{Certificates, Hosts, HostsError};

use crate::cli::RegistryArgs;
use crate::environment::Environment;

/// Why what is configured about registries cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// A file is there and cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A file says nothing that can be understood.
    #[error(transparent)]
    Hosts(#[from] HostsError),
    /// A certificate without its key, or the other way round.
    #[error("`{}` is there, and `{}` is not", present.display(), missing.display())]
    Pair { present: PathBuf, missing: PathBuf },
}

/// Everything that is configured, in the files of podman and its kin and of Docker, and on the command line.
pub(crate) fn read(environment: &Environment, args: &RegistryArgs) -> Result<Hosts, ConfigError> {
    let mut hosts = Hosts::none();
    for path in registries_conf(environment)? {
        if let Some(text) = text(&path)? {
            hosts.add_registries_conf(&path, &String::from_utf8_lossy(&text))?;
        }
    }
    for path in daemon_json(environment) {
        if let Some(text) = text(&path)? {
            hosts.add_daemon_json(&path, &text)?;
        }
    }
    if let Some(directory) = &args.cert_dir {
        // Whoever names a directory means one that is there.
        fs::read_dir(directory).map_err(|source| unreadable(directory, source))?;
        hosts.add_certificates(certificates(directory, None)?);
    }
    for place in certificate_places(environment) {
        for directory in entries(&place)?.into_iter().filter(|path| path.is_dir()) {
            let host = directory.file_name().map(|name| name.to_string_lossy().into_owned());
            hosts.add_certificates(certificates(&directory, host)?);
        }
    }
    if let Some(verify) = args.tls_verify {
        hosts.set_verify(verify);
    }
    Ok(hosts)
}

/// The user's file or that of the machine, then the drop-ins of both (containers-registries.conf(5), containers-registries.conf.d(5)).
fn registries_conf(environment: &Environment) -> Result<Vec<PathBuf>, ConfigError> {
    let user = environment.user_config().map(|directory| directory.join("containers"));
    let own = user.as_ref().map(|directory| directory.join("registries.conf")).filter(|path| path.exists());
    let named = environment.variable("CONTAINERS_REGISTRIES_CONF").map(PathBuf::from);
    let machine = Path::new("/etc/containers");
    let mut paths = vec![named.or(own).unwrap_or_else(|| machine.join("registries.conf"))];
    for directory in [Some(machine.to_owned()), user].into_iter().flatten() {
        let drop_ins = entries(&directory.join("registries.conf.d"))?;
        paths.extend(drop_ins.into_iter().filter(|path| path.extension().is_some_and(|ext| ext == "conf")));
    }
    Ok(paths)
}

/// The machine's file, and that of a daemon without root.
fn daemon_json(environment: &Environment) -> Vec<PathBuf> {
    let user = environment.user_config().map(|directory| directory.join("docker"));
    let directories = [Some(PathBuf::from("/etc/docker")), user].into_iter().flatten();
    directories.map(|directory| directory.join("daemon.json")).collect()
}

/// The nearest first (containers-certs.d(5)).
fn certificate_places(environment: &Environment) -> Vec<PathBuf> {
    let user = environment.user_config();
    let own = |name: &str| user.as_ref().map(|directory| directory.join(name).join("certs.d"));
    let machine = |name: &str| Some(Path::new("/etc").join(name).join("certs.d"));
    [own("containers"), own("docker"), machine("containers"), machine("docker")]
        .into_iter()
        .flatten()
        .collect()
}

/// What is in one directory of `certs.d`. Of several certificates of ours the first counts.
fn certificates(directory: &Path, host: Option<String>) -> Result<Certificates, ConfigError> {
    let files = entries(directory)?;
    let of = |extension: &'static str| {
        files.iter().filter(move |path| path.extension().is_some_and(|found| found == extension))
    };
    let read = |path: &PathBuf| fs::read(path).map_err(|source| unreadable(path, source));
    let mut authorities = Vec::new();
    for path in of("crt") {
        authorities.extend(read(path)?);
        authorities.push(b'\n');
    }
    for (one, other) in [("cert", "key"), ("key", "cert")] {
        let missing = of(one).map(|present| (present, present.with_extension(other)));
        if let Some((present, missing)) = missing.into_iter().find(|(_, missing)| !missing.exists()) {
            return Err(ConfigError::Pair { present: present.clone(), missing });
        }
    }
    let identity = match of("cert").next() {
        Some(certificate) => Some((read(certificate)?, read(&certificate.with_extension("key"))?)),
        None => None,
    };
    Ok(Certificates { host, directory: directory.to_owned(), authorities, identity })
}

/// What is in a directory, sorted; nothing, if there is none.
fn entries(directory: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let failed = |source| unreadable(directory, source);
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if is_absence(&error) => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let paths: Result<Vec<_>, _> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
    let mut paths = paths.map_err(failed)?;
    paths.sort();
    Ok(paths)
}

fn text(path: &Path) -> Result<Option<Vec<u8>>, ConfigError> {
    match fs::read(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if is_absence(&error) => Ok(None),
        Err(error) => Err(unreadable(path, error)),
    }
}

fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn unreadable(path: &Path, source: io::Error) -> ConfigError {
    ConfigError::Read { path: path.to_owned(), source }
}
