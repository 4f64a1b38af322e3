//! Trees and findings as text.

use dockerfile::{File, Finding, Heredoc, Instruction, Source, Span};

/// The tree as it prints, each instruction below the lines it stands on.
pub(crate) fn tree(source: &Source, file: &File) -> String {
    let escape = file.escape();
    let mut text = String::new();
    if let Some(syntax) = &file.directives.syntax {
        text += &format!("{} syntax: {:?}\n", place(source, syntax.span), syntax.node);
    }
    if let Some(escape) = &file.directives.escape {
        text += &format!("{} escape: {:?}\n", place(source, escape.span), escape.node);
    }
    if let Some(check) = &file.directives.check {
        text += &format!("{} check: {}\n", place(source, check.span), check.node);
    }
    for check in &file.checks {
        text += &format!("{} check of the instruction: {}\n", place(source, check.span), check.node);
    }
    for global in &file.global_args {
        let printed = Instruction::Arg(global.arg.clone()).print(escape);
        text += &format!("{}\n{}", place(source, global.span), indented(&printed));
    }
    for (index, stage) in file.stages.iter().enumerate() {
        text += &format!("{} stage {index}\n", place(source, stage.span));
        text.push_str(&indented(&stage.print(escape)));
        for statement in &stage.instructions {
            let printed = indented(&statement.instruction.print(escape));
            text += &format!("{}\n{printed}", place(source, statement.span));
            text += &details(&statement.instruction);
        }
    }
    text
}

/// What printing does not show.
fn details(instruction: &Instruction) -> String {
    match instruction {
        Instruction::Run(run) if !run.heredocs.is_empty() => {
            let line = |h: &Heredoc| {
                format!("    = heredoc {} fd {} {:?} {:?}\n", h.name, h.fd, h.expansion, h.indentation)
            };
            let heredocs: String = run.heredocs.iter().map(line).collect();
            heredocs + &format!("    = script: {:?}\n", run.script().map(Heredoc::body))
        }
        Instruction::Onbuild(onbuild) => format!("    = trigger: {:?}\n", onbuild.trigger),
        _ => String::new(),
    }
}

/// The findings as a person would see them, without drawing.
pub(crate) fn findings(source: &Source, findings: &[Finding]) -> String {
    let mut text = String::new();
    for Finding { severity, code, message, span, labels, help } in findings {
        text += &format!("{} {severity}[{code}]: {message}\n", place(source, *span));
        text += &format!("    | {:?}\n", source.slice(*span));
        for label in labels {
            text += &format!("    at {}: {}\n", place(source, label.span), label.text);
        }
        text.extend(help.iter().map(|help| format!("    help: {help}\n")));
    }
    text
}

fn place(source: &Source, span: Span) -> String {
    format!("{}-{}", source.position(span.start), source.position(span.end))
}

fn indented(text: &str) -> String {
    let lines = text.split_inclusive('\n').filter(|line| *line != "\n");
    lines.map(|line| format!("    {}", line.replace('\r', "\\r").replace('\u{C}', "\\f"))).collect()
}
