//! Texts that come from elsewhere, read in every way there is: whatever the bytes are, nothing panics, and nothing takes longer than their
//! length allows.
//!
//! Each function is a target of `cargo xtask fuzz`, which drives it with libFuzzer, and of the smoke tests below. What a person types on the
//! command line is a fourth target; it lies in `rbuild`, which nobody imports. What a target finds becomes a seed in `testdata/fuzz`, and so
//! a part of every test run.

#![forbid(unsafe_code)]

mod dockerfile;
mod ignore;
mod reference;

pub use dockerfile::dockerfile;
pub use ignore::ignore;
pub use reference::reference;

#[cfg(test)]
mod extremes;

#[cfg(test)]
mod tests {
    use testkit::fuzz::smoke;

    #[test]
    fn dockerfiles_are_read() {
        smoke("dockerfile", 1500, &crate::dockerfile);
    }

    #[test]
    fn ignore_files_are_read() {
        smoke("ignore", 3000, &crate::ignore);
    }

    #[test]
    fn references_are_read() {
        smoke("reference", 10_000, &crate::reference);
    }
}
