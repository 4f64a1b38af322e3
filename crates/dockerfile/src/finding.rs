//! What the parser has to say about a file: [`Finding`]s, each with a code, a place and a way out.

use std::fmt;

use crate::rule::Rule;
use crate::span::Span;

/// A problem in a Dockerfile.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// Whether the build can go on.
    pub severity: Severity,
    /// What kind of problem it is; stable.
    pub code: Code,
    /// The problem in one line: names in backticks, no full stop.
    pub message: String,
    /// The place that is wrong.
    pub span: Span,
    /// Other places that explain it, with a word each.
    pub labels: Vec<Label>,
    /// What to do, if that is known.
    pub help: Option<String>,
}

impl Finding {
    /// A finding without labels and help; its severity is that of its code.
    pub fn new(code: Code, span: Span, message: impl Into<String>) -> Self {
        let severity = code.severity();
        Self { severity, code, message: message.into(), span, labels: Vec::new(), help: None }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds another place and what it has to do with it.
    #[must_use]
    pub fn with_label(mut self, span: Span, text: impl Into<String>) -> Self {
        self.labels.push(Label { span, text: text.into() });
        self
    }
}

/// A place that explains a finding.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Label {
    /// The place.
    pub span: Span,
    /// What it has to do with the finding.
    pub text: String,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Severity {
    /// The file means something, perhaps not what was intended.
    Warning,
    /// The file cannot be built.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $severity:ident $text:literal,)*) => {
        /// The kind of a finding. Errors have names of our own; lint rules have BuildKit's, since users write those in
        /// `# check=skip=`.
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        pub enum Code {
            $($(#[$doc])* $name,)*
        }

        impl Code {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The stable text, as in `error[unknown-instruction]`.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Whether a finding of this kind stops the build.
            pub fn severity(self) -> Severity {
                match self { $(Self::$name => Severity::$severity,)* }
            }
        }
    };
}

codes! {
    /// The file has no byte.
    EmptyFile = Error "empty-file",
    /// The file has nothing but comments and blank lines.
    NoInstructions = Error "no-instructions",
    /// The file is larger than [`crate::MAX_SOURCE_BYTES`].
    FileTooLarge = Error "file-too-large",
    /// Bytes that are not UTF-8.
    InvalidUtf8 = Warning "invalid-utf8",
    /// A parser directive that stands twice.
    DuplicateDirective = Error "duplicate-directive",
    /// A parser directive with a value it cannot have.
    InvalidDirective = Error "invalid-directive",
    /// A line that begins with no instruction's name.
    UnknownInstruction = Error "unknown-instruction",
    /// An instruction other than `ARG` before the first `FROM`.
    InstructionBeforeFrom = Error "instruction-before-from",
    /// Global arguments, but no `FROM`.
    NoStage = Error "no-stage",
    /// An instruction without an argument it needs.
    MissingArgument = Error "missing-argument",
    /// An instruction with more arguments than it takes.
    TooManyArguments = Error "too-many-arguments",
    /// `FROM` with neither one nor three words.
    InvalidFrom = Error "invalid-from",
    /// A stage name with characters it cannot have.
    InvalidStageName = Error "invalid-stage-name",
    /// A flag the instruction does not have.
    UnknownFlag = Error "unknown-flag",
    /// A flag given twice.
    DuplicateFlag = Error "duplicate-flag",
    /// A flag without a value it needs.
    MissingFlagValue = Error "missing-flag-value",
    /// A flag with a value it cannot have.
    InvalidFlagValue = Error "invalid-flag-value",
    /// `--from` with a variable, which is never expanded.
    VariableInFrom = Error "variable-in-from",
    /// A `--mount` that is not a list of fields.
    InvalidMount = Error "invalid-mount",
    /// A `--mount` key that there is not, or not for this type.
    UnknownMountKey = Error "unknown-mount-key",
    /// A `--mount` type that there is not.
    UnknownMountType = Error "unknown-mount-type",
    /// A JSON array with something else than strings in it.
    InvalidExecForm = Error "invalid-exec-form",
    /// `SHELL` without a JSON array.
    ShellNotJson = Error "shell-not-json",
    /// A pair of `ENV` or `LABEL` without `=`.
    MissingEquals = Error "missing-equals",
    /// A pair or an `ARG` whose name is empty.
    EmptyName = Error "empty-name",
    /// A quote that nothing closes.
    UnbalancedQuote = Error "unbalanced-quote",
    /// A `$` form that is not well formed.
    InvalidSubstitution = Error "invalid-substitution",
    /// A heredoc whose end line is missing.
    UnterminatedHeredoc = Error "unterminated-heredoc",
    /// A heredoc where none can be.
    MisplacedHeredoc = Error "misplaced-heredoc",
    /// `ONBUILD` with an instruction that cannot be a trigger.
    InvalidTrigger = Error "invalid-trigger",
    /// `HEALTHCHECK` with neither `CMD` nor `NONE`.
    InvalidHealthcheck = Error "invalid-healthcheck",
    /// A command that begins like an exec form and is none, so that the shell gets it.
    ExecFormIsText = Warning "InvalidExecForm",
    /// Blank lines within a continued instruction.
    NoEmptyContinuation = Warning "NoEmptyContinuation",
    /// A stage name with upper-case letters.
    StageNameCasing = Warning "StageNameCasing",
    /// `FROM … as` or `from … AS`.
    FromAsCasing = Warning "FromAsCasing",
    /// A keyword in the case that the fewer instructions have.
    ConsistentInstructionCasing = Warning "ConsistentInstructionCasing",
    /// Two stages of one name.
    DuplicateStageName = Warning "DuplicateStageName",
    /// A stage called `scratch` or `context`.
    ReservedStageName = Warning "ReservedStageName",
    /// `MAINTAINER`.
    MaintainerDeprecated = Warning "MaintainerDeprecated",
    /// A second `CMD`, `ENTRYPOINT` or `HEALTHCHECK`, which makes the first void.
    MultipleInstructionsDisallowed = Warning "MultipleInstructionsDisallowed",
    /// `ENV KEY value`.
    LegacyKeyValueFormat = Warning "LegacyKeyValueFormat",
    /// An `ARG` or `ENV` whose name sounds like a secret.
    SecretsUsedInArgOrEnv = Warning "SecretsUsedInArgOrEnv",
    /// A comment above a `FROM` or an `ARG` that describes something else.
    InvalidDefinitionDescription = Warning "InvalidDefinitionDescription",
    /// apt's package lists in a layer.
    AptListsLeft = Warning "AptListsLeft",
    /// A password or token in a command.
    SecretInCommand = Warning "SecretInCommand",
    /// The whole context is copied before dependencies are installed.
    CacheBusterOrder = Warning "CacheBusterOrder",
}

impl Code {
    /// The rule that a warning breaks; errors break none.
    pub fn rule(self) -> Option<Rule> {
        self.as_str().parse().ok()
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
