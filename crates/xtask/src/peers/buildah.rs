//! `cargo xtask peers --buildah`: where buildah makes something else of the differential corpus than BuildKit, as one table.
//!
//! Config and tree are compared, history is not: its words are each builder's own. What differs in the form alone (an empty field
//! and none, the default PATH and none) is no difference.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result};
use rustix::process::{Resource, getrlimit};
use serde_json::{Map, Value, json};
use testkit::differential::{Case, Prepared, known_files};
use testkit::observed::{KnownFiles, Observed, Times};

use super::engine::Engine;
use super::record::select;
use super::root;
use crate::{command, fixtures};

/// The longest cell of the table.
const LONGEST: usize = 160;

/// Where buildah works.
struct Site<'e> {
    engine: &'e Engine,
    work: PathBuf,
}

/// What a case came to.
enum Outcome {
    Built(Observed),
    Refused(String),
}

/// Compares the named cases, or writes the table of all.
pub(super) fn run(root: &Path, names: &[&str]) -> Result<()> {
    let known = known_files()?;
    let mut cases = select(names)?;
    // Of times and caches there is nothing to compare.
    cases.retain(|case| case.earlier.is_none() && !case.arguments.times);
    let engine = Engine::start(root, "/var/lib/docker-idle", &root.with_file_name("engine.log"))?;
    let rows = compare_all(&engine, &cases, &known);
    engine.stop()?;
    let rows = rows?;
    let table: String = rows.iter().map(|(case, what)| format!("| `{case}` | {what} |\n")).collect();
    if !names.is_empty() {
        print!("{table}");
        return Ok(());
    }
    let version = root::versions(root)?.remove("buildah").context("buildah is a peer")?;
    let (all, others) = (cases.len(), rows.len());
    let text = format!(
        "# Where buildah differs\n\nbuildah {version} makes the same of {} of {all} cases. Of the others, BuildKit's result stands first.\nWritten by \
         `cargo xtask peers --buildah`.\n\n| case | what differs |\n| --- | --- |\n{table}",
        all - others
    );
    Ok(fs::write(fixtures::corpus().join("buildah.md"), text)?)
}

fn compare_all(engine: &Engine, cases: &[Case], known: &KnownFiles) -> Result<Vec<(String, String)>> {
    let work = tempfile::tempdir_in(engine.exchange())?;
    fs::write(work.path().join("containers.conf"), limits())?;
    let site = Site { engine, work: work.path().to_owned() };
    for (name, tar) in fixtures::bases()? {
        site.make_base(&name, &tar).with_context(|| format!("base image `{name}`"))?;
    }
    let mut rows = Vec::new();
    for case in cases {
        let told = site.compare(case, known).unwrap_or_else(|error| {
            println!("{}\t{error:#}", case.name);
            Some("built; no image that can be read".to_owned())
        });
        println!("{}\t{}", case.name, told.as_deref().unwrap_or("the same"));
        rows.extend(told.map(|told| (case.name.clone(), told)));
    }
    Ok(rows)
}

/// A configuration for buildah by which no process gets more than we have: raising limits is not for every root.
fn limits() -> String {
    let limits = [("nofile", Resource::Nofile), ("nproc", Resource::Nproc)].map(|(name, resource)| {
        let limit = getrlimit(resource);
        let text = |value: Option<u64>| value.map_or_else(|| "-1".to_owned(), |value| value.to_string());
        format!("\"{name}={}:{}\"", text(limit.current), text(limit.maximum))
    });
    format!("[containers]\ndefault_ulimits = [{}]\n", limits.join(", "))
}

impl Site<'_> {
    fn make_base(&self, name: &str, tar: &Path) -> Result<()> {
        let context = tempfile::tempdir_in(&self.work)?;
        fs::copy(tar, context.path().join("base.tar"))?;
        fs::write(context.path().join("Dockerfile"), "FROM scratch\nADD base.tar /\n")?;
        let mut build = self.build();
        build.args(["--tag", name, "--tag", &format!("docker.io/library/{name}")]);
        command::read(build.arg(self.inside(context.path()))).map(drop)
    }

    /// What differs, in one line.
    fn compare(&self, case: &Case, known: &KnownFiles) -> Result<Option<String>> {
        let work = tempfile::tempdir_in(&self.work)?;
        let prepared = case.prepare(work.path(), || self.engine.listen())?;
        let outcome = self.outcome(&prepared, known)?;
        let expected = |file: &str| fs::read_to_string(case.directory.join("expected").join(file));
        Ok(match (outcome, case.arguments.fails) {
            (Outcome::Refused(_), true) => None,
            (Outcome::Refused(message), false) => Some(format!("built; refused: {message}")),
            (Outcome::Built(_), true) => Some("refused; built".to_owned()),
            (Outcome::Built(observed), false) => {
                let config = config_difference(&expected("config.json")?, &observed.config)?;
                let tree = tree_difference(&expected("tree.txt")?, &observed.tree);
                let told: Vec<String> = config.into_iter().chain(tree).collect();
                (!told.is_empty()).then(|| told.join("; "))
            }
        })
    }

    fn outcome(&self, prepared: &Prepared, known: &KnownFiles) -> Result<Outcome> {
        for image in &prepared.images {
            let mut build = self.build();
            let output = command::capture(build.args(image.command_line(&|path| self.inside(path))))?;
            if !output.status.success() {
                return Ok(Outcome::Refused(self.message(prepared, &output)));
            }
        }
        let mut build = self.engine.command("env");
        build.args(prepared.arguments.environment.iter().map(|(name, value)| format!("{name}={value}")));
        self.add_build(&mut build);
        build.args(["--no-cache", "--tag", "case"]).args(prepared.command_line(&|path| self.inside(path)));
        let output = command::capture(build.stdin(prepared.stdin()?))?;
        if !output.status.success() {
            return Ok(Outcome::Refused(self.message(prepared, &output)));
        }
        let directory = self.work.join("pushed");
        let mut push = self.engine.command("env");
        self.add_buildah(&mut push);
        push.args(["push", "--quiet", "case", &format!("dir:{}", self.inside(&directory))]);
        command::read(&mut push)?;
        let archive = self.work.join("image.tar");
        pack(&directory, &archive)?;
        fs::remove_dir_all(directory)?;
        let observed = Observed::read(&archive, known, Times::LeftOut)?;
        Ok(Outcome::Built(observed.map(|text| without_numbers(&prepared.without_places(text)))))
    }

    fn build(&self) -> Command {
        let mut command = self.engine.command("env");
        self.add_build(&mut command);
        command
    }

    /// The docker format, since the other has no place for SHELL, HEALTHCHECK and ONBUILD.
    fn add_build(&self, command: &mut Command) {
        self.add_buildah(command);
        command.args(["build", "--layers", "--pull=never", "--network=none", "--format=docker"]);
        command.arg("--identity-label=false");
    }

    fn add_buildah(&self, command: &mut Command) {
        let work = self.inside(&self.work);
        command.arg("BUILDAH_RUNTIME=runc").arg(format!("CONTAINERS_CONF_OVERRIDE={work}/containers.conf"));
        command.args(["buildah", "--root", &format!("{work}/storage"), "--runroot", &format!("{work}/run")]);
        command.args(["--storage-driver", "overlay"]);
    }

    fn inside(&self, path: &Path) -> String {
        let below =
            path.strip_prefix(self.engine.exchange()).expect("everything lies in the exchange directory");
        format!("/exchange/{}", below.display())
    }

    /// The last error without the step it was in, and without what changes from run to run.
    fn message(&self, prepared: &Prepared, output: &Output) -> String {
        let text = String::from_utf8_lossy(&output.stderr);
        let last =
            text.lines().rfind(|line| line.starts_with("Error: ")).unwrap_or("an error without a word");
        let message = last.trim_start_matches("Error: ");
        let message = message.rsplit_once("\": ").map_or(message, |(_, message)| message);
        let message = prepared.without_places(message);
        let words: Vec<&str> =
            message.split(' ').map(|word| if is_volatile(word) { "…" } else { word }).collect();
        cell(&words.join(" "))
    }
}

/// Names of containers and of temporary files.
fn is_volatile(word: &str) -> bool {
    let digits = word.chars().filter(char::is_ascii_hexdigit).count();
    word.contains("/.tmp")
        || word.contains(":0x")
        || word.contains("buildah")
        || word.contains("storage/")
        || digits > 30
}

/// The script of a heredoc has another number each time, a container another name of twelve digits.
fn without_numbers(text: &str) -> String {
    let mut parts = text.split("buildahheredoc");
    let first = parts.next().unwrap_or_default().to_owned();
    let text = parts.fold(first, |text, part| {
        text + "buildahheredoc" + part.trim_start_matches(|letter: char| letter.is_ascii_digit())
    });
    let is_digit = |letter: char| letter.is_ascii_hexdigit();
    let mut steady = String::new();
    let mut rest = text.as_str();
    while let Some(start) = rest.find(is_digit) {
        let end = rest[start..].find(|letter| !is_digit(letter)).map_or(rest.len(), |length| start + length);
        steady.push_str(&rest[..start]);
        steady.push_str(if end - start == 12 { "CONTAINER" } else { &rest[start..end] });
        rest = &rest[end..];
    }
    steady + rest
}

/// Makes an OCI archive of an image that buildah has written as `dir:`.
fn pack(directory: &Path, archive: &Path) -> Result<()> {
    let manifest = fs::read(directory.join("manifest.json"))?;
    let digest = testkit::registry::digest(&manifest);
    let index = json!({"schemaVersion": 2, "manifests": [{"digest": digest}]});
    let mut tar = tar::Builder::new(File::create(archive)?);
    let mut add = |name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len().try_into()?);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, bytes).context("write the archive")
    };
    add("index.json", &serde_json::to_vec(&index)?)?;
    add(&format!("blobs/{}", digest.replace(':', "/")), &manifest)?;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !["manifest.json", "version"].contains(&name.as_str()) {
            add(&format!("blobs/sha256/{name}"), &fs::read(entry.path())?)?;
        }
    }
    Ok(tar.finish()?)
}

fn config_difference(expected: &str, got: &str) -> Result<Option<String>> {
    let (expected, got) = (fields(expected)?, fields(got)?);
    let keys: Vec<&String> =
        expected.keys().chain(got.keys().filter(|key| !expected.contains_key(*key))).collect();
    let differing = keys.into_iter().filter(|key| expected.get(*key) != got.get(*key));
    let told: Vec<String> = differing
        .map(|key| {
            let text = |fields: &Map<String, Value>| {
                fields.get(key).map_or_else(|| "none".to_owned(), Value::to_string)
            };
            format!("{key}: {}, {}", cell(&text(&expected)), cell(&text(&got)))
        })
        .collect();
    Ok((!told.is_empty()).then(|| told.join("; ")))
}

/// The fields of a config that say something.
fn fields(text: &str) -> Result<Map<String, Value>> {
    const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let Value::Object(mut outer) = serde_json::from_str(text)? else { return Ok(Map::new()) };
    if let Some(Value::Object(inner)) = outer.remove("config") {
        outer.extend(inner);
    }
    if let Some(Value::Array(variables)) = outer.get_mut("Env") {
        variables.retain(|variable| variable != PATH);
        // buildah has them in no particular order.
        variables.sort_by_key(ToString::to_string);
    }
    let is_empty = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty() || text == "/",
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    };
    // Of Windows, and of the container that the image was made in.
    outer.retain(|key, value| {
        !is_empty(value) && !["ArgsEscaped", "Hostname", "Image"].contains(&key.as_str())
    });
    Ok(outer)
}

fn tree_difference(expected: &str, got: &str) -> Option<String> {
    let by_path = |text: &str| -> BTreeMap<String, String> {
        let lines = text.lines().filter_map(|line| line.split_once(' '));
        // How the base's `/` was imported differs.
        lines
            .filter(|(path, _)| *path != "/")
            .map(|(path, rest)| (path.to_owned(), rest.to_owned()))
            .collect()
    };
    let (expected, got) = (by_path(expected), by_path(got));
    let mut paths: Vec<&String> = expected.keys().chain(got.keys()).collect();
    paths.sort();
    paths.dedup();
    paths.retain(|path| expected.get(*path) != got.get(*path));
    let first = *paths.first()?;
    let text = |tree: &BTreeMap<String, String>| {
        tree.get(first).map_or_else(|| "none".to_owned(), |rest| cell(rest))
    };
    let mut told = format!("{first}: {}, {}", text(&expected), text(&got));
    if paths.len() > 1 {
        write!(told, "; and {} more", paths.len() - 1).expect("a String takes every write");
    }
    Some(told)
}

/// Text for a cell of the table.
fn cell(text: &str) -> String {
    let short: String = text.chars().take(LONGEST).collect();
    let end = if short.len() < text.len() { "…" } else { "" };
    format!("`{}{end}`", short.replace('|', "\\|").replace('`', "'"))
}
