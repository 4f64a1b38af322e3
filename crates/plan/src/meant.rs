//! What a misspelt name in a Dockerfile was meant to be.

/// How many names are compared: a file of ten thousand stages may have a mistake in each of them.
const MAX_CANDIDATES: usize = 100;

/// The nearest of the names that come first, if one is near enough.
pub(crate) fn nearest<'c>(name: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    suggest::nearest(name, candidates.into_iter().take(MAX_CANDIDATES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_names_are_compared() {
        let mut names = vec!["other"; MAX_CANDIDATES - 1];
        names.push("builder");
        assert_eq!(nearest("bulider", names.iter().copied()), Some("builder"));
        names.insert(0, "other");
        assert_eq!(nearest("bulider", names.iter().copied()), None);
    }
}
