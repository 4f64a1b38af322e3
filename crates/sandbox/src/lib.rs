//! One process tree in a prepared rootfs.
//!
//! A caller describes it with a [`Spec`], and [`Sandboxes::start`] gives a [`Process`] once the command executes. Nothing here knows
//! images or Dockerfiles: layers are directories, `USER` is text that is resolved in the root, secrets are bytes of a file mount.
//!
//! # How a process starts
//!
//! ```text
//! caller's thread                      launcher thread      fork server           new process
//! ─────────────────────────────────────────────────────────────────────────────────────────────────────────
//! start(&spec): make cgroup, socket ──▶ order, socket ─────▶ clone3 (new mount, ─▶ own network; makes /proc,
//! make every mount, detached                                 pid, uts, ipc; born   /sys and /dev in the pantry
//!                                      pidfd ◀────────────── in its cgroup)        waits for instructions
//! send instructions, descriptors ───────────────────────────────────────────────▶ cgroup ns, host name
//! hear reports                                                                    attach root and mounts
//!                                                                                 pivot_root; session, descriptors
//!                                                                                 user, capabilities, filter
//! ◀────────────────────────────────────────────────────────── end of the socket ─ executes the command, as process 1
//! ```
//!
//! The launcher executes our own program once, as the fork server; [`Sandboxes::expect_another`] has the next process get as far as
//! waiting for its instructions while the one before it works.
//!
//! # What holds
//!
//! * **No path of the machine is used inside.** What comes from the machine was made a detached mount or a descriptor on our side;
//!   what is resolved below the root is resolved by descriptor and cannot leave it.
//! * **Setting up writes nothing into the root.** Mount points exist before or are made in a tmpfs of ours. The exceptions are
//!   asked for by name: [`MissingCwd::Create`], and [`Durability::Discarded`], of which nothing is kept.
//! * **The posture is Docker's**: 14 capabilities, its system call list (module `seccomp`), its masks, its devices, umask 022.
//! * **Everything has one owner.** Process 1 is killed when its [`Process`] is dropped and when we die, and takes all others along;
//!   mounts go with its namespace, in the background; cgroups are removed, and those of a dead [`Owner`] can be swept ([`sweep`]).
//! * **Less is said aloud**: [`Machine`] is probed once, prints itself, and names what this machine does without.
//!
//! # Where the time goes
//!
//! Most of a start is the kernel's: a network namespace of its own takes a millisecond, executing the command and loading it half of one, checking the
//! filter a fifth, and leaving the old root waits for all processors. What is avoided was worth more: executing our own program for each sandbox
//! (module `inside`), joining a cgroup by writing to it (module `cgroup`), unmounting before the end is reported (module `reaper`), and mounts
//! stacked over the old root (module `launcher`). `benches/micro/sandbox.rs` measures it.
//!
//! # Example
//!
//! ```no_run
//! use sandbox::{Access, HelperProgram, Layers, Limits, Machine, MissingCwd, Network, NewPrivileges, PidOne, Posture};
//! use sandbox::{Sandboxes, Spec, Stdio, User};
//!
//! sandbox::helper_main(); // the first call of `main`
//! let machine = Machine::probe(&[])?;
//! let sandboxes = Sandboxes::open(machine, "example-1".parse()?, HelperProgram::ThisProgram)?;
//! let (process, _output) = sandboxes.start(&Spec {
//!     root: Layers { lower: vec!["/srv/rootfs".into()], upper: None },
//!     root_access: Access::ReadOnly,
//!     mounts: Vec::new(),
//!     args: vec!["uname".into(), "-n".into()],
//!     env: vec![("PATH".into(), "/usr/bin:/bin".into())],
//!     cwd: sys::RootfsPath::root(),
//!     missing_cwd: MissingCwd::Fail,
//!     user: "nobody".parse::<User>()?,
//!     hostname: "example".to_owned(),
//!     network: Network::None,
//!     limits: Limits { memory_bytes: Some(64 << 20), ..Limits::default() },
//!     stdio: Stdio::Inherited,
//!     pid_one: PidOne::Command,
//!     new_privileges: NewPrivileges::Denied,
//!     posture: Posture::Confined,
//! })?;
//! assert_eq!(process.wait()?.code(), 0);
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

mod error;
mod machine;
mod spec;
mod ulimit;
mod user;

mod process;
mod sandboxes;

mod launcher;
mod overlay;
mod prepare;
mod reaper;

mod cgroup;
mod inside;
mod seccomp;

pub use cgroup::{Owner, owners, sweep};
pub use error::{SandboxError, Stage};
pub use inside::helper_main;
pub use launcher::HelperProgram;
pub use machine::{Feature, Machine};
pub use process::{Ending, Exit, Output, Process, Signaller};
pub use sandboxes::Sandboxes;
pub use spec::{
    Access, BindSource, Content, CpuList, CpuListError, Durability, Layers, Limits, MissingCwd, Mount,
    MountKind, Network, NewPrivileges, PidOne, Posture, Spec, Stdio, StopPolicy, Upper,
};
pub use ulimit::{Ulimit, UlimitError, UlimitName};
pub use user::{Credentials, MAX_ID, NameOrId, User, UserError};
