//! libFuzzer with [`fuzz::reference`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| testkit::fuzz::run(input, &fuzz::reference));
