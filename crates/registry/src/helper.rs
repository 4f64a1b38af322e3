//! Credential helpers: `docker-credential-NAME get` takes a server address on stdin and prints JSON; `store` takes JSON, `erase` an address,
//! and both print nothing; `list` takes nothing and prints JSON.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use crate::credentials::CredentialsError;
use crate::limits::Limits;
use crate::wire::{HelperAnswer, StoredLogin};

/// How every helper says, on stdout and with an exit status of 1, that it has no entry.
const NOT_FOUND: &str = "credentials not found in native keychain";

/// Asks the helper `name` about `server`. `None` if it knows nothing, or is in none of `directories`.
pub(crate) fn get(
    directories: &[PathBuf],
    name: &str,
    server: &str,
    limits: &Limits,
) -> Result<Option<HelperAnswer>, CredentialsError> {
    let Some(program) = program(directories, name)? else {
        tracing::warn!(helper = name, server, "the configured credential helper is not installed");
        return Ok(None);
    };
    let (output, status) = run(&program, "get", server.as_bytes(), limits)?;
    let broken = || CredentialsError::HelperAnswer { program: program.clone() };
    if output.len() as u64 > limits.helper_bytes {
        return Err(broken());
    }
    if status.success() {
        return serde_json::from_slice(&output).map(Some).map_err(|_| broken());
    }
    if String::from_utf8_lossy(&output).trim() == NOT_FOUND {
        return Ok(None);
    }
    Err(CredentialsError::HelperFailed { program, server: server.to_owned(), status })
}

/// Has the helper `name` keep a login.
pub(crate) fn store(
    directories: &[PathBuf],
    name: &str,
    login: &StoredLogin<'_>,
    limits: &Limits,
) -> Result<(), CredentialsError> {
    let text = serde_json::to_vec(login).expect("three texts are always JSON");
    tell(directories, name, "store", login.server, &text, limits)
}

/// Has the helper `name` forget a login. That it knows none is no error.
pub(crate) fn erase(
    directories: &[PathBuf],
    name: &str,
    server: &str,
    limits: &Limits,
) -> Result<(), CredentialsError> {
    tell(directories, name, "erase", server, server.as_bytes(), limits)
}

/// The servers of which the helper `name` keeps a login.
pub(crate) fn list(
    directories: &[PathBuf],
    name: &str,
    limits: &Limits,
) -> Result<Vec<String>, CredentialsError> {
    let missing = || CredentialsError::HelperMissing(format!("docker-credential-{name}"));
    let program = program(directories, name)?.ok_or_else(missing)?;
    let (output, status) = run(&program, "list", b"", limits)?;
    if !status.success() {
        return Err(CredentialsError::HelperFailed { program, server: "all registries".to_owned(), status });
    }
    // Names by servers. A helper without any may say nothing.
    let names = match output.trim_ascii() {
        b"" => Ok(BTreeMap::<String, String>::new()),
        text => serde_json::from_slice(text),
    };
    names.map(|names| names.into_keys().collect()).map_err(|_| CredentialsError::HelperAnswer { program })
}

fn tell(
    directories: &[PathBuf],
    name: &str,
    verb: &str,
    server: &str,
    input: &[u8],
    limits: &Limits,
) -> Result<(), CredentialsError> {
    let missing = || CredentialsError::HelperMissing(format!("docker-credential-{name}"));
    let program = program(directories, name)?.ok_or_else(missing)?;
    let (output, status) = run(&program, verb, input, limits)?;
    if status.success() || (verb == "erase" && String::from_utf8_lossy(&output).trim() == NOT_FOUND) {
        return Ok(());
    }
    Err(CredentialsError::HelperFailed { program, server: server.to_owned(), status })
}

fn program(directories: &[PathBuf], name: &str) -> Result<Option<PathBuf>, CredentialsError> {
    if name.contains(['/', '\0']) {
        return Err(CredentialsError::HelperName(name.to_owned()));
    }
    let file = format!("docker-credential-{name}");
    Ok(directories.iter().map(|directory| directory.join(&file)).find(|path| path.is_file()))
}

fn run(
    program: &Path,
    verb: &str,
    input: &[u8],
    limits: &Limits,
) -> Result<(Vec<u8>, std::process::ExitStatus), CredentialsError> {
    let start = |source| CredentialsError::HelperStart { program: program.to_owned(), source };
    let mut child = Command::new(program)
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(start)?;
    let output = converse(&mut child, input, limits);
    if output.is_none() {
        // Killing a child that has just ended by itself is no error; waiting for it is due in any case.
        child.kill().map_err(start)?;
    }
    let status = child.wait().map_err(start)?;
    let timeout = || CredentialsError::HelperTimeout { program: program.to_owned(), limit: limits.helper };
    Ok((output.ok_or_else(timeout)?, status))
}

/// Everything the child prints, up to one byte beyond the limit; `None` if it is not done in time.
fn converse(child: &mut Child, input: &[u8], limits: &Limits) -> Option<Vec<u8>> {
    let (mut stdin, stdout) = (child.stdin.take()?, child.stdout.take()?);
    // A helper may answer without reading the question; its answer tells.
    if let Err(error) = stdin.write_all(input) {
        tracing::debug!(%error, "the credential helper did not read what it was told");
    }
    drop(stdin);
    let (sender, receiver) = mpsc::channel();
    let limit = limits.helper_bytes + 1;
    // Not joined when time is up: a grandchild could hold the pipe open for as long as it likes.
    std::thread::spawn(move || {
        let mut output = Vec::new();
        // Nobody listens any more once time is up.
        if stdout.take(limit).read_to_end(&mut output).is_ok() && sender.send(output).is_err() {
            tracing::debug!("the credential helper answered too late");
        }
    });
    receiver.recv_timeout(limits.helper).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::{Credential, Credentials};
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Duration;

    /// Makes a helper out of a shell script, and asks it through a configuration that names it.
    fn ask(script: &str, config: &str, registry: &str) -> Result<Credential, CredentialsError> {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("docker-credential-test");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let limits = Limits { helper: Duration::from_secs(20), ..Limits::DEFAULT };
        let credentials = Credentials::parse(config.as_bytes()).unwrap();
        retry_busy(|| {
            credentials.clone().with_helpers_in([directory.path().to_owned()]).find(registry, "x", &limits)
        })
    }

    /// A script just written cannot be run while another test's fork still holds it open for writing.
    fn retry_busy(
        mut find: impl FnMut() -> Result<Credential, CredentialsError>,
    ) -> Result<Credential, CredentialsError> {
        loop {
            match find() {
                Err(CredentialsError::HelperStart { source, .. })
                    if source.kind() == std::io::ErrorKind::ExecutableFileBusy => {}
                result => return result,
            }
        }
    }

    const STORE: &str = r#"{"credsStore": "test", "auths": {"a.test": {"auth": "ZmlsZTpwdw=="}}}"#;

    #[test]
    fn a_helper_is_asked_with_the_servers_name() {
        let script = r#"read -r server; printf '{"ServerURL":"%s","Username":"%s","Secret":"s"}' "$server" "$1-$server""#;
        let asked = |config: &str, registry: &str| match ask(script, config, registry).unwrap() {
            Credential::Basic { username, .. } => username,
            other => panic!("{other:?}"),
        };
        assert_eq!(asked(STORE, "a.test:5000"), "get-a.test:5000");
        assert_eq!(asked(STORE, "docker.io"), "get-https://index.docker.io/v1/");
        assert_eq!(asked(r#"{"credHelpers": {"docker.io": "test"}}"#, "docker.io"), "get-docker.io");
        assert_eq!(
            ask(script, r#"{"credHelpers": {"b.test": "test"}}"#, "a.test").unwrap(),
            Credential::Anonymous
        );
    }

    #[test]
    fn a_helpers_token_is_an_identity_token() {
        let found = ask(r#"echo '{"Username":"<token>","Secret":"s"}'"#, STORE, "a.test").unwrap();
        assert_eq!(found, Credential::IdentityToken(crate::Secret::new("s")));
    }

    #[test]
    fn a_helper_that_knows_nothing_is_passed_over() {
        let found = ask(&format!("echo '{NOT_FOUND}'; exit 1"), STORE, "a.test").unwrap();
        assert!(matches!(found, Credential::Basic { username, .. } if username == "file"));
        let missing = r#"{"credsStore": "missing"}"#;
        assert_eq!(ask("exit 1", missing, "a.test").unwrap(), Credential::Anonymous);
    }

    #[test]
    fn a_broken_helper_is_an_error_that_names_it() {
        let error = |script: &str| ask(script, STORE, "a.test").unwrap_err();
        assert!(matches!(error("echo locked; exit 2"), CredentialsError::HelperFailed { .. }));
        assert!(matches!(error("echo '<html>'"), CredentialsError::HelperAnswer { .. }));
        assert!(matches!(error("head -c 100000 /dev/zero"), CredentialsError::HelperAnswer { .. }));
        assert!(matches!(
            ask("exit 0", r#"{"credsStore": "../../bin/sh"}"#, "a.test").unwrap_err(),
            CredentialsError::HelperName(_)
        ));
    }

    #[test]
    fn a_helper_that_hangs_is_ended() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("docker-credential-test");
        std::fs::write(&program, "#!/bin/sh\nexec tail -f /dev/null\n").unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let limits = Limits { helper: Duration::from_millis(50), ..Limits::DEFAULT };
        let credentials =
            Credentials::parse(STORE.as_bytes()).unwrap().with_helpers_in([directory.path().to_owned()]);
        let result = retry_busy(|| credentials.find("a.test", "x", &limits));
        assert!(matches!(result.unwrap_err(), CredentialsError::HelperTimeout { .. }));
    }
}
