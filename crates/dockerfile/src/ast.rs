//! The syntax tree.
//!
//! One struct per instruction with typed flags. What a builder expands before use stays a raw [`Word`] here, quotes,
//! escapes and variables included: [`crate::parse_word`] lexes it, `plan` evaluates it. What is never expanded (network
//! modes, durations, `--link`) is already typed.
//!
//! The tree is what could be understood: an instruction with an error that leaves it without meaning is not in it, and a finding
//! says so. A tree without error findings is complete.

use std::fmt;
use std::time::Duration;

use crate::span::{Span, Spanned};

mod mount;

pub use mount::{CacheSharing, DeviceFlag, MountField, MountFlag, MountKey, MountType, UnknownName};

/// A Dockerfile.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct File {
    /// The parser directives at its top.
    pub directives: Directives,
    /// The `ARG`s before the first `FROM`, in order.
    pub global_args: Vec<GlobalArg>,
    /// The stages, in order: index 0 is what `--from=0` names.
    pub stages: Vec<Stage>,
    /// Each `# check=` right above an instruction, in order; its span is that of the instruction, to which it applies.
    pub checks: Vec<Spanned<Check>>,
}

impl File {
    /// The escape character of words in this file (heredoc bodies always use the backslash).
    pub fn escape(&self) -> Escape {
        self.directives.escape.as_ref().map_or(Escape::Backslash, |escape| escape.node)
    }
}

/// An `ARG` before the first `FROM`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GlobalArg {
    /// The arguments it declares.
    pub arg: Arg,
    /// Its place.
    pub span: Span,
    /// Its logical line, joined.
    pub text: String,
}

/// The parser directives: `# key=value` lines at the very top of the file.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Directives {
    /// `# syntax=`: the frontend that shall read the file.
    pub syntax: Option<Spanned<Syntax>>,
    /// `# escape=`.
    pub escape: Option<Spanned<Escape>>,
    /// `# check=`: which lint rules apply.
    pub check: Option<Spanned<Check>>,
}

/// The value of `# syntax=`: an image reference (its first word) and arguments for it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Syntax {
    /// The first word: the frontend's image.
    pub frontend: String,
    /// What follows it, if anything.
    pub arguments: String,
}

/// The character that continues lines and escapes others in words.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Escape {
    /// `\`, unless the file says otherwise.
    #[default]
    Backslash,
    /// `` ` ``, for files full of Windows paths.
    Backtick,
}

impl Escape {
    /// The character itself.
    pub fn char(self) -> char {
        match self {
            Self::Backslash => '\\',
            Self::Backtick => '`',
        }
    }
}

/// The value of `# check=`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Check {
    /// The rules that are not reported.
    pub skip: RuleSet,
    /// Whether a lint warning fails the build.
    pub error: Option<bool>,
    /// The experimental rules that are reported nevertheless.
    pub experimental: RuleSet,
}

/// A set of lint rules, by name as the user wrote them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RuleSet {
    /// `all`.
    All,
    /// These, perhaps none.
    Named(Vec<String>),
}

impl Default for RuleSet {
    fn default() -> Self {
        Self::Named(Vec::new())
    }
}

impl RuleSet {
    /// Whether `rule` belongs to the set; names are compared without regard to case.
    pub fn contains(&self, rule: &str) -> bool {
        match self {
            Self::All => true,
            Self::Named(names) => names.iter().any(|name| name.eq_ignore_ascii_case(rule)),
        }
    }
}

/// A `FROM` and the instructions up to the next one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Stage {
    /// The image, stage or named context it starts from.
    pub image: Spanned<Word>,
    /// `--platform`.
    pub platform: Option<Spanned<Word>>,
    /// The name after `AS`.
    pub name: Option<Spanned<StageName>>,
    /// The description in the comment above, if that begins with the stage's name.
    pub doc: Option<String>,
    /// The place of the `FROM` instruction.
    pub span: Span,
    /// The logical line of the `FROM`, joined.
    pub text: String,
    /// What follows it.
    pub instructions: Vec<Statement>,
}

/// A stage's name: letters, digits, `-`, `_` and `.`, beginning with a letter; kept in lower case.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct StageName(String);

impl StageName {
    /// The name in lower case, or `None` if `text` cannot be one.
    pub fn new(text: &str) -> Option<Self> {
        let name = text.to_lowercase();
        let tail_fits =
            |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
        let fits = name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(tail_fits);
        fits.then_some(Self(name))
    }

    /// The name, in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An instruction and its place.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Statement {
    /// What it says.
    pub instruction: Instruction,
    /// From its first byte to its last, heredoc bodies included.
    pub span: Span,
    /// Its logical line as one text: continuations joined, comments within it and heredoc bodies left out, blanks at both ends
    /// trimmed. For progress and for messages.
    pub text: String,
}

/// Text as it stands in the file: not expanded, quotes and escapes kept (see [`crate::parse_word`]).
///
/// An element of a JSON array is a word too: it holds the decoded string, and the builder still expands it.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Word(String);

impl Word {
    /// Takes the raw text.
    pub fn new(raw: impl Into<String>) -> Self {
        Self(raw.into())
    }

    /// The raw text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One instruction below a `FROM`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Instruction {
    /// `ADD`
    Add(Add),
    /// `ARG`
    Arg(Arg),
    /// `CMD`
    Cmd(Cmd),
    /// `COPY`
    Copy(Copy),
    /// `ENTRYPOINT`
    Entrypoint(Entrypoint),
    /// `ENV`
    Env(Env),
    /// `EXPOSE`
    Expose(Expose),
    /// `HEALTHCHECK`
    Healthcheck(Healthcheck),
    /// `LABEL`
    Label(Label),
    /// `MAINTAINER`
    Maintainer(Maintainer),
    /// `ONBUILD`
    Onbuild(Onbuild),
    /// `RUN`
    Run(Run),
    /// `SHELL`
    Shell(Shell),
    /// `STOPSIGNAL`
    StopSignal(StopSignal),
    /// `USER`
    User(User),
    /// `VOLUME`
    Volume(Volume),
    /// `WORKDIR`
    Workdir(Workdir),
}

/// `ADD [flags] source… destination`
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Add {
    /// `--chown`, expanded by the builder.
    pub chown: Option<Spanned<Word>>,
    /// `--chmod`, expanded by the builder.
    pub chmod: Option<Spanned<Word>>,
    /// `--link[=bool]`
    pub link: Option<Spanned<bool>>,
    /// `--exclude`, each; never expanded.
    pub exclude: Vec<Spanned<Word>>,
    /// `--checksum`, expanded by the builder.
    pub checksum: Option<Spanned<Word>>,
    /// `--keep-git-dir[=bool]`
    pub keep_git_dir: Option<Spanned<bool>>,
    /// `--unpack[=bool]`
    pub unpack: Option<Spanned<bool>>,
    /// What is added, at least one.
    pub sources: Vec<CopySource>,
    /// Where it goes.
    pub destination: Spanned<Word>,
}

/// `COPY [flags] source… destination`
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Copy {
    /// `--from`: a stage, its index, a named context or an image; never expanded, and never holds a variable.
    pub from: Option<Spanned<Word>>,
    /// `--chown`, expanded by the builder.
    pub chown: Option<Spanned<Word>>,
    /// `--chmod`, expanded by the builder.
    pub chmod: Option<Spanned<Word>>,
    /// `--link[=bool]`
    pub link: Option<Spanned<bool>>,
    /// `--parents[=bool]`
    pub parents: Option<Spanned<bool>>,
    /// `--exclude`, each; never expanded.
    pub exclude: Vec<Spanned<Word>>,
    /// What is copied, at least one.
    pub sources: Vec<CopySource>,
    /// Where it goes.
    pub destination: Spanned<Word>,
}

/// One source of `ADD` or `COPY`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CopySource {
    /// A path, pattern or URL.
    Path(Spanned<Word>),
    /// A file written in the Dockerfile, named after the heredoc's word.
    Heredoc(Heredoc),
}

/// `ARG NAME[=default]…`
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Arg {
    /// What it declares, at least one, in order.
    pub declarations: Vec<ArgDeclaration>,
}

/// One name of an `ARG`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ArgDeclaration {
    /// The name; the builder expands it too, which removes quotes.
    pub name: Spanned<Word>,
    /// What follows `=`; `None` without `=`, which is not the same as an empty value.
    pub default: Option<Spanned<Word>>,
    /// The description in the comment above the instruction, if that begins with this name.
    pub doc: Option<String>,
}

/// `CMD`
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Cmd {
    /// The command; an empty exec form resets it.
    pub command: Spanned<CommandLine>,
}

/// `ENTRYPOINT`
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entrypoint {
    /// The command; an empty exec form resets it.
    pub command: Spanned<CommandLine>,
}

/// A command: text for the shell, or the words of an `execve`. Never expanded by the builder.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CommandLine {
    /// Passed to the current `SHELL` as one argument, with continuations joined.
    Shell(String),
    /// The decoded JSON array.
    Exec(Vec<String>),
}

/// `ENV KEY=value…`
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Env {
    /// The pairs in order, at least one.
    pub pairs: Vec<KeyValue>,
    /// How they were written.
    pub form: KeyValueForm,
}

/// `LABEL key=value…`
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Label {
    /// The pairs in order, at least one.
    pub pairs: Vec<KeyValue>,
    /// How they were written.
    pub form: KeyValueForm,
}

/// One pair of `ENV` or `LABEL`; both sides are expanded by the builder.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeyValue {
    /// The key, never empty.
    pub key: Spanned<Word>,
    /// The value, perhaps empty.
    pub value: Spanned<Word>,
}

/// How the pairs of `ENV` or `LABEL` were written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum KeyValueForm {
    /// `KEY=value KEY=value`
    Equals,
    /// `KEY the rest of the line`: one pair.
    Legacy,
}

/// `EXPOSE port…`
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Expose {
    /// The ports as written, at least one; expanding one may give several.
    pub ports: Vec<Spanned<Word>>,
}

/// `HEALTHCHECK`
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Healthcheck {
    /// `HEALTHCHECK NONE`: no check, not even that of the base image.
    None,
    /// `HEALTHCHECK [options] CMD …`
    Command(HealthcheckCommand),
}

/// The check of a `HEALTHCHECK CMD`. A duration of zero means the inherited value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HealthcheckCommand {
    /// `--interval`
    pub interval: Option<Spanned<Duration>>,
    /// `--timeout`
    pub timeout: Option<Spanned<Duration>>,
    /// `--start-period`
    pub start_period: Option<Spanned<Duration>>,
    /// `--start-interval`
    pub start_interval: Option<Spanned<Duration>>,
    /// `--retries`
    pub retries: Option<Spanned<u32>>,
    /// What is run.
    pub command: Spanned<CommandLine>,
}

/// `MAINTAINER name`
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Maintainer {
    /// The rest of the line, never expanded.
    pub name: Spanned<String>,
}

/// `ONBUILD instruction`
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Onbuild {
    /// The trigger as the image config stores it: the rest of the joined line, then each heredoc's body and its end word.
    pub trigger: String,
    /// The instruction it holds.
    pub instruction: Spanned<Box<Instruction>>,
}

/// `RUN [flags] command`
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Run {
    /// `--mount`, each.
    pub mounts: Vec<Spanned<MountFlag>>,
    /// `--network`
    pub network: Option<Spanned<NetworkMode>>,
    /// `--security`
    pub security: Option<Spanned<SecurityMode>>,
    /// `--device`, each.
    pub devices: Vec<Spanned<DeviceFlag>>,
    /// The command; without any text it is the empty shell command.
    pub command: Spanned<CommandLine>,
    /// The heredocs whose markers stand in a shell command, in order.
    pub heredocs: Vec<Heredoc>,
}

impl Run {
    /// The single heredoc that is the whole command (`RUN <<EOF`), whose body is the script; `None` if the command
    /// has more to it, so that the shell must be given line and bodies together.
    pub fn script(&self) -> Option<&Heredoc> {
        let CommandLine::Shell(text) = &self.command.node else { return None };
        let [heredoc] = self.heredocs.as_slice() else { return None };
        crate::heredoc::is_marker(text).then_some(heredoc)
    }
}

/// `--network` of a `RUN`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NetworkMode {
    /// What the build was started with.
    Default,
    /// No network but loopback.
    None,
    /// The host's.
    Host,
}

/// `--security` of a `RUN`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SecurityMode {
    /// The usual confinement.
    Sandbox,
    /// All capabilities.
    Insecure,
}

/// `SHELL ["…"]`
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Shell {
    /// The shell's words, at least one.
    pub words: Spanned<Vec<String>>,
}

/// `STOPSIGNAL signal`
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StopSignal {
    /// The signal's name or number, expanded by the builder.
    pub signal: Spanned<Word>,
}

/// `USER user[:group]`
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct User {
    /// The rest of the line, expanded by the builder.
    pub user: Spanned<Word>,
}

/// `VOLUME path…`
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Volume {
    /// The paths, expanded by the builder.
    pub paths: Vec<Spanned<Word>>,
}

/// `WORKDIR path`
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Workdir {
    /// The rest of the line, expanded by the builder.
    pub path: Spanned<Word>,
}

/// A heredoc: text in the Dockerfile up to a line that equals its word.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Heredoc {
    /// The word without its quotes.
    pub name: String,
    /// The number before `<<`; 0 without one.
    pub fd: u32,
    /// Whether variables in the body are expanded, where it becomes a file (a `RUN`'s body never is: its shell does that).
    pub expansion: Expansion,
    /// Whether leading tabs are stripped from every line.
    pub indentation: Indentation,
    /// The body as it stands: line ends and tabs kept, the end line left out. [`Heredoc::body`] strips the tabs.
    pub content: String,
    /// The place of the marker (`<<EOF`).
    pub marker: Span,
    /// The place of the body.
    pub span: Span,
}

impl Heredoc {
    /// The body with leading tabs stripped where the marker asks for that.
    pub fn body(&self) -> String {
        match self.indentation {
            Indentation::Kept => self.content.clone(),
            Indentation::TabsStripped => {
                self.content.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
            }
        }
    }
}

/// Whether a heredoc's body is expanded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Expansion {
    /// The word is plain: variables are expanded, quotes are text.
    Variables,
    /// The word is quoted: the body is taken as it is.
    Verbatim,
}

/// What happens to tabs at the beginning of a heredoc's lines.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Indentation {
    /// `<<`: they stay.
    Kept,
    /// `<<-`: they go.
    TabsStripped,
}
