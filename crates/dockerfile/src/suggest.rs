//! The nearest name to a misspelt one.

/// The candidate that `text` was probably meant to be, without regard to case; `None` if none is near.
pub(crate) fn nearest<'a>(text: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let text = text.to_lowercase();
    // A third of the letters may be wrong, at least one; longer texts than any name are not compared at all, since the
    // distance takes quadratic time.
    let allowed = (text.chars().count() / 3).max(1);
    if text.is_empty() || text.len() > 64 {
        return None;
    }
    candidates
        .iter()
        .map(|&candidate| (strsim::damerau_levenshtein(&text, &candidate.to_lowercase()), candidate))
        .filter(|&(distance, _)| distance <= allowed)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        let names = ["COPY", "CMD", "RUN", "WORKDIR"];
        assert_eq!(nearest("copu", &names), Some("COPY"));
        assert_eq!(nearest("WROKDIR", &names), Some("WORKDIR"));
        assert_eq!(nearest("apt-get", &names), None);
        assert_eq!(nearest("", &names), None);
        assert_eq!(nearest(&"RUN".repeat(1000), &names), None);
    }
}
