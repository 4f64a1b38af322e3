//! rbuild as a person uses it: the real program on stores of its own.

#![forbid(unsafe_code)]

mod world;

mod diagnostics;
mod differential;
