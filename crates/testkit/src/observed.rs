//! An image as text: what two builders must agree on, read from an OCI archive.
//!
//! The archive is what `-o type=oci` writes: a tar with `index.json`, `blobs/sha256/…` and one image. Its layers are applied
//! in memory, since listing a tree needs no file system, no privilege and no clean-up. Three texts come out:
//!
//! * **tree**: one line per path of the root filesystem, as a process in it would see it, sorted by bytes:
//!   `path type mode uid:gid [size content] [-> target] [dev=major:minor] [hardlink=first-path] [xattr.NAME=value]…`.
//!   Types are those of `find -type`. The content of a short text file is given as a quoted string, any other as a digest. Blanks, control characters, backslashes and bytes beyond ASCII are `\xNN`. Modification times are
//!   left out unless they are asked for: `mtime=` seconds since 1970, or `now`; not of `/`. `/` itself is listed with the attributes of the last layer that has an entry for it, else 0755 0:0.
//! * **config**: `architecture`, `variant`, `os`, `author` and `config` of the image config, keys sorted; `created` if times are asked for.
//! * **history**: `created_by`, `comment`, `empty_layer` and `author` of every entry that has a `created_by`. (One without
//!   belongs to the tool that imported the base.)

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

mod listing;
mod tree;

use tree::Tree;

/// The three texts of an image; see the module's page.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Observed {
    /// The image config without its times, as indented JSON.
    pub config: String,
    /// The history, as indented JSON.
    pub history: String,
    /// The root filesystem, one line per path.
    pub tree: String,
}

/// Whether times are compared. Those since 2026 are called `now`: they differ from run to run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Times {
    /// They are not.
    LeftOut,
    /// Of files, of the image, and of its history.
    Shown,
}

/// Files that are listed by a name instead of by their size and digest, because they differ from machine to machine.
#[derive(Clone, Debug, Default)]
pub struct KnownFiles(BTreeMap<String, &'static str>);

impl KnownFiles {
    /// Lists every file that equals the machine's file `path` as `name`.
    ///
    /// # Errors
    /// `path` cannot be read.
    pub fn add(&mut self, path: &Path, name: &'static str) -> Result<()> {
        let bytes = std::fs::read(path).with_context(|| format!("cannot read `{}`", path.display()))?;
        self.0.insert(digest_of(&bytes), name);
        Ok(())
    }
}

impl Observed {
    /// Reads the only image of the OCI archive at `path`.
    ///
    /// # Errors
    /// The archive is not one image, a blob's digest is wrong, or a layer cannot be applied.
    pub fn read(path: &Path, known: &KnownFiles, times: Times) -> Result<Self> {
        let archive = Archive::read(path)?;
        let (manifest, config) = archive.image()?;
        let mut tree = Tree::default();
        for layer in array(&manifest, "layers") {
            apply(&archive, layer, &mut tree)?;
        }
        Ok(Self {
            config: config_text(&config, times)?,
            history: history_text(&config, times)?,
            tree: listing::print(&tree, &known.0, times),
        })
    }
}

impl Observed {
    /// The same with each text changed.
    #[must_use]
    pub fn map(&self, change: impl Fn(&str) -> String) -> Self {
        Self { config: change(&self.config), history: change(&self.history), tree: change(&self.tree) }
    }
}

/// Every file of an OCI archive, by name. The images of tests are small; holding them costs less than seeking.
struct Archive(BTreeMap<String, Vec<u8>>);

impl Archive {
    fn read(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open `{}`", path.display()))?;
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(file).entries()? {
            let mut entry = entry?;
            let name = entry.path()?.to_string_lossy().trim_start_matches("./").to_owned();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            files.insert(name, bytes);
        }
        Ok(Self(files))
    }

    /// Manifest and config of the one image.
    fn image(&self) -> Result<(Value, Value)> {
        let index: Value = serde_json::from_slice(self.0.get("index.json").context("no `index.json`")?)?;
        let mut document = index;
        while let [descriptor] = array(&document, "manifests") {
            document = serde_json::from_slice(self.blob(descriptor)?)?;
        }
        ensure!(array(&document, "manifests").is_empty(), "the archive holds more than one image");
        let config = serde_json::from_slice(self.blob(&document["config"])?)?;
        Ok((document, config))
    }

    fn blob(&self, descriptor: &Value) -> Result<&[u8]> {
        let digest = descriptor["digest"].as_str().context("a descriptor has no digest")?;
        let name = format!("blobs/{}", digest.replace(':', "/"));
        let bytes = self.0.get(&name).with_context(|| format!("blob {digest} is missing"))?;
        ensure!(digest_of(bytes) == digest, "blob {digest} has other bytes");
        Ok(bytes)
    }
}

fn apply(archive: &Archive, layer: &Value, tree: &mut Tree) -> Result<()> {
    let bytes = archive.blob(layer)?;
    let media_type = layer["mediaType"].as_str().unwrap_or_default();
    match media_type.rsplit(['.', '+']).next() {
        Some("tar") => tree.apply(bytes),
        Some("gzip") => tree.apply(flate2::read::MultiGzDecoder::new(bytes)),
        Some("zstd") => tree.apply(zstd::Decoder::new(bytes)?),
        _ => bail!("layer media type `{media_type}` is not known"),
    }
}

fn config_text(config: &Value, times: Times) -> Result<String> {
    let mut kept = Map::new();
    if let (Some(created), Times::Shown) = (config.get("created").filter(|time| !time.is_null()), times) {
        kept.insert("created".to_owned(), steady(created));
    }
    for key in ["architecture", "author", "config", "os", "variant"] {
        if let Some(value) = config.get(key) {
            kept.insert(key.to_owned(), sorted(value));
        }
    }
    Ok(serde_json::to_string_pretty(&kept)? + "\n")
}

fn history_text(config: &Value, times: Times) -> Result<String> {
    let entries = array(config, "history").iter().filter(|entry| entry.get("created_by").is_some());
    let kept: Vec<Value> = entries.map(|entry| entry_of(&sorted(entry), times)).collect();
    Ok(serde_json::to_string_pretty(&kept)? + "\n")
}

fn entry_of(entry: &Value, times: Times) -> Value {
    let fields = entry.as_object().into_iter().flatten();
    let kept = fields.filter_map(|(key, value)| match (key.as_str(), times) {
        ("created", Times::LeftOut) => None,
        ("created", Times::Shown) => Some((key.clone(), steady(value))),
        _ => Some((key.clone(), value.clone())),
    });
    kept.collect()
}

/// A time, or `now`.
fn steady(time: &Value) -> Value {
    match time.as_str() {
        Some(text) if text >= "2026" => "now".into(),
        _ => time.clone(),
    }
}

/// The same value with the keys of every object in order.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let ordered: BTreeMap<&String, &Value> = fields.iter().collect();
            ordered.into_iter().map(|(key, value)| (key.clone(), sorted(value))).collect()
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

fn array<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

fn digest_of(bytes: &[u8]) -> String {
    let mut text = String::from("sha256:");
    for byte in Sha256::digest(bytes) {
        write!(text, "{byte:02x}").expect("a String takes every write");
    }
    text
}
