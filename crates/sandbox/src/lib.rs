//! One process tree in a prepared rootfs.
#![forbid(unsafe_code)]

mod cgroup;
mod error;
mod inside;
mod launcher;
mod machine;
mod overlay;
mod prepare;
mod process;
mod reaper;
mod sandboxes;
mod seccomp;
mod spec;
mod user;

pub use cgroup::{Owner, owners, sweep};
pub use error::{SandboxError, Stage};
pub use inside::helper_main;
pub use launcher::HelperProgram;
pub use machine::{Feature, Machine};
pub use process::{Ending, Exit, Output, Process, Signaller};
pub use sandboxes::Sandboxes;
pub use spec::{
    Access, BindSource, Content, Durability, Layers, Limits, MissingCwd, Mount, MountKind, Network,
    NewPrivileges, PidOne, Spec, Stdio, StopPolicy, Upper,
};
pub use user::{Credentials, MAX_ID, NameOrId, User, UserError};
