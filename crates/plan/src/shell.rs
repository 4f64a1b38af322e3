//! A shell in the midst of a build: a RUN that stands nowhere in the file.
//!
//! A stage is a row of states, and each instruction leads from one to the next. While the stage is lowered they are all kept, each with
//! the number of steps before it, so that a moment is found by the number of a step, as progress shows it.

use crate::finding::{ErrorKind, Fallible, Finding};
use crate::graph::Origin;
use crate::instruction::StageLowering;
use crate::lower::Lowering;
use crate::state::StageState;
use crate::{Op, Place, Run, Step, config};

/// Where somebody wants to look around.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Spot {
    /// A stage, counted from 0 over all FROMs of the file; `None` is that of the request's target.
    pub stage: Option<usize>,
    /// When.
    pub moment: Moment,
}

/// A moment of a stage. Steps are counted from 1.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Moment {
    /// Just before a step: after whatever stands above it.
    Before(usize),
    /// Just after a step: before whatever stands below it.
    After(usize),
    /// After the last instruction.
    End,
}

/// The states of one stage.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    pub(crate) stage: usize,
    /// How many steps the stage had, and what it was like: before each instruction, and after the last.
    states: Vec<(usize, StageState)>,
}

impl StageLowering<'_, '_> {
    /// Keeps the state, if this is the stage that somebody wants to look at.
    pub(crate) fn watch(&mut self) {
        let count = self.shared.graph.count(self.index);
        if let Some(watched) = self.shared.watched.as_mut().filter(|watched| watched.stage == self.index) {
            watched.states.push((count, self.state.clone()));
        }
    }
}

impl Lowering<'_> {
    /// The RUN of a shell, where it comes from, and which step it belongs to.
    pub(crate) fn shell_at(
        &self,
        stage: usize,
        moment: Moment,
        command: &[String],
    ) -> Fallible<(Run, Origin, Option<Place>)> {
        let state = self.state_at(stage, moment)?;
        let label = &self.stages.get(stage).label;
        let number = match moment {
            Moment::Before(number) | Moment::After(number) => Some(number),
            Moment::End => None,
        };
        let step = number.and_then(|number| self.graph.numbered(stage, number));
        let place = number.map(|number| Place {
            stage: label.clone(),
            number,
            of: self.graph.count(stage),
            platform: None,
            target: None,
        });
        let span = step.map_or(self.stages.get(stage).syntax.span, |step| step.span);
        let origin =
            Origin { platform: state.platform.clone(), stage: None, span, title: "shell".to_owned() };
        Ok((self.shell_run(state, step, command), origin, place))
    }

    fn state_at(&self, stage: usize, moment: Moment) -> Fallible<&StageState> {
        let states = self.watched.as_ref().map_or(&[][..], |watched| &watched.states);
        let count = self.graph.count(stage);
        let (label, span) = (self.stages.get(stage).label.to_string(), self.stages.get(stage).syntax.span);
        let found = match moment {
            Moment::Before(number) | Moment::After(number) if !(1..=count).contains(&number) => {
                return Err(Finding::new(ErrorKind::NoSuchStep { stage: label, number, count }, span).into());
            }
            Moment::Before(number) => states.iter().rfind(|(steps, _)| steps + 1 == number),
            Moment::After(number) => states.iter().find(|(steps, _)| *steps == number),
            Moment::End => states.last(),
        };
        let nothing = || Finding::new(ErrorKind::NothingBefore(label), span);
        found.map(|(_, state)| state).ok_or_else(|| nothing().into())
    }

    fn shell_run(&self, state: &StageState, step: Option<&Step>, command: &[String]) -> Run {
        let args =
            if command.is_empty() { vec![config::shell_program(&state.config)] } else { command.to_vec() };
        let plain = Run { command: args.join(" "), args, ..self.plain_run(state) };
        match step.map(|step| &step.op) {
            Some(Op::Run(run)) => {
                let Run { mounts, network, security, script, time, .. } = (**run).clone();
                Run { mounts, network, security, script, time, ..plain }
            }
            _ => plain,
        }
    }
}
