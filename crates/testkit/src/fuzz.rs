//! What fuzzing has in common, whoever makes up the inputs: where seeds lie, what an input may cost, and a mutator for the normal test run.
//!
//! A target is a function of bytes that must neither panic nor take longer than the length of its input allows. `cargo xtask fuzz` lets
//! libFuzzer look for inputs with the help of coverage; [`smoke`] tries some thousand of them, the same ones in every run, so that a
//! target cannot rot between two such looks.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::golden;

/// What any input may take, however short: a first look at a table, or `EXPOSE 1-65535`, which is that many ports.
const GRACE: Duration = Duration::from_millis(200);

/// What each byte may take. Ten times of what the slowest honest line takes.
const PER_BYTE: Duration = Duration::from_micros(30);

/// How much slower a program without optimization may be.
const UNOPTIMIZED: u32 = if cfg!(debug_assertions) && !cfg!(fuzzing) { 10 } else { 1 };

/// How long an input becomes when it is grown.
const GROWN_BYTES: usize = 8 << 10;

/// How many times longer it becomes when it is grown further.
const FURTHER: usize = 8;

/// How many times longer that may take: three times of what is linear, since caches and allocators are not, and less than half of the square.
const FURTHER_TIME: u32 = 24;

/// One input in so many is grown: it takes as long as hundreds of others.
const GROWN_IN: u64 = 256;

/// Runs `target` on an input, and on some inputs twice more with their middle repeated, which is how super-linear time shows: whatever the
/// machine, and whatever honest work each line is.
///
/// # Panics
/// As `target` does, and if it takes longer than the length of the input allows.
pub fn run(input: &[u8], target: &dyn Fn(&[u8])) {
    let length = u32::try_from(input.len()).unwrap_or(u32::MAX);
    run_in_time(input, (GRACE + PER_BYTE * length) * UNOPTIMIZED, target);
    if checksum(input).is_multiple_of(GROWN_IN) {
        let taken = run_in_time(&grown(input, GROWN_BYTES), Duration::MAX, target);
        let allowed = GRACE * UNOPTIMIZED + taken * FURTHER_TIME;
        run_in_time(&grown(input, GROWN_BYTES * FURTHER), allowed, target);
    }
}

/// What something gives, and how long this thread has worked for it.
pub fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = processor_time();
    let outcome = work();
    (outcome, processor_time().saturating_sub(start))
}

fn run_in_time(input: &[u8], allowed: Duration, target: &dyn Fn(&[u8])) -> Duration {
    let ((), taken) = timed(|| target(input));
    assert!(taken <= allowed, "{} bytes take {taken:?}, and may take {allowed:?}", input.len());
    taken
}

/// Of this thread: what else the machine does is not counted.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("the time of a thread is no less than none")
}

/// The middle third again and again.
fn grown(input: &[u8], bytes: usize) -> Vec<u8> {
    let (from, to) = (input.len() / 3, input.len() - input.len() / 3);
    let middle = &input[from..to];
    let times = bytes.checked_div(middle.len()).unwrap_or(0);
    [&input[..from], &middle.repeat(times), &input[to..]].concat()
}

/// FNV-1a: which inputs are grown depends on nothing but the input, so that whatever fails fails again.
fn checksum(input: &[u8]) -> u64 {
    input
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The inputs to begin with, those that once made a target fail among them: the files of `testdata/fuzz/TARGET`, each line of those that end in
/// `.lines`, and for the target `dockerfile` every Dockerfile there is.
///
/// # Panics
/// If there are none.
#[must_use]
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = files(target).into_iter().flat_map(seeds_of).collect();
    if target == "dockerfile" {
        let suites = ["dockerfile", "lint", "plan"].map(golden::directories).into_iter().flatten();
        let files = suites.filter_map(|case| fs::read(case.path.join("Dockerfile")).ok());
        seeds.extend(files);
    }
    assert!(!seeds.is_empty(), "there are no seeds for `{target}`");
    seeds
}

fn seeds_of(path: PathBuf) -> Vec<Vec<u8>> {
    let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    match path.extension().is_some_and(|extension| extension == "lines") {
        true => bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect(),
        false => vec![bytes],
    }
}

fn files(target: &str) -> Vec<PathBuf> {
    let directory = golden::testdata().join("fuzz").join(target);
    let entries = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path != &dictionary(target));
    files.sort();
    files
}

/// Words that a target's parser looks for, each in quotes on a line of its own, as libFuzzer reads them.
#[must_use]
pub fn dictionary(target: &str) -> PathBuf {
    golden::testdata().join("fuzz").join(target).join("dictionary")
}

fn words(target: &str) -> Vec<Vec<u8>> {
    let text = fs::read_to_string(dictionary(target)).expect("each target has a dictionary");
    let word =
        |line: &str| Some(line.strip_prefix('"')?.strip_suffix('"')?.replace("\\\"", "\"").into_bytes());
    text.lines().filter_map(word).collect()
}

/// Runs a target on its seeds, and on `rounds` inputs made of them: the same ones in every run.
///
/// # Panics
/// With the input, if the target panics or takes too long.
pub fn smoke(name: &str, rounds: usize, target: &dyn Fn(&[u8])) {
    let seeds = seeds(name);
    let mut mutator = Mutator { seeds: &seeds, words: &words(name), state: checksum(name.as_bytes()) };
    seeds.iter().for_each(|seed| attempt(seed, target));
    for _ in 0..rounds {
        attempt(&mutator.input(), target);
    }
}

/// Tells the input, before the panic goes on.
fn attempt(input: &[u8], target: &dyn Fn(&[u8])) {
    let outcome = catch_unwind(AssertUnwindSafe(|| run(input, target)));
    if let Err(panic) = outcome {
        let why = panic.downcast_ref::<String>().map(String::as_str);
        match why.or_else(|| panic.downcast_ref::<&str>().copied()) {
            Some(why) => panic!("{why}\nof the input b\"{}\"", input.escape_ascii()),
            None => resume_unwind(panic),
        }
    }
}

/// Makes inputs of others.
struct Mutator<'a> {
    seeds: &'a [Vec<u8>],
    words: &'a [Vec<u8>],
    state: u64,
}

impl Mutator<'_> {
    fn input(&mut self) -> Vec<u8> {
        let seeds = self.seeds;
        let mut input = seeds[self.below(seeds.len())].clone();
        for _ in 0..=self.below(4) {
            self.change(&mut input);
        }
        input
    }

    /// One change of a few bytes.
    fn change(&mut self, input: &mut Vec<u8>) {
        let at = self.below(input.len() + 1);
        let end = (at + self.below(16)).min(input.len());
        let piece = match self.below(5) {
            0 => Vec::new(),
            1 => input[at..end].repeat(2),
            2 => vec![u8::try_from(self.below(256)).expect("it is below 256")],
            3 => self.piece_of_a_seed(),
            _ => self.words[self.below(self.words.len())].clone(),
        };
        input.splice(at..end, piece);
    }

    fn piece_of_a_seed(&mut self) -> Vec<u8> {
        let seeds = self.seeds;
        let seed = &seeds[self.below(seeds.len())];
        let at = self.below(seed.len() + 1);
        let end = (at + self.below(64)).min(seed.len());
        seed[at..end].to_vec()
    }

    /// A number below `bound`, which is not 0, by Marsaglia's xorshift.
    fn below(&mut self, bound: usize) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        usize::try_from(self.state >> 11).expect("53 bits fit") % bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_input_grows_long_between_its_ends() {
        let grown = grown(b"FROM a\nX\nCMD b\n", 1000);
        assert!(grown.starts_with(b"FROM a\nX") && grown.ends_with(b"MD b\n"));
        assert!((1000..1032).contains(&grown.len()));
        assert_eq!(super::grown(b"", 1000), b"");
    }

    #[test]
    fn the_same_inputs_come_in_every_run() {
        let collect = || {
            let inputs = std::cell::RefCell::new(Vec::new());
            smoke("reference", 100, &|input| inputs.borrow_mut().push(input.to_vec()));
            inputs.into_inner()
        };
        assert_eq!(collect(), collect());
    }

    #[test]
    #[should_panic(expected = "of the input b\"")]
    fn a_failure_names_its_input() {
        smoke("reference", 0, &|_| panic!("no"));
    }
}
