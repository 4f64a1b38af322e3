//! Options whose value is a list of fields, as in `id=key,src=file`.

use csv::ReaderBuilder;

/// The fields between the commas. One in which there is a comma stands in double quotes (RFC 4180), as it does for buildx.
pub(crate) fn split(text: &str) -> Vec<String> {
    let mut reader = ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
    let record = reader.records().next().and_then(Result::ok).unwrap_or_default();
    record.iter().map(ToOwned::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_may_hold_commas() {
        assert_eq!(split("type=oci,dest=a b"), ["type=oci", "dest=a b"]);
        assert_eq!(split(r#"type=oci,"name=a,b",dest=x"#), ["type=oci", "name=a,b", "dest=x"]);
        assert_eq!(split(r#""say ""it"""#), [r#"say "it""#]);
        assert_eq!(split("a,,b"), ["a", "", "b"]);
        assert_eq!(split(""), Vec::<String>::new());
    }
}
