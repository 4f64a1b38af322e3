//! `--annotation [TYPE[PLATFORM],…:]KEY=VALUE`, and the same as fields of an `--output`.

use image::export::{Annotation, AnnotationOf};

use crate::build::request;
use crate::failure::Failure;

const HELP: &str = "write it as KEY=VALUE or TYPE:KEY=VALUE, where TYPE is manifest, index, manifest-descriptor or index-descriptor, \
     the first and the third with [OS/ARCH] if they are for one platform";

/// What one `--annotation` says, for each type that it names.
pub(crate) fn annotations(text: &str) -> Result<Vec<Annotation>, Failure> {
    let wrong = |why: &str| {
        let title = format!("`--annotation {text}` {why}");
        Failure::usage(title, HELP)
    };
    let (key, value) = text.split_once('=').ok_or_else(|| wrong("has no value"))?;
    let (types, key) = key.split_once(':').unwrap_or(("manifest", key));
    if key.is_empty() {
        return Err(wrong("has no key"));
    }
    let of = |text: &str| of(text).ok_or_else(|| wrong(&format!("is of an unknown type `{text}`")))?;
    let annotation = |text| Ok(Annotation { of: of(text)?, key: key.to_owned(), value: value.to_owned() });
    types.split(',').map(annotation).collect()
}

/// `annotation[-TYPE][[PLATFORM]].KEY`; `None` if the field is none of these.
pub(super) fn of_field(name: &str, value: &str) -> Option<Result<Annotation, Failure>> {
    let rest = name.strip_prefix("annotation")?;
    let (meant, key) = rest.split_once('.').filter(|(_, key)| !key.is_empty())?;
    let text = match meant.strip_prefix('-') {
        Some(text) => text.to_owned(),
        None => format!("manifest{meant}"),
    };
    let annotation = |of| Annotation { of, key: key.to_owned(), value: value.to_owned() };
    of(&text).map(|of| of.map(annotation))
}

/// `TYPE` or `TYPE[PLATFORM]`; `None` for other types.
fn of(text: &str) -> Option<Result<AnnotationOf, Failure>> {
    let (kind, platform) = match text.strip_suffix(']').and_then(|text| text.split_once('[')) {
        Some((kind, platform)) => (kind, Some(request::platform(platform))),
        None => (text, None),
    };
    match (kind, platform) {
        ("manifest", platform) => Some(platform.transpose().map(AnnotationOf::Manifest)),
        ("manifest-descriptor", platform) => Some(platform.transpose().map(AnnotationOf::ManifestDescriptor)),
        ("index", None) => Some(Ok(AnnotationOf::Index)),
        ("index-descriptor", None) => Some(Ok(AnnotationOf::IndexDescriptor)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn show(annotation: &Annotation) -> String {
        let of = match &annotation.of {
            AnnotationOf::Manifest(None) => "manifest".to_owned(),
            AnnotationOf::Manifest(Some(platform)) => format!("manifest of {platform}"),
            AnnotationOf::ManifestDescriptor(None) => "descriptor".to_owned(),
            AnnotationOf::ManifestDescriptor(Some(platform)) => format!("descriptor of {platform}"),
            AnnotationOf::Index => "index".to_owned(),
            AnnotationOf::IndexDescriptor => "descriptor of the index".to_owned(),
        };
        format!("{of}: {}={}", annotation.key, annotation.value)
    }

    #[track_caller]
    fn check(text: &str, expected: Expect) {
        let shown = match annotations(text) {
            Ok(found) => found.iter().map(show).collect::<Vec<_>>().join("; "),
            Err(failure) => failure.diagnostics[0].title.clone(),
        };
        expected.assert_eq(&shown);
    }

    #[test]
    fn annotations_are_read_as_buildx_reads_them() {
        check("a=b=c", expect!["manifest: a=b=c"]);
        check("org.x/y=", expect!["manifest: org.x/y="]);
        check("index:a=b:c", expect!["index: a=b:c"]);
        check(
            "index,manifest-descriptor[linux/arm64]:a=b",
            expect!["index: a=b; descriptor of linux/arm64: a=b"],
        );
        check(
            "manifest[linux/amd64],index-descriptor:a=b",
            expect!["manifest of linux/amd64: a=b; descriptor of the index: a=b"],
        );
        check(
            "index[linux/amd64]:a=b",
            expect!["`--annotation index[linux/amd64]:a=b` is of an unknown type `index[linux/amd64]`"],
        );
        check(
            "manifest[?]:a=b",
            expect!["`--platform ?`: `?` in platform `?` may only have letters, digits, `_`, `.` and `-`"],
        );
        check("layer:a=b", expect!["`--annotation layer:a=b` is of an unknown type `layer`"]);
        check("a", expect!["`--annotation a` has no value"]);
        check("index:=b", expect!["`--annotation index:=b` has no key"]);
    }

    #[test]
    fn annotations_are_fields_of_outputs_too() {
        let check = |name: &str, expected: Option<&str>| {
            let found = of_field(name, "v").and_then(Result::ok);
            assert_eq!(found.as_ref().map(show).as_deref(), expected, "{name}");
        };
        check("annotation.a.b", Some("manifest: a.b=v"));
        check("annotation-index.a", Some("index: a=v"));
        check("annotation[linux/arm64].a", Some("manifest of linux/arm64: a=v"));
        check("annotation-manifest-descriptor[linux/arm64].a", Some("descriptor of linux/arm64: a=v"));
        check("annotation-other.a", None);
        check("annotation.", None);
        check("annotations.a", None);
    }
}
