//! `rbuild shell`: a process in the midst of a build.
//!
//! The shell is a step that stands nowhere in the Dockerfile ([`plan::shell`]). What it needs is built like any build; then it is started
//! as a RUN would be, but with our own standard descriptors, and nothing of it is recorded.

use std::path::Path;

use plan::{Moment, Plan, Spot};
use sandbox::Stdio;
use solver::{BrokenBelow, Entry, RunFailure};
use suggest::nearest;
use sys::terminal::WindowSize;

use crate::build::input::{ContextDir, Names, STDIN};
use crate::build::request::Asked;
use crate::build::{Dockerfile, Order, Work, errors, report};
use crate::cli::{Allowed, Global, ShellArgs, StepName};
use crate::commands::run::{self, streams};
use crate::diagnostic::Diagnostic;
use crate::environment::Environment;
use crate::failure::{Exit, Failure};
use crate::listing::tell;
use crate::progress::place_of;
use crate::session::Session;
use crate::signals::Relay;
use crate::terminal::one_line;

/// Opens a shell and gives its exit code.
pub(crate) fn shell(args: &ShellArgs, global: &Global, environment: &Environment) -> Result<u8, Failure> {
    open(args, global, environment).map_err(run::told_apart)
}

fn open(args: &ShellArgs, global: &Global, environment: &Environment) -> Result<u8, Failure> {
    if args.steps.allowed.contains(&Allowed::LocalDelete) {
        let title =
            format!("`--allow={}` is for outputs, and a shell has none", Allowed::LocalDelete.as_str());
        return Err(Failure::usage(title, "leave it out"));
    }
    let asked = Asked::of_steps(&args.steps, environment)?;
    keep_stdin(args.steps.names(&args.context))?;
    let (session, relay) = Session::open_with_relay(global)?;
    let order =
        Order { asked, session: &session, steps: &args.steps, context: &args.context, global, environment };
    let code = order.carry_out(|work, context, _| enter(args, work, context, &relay))?;
    session.close()?;
    Ok(code)
}

/// Builds what is before the shell, and starts it.
fn enter(args: &ShellArgs, work: Work<'_>, context: &ContextDir, relay: &Relay) -> Result<u8, Failure> {
    let Work { dockerfile, asked, session, .. } = work;
    let step = wanted(args, dockerfile, session)?;
    let explained = |failure: Failure| match &step {
        Some(step) if args.step.is_none() && failure.exit == Exit::Usage => with_origin(failure, step),
        _ => failure,
    };
    let spot = spot(step.as_ref(), args.after, dockerfile).map_err(explained)?;
    let file = &dockerfile.parsed.file;
    let plan = work.plan(|images| plan::shell(file, &asked.request, images, &spot, &args.command));
    let plan = plan.map_err(explained)?;
    tracing::debug!(%plan, "plan");
    let contexts = work.open_contexts(&plan, context)?;
    let visit = Visit { work, plan: &plan, spot, relay, args };
    let entered = work.with_services(&plan, &contexts, None, None, |services, renderer| {
        solver::enter(&plan, services, visit.broken_below(), visit.stdio(), |entry| {
            renderer.finish();
            visit.start(entry)
        })
    })?;
    entered.map_err(|error| work.of_solve(&error, &plan))?
}

/// The shell reads standard input, so nothing else can.
fn keep_stdin(names: Names<'_>) -> Result<(), Failure> {
    let is_stdin = |path: &Path| path == Path::new(STDIN);
    if !is_stdin(names.context) && !names.file.is_some_and(is_stdin) {
        return Ok(());
    }
    let title =
        "standard input is the shell's, so neither the Dockerfile nor the context can come from there";
    let help = "write them to files, and name those with `--file` and `--context`";
    Err(Failure::usage(title, help))
}

/// The step that the command line names; else the one that the last build of the Dockerfile failed at.
fn wanted(args: &ShellArgs, dockerfile: &Dockerfile, session: &Session) -> Result<Option<StepName>, Failure> {
    match &args.step {
        Some(step) => Ok(Some(step.clone())),
        None => report::last_failure(dockerfile, session.store()),
    }
}

/// Where a step is, or the end of the target.
fn spot(step: Option<&StepName>, after: bool, dockerfile: &Dockerfile) -> Result<Spot, Failure> {
    let Some(step) = step else { return Ok(Spot { stage: None, moment: Moment::End }) };
    let moment = match step.number {
        None if after => {
            let title = format!("`--after` needs a step, and `{}` is a stage", step.stage);
            let help = format!("name one of its steps, such as `{}@2`", step.stage);
            return Err(Failure::usage(title, help));
        }
        None => Moment::End,
        Some(number) if after => Moment::After(number),
        Some(number) => Moment::Before(number),
    };
    let targets = plan::targets(&dockerfile.parsed.file);
    let stages: Vec<_> = targets.iter().map(|target| target.name).enumerate().collect();
    let help = "`rbuild build --call=targets` lists the stages";
    match step.stage_among(&stages) {
        Some(stage) => Ok(Spot { stage: Some(stage), moment }),
        None => Err(unknown_stage(&step.stage, stages.iter().filter_map(|(_, name)| *name), help)),
    }
}

/// A stage that there is not; `help` is for where no name is near.
pub(crate) fn unknown_stage<'n>(stage: &str, names: impl Iterator<Item = &'n str>, help: &str) -> Failure {
    let diagnostic = Diagnostic::error("unknown-stage", format!("there is no stage `{}`", one_line(stage)));
    let help =
        nearest(stage, names).map_or_else(|| help.to_owned(), |near| format!("did you mean `{near}`?"));
    Failure::new(Exit::Usage, diagnostic.help(help))
}

/// A step that nobody named is not there: the Dockerfile is another than it was.
fn with_origin(mut failure: Failure, step: &StepName) -> Failure {
    let number = step.number.map(|number| format!("@{number}")).unwrap_or_default();
    let note = format!("the last build failed at `{}{number}`; name another step: STAGE@STEP", step.stage);
    failure.diagnostics.iter_mut().for_each(|diagnostic| diagnostic.notes.push(note.clone()));
    failure
}

/// A shell about to be opened.
#[derive(Clone, Copy)]
struct Visit<'v> {
    work: Work<'v>,
    plan: &'v Plan,
    spot: Spot,
    relay: &'v Relay,
    args: &'v ShellArgs,
}

impl Visit<'_> {
    fn broken_below(&self) -> BrokenBelow {
        match self.spot.moment {
            Moment::After(_) => BrokenBelow::IsEntered,
            Moment::Before(_) | Moment::End => BrokenBelow::Fails,
        }
    }

    fn is_on_terminal(&self) -> bool {
        self.work.environment.stdin_is_terminal && self.work.environment.stdout_is_terminal
    }

    fn stdio(&self) -> Stdio {
        match self.is_on_terminal() {
            true => Stdio::Terminal(streams::terminal_size().unwrap_or(WindowSize { rows: 0, columns: 0 })),
            false => Stdio::Piped,
        }
    }

    fn start(&self, entry: Entry<'_>) -> Result<u8, Failure> {
        let Entry { sandboxes, mut spec, failure } = entry;
        if let Some(failure) = failure {
            self.tell_of(failure);
        }
        if self.is_on_terminal() || self.args.step.is_none() {
            tell(format_args!("{}; what you write here goes away with the shell", self.place()));
        }
        let input = if self.is_on_terminal() { run::Input::Keyboard } else { run::Input::Ours };
        if self.is_on_terminal() && !spec.env.iter().any(|(name, _)| name == "TERM") {
            spec.env.push(("TERM".into(), "xterm".into()));
        }
        let platform = &self.plan.step(self.plan.output().step).platform;
        let process = run::Start { sandboxes, spec: &spec, platform, input };
        process.follow(self.relay).map_err(|failure| self.explain(failure))
    }

    /// What a failed step had to say before we look at what it left.
    fn tell_of(&self, failure: &RunFailure) {
        let shell = self.plan.step(self.plan.output().step);
        let Some(failed) = shell.op.parent() else { return };
        let diagnostic = errors::of_run(failure, self.plan.step(failed), &self.work.dockerfile.source);
        tell(format_args!("{}\n", diagnostic.render(self.work.environment.has_colour())));
    }

    /// `just before step 4 of 6 in stage `app` (Dockerfile:7)`
    fn place(&self) -> String {
        let shell = self.plan.step(self.plan.output().step);
        let side = match self.spot.moment {
            Moment::Before(_) => "before",
            Moment::After(_) => "after",
            Moment::End => return format!("at the end of stage `{}`", self.plan.output().stage),
        };
        let at = place_of(shell, &self.work.dockerfile.source);
        let step = shell
            .place
            .as_ref()
            .map(|place| format!("{} of {} in stage `{}`", place.number, place.of, place.stage));
        format!("just {side} step {} ({at})", step.unwrap_or_default())
    }

    /// Adds the way out where the stage has no shell.
    fn explain(&self, mut failure: Failure) -> Failure {
        if self.args.command.is_empty() && failure.exit == Exit::NotFound {
            let help = "the stage has no such shell; name a program that it has: `rbuild shell … -- PROGRAM`";
            for diagnostic in &mut failure.diagnostics {
                diagnostic.help.get_or_insert_with(|| help.to_owned());
            }
        }
        failure
    }
}
