//! Contexts on real directories.

#![forbid(unsafe_code)]

#[cfg(test)]
mod changing;
#[cfg(test)]
mod digests;
#[cfg(test)]
mod scans;
#[cfg(test)]
mod sources;
#[cfg(test)]
mod stat_cache;
#[cfg(test)]
mod world;
