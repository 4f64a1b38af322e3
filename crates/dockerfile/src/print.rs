//! The syntax tree as a Dockerfile again.
//!
//! One instruction a line, without continuations and ordinary comments, flags in a fixed order. Reading what was printed gives the
//! same tree but for places; the property tests hold the two together. That is also what makes it fit for golden files.

use std::fmt::{self, Display};

use crate::ast::{
    Add, Arg, Check, CommandLine, Copy, CopySource, DeviceFlag, Directives, Escape, Expansion, File,
    Healthcheck, HealthcheckCommand, Heredoc, Indentation, Instruction, KeyValue, KeyValueForm, MountFlag,
    NetworkMode, RuleSet, Run, SecurityMode, Stage, Word,
};
use crate::duration;
use crate::lexis::{self, Json};
use crate::span::Spanned;

impl Display for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let escape = self.escape();
        directives(f, &self.directives)?;
        for global in &self.global_args {
            f.write_str(&instruction(&Instruction::Arg(global.arg.clone()), escape))?;
        }
        for stage in &self.stages {
            f.write_str(&stage.print(escape))?;
            for statement in &stage.instructions {
                f.write_str(&instruction(&statement.instruction, escape))?;
            }
        }
        Ok(())
    }
}

impl Instruction {
    /// The instruction as Dockerfile text: one line, then its heredocs' bodies, each line ended. Above an `ARG` stand its
    /// descriptions.
    pub fn print(&self, escape: Escape) -> String {
        instruction(self, escape)
    }
}

impl Stage {
    /// The `FROM` line as Dockerfile text, its description above it.
    pub fn print(&self, escape: Escape) -> String {
        let mut line = Line::new("FROM", escape);
        line.flag("platform", self.platform.as_ref());
        let mut arguments = self.image.as_str().to_owned();
        if let Some(name) = &self.name {
            arguments.extend([" AS ", name.as_str()]);
        }
        let doc = self.name.as_ref().zip(self.doc.as_ref());
        let comment = doc.map(|(name, text)| comment(name.as_str(), text)).unwrap_or_default();
        comment + &line.finish(&arguments)
    }
}

impl Display for NetworkMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "default",
            Self::None => "none",
            Self::Host => "host",
        })
    }
}

impl Display for SecurityMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sandbox => "sandbox",
            Self::Insecure => "insecure",
        })
    }
}

impl Display for MountFlag {
    /// The fields joined by commas, quoted where they hold a comma or a quote.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, field) in self.fields.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let text = match &field.value {
                Some(value) => format!("{}={}", field.key.node, value.node),
                None => field.key.node.to_string(),
            };
            write!(f, "{comma}{}", comma_field(&text))?;
        }
        Ok(())
    }
}

impl Display for DeviceFlag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&comma_field(&format!("name={}", self.name)))?;
        match self.required {
            Some(required) => write!(f, ",required={required}"),
            None => Ok(()),
        }
    }
}

fn comma_field(text: &str) -> String {
    if text.contains([',', '"']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

fn directives(f: &mut fmt::Formatter<'_>, directives: &Directives) -> fmt::Result {
    if let Some(syntax) = &directives.syntax {
        writeln!(f, "{}", format!("# syntax={} {}", syntax.frontend, syntax.arguments).trim_end())?;
    }
    if let Some(escape) = &directives.escape {
        writeln!(f, "# escape={}", escape.char())?;
    }
    match &directives.check {
        Some(check) => writeln!(f, "# check={check}", check = check.node),
        None => Ok(()),
    }
}

impl Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "skip={}", self.skip)?;
        if let Some(error) = self.error {
            write!(f, ";error={error}")?;
        }
        write!(f, ";experimental={}", self.experimental)
    }
}

impl Display for RuleSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Named(names) => f.write_str(&names.join(",")),
        }
    }
}

/// An instruction's line while its flags are written.
struct Line {
    text: String,
    escape: Escape,
}

impl Line {
    fn new(keyword: &str, escape: Escape) -> Self {
        Self { text: keyword.to_owned(), escape }
    }

    /// Writes ` --name=value` if there is a value, in quotes where it needs them.
    fn flag<T: Display>(&mut self, name: &str, value: Option<&Spanned<T>>) {
        let Some(value) = value else { return };
        let value = value.node.to_string();
        let escape = self.escape.char();
        let special = |c: char| c.is_whitespace() || matches!(c, '\'' | '"') || c == escape;
        self.text.extend([" --", name, "="]);
        if !value.contains(special) {
            return self.text.push_str(&value);
        }
        self.text.push('"');
        for c in value.chars() {
            self.text.extend((c == '"' || c == escape).then_some(escape));
            self.text.push(c);
        }
        self.text.push('"');
    }

    fn flags<T: Display>(&mut self, name: &str, values: &[Spanned<T>]) {
        for value in values {
            self.flag(name, Some(value));
        }
    }

    fn finish(mut self, arguments: &str) -> String {
        if arguments.starts_with("--") {
            self.text.push_str(" --");
        }
        self.text.push(' ');
        self.text.push_str(arguments);
        let mut line = self.text.trim_end().to_owned();
        let escape = self.escape.char();
        if line.strip_suffix(escape).is_some_and(|rest| !rest.ends_with(escape)) {
            // A blank that is trimmed but does not continue the line: the escape is text here.
            line.push('\u{C}');
        }
        line.push('\n');
        line
    }
}

fn instruction(instruction: &Instruction, escape: Escape) -> String {
    let line = |keyword| Line::new(keyword, escape);
    match instruction {
        Instruction::Add(add) => print_add(add, escape),
        Instruction::Arg(arg) => print_arg(arg, escape),
        Instruction::Cmd(cmd) => line("CMD").finish(&command(&cmd.command)),
        Instruction::Copy(copy) => print_copy(copy, escape),
        Instruction::Entrypoint(entrypoint) => line("ENTRYPOINT").finish(&command(&entrypoint.command)),
        Instruction::Env(env) => line("ENV").finish(&pairs(&env.pairs, env.form)),
        Instruction::Expose(expose) => line("EXPOSE").finish(&words(&expose.ports)),
        Instruction::Healthcheck(check) => print_healthcheck(check, escape),
        Instruction::Label(label) => line("LABEL").finish(&pairs(&label.pairs, label.form)),
        Instruction::Maintainer(maintainer) => line("MAINTAINER").finish(&maintainer.name),
        Instruction::Onbuild(onbuild) => {
            format!("ONBUILD {}", self::instruction(&onbuild.instruction, escape))
        }
        Instruction::Run(run) => print_run(run, escape),
        Instruction::Shell(shell) => line("SHELL").finish(&json_array(&shell.words)),
        Instruction::StopSignal(stop) => line("STOPSIGNAL").finish(stop.signal.as_str()),
        Instruction::User(user) => line("USER").finish(user.user.as_str()),
        Instruction::Volume(volume) => line("VOLUME").finish(&list(&volume.paths)),
        Instruction::Workdir(workdir) => line("WORKDIR").finish(workdir.path.as_str()),
    }
}

fn print_arg(arg: &Arg, escape: Escape) -> String {
    let mut comments = String::new();
    let mut declarations = Vec::new();
    for declaration in &arg.declarations {
        let name = declaration.name.as_str();
        comments += &declaration.doc.as_ref().map(|doc| comment(name, doc)).unwrap_or_default();
        declarations.push(match &declaration.default {
            Some(default) => format!("{name}={}", default.node),
            None => name.to_owned(),
        });
    }
    comments + &Line::new("ARG", escape).finish(&declarations.join(" "))
}

/// A description; the blank line keeps it from being read as a directive.
fn comment(name: &str, text: &str) -> String {
    format!("\n# {name} {text}\n")
}

fn print_add(add: &Add, escape: Escape) -> String {
    let mut line = Line::new("ADD", escape);
    line.flag("chown", add.chown.as_ref());
    line.flag("chmod", add.chmod.as_ref());
    line.flag("link", add.link.as_ref());
    line.flags("exclude", &add.exclude);
    line.flag("checksum", add.checksum.as_ref());
    line.flag("keep-git-dir", add.keep_git_dir.as_ref());
    line.flag("unpack", add.unpack.as_ref());
    transfer(line, &add.sources, &add.destination)
}

fn print_copy(copy: &Copy, escape: Escape) -> String {
    let mut line = Line::new("COPY", escape);
    line.flag("from", copy.from.as_ref());
    line.flag("chown", copy.chown.as_ref());
    line.flag("chmod", copy.chmod.as_ref());
    line.flag("link", copy.link.as_ref());
    line.flag("parents", copy.parents.as_ref());
    line.flags("exclude", &copy.exclude);
    transfer(line, &copy.sources, &copy.destination)
}

fn transfer(line: Line, sources: &[CopySource], destination: &Spanned<Word>) -> String {
    let paths: Vec<&Spanned<Word>> = sources
        .iter()
        .filter_map(|source| match source {
            CopySource::Path(path) => Some(path),
            CopySource::Heredoc(_) => None,
        })
        .chain([destination])
        .collect();
    if paths.len() == sources.len() + 1 {
        return line.finish(&list(&paths.into_iter().cloned().collect::<Vec<_>>()));
    }
    let mut arguments = String::new();
    let mut after = String::new();
    for source in sources {
        match source {
            CopySource::Path(path) => arguments += path.as_str(),
            CopySource::Heredoc(heredoc) => {
                arguments += &marker(heredoc);
                after += &bodies(std::slice::from_ref(heredoc));
            }
        }
        arguments.push(' ');
    }
    line.finish(&(arguments + destination.as_str())) + &after
}

fn print_run(run: &Run, escape: Escape) -> String {
    let mut line = Line::new("RUN", escape);
    line.flags("mount", &run.mounts);
    line.flag("network", run.network.as_ref());
    line.flag("security", run.security.as_ref());
    line.flags("device", &run.devices);
    line.finish(&command(&run.command)) + &bodies(&run.heredocs)
}

fn print_healthcheck(check: &Healthcheck, escape: Escape) -> String {
    let mut line = Line::new("HEALTHCHECK", escape);
    let Healthcheck::Command(check) = check else { return line.finish("NONE") };
    let HealthcheckCommand { interval, timeout, start_period, start_interval, retries, command: test } =
        check;
    let durations = [
        ("interval", interval),
        ("timeout", timeout),
        ("start-period", start_period),
        ("start-interval", start_interval),
    ];
    for (name, value) in durations {
        let printed = value.as_ref().map(|value| Spanned::new(duration::print(value.node), value.span));
        line.flag(name, printed.as_ref());
    }
    line.flag("retries", retries.as_ref());
    line.finish(&format!("CMD {}", command(test)))
}

fn command(command: &CommandLine) -> String {
    match command {
        CommandLine::Shell(text) => text.clone(),
        CommandLine::Exec(words) => json_array(words),
    }
}

fn pairs(pairs: &[KeyValue], form: KeyValueForm) -> String {
    let separator = match form {
        KeyValueForm::Equals => '=',
        KeyValueForm::Legacy => ' ',
    };
    let mut text = String::new();
    for (index, pair) in pairs.iter().enumerate() {
        text.extend((index > 0).then_some(' '));
        text.extend([pair.key.as_str(), separator.encode_utf8(&mut [0; 4]), pair.value.as_str()]);
    }
    text
}

fn words(words: &[Spanned<Word>]) -> String {
    words.iter().map(|word| word.as_str()).collect::<Vec<_>>().join(" ")
}

/// Words between blanks if that reads the same, else a JSON array.
fn list(paths: &[Spanned<Word>]) -> String {
    let plain = words(paths);
    let needs_json = |path: &Spanned<Word>| {
        path.as_str().is_empty()
            || path.as_str().contains(char::is_whitespace)
            || path.as_str().contains("<<")
    };
    if paths.iter().any(needs_json) || !matches!(lexis::json(&plain), Json::No) {
        return json_array(&paths.iter().map(|path| path.as_str()).collect::<Vec<_>>());
    }
    plain
}

fn json_array<T: AsRef<str>>(words: &[T]) -> String {
    let strings = words.iter().map(|word| serde_json::Value::from(word.as_ref()));
    serde_json::Value::Array(strings.collect()).to_string()
}

fn marker(heredoc: &Heredoc) -> String {
    let mut text = if heredoc.fd == 0 { String::new() } else { heredoc.fd.to_string() };
    text.push_str(match heredoc.indentation {
        Indentation::Kept => "<<",
        Indentation::TabsStripped => "<<-",
    });
    match heredoc.expansion {
        Expansion::Verbatim => text + &double_quoted(&heredoc.name),
        Expansion::Variables => text + &escaped(&heredoc.name),
    }
}

fn double_quoted(name: &str) -> String {
    let escaped: String = name
        .chars()
        .flat_map(|c| matches!(c, '"' | '$' | '\\').then_some('\\').into_iter().chain([c]))
        .collect();
    format!("\"{escaped}\"")
}

fn escaped(name: &str) -> String {
    let special = |c: char| c.is_whitespace() || matches!(c, '\'' | '"' | '$' | '\\');
    let starts_with_dash = name.starts_with('-');
    let escapes = |(at, c): (usize, char)| special(c) || (at == 0 && starts_with_dash);
    name.char_indices().flat_map(|(at, c)| escapes((at, c)).then_some('\\').into_iter().chain([c])).collect()
}

fn bodies(heredocs: &[Heredoc]) -> String {
    let mut text = String::new();
    for heredoc in heredocs {
        text += &heredoc.content;
        if !heredoc.content.is_empty() && !heredoc.content.ends_with('\n') {
            text.push('\n');
        }
        text += &heredoc.name;
        text.push('\n');
    }
    text
}
