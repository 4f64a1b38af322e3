//! One pattern, compiled, and the matching of a path against it.
//!
//! Two dialects share it. In a source argument (Go's `filepath.Match`) `*` stands for any run of bytes but `/`, `?` for one
//! character, `[a-c]` and `[^a-c]` for one of a class, and a backslash takes the next character literally. In an ignore file
//! `**` joins them, as the reference builder compiles it:
//!
//! | written | stands for |
//! | --- | --- |
//! | `**` at the end | anything, slashes too |
//! | `**` or `**/` elsewhere | nothing, or any directories with their slash |
//! | `**` at the start, only literal text after it | a suffix: `**ile` matches `a/file` |
//!
//! Where the reference's translation into regular expressions leaks (`[*]`, `\d`, a class that matches `/`), the documented
//! meaning holds. Matching follows all alternatives at once, one token after the other, so that its time is
//! at most the product of both lengths: no pattern can make it hang.

/// Why text is not a pattern.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PatternError {
    /// `[` without its `]`.
    #[error("`[` is never closed")]
    OpenClass,
    /// A range such as `[a-]` or an empty class `[]`.
    #[error("a character class is empty or has an incomplete range")]
    BadClass,
    /// A backslash at the end.
    #[error("nothing follows the last `\\`")]
    NothingEscaped,
}

/// Whether `**` is special.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Dialect {
    /// Ignore files, `--exclude`, `--parents`.
    Ignore,
    /// Source arguments: `**` is `*`.
    Wildcard,
}

/// A compiled pattern.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    tokens: Vec<Token>,
    /// No shorter path matches: a pattern longer than any path is not followed at all.
    least_bytes: usize,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Token {
    Literal(Vec<u8>),
    /// `?`
    Character,
    /// `[…]`; never a slash.
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
    /// `*`
    Run,
    /// `**/`: nothing, or anything that ends in a slash.
    Directories,
    /// `**` at the end.
    Anything,
}

impl Token {
    fn least_bytes(&self) -> usize {
        match self {
            Self::Literal(text) => text.len(),
            Self::Character | Self::Class { .. } => 1,
            Self::Run | Self::Directories | Self::Anything => 0,
        }
    }
}

impl Pattern {
    pub(crate) fn parse(text: &[u8], dialect: Dialect) -> Result<Self, PatternError> {
        let mut parser = Parser { rest: text, tokens: Vec::new() };
        while let Some(byte) = parser.take() {
            match byte {
                b'*' if dialect == Dialect::Ignore && parser.rest.first() == Some(&b'*') => {
                    parser.double_star()
                }
                b'*' => parser.push(Token::Run),
                b'?' => parser.push(Token::Character),
                b'[' => parser.class()?,
                b'\\' => {
                    let escaped = parser.take().ok_or(PatternError::NothingEscaped)?;
                    parser.literal(escaped);
                }
                byte => parser.literal(byte),
            }
        }
        let least_bytes = parser.tokens.iter().map(Token::least_bytes).sum();
        Ok(Self { tokens: parser.tokens, least_bytes })
    }

    /// The text this pattern stands for, if it stands for one only.
    pub(crate) fn as_literal(&self) -> Option<&[u8]> {
        match &*self.tokens {
            [] => Some(b""),
            [Token::Literal(text)] => Some(text),
            _ => None,
        }
    }

    pub(crate) fn matches(&self, path: &[u8]) -> bool {
        if let Some(text) = self.as_literal() {
            return text == path;
        }
        if path.len() < self.least_bytes {
            return false;
        }
        // Most patterns fail at a literal end: seen here, without following anything.
        if let Some(Token::Literal(head)) = self.tokens.first()
            && !path.starts_with(head)
        {
            return false;
        }
        if let Some(Token::Literal(tail)) = self.tokens.last()
            && !path.ends_with(tail)
        {
            return false;
        }
        let mut reached = Reached::start(path);
        self.tokens.iter().all(|token| reached.advance(token)) && reached.end()
    }

    /// Whether it matches this path or a directory above it: the same as to ask for each of them, in the time of one.
    pub(crate) fn matches_or_above(&self, path: &[u8]) -> bool {
        let is_end = |end: usize| matches!(path.get(end), None | Some(b'/'));
        if let Some(text) = self.as_literal() {
            return path.starts_with(text) && is_end(text.len());
        }
        if path.len() < self.least_bytes {
            return false;
        }
        if let Some(Token::Literal(head)) = self.tokens.first()
            && !path.starts_with(head)
        {
            return false;
        }
        if let Some(Token::Literal(tail)) = self.tokens.last() {
            let mut windows = path.windows(tail.len()).enumerate();
            if !windows.any(|(at, window)| window == tail && is_end(at + tail.len())) {
                return false;
            }
        }
        let mut reached = Reached::start(path);
        self.tokens.iter().all(|token| reached.advance(token)) && reached.at.into_iter().any(is_end)
    }

    /// Whether some path below this directory could match. May say yes too often, never no.
    pub(crate) fn may_match_below(&self, directory: &[u8]) -> bool {
        let mut prefix = directory.to_vec();
        if !prefix.is_empty() {
            prefix.push(b'/');
        }
        let mut reached = Reached::start(&prefix);
        for token in &self.tokens {
            if reached.end() || reached.is_cut_short_in(token) {
                return true;
            }
            if !reached.advance(token) {
                return false;
            }
        }
        reached.end()
    }
}

/// Reads pattern text from the front.
struct Parser<'a> {
    rest: &'a [u8],
    tokens: Vec<Token>,
}

impl Parser<'_> {
    fn take(&mut self) -> Option<u8> {
        let (&first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
    }

    fn push(&mut self, token: Token) {
        // Twice the same is once.
        let is_repeated =
            matches!(token, Token::Run | Token::Directories) && self.tokens.last() == Some(&token);
        if !is_repeated {
            self.tokens.push(token);
        }
    }

    fn literal(&mut self, byte: u8) {
        match self.tokens.last_mut() {
            Some(Token::Literal(text)) => text.push(byte),
            _ => self.tokens.push(Token::Literal(vec![byte])),
        }
    }

    /// The second star and what follows; the first was taken.
    fn double_star(&mut self) {
        let is_first = self.tokens.is_empty();
        self.take();
        let slash = self.rest.first() == Some(&b'/');
        if slash {
            self.take();
        }
        let only_literal_follows = !self.rest.iter().any(|byte| b"*?[]\\".contains(byte));
        if self.rest.is_empty() || (is_first && !slash && only_literal_follows) {
            self.push(Token::Anything);
        } else {
            self.push(Token::Directories);
        }
    }

    /// A class; its bracket was taken.
    fn class(&mut self) -> Result<(), PatternError> {
        let negated = self.rest.first() == Some(&b'^');
        if negated {
            self.take();
        }
        let mut ranges = Vec::new();
        loop {
            if self.rest.first() == Some(&b']') && !ranges.is_empty() {
                self.take();
                self.push(Token::Class { negated, ranges });
                return Ok(());
            }
            let low = self.class_character()?;
            let mut high = low;
            if self.rest.first() == Some(&b'-') {
                self.take();
                high = self.class_character()?;
            }
            ranges.push((low, high));
        }
    }

    fn class_character(&mut self) -> Result<char, PatternError> {
        match self.rest.first() {
            None => return Err(PatternError::OpenClass),
            Some(b'-' | b']') => return Err(PatternError::BadClass),
            Some(b'\\') => {
                self.take();
                if self.rest.is_empty() {
                    return Err(PatternError::NothingEscaped);
                }
            }
            Some(_) => {}
        }
        let (character, width) = first_character(self.rest);
        self.rest = &self.rest[width..];
        Ok(character)
    }
}

/// The first character and its width. A byte that is not UTF-8 counts as one unknown character.
fn first_character(text: &[u8]) -> (char, usize) {
    let width = match text.first() {
        Some(0xC2..=0xDF) => 2,
        Some(0xE0..=0xEF) => 3,
        Some(0xF0..=0xF4) => 4,
        _ => 1,
    };
    let decoded = text.get(..width).and_then(|bytes| std::str::from_utf8(bytes).ok());
    match decoded.and_then(|text| text.chars().next()) {
        Some(character) => (character, width),
        None => (char::REPLACEMENT_CHARACTER, 1),
    }
}

/// The positions in a text that the tokens so far can end at, in order. Few of them in most patterns, however long the text is.
struct Reached<'a> {
    text: &'a [u8],
    at: Vec<usize>,
}

impl<'a> Reached<'a> {
    fn start(text: &'a [u8]) -> Self {
        Self { text, at: vec![0] }
    }

    fn end(&self) -> bool {
        self.at.last() == Some(&self.text.len())
    }

    /// Takes one token; false if nothing is reached any more.
    fn advance(&mut self, token: &Token) -> bool {
        match token {
            Token::Literal(literal) => {
                let text = self.text;
                self.at.retain(|position| text[*position..].starts_with(literal));
                self.at.iter_mut().for_each(|position| *position += literal.len());
            }
            Token::Character => self.step(|_| true),
            Token::Class { negated, ranges } => self.step(|character| {
                ranges.iter().any(|&(low, high)| (low..=high).contains(&character)) != *negated
            }),
            Token::Run => self.spread(|byte| byte != b'/'),
            Token::Anything => self.spread(|_| true),
            Token::Directories => self.skip_directories(),
        }
        !self.at.is_empty()
    }

    fn step(&mut self, accepts: impl Fn(char) -> bool) {
        let text = self.text;
        self.at.retain_mut(|position| {
            let rest = &text[*position..];
            let (character, width) = first_character(rest);
            *position += width;
            !matches!(rest.first(), None | Some(b'/')) && accepts(character)
        });
        // Behind a star, a position may lie within a character, and characters differ in width.
        self.at.sort_unstable();
        self.at.dedup();
    }

    /// From each position on as far as bytes pass.
    fn spread(&mut self, passes: impl Fn(u8) -> bool) {
        let mut next = Vec::with_capacity(self.at.len());
        for position in &self.at {
            if next.last().is_some_and(|last| last >= position) {
                continue;
            }
            let passed = self.text[*position..].iter().take_while(|byte| passes(**byte)).count();
            next.extend(*position..=position + passed);
        }
        self.at = next;
    }

    /// Each position, and behind every slash that follows the first one.
    fn skip_directories(&mut self) {
        let Some(first) = self.at.first().copied() else { return };
        let behind_slash = |(index, byte): (usize, &u8)| (*byte == b'/').then_some(first + index + 1);
        self.at.extend(self.text[first..].iter().enumerate().filter_map(behind_slash));
        self.at.sort_unstable();
        self.at.dedup();
    }

    /// Whether the text ends within a literal that has matched so far.
    fn is_cut_short_in(&self, token: &Token) -> bool {
        let Token::Literal(literal) = token else { return false };
        self.at.iter().any(|position| literal.starts_with(&self.text[*position..]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(pattern: &str, path: &str, expected: bool) {
        let compiled = Pattern::parse(pattern.as_bytes(), Dialect::Ignore).unwrap();
        assert_eq!(compiled.matches(path.as_bytes()), expected, "`{pattern}` on `{path}`");
    }

    #[test]
    fn double_stars_stand_for_any_directories() {
        check("**", "file", true);
        check("**", "dir/file", true);
        check("**/**", "dir/file", true);
        check("dir/**", "dir/file", true);
        check("dir/**", "dir/dir2/file", true);
        check("dir/**", "dir", false);
        check("dir/**", "other/file", false);
        check("**/dir", "dir", true);
        check("**/dir", "a/b/dir", true);
        check("**/dir", "a/subdir", false);
        check("**/dir2/*", "dir/dir2/file", true);
        check("**/dir2/*", "dir2/a/b", false);
        check("**/dir2/**", "dir/dir2/dir3/file", true);
        check("**/file*txt", "dir/dir/file.txt", true);
        check("**/file*.txt*", "dir/dir/file.txt", true);
        check("**/**/*.txt", "dir/dir/file.txt", true);
        check("**/**/*.txt2", "dir/dir/file.txt", false);
        check("**/*.txt", "file.txt", true);
        check("a/**/b", "a/b", true);
        check("a/**/b", "a/x/y/b", true);
        check("a/**/b", "a/xb", false);
        check("**/foo/bar", "foo/bar", true);
        check("**/foo/bar", "dir/dir2/foo/bar", true);
        check("**/.foo", ".foo", true);
        check("**/.foo", "bar.foo", false);
    }

    #[test]
    fn double_stars_within_a_component_are_as_the_reference_compiles_them() {
        check("**file", "file", true);
        check("**file", "dir/dir/file", true);
        check("**file", "dir/myfile", true);
        check("**fi*", "dir/file", true);
        check("**fi*", "dir/myfile", false);
        check("a**/*.txt", "a/file.txt", true);
        check("a**/*.txt", "a/dir/dir/file.txt", true);
        check("a/*.txt**", "a/file.txt", true);
        check("a**", "a", true);
        check("a**", "abc/d", true);
        check("a**b", "ab", true);
        check("a**b", "ax/yb", false);
        check("a**b", "ax/b", true);
    }

    #[test]
    fn single_wildcards_stay_in_their_component() {
        check("a/*.txt", "a/file.txt", true);
        check("a/*.txt", "a/dir/file.txt", false);
        check("*", "a", true);
        check("*", "a/b", false);
        check(".*", ".foo", true);
        check(".*", "foo", false);
        check("abc?def", "abcZdef", true);
        check("abc?def", "abc/def", false);
        check("abc?def", "abcdef", false);
        check("?", "é", true);
        check("??", "é", false);
        check("a*b*c", "aXbYbZc", true);
        check("a*b*c", "aXbYbZ", false);
    }

    #[test]
    fn classes_hold_ranges_and_never_a_slash() {
        check("a[b-d]e", "ace", true);
        check("a[b-d]e", "ae", false);
        check("a[b-d]e", "aae", false);
        check("a[^b-d]e", "aze", true);
        check("a[^b-d]e", "ace", false);
        check("a[^b-d]e", "a/e", false);
        check("[!a]", "!", true);
        check("[*]", "*", true);
        check("[*]", "x", false);
        check("[\\]]", "]", true);
        check("[α-ω]", "β", true);
        check("[a-bx-z]1", "y1", true);
    }

    #[test]
    fn everything_else_is_itself() {
        check("abc.def", "abcdef", false);
        check("abc.def", "abc.def", true);
        check("abc.def", "abcZdef", false);
        check("a\\\\", "a\\", true);
        check("a\\*b", "a*b", true);
        check("a\\*b", "axb", false);
        check("\\d", "d", true);
        check("a^b", "a^b", true);
        check("a(b)c/def", "a(b)c/def", true);
        check("a(b)c/def", "a(b)c/xyz", false);
        check("a.|)$(}+{bc", "a.|)$(}+{bc", true);
        check("dist/*.whl", "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl", true);
    }

    #[test]
    fn bytes_that_are_not_text_are_one_character_each() {
        let pattern = Pattern::parse(b"a?b", Dialect::Ignore).unwrap();
        assert!(pattern.matches(b"a\xFFb"));
        assert!(!pattern.matches(b"a\xFF\xFFb"));
        assert!(Pattern::parse(b"a\xFF*", Dialect::Ignore).unwrap().matches(b"a\xFFxyz"));
    }

    #[test]
    fn malformed_patterns_are_refused() {
        let error = |text: &[u8]| Pattern::parse(text, Dialect::Ignore).unwrap_err();
        assert_eq!(error(b"a["), PatternError::OpenClass);
        assert_eq!(error(b"[a-z"), PatternError::OpenClass);
        assert_eq!(error(b"[^"), PatternError::OpenClass);
        assert_eq!(error(b"[]a]"), PatternError::BadClass);
        assert_eq!(error(b"[a-]"), PatternError::BadClass);
        assert_eq!(error(b"[-x]"), PatternError::BadClass);
        assert_eq!(error(b"a\\"), PatternError::NothingEscaped);
        assert_eq!(error(b"[\\"), PatternError::NothingEscaped);
    }

    #[test]
    fn time_is_bounded_where_backtracking_would_not_end() {
        let pattern = Pattern::parse("a*".repeat(200).as_bytes(), Dialect::Ignore).unwrap();
        assert!(!pattern.matches(format!("{}b/", "a".repeat(4000)).as_bytes()));
        let pattern = Pattern::parse("**/a".repeat(200).as_bytes(), Dialect::Ignore).unwrap();
        assert!(!pattern.matches("a/".repeat(2000).as_bytes()));
    }

    /// The meaning of a pattern written down as plainly as possible: whether it matches exactly this text.
    fn naive(pattern: &[u8], text: &[u8]) -> bool {
        match pattern {
            [] => text.is_empty(),
            [b'*', b'*'] | [b'*', b'*', b'/'] => true,
            [b'*', b'*', b'/', rest @ ..] | [b'*', b'*', rest @ ..] => {
                let after_slash = (1..=text.len()).filter(|&at| text[at - 1] == b'/');
                [0].into_iter().chain(after_slash).any(|at| naive(rest, &text[at..]))
            }
            [b'*', rest @ ..] => {
                let run = text.iter().take_while(|&&byte| byte != b'/').count();
                (0..=run).any(|at| naive(rest, &text[at..]))
            }
            [b'?', rest @ ..] => matches!(text, [byte, after @ ..] if *byte != b'/' && naive(rest, after)),
            [byte, rest @ ..] => matches!(text, [same, after @ ..] if same == byte && naive(rest, after)),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn a_pattern_matches_what_its_plain_meaning_says(pattern in "a?[ab*?/]{0,8}", text in "[ab/]{0,8}") {
            // A leading `**` before literal text is a suffix: the one rule the plain meaning does not know.
            prop_assume!(!pattern.starts_with("**"));
            let compiled = Pattern::parse(pattern.as_bytes(), Dialect::Ignore).unwrap();
            prop_assert_eq!(compiled.matches(text.as_bytes()), naive(pattern.as_bytes(), text.as_bytes()));
        }

        #[test]
        fn directories_above_a_path_are_asked_at_once(
            pattern in r"([abé*?/]|\[\^?[aé]\]|\\.){1,8}",
            path in "[abé]{1,2}(/[abé]{1,2}){0,3}",
        ) {
            let compiled = Pattern::parse(pattern.as_bytes(), Dialect::Ignore).unwrap();
            let path = path.as_bytes();
            let mut ends = (1..=path.len()).filter(|end| matches!(path.get(*end), None | Some(b'/')));
            let one_by_one = ends.any(|end| compiled.matches(&path[..end]));
            prop_assert_eq!(compiled.matches_or_above(path), one_by_one);
        }

        #[test]
        fn a_directory_is_never_pruned_above_a_match(pattern in "[ab*?/]{1,8}", path in "[ab]{1,2}(/[ab]{1,2}){1,3}") {
            let compiled = Pattern::parse(pattern.as_bytes(), Dialect::Ignore).unwrap();
            if compiled.matches(path.as_bytes()) {
                for (slash, _) in path.match_indices('/') {
                    prop_assert!(compiled.may_match_below(&path.as_bytes()[..slash]), "below `{}`", &path[..slash]);
                }
            }
        }
    }
}
