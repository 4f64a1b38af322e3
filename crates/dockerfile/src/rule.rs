//! The lint rules of the whole program: their names, what each is about, and who hears of it.
//!
//! One table for all, since people write the names in `# check=skip=` without asking which part of a builder finds what: this crate
//! finds what the text alone shows, `plan` what needs variables or stages, the program what needs the context.

use std::fmt;
use std::str::FromStr;

/// Who hears of a rule unless the file or the command line says otherwise.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reported {
    /// Whoever builds, checks or lints.
    Always,
    /// Only who asks for a lint: the file builds as it was meant, it could be better.
    Linting,
    /// Nobody, unless `# check=experimental=` names the rule.
    Experimental,
}

/// Whose rule it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Origin {
    /// BuildKit's: name and trigger are the same there.
    BuildKit,
    /// Our own.
    Own,
}

macro_rules! rules {
    ($($origin:ident $reported:ident $name:ident $text:literal $description:literal,)*) => {
        /// A lint rule.
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub enum Rule {
            $(#[doc = $description] $name,)*
        }

        impl Rule {
            /// Every rule.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its name, as people write it.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// What it asks for, in one line.
            pub fn description(self) -> &'static str {
                match self { $(Self::$name => $description,)* }
            }

            /// Whose it is.
            pub fn origin(self) -> Origin {
                match self { $(Self::$name => Origin::$origin,)* }
            }

            /// Who hears of it.
            pub fn reported(self) -> Reported {
                match self { $(Self::$name => Reported::$reported,)* }
            }
        }
    };
}

rules! {
    BuildKit Always ConsistentInstructionCasing "ConsistentInstructionCasing" "All instructions of a file are in the same case",
    BuildKit Always CopyIgnoredFile "CopyIgnoredFile" "COPY and ADD name no file that an ignore file hides",
    BuildKit Always DuplicateStageName "DuplicateStageName" "No two stages have the same name",
    BuildKit Always ExposeInvalidFormat "ExposeInvalidFormat" "EXPOSE names ports of the container, without addresses and ports of the host",
    BuildKit Always ExposeProtoCasing "ExposeProtoCasing" "The protocol in EXPOSE is in lower case",
    BuildKit Always FromAsCasing "FromAsCasing" "AS is in the same case as its FROM",
    BuildKit Always FromPlatformFlagConstDisallowed "FromPlatformFlagConstDisallowed" "FROM --platform has no constant value",
    BuildKit Always InvalidBaseImagePlatform "InvalidBaseImagePlatform" "A base image is for the platform that is built for",
    BuildKit Always InvalidDefaultArgInFrom "InvalidDefaultArgInFrom" "FROM names an image also when no build argument is given",
    BuildKit Experimental InvalidDefinitionDescription "InvalidDefinitionDescription" "A comment right above a named FROM or an ARG begins with the name it describes",
    BuildKit Always JsonArgsRecommended "JSONArgsRecommended" "CMD and ENTRYPOINT are JSON arrays, so that signals reach the program",
    BuildKit Always LegacyKeyValueFormat "LegacyKeyValueFormat" "ENV and LABEL have `=` between name and value",
    BuildKit Always MaintainerDeprecated "MaintainerDeprecated" "A LABEL names the author, not MAINTAINER",
    BuildKit Always MultipleInstructionsDisallowed "MultipleInstructionsDisallowed" "A stage has one CMD, one ENTRYPOINT and one HEALTHCHECK at most",
    BuildKit Always NoEmptyContinuation "NoEmptyContinuation" "No blank line stands within an instruction",
    BuildKit Always RedundantTargetPlatform "RedundantTargetPlatform" "FROM --platform does not name what is the default anyway",
    BuildKit Always ReservedStageName "ReservedStageName" "No stage is called `scratch` or `context`",
    BuildKit Always SecretsUsedInArgOrEnv "SecretsUsedInArgOrEnv" "Secrets are mounted, not passed in ARG or ENV",
    BuildKit Always StageNameCasing "StageNameCasing" "Stage names are in lower case",
    BuildKit Always UndefinedArgInFrom "UndefinedArgInFrom" "Variables in FROM are declared before the first FROM",
    BuildKit Always UndefinedVar "UndefinedVar" "Variables are set before they are used",
    BuildKit Always WorkdirRelativePath "WorkdirRelativePath" "The first WORKDIR is an absolute path",
    Own Linting ArgBustsCache "ArgBustsCache" "An ARG is declared right above its first use, so that a new value runs nothing else again",
    Own Always ArgHidesEnv "ArgHidesEnv" "No ARG hides an ENV of the same name",
    Own Linting AptListsLeft "AptListsLeft" "A RUN that fetches apt's package lists removes them, or keeps them in a cache mount",
    Own Linting CacheBusterOrder "CacheBusterOrder" "Dependencies are installed before the whole context is copied",
    Own Always InvalidExecForm "InvalidExecForm" "What looks like a JSON array is one",
    Own Always InvalidUtf8 "invalid-utf8" "The file is UTF-8",
    Own Always LinkIgnored "LinkIgnored" "`--link` does not stand together with a flag that switches it off",
    Own Linting SecretInCommand "SecretInCommand" "No command holds a password, token or key",
    Own Linting UnpinnedBase "UnpinnedBase" "Base images have a tag other than `latest`, or a digest",
    Own Linting UnusedArg "UnusedArg" "Every ARG is used",
    Own Always UnusedBuildArg "UnusedBuildArg" "Every `--build-arg` is declared by an ARG",
    Own Linting UnusedStage "UnusedStage" "Every stage is needed by another one, or described as a target of its own",
    Own Linting WildcardNoMatch "WildcardNoMatch" "A wildcard of COPY or ADD matches something",
}

impl Rule {
    /// The page about it; our own rules, and one of BuildKit's, have none.
    pub fn url(self) -> Option<String> {
        let has_page = self.origin() == Origin::BuildKit && self != Self::InvalidBaseImagePlatform;
        has_page.then(|| format!("https://docs.docker.com/go/dockerfile/rule/{}/", kebab(self.as_str())))
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no rule.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("there is no rule `{0}`")]
pub struct UnknownRule(pub String);

impl FromStr for Rule {
    type Err = UnknownRule;

    /// Finds a rule by its name, without regard to case.
    fn from_str(text: &str) -> Result<Self, UnknownRule> {
        let named = Self::ALL.iter().find(|rule| rule.as_str().eq_ignore_ascii_case(text));
        named.copied().ok_or_else(|| UnknownRule(text.to_owned()))
    }
}

/// `JSONArgsRecommended` as `json-args-recommended`.
fn kebab(name: &str) -> String {
    let chars: Vec<char> = name.chars().collect();
    let mut text = String::with_capacity(name.len() + 4);
    for (at, c) in chars.iter().enumerate() {
        let begins_word = c.is_ascii_uppercase()
            && at > 0
            && (chars[at - 1].is_ascii_lowercase()
                || chars.get(at + 1).is_some_and(char::is_ascii_lowercase));
        if begins_word {
            text.push('-');
        }
        text.push(c.to_ascii_lowercase());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buildkit_has_twenty_two_rules() {
        let theirs = Rule::ALL.iter().filter(|rule| rule.origin() == Origin::BuildKit);
        assert_eq!(theirs.count(), 22);
    }

    #[test]
    fn pages_are_named_after_the_rule() {
        let page = |rule: Rule| {
            rule.url().unwrap_or_default().replace("https://docs.docker.com/go/dockerfile/rule/", "")
        };
        assert_eq!(page(Rule::JsonArgsRecommended), "json-args-recommended/");
        assert_eq!(page(Rule::FromPlatformFlagConstDisallowed), "from-platform-flag-const-disallowed/");
        assert_eq!(Rule::InvalidBaseImagePlatform.url(), None);
        assert_eq!(Rule::UnusedArg.url(), None);
    }

    #[test]
    fn names_are_read_without_regard_to_case() {
        assert_eq!("undefinedvar".parse(), Ok(Rule::UndefinedVar));
        assert_eq!("Nonsense".parse::<Rule>(), Err(UnknownRule("Nonsense".to_owned())));
    }
}
