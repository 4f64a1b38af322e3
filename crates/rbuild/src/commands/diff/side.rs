//! One of the two things that are compared.

use std::path::Path;

use cache::{Cache, Salt};
use image::{Layers, LocalImage};
use oci::{Config, Digest, ImageId, LayerId};
use store::RecordKey;

use crate::build::report::{self, Made, MadeStep};
use crate::build::unknown_stage;
use crate::cli::StepName;
use crate::commands::{explain, failures};
use crate::diagnostic::Diagnostic;
use crate::failure::{Exit, Failure};
use crate::session::store_failure;
use crate::terminal::one_line;

/// Where to look for a stage that the build does not have.
const OTHER_BUILD: &str =
    "`rbuild explain` shows the steps of the last build; `--file` means that of another Dockerfile";

/// A filesystem, and what an image says of itself.
pub(super) struct Side {
    /// Lowest first, pinned.
    pub(super) layers: Vec<LayerId>,
    /// A step has none.
    pub(super) config: Option<Config>,
}

impl Side {
    /// What a name means: STAGE@STEP of the last build, of `dockerfile` or of all, else an image.
    pub(super) fn find(name: &str, dockerfile: Option<&Path>, layers: &Layers<'_>) -> Result<Self, Failure> {
        // No image is called that: behind an `@` stands a digest, which has a colon.
        if let Ok(StepName { number: Some(number), stage }) = name.parse() {
            let step = StepName { stage, number: Some(number) };
            return Self::of_step(&step, number, dockerfile, layers);
        }
        let image = image::find(layers, name).map_err(|error| failures::of_find(&error))?;
        Ok(Self { layers: image.layers, config: Some(image.config) })
    }

    fn of_step(
        name: &StepName,
        number: usize,
        dockerfile: Option<&Path>,
        layers: &Layers<'_>,
    ) -> Result<Self, Failure> {
        let store = layers.lease().store();
        let path = dockerfile.map(explain::canonical).transpose()?;
        let steps =
            report::read_steps(path.as_deref(), store)?.ok_or_else(|| explain::no_report(dockerfile))?;
        let made = Steps { steps: &steps, layers };
        let step = made.find(name, number)?;
        Ok(Self { layers: made.layers(step)?, config: None })
    }
}

/// The steps of a build.
struct Steps<'s> {
    steps: &'s [MadeStep],
    layers: &'s Layers<'s>,
}

impl Steps<'_> {
    fn find(&self, name: &StepName, number: usize) -> Result<&MadeStep, Failure> {
        let places = || self.steps.iter().filter_map(|step| step.place.as_ref());
        let mut stages: Vec<_> = places().map(|place| (place.stage, place.name.as_deref())).collect();
        stages.sort_unstable();
        stages.dedup();
        let names = || stages.iter().filter_map(|(_, name)| *name);
        let stage =
            name.stage_among(&stages).ok_or_else(|| unknown_stage(&name.stage, names(), OTHER_BUILD))?;
        let numbered = |number: usize| {
            let is_it = |step: &&MadeStep| {
                step.place.as_ref().is_some_and(|place| (place.stage, place.number) == (stage, number))
            };
            self.steps.iter().find(is_it)
        };
        // Where two stages begin with one image, the step is the first one's; but the next step stands on it.
        let below_next = || self.steps.get(numbered(number + 1)?.parent?);
        numbered(number).or_else(below_next).ok_or_else(|| {
            let count = places().filter(|place| place.stage == stage).map(|place| place.number).max();
            no_such_step(name, number, count.unwrap_or_default())
        })
    }

    fn layers(&self, step: &MadeStep) -> Result<Vec<LayerId>, Failure> {
        match &step.made {
            Made::Nothing => Ok(Vec::new()),
            Made::Image(id) => self.of_image(id),
            Made::Record(key) => self.of_record(key),
            Made::Layer(key) => {
                let parent = step.parent.and_then(|parent| self.steps.get(parent));
                let below = parent.map_or(Ok(Vec::new()), |parent| self.layers(parent))?;
                Ok([below, self.of_record(key)?].concat())
            }
        }
    }

    fn of_image(&self, id: &ImageId) -> Result<Vec<LayerId>, Failure> {
        let found = LocalImage::by_id(self.layers, id).map_err(|error| failures::of_image(&error))?;
        found.map(|image| image.layers).ok_or_else(gone)
    }

    fn of_record(&self, key: &Digest) -> Result<Vec<LayerId>, Failure> {
        let lease = self.layers.lease();
        let salt = lease.store().salt().map_err(|error| store_failure(&error))?;
        let cache = Cache::new(lease, Salt(salt), String::new());
        let record = cache.find(&RecordKey::new(key.clone())).map_err(|error| store_failure(&error))?;
        let record = record.ok_or_else(gone)?;
        Ok(record.layers.into_iter().map(|layer| layer.id).collect())
    }
}

fn no_such_step(name: &StepName, number: usize, count: usize) -> Failure {
    let stage = one_line(&name.stage);
    let title = format!("there is no step {number} in stage `{stage}` of that build, whose last is {count}");
    let help = "`rbuild explain` shows all steps with their numbers";
    Failure::new(Exit::Usage, Diagnostic::error("no-such-step", title).help(help))
}

/// What a prune has taken.
fn gone() -> Failure {
    let diagnostic = Diagnostic::error("no-result", "what that step made is no longer in the store");
    Failure::new(Exit::Usage, diagnostic.help("build it again with `rbuild build`"))
}
