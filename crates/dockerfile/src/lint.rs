//! The lint rules that the parse itself sees. Rules that need variables, other stages' configs or the context are not here.

use std::collections::HashMap;

use crate::ast::{File, Instruction, Stage};
use crate::finding::{Code, Finding};
use crate::instruction::Head;
use crate::keyword::Keyword;
use crate::line::LogicalLine;
use crate::scope::Scope;
use crate::span::Span;

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
    }
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
