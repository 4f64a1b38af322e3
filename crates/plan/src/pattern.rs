//! The patterns of `${V#P}`, `${V%P}` and `${V/P/W}`: `*`, `?` and literals, no brackets.
//!
//! Matching simulates all ways at once, so its cost is the product of the lengths of value and pattern, whatever they hold.
//! Neither `*` nor `?` matches a line feed, as in the reference implementation.

/// Longest pattern that is matched; bounds the cost of one expansion.
const MAX_PATTERN_CHARS: usize = 4096;

/// A compiled pattern.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    tokens: Vec<Token>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Token {
    Literal(char),
    AnyChar,
    AnyText,
}

/// Which of several matches to take.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Length {
    Shortest,
    Longest,
}

/// Why a text is not a pattern.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PatternError {
    /// A backslash before something that needs none.
    #[error("pattern `{pattern}` has `\\{escaped}`, but only `*`, `?`, `\\`, `/` and `}}` can be escaped")]
    Escape {
        /// The pattern.
        pattern: String,
        /// The character behind the backslash.
        escaped: String,
    },
    /// Beyond 4096 characters.
    #[error("pattern of {0} characters is longer than 4096")]
    TooLong(usize),
}

impl Pattern {
    /// Compiles `*`, `?`, literals, and their escapes.
    pub(crate) fn parse(text: &str) -> Result<Self, PatternError> {
        let length = text.chars().count();
        if length > MAX_PATTERN_CHARS {
            return Err(PatternError::TooLong(length));
        }
        let mut tokens = Vec::with_capacity(length);
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '*' => Token::AnyText,
                '?' => Token::AnyChar,
                '\\' => match chars.next() {
                    Some(escaped @ ('*' | '?' | '\\' | '/' | '}')) => Token::Literal(escaped),
                    other => {
                        let escaped = other.map_or_else(String::new, String::from);
                        return Err(PatternError::Escape { pattern: text.to_owned(), escaped });
                    }
                },
                literal => Token::Literal(literal),
            });
        }
        Ok(Self { tokens })
    }

    /// `value` without the prefix that matches, if one does.
    pub(crate) fn strip_prefix<'v>(&self, value: &'v str, length: Length) -> &'v str {
        let matched = self.match_length(value.chars(), length);
        matched.map_or(value, |bytes| &value[bytes..])
    }

    /// `value` without the suffix that matches, if one does.
    pub(crate) fn strip_suffix<'v>(&self, value: &'v str, length: Length) -> &'v str {
        let reversed = Self { tokens: self.tokens.iter().rev().copied().collect() };
        let matched = reversed.match_length(value.chars().rev(), length);
        matched.map_or(value, |bytes| &value[..value.len() - bytes])
    }

    /// `value` with the first match replaced.
    pub(crate) fn replace_first(&self, value: &str, replacement: &str) -> String {
        match self.find(value, 0) {
            Some((start, end)) => [&value[..start], replacement, &value[end..]].concat(),
            None => value.to_owned(),
        }
    }

    /// `value` with all matches replaced; an empty match directly behind another match does not count. `None` if the result has
    /// more than `max_bytes`.
    pub(crate) fn replace_all(&self, value: &str, replacement: &str, max_bytes: usize) -> Option<String> {
        let mut result = String::new();
        let mut copied = 0;
        let mut search = 0;
        while let Some((start, end)) = self.find(value, search) {
            result.push_str(&value[copied..start]);
            if end > copied || start == 0 {
                result.push_str(replacement);
            }
            if result.len() > max_bytes {
                return None;
            }
            copied = end;
            search = if end > search {
                end
            } else if let Some(next) = value[search..].chars().next() {
                search + next.len_utf8()
            } else {
                break;
            };
        }
        result.push_str(&value[copied..]);
        (result.len() <= max_bytes).then_some(result)
    }

    /// How many bytes at the beginning of `chars` match.
    fn match_length(&self, chars: impl Iterator<Item = char>, length: Length) -> Option<usize> {
        let mut states = vec![false; self.tokens.len() + 1];
        states[0] = true;
        let any = |from: &bool, to: &mut bool| *to |= *from;
        self.skip_stars(&mut states, any);
        let mut matched = None;
        let mut bytes = 0;
        let mut chars = chars;
        loop {
            if states[self.tokens.len()] {
                matched = Some(bytes);
                if length == Length::Shortest {
                    return matched;
                }
            }
            let Some(c) = chars.next() else { return matched };
            bytes += c.len_utf8();
            states = self.advance(&states, c, any);
            if !states.contains(&true) {
                return matched;
            }
        }
    }

    /// The leftmost match at or after `from`, of several there the longest. Each state remembers the leftmost start of the ways that
    /// lead to it.
    fn find(&self, value: &str, from: usize) -> Option<(usize, usize)> {
        let leftmost = |from: &Option<usize>, to: &mut Option<usize>| *to = min_start(*from, *to);
        let mut states: Vec<Option<usize>> = vec![None; self.tokens.len() + 1];
        let mut found: Option<(usize, usize)> = None;
        let mut chars = value[from..].chars();
        let mut position = from;
        loop {
            if found.is_none() {
                states[0] = min_start(states[0], Some(position));
                self.skip_stars(&mut states, leftmost);
            }
            if let Some(start) = states[self.tokens.len()]
                && found.is_none_or(|(best, _)| start <= best)
            {
                found = Some((start, position));
            }
            let could_improve = |state: &Option<usize>| {
                state.is_some_and(|start| found.is_none_or(|(best, _)| start <= best))
            };
            if found.is_some() && !states.iter().any(could_improve) {
                return found;
            }
            let Some(c) = chars.next() else { return found };
            position += c.len_utf8();
            states = self.advance(&states, c, leftmost);
        }
    }

    /// The states after one more character, each the merger of all that lead to it.
    fn advance<S: Clone + Default>(&self, states: &[S], c: char, merge: impl Fn(&S, &mut S)) -> Vec<S> {
        let mut next = vec![S::default(); states.len()];
        for (index, token) in self.tokens.iter().enumerate() {
            match token {
                Token::Literal(literal) if *literal == c => merge(&states[index], &mut next[index + 1]),
                Token::AnyChar if c != '\n' => merge(&states[index], &mut next[index + 1]),
                Token::AnyText if c != '\n' => merge(&states[index], &mut next[index]),
                _ => {}
            }
        }
        self.skip_stars(&mut next, merge);
        next
    }

    /// A `*` may match nothing, so the state before it leads to the one behind it.
    fn skip_stars<S: Clone>(&self, states: &mut [S], merge: impl Fn(&S, &mut S)) {
        for (index, token) in self.tokens.iter().enumerate() {
            if *token == Token::AnyText {
                let from = states[index].clone();
                merge(&from, &mut states[index + 1]);
            }
        }
    }
}

fn min_start(a: Option<usize>, b: Option<usize>) -> Option<usize> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    #[track_caller]
    fn check_strip(value: &str, pattern: &str, expected: Expect) {
        let pattern = Pattern::parse(pattern).unwrap();
        expected.assert_eq(&format!(
            "# {} ## {} % {} %% {}",
            pattern.strip_prefix(value, Length::Shortest),
            pattern.strip_prefix(value, Length::Longest),
            pattern.strip_suffix(value, Length::Shortest),
            pattern.strip_suffix(value, Length::Longest),
        ));
    }

    #[track_caller]
    fn check_replace(value: &str, pattern: &str, expected: Expect) {
        let pattern = Pattern::parse(pattern).unwrap();
        expected.assert_eq(&format!(
            "/ {} // {}",
            pattern.replace_first(value, "<>"),
            pattern.replace_all(value, "<>", 1000).unwrap()
        ));
    }

    #[test]
    fn stripping_takes_the_shortest_or_the_longest() {
        check_strip("foobarbaz", "f*b", expect!["# arbaz ## az % foobarbaz %% foobarbaz"]);
        check_strip("foobarbaz", "b*", expect!["# foobarbaz ## foobarbaz % foobar %% foo"]);
        check_strip("a.b.c", "*.", expect!["# b.c ## c % a.b.c %% a.b.c"]);
        check_strip("a.b.c", ".*", expect!["# a.b.c ## a.b.c % a.b %% a"]);
        check_strip("abc", "?", expect!["# bc ## bc % ab %% ab"]);
        check_strip("abc", "*", expect!["# abc ##  % abc %% "]);
        check_strip("äöü", "?", expect!["# öü ## öü % äö %% äö"]);
        check_strip("abc", "", expect!["# abc ## abc % abc %% abc"]);
        check_strip("a*b", r"a\*", expect!["# b ## b % a*b %% a*b"]);
        check_strip("a[b", "a[", expect!["# b ## b % a[b %% a[b"]);
    }

    #[test]
    fn line_feeds_stop_stars() {
        check_strip("a\nb", "*", expect!["# a\nb ## \nb % a\nb %% a\n"]);
        check_strip("a\nb", "a?", expect!["# a\nb ## a\nb % a\nb %% a\nb"]);
    }

    #[test]
    fn replacing_takes_the_leftmost_longest() {
        check_replace("foobarbaz", "ba", expect!["/ foo<>rbaz // foo<>r<>z"]);
        check_replace("foobarbaz", "b?", expect!["/ foo<>rbaz // foo<>r<>z"]);
        check_replace("foobarbaz", "o*b", expect!["/ f<>az // f<>az"]);
        check_replace("abc", "*", expect!["/ <> // <>"]);
        check_replace("abc", "", expect!["/ <>abc // <>a<>b<>c<>"]);
        check_replace("", "*", expect!["/ <> // <>"]);
        check_replace("abc", "x", expect!["/ abc // abc"]);
        check_replace("aab", "ab", expect!["/ a<> // a<>"]);
        check_replace("a/b/c", r"\/", expect!["/ a<>b/c // a<>b<>c"]);
        check_replace("xay\nxby", "x*y", expect!["/ <>\nxby // <>\n<>"]);
    }

    #[test]
    fn odd_escapes_are_refused() {
        assert_eq!(
            Pattern::parse(r"a\d").unwrap_err().to_string(),
            r"pattern `a\d` has `\d`, but only `*`, `?`, `\`, `/` and `}` can be escaped"
        );
        assert_eq!(Pattern::parse(&"a".repeat(5000)).unwrap_err(), PatternError::TooLong(5000));
    }
}
