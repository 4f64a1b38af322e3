//! What holds for every plan: checked on all golden cases that have one.

use dockerfile::Source;
use plan::{Op, Plan, WarningKind};

use crate::flags::request;
use crate::images::RecordedImages;

fn plans() -> Vec<(String, Plan)> {
    let plan = |case: testkit::golden::Case| {
        let source = Source::new("Dockerfile", &case.read_bytes("Dockerfile"));
        let request = request(&case.read_if_present("args.txt").unwrap_or_default());
        let plan = plan::lower(&dockerfile::parse(&source).file, &request, &mut RecordedImages::default());
        Some((case.name, plan.ok()?))
    };
    let plans: Vec<_> = testkit::golden::directories("plan").into_iter().filter_map(plan).collect();
    assert!(plans.len() > 40, "only {} cases have a plan", plans.len());
    plans
}

#[test]
fn inputs_stand_before_the_steps_that_use_them() {
    for (name, plan) in plans() {
        for (index, step) in plan.steps.iter().enumerate() {
            assert_eq!(step.id.index(), index, "{name}");
            assert!(
                step.op.parent().into_iter().chain(step.op.reads()).all(|input| input < step.id),
                "{name}: {step}"
            );
        }
    }
}

#[test]
fn every_step_is_needed_by_the_target() {
    for (name, plan) in plans() {
        let mut needed = vec![false; plan.steps.len()];
        needed[plan.output().step.index()] = true;
        for step in plan.steps.iter().rev().filter(|step| !matches!(step.op, Op::Scratch)) {
            assert!(needed[step.id.index()], "{name}: nobody needs {step}");
            for input in step.op.parent().into_iter().chain(step.op.reads()) {
                needed[input.index()] = true;
            }
        }
    }
}

#[test]
fn each_layer_of_the_result_has_one_line_of_history() {
    for (name, plan) in plans() {
        let made = |id: &plan::StepId| !matches!(plan.step(*id).op, Op::Scratch | Op::Image(_));
        let layers: Vec<_> = plan.chain(plan.output().step).into_iter().filter(made).collect();
        let recorded: Vec<_> = plan.output().history.iter().filter_map(|entry| entry.step).collect();
        assert_eq!(layers, recorded, "{name}");
    }
}

#[test]
fn lowering_twice_gives_the_same_plan() {
    for ((name, first), (_, second)) in plans().into_iter().zip(plans()) {
        assert_eq!(first, second, "{name}");
    }
}

#[test]
fn thousands_of_stages_need_neither_stack_nor_patience() {
    let stages = (1..5000).map(|n| format!("FROM s{} AS s{n}\nRUN {n}\nCOPY --from=s0 /a /{n}\n", n - 1));
    let text: String = std::iter::once("FROM alpine AS s0\n".to_owned()).chain(stages).collect();
    let file = dockerfile::parse(&Source::new("Dockerfile", text.as_bytes())).file;
    let plan = plan::lower(&file, &request(""), &mut RecordedImages::default()).unwrap();
    assert_eq!((plan.steps.len(), plan.output().history.len()), (9999, 9998));
    let checked = plan::check(&file, &request(""), &mut RecordedImages::default()).unwrap();
    assert_eq!((checked.steps.len(), checked.errors.len()), (9999, 0));
}

/// Whoever checks learns at least what whoever builds does, and asking what a file offers needs no image.
fn check_and_outline(file: &dockerfile::File, request: &plan::Request, name: &str) {
    let lowered = plan::lower(file, request, &mut RecordedImages::default());
    let Ok(checked) = plan::check(file, request, &mut RecordedImages::default()) else {
        assert!(lowered.is_err(), "{name}");
        return;
    };
    if let Ok(plan) = lowered {
        // A stage that is not built may declare what nothing else does.
        let depends_on_stages =
            |warning: &plan::Warning| matches!(warning.kind, WarningKind::UnusedBuildArg(_));
        let is_told =
            |warning: &plan::Warning| depends_on_stages(warning) || checked.warnings.contains(warning);
        assert!(plan.warnings.iter().all(is_told), "{name}: {:?} {:?}", plan.warnings, checked.warnings);
    }
    plan::outline(file, request).expect("there is a target");
    assert_eq!(plan::targets(file).len(), file.stages.len());
}

#[test]
fn what_a_check_knows_of_no_image_it_does_not_say() {
    let source = Source::new(
        "Dockerfile",
        b"FROM unknown AS a\nLABEL x=$X\nWORKDIR w\nCOPY --from=other a b c\nFROM a\nENV Y=$Y\n",
    );
    let checked =
        plan::check(&dockerfile::parse(&source).file, &request(""), &mut RecordedImages::default()).unwrap();
    assert_eq!(checked.errors, []);
    let rules: Vec<_> = checked.warnings.iter().map(|warning| warning.kind.code()).collect();
    assert_eq!(rules, ["UnpinnedBase", "WorkdirRelativePath"]);
    let unknown: Vec<_> = checked.unknown_images.iter().map(oci::Reference::familiar).collect();
    assert_eq!(unknown, ["unknown:latest", "other:latest"]);
}

/// Every file with one line left out, and with each two neighbours swapped.
#[test]
fn damaged_files_have_a_plan_or_errors_but_no_panic() {
    let mut lowered = 0;
    for case in testkit::golden::directories("plan") {
        let text = case.read("Dockerfile");
        let lines: Vec<_> = text.split_inclusive('\n').collect();
        let flags = case.read_if_present("args.txt").unwrap_or_default();
        for at in 0..lines.len() {
            let without: String = [&lines[..at], &lines[at + 1..]].concat().concat();
            let mut swapped = lines.clone();
            swapped.swap(at, (at + 1) % lines.len());
            for text in [without, swapped.concat()] {
                let file = dockerfile::parse(&Source::new("Dockerfile", text.as_bytes())).file;
                match plan::lower(&file, &request(&flags), &mut RecordedImages::default()) {
                    Ok(plan) => {
                        assert!(plan.output().step.index() < plan.steps.len(), "{}: {text}", case.name)
                    }
                    Err(errors) => {
                        assert!(!errors.is_empty(), "{}: no plan and no reason: {text}", case.name)
                    }
                }
                check_and_outline(&file, &request(&flags), &case.name);
                lowered += 1;
            }
        }
    }
    assert!(lowered > 1000);
}
