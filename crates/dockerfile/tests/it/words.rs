//! Words into parts, every form of the shell-like syntax.

use dockerfile::{Absence, Escape, Match, Occurrences, Operator, Part, parse_text, parse_word};
use expect_test::{Expect, expect};

fn show(parts: &[Part]) -> String {
    parts.iter().map(part).collect::<Vec<_>>().join(" ")
}

fn part(part: &Part) -> String {
    match part {
        Part::Literal(text) => format!("{text:?}"),
        Part::Escaped(c) => format!("esc({c})"),
        Part::SingleQuoted(text) => format!("single({text})"),
        Part::DoubleQuoted(inner) => format!("double({})", show(inner)),
        Part::Variable(variable) => format!("{}{}", variable.name, operator(&variable.operator)),
    }
}

fn operator(operator: &Operator) -> String {
    let colon = |absence| if absence == Absence::UnsetOrEmpty { ":" } else { "" };
    let twice = |is: bool, sign: &str| if is { sign.repeat(2) } else { sign.to_owned() };
    match operator {
        Operator::Value => String::new(),
        Operator::Default(when, word) => format!("{}-[{}]", colon(*when), show(word)),
        Operator::Alternate(when, word) => format!("{}+[{}]", colon(*when), show(word)),
        Operator::Require(when, word) => format!("{}?[{}]", colon(*when), show(word)),
        Operator::StripPrefix(how, pattern) => {
            format!("{}[{}]", twice(*how == Match::Longest, "#"), show(pattern))
        }
        Operator::StripSuffix(how, pattern) => {
            format!("{}[{}]", twice(*how == Match::Longest, "%"), show(pattern))
        }
        Operator::Replace(which, pattern, word) => {
            format!("{}[{}]/[{}]", twice(*which == Occurrences::All, "/"), show(pattern), show(word))
        }
    }
}

#[track_caller]
fn check(text: &str, expected: Expect) {
    check_with(text, Escape::Backslash, expected);
}

#[track_caller]
fn check_with(text: &str, escape: Escape, expected: Expect) {
    expected.assert_eq(
        &parse_word(text, escape).map_or_else(|e| format!("{}: {e}", e.at()), |parts| show(&parts)),
    );
}

#[test]
fn names_end_where_go_ends_them() {
    check("$a.b", expect![[r#"a ".b""#]]);
    check("$a_1é-x", expect![[r#"a_1é "-x""#]]);
    check("$1x", expect![[r#"1 "x""#]]);
    check("$12", expect!["12"]);
    check("$0 $@ $* $# $? $- $$ $!", expect![[r##"0 " " @ " " * " " # " " ? " " - " " $ " " !"##]]);
    check("$. $", expect![[r#""$" ". " "$""#]]);
    check("${a}${1}${@}", expect!["a 1 @"]);
}

#[test]
fn every_operator_is_told_apart() {
    check("${v:-w}${v-w}", expect![[r#"v:-["w"] v-["w"]"#]]);
    check("${v:+w}${v+w}", expect![[r#"v:+["w"] v+["w"]"#]]);
    check("${v:?w}${v?w}${v?}", expect![[r#"v:?["w"] v?["w"] v?[]"#]]);
    check("${v#p}${v##p}${v%p}${v%%p}", expect![[r##"v#["p"] v##["p"] v%["p"] v%%["p"]"##]]);
    check("${v/p/w}${v//p/w}${v/p/}", expect![[r#"v/["p"]/["w"] v//["p"]/["w"] v/["p"]/[]"#]]);
    check("${v##}", expect!["v##[]"]);
}

#[test]
fn words_within_substitutions_nest() {
    check("${a:-${b:-c}d}", expect![[r#"a:-[b:-["c"] "d"]"#]]);
    check("${a:-\"}\"'}'}", expect![[r#"a:-[double("}") single(})]"#]]);
    check(r"${a#\*\}}", expect!["a#[esc(*) esc(})]"]);
    check(r"${a/x\/y/$b}", expect![[r#"a/["x" esc(/) "y"]/[b]"#]]);
}

#[test]
fn quotes_and_escapes() {
    check("'a $b \\'c", expect![[r#"single(a $b \) "c""#]]);
    check(
        r#""a $b \" \$ \\ \n""#,
        expect![[r#"double("a " b " " esc(") " " esc($) " " esc(\) " " esc(\) "n")"#]],
    );
    check("\"it's '$a'\"", expect![[r#"double("it's '" a "'")"#]]);
    check(r"\$V \n \", expect![[r#"esc($) "V " esc(n) " ""#]]);
    check_with("`$V \\n C:\\x", Escape::Backtick, expect![[r#"esc($) "V \\n C:\\x""#]]);
}

#[test]
fn what_is_not_well_formed_says_where() {
    check("a'b", expect!["1: the quote ' is never closed"]);
    check("a\"b", expect!["1: the quote \" is never closed"]);
    check("x${", expect!["1: `${` is never closed by `}`"]);
    check("x${a", expect!["1: `${` is never closed by `}`"]);
    check("x${a:-b", expect!["1: `${` is never closed by `}`"]);
    check("\"x${a\"", expect!["2: `${` is never closed by `}`"]);
    check("${}", expect!["0: a variable name must follow `${`"]);
    check("${:x}", expect!["0: a variable name must follow `${`"]);
    check("${{x}", expect!["0: a variable name must follow `${`"]);
    check("${a^b}", expect!["3: `^` cannot follow a variable name in `${…}`"]);
    check("${a:b}", expect!["3: `:b` cannot follow a variable name in `${…}`"]);
    check("${a/b}", expect!["0: `${V/pattern/replacement}` lacks its second `/`"]);
    check("${a:-${b}", expect!["0: `${` is never closed by `}`"]);
}

#[test]
fn nesting_is_bounded() {
    let nested = |levels| "${a:-".repeat(levels) + &"}".repeat(levels);
    assert!(parse_word(&nested(128), Escape::Backslash).is_ok());
    check(&nested(129), expect!["640: quotes and substitutions nest more than 128 levels deep"]);
    let hostile = "\"${a:-".repeat(100_000);
    assert!(parse_word(&hostile, Escape::Backslash).is_err());
}

#[test]
fn in_a_heredocs_body_quotes_are_text_and_the_backslash_escapes() {
    let parts = parse_text("it's \"$a\" \\$b \\\\\n").unwrap();
    expect![[r#""it's \"" a "\" " esc($) "b " esc(\) "\n""#]].assert_eq(&show(&parts));
}
