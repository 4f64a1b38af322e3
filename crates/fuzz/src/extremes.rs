//! Sizes that nobody writes by hand: each is answered in no more than linear time, or refused with the limit named.

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Duration;

use context::ignore::{FILE_NAME, Ignore};
use dockerfile::{Source, parse};
use plan::{Plan, PlanError};
use sys::RootfsPath;
use testkit::fuzz::timed;

use crate::dockerfile::{AnyImage, NoImages, request};

/// What each takes at most of a processor: a second in a program that is optimized, whatever the machine does besides.
const LIMIT: Duration = Duration::from_secs(if cfg!(debug_assertions) { 20 } else { 1 });

const MIB: usize = 1 << 20;

/// Does something that may take no longer than [`LIMIT`].
#[track_caller]
fn within_limit<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let (outcome, taken) = timed(work);
    assert!(taken < LIMIT, "`{}…` takes {taken:?}", what.chars().take(60).collect::<String>());
    outcome
}

/// Plans a file as a build does, and does all that `lint` does with it.
#[track_caller]
fn plan(text: &str) -> Result<Plan, Vec<PlanError>> {
    let parsed = within_limit(text, || parse(&Source::new("Dockerfile", text.as_bytes())));
    let file = &parsed.file;
    within_limit(text, || drop(dockerfile::improvements(file)));
    within_limit(text, || drop(plan::check(file, &request(), &mut NoImages)));
    within_limit(text, || drop(plan::outline(file, &request())));
    within_limit(text, || plan::lower(file, &request(), &mut AnyImage))
}

/// The first error of a file that cannot be planned.
#[track_caller]
fn refused(text: &str) -> String {
    plan(text).expect_err("it is refused")[0].kind.to_string()
}

#[test]
fn a_line_of_one_mebibyte_is_read() {
    let long = "x".repeat(MIB);
    let words = "x ".repeat(MIB / 2);
    for line in [
        format!("RUN {long}"),
        format!("RUN {words}"),
        format!("ENV A={long}"),
        format!("LABEL a=\"{long}\""),
        format!("# {long}"),
        format!("USER {}", "$".repeat(MIB)),
        format!("RUN <<E\n{long}\nE"),
        format!("COPY {words} /d/"),
        format!("RUN {}", "x \\\n".repeat(MIB / 4)),
    ] {
        assert!(plan(&format!("FROM scratch\n{line}\n")).is_ok());
    }
}

#[test]
fn a_line_of_one_mebibyte_that_is_wrong_is_refused() {
    let long = "x".repeat(MIB);
    for line in [
        format!("{long} x"),
        format!("FROM {long}"),
        format!("COPY --from={long} a b"),
        format!("COPY --{long} a b"),
        format!("RUN --mount=type={long} x"),
        format!("STOPSIGNAL {long}"),
        format!("ENV A={}", "${a:-".repeat(MIB / 5)),
        format!("ENV A=${{B/{long}/x}}"),
    ] {
        let text = format!("FROM scratch\n{line}\n");
        let parsed = parse(&Source::new("Dockerfile", text.as_bytes()));
        assert!(plan(&text).is_err() || parsed.has_errors(), "{}", &line[..20]);
    }
}

#[test]
fn ten_thousand_stages_are_planned() {
    let stages = |line: fn(usize) -> String| (0..10_000).map(line).collect::<String>();
    let chain = stages(|n| match n {
        0 => "FROM scratch AS s0\n".to_owned(),
        n => format!("FROM s{} AS s{n}\nCOPY --from=s0 a /{n}\n", n - 1),
    });
    assert_eq!(plan(&chain).expect("nothing is wrong").steps.len(), 10_000);
    // A name a thousand times, and only the last one counts.
    assert!(plan(&stages(|_| "FROM base AS base\nCOPY a b\n".to_owned())).is_ok());
    assert!(plan(&stages(|n| format!("FROM image{n} AS s{n}\n"))).is_ok());
}

#[test]
fn ten_thousand_mistakes_are_found() {
    for line in [
        "FROM s@x AS stage\n",
        "FROM scratch AS s\nCOPY --from=later a b\n",
        "FROM scratch AS stage\nCOPY --from=stagf a b\n",
        "FROM scratch\nCOPY --from=9999 a b\n",
        "FROM scratch\nUSER $UNKNOWN\n",
        "FROM scratch\nARG A\nARG A\nENV B=$C\n",
    ] {
        drop(plan(&format!("{}FROM scratch AS later\n", line.repeat(10_000))));
    }
}

#[test]
fn ten_thousand_arguments_are_planned() {
    let mut text = String::new();
    for n in 0..10_000 {
        writeln!(text, "ARG A{n}=${{A{}:-x}}", n.max(1) - 1).expect("a String takes all");
    }
    text.push_str("FROM scratch\n");
    for n in 0..10_000 {
        writeln!(text, "ARG A{n}").expect("a String takes all");
    }
    assert!(plan(&format!("{text}LABEL a=$A1$A9999\n")).is_ok());
    // Each line of history has all of them.
    assert!(plan(&format!("{text}{}", "RUN x\n".repeat(100))).is_ok());
}

/// `${A:-${A:-…}}` and the like, some levels deep.
fn nested(open: &str, close: &str, levels: usize) -> String {
    format!("FROM scratch\nENV X={}x{}\n", open.repeat(levels), close.repeat(levels))
}

#[test]
fn expansions_nest_127_levels_deep_and_no_further_than_the_limit() {
    for (open, close) in [
        ("${A:-", "}"),
        ("${A:+", "}"),
        ("${A-", "}"),
        ("${PATH#", "}"),
        ("${PATH%%", "}"),
        ("${PATH//", "/y}"),
    ] {
        assert!(plan(&nested(open, close, 127)).is_ok(), "{open}");
        let refused = refused(&nested(open, close, 129));
        assert!(refused.contains("128 levels"), "{refused}");
    }
    let quoted = nested("\"${A:-", "}\"", 63);
    assert!(plan(&quoted).is_ok());
}

#[test]
fn what_doubles_with_each_line_is_refused_by_its_limit() {
    let doubled = format!("FROM scratch\nENV A=x\n{}", "ENV A=$A$A\n".repeat(64));
    assert!(refused(&doubled).contains("1 MiB"));
    // A mebibyte in each of many short lines, or before each of many commands.
    let large = format!("FROM scratch\nENV A=x\n{}", "ENV A=$A$A\n".repeat(19));
    let assigned: String = (0..1000).map(|n| format!("ENV B{n}=$A\n")).collect();
    for lines in [assigned, "LABEL a=$A\n".repeat(1000), "RUN x\n".repeat(10_000)] {
        assert!(refused(&format!("{large}{lines}")).contains("64 MiB"));
    }
    let within = format!("FROM scratch\nENV A={}x{}\n", "${B:-".repeat(60), "$PATH}".repeat(60));
    assert!(plan(&within).is_ok());
}

/// An ignore file of ten thousand lines, asked about deep paths.
#[track_caller]
fn check_ignore(line: impl Fn(usize) -> String) {
    let text: String = (0..10_000).map(line).collect();
    let deep = RootfsPath::parse("directory/".repeat(20).trim_end_matches('/')).expect("a path");
    let ignore =
        within_limit(&text, || Ignore::parse(text.as_bytes(), FILE_NAME)).expect("they are well formed");
    within_limit(&text, || {
        black_box(ignore.matches(&deep));
    });
}

#[test]
fn ten_thousand_patterns_are_asked_about_deep_paths() {
    let long = "x".repeat(90);
    check_ignore(|n| format!("{long}{n}\n"));
    check_ignore(|n| format!("**/{n}\n"));
    check_ignore(|n| format!("**/directory/**/{n}*\n"));
    check_ignore(|n| format!("*/*/*/{n}?\n"));
    check_ignore(|n| format!("!**/*{n}*.o\n"));
    check_ignore(|n| format!("[a-z]*/**/[^a-z]{n}\n"));
}

#[test]
fn one_pattern_of_one_mebibyte_is_asked_about_a_deep_path() {
    let path = RootfsPath::parse("d/".repeat(500).trim_end_matches('/')).expect("a path");
    for unit in ["x", "*", "**/", "?", "[a-z]", "*?", "d/", "**/?/"] {
        let text = unit.repeat(MIB / unit.len());
        let ignore =
            within_limit(unit, || Ignore::parse(text.as_bytes(), FILE_NAME)).expect("it is well formed");
        within_limit(unit, || {
            black_box(ignore.matches(&path));
        });
    }
}

#[test]
fn all_ports_there_are_are_not_exposed_again_and_again() {
    let lines = |count: usize| format!("FROM scratch\n{}", "EXPOSE 0-65535\n".repeat(count));
    assert!(plan(&lines(4)).is_ok());
    assert!(refused(&lines(1000)).contains("64 MiB"));
    assert!(refused(&format!("FROM scratch\nEXPOSE {}", "0-65535 ".repeat(3000))).contains("64 MiB"));
}
