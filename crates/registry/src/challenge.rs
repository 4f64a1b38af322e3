//! `WWW-Authenticate` (RFC 9110, section 11.6.1): how a registry says what it wants to see.
//!
//! A header may hold several challenges, and there may be several headers. We know two schemes and prefer `Bearer`, which does not show the
//! password to the registry.

/// What we can answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Challenge {
    /// Name and password with each request.
    Basic,
    /// A token from the server at `realm`.
    Bearer { realm: String, service: Option<String> },
}

impl Challenge {
    /// The best challenge among the values of all `WWW-Authenticate` headers.
    pub(crate) fn choose<'a>(headers: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let mut basic = None;
        for (scheme, parameters) in headers.into_iter().flat_map(parse) {
            let parameter = |name: &str| {
                parameters
                    .iter()
                    .find(|(key, _)| key.eq_ignore_ascii_case(name))
                    .map(|(_, value)| value.clone())
            };
            if scheme.eq_ignore_ascii_case("bearer")
                && let Some(realm) = parameter("realm")
            {
                return Some(Self::Bearer { realm, service: parameter("service") });
            }
            if scheme.eq_ignore_ascii_case("basic") {
                basic = Some(Self::Basic);
            }
        }
        basic
    }
}

type Parameters = Vec<(String, String)>;

/// Splits a header into challenges. What does not fit the grammar is passed over: a stranger wrote it.
fn parse(header: &str) -> Vec<(String, Parameters)> {
    let mut challenges: Vec<(String, Parameters)> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let (name, after) = take_token(rest);
        if name.is_empty() {
            // Skip what cannot begin a token, so that the loop always moves on.
            let Some(skipped) = rest.chars().next() else { return challenges };
            rest = &rest[skipped.len_utf8()..];
            continue;
        }
        let value = after.trim_start_matches([' ', '\t']).strip_prefix('=');
        match (value, challenges.last_mut()) {
            (Some(value), Some((_, parameters))) => {
                let (value, after) = take_value(value.trim_start_matches([' ', '\t']));
                parameters.push((name.to_owned(), value));
                rest = after;
            }
            (Some(_), None) => rest = after,
            (None, _) => {
                challenges.push((name.to_owned(), Vec::new()));
                rest = after;
            }
        }
    }
}

fn take_token(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)))
        .unwrap_or(text.len());
    text.split_at(end)
}

/// A token or a quoted string; an unclosed quote runs to the end.
fn take_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        // Laxer than a token: some registries leave URLs unquoted.
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    #[track_caller]
    fn check(headers: &[&str], expected: Expect) {
        let found = Challenge::choose(headers.iter().copied());
        expected.assert_eq(&match found {
            None => "none".to_owned(),
            Some(Challenge::Basic) => "basic".to_owned(),
            Some(Challenge::Bearer { realm, service }) => {
                format!("{realm} for {}", service.as_deref().unwrap_or("-"))
            }
        });
    }

    #[test]
    fn challenges_of_known_registries_are_understood() {
        check(
            &[r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io""#],
            expect!["https://auth.docker.io/token for registry.docker.io"],
        );
        check(
            &[r#"Bearer realm="https://r.test/t",service="r.test",scope="repository:a/b:pull,push""#],
            expect!["https://r.test/t for r.test"],
        );
        check(&[r#"Basic realm="Registry Realm""#], expect!["basic"]);
        check(&["basic"], expect!["basic"]);
        check(&[r#"Basic realm="x", bearer REALM="https://r.test/t""#], expect!["https://r.test/t for -"]);
        check(&["Negotiate YII=", r#"Bearer realm="https://r.test/t""#], expect!["https://r.test/t for -"]);
        check(&[r#"Bearer realm=https://r.test/t,service=s"#], expect!["https://r.test/t for s"]);
        check(&[r#"Bearer realm="a\"b\\c""#], expect![r#"a"b\c for -"#]);
    }

    #[test]
    fn what_is_not_a_challenge_is_none() {
        for header in [
            "",
            ",,,",
            "Bearer",
            "Negotiate",
            "=x",
            "Bearer service=\"s\"",
            "\u{fffd}\"",
            "Digest realm=\"x\"",
        ] {
            check(&[header], expect!["none"]);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_to_its_end(text in ".{0,200}") {
            parse(&text);
        }

        #[test]
        fn quoted_parameters_come_back(realm in "[^\\x00-\\x1f]{1,60}", service in "[^\\x00-\\x1f]{0,60}") {
            let quote = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
            let header = format!("Bearer realm=\"{}\" , service=\"{}\"", quote(&realm), quote(&service));
            let expected = Challenge::Bearer { realm, service: Some(service) };
            prop_assert_eq!(Challenge::choose([header.as_str()]), Some(expected));
        }
    }
}
