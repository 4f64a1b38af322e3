//! rbuild as a person uses it: the real program on stores of its own.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod allow;
mod artifacts;
mod buildah;
mod building;
mod scene;
mod world;

mod cache_transport;
mod caches;
mod cli_help;
mod commands_copy;
mod commands_listings;
mod commands_login;
mod commands_pull;
mod commands_push;
mod commands_run;
mod commands_transfer;
mod commands_upkeep;
mod concurrent;
mod contexts;
mod cutoff;
mod diagnostics;
mod diff;
mod differential;
mod epoch;
mod exit_codes;
mod explain;
mod flags;
mod git_ssh;
mod hostile;
mod keys;
mod kill;
mod kill_transfers;
mod limits;
mod lint;
mod locks;
mod outputs;
mod platforms;
mod probe;
mod registries;
mod shell;
mod sources;
mod squash;
mod ssh;
