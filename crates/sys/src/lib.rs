//! Safe, descriptor-typed names for Linux calls (nix, rustix where nix lacks them), and [`Root`]: resolving paths below a
//! directory.
//!
//! This is the only crate of the workspace with `unsafe` code: one function wraps one system call, takes borrowed or
//! owned descriptors and gives owned ones back. It knows nothing of containers, layers or images.

pub mod block_file;
pub mod capability;
pub mod descriptor_socket;
pub mod device_filter;
pub mod directory;
pub mod disk_usage;
pub mod durable;
pub mod lock;
pub mod memory_file;
pub mod mount;
pub mod path;
pub mod poll;
pub mod process;
pub mod root;
pub mod seccomp;
pub mod terminal;
pub mod this_process;
pub mod xattr;

pub use path::{PathError, RootfsPath};
pub use root::Root;
