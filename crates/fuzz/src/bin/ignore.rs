//! libFuzzer with [`fuzz::ignore`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| testkit::fuzz::run(input, &fuzz::ignore));
