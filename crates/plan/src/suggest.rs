//! "Did you mean": the nearest of some names.

/// The candidate that is nearest to `name`, if one is near enough to be meant: at most one edit for each three characters.
pub(crate) fn nearest<'c>(name: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let lower = name.to_lowercase();
    let limit = (name.chars().count() / 3).max(1);
    let distance = |candidate: &str| strsim::damerau_levenshtein(&lower, &candidate.to_lowercase());
    let near = candidates.into_iter().filter(|candidate| *candidate != name && !candidate.is_empty());
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
    }
}
