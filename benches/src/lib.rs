//! Whole builds, by rbuild and by others, measured side by side; `cargo xtask bench` calls it.
//!
//! * A [`Workload`](workload::Workload) is a thing to time: what is prepared, and the one command that is measured.
//! * A [`Builder`](builder::Builder) says how each program is told to do it: rbuild, BuildKit, docker's classic builder, buildah.
//! * A [`Sample`](sample::Sample) is one measured command: wall time, CPU time and peak memory, those of a daemon included.
//! * [`run`](run::run) interleaves the builders (A B C, A B C, …), so that what else the machine does falls on all of them, and
//!   [`report`] writes medians, spreads and ratios.
//!
//! The micro benches in `micro/` stand alone; they are criterion's.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a bench tells how far it is")]

pub mod builder;
pub mod material;
pub mod micro;
pub mod registry;
pub mod report;
pub mod run;
pub mod sample;
pub mod statistics;
pub mod workload;

mod floor;

mod machine;
