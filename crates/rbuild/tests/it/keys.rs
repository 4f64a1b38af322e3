//! A step runs again if and only if its result can differ: for each attribute of each input, two builds that differ in nothing else.
//!
//! Held against the table in `cache::key`: every part that it names has a row here that misses by that part and by no other, and gives
//! another result; everything that it says is left out has rows that are reused, and what is reused is what a build without a cache gives.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::world::{World, succeed, write_files};

mod left_out;
mod parts;
mod trees;

/// What the key is documented to be made of.
const KEY: &str = include_str!("../../../cache/src/key.rs");

/// The context of both builds of a row, before the row's own changes.
const FILES: &[(&str, &str)] = &[
    (".dockerignore", "ignored\n"),
    ("f", "one\n"),
    ("d/a", "a\n"),
    ("d/b", "b\n"),
    ("ignored", "one\n"),
    ("one", "one\n"),
    ("two", "two\n"),
];

/// Two builds, whose last step is looked at.
pub(crate) struct Row {
    /// As the table of keys calls it: the part, or some words of what is left out.
    documented: &'static str,
    before: Side,
    after: Side,
}

/// One of them.
struct Side {
    dockerfile: String,
    args: Vec<String>,
    /// Done to the context.
    change: Box<dyn Fn(&Path)>,
}

impl Side {
    /// Instructions upon the image `base`, or a whole file that begins with its own FROM.
    fn new(instructions: &str) -> Self {
        let has_from = instructions.lines().any(|line| line.starts_with("FROM "));
        let from = if has_from { "" } else { "FROM base\n" };
        Self {
            dockerfile: format!("{from}{instructions}\n"),
            args: Vec::new(),
            change: Box::new(|_: &Path| {}),
        }
    }

    fn with_args(self, args: &[&str]) -> Self {
        Self { args: args.iter().copied().map(ToOwned::to_owned).collect(), ..self }
    }
}

/// The Dockerfile changes.
fn instructions(documented: &'static str, before: &str, after: &str) -> Row {
    Row { documented, before: Side::new(before), after: Side::new(after) }
}

/// The command line changes.
fn args(documented: &'static str, dockerfile: &str, before: &[&str], after: &[&str]) -> Row {
    let side = |args| Side::new(dockerfile).with_args(args);
    Row { documented, before: side(before), after: side(after) }
}

/// The context changes.
fn files(documented: &'static str, dockerfile: &str, change: impl Fn(&Path) + 'static) -> Row {
    let after = Side { change: Box::new(change), ..Side::new(dockerfile) };
    Row { documented, before: Side::new(dockerfile), after }
}

/// What a build said of its last step, and what it made.
struct Built {
    image: String,
    verdict: String,
    /// Parts of the key that are not what they were.
    changed: Vec<String>,
}

/// Builds rows one after the other in a store that has nothing of the last one.
pub(crate) struct Bench {
    world: World,
}

impl Bench {
    fn new(test: &str) -> Option<Self> {
        Some(Self { world: World::with_base(test)? })
    }

    fn context(&self) -> PathBuf {
        self.world.path("context")
    }

    /// Writes a context, and builds in it.
    #[track_caller]
    fn build(&self, side: &Side, further: &[&str]) -> Built {
        let (context, id) = (self.context(), self.world.path("id"));
        if context.exists() {
            fs::remove_dir_all(&context).expect("the context of the last build goes");
        }
        write_files(&context, FILES);
        write_files(&context, &[("Dockerfile", &side.dockerfile)]);
        (side.change)(&context);
        let mut build = self.world.rbuild();
        build.args(["build", "--quiet", "--iidfile"]).arg(&id).args(&side.args).args(further).arg(".");
        succeed(build.current_dir(&context));
        let told = succeed(self.world.rbuild().args(["explain", "--format=json"])).stdout;
        let report: Value = serde_json::from_slice(&told).expect("JSON");
        let step = report["steps"].as_array().and_then(|steps| steps.last()).expect("there is a step");
        let parts = step["parts"].as_array().expect("it has parts").iter();
        let changed = parts.filter(|part| !part["how"].is_null());
        Built {
            image: fs::read_to_string(id).expect("an id"),
            verdict: step["verdict"].as_str().expect("a word").to_owned(),
            changed: changed.map(|part| part["name"].as_str().expect("a name").to_owned()).collect(),
        }
    }

    /// The differences between two images: of their configs, and of their files.
    fn compare(&self, old: &Built, new: &Built, flags: &[&str]) -> (Vec<Value>, Vec<Value>) {
        let mut diff = self.world.rbuild();
        diff.args(["diff", "--format=json"]).args(flags).args([&old.image, &new.image]);
        let told = diff.output().expect("rbuild starts").stdout;
        let found: Value = serde_json::from_slice(&told).expect("JSON");
        let list = |name: &str| found[name].as_array().cloned().unwrap_or_default();
        (list("config"), list("files"))
    }

    /// Forgets everything but the image `base`.
    fn forget(&self) {
        succeed(self.world.rbuild().args(["prune", "--all"]));
    }

    /// What is wrong, unless the last step runs again because of these parts alone, and gives other files.
    fn misses(&self, row: &Row, parts: &str) -> Option<String> {
        self.forget();
        let (before, after) = (self.build(&row.before, &[]), self.build(&row.after, &[]));
        let changed = after.changed.join(", ");
        if after.verdict != "ran" || changed != parts {
            return Some(format!("{}, because of: {changed}; not: {parts}\n{}", after.verdict, shown(row)));
        }
        let times: &[&str] = if row.documented.ends_with("time") { &["--mtime"] } else { &[] };
        let (_, files) = self.compare(&before, &after, times);
        files.is_empty().then(|| format!("the result is the same\n{}", shown(row)))
    }

    /// What is wrong, unless the last step is reused, and what it gives is what it would have given.
    fn reuses(&self, row: &Row) -> Option<String> {
        self.forget();
        self.build(&row.before, &[]);
        let reused = self.build(&row.after, &[]);
        if reused.verdict == "ran" {
            return Some(format!("it ran because of: {}\n{}", reused.changed.join(", "), shown(row)));
        }
        let new = self.build(&row.after, &["--no-cache"]);
        let (config, files) = self.compare(&reused, &new, &[]);
        let is_same = config.is_empty() && files.is_empty();
        (!is_same).then(|| format!("a new result would be another: {config:?} {files:?}\n{}", shown(row)))
    }
}

/// Fails with all rows that something is wrong with.
#[track_caller]
fn report(faults: impl Iterator<Item = Option<String>>) {
    let faults: Vec<String> = faults.flatten().collect();
    assert!(faults.is_empty(), "{} rows are wrong:\n\n{}", faults.len(), faults.join("\n\n"));
}

fn shown(row: &Row) -> String {
    let side = |side: &Side| format!("{}{:?}", side.dockerfile, side.args);
    format!("{}\n--- before\n{}\n--- after\n{}", row.documented, side(&row.before), side(&row.after))
}
