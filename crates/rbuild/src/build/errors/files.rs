//! What a COPY, an ADD or a mount of files fails with.

use context::{ContextError, Exclusion, Missing};
use plan::ContextName;
use solver::StepError;
use sys::RootfsPath;

use super::Place;
use suggest::nearest;

use crate::diagnostic::Diagnostic;
use crate::failure::{Exit, Failure};

impl Place<'_> {
    /// A source in a directory of the person who builds.
    pub(super) fn of_context(&self, error: &ContextError) -> Failure {
        match error {
            ContextError::Missing { name, why } => {
                self.fails_at(name, Exit::Build, of_missing(error, name, why))
            }
            ContextError::Pattern { pattern, .. } => {
                self.fails_at(pattern, Exit::Build, Diagnostic::from_error("bad-pattern", error))
            }
            ContextError::Path(_) => self.fails(Exit::Build, Diagnostic::from_error("bad-path", error)),
            ContextError::Changed { .. } => {
                let diagnostic = Diagnostic::from_error("source-changed", error);
                self.fails(Exit::Build, diagnostic.help("build again when nothing writes there any more"))
            }
            ContextError::Read { .. } => {
                self.fails(Exit::Machine, Diagnostic::from_error("unreadable-source", error))
            }
            ContextError::Open { .. } | ContextError::Save { .. } => {
                self.fails(Exit::Machine, Diagnostic::from_error("context", error))
            }
            ContextError::Cancelled => Failure::cancelled(),
        }
    }
}

fn of_missing(error: &ContextError, name: &str, why: &Missing) -> Diagnostic {
    match why {
        Missing::Absent { candidates } => {
            let diagnostic = Diagnostic::from_error("missing-source", error);
            with_nearest(diagnostic, name, candidates.iter().map(shown))
        }
        Missing::Excluded(Exclusion::Line { .. }) => Diagnostic::from_error("ignored-source", error)
            .help(format!("take that line out, or bring the file back with a later line `!{name}`")),
        Missing::Excluded(Exclusion::Flag { .. }) => Diagnostic::from_error("ignored-source", error),
        Missing::BelowFile { .. } | Missing::Dangling { .. } | Missing::Loop => {
            Diagnostic::from_error("missing-source", error)
        }
    }
}

/// A source in another stage or an image.
pub(super) fn of_missing_in_step(error: &StepError, path: &str, candidates: &[RootfsPath]) -> Diagnostic {
    let names = candidates.iter().map(|path| format!("/{}", shown(path)));
    let path = format!("/{}", path.trim_start_matches('/'));
    with_nearest(Diagnostic::from_error("missing-source", error), &path, names)
}

/// Offers the file that is most like what was written, or says what there is if that is little.
fn with_nearest(
    diagnostic: Diagnostic,
    written: &str,
    candidates: impl Iterator<Item = String>,
) -> Diagnostic {
    /// Names that fit on one line.
    const FEW: usize = 6;
    let mut names: Vec<String> = candidates.collect();
    let written = written.trim_end_matches('/').trim_start_matches("./");
    if let Some(near) = nearest(written, names.iter().map(String::as_str)) {
        return diagnostic.help(format!("did you mean `{near}`?"));
    }
    names.sort();
    match names.len() {
        0 => diagnostic,
        1..=FEW => diagnostic.note(format!("there is `{}`", names.join("`, `"))),
        more => diagnostic.note(format!("there is `{}` and {} more", names[..FEW].join("`, `"), more - FEW)),
    }
}

fn shown(path: &RootfsPath) -> String {
    String::from_utf8_lossy(path.as_bytes()).into_owned()
}

/// A file should become a directory or the reverse.
pub(super) fn of_conflict(error: &StepError) -> Diagnostic {
    Diagnostic::from_error("copy-conflict", error)
        .help("remove what is there in a step before it, or choose another destination")
}

/// An archive that ADD cannot unpack.
pub(super) fn of_archive(error: &StepError) -> Diagnostic {
    Diagnostic::from_error("bad-archive", error).help("COPY takes an archive as it is, without unpacking it")
}

/// A named context that was not given.
pub(super) fn of_unknown_context(name: &ContextName) -> Diagnostic {
    match name {
        ContextName::Main => Diagnostic::error("bug", "the build has no context"),
        ContextName::Named(name) => {
            Diagnostic::error("unknown-context", format!("there is no build context `{name}`"))
                .help(format!("give it with `--build-context {name}=DIRECTORY`"))
        }
    }
}
