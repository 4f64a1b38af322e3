//! Expansion of variables.

use crate::PatternError;

/// Why a word cannot be expanded.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ExpandError {
    /// `${NAME:?message}` without a value.
    #[error("variable `{name}`: {message}")]
    Required {
        /// The variable.
        name: String,
        /// What stands behind the `?`, or the default message.
        message: String,
    },
    /// A pattern that is none.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// The result is over 1 MiB.
    #[error("the result is longer than 1 MiB")]
    TooLong,
    /// Over 128 levels of `${A:-${B:-…`.
    #[error("expansions are nested more than 128 deep")]
    TooDeep,
}
