//! How a pull looks: one bar of bytes on a terminal, a line for each layer elsewhere.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use image::pull::{Progress, Pulled};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use oci::{Digest, Reference};

use crate::environment::Environment;
use crate::listing::human_bytes;

/// Who looks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum View {
    /// Nobody.
    Quiet,
    /// A log.
    Lines,
    /// A person at a terminal.
    Bar,
}

impl View {
    pub(crate) fn of(environment: &Environment) -> Self {
        if environment.stderr_is_terminal { Self::Bar } else { Self::Lines }
    }

    /// Begins to show the pull of one image.
    pub(super) fn begin(self, reference: &Reference) -> Shown {
        let name = reference.familiar();
        let bar = match self {
            Self::Quiet | Self::Lines => ProgressBar::hidden(),
            Self::Bar => new_bar(&name),
        };
        if self == Self::Lines {
            eprintln!("pulling {name}");
        }
        Shown { view: self, name, bar, sizes: Mutex::default() }
    }
}

fn new_bar(name: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(
        "{spinner} pulling {prefix} {bytes}/{total_bytes} {binary_bytes_per_sec} {msg}",
    );
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr())
        .with_prefix(name.to_owned())
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

/// One pull under way.
pub(super) struct Shown {
    view: View,
    name: String,
    bar: ProgressBar,
    /// Of the layers that come.
    sizes: Mutex<HashMap<Digest, u64>>,
}

impl Shown {
    /// Called from any thread.
    pub(super) fn show(&self, progress: &Progress) {
        match progress {
            Progress::Found { layers, .. } => self.bar.set_message(format!("{layers} layers")),
            Progress::Began { layer, bytes } => {
                self.sizes().insert(layer.clone(), *bytes);
                self.bar.inc_length(*bytes);
            }
            Progress::Received { bytes, .. } => self.bar.inc(*bytes),
            Progress::Ended { layer } => {
                let size = self.sizes().remove(layer);
                if let (View::Lines, Some(size)) = (self.view, size) {
                    eprintln!("{}: layer {} of {}", self.name, layer.short(), human_bytes(size));
                }
            }
        }
    }

    /// Takes the bar away, and says what came of it.
    pub(super) fn end(&self, pulled: Option<&Pulled>) {
        self.bar.finish_and_clear();
        if let (Some(pulled), false) = (pulled, self.view == View::Quiet) {
            eprintln!("pulled {} ({})", self.name, pulled.digest);
        }
    }

    fn sizes(&self) -> MutexGuard<'_, HashMap<Digest, u64>> {
        self.sizes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
