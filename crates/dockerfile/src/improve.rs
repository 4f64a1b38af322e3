//! Rules of our own that the text alone decides: what works as it stands and could be better.
//!
//! A shell command is not parsed but cut at what separates commands (`shell`), which is enough to say that one is certainly there.
//! Whatever is not certain is not reported.

mod secret;
mod shell;

use crate::ast::{
    CommandLine, CopySource, File, Heredoc, Instruction, MountKey, Run, Stage, Statement, Word,
};
use crate::finding::{Code, Finding};
use crate::span::{Span, Spanned};

use self::shell::Command;

/// Everything that could be better, in the order of the file.
pub fn improvements(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    for stage in &file.stages {
        for statement in &stage.instructions {
            if let Instruction::Run(run) = &statement.instruction {
                findings.extend(apt_lists(run, statement.span));
            }
            findings.extend(scripts(&statement.instruction).iter().find_map(Script::secret));
        }
        findings.extend(cache_buster(stage));
    }
    findings.sort_by_key(|finding| finding.span);
    findings
}

/// Text that a shell or program gets, and where it stands.
struct Script {
    text: String,
    span: Span,
}

impl Script {
    /// The place of a part of the text; of a text that does not stand in the file as it is, the whole.
    fn place(&self, part: std::ops::Range<usize>) -> Span {
        let offset = |at: usize| u32::try_from(at).ok().and_then(|at| self.span.start.checked_add(at));
        match (offset(part.start), offset(part.end)) {
            (Some(start), Some(end)) if self.span.range().len() == self.text.len() => Span::new(start, end),
            _ => self.span,
        }
    }

    /// `SecretInCommand`.
    fn secret(&self) -> Option<Finding> {
        let found = secret::find(&self.text)?;
        let message = format!("this looks like {}, which everybody who has the image can read", found.kind);
        let finding = Finding::new(Code::SecretInCommand, self.place(found.range), message);
        Some(
            finding
                .with_help("revoke it, and mount the new one: `RUN --mount=type=secret,id=NAME,env=NAME …`"),
        )
    }
}

/// The texts of an instruction that holds a command.
fn scripts(instruction: &Instruction) -> Vec<Script> {
    match instruction {
        Instruction::Run(run) => texts(&run.command, &run.heredocs),
        Instruction::Cmd(cmd) => texts(&cmd.command, &[]),
        Instruction::Entrypoint(entrypoint) => texts(&entrypoint.command, &[]),
        _ => Vec::new(),
    }
}

fn texts(command: &Spanned<CommandLine>, heredocs: &[Heredoc]) -> Vec<Script> {
    let text = match &command.node {
        CommandLine::Shell(text) => text.clone(),
        CommandLine::Exec(words) => words.join(" "),
    };
    let bodies = heredocs.iter().map(|heredoc| Script { text: heredoc.content.clone(), span: heredoc.span });
    std::iter::once(Script { text, span: command.span }).chain(bodies).collect()
}

fn commands(run: &Run) -> Vec<Command> {
    // `["sh", "-c", "…"]` holds a script as its last word.
    if let CommandLine::Exec(words) = &run.command.node
        && words.iter().any(|word| word == "-c")
        && let Some(script) = words.last()
    {
        return shell::commands(script);
    }
    texts(&run.command, &run.heredocs).iter().flat_map(|script| shell::commands(&script.text)).collect()
}

/// `AptListsLeft`.
fn apt_lists(run: &Run, span: Span) -> Option<Finding> {
    const LISTS: &str = "/var/lib/apt/lists";
    let commands = commands(run);
    let is_apt = |command: &&Command| matches!(command.program.as_str(), "apt-get" | "apt" | "aptitude");
    let updates = commands.iter().find(|command| is_apt(command) && command.has("update"))?;
    let removes = |command: &Command| match command.program.as_str() {
        "rm" | "find" => {
            command.words.iter().any(|word| LISTS.starts_with(dir(word)) || word.contains(LISTS))
        }
        _ => is_apt(&command) && command.has("distclean"),
    };
    if commands.iter().any(removes)
        || run.mounts.iter().any(|mount| is_mounted_over(mount.value(MountKey::Target), LISTS))
    {
        return None;
    }
    let message = format!("the package lists that `{} update` fetches stay in the layer", updates.program);
    let finding = Finding::new(Code::AptListsLeft, span, message);
    Some(finding.with_help(
        "end the command with `&& rm -rf /var/lib/apt/lists/*`, or add `--mount=type=cache,target=/var/lib/apt/lists`",
    ))
}

/// What a pattern for everything in a directory names: `/var/lib/apt/*` as `/var/lib/apt/`. A text that is no absolute path names
/// nothing.
fn dir(word: &str) -> &str {
    let path = word.trim_matches(['"', '\'']);
    if path.len() > 1 && path.starts_with('/') { path.trim_end_matches('*') } else { "\0" }
}

/// Whether a mount hides `path`, for certain or perhaps.
fn is_mounted_over(target: Option<&Spanned<Word>>, path: &str) -> bool {
    target.is_some_and(|target| {
        let target = target.as_str().trim_end_matches('/');
        target.contains('$') || path == target || path.starts_with(&format!("{target}/"))
    })
}

/// `CacheBusterOrder`: the whole context, then the first RUN that installs something.
fn cache_buster(stage: &Stage) -> Option<Finding> {
    let at = stage.instructions.iter().position(|statement| copies_all(&statement.instruction))?;
    let copy = &stage.instructions[at];
    let (run, installer) = stage.instructions[at + 1..].iter().find_map(installs)?;
    let message = "the whole context is copied before dependencies are installed, so that any changed file installs them again";
    let finding =
        Finding::new(Code::CacheBusterOrder, copy.span, message).with_label(run, "runs after every change");
    Some(finding.with_help(match installer {
        Installer::OfSystem => "move the RUN above the COPY: it needs nothing of the context".to_owned(),
        Installer::OfLanguage(manifest) => {
            format!("copy {manifest} first, then install, then copy the rest")
        }
    }))
}

/// Whether an instruction copies the whole context.
fn copies_all(instruction: &Instruction) -> bool {
    let sources = match instruction {
        Instruction::Copy(copy) if copy.from.is_none() => &copy.sources,
        Instruction::Add(add) => &add.sources,
        _ => return false,
    };
    sources.iter().any(|source| {
        matches!(source, CopySource::Path(path) if matches!(path.as_str(), "." | "./" | "/" | "*" | "./*"))
    })
}

/// What installs dependencies.
#[derive(Clone, Copy, Debug)]
enum Installer {
    /// A package manager of the system.
    OfSystem,
    /// That of a language, which reads these files.
    OfLanguage(&'static str),
}

/// Program, one of its subcommands, and what it reads; no subcommand means none at all.
const INSTALLERS: [(&str, &str, Installer); 29] = [
    ("apk", "add", Installer::OfSystem),
    ("apt", "install", Installer::OfSystem),
    ("apt-get", "install", Installer::OfSystem),
    ("dnf", "install", Installer::OfSystem),
    ("microdnf", "install", Installer::OfSystem),
    ("yum", "install", Installer::OfSystem),
    ("zypper", "install", Installer::OfSystem),
    ("bundle", "install", Installer::OfLanguage("`Gemfile` and `Gemfile.lock`")),
    ("cargo", "fetch", Installer::OfLanguage("`Cargo.toml` and `Cargo.lock`")),
    ("composer", "install", Installer::OfLanguage("`composer.json` and `composer.lock`")),
    ("dotnet", "restore", Installer::OfLanguage("the project files")),
    ("go", "mod download", Installer::OfLanguage("`go.mod` and `go.sum`")),
    ("mvn", "dependency:go-offline", Installer::OfLanguage("`pom.xml`")),
    ("mvn", "dependency:resolve", Installer::OfLanguage("`pom.xml`")),
    ("npm", "ci", Installer::OfLanguage("`package.json` and `package-lock.json`")),
    ("npm", "i", Installer::OfLanguage("`package.json` and `package-lock.json`")),
    ("npm", "install", Installer::OfLanguage("`package.json` and `package-lock.json`")),
    ("pip", "install", Installer::OfLanguage("`requirements.txt`")),
    ("pip3", "install", Installer::OfLanguage("`requirements.txt`")),
    ("python", "-m pip install", Installer::OfLanguage("`requirements.txt`")),
    ("python3", "-m pip install", Installer::OfLanguage("`requirements.txt`")),
    ("pipenv", "install", Installer::OfLanguage("`Pipfile` and `Pipfile.lock`")),
    ("pipenv", "sync", Installer::OfLanguage("`Pipfile` and `Pipfile.lock`")),
    ("pnpm", "install", Installer::OfLanguage("`package.json` and `pnpm-lock.yaml`")),
    ("poetry", "install", Installer::OfLanguage("`pyproject.toml` and `poetry.lock`")),
    ("uv", "sync", Installer::OfLanguage("`pyproject.toml` and `uv.lock`")),
    ("uv", "pip install", Installer::OfLanguage("`requirements.txt`")),
    ("yarn", "", Installer::OfLanguage("`package.json` and `yarn.lock`")),
    ("yarn", "install", Installer::OfLanguage("`package.json` and `yarn.lock`")),
];

/// The place of a RUN that installs dependencies from elsewhere, and with what.
fn installs(statement: &Statement) -> Option<(Span, Installer)> {
    let Instruction::Run(run) = &statement.instruction else { return None };
    let installer = commands(run).iter().find_map(|command| {
        // A path is a part of the context that is installed itself.
        let is_local = |word: &String| {
            word == "." || word.starts_with("./") || word.starts_with(".[") || word.starts_with('/')
        };
        let found = INSTALLERS.iter().find(|(program, subcommand, _)| command.is(program, subcommand))?;
        (!command.words.iter().any(is_local)).then_some(found.2)
    })?;
    Some((statement.span, installer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::span::Source;

    #[track_caller]
    fn check(text: &str, expected: &[Code]) {
        let parsed = crate::parse(&Source::new("Dockerfile", format!("FROM a\n{text}\n").as_bytes()));
        let codes: Vec<_> = improvements(&parsed.file).iter().map(|finding| finding.code).collect();
        assert_eq!(codes, expected, "{text}");
    }

    #[test]
    fn lists_stay_unless_they_are_removed_or_mounted_in_the_same_step() {
        const LEFT: &[Code] = &[Code::AptListsLeft];
        check("RUN apt-get update && apt-get install -y make", LEFT);
        check("RUN set -e; DEBIAN_FRONTEND=noninteractive sudo apt -qq update", LEFT);
        check("RUN [\"sh\", \"-c\", \"apt-get update\"]", LEFT);
        check("RUN [\"apt-get\", \"update\"]", LEFT);
        check("RUN <<E\napt-get update\nE", LEFT);
        check("RUN apt-get update\nRUN rm -rf /var/lib/apt/lists/*", LEFT);
        check("RUN apt-get update && apt-get install -y x && rm -rf /var/lib/apt/lists/*", &[]);
        check("RUN apt-get update && rm -rf /var/cache/* /var/lib/apt/*", &[]);
        check("RUN apt-get update && rm -rf \"/var/lib/apt/lists\"", &[]);
        check("RUN apt-get update && apt-get distclean", &[]);
        check("RUN --mount=type=cache,target=/var/lib/apt apt-get update", &[]);
        check("RUN --mount=type=cache,target=$X apt-get update", &[]);
        check("RUN --mount=type=cache,target=/var/cache/apt apt-get update", LEFT);
        check("RUN echo apt-get update", &[]);
    }

    #[test]
    fn the_whole_context_is_copied_after_what_does_not_need_it() {
        const BUSTED: &[Code] = &[Code::CacheBusterOrder];
        check("COPY . .\nRUN npm ci && npm run build", BUSTED);
        check("ADD ./ /src\nRUN yarn", BUSTED);
        check("COPY --link . /src\nENV A=b\nRUN cd /src && go mod download", BUSTED);
        check("COPY . .\nRUN python3 -m pip install -r requirements.txt", BUSTED);
        check("COPY . .\nRUN apk add make", BUSTED);
        check("COPY package.json ./\nRUN npm ci\nCOPY . .\nRUN npm run build", &[]);
        check("COPY . .\nRUN pip install .", &[]);
        check("COPY --from=b . .\nRUN npm ci", &[]);
        check("COPY . .\nRUN yarn build", &[]);
    }

    #[test]
    fn a_secret_is_found_wherever_a_command_is() {
        const SECRET: &[Code] = &[Code::SecretInCommand];
        check("RUN git clone https://me:hunter2@example.com/x", SECRET);
        check("CMD [\"app\", \"--password=hunter2\"]", SECRET);
        check("RUN <<E\nexport DB_PASSWORD=hunter2\nE", SECRET);
        check("RUN git clone https://me:$TOKEN@example.com/x", &[]);
    }
}
