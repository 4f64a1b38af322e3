//! One stage: each instruction changes the stage's config, its environment, or its filesystem.
//!
//! An instruction's variables are those set before it; only ARG sees what the same ARG set further left. What instructions do to the
//! config alone is in [`crate::config`], what makes steps in [`crate::run`] and [`crate::copy`].

use dockerfile::{
    Arg, ArgDeclaration, Env, Escape, Expose, Instruction, KeyValue, Span, Spanned, Statement, StopSignal,
    User, Volume, Word,
};

use crate::expand::{self, Expanded};
use crate::finding::{ErrorKind, Fallible, Finding, NameKind, WarningKind};
use crate::graph::Origin;
use crate::lower::{Lowering, Purpose};
use crate::meant::nearest;
use crate::state::{BaseKnowledge, StageState};
use crate::trigger::{Trigger, TriggerOrigin};
use crate::{Op, Workdir, args, config, lint, path, ports, signal};

/// An instruction to lower: a statement of the stage, or a trigger of its base.
#[derive(Clone, Debug)]
pub(crate) struct Item<'a> {
    pub(crate) instruction: &'a Instruction,
    pub(crate) span: Span,
    /// What progress shows.
    pub(crate) title: String,
    escape: Escape,
    handed_down: Option<HandedDown<'a>>,
}

/// How a trigger came here.
#[derive(Clone, Debug)]
struct HandedDown<'a> {
    trigger: &'a Trigger<'a>,
    /// The FROM that brought it.
    from: Span,
}

impl<'a> Item<'a> {
    pub(crate) fn of_statement(statement: &'a Statement, escape: Escape) -> Self {
        Self {
            instruction: &statement.instruction,
            span: statement.span,
            title: statement.text.clone(),
            escape,
            handed_down: None,
        }
    }

    pub(crate) fn of_trigger(trigger: &'a Trigger<'a>, stage: &dockerfile::Stage, file: Escape) -> Self {
        let span = match trigger.origin {
            TriggerOrigin::Stage(span) => span,
            TriggerOrigin::Image(_) => stage.span,
        };
        Self {
            instruction: &trigger.instruction,
            span,
            title: format!("ONBUILD {}", trigger.text),
            escape: trigger.escape(file),
            handed_down: Some(HandedDown { trigger, from: stage.span }),
        }
    }

    /// Moves what was found in a trigger to where the file shows it.
    pub(crate) fn place<K>(&self, finding: Finding<K>) -> Finding<K> {
        let Some(HandedDown { trigger, from }) = &self.handed_down else { return finding };
        match &trigger.origin {
            TriggerOrigin::Stage(_) => finding.label(*from, "this FROM runs the trigger"),
            TriggerOrigin::Image(image) => Finding { span: self.span, labels: Vec::new(), ..finding }
                .note(format!("in `ONBUILD {}` of image `{image}`", trigger.text)),
        }
    }
}

/// A stage while its instructions are gone through.
pub(crate) struct StageLowering<'l, 'a> {
    pub(crate) shared: &'l mut Lowering<'a>,
    pub(crate) index: usize,
    pub(crate) state: StageState,
}

impl StageLowering<'_, '_> {
    /// Lowers one instruction.
    pub(crate) fn lower(&mut self, item: &Item<'_>) -> Fallible<()> {
        let warnings = self.shared.warnings.len();
        let result = self.dispatch(item);
        let new = self.shared.warnings.split_off(warnings);
        self.shared.warnings.extend(new.into_iter().map(|warning| item.place(warning)));
        result.map_err(|error| Box::new(item.place(*error)))
    }

    fn dispatch(&mut self, item: &Item<'_>) -> Fallible<()> {
        let config = &mut self.state.config;
        let created_by = match item.instruction {
            Instruction::Add(add) => return self.add(add, item),
            Instruction::Copy(copy) => return self.copy(copy, item),
            Instruction::Run(run) => return self.run(run, item),
            Instruction::Workdir(workdir) => return self.workdir(&workdir.path, item),
            // A trigger is for others; it leaves no line of history.
            Instruction::Onbuild(onbuild) => {
                config.execution.on_build.push(onbuild.trigger.clone());
                return Ok(());
            }
            Instruction::Arg(arg) => self.arg(arg, item)?,
            Instruction::Env(env) => self.env(env, item)?,
            Instruction::Expose(expose) => self.expose(expose, item)?,
            Instruction::Label(label) => self.label(label, item)?,
            Instruction::StopSignal(stop_signal) => self.stop_signal(stop_signal, item)?,
            Instruction::User(user) => self.user(user, item)?,
            Instruction::Volume(volume) => self.volume(volume, item)?,
            Instruction::Cmd(cmd) => {
                self.state.has_cmd = true;
                self.shared.warnings.extend(lint::shell_form("CMD", &cmd.command, config));
                config::set_cmd(config, &cmd.command)
            }
            Instruction::Entrypoint(entrypoint) => {
                self.shared.warnings.extend(lint::shell_form("ENTRYPOINT", &entrypoint.command, config));
                config::set_entrypoint(config, &entrypoint.command, self.state.has_cmd)
            }
            Instruction::Healthcheck(healthcheck) => config::set_healthcheck(config, healthcheck),
            Instruction::Maintainer(maintainer) => config::set_author(config, &maintainer.name),
            Instruction::Shell(shell) => config::set_shell(config, &shell.words),
        };
        self.state.record(created_by);
        Ok(())
    }

    fn arg(&mut self, arg: &Arg, item: &Item<'_>) -> Fallible<String> {
        let mut line = "ARG".to_owned();
        for declaration in &arg.declarations {
            let name = declaration.name.as_str();
            let value = self.arg_value(declaration, item)?;
            if let Some(value) = value.as_deref().filter(|_| args::is_variable(name)) {
                self.warn_of_hidden_env(name, value, declaration.name.span);
                self.state.set_arg(name, value);
            }
            line.push_str(
                &value.as_ref().map_or_else(|| format!(" {name}"), |value| format!(" {name}={value}")),
            );
            self.shared.outline.arg(declaration, value.as_deref(), item.span);
            self.state.args.declare(name, value);
        }
        Ok(line)
    }

    fn arg_value(&mut self, declaration: &ArgDeclaration, item: &Item<'_>) -> Fallible<Option<String>> {
        let name = declaration.name.as_str();
        if let Some(given) = self.shared.args.get(name) {
            return Ok(Some(given.to_owned()));
        }
        match &declaration.default {
            Some(default) => self.expand(default, item).map(Some),
            None => Ok(self.shared.globals.get(name).map(ToOwned::to_owned)),
        }
    }

    fn warn_of_hidden_env(&mut self, name: &str, value: &str, span: Span) {
        let own = self.state.config.execution.env_value(name);
        if own.is_some_and(|own| own != value) {
            let warning = Finding::new(WarningKind::ArgHidesEnv(name.to_owned()), span);
            self.shared
                .warnings
                .push(warning.help("give the ARG another name, or declare it before the ENV"));
        }
    }

    fn env(&mut self, env: &Env, item: &Item<'_>) -> Fallible<String> {
        let pairs = self.pairs(&env.pairs, NameKind::Variable, item)?;
        for (name, value) in &pairs {
            self.state.set_env(name, value);
        }
        Ok(config::pairs_line("ENV", &pairs))
    }

    fn label(&mut self, label: &dockerfile::ast::Label, item: &Item<'_>) -> Fallible<String> {
        let pairs = self.pairs(&label.pairs, NameKind::Label, item)?;
        self.state.config.execution.labels.extend(pairs.iter().cloned());
        Ok(config::pairs_line("LABEL", &pairs))
    }

    /// Expands all pairs before any of them takes effect.
    fn pairs(
        &mut self,
        pairs: &[KeyValue],
        kind: NameKind,
        item: &Item<'_>,
    ) -> Fallible<Vec<(String, String)>> {
        let mut expanded = Vec::with_capacity(pairs.len());
        for pair in pairs {
            let name = self.expand_name(&pair.key, kind, item)?;
            expanded.push((name, self.expand(&pair.value, item)?));
        }
        Ok(expanded)
    }

    fn expose(&mut self, expose: &Expose, item: &Item<'_>) -> Fallible<String> {
        // The reference implementation sorts the words as written, which the line of history shows.
        let mut words: Vec<_> = expose.ports.iter().collect();
        words.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        let mut all = Vec::new();
        for word in words {
            let expanded = expand::words(word.as_str(), item.escape, &self.state.env);
            for spec in self.report(expanded, word)? {
                self.shared.warnings.extend(lint::port_style(&spec, word.span));
                let ports = ports::parse(&spec);
                let ports = ports.map_err(|error| Finding::new(ErrorKind::Port(error), word.span))?;
                // Their names stand in the stage's history and in that of the image.
                self.count(spec.len() + 2 * ports.names_bytes(), word.span)?;
                self.state.ports.insert(ports);
                all.push(ports);
            }
        }
        // Nobody looks at the history of what is only checked.
        if self.shared.purpose == Purpose::Check {
            all.clear();
        }
        let bytes: usize = all.iter().map(|ports| ports.names_bytes() + 1).sum();
        let mut line = String::with_capacity("EXPOSE []".len() + bytes);
        line.push_str("EXPOSE [");
        let mut separator = "";
        for ports in all {
            line.push_str(separator);
            separator = " ";
            ports.write_names(&mut line);
        }
        line.push(']');
        Ok(line)
    }

    fn stop_signal(&mut self, stop_signal: &StopSignal, item: &Item<'_>) -> Fallible<String> {
        let word = &stop_signal.signal;
        let text = self.expand(word, item)?;
        if !signal::is_signal(&text) {
            let error = Finding::new(ErrorKind::Signal(text.clone()), word.span);
            return Err(Box::new(error.meant(signal::nearest(&text).as_deref(), |name| format!("`{name}`"))));
        }
        let line = format!("STOPSIGNAL {text}");
        self.state.config.execution.stop_signal = text;
        Ok(line)
    }

    fn user(&mut self, user: &User, item: &Item<'_>) -> Fallible<String> {
        let text = self.expand(&user.user, item)?;
        let line = format!("USER {text}");
        self.state.config.execution.user = text;
        Ok(line)
    }

    fn volume(&mut self, volume: &Volume, item: &Item<'_>) -> Fallible<String> {
        let mut paths = Vec::with_capacity(volume.paths.len());
        for word in &volume.paths {
            paths.push(self.expand_name(word, NameKind::Volume, item)?);
        }
        Ok(config::add_volumes(&mut self.state.config, &paths))
    }

    fn workdir(&mut self, word: &Spanned<Word>, item: &Item<'_>) -> Fallible<()> {
        let written = self.expand(word, item)?;
        let base = self.state.cwd();
        let path = base.join(&written);
        let length = path.as_str().len();
        if length > path::MAX_BYTES {
            let error = Finding::new(ErrorKind::LongWorkdir(length), word.span);
            return Err(error.help("a WORKDIR without a leading `/` is below the one before it").into());
        }
        // The config and the history keep an absolute path as it was written, unclean as it may be.
        let shown = if written.starts_with('/') { written.clone() } else { path.to_string() };
        if !written.starts_with('/') && !self.state.has_workdir {
            let (base, help) = match self.state.base {
                BaseKnowledge::Known => (Some(base), format!("write `WORKDIR {path}`")),
                BaseKnowledge::Unknown => (None, "write an absolute path".to_owned()),
            };
            let kind = WarningKind::RelativeWorkdir { written, base };
            self.shared.warnings.push(Finding::new(kind, word.span).help(help));
        }
        self.state.has_workdir = true;
        self.state.config.execution.working_dir.clone_from(&shown);
        let line = format!("WORKDIR {shown}");
        if path.is_root() {
            self.state.record(line);
            return Ok(());
        }
        let (user, time) = (self.state.user(), self.shared.epoch);
        let workdir = Workdir { parent: self.state.step, path, user, time };
        let step = self.shared.graph.push(Op::Workdir(workdir), self.origin(item, item.title.clone()));
        self.state.advance(step, line);
        Ok(())
    }

    /// Where a step of this instruction comes from.
    pub(crate) fn origin(&self, item: &Item<'_>, title: String) -> Origin {
        self.shared.origin(self.index, self.state.platform.clone(), item.span, &title)
    }

    /// Expands a word with the variables set so far.
    pub(crate) fn expand(&mut self, word: &Spanned<Word>, item: &Item<'_>) -> Fallible<String> {
        let expanded = expand::word(word.as_str(), item.escape, &self.state.env);
        let text = self.report(expanded, word)?;
        self.count(text.len(), word.span)?;
        Ok(text)
    }

    /// Counts bytes that the file has come to.
    pub(crate) fn count(&mut self, bytes: usize, span: Span) -> Fallible<()> {
        let counted = self.shared.total.add(bytes);
        counted.map_err(|error| Box::new(Finding::new(ErrorKind::Expand(error), span)))
    }

    /// Expands the body of a heredoc, which stands at `span`.
    pub(crate) fn expand_text(&mut self, body: &str, span: Span) -> Fallible<String> {
        let expanded = expand::text(body, &self.state.env);
        let text = self.report(expanded, &Spanned::new(Word::new(body), span))?;
        self.count(text.len(), span)?;
        Ok(text)
    }

    fn expand_name(&mut self, word: &Spanned<Word>, kind: NameKind, item: &Item<'_>) -> Fallible<String> {
        let name = self.expand(word, item)?;
        if name.is_empty() {
            return Err(Box::new(Finding::new(ErrorKind::EmptyName(kind, word.to_string()), word.span)));
        }
        Ok(name)
    }

    /// Turns an expansion's outcome into findings.
    fn report<T>(
        &mut self,
        expanded: Result<Expanded<T>, expand::ExpandError>,
        word: &Spanned<Word>,
    ) -> Fallible<T> {
        let expanded = expanded.map_err(|error| Finding::new(ErrorKind::Expand(error), word.span))?;
        for (name, range) in expanded.missing {
            let is_name = name.starts_with(|c: char| c.is_alphabetic() || c == '_');
            let may_be_set = self.state.base == BaseKnowledge::Unknown || self.state.declares(&name);
            if is_name && !may_be_set {
                let meant = nearest(&name, self.state.env.names());
                let warning =
                    Finding::new(WarningKind::UndefinedVariable(name.clone()), expand::place(word, &range));
                self.shared.warnings.push(warning.meant(meant, |meant| format!("`${meant}`")));
            }
        }
        Ok(expanded.value)
    }
}
