//! Benches of rbuild.
