//! Rules that need variables or the whole of the stages. Those of BuildKit are part of every lowering; the others only of a check.

use std::collections::{BTreeSet, HashMap};

use dockerfile::{
    CommandLine, CopySource, Escape, File, Instruction, Operator, Part, Span, Spanned, StageName, Statement,
    Word, parse_word,
};
use oci::{Config, Platform, Reference};

use crate::args::{self, BuildArgs};
use crate::contexts::NamedContexts;
use crate::env::Environment;
use crate::finding::{Finding, Warning, WarningKind};
use crate::lower::declare_globals;
use crate::outline::variables;
use crate::stages::{Base, Body, Stage, Stages};
use crate::{expand, ports};

/// `JSONArgsRecommended`: a shell form, unless a SHELL was chosen for it.
pub(crate) fn shell_form(
    keyword: &'static str,
    command: &Spanned<CommandLine>,
    config: &Config,
) -> Option<Warning> {
    let CommandLine::Shell(text) = &command.node else { return None };
    if !config.execution.shell.is_empty() {
        return None;
    }
    let is_plain = |c: char| c.is_ascii_alphanumeric() || " -_./:=,@%+".contains(c);
    let help = if text.chars().all(is_plain) {
        let words: Vec<_> = text.split_whitespace().map(|word| format!("\"{word}\"")).collect();
        format!("write `{keyword} [{}]`", words.join(", "))
    } else {
        format!(
            "write `{keyword} [\"PROGRAM\", \"ARGUMENT\"]`, or choose the shell with SHELL if one is needed"
        )
    };
    Some(Finding::new(WarningKind::ShellForm(keyword), command.span).help(help))
}

/// `ExposeProtoCasing` and `ExposeInvalidFormat`, of one port after expansion.
pub(crate) fn port_style(spec: &str, span: Span) -> Vec<Warning> {
    let style = ports::Style::of(spec);
    let mut warnings = Vec::new();
    if style.protocol.chars().any(char::is_uppercase) {
        let kind = WarningKind::PortProtocolCase(spec.to_owned());
        let help = format!("write `{}`", spec.to_lowercase());
        warnings.push(Finding::new(kind, span).help(help));
    }
    if style.is_mapping {
        let kind = WarningKind::PortMapping(spec.to_owned());
        let help = format!("write `EXPOSE {}`; ports are mapped when a container is run", style.container);
        warnings.push(Finding::new(kind, span).help(help));
    }
    warnings
}

/// `RedundantTargetPlatform` and `FromPlatformFlagConstDisallowed`.
pub(crate) fn platform_flag(
    word: &Spanned<Word>,
    platform: &Platform,
    stage: Option<&Spanned<StageName>>,
    escape: Escape,
) -> Option<Warning> {
    let parts = parse_word(word.as_str(), escape).ok()?;
    if let [Part::Variable(variable)] = parts.as_slice()
        && variable.name == "TARGETPLATFORM"
        && variable.operator == Operator::Value
    {
        let kind = WarningKind::RedundantPlatform(word.to_string());
        return Some(Finding::new(kind, word.span).help("remove the flag"));
    }
    // A stage that says what it is for means what it says.
    let is_named_after_it = stage.is_some_and(|stage| {
        let name = stage.as_str();
        name.contains(&platform.os) || name.contains(&platform.architecture)
    });
    if is_named_after_it || expand::has_variable(&parts) {
        return None;
    }
    let kind = WarningKind::ConstantPlatform(platform.clone());
    let help = format!(
        "remove the flag, write `$BUILDPLATFORM`, or name the stage after it: `AS {}`",
        platform.architecture
    );
    Some(Finding::new(kind, word.span).help(help))
}

/// `InvalidDefaultArgInFrom`. `scope` holds the platform arguments of a build without any `--build-arg`.
pub(crate) fn images_by_default(file: &File, scope: &mut Environment) -> Vec<Warning> {
    let none = BuildArgs::new(&[]);
    // What is wrong with a default is said by whoever reads the arguments in earnest.
    let declared = file
        .global_args
        .iter()
        .try_for_each(|global| declare_globals(&global.arg, file.escape(), &none, scope));
    if declared.is_err() {
        return Vec::new();
    }
    let names_none = |image: &&Spanned<Word>| {
        let expanded = expand::word(image.as_str(), file.escape(), scope);
        expanded.is_ok_and(|expanded| Reference::parse(&expanded.value).is_err())
    };
    let images = file.stages.iter().map(|stage| &stage.image).filter(|image| image.as_str().contains('$'));
    let warning = |image: &Spanned<Word>| {
        let kind = WarningKind::NoDefaultImage(image.to_string());
        let name = variables(image, file).into_iter().next().unwrap_or_default();
        Finding::new(kind, image.span)
            .help(format!("give the ARG a default: `ARG {name}=…` before the first FROM"))
    };
    images.filter(names_none).map(warning).collect()
}

/// `UnpinnedBase`, of the stages that start from an image of a registry.
pub(crate) fn unpinned(stages: &[&Stage<'_>], contexts: &NamedContexts, platform: &Platform) -> Vec<Warning> {
    let unpinned = |stage: &&Stage<'_>| {
        let Base::Image(reference) = &stage.base else { return None };
        let is_pinned = reference.digest().is_some() || reference.tag().is_some_and(|tag| tag != "latest");
        // What was given on the command line is no business of the file.
        let is_replaced =
            stage.body == Body::Replaced || contexts.find(stage.syntax.image.as_str(), platform).is_some();
        if is_pinned || is_replaced {
            return None;
        }
        let kind = WarningKind::UnpinnedBase(reference.familiar());
        let help = format!("name a version, such as `{}:1.2`, or a digest", reference.familiar_repository());
        Some(Finding::new(kind, stage.syntax.image.span).help(help))
    };
    stages.iter().filter_map(unpinned).collect()
}

/// `UnusedStage`: neither the target nor needed by any other stage, nor described, as one is that is built on its own.
pub(crate) fn unused_stages(stages: &Stages<'_>, target: usize, needed: &BTreeSet<usize>) -> Vec<Warning> {
    let all = (0..stages.len()).map(|index| (index, stages.get(index)));
    let unused = all
        .filter(|(index, stage)| *index != target && !needed.contains(index) && stage.syntax.doc.is_none());
    let warning = |(_, stage): (usize, &Stage<'_>)| {
        let finding = Finding::new(WarningKind::UnusedStage(stage.label.to_string()), stage.syntax.span);
        finding.help(match &stage.label.name {
            Some(name) => {
                format!("remove it; if `--target {name}` builds it, say so in a comment above: `# {name} what it is for`")
            }
            None => "remove it, or give it a name and use that".to_owned(),
        })
    };
    unused.map(warning).collect()
}

/// `UnusedArg` and `ArgBustsCache`.
pub(crate) fn args(file: &File) -> Vec<Warning> {
    let uses = Uses::of(file);
    let mut warnings = unused_globals(file);
    for (stage, syntax) in file.stages.iter().enumerate() {
        for (at, statement) in syntax.instructions.iter().enumerate() {
            let Instruction::Arg(arg) = &statement.instruction else { continue };
            let names = arg.declarations.iter().map(|declaration| &declaration.name);
            // Those have a meaning of their own.
            let own = names.filter(|name| !args::is_predefined(name.as_str()));
            warnings.extend(own.filter_map(|name| uses.judge(name, stage, at)));
        }
    }
    warnings
}

/// An ARG before the first FROM is seen by FROMs, by later ones, and by stages that repeat it; by nothing else.
fn unused_globals(file: &File) -> Vec<Warning> {
    let in_stages = file.stages.iter().flat_map(|stage| &stage.instructions).flat_map(declared_names);
    let mut used: BTreeSet<String> = in_stages.map(ToOwned::to_owned).collect();
    let words = file.stages.iter().flat_map(|stage| stage.platform.iter().chain([&stage.image]));
    let declarations = || file.global_args.iter().flat_map(|global| &global.arg.declarations);
    let defaults = declarations().filter_map(|declaration| declaration.default.as_ref());
    used.extend(words.chain(defaults).flat_map(|word| variables(word, file)));
    let unused = declarations().map(|declaration| &declaration.name);
    let unused = unused.filter(|name| !used.contains(name.as_str()) && !args::is_predefined(name.as_str()));
    let warning = |name: &Spanned<Word>| {
        Finding::new(WarningKind::UnusedArg(name.to_string()), name.span).help(format!(
            "remove it, or repeat `ARG {}` in the stage that needs it: before the first FROM it is seen by FROM only",
            name.node
        ))
    };
    unused.map(warning).collect()
}

fn declared_names(statement: &Statement) -> Vec<&str> {
    let arg = match &statement.instruction {
        Instruction::Arg(arg) => arg,
        Instruction::Onbuild(onbuild) => match &*onbuild.instruction.node {
            Instruction::Arg(arg) => arg,
            _ => return Vec::new(),
        },
        _ => return Vec::new(),
    };
    arg.declarations.iter().map(|declaration| declaration.name.as_str()).collect()
}

/// Which instruction names which variable, and where the RUNs are: a RUN may use what it does not name.
struct Uses<'f> {
    file: &'f File,
    /// By name: stage and position, in order. An ARG's own name does not count.
    named: HashMap<&'f str, Vec<(usize, usize)>>,
    /// By stage: the positions of its RUNs, in order.
    runs: Vec<Vec<usize>>,
    /// By stage: whether another stage is based on it.
    has_children: Vec<bool>,
}

impl<'f> Uses<'f> {
    fn of(file: &'f File) -> Self {
        let mut named: HashMap<&str, Vec<(usize, usize)>> = HashMap::new();
        let mut runs = Vec::with_capacity(file.stages.len());
        for (stage, syntax) in file.stages.iter().enumerate() {
            for (at, statement) in syntax.instructions.iter().enumerate() {
                for name in names(statement) {
                    named.entry(name).or_default().push((stage, at));
                }
            }
            let is_run = |(_, statement): &(usize, &Statement)| may_read_variables(&statement.instruction);
            runs.push(syntax.instructions.iter().enumerate().filter(is_run).map(|(at, _)| at).collect());
        }
        let bases: BTreeSet<String> =
            file.stages.iter().map(|stage| stage.image.as_str().to_lowercase()).collect();
        // A base that is named by a variable could be any stage.
        let any = bases.iter().any(|base| base.contains('$'));
        let is_base = |stage: &dockerfile::Stage| {
            stage.name.as_ref().is_some_and(|name| any || bases.contains(name.as_str()))
        };
        Self { file, named, runs, has_children: file.stages.iter().map(is_base).collect() }
    }

    /// What there is to say about the ARG `name` at `at` of `stage`.
    fn judge(&self, name: &Spanned<Word>, stage: usize, at: usize) -> Option<Warning> {
        let places = self.named.get(name.as_str()).map_or(&[][..], Vec::as_slice);
        let behind = places.partition_point(|place| *place <= (stage, at));
        let first = places.get(behind).filter(|place| place.0 == stage).map(|place| place.1);
        let is_used_beside = places.get(behind.wrapping_sub(1)) == Some(&(stage, at));
        let runs = &self.runs[stage];
        let next_run = runs.partition_point(|run| *run <= at);
        match first {
            _ if is_used_beside => None,
            None if next_run == runs.len() && !self.has_children[stage] => {
                let finding = Finding::new(WarningKind::UnusedArg(name.to_string()), name.span);
                Some(finding.help("remove it: nothing below it can see it"))
            }
            None => None,
            Some(first) => {
                let count = runs.partition_point(|run| *run < first) - next_run;
                (count > 0).then(|| self.busts_cache(name, stage, (runs[next_run], first), count))
            }
        }
    }

    fn busts_cache(
        &self,
        name: &Spanned<Word>,
        stage: usize,
        (run, first): (usize, usize),
        runs: usize,
    ) -> Warning {
        let span = |at: usize| self.file.stages[stage].instructions[at].span;
        let kind = WarningKind::ArgBustsCache { name: name.to_string(), runs };
        Finding::new(kind, name.span)
            .label(span(run), "runs again with each new value")
            .label(span(first), "first used here")
            .help("move the ARG down to right above its first use")
    }
}

/// Whether a program that an instruction starts, now or when it is triggered, sees all variables.
fn may_read_variables(instruction: &Instruction) -> bool {
    match instruction {
        Instruction::Run(_) => true,
        Instruction::Onbuild(onbuild) => may_read_variables(&onbuild.instruction.node),
        _ => false,
    }
}

/// Everything in an instruction that could be a variable's name, but for the names that an ARG declares.
fn names(statement: &Statement) -> Vec<&str> {
    if let Instruction::Arg(arg) = &statement.instruction {
        let defaults = arg.declarations.iter().filter_map(|declaration| declaration.default.as_ref());
        return defaults.flat_map(|default| identifiers(default.as_str())).collect();
    }
    let bodies: Vec<&str> = match &statement.instruction {
        Instruction::Run(run) => run.heredocs.iter().map(|heredoc| heredoc.content.as_str()).collect(),
        Instruction::Copy(copy) => inline(&copy.sources),
        Instruction::Add(add) => inline(&add.sources),
        Instruction::Onbuild(onbuild) => vec![onbuild.trigger.as_str()],
        _ => Vec::new(),
    };
    bodies.into_iter().chain([statement.text.as_str()]).flat_map(identifiers).collect()
}

fn inline(sources: &[CopySource]) -> Vec<&str> {
    let bodies = sources.iter().filter_map(|source| match source {
        CopySource::Heredoc(heredoc) => Some(heredoc.content.as_str()),
        CopySource::Path(_) => None,
    });
    bodies.collect()
}

fn identifiers(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}
