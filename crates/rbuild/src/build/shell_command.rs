//! What to type to look at a step of a build: `rbuild shell app@4`, with whatever makes it the same build.

use std::path::{Path, PathBuf};

use oci::Platform;
use plan::{Place, Step};

use crate::build::Dockerfile;
use crate::build::input::STDIN;
use crate::cli::{BuildNetwork, DEFAULT_ROOT, StepArgs};
use crate::terminal::one_line;

/// The command line of a build, as far as a shell in it needs it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShellCommand<'c> {
    pub(crate) root: &'c Path,
    pub(crate) steps: &'c StepArgs,
    pub(crate) context: &'c Path,
}

impl ShellCommand<'_> {
    /// How to look at what a step starts from. `None` where it cannot be told: what came from standard input is gone.
    pub(crate) fn help(&self, step: &Step, dockerfile: &Dockerfile) -> Option<String> {
        let is_stdin = |path: &Path| path == Path::new(STDIN);
        if is_stdin(self.context) || self.steps.file.as_deref().is_some_and(is_stdin) {
            return None;
        }
        let place = step.place.as_ref()?;
        let target = place.target.clone().or_else(|| place.platform.as_ref().and(self.first_platform()));
        let words = self.words(&step_name(place, dockerfile), target.as_ref());
        let line = words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ");
        Some(format!("open a shell just before this step with `{line}`{}", self.left_out()))
    }

    /// Any does for a step that images of several platforms have in common.
    fn first_platform(&self) -> Option<Platform> {
        self.steps.platforms.first().and_then(|platform| crate::build::request::platform(platform).ok())
    }

    fn words(&self, step: &str, platform: Option<&Platform>) -> Vec<String> {
        let Self { root, steps, context } = self;
        let mut words = vec!["rbuild".to_owned()];
        let mut option = |name: &str, value: &str| words.extend([name.to_owned(), value.to_owned()]);
        if *root != Path::new(DEFAULT_ROOT) {
            option("--root", &root.to_string_lossy());
        }
        option("shell", step);
        if let Some(file) = &steps.file {
            option("-f", &file.to_string_lossy());
        }
        if *context != Path::new(".") && !is_private(&context.to_string_lossy()) {
            option("--context", &context.to_string_lossy());
        }
        // Of several platforms, that which the step is for.
        let platforms = platform.map_or_else(|| steps.platforms.join(","), ToString::to_string);
        if !platforms.is_empty() {
            option("--platform", &platforms);
        }
        steps.target.iter().for_each(|target| option("--target", target));
        if !steps.build_contexts.iter().any(|context| is_private(context)) {
            steps.build_contexts.iter().for_each(|context| option("--build-context", context));
        }
        match steps.network {
            BuildNetwork::Default => {}
            BuildNetwork::None => option("--network", "none"),
            BuildNetwork::Host => option("--network", "host"),
        }
        steps.add_hosts.iter().for_each(|host| option("--add-host", host));
        steps.from.iter().for_each(|image| option("--from", image));
        let paths =
            |paths: &[PathBuf]| paths.iter().map(|path| path.to_string_lossy().into_owned()).collect();
        let files: [(&str, Vec<String>); 3] = [
            ("--build-arg-file", paths(&steps.build_arg_files)),
            (
                "--ignorefile",
                steps.ignore_file.iter().map(|path| path.to_string_lossy().into_owned()).collect(),
            ),
            ("--volume", steps.volumes.clone()),
        ];
        let resolver: [(&str, Vec<String>); 3] = [
            ("--dns", steps.dns.iter().map(ToString::to_string).collect()),
            ("--dns-search", steps.dns_search.clone()),
            ("--dns-option", steps.dns_options.clone()),
        ];
        for (name, values) in files.iter().chain(&resolver) {
            values.iter().for_each(|value| option(name, value));
        }
        steps.allowed.iter().for_each(|allowed| option("--allow", allowed.as_str()));
        words.extend(self.look_up());
        words
    }

    /// How names are looked up. A lock file stands in one word with its option: behind a space it would be an argument.
    fn look_up(&self) -> Vec<String> {
        let locked = self.steps.locked.as_ref().map(|file| match file {
            Some(file) => format!("--locked={}", file.display()),
            None => "--locked".to_owned(),
        });
        locked.into_iter().chain(self.steps.offline.then(|| "--offline".to_owned())).collect()
    }

    /// What the person has to add, since values of these are nobody else's business.
    fn left_out(&self) -> String {
        let steps = self.steps;
        let options = [
            ("--context", is_private(&self.context.to_string_lossy())),
            ("--build-context", steps.build_contexts.iter().any(|context| is_private(context))),
            ("--build-arg", !steps.build_args.is_empty()),
            ("--secret", !steps.secrets.is_empty()),
            ("--ssh", !steps.ssh.is_empty()),
        ];
        let names = options.iter().filter(|(_, is_left_out)| *is_left_out).map(|(name, _)| *name);
        let names = names.chain(steps.limits.given()).chain(steps.resources.given());
        match names.collect::<Vec<_>>().as_slice() {
            [] => String::new(),
            [one] => format!(", and the same {one}"),
            [first @ .., last] => format!(", and the same {} and {last}", first.join(", ")),
        }
    }
}

/// `app@4`; a stage that shares its name with a later one goes by its number.
pub(crate) fn step_name(place: &Place, dockerfile: &Dockerfile) -> String {
    let targets = plan::targets(&dockerfile.parsed.file);
    let is_later = |(index, target): &(usize, &plan::Target<'_>)| {
        *index > place.stage.index && target.name.is_some() && target.name == place.stage.name.as_deref()
    };
    match targets.iter().enumerate().any(|later| is_later(&later)) {
        true => format!("{}@{}", place.stage.index, place.number),
        false => format!("{}@{}", place.stage, place.number),
    }
}

/// Whether it is a URL that may hold a password, a token or a signature.
fn is_private(source: &str) -> bool {
    source.split_once("://").is_some_and(|(_, rest)| rest.contains(['@', '?']))
}

/// As a shell takes it for one word.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "@%+=:,./-_".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", one_line(word).replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_hold_a_password_is_not_repeated() {
        for (source, expected) in [
            ("https://user:token@host/r.git", true),
            ("docs=https://host/a.tar?signature=x", true),
            ("docs=https://host/r.git#main:dir", false),
            ("dir@2", false),
        ] {
            assert_eq!(is_private(source), expected, "{source}");
        }
    }

    #[test]
    fn a_word_stays_one_word() {
        for (word, expected) in [
            ("dir/Dockerfile.dev", "dir/Dockerfile.dev"),
            ("my dir", "'my dir'"),
            ("it's", r"'it'\''s'"),
            ("$(x)", "'$(x)'"),
            ("", "''"),
        ] {
            assert_eq!(quoted(word), expected);
        }
    }
}
