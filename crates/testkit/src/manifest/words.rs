//! Splitting a manifest line into words: blanks separate, quotes hold together, escapes give any byte.

use anyhow::{Context, Result, bail};

/// Splits `line`; a quoted part may stand anywhere in a word (`content="a b"`).
pub(super) fn split(line: &str) -> Result<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut bytes = line.bytes().peekable();
    while bytes.next_if(u8::is_ascii_whitespace).is_some() {}
    while bytes.peek().is_some() {
        words.push(word(&mut bytes)?);
        while bytes.next_if(u8::is_ascii_whitespace).is_some() {}
    }
    Ok(words)
}

fn word(bytes: &mut impl Iterator<Item = u8>) -> Result<Vec<u8>> {
    let mut word = Vec::new();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => quoted(bytes, &mut word)?,
            byte if byte.is_ascii_whitespace() => break,
            byte => word.push(byte),
        }
    }
    Ok(word)
}

fn quoted(bytes: &mut impl Iterator<Item = u8>, word: &mut Vec<u8>) -> Result<()> {
    loop {
        match bytes.next().context("a quote is not closed")? {
            b'"' => return Ok(()),
            b'\\' => word.push(escape(bytes)?),
            byte => word.push(byte),
        }
    }
}

fn escape(bytes: &mut impl Iterator<Item = u8>) -> Result<u8> {
    Ok(match bytes.next().context("an escape is not complete")? {
        b'n' => b'\n',
        b't' => b'\t',
        b'\\' => b'\\',
        b'"' => b'"',
        b'x' => hex_digit(bytes)? << 4 | hex_digit(bytes)?,
        other => bail!("unknown escape `\\{}`", char::from(other)),
    })
}

fn hex_digit(bytes: &mut impl Iterator<Item = u8>) -> Result<u8> {
    let digit = bytes.next().map(char::from).and_then(|digit| digit.to_digit(16));
    Ok(u8::try_from(digit.context("`\\x` needs two hexadecimal digits")?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_unquoted_and_unescaped() {
        let words = split("  file \"a b\"  content=\"x\\n\\xff\\\"\" tail ").unwrap();
        assert_eq!(
            words,
            [b"file".to_vec(), b"a b".to_vec(), b"content=x\n\xff\"".to_vec(), b"tail".to_vec()]
        );
    }

    #[test]
    fn broken_quotes_and_escapes_are_refused() {
        for line in ["file \"a", "file \"\\", "file \"\\q\"", "file \"\\x4\""] {
            assert!(split(line).is_err(), "{line}");
        }
    }
}
