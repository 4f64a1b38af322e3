//! The environment, read once.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::path::PathBuf;

/// What the program takes from outside its arguments.
#[derive(Clone, Debug)]
pub(crate) struct Environment {
    /// All variables that are text.
    pub(crate) variables: BTreeMap<String, String>,
    /// Whether standard error is a terminal.
    pub(crate) stderr_is_terminal: bool,
    /// Whether standard output is a terminal.
    pub(crate) stdout_is_terminal: bool,
    /// Whether standard input is a terminal.
    pub(crate) stdin_is_terminal: bool,
}

impl Environment {
    pub(crate) fn read() -> Self {
        let text =
            |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
        Self {
            variables: std::env::vars_os().filter_map(text).collect(),
            stderr_is_terminal: std::io::stderr().is_terminal(),
            stdout_is_terminal: std::io::stdout().is_terminal(),
            stdin_is_terminal: std::io::stdin().is_terminal(),
        }
    }

    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// Whether standard error gets colours (<https://no-color.org>).
    pub(crate) fn has_colour(&self) -> bool {
        self.stderr_is_terminal && self.allows_colour()
    }

    /// Whether standard output does.
    pub(crate) fn has_colour_on_stdout(&self) -> bool {
        self.stdout_is_terminal && self.allows_colour()
    }

    fn allows_colour(&self) -> bool {
        let is_off = self.variable("NO_COLOR").is_some_and(|value| !value.is_empty());
        !is_off && self.variable("TERM") != Some("dumb")
    }

    /// Where Docker keeps its config.json.
    pub(crate) fn docker_config(&self) -> Option<PathBuf> {
        let directory = self.variable("DOCKER_CONFIG").map(PathBuf::from);
        let directory = directory.or_else(|| Some(PathBuf::from(self.variable("HOME")?).join(".docker")));
        directory.map(|directory| directory.join("config.json"))
    }

    /// Where podman and its kin keep what `login` leaves (containers-auth.json(5)): what is set, else the session's, else the user's.
    pub(crate) fn containers_auth(&self) -> Vec<PathBuf> {
        if let Some(file) = self.variable("REGISTRY_AUTH_FILE") {
            return vec![PathBuf::from(file)];
        }
        let session = self.variable("XDG_RUNTIME_DIR").map(PathBuf::from);
        session
            .into_iter()
            .chain(self.user_config())
            .map(|directory| directory.join("containers/auth.json"))
            .collect()
    }

    /// Where the user's configuration is (XDG Base Directory Specification).
    pub(crate) fn user_config(&self) -> Option<PathBuf> {
        let home = self.variable("HOME").map(|home| PathBuf::from(home).join(".config"));
        self.variable("XDG_CONFIG_HOME").filter(|path| !path.is_empty()).map(PathBuf::from).or(home)
    }

    /// Where to look for `docker-credential-NAME`.
    pub(crate) fn program_directories(&self) -> Vec<PathBuf> {
        self.variable("PATH").map(|path| std::env::split_paths(path).collect()).unwrap_or_default()
    }
}

/// What Go's `strconv.ParseBool` takes for true, as it is in variables of Docker's programs.
pub(crate) fn is_true(text: &str) -> bool {
    matches!(text, "1" | "t" | "T" | "true" | "True" | "TRUE")
}
