//! One process tree in a prepared rootfs.
//!
//! The interface, of which the last two are being written:
//!
//! ```text
//! pub fn helper_main();                                  // first call of `main`; returns at once in the ordinary case
//! Machine::probe(disabled: &[Feature]) -> Machine        // Display for `rbuild info`
//! Sandboxes::open(Options { owner: Owner, machine: Machine, program: ProgramSource }) -> Result<Sandboxes, SandboxError>
//! Sandboxes::start(&self, spec: &Spec) -> Result<(Process, Output), SandboxError>      // &self: from any thread
//! Sandboxes::owners() -> io::Result<Vec<Owner>>, Sandboxes::sweep(&self, dead: &Owner) -> Result<(), SandboxError>
//! Sandboxes::settle(&self)                               // waits until everything of ended processes is undone
//! enum Output { Captured { stdout: File, stderr: File }, Terminal(File), Inherited }
//! Process::wait(self) -> Result<Exit, SandboxError>      // blocking
//! Process::signaller(&self) -> Signaller                 // Clone + Send: signal(i32), kill(), resize(WindowSize)
//! Process::stop(self, StopPolicy) -> Result<Exit, SandboxError>
//! struct Exit { ending: Ending (Exited(u8) | Killed(i32)), oom_killed: bool, peak_memory_bytes: u64, cpu_time: Duration }
//! Drop of a Process kills the whole tree.
//! ```
mod error;
mod spec;
mod user;
pub use error::{SandboxError, Stage};
pub use spec::{
    Access, BindSource, Content, Durability, Layers, Limits, MissingCwd, Mount, MountKind, Network,
    NewPrivileges, PidOne, Spec, Stdio, StopPolicy, Upper,
};
pub use user::{Credentials, MAX_ID, NameOrId, User, UserError};
