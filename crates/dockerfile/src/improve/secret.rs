//! Secrets written out in a command. Only forms that mean nothing else are looked for, and never a value with a variable in it.

use std::ops::Range;

/// A secret, and where it stands.
#[derive(Debug)]
pub(super) struct Found {
    /// What it looks like, for "this looks like …".
    pub(super) kind: &'static str,
    pub(super) range: Range<usize>,
}

/// What tokens of well-known services begin with, how many characters follow at least, and what they are.
const TOKENS: [(&str, usize, &str); 13] = [
    ("AIza", 35, "a Google API key"),
    ("AKIA", 16, "an AWS access key"),
    ("ghp_", 36, "a GitHub token"),
    ("gho_", 36, "a GitHub token"),
    ("ghs_", 36, "a GitHub token"),
    ("ghu_", 36, "a GitHub token"),
    ("github_pat_", 22, "a GitHub token"),
    ("glpat-", 20, "a GitLab token"),
    ("hf_", 34, "a Hugging Face token"),
    ("npm_", 36, "an npm token"),
    ("sk_live_", 16, "a Stripe key"),
    ("xoxb-", 20, "a Slack token"),
    ("xoxp-", 20, "a Slack token"),
];

/// Options whose value is a secret.
const OPTIONS: [&str; 6] = ["--api-key", "--apikey", "--auth-token", "--passwd", "--password", "--token"];

/// The ends of variable names whose value is a secret.
const NAMES: [&str; 5] = ["apikey", "passwd", "password", "secret", "token"];

/// The first secret of a text.
pub(super) fn find(text: &str) -> Option<Found> {
    private_key(text)
        .or_else(|| TOKENS.iter().find_map(|token| of_service(text, *token)))
        .or_else(|| in_url(text))
        .or_else(|| in_header(text))
        .or_else(|| in_words(text))
}

fn private_key(text: &str) -> Option<Found> {
    let start = text.find("-----BEGIN ")?;
    let line = text[start..].lines().next()?;
    let end = line.find("PRIVATE KEY-----")? + "PRIVATE KEY-----".len();
    Some(Found { kind: "a private key", range: start..start + end })
}

fn of_service(text: &str, (prefix, length, kind): (&str, usize, &'static str)) -> Option<Found> {
    let is_token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    text.match_indices(prefix).find_map(|(start, _)| {
        if text[..start].chars().next_back().is_some_and(is_token) {
            return None;
        }
        let rest = &text[start + prefix.len()..];
        let end = rest.find(|c| !is_token(c)).unwrap_or(rest.len());
        (end >= length).then_some(Found { kind, range: start..start + prefix.len() + end })
    })
}

/// `https://user:password@host`.
fn in_url(text: &str) -> Option<Found> {
    text.match_indices("://").find_map(|(at, separator)| {
        let start = at + separator.len();
        let rest = &text[start..];
        let end = rest.find(|c: char| c.is_whitespace() || "/?#\"'".contains(c)).unwrap_or(rest.len());
        let (credentials, _) = rest[..end].rsplit_once('@')?;
        let (user, password) = credentials.split_once(':')?;
        let range = start + user.len() + 1..start + credentials.len();
        is_literal(password).then_some(Found { kind: "a password", range })
    })
}

/// `Authorization: Bearer token`.
fn in_header(text: &str) -> Option<Found> {
    const HEADER: &str = "authorization:";
    let start = text.to_ascii_lowercase().find(HEADER)? + HEADER.len();
    let rest = &text[start..];
    let end = rest.find(['"', '\'', '\n']).unwrap_or(rest.len());
    let (scheme, credentials) = rest[..end].trim().split_once(' ')?;
    let known = ["basic", "bearer", "token"].iter().any(|known| known.eq_ignore_ascii_case(scheme));
    let at = start + rest.find(credentials)?;
    (known && is_literal(credentials) && credentials.len() >= 8)
        .then_some(Found { kind: "the credentials of a request", range: at..at + credentials.len() })
}

/// `--password=x`, `--password x`, `DB_PASSWORD=x`.
fn in_words(text: &str) -> Option<Found> {
    let mut is_value = false;
    for word in text.split_whitespace() {
        let start = word.as_ptr() as usize - text.as_ptr() as usize;
        let word = word.trim_end_matches([';', '\\']);
        if std::mem::take(&mut is_value) && !word.starts_with('-') && is_literal(unquoted(word)) {
            return Some(Found { kind: "a password", range: start..start + word.len() });
        }
        let Some((name, value)) = word.split_once('=') else {
            is_value = OPTIONS.contains(&word);
            continue;
        };
        if (OPTIONS.contains(&name) || names_secret(name)) && is_literal(unquoted(value)) {
            return Some(Found { kind: "a password", range: start..start + word.len() });
        }
    }
    None
}

fn names_secret(name: &str) -> bool {
    let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let last = name.rsplit('_').next().unwrap_or_default();
    is_name && NAMES.iter().any(|secret| secret.eq_ignore_ascii_case(last))
}

fn unquoted(word: &str) -> &str {
    word.trim_matches(['"', '\''])
}

/// Whether a value is a secret itself: no variable, no substitution, no file, no blank to be filled in, and not a mere word.
fn is_literal(value: &str) -> bool {
    const WORDS: [&str; 8] = ["true", "false", "none", "null", "no", "yes", "password", "stdin"];
    value.len() >= 4
        && !value.contains(['$', '`', '<', '>', '*', '{'])
        && !value.starts_with(['/', '.', '@', '-'])
        && !WORDS.iter().any(|word| word.eq_ignore_ascii_case(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<&str>) {
        assert_eq!(find(text).map(|found| &text[found.range]), expected, "{text}");
    }

    #[test]
    fn what_can_only_be_a_secret_is_found() {
        let token = format!("ghp_{}", "a1".repeat(18));
        check(&format!("curl -H x:{token} y"), Some(&token));
        check("pip install --index-url=https://me:s3cr3t@pypi.example.com/simple x", Some("s3cr3t"));
        check("curl -H 'Authorization: Bearer abcdefgh1234' x", Some("abcdefgh1234"));
        check("mysql --password=hunter2", Some("--password=hunter2"));
        check("login --token hunter2 && x", Some("hunter2"));
        check("export DB_PASSWORD='hunter2'; run", Some("DB_PASSWORD='hunter2'"));
        check("echo '-----BEGIN RSA PRIVATE KEY-----\nMII'", Some("-----BEGIN RSA PRIVATE KEY-----"));
    }

    #[test]
    fn variables_files_and_other_words_are_no_secrets() {
        for text in [
            "curl https://me:$PASS@example.com",
            "curl https://example.com:8080/a@b",
            "git clone ssh://git@example.com/x",
            "mysql --password=$(cat /run/secrets/db)",
            "docker login --password-stdin",
            "login --token-file /run/secrets/x --password --verbose",
            "DB_PASSWORD=/run/secrets/db run",
            "TOKEN_TYPE=bearer run",
            "curl -H \"Authorization: Bearer ${TOKEN}\" x",
            "ghp_short AKIAnot",
        ] {
            check(text, None);
        }
    }
}
