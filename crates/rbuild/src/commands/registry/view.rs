//! How a transfer looks: one bar of bytes on a terminal, a line for each layer elsewhere.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use oci::{Digest, Reference};

use crate::environment::Environment;
use crate::listing::{human_bytes, tell};

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

/// Which way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Way {
    Copy,
    Pull,
    Push,
}

impl Way {
    fn doing(self) -> &'static str {
        match self {
            Self::Copy => "copying to",
            Self::Pull => "pulling",
            Self::Push => "pushing",
        }
    }

    fn done(self) -> &'static str {
        match self {
            Self::Copy => "copied to",
            Self::Pull => "pulled",
            Self::Push => "pushed",
        }
    }
}

impl View {
    pub(crate) fn of(environment: &Environment) -> Self {
        if environment.stderr_is_terminal { Self::Bar } else { Self::Lines }
    }

    /// Begins to show the transfer of one image.
    pub(crate) fn begin(self, way: Way, reference: &Reference) -> Shown {
        let name = reference.familiar();
        let bar = match self {
            Self::Quiet | Self::Lines => ProgressBar::hidden(),
            Self::Bar => new_bar(way, &name),
        };
        if self == Self::Lines {
            tell(format_args!("{} {name}", way.doing()));
        }
        Shown { view: self, way, name, bar, layers: Mutex::default() }
    }
}

fn new_bar(way: Way, name: &str) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{spinner} {prefix} {bytes}/{total_bytes} {binary_bytes_per_sec} {msg}");
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr())
        .with_prefix(format!("{} {name}", way.doing()))
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

/// One transfer under way. May be told of progress from any thread.
pub(crate) struct Shown {
    view: View,
    way: Way,
    name: String,
    bar: ProgressBar,
    layers: Mutex<HashMap<Digest, Progress>>,
}

/// How far a layer is, in bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    done: u64,
    all: u64,
}

impl Shown {
    /// There are so many layers.
    pub(crate) fn counted(&self, layers: usize) {
        self.bar.set_message(format!("{layers} layers"));
    }

    /// A layer of so many bytes begins to move.
    pub(crate) fn began(&self, layer: &Digest, bytes: u64) {
        let mut layers = self.layers();
        let before = layers.insert(layer.clone(), Progress { done: 0, all: bytes });
        // It begins anew.
        let Progress { done, all } = before.unwrap_or_default();
        self.bar.set_position(self.bar.position().saturating_sub(done));
        self.bar.set_length((self.bar.length().unwrap_or_default() + bytes).saturating_sub(all));
    }

    /// So many more bytes of a layer have moved.
    pub(crate) fn moved(&self, layer: &Digest, bytes: u64) {
        let mut layers = self.layers();
        let done = layers.entry(layer.clone()).or_default();
        done.done += bytes;
        self.bar.inc(bytes);
    }

    /// So many bytes of a layer have moved in all.
    pub(crate) fn has_moved(&self, layer: &Digest, bytes: u64) {
        let mut layers = self.layers();
        let progress = layers.entry(layer.clone()).or_default();
        let position = self.bar.position() + bytes;
        self.bar.set_position(position.saturating_sub(progress.done));
        progress.done = bytes;
    }

    /// A layer is where it should be; how, if that is something to tell.
    pub(crate) fn ended(&self, layer: &Digest, how: Option<&str>) {
        let mut layers = self.layers();
        let Some(Progress { done, all }) = layers.remove(layer) else { return };
        self.bar.inc(all.saturating_sub(done));
        drop(layers);
        if self.view == View::Lines {
            let how = how.map(|how| format!(" {how}")).unwrap_or_default();
            tell(format_args!("{}: layer {} of {}{how}", self.name, layer.short(), human_bytes(all)));
        }
    }

    /// Takes the bar away, and says what came of it.
    pub(crate) fn end(&self, digest: Option<&Digest>) {
        self.bar.finish_and_clear();
        if let (Some(digest), false) = (digest, self.view == View::Quiet) {
            tell(format_args!("{} {} ({digest})", self.way.done(), self.name));
        }
    }

    fn layers(&self) -> MutexGuard<'_, HashMap<Digest, Progress>> {
        self.layers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
