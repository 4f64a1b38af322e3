//! Trees and findings as text.

use std::fmt::Write;

use dockerfile::{File, Finding, Instruction, Source, Span};

/// The tree as it prints, each instruction below the lines it stands on.
pub(crate) fn tree(source: &Source, file: &File) -> String {
    let escape = file.escape();
    let mut text = String::new();
    if let Some(syntax) = &file.directives.syntax {
        writeln!(text, "{} syntax: {:?}", place(source, syntax.span), syntax.node).unwrap();
    }
    if let Some(escape) = &file.directives.escape {
        writeln!(text, "{} escape: {:?}", place(source, escape.span), escape.node).unwrap();
    }
    if let Some(check) = &file.directives.check {
        writeln!(text, "{} check: {}", place(source, check.span), check.node).unwrap();
    }
    for global in &file.global_args {
        let printed = Instruction::Arg(global.arg.clone()).print(escape);
        write!(text, "{}\n{}", place(source, global.span), indented(&printed)).unwrap();
    }
    for (index, stage) in file.stages.iter().enumerate() {
        writeln!(text, "{} stage {index}", place(source, stage.span)).unwrap();
        text.push_str(&indented(&stage.print(escape)));
        for statement in &stage.instructions {
            let printed = indented(&statement.instruction.print(escape));
            write!(text, "{}\n{printed}", place(source, statement.span)).unwrap();
            details(&mut text, &statement.instruction);
        }
    }
    text
}

/// What printing does not show.
fn details(text: &mut String, instruction: &Instruction) {
    match instruction {
        Instruction::Run(run) if !run.heredocs.is_empty() => {
            for heredoc in &run.heredocs {
                let (name, fd) = (&heredoc.name, heredoc.fd);
                let (expansion, indentation) = (heredoc.expansion, heredoc.indentation);
                writeln!(text, "    = heredoc {name} fd {fd} {expansion:?} {indentation:?}").unwrap();
            }
            writeln!(text, "    = script: {:?}", run.script().map(|heredoc| heredoc.body())).unwrap();
        }
        Instruction::Onbuild(onbuild) => writeln!(text, "    = trigger: {:?}", onbuild.trigger).unwrap(),
        _ => {}
    }
}

/// The findings as a person would see them, without drawing.
pub(crate) fn findings(source: &Source, findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let Finding { severity, code, message, span, labels, help } = finding;
        writeln!(text, "{} {severity}[{code}]: {message}", place(source, *span)).unwrap();
        writeln!(text, "    | {:?}", source.slice(*span)).unwrap();
        for label in labels {
            writeln!(text, "    at {}: {}", place(source, label.span), label.text).unwrap();
        }
        if let Some(help) = help {
            writeln!(text, "    help: {help}").unwrap();
        }
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
