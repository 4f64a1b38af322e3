//! One process tree in a prepared rootfs.
//!
//! A caller describes it with a [`Spec`], and [`Sandboxes::start`] gives a [`Process`] once the command executes. Nothing here knows
//! images or Dockerfiles: layers are directories, `USER` is text that is resolved in the root, secrets are bytes of a file mount.
//!
//! # How a process starts
//!
//! ```text
//! caller's thread                      launcher thread                 new process
//! ──────────────────────────────────────────────────────────────────────────────────────────────────
//! start(&spec): make cgroup, socket ──▶ clone3 (vfork, new mount, pid,
//! make every mount, detached            uts, ipc; born in its cgroup) ─▶ executes us, read-only
//! open its mount namespace ◀─────────── pidfd                            waits for instructions
//! send instructions, descriptors ──────────────────────────────────────▶ cgroup ns, network, host name
//! hear reports                                                           attach root, /proc, /sys, /dev, mounts
//!                                                                        pivot_root; session, descriptors
//!                                                                        user, capabilities, filter
//! ◀───────────────────────────────────────────────── end of the socket ─ executes the command, as process 1
//! ```
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
//! A start and the wait for `true` take 4 to 5 ms at best on two cores that others use too (median 5 to 8 with a load of five, 12 with eight):
//! 0.6 ms for each of the two programs executed, 1 ms for the dynamic loader of our own copy, 0.4 ms for the kernel to check the filter, the
//! rest in 400 short calls and in waiting to be scheduled. Three
//! things were worth more than all of that and are avoided: joining a cgroup by writing to it (module `cgroup`), unmounting before the end is reported
//! (module `reaper`), and mounts stacked over the old root (module `launcher`).
//!
//! # Example
//!
//! ```no_run
//! use sandbox::{Access, HelperProgram, Layers, Limits, Machine, MissingCwd, Network, NewPrivileges, PidOne};
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
//! })?;
//! assert_eq!(process.wait()?.code(), 0);
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

mod error;
mod machine;
mod spec;
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
    Access, BindSource, Content, Durability, Layers, Limits, MissingCwd, Mount, MountKind, Network,
    NewPrivileges, PidOne, Spec, Stdio, StopPolicy, Upper,
};
pub use user::{Credentials, MAX_ID, NameOrId, User, UserError};
