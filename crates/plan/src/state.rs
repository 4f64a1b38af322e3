//! A stage half-way through its instructions.

use oci::{Config, DEFAULT_PATH, Platform};

use crate::env::Environment;
use crate::{HISTORY_COMMENT, HistoryEntry, ImagePath, StepId, UserSpec, VariableOrigin};

/// Everything that the next instruction, or a stage based on this one, depends on.
#[derive(Clone, Debug)]
pub(crate) struct StageState {
    /// The config so far; `rootfs` and `history` stay those of the base image.
    pub(crate) config: Config,
    /// What this stage adds to the history, without the stages below it.
    pub(crate) history: Vec<HistoryEntry>,
    /// ENV and ARG, the last one executed wins.
    pub(crate) env: Environment,
    /// Each ARG that was executed, in order, with its value.
    pub(crate) args: Vec<(String, Option<String>)>,
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
            env,
            args: Vec::new(),
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
        self.args.iter().any(|(declared, _)| declared == name)
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
