//! Everything a solve uses but does not own.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use cache::Cache;
use context::Context;
use plan::{ContextName, Remote, RemoteError};
use sandbox::{Limits, SandboxError, Sandboxes};
use store::Lease;
use sys::root::Time;

use crate::{Event, Import};

/// What the solver works with. Made by the binary, once for each build.
pub struct Services<'s> {
    /// Pins and the private area of this build.
    pub lease: &'s Lease,
    /// Layers of the store as entry lists and trees.
    pub layers: &'s image::Layers<'s>,
    /// Records of the store as this build sees them.
    pub cache: &'s Cache<'s>,
    /// Asked for what the store has no record of.
    pub import: Option<&'s Import<'s>>,
    /// Fills cache mounts that are new.
    pub fill_cache: Option<&'s FillCache<'s>>,
    /// Directories of the person who builds.
    pub contexts: &'s BTreeMap<ContextName, Context>,
    /// Writes remote sources out.
    pub fetch: &'s Fetch<'s>,
    /// Starts processes. Called when the first RUN must really run, since probing the machine costs more than a cached build.
    pub sandboxes: &'s (dyn Fn() -> Result<Sandboxes, SandboxError> + Sync),
    /// `--secret`, by id.
    pub secrets: &'s BTreeMap<String, Secret>,
    /// `--ssh`: sockets of agents, by id.
    pub agents: &'s BTreeMap<String, PathBuf>,
    /// The content of `/etc/resolv.conf` that a RUN sees.
    pub resolv_conf: &'s [u8],
    /// Which steps may take earlier results.
    pub cache_mode: &'s CacheMode,
    /// How many steps work at once.
    pub jobs: usize,
    /// What each RUN may use.
    pub limits: &'s Limits,
    /// Asked before and during every step.
    pub cancel: &'s Cancel,
    /// The time, for layers that are made now.
    pub clock: &'s (dyn Fn() -> Now + Sync),
    /// Takes the events, from any thread.
    pub events: &'s (dyn Fn(Event) + Sync),
}

/// Writes what was found behind a URL into an empty directory, unless the last argument says that the build is cancelled; gives that
/// directory, or the one in it that is meant.
pub type Fetch<'s> = dyn Fn(&Remote, &Path, &dyn Fn() -> bool) -> Result<PathBuf, RemoteError> + Sync + 's;

/// Writes what somebody else had in the cache mount of an id into an empty directory; `false`, and the directory as it was, if nobody had anything or it
/// does not come. The text says why it does not.
pub type FillCache<'s> = dyn Fn(&str, &Path) -> Result<bool, String> + Sync + 's;

/// A moment in the two forms that are needed.
#[derive(Clone, Debug)]
pub struct Now {
    /// For inodes.
    pub time: Time,
    /// RFC 3339, for histories.
    pub text: String,
}

/// Bytes that reach a RUN and nothing else.
#[derive(Clone)]
pub struct Secret {
    /// The bytes.
    pub value: Vec<u8>,
    /// Whether they count.
    pub in_key: SecretInKey,
}

/// Whether a step is run again when a secret that it mounts has another value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SecretInKey {
    /// It is not: tokens change and give the same.
    Ignored,
    /// It is. The key has a digest of the value that only this store can make.
    Counted,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Which steps may take earlier results.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CacheMode {
    /// All.
    On,
    /// None: `--no-cache`.
    Off,
    /// All but those of these stages, by lower-case name or index: `--no-cache-filter`.
    OffFor(BTreeSet<String>),
}

impl CacheMode {
    /// Whether a step may take an earlier result.
    #[must_use]
    pub fn allows(&self, step: &plan::Step) -> bool {
        match self {
            Self::On => true,
            // An image is resolved by its name every time, and so is a URL; reusing what that found is no shortcut.
            Self::Off => {
                matches!(step.op, plan::Op::Image(_) | plan::Op::Remote(_) | plan::Op::Scratch)
            }
            Self::OffFor(stages) => {
                let stage = step.place.as_ref().map(|place| &place.stage);
                !stage.is_some_and(|stage| {
                    stages.contains(&stage.index.to_string())
                        || stage.name.as_ref().is_some_and(|name| stages.contains(name))
                })
            }
        }
    }
}

/// Ends a build. Whoever waits for something that does not look at a flag, such as a child, hangs a hook on it.
#[derive(Default)]
pub struct Cancel {
    state: Mutex<CancelState>,
    raised: AtomicBool,
}

#[derive(Default)]
struct CancelState {
    next: u64,
    hooks: BTreeMap<u64, Box<dyn Fn() + Send>>,
}

/// Takes its hook off when it is dropped.
#[must_use]
pub struct Hook<'c> {
    cancel: &'c Cancel,
    number: u64,
}

impl Cancel {
    /// Raises the flag and calls every hook. Later calls do nothing.
    pub fn cancel(&self) {
        let state = self.lock();
        if !self.raised.swap(true, Ordering::SeqCst) {
            state.hooks.values().for_each(|hook| hook());
        }
    }

    /// Whether the flag is raised.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.raised.load(Ordering::SeqCst)
    }

    /// Has `hook` called when the flag is raised, at once if it is.
    pub fn hook(&self, hook: impl Fn() + Send + 'static) -> Hook<'_> {
        let mut state = self.lock();
        if self.is_cancelled() {
            hook();
        }
        let number = state.next;
        state.next += 1;
        state.hooks.insert(number, Box::new(hook));
        Hook { cancel: self, number }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, CancelState> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for Hook<'_> {
    fn drop(&mut self) {
        self.cancel.lock().hooks.remove(&self.number);
    }
}

impl fmt::Debug for Cancel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cancel").field(&self.is_cancelled()).finish()
    }
}
