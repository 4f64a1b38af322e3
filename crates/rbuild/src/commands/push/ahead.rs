//! Layers of an image that is to be pushed leave while later steps of its build are still at work; those of one that is likely to be pushed
//! later are compressed meanwhile.
//!
//! Nothing depends on it: what did not arrive is pushed with the image, and only what fails then is told. A layer may leave that the image does not
//! have in the end, when a later step is taken from a cache with the layers below it; nothing at the registry names it.

use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use image::Layers;
use image::export::{self, Encoding, ExportError};
use image::push::{self, Progress, PushOptions};
use oci::{Digest, LayerId, Reference};
use plan::StepId;
use registry::Client;
use solver::{Event, Hook};

use crate::commands::push::show;
use crate::commands::registry::{ClientError, Mover, Shown, TRANSFERS, View};
use crate::listing::tell;
use crate::session::Session;

/// What nobody needs to be told of.
const SHORT: Duration = Duration::from_millis(500);

/// Where layers go ahead, and how far they are.
pub(crate) struct Ahead<'a> {
    encoding: Encoding,
    /// Whose layers are those of the image.
    steps: BTreeSet<StepId>,
    /// Where they are sent; else they are only compressed.
    remote: Option<Remote<'a>>,
    /// Whether the rest is wanted no more.
    is_over: AtomicBool,
    state: Mutex<State>,
    done: Condvar,
}

/// A repository that is pushed to.
pub(crate) struct Remote<'a> {
    reference: Reference,
    client: Client,
    _hook: Hook<'a>,
}

#[derive(Default)]
struct State {
    known: HashSet<LayerId>,
    /// While there is somebody who sends what is put in here.
    to: Option<Sender<LayerId>>,
    /// What was told; of each layer only how far it is last.
    told: Vec<Progress>,
    /// Who is told now.
    shown: Option<Arc<Shown>>,
    /// Why layers that are only compressed are not.
    failure: Option<ExportError>,
    is_done: bool,
}

impl<'a> Remote<'a> {
    /// # Errors
    /// [`ClientError`].
    pub(crate) fn new(mover: &'a Mover<'_>, reference: Reference) -> Result<Self, ClientError> {
        let (client, hook) = mover.connection.client()?;
        Ok(Self { reference, client: client.clone(), _hook: hook })
    }
}

impl<'a> Ahead<'a> {
    /// Compresses the layers of these steps, and sends them where they will be pushed.
    pub(crate) fn new(encoding: Encoding, steps: BTreeSet<StepId>, remote: Option<Remote<'a>>) -> Self {
        Self {
            encoding,
            steps,
            remote,
            is_over: AtomicBool::new(false),
            state: Mutex::default(),
            done: Condvar::new(),
        }
    }

    /// Whether it is for this push.
    pub(crate) fn is_for(&self, reference: &Reference, encoding: Encoding) -> bool {
        self.encoding == encoding && self.remote.as_ref().is_some_and(|to| to.reference == *reference)
    }

    /// Builds. If that fails, what is under way is given up.
    pub(crate) fn during<T, E>(
        &self,
        session: &Session,
        build: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let (to, layers) = channel();
        self.state().to = Some(to);
        thread::scope(|scope| {
            let mut end = OnDrop { ahead: self, act: Self::give_up };
            scope.spawn(|| {
                let _done = OnDrop { ahead: self, act: Self::end };
                if let Err(error) = image::apart(|| self.work(layers, session)) {
                    self.state().failure = Some(error.into());
                }
            });
            let built = build();
            if built.is_ok() {
                end.act = Self::close;
            }
            built
        })
    }

    /// Ends what is under way: there will be no image.
    pub(crate) fn give_up(&self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(remote) = &self.remote {
            remote.client.cancel();
        }
        self.close();
    }

    /// Takes note of the layers of a finished step.
    pub(crate) fn event(&self, event: &Event) {
        let Event::Finished { step, filesystem, .. } = event else { return };
        if !self.steps.contains(step) {
            return;
        }
        let mut state = self.state();
        state.add(filesystem.ids());
    }

    /// Waits for what is under way, and shows it; gives the layers that have arrived.
    pub(crate) fn finish(&self, shown: &Arc<Shown>) -> HashSet<Digest> {
        self.close();
        let mut state = self.state();
        state.told.iter().for_each(|progress| show(shown, progress));
        state.shown = Some(Arc::clone(shown));
        let state = self.done.wait_while(state, |state| !state.is_done);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        state.shown = None;
        let arrived = state.told.iter().filter_map(|progress| match progress {
            Progress::Ended { layer, .. } => Some(layer.clone()),
            _ => None,
        });
        arrived.collect()
    }

    /// Whether layers are only compressed.
    pub(crate) fn only_compresses(&self) -> bool {
        self.remote.is_none()
    }

    /// Has these compressed, too, and waits until all are. Says what it is doing if that takes a while.
    ///
    /// # Errors
    /// [`ExportError`]; the image can do without.
    pub(crate) fn compress(
        &self,
        ids: Vec<LayerId>,
        layers: &Layers<'_>,
        view: View,
    ) -> Result<(), ExportError> {
        let mut state = self.state();
        state.add(ids.clone());
        state.to = None;
        let is_at_work = |state: &mut State| !state.is_done;
        let state = self.done.wait_timeout_while(state, SHORT, is_at_work);
        let (state, waited) = state.unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() && view != View::Quiet {
            tell(
                "note: compressing layers for a push later; `-o type=image,compression=uncompressed` leaves that to it",
            );
        }
        let state = self.done.wait_while(state, is_at_work);
        let failure = state.unwrap_or_else(PoisonError::into_inner).failure.take();
        match failure {
            None => Ok(()),
            // What a step needed of the disk may be free by now.
            Some(_) => export::compress(layers, ids, self.encoding),
        }
    }

    fn work(&self, layers: Receiver<LayerId>, session: &Session) {
        let (cancelled, is_over) = (session.cancelled(), || self.is_over.load(Ordering::Relaxed));
        let cancelled = || cancelled() || is_over();
        let own = Layers::new(&session.lease, &cancelled);
        match &self.remote {
            Some(remote) => self.send(remote, layers, &own),
            None => {
                let compressed = export::compress(&own, layers, self.encoding);
                self.state().failure = compressed.err();
            }
        }
    }

    fn send(&self, remote: &Remote<'_>, layers: Receiver<LayerId>, own: &Layers<'_>) {
        let options = PushOptions {
            encoding: self.encoding,
            annotations: &[],
            by_digest: false,
            transfers: TRANSFERS,
            sent: &HashSet::new(),
            progress: &|progress| self.tell(progress),
        };
        let Remote { reference, client, .. } = remote;
        let ended = push::ahead(own, client, layers.into_iter(), reference, options, &self.is_over);
        if let Err(error) = ended {
            tracing::debug!(%error, "no more layers go ahead");
        }
    }

    /// Nobody sends any more.
    fn end(&self) {
        self.state().is_done = true;
        self.done.notify_all();
    }

    fn tell(&self, progress: Progress) {
        let mut state = self.state();
        if let Some(shown) = &state.shown {
            show(shown, &progress);
        }
        if let Progress::Sent { layer: now, .. } = &progress {
            state.told.retain(|told| !matches!(told, Progress::Sent { layer, .. } if layer == now));
        }
        state.told.push(progress);
    }

    /// There are no more layers.
    fn close(&self) {
        self.state().to = None;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Has those that are new sent or compressed.
    fn add(&mut self, ids: Vec<LayerId>) {
        let Self { known, to: Some(to), .. } = self else { return };
        let new = ids.into_iter().filter(|id| known.insert(id.clone()));
        // Nobody receives any more after a failure, which is met again when the image is pushed.
        new.for_each(|id| drop(to.send(id)));
    }
}

/// Acts however a scope is left.
struct OnDrop<'e, 'a> {
    ahead: &'e Ahead<'a>,
    act: fn(&Ahead<'a>),
}

impl Drop for OnDrop<'_, '_> {
    fn drop(&mut self) {
        (self.act)(self.ahead);
    }
}
