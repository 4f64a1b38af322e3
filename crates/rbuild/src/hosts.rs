//! Which files say where registries are and whom to trust there, and reading them.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use registry::{Certificates, FindCertificates, Hosts, HostsError};

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

/// By which variable the file is another.
const NAMED_CONF: &str = "CONTAINERS_REGISTRIES_CONF";

/// Everything that is configured, in the files of podman and its kin and of Docker, and on the command line.
pub(crate) fn read(environment: &Environment, args: &RegistryArgs) -> Result<Hosts, ConfigError> {
    let mut hosts = Hosts::none();
    if let Some(path) = environment.variable(NAMED_CONF).map(Path::new) {
        // Whoever names a file means one that is there.
        fs::metadata(path).map_err(|source| unreadable(path, source))?;
    }
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
    hosts.set_certificates(match &args.cert_dir {
        Some(directory) => {
            // Whoever names a directory means one that is there.
            fs::read_dir(directory).map_err(|source| unreadable(directory, source))?;
            let certificates = Arc::new(certificates(directory)?);
            Arc::new(move |_| Ok(Some(Arc::clone(&certificates))))
        }
        None => find_certificates(certificate_places(environment)),
    });
    for registry in &args.insecure {
        hosts.add_insecure(registry, Path::new("--output"));
    }
    if let Some(verify) = args.tls_verify {
        hosts.set_verify(verify);
    }
    Ok(hosts)
}

/// Looks for the directory of a host when that is asked: what is there for others is none of its business.
fn find_certificates(places: Vec<PathBuf>) -> FindCertificates {
    let known = Mutex::<HashMap<String, Option<Arc<Certificates>>>>::default();
    Arc::new(move |host| {
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.get(host) {
            return Ok(found.clone());
        }
        // Docker Hub goes by the name of who really answers, too.
        let names: &[&str] =
            if host == "docker.io" { &["docker.io", "registry-1.docker.io"] } else { &[host] };
        let directories = places.iter().flat_map(|place| names.iter().map(move |name| place.join(name)));
        let found = directories.into_iter().find(|path| path.is_dir());
        let found = found.map(|path| certificates(&path).map(Arc::new)).transpose()?;
        known.insert(host.to_owned(), found.clone());
        Ok(found)
    })
}

/// The user's file or that of the machine, then the drop-ins of both (containers-registries.conf(5), containers-registries.conf.d(5)).
fn registries_conf(environment: &Environment) -> Result<Vec<PathBuf>, ConfigError> {
    let user = environment.user_config().map(|directory| directory.join("containers"));
    let own = user.as_ref().map(|directory| directory.join("registries.conf")).filter(|path| path.exists());
    let named = environment.variable(NAMED_CONF).map(PathBuf::from);
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
/// What only others may read is not for us.
fn certificates(directory: &Path) -> Result<Certificates, ConfigError> {
    let files = match entries(directory) {
        Err(ConfigError::Read { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => {
            Vec::new()
        }
        files => files?,
    };
    let of = |extension: &'static str| {
        files.iter().filter(move |path| path.extension().is_some_and(|found| found == extension))
    };
    let read = |path: &Path| match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(None),
        read => read.map(Some).map_err(|source| unreadable(path, source)),
    };
    let mut authorities = Vec::new();
    for path in of("crt") {
        authorities.extend(read(path)?.into_iter().flatten());
        authorities.push(b'\n');
    }
    for (one, other) in [("cert", "key"), ("key", "cert")] {
        let missing = of(one).map(|present| (present, present.with_extension(other)));
        if let Some((present, missing)) = missing.into_iter().find(|(_, missing)| !missing.exists()) {
            return Err(ConfigError::Pair { present: present.clone(), missing });
        }
    }
    let identity = match of("cert").next() {
        Some(certificate) => read(certificate)?.zip(read(&certificate.with_extension("key"))?),
        None => None,
    };
    if authorities.trim_ascii().is_empty() {
        authorities.clear();
    }
    Ok(Certificates { directory: directory.to_owned(), authorities, identity })
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
