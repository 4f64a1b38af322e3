//! "Did you mean": the nearest of some names.

/// Longest name that is compared, in bytes: comparing takes the square of the length, and nobody misspells a text.
const MAX_NAME_BYTES: usize = 64;

/// How many candidates are compared: a file of ten thousand stages may have a mistake in each of them.
const MAX_CANDIDATES: usize = 100;

/// The candidate that is nearest to `name`, if one is near enough to be meant: at most one edit for each three characters.
pub(crate) fn nearest<'c>(name: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    if name.len() > MAX_NAME_BYTES {
        return None;
    }
    let lower = name.to_lowercase();
    let limit = (name.chars().count() / 3).max(1);
    // Each character more or less is an edit.
    let is_comparable = |candidate: &&str| {
        *candidate != name
            && !candidate.is_empty()
            && candidate.len() <= 2 * MAX_NAME_BYTES
            && candidate.chars().count().abs_diff(name.chars().count()) <= limit
    };
    let near = candidates.into_iter().take(MAX_CANDIDATES).filter(is_comparable);
    let distance = |candidate: &str| strsim::osa_distance(&lower, &candidate.to_lowercase());
    // The text decides between equally near ones, so that the answer does not depend on the candidates' order.
    near.map(|candidate| (distance(candidate), candidate))
        .filter(|(d, _)| *d <= limit)
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_near_names_are_suggested() {
        let names = ["builder", "runtime", "base"];
        for (name, expected) in [
            ("bulider", Some("builder")),
            ("BUILDER", Some("builder")),
            ("bas", Some("base")),
            ("base", None),
            ("x", None),
            ("final", None),
        ] {
            assert_eq!(nearest(name, names), expected, "{name}");
        }
        let long = "x".repeat(MAX_NAME_BYTES);
        assert_eq!(nearest(&format!("{long}x"), [&*long]), None, "it is not compared");
    }
}
