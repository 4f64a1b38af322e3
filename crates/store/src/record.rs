//! Cache records: bytes of the `cache` crate by key, with the names of what they are worth nothing without.
//!
//! Records are written without a sync and opened with care: a torn or damaged one, and one that needs a layer which is gone, is a miss and
//! is dropped.

use std::fmt;
use std::time::{Duration, SystemTime};

use oci::Digest;

use crate::envelope::Envelope;
use crate::{Error, Lease, Object, Store, files, layout};

/// How old a record's time of last use gets before a use renews it. A cached build thus writes nothing, most of the time.
const USE_GRANULARITY: Duration = Duration::from_secs(60 * 60);

const KIND: &str = "record";

/// The name of a record: a digest that the `cache` crate makes of a step.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RecordKey(Digest);

/// A record: what it needs, and what it says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Record {
    /// The layers, logs and blobs that it names. All are there when it is found.
    pub needs: Vec<Object>,
    /// The cache's own bytes.
    pub payload: Vec<u8>,
}

impl RecordKey {
    /// Says that `digest` names a record.
    #[must_use]
    pub fn new(digest: Digest) -> Self {
        Self(digest)
    }

    /// The plain digest.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.0
    }
}

impl fmt::Display for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Store {
    /// Reads a record as it is written, whether or not what it needs is still there; `None` if there is none or it is damaged. To use
    /// its result, look it up through [`Lease::record`].
    ///
    /// # Errors
    /// What the file system says.
    pub fn record(&self, key: &RecordKey) -> Result<Option<Record>, Error> {
        let Some(bytes) = files::read_if_exists(&self.layout().record(key))? else { return Ok(None) };
        let opened = Envelope::open(KIND, &key.digest().hex(), &bytes);
        Ok(opened.map(|Envelope { needs, payload }| Record { needs, payload }))
    }

    /// The keys of all records.
    ///
    /// # Errors
    /// What the file system says.
    pub fn record_keys(&self) -> Result<Vec<RecordKey>, Error> {
        let dir = self.layout().dir("records");
        let mut keys = Vec::new();
        for shard in files::names(&dir)? {
            let names = files::names(&dir.join(shard))?;
            let digests = names.iter().filter_map(|name| layout::digest_of_hex(name));
            keys.extend(digests.map(RecordKey::new));
        }
        Ok(keys)
    }

    /// Removes a record; `false` if there was none.
    ///
    /// # Errors
    /// What the file system says.
    pub fn remove_record(&self, key: &RecordKey) -> Result<bool, Error> {
        files::remove_file(&self.layout().record(key))
    }

    /// Whether something a record may need is there.
    pub(crate) fn contains(&self, object: &Object) -> Result<bool, Error> {
        match object {
            Object::Layer(id) => Ok(self.layer(id)?.is_some()),
            Object::Blob(digest) => self.contains_blob(digest),
            Object::Image(id) => files::exists(&self.layout().image(id)),
            Object::Log(id) => files::exists(&self.layout().log(id)),
        }
    }

    pub(crate) fn require(&self, object: &Object) -> Result<(), Error> {
        if self.contains(object)? {
            return Ok(());
        }
        Err(match object.clone() {
            Object::Layer(id) => Error::MissingLayer(id),
            Object::Blob(digest) => Error::MissingBlob(digest),
            Object::Image(id) => Error::MissingImage(id),
            Object::Log(id) => Error::MissingLog(id),
        })
    }
}

impl Lease {
    /// Looks a record up and pins all it needs; `None` if there is none that is worth anything. A record whose log alone is gone is
    /// still worth its layers, and is found without it.
    ///
    /// # Errors
    /// What the file system says.
    pub fn record(&self, key: &RecordKey) -> Result<Option<Record>, Error> {
        let path = self.store().layout().record(key);
        if !files::exists(&path)? {
            return Ok(None);
        }
        let gc = self.store().gc_shared()?;
        let Some(mut record) = self.store().record(key)? else {
            files::remove_file(&path)?;
            return Ok(None);
        };
        let mut present = Vec::with_capacity(record.needs.len());
        for object in record.needs {
            if self.store().contains(&object)? {
                present.push(object);
            } else if !matches!(object, Object::Log(_)) {
                files::remove_file(&path)?;
                return Ok(None);
            }
        }
        record.needs = present;
        self.pin_under(&gc, &record.needs)?;
        self.renew(key)?;
        Ok(Some(record))
    }

    /// Writes a record, in place of the one that is there unless that says the same. What it needs must be there, and is pinned.
    ///
    /// # Errors
    /// [`Error::MissingLayer`] and its kin.
    pub fn put_record(&self, key: &RecordKey, record: &Record) -> Result<(), Error> {
        self.pin(&record.needs)?;
        let path = self.store().layout().record(key);
        let Record { needs, payload } = record.clone();
        let bytes = Envelope { needs, payload }.seal(KIND, &key.digest().hex());
        // To read a small file takes a tenth of the time that making one takes.
        if files::read_if_exists(&path)?.is_some_and(|there| there == bytes) {
            return self.renew(key);
        }
        if let Some(shard) = path.parent() {
            files::create_dir(shard)?;
        }
        files::replace(&path, &self.temporary("record")?, &bytes)
    }

    /// Notes that a record was used, if that was not noted for a while. "Now" is when this lease was last written, by the clock that also
    /// sets the records' times, so no other clock matters.
    fn renew(&self, key: &RecordKey) -> Result<(), Error> {
        let path = self.store().layout().record(key);
        let modified = |file: &std::fs::File| file.metadata()?.modified();
        let now = modified(self.file()).map_err(Error::at("look at", &path))?;
        let Some(file) = files::open_if_exists(&path)? else { return Ok(()) };
        let used: SystemTime = modified(&file).map_err(Error::at("look at", &path))?;
        // A time in the future is a clock that was set back; it is renewed, too.
        let age = now.duration_since(used).unwrap_or(Duration::MAX);
        if age > USE_GRANULARITY && used != now {
            file.set_modified(now).map_err(Error::at("set the time of", &path))?;
        }
        Ok(())
    }
}
