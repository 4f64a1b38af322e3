//! `BUILDX_GIT_LABELS`: labels that say which commit of which repository a context is.

use std::path::Path;
use std::process::Command;

use crate::environment::{Environment, is_true};

const VARIABLE: &str = "BUILDX_GIT_LABELS";

/// The labels of a context on this machine: with a true value, where the Dockerfile is in its repository and which commit is checked out, with
/// `-dirty` behind it if something has changed since; with `full`, where the repository comes from, too.
pub(super) fn of(dockerfile: &Path, context: &Path, environment: &Environment) -> Vec<(String, String)> {
    let asked = environment.variable(VARIABLE).unwrap_or_default();
    if asked != "full" && !is_true(asked) {
        return Vec::new();
    }
    let git = |args: &[&str]| git(context, args, environment);
    let Some(revision) = git(&["rev-parse", "HEAD"]) else {
        tracing::warn!("{VARIABLE} has no effect: git knows no commit of `{}`", context.display());
        return Vec::new();
    };
    let is_changed = git(&["status", "--porcelain", "--ignored=no"]).is_none_or(|status| !status.is_empty());
    let dirty = if is_changed { "-dirty" } else { "" };
    let mut labels = vec![("org.opencontainers.image.revision".to_owned(), format!("{revision}{dirty}"))];
    let top = git(&["rev-parse", "--show-toplevel"]).and_then(|top| std::fs::canonicalize(top).ok());
    let file = std::fs::canonicalize(dockerfile).ok();
    if let Some(path) = top.zip(file).and_then(|(top, file)| Some(file.strip_prefix(top).ok()?.to_owned())) {
        labels.push(("com.docker.image.source.entrypoint".to_owned(), path.to_string_lossy().into_owned()));
    }
    if asked == "full"
        && let Some(url) = git(&["remote", "get-url", "origin"])
    {
        labels.push(("org.opencontainers.image.source".to_owned(), without_user(&url)));
    }
    labels
}

/// What git says, if it succeeds. It starts no hook; filters it does, which is why it looks into no repository of somebody else's (safe.directory in git-config(1)).
fn git(directory: &Path, args: &[&str], environment: &Environment) -> Option<String> {
    let program = environment.program_directories().into_iter().map(|directory| directory.join("git"));
    let mut command = Command::new(program.into_iter().find(|path| path.is_file())?);
    command.args(["-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-C"]).arg(directory);
    let output = command.args(args).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// An address without the name and the password that may be in it. That of ssh is not secret.
fn without_user(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme @ ("http" | "https"), rest)) => {
            let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
            format!("{scheme}://{}/{path}", host.rsplit('@').next().unwrap_or(host))
        }
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_lose_their_credentials() {
        assert_eq!(without_user("https://me:pw@h/r.git"), "https://h/r.git");
        assert_eq!(without_user("https://h/a@b"), "https://h/a@b");
        assert_eq!(without_user("git@h:r"), "git@h:r");
    }
}
