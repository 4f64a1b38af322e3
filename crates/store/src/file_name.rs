//! Any text as one file name: injective, readable, and never longer than a file name may be.
//!
//! Letters, digits and `. _ - : @ =` stand for themselves (a leading dot excepted), `/` becomes `+`, every other byte `%XX`. A
//! name that would get too long keeps its beginning and ends in `~` and the text's sha256; since `~` is otherwise escaped, a
//! shortened name is never the name of another text.

use oci::Digest;

/// Longest escaped form that is used as it is. Leaves room, below the 255 bytes of a file name, for a suffix.
const MAX_PLAIN_BYTES: usize = 180;

/// How much of a long text stays readable.
const KEPT_BYTES: usize = 100;

/// The file name that stands for `text`.
pub(crate) fn encode(text: &str) -> String {
    let mut name = String::with_capacity(text.len() + 8);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'/' => name.push('+'),
            b'.' if at == 0 => name.push_str("%2E"),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' | b':' | b'@' | b'=' => {
                name.push(char::from(byte));
            }
            _ => name.push_str(&format!("%{byte:02X}")),
        }
    }
    if name.is_empty() {
        return "%".to_owned();
    }
    if name.len() <= MAX_PLAIN_BYTES {
        return name;
    }
    format!("{}~{}", &name[..KEPT_BYTES], Digest::of(text).hex())
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    #[track_caller]
    fn check(text: &str, expected: Expect) {
        expected.assert_eq(&encode(text));
    }

    #[test]
    fn names_stay_readable() {
        check("docker.io/library/alpine:3.20", expect!["docker.io+library+alpine:3.20"]);
        check("localhost:5000/a_b/c-d:x", expect!["localhost:5000+a_b+c-d:x"]);
        check("/root/.cache/go build", expect!["+root+.cache+go%20build"]);
        check("", expect!["%"]);
        check("..", expect!["%2E."]);
        check("ä+~%", expect!["%C3%A4%2B%7E%25"]);
        let shortened = encode(&"x".repeat(300));
        expect!["xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx~0d4e2ca9e9cbced7a7a5380eb29e1a3783b9b6d0db72de36a1051038e1c1fbc7"].assert_eq(&shortened);
    }

    /// The inverse, which exists for every name that was not shortened.
    fn decode(name: &str) -> Option<String> {
        if name.contains('~') {
            return None;
        }
        if name == "%" {
            return Some(String::new());
        }
        let mut bytes = Vec::new();
        let mut rest = name.as_bytes();
        while let [first, tail @ ..] = rest {
            rest = tail;
            match first {
                b'+' => bytes.push(b'/'),
                b'%' => {
                    let (hex, tail) = rest.split_at(2);
                    bytes.push(u8::from_str_radix(std::str::from_utf8(hex).unwrap(), 16).unwrap());
                    rest = tail;
                }
                other => bytes.push(*other),
            }
        }
        Some(String::from_utf8(bytes).unwrap())
    }

    proptest! {
        #[test]
        fn every_text_has_its_own_file_name(text in any::<String>()) {
            let name = encode(&text);
            prop_assert!(name.len() <= MAX_PLAIN_BYTES && !name.is_empty());
            prop_assert!(!name.starts_with('.') && !name.contains(['/', '\0']));
            match decode(&name) {
                Some(decoded) => prop_assert_eq!(decoded, text),
                None => prop_assert!(name.ends_with(&Digest::of(&text).hex())),
            }
        }

        #[test]
        fn long_texts_that_begin_alike_stay_apart(tail in "[a-z]{1,9}", other in "[a-z]{1,9}") {
            let long = |tail: &str| encode(&format!("{}{tail}", "a/".repeat(120)));
            prop_assert_eq!(long(&tail) == long(&other), tail == other);
        }
    }
}
