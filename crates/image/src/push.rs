//! Images into registries.
//!
//! The config goes at once. Each layer goes as soon as it is packed, several at a time, while the next one is being packed; a large one goes while it
//! is packed itself, so that whoever may not push is told so at once. Manifests go last: nothing has a name before all of it is there.
//!
//! Layers may go [`ahead`] of their image, while others of its layers are still being made.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashSet};
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;

use oci::{Digest, LayerId, Reference};
use registry::{Client, Delivery, Outgoing, Source};

use crate::export::package::{self, File, Group, PackedLayer, Packing};
use crate::export::{Annotation, Encoding, ExportError, Named};
use crate::growing::GrowingBlob;
use crate::stream::Cancellable;
use crate::{Error, Layers, LocalImage};

/// How far a push is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Progress {
    /// A layer is ready to leave.
    Began {
        /// Of its bytes.
        layer: Digest,
        /// How many there are.
        bytes: u64,
    },
    /// So much of it has been handed over; less than before, if the connection broke.
    Sent {
        /// Of its bytes.
        layer: Digest,
        /// How many of them.
        bytes: u64,
    },
    /// The registry has it.
    Ended {
        /// Of its bytes.
        layer: Digest,
        /// How it came there.
        delivery: Delivery,
    },
}

/// What a push is told besides what to push where.
#[derive(Clone, Copy)]
pub struct PushOptions<'o> {
    /// How layers leave.
    pub encoding: Encoding,
    /// What stands in the manifests and the index. With any, an image gets a manifest of its own, even if it came with one.
    pub annotations: &'o [Annotation],
    /// Whether it gets no name but its digest, whatever tag the reference has.
    pub by_digest: bool,
    /// How many layers leave at once.
    pub transfers: usize,
    /// Layers that went [`ahead`]: of these nothing is asked and nothing told.
    pub sent: &'o HashSet<Digest>,
    /// Called from any thread.
    pub progress: &'o (dyn Fn(Progress) + Sync),
}

/// What was pushed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pushed {
    /// Of its manifest or its index.
    pub digest: Digest,
    /// How long that document is, in bytes.
    pub bytes: u64,
}

/// An image that could not be pushed.
#[derive(Debug, thiserror::Error)]
#[error("cannot push `{reference}`")]
pub struct PushError {
    /// As what.
    pub reference: Box<Reference>,
    /// Why.
    #[source]
    pub failure: PushFailure,
}

/// Why an image could not be pushed.
#[derive(Debug, thiserror::Error)]
pub enum PushFailure {
    /// It could not be packed.
    #[error(transparent)]
    Export(Box<ExportError>),
    /// The registry did not take it.
    #[error(transparent)]
    Registry(Box<registry::PushError>),
    /// There is no image to push.
    #[error("there is nothing to push")]
    Nothing,
}

impl From<ExportError> for PushFailure {
    fn from(error: ExportError) -> Self {
        Self::Export(Box::new(error))
    }
}

impl From<Error> for PushFailure {
    fn from(error: Error) -> Self {
        ExportError::from(error).into()
    }
}

impl From<registry::PushError> for PushFailure {
    /// Tells failures of ours from those of the registry.
    fn from(error: registry::PushError) -> Self {
        match error {
            registry::PushError::Source(source) => match source.downcast::<ExportError>() {
                Ok(error) => error.into(),
                Err(source) => Self::Registry(Box::new(registry::PushError::Source(source))),
            },
            error => Self::Registry(Box::new(error)),
        }
    }
}

/// Pushes an image, or an index of those of several platforms, and gives it a name.
///
/// # Errors
/// [`PushError`]; then the name means what it meant before, unless it was the registry's answer to the last request that was lost.
pub fn push(
    layers: &Layers<'_>,
    client: &Client,
    images: Vec<LocalImage>,
    reference: &Reference,
    options: PushOptions<'_>,
) -> Result<Pushed, PushError> {
    let remote = Remote { layers, client, reference, options, is_over: &AtomicBool::new(false) };
    let named = Named { images, names: Vec::new(), annotations: options.annotations.to_vec() };
    remote.push(&named).map_err(|failure| PushError { reference: Box::new(reference.clone()), failure })
}

/// Sends layers of an image that is still being made to where it will be pushed: each as it comes out of `ids`, and several at a time. Those
/// that have arrived are those whose [`Progress::Ended`] was told. Ends early when `is_over` says so.
///
/// # Errors
/// [`PushFailure`]. It need not be told: to push the image is to try again.
pub fn ahead(
    layers: &Layers<'_>,
    client: &Client,
    ids: impl Iterator<Item = LayerId>,
    reference: &Reference,
    options: PushOptions<'_>,
    is_over: &AtomicBool,
) -> Result<(), PushFailure> {
    let remote = Remote { layers, client, reference, options, is_over };
    remote.send(Vec::new(), |packing| {
        for id in ids {
            if is_over.load(Ordering::Relaxed) {
                return Err(Error::Cancelled.into());
            }
            packing.tell(&package::layer(layers, &id, packing)?)?;
        }
        Ok(())
    })
}

/// A repository that is pushed to.
#[derive(Clone, Copy)]
struct Remote<'p> {
    layers: &'p Layers<'p>,
    client: &'p Client,
    reference: &'p Reference,
    options: PushOptions<'p>,
    /// Whether the rest is wanted no more.
    is_over: &'p AtomicBool,
}

impl Remote<'_> {
    fn push(&self, named: &Named) -> Result<Pushed, PushFailure> {
        let group = self.send_all(named)?;
        match self.push_manifests(&group) {
            // What went ahead may have been cleared away meanwhile: nothing had it.
            Err(PushFailure::Registry(error)) if !self.options.sent.is_empty() && is_refusal(&error) => {
                tracing::debug!(%error, "what went ahead is asked for again");
                let options = PushOptions { sent: &HashSet::new(), ..self.options };
                let again = Remote { options, ..*self };
                again.push_manifests(&again.send_all(named)?)
            }
            pushed => pushed,
        }
    }

    /// Config and layers.
    fn send_all(&self, named: &Named) -> Result<Group, PushFailure> {
        let configs: Result<Vec<Leaving>, Error> =
            named.images.iter().map(|image| self.config(image)).collect();
        self.send(configs?, |packing| package::group(self.layers, named, packing))
    }

    fn push_manifests(&self, group: &Group) -> Result<Pushed, PushFailure> {
        let top = group.manifest().ok_or(PushFailure::Nothing)?;
        if group.index.is_some() {
            for package::Package { manifest, .. } in &group.packages {
                let place = self.reference.at_digest(manifest.digest.clone());
                self.client.push_manifest(&place, &manifest.media_type, &manifest.bytes)?;
            }
        }
        let digest = || self.reference.at_digest(top.digest.clone());
        let place = if self.options.by_digest { digest() } else { self.reference.clone() };
        self.client.push_manifest(&place, &top.media_type, &top.bytes)?;
        Ok(Pushed { digest: top.digest.clone(), bytes: top.bytes.len() as u64 })
    }

    fn config(&self, image: &LocalImage) -> Result<Leaving, Error> {
        let digest = image.id.digest();
        let bytes = self.layers.lease().store().read_blob(digest)?;
        let bytes = bytes.ok_or_else(|| store::Error::MissingBlob(digest.clone()))?;
        Ok(Leaving::Config(digest.clone(), File::of(bytes)))
    }

    /// Has layers packed, and sends each as soon as it is packed, or while it is.
    fn send<T>(
        &self,
        first: Vec<Leaving>,
        pack: impl FnOnce(Packing<'_>) -> Result<T, ExportError>,
    ) -> Result<T, PushFailure> {
        let elsewhere = elsewhere(self.layers, self.reference)?;
        let failure = Mutex::new(None);
        let (sender, receiver) = mpsc::channel::<Leaving>();
        let receiver = Mutex::new(receiver);
        let work = || self.work(&receiver, &elsewhere, &failure);
        let packed = thread::scope(|scope| {
            let workers: Vec<_> = (0..self.options.transfers.max(1)).map(|_| scope.spawn(work)).collect();
            let known = RefCell::new(self.options.sent.clone());
            let growing: RefCell<Option<Arc<GrowingBlob>>> = RefCell::default();
            // Somebody receives for as long as this sender lives.
            let leave = |layer| sender.send(layer).is_ok();
            let begun = |layer: &Arc<GrowingBlob>| {
                leave(Leaving::Growing(Arc::clone(layer)));
                growing.replace(Some(Arc::clone(layer)));
            };
            let ready = |layer: &PackedLayer| {
                let is_new = known.borrow_mut().insert(layer.digest.clone());
                let has_left = growing.take().and_then(|growing| growing.known());
                let is_known = !is_new || has_left.is_some_and(|(digest, _)| digest == layer.digest);
                (is_known || leave(Leaving::Packed(layer.clone()))) && !self.is_over.load(Ordering::Relaxed)
            };
            for config in first {
                leave(config);
            }
            let packed = pack(Packing { encoding: self.options.encoding, ready: &ready, begun: &begun });
            // Of an image that cannot be packed nothing need be sent.
            self.is_over.fetch_or(packed.is_err(), Ordering::Relaxed);
            drop(sender);
            workers.into_iter().for_each(|worker| {
                worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            });
            packed
        });
        match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(failure) => Err(failure),
            None => Ok(packed?),
        }
    }

    /// Sends what comes, until nothing does.
    fn work(
        &self,
        receiver: &Mutex<mpsc::Receiver<Leaving>>,
        elsewhere: &BTreeMap<Digest, String>,
        failure: &Mutex<Option<PushFailure>>,
    ) {
        let next = || receiver.lock().unwrap_or_else(PoisonError::into_inner).recv().ok();
        while let Some(leaving) = next() {
            let pushed = match &leaving {
                _ if self.is_over.load(Ordering::Relaxed) => Ok(()),
                Leaving::Config(digest, file) => self.deliver(digest, file, None, &|_| {}).map(drop),
                Leaving::Packed(layer) => self.push_blob(&layer.digest, &layer.file, elsewhere),
                Leaving::Growing(layer) => self.push_growing(layer, elsewhere),
            };
            // The first failure ends everything else, which fails by that.
            if let Err(error) = pushed
                && !self.is_over.swap(true, Ordering::Relaxed)
            {
                *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            }
            if let Leaving::Growing(layer) = &leaving
                && self.is_over.load(Ordering::Relaxed)
            {
                layer.abandon();
            }
        }
    }

    /// Sends a layer while it is packed.
    fn push_growing(
        &self,
        layer: &GrowingBlob,
        elsewhere: &BTreeMap<Digest, String>,
    ) -> Result<(), PushFailure> {
        if let Some((digest, size)) = layer.known() {
            // It had to wait for so long that it is complete.
            return self.push_blob(&digest, &File::of_blob(digest.clone(), size), elsewhere);
        }
        let tell = self.options.progress;
        let began = Cell::new(false);
        // Before it has a name, there is nothing to say of it.
        let progress = |sent: Option<u64>| {
            let Some((digest, bytes)) = layer.known() else { return };
            if !began.replace(true) {
                tell(Progress::Began { layer: digest.clone(), bytes });
            }
            sent.into_iter().for_each(|bytes| tell(Progress::Sent { layer: digest.clone(), bytes }));
        };
        let source = ReadAlong { layer, is_over: self.is_over };
        let known = || layer.known();
        let blob = registry::Growing {
            source: &source,
            known: &known,
            wait: &|| layer.wait(),
            progress: &|sent| progress(Some(sent)),
        };
        match self.client.push_growing(self.reference, &blob) {
            Ok(delivery) => {
                progress(None);
                let ended = layer.known().map(|(layer, _)| Progress::Ended { layer, delivery });
                ended.into_iter().for_each(tell);
                Ok(())
            }
            // Whoever packs it says why.
            Err(_) if layer.is_given_up() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn push_blob(
        &self,
        digest: &Digest,
        file: &File,
        elsewhere: &BTreeMap<Digest, String>,
    ) -> Result<(), PushFailure> {
        let tell = self.options.progress;
        tell(Progress::Began { layer: digest.clone(), bytes: file.size });
        let from = elsewhere.get(digest).map(String::as_str);
        let sent = |bytes| tell(Progress::Sent { layer: digest.clone(), bytes });
        let delivery = self.deliver(digest, file, from, &sent)?;
        tell(Progress::Ended { layer: digest.clone(), delivery });
        Ok(())
    }

    fn deliver(
        &self,
        digest: &Digest,
        file: &File,
        mount_from: Option<&str>,
        progress: &dyn Fn(u64),
    ) -> Result<Delivery, PushFailure> {
        let Self { layers, client, reference, is_over, .. } = *self;
        Errand { layers, client, reference, is_over }.deliver(digest, file, mount_from, progress)
    }
}

/// Blobs on their way into a repository.
#[derive(Clone, Copy)]
pub(crate) struct Errand<'e> {
    pub(crate) layers: &'e Layers<'e>,
    pub(crate) client: &'e Client,
    pub(crate) reference: &'e Reference,
    /// Whether the rest is wanted no more.
    pub(crate) is_over: &'e AtomicBool,
}

impl Errand<'_> {
    pub(crate) fn deliver(
        self,
        digest: &Digest,
        file: &File,
        mount_from: Option<&str>,
        progress: &dyn Fn(u64),
    ) -> Result<Delivery, PushFailure> {
        let source = Reading { layers: self.layers, file, is_over: self.is_over };
        let outgoing = Outgoing { digest, size: file.size, source: &source, mount_from, progress };
        Ok(self.client.push_blob(self.reference, &outgoing)?)
    }
}

/// In which other repositories of a registry blobs may be: those whose images here have them.
pub(crate) fn elsewhere(
    layers: &Layers<'_>,
    reference: &Reference,
) -> Result<BTreeMap<Digest, String>, Error> {
    let mut elsewhere = BTreeMap::new();
    let tags = layers.lease().store().tags()?;
    let of_registry = tags.iter().filter(|tag| {
        let name = &tag.reference;
        name.registry() == reference.registry() && name.repository() != reference.repository()
    });
    for tag in of_registry {
        for id in tag.images() {
            // An image that is damaged is none of this one's business.
            let Ok(Some(image)) = layers.lease().store().image(id) else { continue };
            for digest in image.manifests.iter().flat_map(|known| &known.layers) {
                elsewhere.entry(digest.clone()).or_insert_with(|| tag.reference.repository().to_owned());
            }
        }
    }
    Ok(elsewhere)
}

/// Whether a registry did not take a manifest as it is.
fn is_refusal(error: &registry::PushError) -> bool {
    matches!(error, registry::PushError::Request(error) if matches!(error.status(), Some(400 | 404)))
}

/// A blob on its way.
enum Leaving {
    Config(Digest, File),
    Packed(PackedLayer),
    /// It is still being packed.
    Growing(Arc<GrowingBlob>),
}

/// A layer that is still being packed, to be read.
struct ReadAlong<'f> {
    layer: &'f GrowingBlob,
    /// Whether the rest is wanted no more.
    is_over: &'f AtomicBool,
}

impl Source for ReadAlong<'_> {
    fn read(
        &self,
        from: u64,
        consume: &mut dyn FnMut(&mut dyn Read) -> Result<(), registry::PushError>,
    ) -> Result<(), registry::PushError> {
        let is_over = || self.is_over.load(Ordering::Relaxed);
        consume(&mut Cancellable::new(self.layer.read_from(from), &is_over))
    }
}

/// A file of a package, to be read.
struct Reading<'r> {
    layers: &'r Layers<'r>,
    file: &'r File,
    /// Whether the rest is wanted no more.
    is_over: &'r AtomicBool,
}

impl Source for Reading<'_> {
    fn read(
        &self,
        from: u64,
        consume: &mut dyn FnMut(&mut dyn Read) -> Result<(), registry::PushError>,
    ) -> Result<(), registry::PushError> {
        let is_over = || self.is_over.load(Ordering::Relaxed);
        self.file.read(self.layers, |bytes| {
            let mut bytes = Cancellable::new(bytes, &is_over);
            // A blob is verified from its beginning, and of a tar the middle is not known before.
            io::copy(&mut bytes.by_ref().take(from), &mut io::sink()).map_err(registry::PushError::Source)?;
            consume(&mut bytes)
        })
    }
}

impl From<ExportError> for registry::PushError {
    fn from(error: ExportError) -> Self {
        Self::Source(io::Error::other(error))
    }
}

impl From<Error> for registry::PushError {
    fn from(error: Error) -> Self {
        ExportError::from(error).into()
    }
}
