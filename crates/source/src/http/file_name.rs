//! What a fetched file is called.

use web::Url;

/// The name of a URL that ends in no name, as the reference builder has it.
const UNNAMED: &str = "__unnamed__";

/// The last component of the path, unescaped: what ADD calls the file (BuildKit; what a server says about it does not count there).
#[must_use]
pub fn file_name(url: &Url) -> String {
    let path = url.uri().path().trim_end_matches('/');
    let last = path.rsplit('/').next().unwrap_or_default();
    let name = String::from_utf8(unescape(last)).unwrap_or_default();
    // Unescaped, it may have become a path.
    let name = name.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let is_name = !matches!(name, "" | "." | "..") && !name.contains('\0');
    if is_name { name.to_owned() } else { UNNAMED.to_owned() }
}

fn unescape(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut unescaped = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        let value = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        unescaped.push(value.unwrap_or(bytes[at]));
        at += if value.is_some() { 3 } else { 1 };
    }
    unescaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_the_last_component() {
        for (path, expected) in [
            ("/a/b.tar.gz?x=/y", "b.tar.gz"),
            ("/a/b/", "b"),
            ("/", "__unnamed__"),
            ("", "__unnamed__"),
            ("/a%20b", "a b"),
            ("/a%2Fb", "b"),
            ("/..%2f..%2fetc", "etc"),
            ("/%2e%2e", "__unnamed__"),
            ("/100%", "100%"),
            ("/%ff", "__unnamed__"),
        ] {
            let url = Url::parse(&format!("https://example.com{path}")).unwrap();
            assert_eq!(file_name(&url), expected, "{path}");
        }
    }
}
