//! What holds for any input.

use dockerfile::{Instruction, Part, Source, Spanned, Word, WordError, parse, parse_text, parse_word};
use proptest::prelude::*;

/// Pieces that meet the parser's decisions far more often than random characters do.
const PIECES: &[&str] = &[
    "FROM a\n",
    "FROM a AS b\n",
    "RUN ",
    "COPY ",
    "ADD ",
    "ENV ",
    "ARG ",
    "LABEL ",
    "ONBUILD ",
    "HEALTHCHECK ",
    "CMD ",
    "SHELL ",
    "USER ",
    "VOLUME ",
    "EXPOSE ",
    "WORKDIR ",
    "MAINTAINER ",
    "STOPSIGNAL ",
    "ENTRYPOINT ",
    "NONE",
    "\n",
    "\r\n",
    " ",
    "\t",
    "\\\n",
    "`\n",
    "\\",
    "`",
    "#",
    "# c\n",
    "# escape=`\n",
    "# check=skip=all\n",
    "'",
    "\"",
    "=",
    "A=b",
    "$",
    "${",
    "}",
    "${A:-b}",
    "${A/b/c}",
    "$A",
    "<<",
    "<<EOF",
    "<<-E",
    "<< 'E'",
    "EOF\n",
    "E\n",
    "\nEOF\n",
    "--",
    "--from=x",
    "--mount=type=cache,target=/x",
    "--mount=",
    "--link",
    "--interval=1s",
    "--chown=\"a b\"",
    ",",
    "[",
    "]",
    "[\"a\", \"b c\"]",
    "[1]",
    "\u{FEFF}",
    "\u{A0}",
    "\u{C}",
    "é",
    "x",
    "/y",
    "<",
    "80/tcp",
];

fn dockerfiles() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(PIECES), 0..40).prop_map(|pieces| pieces.concat())
}

/// A golden case's file with some bytes changed.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let files: Vec<Vec<u8>> =
        testkit::golden::directories("dockerfile").iter().map(|case| case.read_bytes("Dockerfile")).collect();
    let edits = prop::collection::vec((any::<prop::sample::Index>(), prop::sample::select(PIECES)), 1..6);
    (prop::sample::select(files), edits).prop_map(|(mut file, edits)| {
        for (index, piece) in edits {
            let at = index.index(file.len() + 1);
            let end = (at + piece.len() / 2).min(file.len());
            file.splice(at..end, piece.bytes());
        }
        file
    })
}

/// Lines of one instruction each, most of them well formed.
fn well_formed() -> impl Strategy<Value = String> {
    let line = (prop::sample::select(LINES), prop::collection::vec(prop::sample::select(PIECES), 0..4));
    prop::collection::vec(line, 0..6).prop_map(|lines| {
        let lines = lines.into_iter().map(|(line, pieces)| line.replace('@', &pieces.concat()));
        format!("FROM a\n{}", lines.collect::<String>())
    })
}

/// Instructions with a place where anything may stand.
const LINES: &[&str] = &[
    "RUN x@\n",
    "RUN @\n",
    "RUN <<EOF @\nb@\nEOF\n",
    "RUN --mount=type=cache,target=/@ x\n",
    "COPY a@ b\n",
    "COPY --chown=\"@\" a b\n",
    "COPY <<-E c@ d\n\t@\nE\n",
    "COPY << 'E F' d\n@\nE F\n",
    "ENV A=@\n",
    "ENV A @\n",
    "LABEL \"a@\"=b\n",
    "ARG A=@ B\n",
    "# A @\nARG A\n",
    "CMD [\"@\"]\n",
    "CMD @\n",
    "USER a@\n",
    "WORKDIR /@\n",
    "VOLUME /@\n",
    "EXPOSE 1@\n",
    "ONBUILD RUN @\n",
    "HEALTHCHECK --interval=1s CMD x@\n",
    "FROM b@\n",
    "FROM --platform='@' b AS c\n",
    "ENTRYPOINT -- --@\n",
    "RUN curl -H 'Authorization: Bearer @1234567' https://u:p@wd@h --token @xyz A_TOKEN=@abc\n",
    "RUN apt-get update && rm @\n",
    "COPY . /\nRUN npm ci @\n",
    "SHELL [\"a@\"]\n",
    "MAINTAINER a@\n",
    "STOPSIGNAL 9@\n",
    "ADD --exclude=@ a b\n",
];

/// All places lie within the file, and what is printed can be read.
fn check(bytes: &[u8]) {
    let source = Source::new("Dockerfile", bytes);
    let parsed = parse(&source);
    for finding in parsed.findings.iter().chain(&dockerfile::improvements(&parsed.file)) {
        let labels = finding.labels.iter().map(|label| label.span);
        for span in labels.chain([finding.span]) {
            assert!(source.text().get(span.range()).is_some(), "{finding:?} lies outside the file");
        }
    }
    parse(&Source::new("printed", parsed.file.to_string().as_bytes()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, max_global_rejects: 1_000_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check(&bytes);
    }

    #[test]
    fn any_pieces_are_read_without_panic(text in dockerfiles()) {
        check(text.as_bytes());
    }

    #[test]
    fn what_is_printed_reads_as_the_same_tree(text in well_formed()) {
        let parsed = parse(&Source::new("Dockerfile", text.as_bytes()));
        prop_assume!(!parsed.has_errors());
        let printed = parsed.file.to_string();
        let again = parse(&Source::new("printed", printed.as_bytes()));
        prop_assert!(!again.has_errors(), "{printed:?} is printed for {text:?}");
        prop_assert_eq!(again.file.to_string(), printed, "read from {:?}", text);
    }

    #[test]
    fn damaged_files_are_read_without_panic(bytes in mutated()) {
        check(&bytes);
    }

    #[test]
    fn words_are_taken_apart_without_panic(text in dockerfiles()) {
        for escape in [dockerfile::Escape::Backslash, dockerfile::Escape::Backtick] {
            match parse_word(&text, escape) {
                Ok(parts) => check_places(&parts, &text),
                Err(error) => {
                    prop_assert!(text.get(error.at()..).is_some());
                    let of_a_quote = matches!(error, WordError::UnbalancedQuote { .. });
                    prop_assert!(of_a_quote || text.contains('$'), "{error:?} without a variable");
                }
            }
        }
        if let Ok(parts) = parse_text(&text) {
            check_places(&parts, &text);
            prop_assert!(!parts.iter().any(|part| matches!(part, Part::SingleQuoted(_) | Part::DoubleQuoted(_))));
        }
    }
}

fn check_places(parts: &[Part], text: &str) {
    for part in parts {
        match part {
            Part::Variable(variable) => {
                let place = &text[variable.span.range()];
                assert!(
                    place.starts_with('$') && place.contains(&variable.name),
                    "{place:?} is {variable:?}"
                );
            }
            Part::DoubleQuoted(inner) => check_places(inner, text),
            Part::Literal(_) | Part::Escaped(_) | Part::SingleQuoted(_) => {}
        }
    }
}

#[test]
fn a_word_on_one_line_stands_where_its_span_says() {
    let mut words = 0;
    for case in testkit::golden::directories("dockerfile") {
        let source = Source::new("Dockerfile", &case.read_bytes("Dockerfile"));
        for stage in parse(&source).file.stages {
            for statement in &stage.instructions {
                for word in plain_words(&statement.instruction) {
                    let place = source.slice(word.span);
                    if !place.contains('\n') {
                        assert_eq!(place, word.as_str(), "in {}", case.name);
                        words += 1;
                    }
                }
            }
        }
    }
    assert!(words > 50, "only {words} words were compared");
}

/// Words that are never decoded from JSON or from a flag.
fn plain_words(instruction: &Instruction) -> Vec<&Spanned<Word>> {
    match instruction {
        Instruction::Env(env) => env.pairs.iter().flat_map(|pair| [&pair.key, &pair.value]).collect(),
        Instruction::Label(label) => label.pairs.iter().flat_map(|pair| [&pair.key, &pair.value]).collect(),
        Instruction::Arg(arg) => arg.declarations.iter().flat_map(name_and_default).collect(),
        Instruction::Expose(expose) => expose.ports.iter().collect(),
        Instruction::User(user) => vec![&user.user],
        Instruction::Workdir(workdir) => vec![&workdir.path],
        Instruction::StopSignal(stop) => vec![&stop.signal],
        _ => Vec::new(),
    }
}

fn name_and_default(declaration: &dockerfile::ArgDeclaration) -> Vec<&Spanned<Word>> {
    declaration.default.iter().chain([&declaration.name]).collect()
}
