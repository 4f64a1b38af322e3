//! "Did you mean": the nearest of some names.

#![forbid(unsafe_code)]

use rapidfuzz::distance::osa::{Args, BatchComparator};

/// Longest name that is compared, in bytes: nobody misspells a text.
const MAX_NAME_BYTES: usize = 128;

/// The candidate that is nearest to `name`, if one is near enough to be meant: without regard to case, at most one edit for each three
/// characters. An edit is a character more, less or another, or two neighbours that changed places (optimal string alignment).
///
/// Each candidate takes time in proportion to its length, and its bound is the caller's: where a text brings both the names and the mistakes
/// in them, their product is what it costs.
#[must_use]
pub fn nearest<'c>(name: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    if name.is_empty() || name.len() > MAX_NAME_BYTES {
        return None;
    }
    let limit = (name.chars().count() / 3).max(1);
    let lower = |text| str::chars(text).flat_map(char::to_lowercase);
    let comparator = BatchComparator::new(lower(name));
    let within = Args::default().score_cutoff(limit);
    let is_comparable = |candidate: &&str| {
        *candidate != name && !candidate.is_empty() && candidate.len() <= 2 * MAX_NAME_BYTES
    };
    let near = candidates.into_iter().filter(is_comparable);
    // The text decides between equally near ones, so that the answer does not depend on the candidates' order.
    near.filter_map(|candidate| Some((comparator.distance_with_args(lower(candidate), &within)?, candidate)))
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_near_names_are_suggested() {
        let names = ["builder", "runtime", "base", "package.json", "Makefile", "Straße"];
        for (name, expected) in [
            ("bulider", Some("builder")),
            ("BUILDER", Some("builder")),
            ("bas", Some("base")),
            ("base", None),
            ("x", None),
            ("", None),
            ("final", None),
            ("pakage.json", Some("package.json")),
            ("makefile", Some("Makefile")),
            ("STRAßE", Some("Straße")),
        ] {
            assert_eq!(nearest(name, names), expected, "{name}");
        }
    }

    #[test]
    fn of_equally_near_names_the_first_in_order_is_suggested() {
        assert_eq!(nearest("bat", ["cat", "bar"]), Some("bar"));
        assert_eq!(nearest("bat", ["bar", "cat"]), Some("bar"));
    }

    #[test]
    fn a_text_is_no_name() {
        let longest = "x".repeat(MAX_NAME_BYTES);
        let longer = format!("{longest}x");
        assert_eq!(nearest(&longest, [&*longer]), Some(&*longer));
        assert_eq!(nearest(&longer, [&*longest]), None);
    }
}
