//! The lint rules that the parse itself sees. Rules that need variables, other stages' configs or the context are not here.

use std::collections::HashMap;

use crate::ast::{File, Instruction, Stage, Word};
use crate::directive;
use crate::finding::{Code, Finding};
use crate::instruction::Head;
use crate::keyword::Keyword;
use crate::line::LogicalLine;
use crate::scope::Scope;
use crate::span::{Span, Spanned};

/// `NoEmptyContinuation`: blank lines within an instruction.
pub(crate) fn empty_continuation(line: &LogicalLine, head: &Head<'_>, scope: &mut Scope<'_>) {
    let Some(&first) = line.blank_lines.first() else { return };
    let finding = Finding::new(Code::NoEmptyContinuation, first, "a blank line within an instruction")
        .with_label(scope.span(head.word), "this instruction goes on below it");
    scope.report(
        finding.with_help("remove the blank line, or end the line above without the escape character"),
    );
}

/// `FromAsCasing` and `StageNameCasing`.
pub(crate) fn stage_casing(from: &str, keyword: &str, name: &str, scope: &mut Scope<'_>) {
    let wanted = match Case::of(from) {
        Case::Lower => Some(keyword.to_lowercase()),
        Case::Upper => Some(keyword.to_uppercase()),
        Case::Mixed => None,
    };
    if let Some(wanted) = wanted.filter(|wanted| wanted != keyword) {
        let message = format!("`{keyword}` and `{from}` are in different cases");
        let finding = Finding::new(Code::FromAsCasing, scope.span(keyword), message);
        scope.report(finding.with_help(format!("write `{wanted}`")));
    }
    let lower = name.to_lowercase();
    if lower != name {
        let message = format!("the stage name `{name}` has upper-case letters");
        let finding = Finding::new(Code::StageNameCasing, scope.span(name), message);
        scope.report(
            finding.with_help(format!("write `{lower}`: stage names are compared without regard to case")),
        );
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Case {
    Lower,
    Upper,
    Mixed,
}

impl Case {
    fn of(word: &str) -> Self {
        if word.bytes().all(|byte| byte.is_ascii_lowercase()) {
            Self::Lower
        } else if word.bytes().all(|byte| byte.is_ascii_uppercase()) {
            Self::Upper
        } else {
            Self::Mixed
        }
    }
}

/// `ConsistentInstructionCasing`: the keywords of all stages, to be compared with their majority at the end.
#[derive(Debug, Default)]
pub(crate) struct Casing {
    keywords: Vec<(Keyword, Case, Span)>,
}

impl Casing {
    pub(crate) fn add(&mut self, keyword: Keyword, word: &str, span: Span) {
        self.keywords.push((keyword, Case::of(word), span));
    }

    pub(crate) fn check(&self, findings: &mut Vec<Finding>) {
        let count = |wanted: Case| self.keywords.iter().filter(|(_, case, _)| *case == wanted).count();
        let (majority, name) = match count(Case::Lower) > count(Case::Upper) {
            true => (Case::Lower, "lower"),
            false => (Case::Upper, "upper"),
        };
        for &(keyword, case, span) in &self.keywords {
            if case == majority {
                continue;
            }
            let wanted = match majority {
                Case::Lower => keyword.name().to_lowercase(),
                _ => keyword.name().to_owned(),
            };
            let message = format!("most instructions are in {name} case, this one is not");
            let finding = Finding::new(Code::ConsistentInstructionCasing, span, message);
            findings.push(finding.with_help(format!("write `{wanted}`")));
        }
    }
}

/// The rules about stages and what is void in them.
pub(crate) fn stages(file: &File, findings: &mut Vec<Finding>) {
    let mut seen: HashMap<&str, Span> = HashMap::new();
    for stage in &file.stages {
        if let Some(name) = &stage.name {
            if matches!(name.as_str(), "scratch" | "context") {
                let message = format!("`{}` means something else to `FROM` and `--from`", name.node);
                let finding = Finding::new(Code::ReservedStageName, name.span, message);
                findings.push(finding.with_help("choose another name for the stage"));
            }
            if let Some(&first) = seen.get(name.as_str()) {
                let message = format!("two stages are named `{}`", name.node);
                let finding = Finding::new(Code::DuplicateStageName, name.span, message)
                    .with_label(first, "hidden from here on by the later one");
                findings.push(finding.with_help("choose another name for one of them"));
            }
            seen.insert(name.as_str(), name.span);
        }
        void_instructions(stage, findings);
        secret_names(stage, findings);
    }
}

/// `InvalidDefinitionDescription`: the comment right above describes something else than what follows.
pub(crate) fn description(
    keyword: &str,
    names: &[&str],
    comments: &[&str],
    span: Span,
    findings: &mut Vec<Finding>,
) {
    let Some(comment) = comments.last() else { return };
    let described = comment.split(' ').next().unwrap_or_default();
    if names.contains(&described) || directive::local_check(&[comment]).is_some() {
        return;
    }
    let name = if let [name] = names { name } else { "NAME" };
    let message = format!("the comment above this `{keyword}` does not begin with the name it describes");
    let finding = Finding::new(Code::InvalidDefinitionDescription, span, message);
    findings.push(finding.with_help(format!(
        "write `# {name} what it is for`, or put a line with only `#` below a comment that is no description"
    )));
}

/// `SecretsUsedInArgOrEnv`: such values can be read in the image's config and history.
fn secret_names(stage: &Stage, findings: &mut Vec<Finding>) {
    for statement in &stage.instructions {
        let (keyword, names): (Keyword, Vec<&Spanned<Word>>) = match &statement.instruction {
            Instruction::Arg(arg) => {
                (Keyword::Arg, arg.declarations.iter().map(|declaration| &declaration.name).collect())
            }
            Instruction::Env(env) => (Keyword::Env, env.pairs.iter().map(|pair| &pair.key).collect()),
            _ => continue,
        };
        for name in names.into_iter().filter(|name| is_secret_name(name.as_str())) {
            let message = format!(
                "`{keyword} {}` looks like a secret, which everybody who has the image can read",
                name.node
            );
            let finding = Finding::new(Code::SecretsUsedInArgOrEnv, name.span, message);
            findings.push(finding.with_help(format!(
                "give it to the step that needs it: `RUN --mount=type=secret,id={},env={}`",
                name.as_str().to_lowercase(),
                name.node
            )));
        }
    }
}

/// Whether one of the parts between underscores says secret, and none says that it is not the secret itself.
pub(crate) fn is_secret_name(name: &str) -> bool {
    const SECRET: [&str; 10] = [
        "apikey",
        "auth",
        "credential",
        "credentials",
        "key",
        "passwd",
        "password",
        "pword",
        "secret",
        "token",
    ];
    const HARMLESS: [&str; 3] = ["file", "public", "version"];
    let has =
        |words: &[&str]| name.split('_').any(|part| words.iter().any(|word| part.eq_ignore_ascii_case(word)));
    has(&SECRET) && !has(&HARMLESS)
}

/// `MultipleInstructionsDisallowed`: of several, only the last counts; each earlier one is reported.
fn void_instructions(stage: &Stage, findings: &mut Vec<Finding>) {
    let mut last: [Option<Span>; 3] = [None; 3];
    for statement in stage.instructions.iter().rev() {
        let (index, keyword) = match &statement.instruction {
            Instruction::Cmd(_) => (0, Keyword::Cmd),
            Instruction::Entrypoint(_) => (1, Keyword::Entrypoint),
            Instruction::Healthcheck(_) => (2, Keyword::Healthcheck),
            _ => continue,
        };
        match last[index] {
            None => last[index] = Some(statement.span),
            Some(later) => {
                let message =
                    format!("this `{keyword}` has no effect, because another one follows in the stage");
                let finding = Finding::new(Code::MultipleInstructionsDisallowed, statement.span, message);
                findings
                    .push(finding.with_label(later, "this one counts").with_help("remove the earlier one"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_known_by_the_parts_of_their_names() {
        for name in ["API_KEY", "db_password", "TOKEN", "Auth", "AWS_SECRET_ACCESS_KEY"] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in ["PUBLIC_KEY", "TOKEN_FILE", "KEY_VERSION", "MONKEY", "PASSWORDLESS", "AUTHOR"] {
            assert!(!is_secret_name(name), "{name}");
        }
    }
}
