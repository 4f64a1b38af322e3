//! The client against registries on loopback: proper ones, hostile ones, and Debian's.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test binary through and through")]

mod blobs;
mod debian;
mod hostile;
mod hosts;
mod login;
mod push;
mod redirects;
mod resolve;
mod tags;
mod tls;
mod world;
