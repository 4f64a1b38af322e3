//! Logging in to registries, and out.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use console::Term;
use oci::Reference;
use registry::{
    Credential, Credentials, CredentialsError, Failure as RegistryFailure, Limits, LoginFile, RequestError,
    Secret, TokenError,
};

use crate::cli::{LoginArgs, LogoutArgs};
use crate::commands::registry::{client_with, credentials, way_to_trust};
use crate::diagnostic::Diagnostic;
use crate::environment::Environment;
use crate::failure::{Exit, Failure};
use crate::listing::{tell, write_line};

/// Longest password that is read from standard input, in bytes: some are tokens of several kilobytes.
const MAX_PASSWORD_BYTES: u64 = 64 << 10;

/// `rbuild login`.
pub(crate) fn login(args: &LoginArgs, environment: &Environment) -> Result<(), Failure> {
    let reference = of_registry(args.server.as_deref())?;
    let registry = reference.registry();
    let path = config_file(environment)?;
    if args.password_stdin && args.username.is_none() {
        return Err(Failure::usage(
            "`--password-stdin` leaves no way to ask for the name",
            "give it with `--username`",
        ));
    }
    // Before anybody is asked anything: whether it can be read.
    read(&path, environment)?;
    let username = match &args.username {
        Some(username) => username.clone(),
        None => ask("Username: ", environment, Term::read_line)?,
    };
    let password = password(args, environment)?;
    if username.is_empty() || password.reveal().is_empty() {
        return Err(Failure::usage("neither the name nor the password may be empty", "give both"));
    }
    if username.contains([':', '\n', '\r']) {
        return Err(Failure::usage(
            "a user name has neither a colon nor a line break in it",
            "check the name",
        ));
    }
    if password.reveal().contains(['\n', '\r', '\0']) {
        return Err(Failure::usage("the password has several lines", "give one line"));
    }
    let given = Credentials::given(registry, &username, password.clone());
    let client =
        client_with(given, environment, &args.registry, None).map_err(|error| error.into_failure())?;
    client.log_in(&reference).map_err(|error| {
        let diagnostic = if is_denied(&error) {
            Diagnostic::error("login", format!("`{registry}` does not take this name and password"))
        } else {
            let mut diagnostic = Diagnostic::from_error("login", &error);
            diagnostic.notes.insert(0, diagnostic.title);
            diagnostic.help = way_to_trust(&error);
            Diagnostic { title: format!("cannot log in to `{registry}`"), ..diagnostic }
        };
        Failure::new(Exit::Network, diagnostic)
    })?;
    // Read only now: others may have logged in meanwhile.
    let mut file = read(&path, environment)?;
    file.log_in(registry, &username, &password, &Limits::DEFAULT)
        .map_err(|error| of_credentials(&path, &error))?;
    write(&path, &file.to_text()).map_err(|error| unwritable(&path, &error))?;
    write_line("Login Succeeded")
}

/// Whether the registry, or its token server, says no to the name and the password.
fn is_denied(error: &RequestError) -> bool {
    match &*error.failure {
        RegistryFailure::Denied { .. } => true,
        RegistryFailure::Token(error) => match &**error {
            TokenError::Request(error) => is_denied(error),
            _ => false,
        },
        _ => false,
    }
}

/// `rbuild logout`.
pub(crate) fn logout(args: &LogoutArgs, environment: &Environment) -> Result<(), Failure> {
    if args.all {
        return logout_everywhere(environment);
    }
    let reference = of_registry(args.server.as_deref())?;
    let registry = reference.registry();
    let path = config_file(environment)?;
    let mut file = read(&path, environment)?;
    let (was_there, helped) = file.log_out(registry, &Limits::DEFAULT);
    if was_there {
        write(&path, &file.to_text()).map_err(|error| unwritable(&path, &error))?;
        write_line(format_args!("Removed the login for {registry}"))?;
    } else {
        write_line(format_args!("There is no login for {registry} in {}", path.display()))?;
    }
    helped.map_err(|error| of_credentials(&path, &error))?;
    // What cannot be read is none of this command's business.
    let left =
        credentials(environment).map(|left| left.find(registry, reference.repository(), &Limits::DEFAULT));
    if left.is_ok_and(|left| left.is_ok_and(|left| left != Credential::Anonymous)) {
        tell(format_args!("another file still has one; `podman logout {registry}` removes that of podman"));
    }
    Ok(())
}

fn logout_everywhere(environment: &Environment) -> Result<(), Failure> {
    let path = config_file(environment)?;
    let mut file = read(&path, environment)?;
    let (gone, helped) = file.log_out_everywhere(&Limits::DEFAULT);
    if gone.is_empty() {
        write_line(format_args!("There is no login in {}", path.display()))?;
    } else {
        write(&path, &file.to_text()).map_err(|error| unwritable(&path, &error))?;
    }
    gone.iter().try_for_each(|registry| write_line(format_args!("Removed the login for {registry}")))?;
    helped.map_err(|error| of_credentials(&path, &error))
}

/// What is to be said of a server's address: its registry as in an image name.
fn of_registry(server: Option<&str>) -> Result<Reference, Failure> {
    let server = server.unwrap_or("docker.io");
    let host = server.split_once("://").map_or(server, |(_, rest)| rest);
    let host = host.split('/').next().unwrap_or_default();
    let host = if host == "index.docker.io" { "docker.io" } else { host };
    let reference = Reference::parse(&format!("{host}/login")).ok();
    reference.filter(|reference| reference.registry() == host).ok_or_else(|| {
        let help = "a registry is named as in an image name: `docker.io`, `registry.example.com:5000`";
        Failure::usage(format!("`{server}` is no registry"), help)
    })
}

fn config_file(environment: &Environment) -> Result<PathBuf, Failure> {
    environment.docker_config().ok_or_else(|| {
        Failure::usage("there is no place to keep logins in", "set DOCKER_CONFIG to a directory, or HOME")
    })
}

fn read(path: &Path, environment: &Environment) -> Result<LoginFile, Failure> {
    let text = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        read => read.map_err(|error| {
            let title = format!("cannot read `{}`", path.display());
            Failure::new(Exit::Machine, Diagnostic::error("login", title).note(error.to_string()))
        })?,
    };
    LoginFile::parse(&text, environment.program_directories()).map_err(|error| of_credentials(path, &error))
}

fn password(args: &LoginArgs, environment: &Environment) -> Result<Secret, Failure> {
    if let Some(password) = &args.password {
        tell("warning: a password on the command line is seen by others; `--password-stdin` reads it");
        return Ok(Secret::new(password));
    }
    if !args.password_stdin {
        return ask("Password: ", environment, Term::read_secure_line).map(Secret::new);
    }
    let mut text = String::new();
    let read = io::stdin().lock().take(MAX_PASSWORD_BYTES + 1).read_to_string(&mut text);
    read.map_err(|error| {
        let diagnostic = Diagnostic::error("login", "cannot read a password from standard input");
        Failure::new(Exit::Usage, diagnostic.note(error.to_string()))
    })?;
    if text.len() as u64 > MAX_PASSWORD_BYTES {
        return Err(Failure::usage("the password is longer than any", "check what is directed there"));
    }
    // `echo` adds a line end that is not meant.
    Ok(Secret::new(text.trim_end_matches(['\r', '\n'])))
}

/// Asks whoever sits there.
fn ask(
    question: &str,
    environment: &Environment,
    read: impl FnOnce(&Term) -> io::Result<String>,
) -> Result<String, Failure> {
    if !(environment.stdin_is_terminal && environment.stderr_is_terminal) {
        return Err(Failure::usage(
            "there is nobody to ask for name and password",
            "give them with `--username NAME --password-stdin`",
        ));
    }
    let term = Term::stderr();
    term.write_str(question).and_then(|()| read(&term)).map_err(|error| {
        let diagnostic = Diagnostic::error("login", "cannot read from the terminal");
        Failure::new(Exit::Machine, diagnostic.note(error.to_string()))
    })
}

/// Replaces the file in one step, for its user's eyes only. A link stays one, and what it leads to is replaced.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let path = match fs::read_link(path) {
        Ok(target) => path.parent().unwrap_or(Path::new("/")).join(target),
        Err(_) => path.to_owned(),
    };
    let directory = path.parent().unwrap_or(Path::new("/"));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    // Nobody else can read it, and it goes if anything fails.
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(text.as_bytes())?;
    if let Ok(before) = fs::metadata(&path) {
        // With another user's rights, as by sudo, it stays its owner's.
        std::os::unix::fs::fchown(file.as_file(), Some(before.uid()), Some(before.gid()))?;
    }
    file.as_file().sync_all()?;
    file.persist(&path)?;
    fs::File::open(directory)?.sync_all()
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    let title = format!("cannot write `{}`", path.display());
    Failure::new(Exit::Machine, Diagnostic::error("login", title).note(error.to_string()))
}

fn of_credentials(path: &Path, error: &CredentialsError) -> Failure {
    let diagnostic = Diagnostic::from_error("login", error);
    let help = match error {
        CredentialsError::HelperMissing(_) | CredentialsError::HelperName(_) => {
            format!("install it, or take `credsStore` and `credHelpers` out of `{}`", path.display())
        }
        CredentialsError::Malformed { .. } => format!("mend `{}`, or put it aside", path.display()),
        _ => "see what the helper needs: it may want to be unlocked".to_owned(),
    };
    Failure::new(Exit::Usage, diagnostic.help(help))
}
