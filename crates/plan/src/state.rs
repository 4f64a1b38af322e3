//! A stage half-way through its instructions.

use std::collections::HashMap;

use oci::{Config, DEFAULT_PATH, Platform};

use crate::env::Environment;
use crate::ports::PortSet;
use crate::{HISTORY_COMMENT, HistoryEntry, ImagePath, StepId, UserSpec, VariableOrigin};

/// Everything that the next instruction, or a stage based on this one, depends on.
#[derive(Clone, Debug)]
pub(crate) struct StageState {
    /// The config so far; `rootfs`, `history` and the exposed ports stay those of the base image.
    pub(crate) config: Config,
    /// What this stage adds to the history, without the stages below it.
    pub(crate) history: Vec<HistoryEntry>,
    /// What EXPOSE added.
    pub(crate) ports: PortSet,
    /// ENV and ARG, the last one executed wins.
    pub(crate) env: Environment,
    /// The ARGs that were executed.
    pub(crate) args: DeclaredArgs,
    /// The filesystem so far.
    pub(crate) step: StepId,
    pub(crate) platform: Platform,
    /// Whether this very stage has had a CMD: then ENTRYPOINT does not clear it.
    pub(crate) has_cmd: bool,
    /// Whether a WORKDIR of this file was executed, so that relative ones do not depend on the base image.
    pub(crate) has_workdir: bool,
    /// Whether the base image is known. If not, it may set any variable.
    pub(crate) base: BaseKnowledge,
}

/// ARGs, each once, in the order of their first declarations, with the values of the last ones.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeclaredArgs {
    list: Vec<(String, Option<String>)>,
    /// Where in the list each is: a stage may have ten thousand of them.
    by_name: HashMap<String, usize>,
}

impl DeclaredArgs {
    pub(crate) fn declare(&mut self, name: &str, value: Option<String>) {
        match self.by_name.get(name) {
            Some(at) => self.list[*at].1 = value,
            None => {
                self.by_name.insert(name.to_owned(), self.list.len());
                self.list.push((name.to_owned(), value));
            }
        }
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (&str, Option<&str>)> {
        self.list.iter().map(|(name, value)| (name.as_str(), value.as_deref()))
    }

    /// How long all of them are.
    pub(crate) fn bytes(&self) -> usize {
        self.iter().map(|(name, value)| name.len() + value.map_or(0, str::len)).sum()
    }
}

/// Whether a stage's base image was looked at.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum BaseKnowledge {
    Known,
    Unknown,
}

impl StageState {
    /// The state at the beginning of a stage that does not start from another one.
    pub(crate) fn new(mut config: Config, step: StepId, platform: Platform) -> Self {
        config.created = None;
        let execution = &mut config.execution;
        execution.on_build.clear();
        if execution.env_value("PATH").is_none() {
            execution.set_env("PATH", DEFAULT_PATH);
        }
        let directory = &mut execution.working_dir;
        if !directory.is_empty() && !directory.starts_with('/') {
            *directory = ImagePath::rooted(directory).to_string();
        }
        let mut env = Environment::default();
        env.set_pairs(&execution.env);
        Self {
            config,
            history: Vec::new(),
            ports: PortSet::default(),
            env,
            args: DeclaredArgs::default(),
            step,
            platform,
            has_cmd: false,
            has_workdir: false,
            base: BaseKnowledge::Known,
        }
    }

    /// The config of an image that is made from nothing.
    pub(crate) fn scratch_config(platform: &Platform) -> Config {
        let mut config = Config::empty(platform);
        "/".clone_into(&mut config.execution.working_dir);
        config.execution.set_env("PATH", DEFAULT_PATH);
        config
    }

    /// The state at the beginning of a stage that starts from this one: all is inherited but triggers. The config's variables
    /// are assigned anew, so that an ARG which hid one does so no longer.
    pub(crate) fn derive(&self) -> Self {
        let mut derived = Self { history: Vec::new(), has_cmd: false, ..self.clone() };
        derived.config.execution.on_build.clear();
        derived.env.set_pairs(&self.config.execution.env);
        derived
    }

    pub(crate) fn cwd(&self) -> ImagePath {
        ImagePath::rooted(&self.config.execution.working_dir)
    }

    pub(crate) fn user(&self) -> Option<UserSpec> {
        let user = &self.config.execution.user;
        (!user.is_empty()).then(|| UserSpec(user.clone()))
    }

    pub(crate) fn set_env(&mut self, name: &str, value: &str) {
        self.env.set(name, value, VariableOrigin::Env);
        self.config.execution.set_env(name, value);
    }

    pub(crate) fn set_arg(&mut self, name: &str, value: &str) {
        self.env.set(name, value, VariableOrigin::Arg);
    }

    /// Whether an ARG of that name was executed.
    pub(crate) fn declares(&self, name: &str) -> bool {
        self.args.by_name.contains_key(name)
    }

    /// Adds a line of history for an instruction without a layer.
    pub(crate) fn record(&mut self, created_by: impl Into<String>) {
        self.push_history(created_by.into(), None);
    }

    /// Makes `step` the filesystem, with its line of history.
    pub(crate) fn advance(&mut self, step: StepId, created_by: impl Into<String>) {
        self.step = step;
        self.push_history(created_by.into(), Some(step));
    }

    fn push_history(&mut self, created_by: String, step: Option<StepId>) {
        self.history.push(HistoryEntry { created_by, comment: HISTORY_COMMENT.to_owned(), step });
    }
}
