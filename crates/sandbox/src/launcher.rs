//! The one thread that starts all processes of [`crate::Sandboxes`].
//!
//! It does so through a process that all of them begin as copies of (`inside::fork_server`).
//!
//! A thread of its own, for two reasons. "Kill me when my parent ends" means the *thread* that started the process, so that thread
//! must live as long as all of them. And the thread has a mount namespace of its own, in which it keeps what every sandbox needs
//! (the pantry): a new process gets a copy of that namespace, finds its copy of the pantry as its working directory and only
//! has to move the mounts in place.
//!
//! ```text
//! pantry/            tmpfs, over `/sys` of the private namespace, which neither we nor the program loader need
//!   root/            where a sandbox attaches its root before it moves there
//!   scratch/         where it attaches what it takes a part of
//!   nodes/{null,…}   the device nodes of the machine
//!   proc/ dev/       where it makes its own before there is a root
//!   empty/           an empty read-only directory, which masks directories
//!   sys/             a read-only sysfs with its masks
//! ```

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;

use sys::descriptor_socket::DescriptorSocket;
use sys::mount::{self, Attributes, Depth, Filesystem};
use sys::process::{self, Child};
use sys::root::Dir;
use sys::this_process::{self, Namespace};
use sys::{Root, RootfsPath};

use crate::SandboxError;
use crate::inside::{DEVICES, HELPER_NAME, Order, Outcome, decode, encode};

/// Which program sets up a sandbox from within; its `main` begins with [`crate::helper_main`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum HelperProgram {
    /// The running program.
    ThisProgram,
    /// Another one: for tests, whose `main` is not their own.
    File(PathBuf),
}

/// Parts of sysfs that are hidden; one per CPU is added.
const MASKED_IN_SYS: &[&str] = &["firmware", "devices/virtual/powercap"];

/// Flags of file systems that hold no programs and no devices.
pub(crate) fn inert() -> Attributes {
    Attributes::MOUNT_ATTR_NOSUID | Attributes::MOUNT_ATTR_NODEV | Attributes::MOUNT_ATTR_NOEXEC
}

/// Hands requests to the thread. Dropping it ends the thread, and with it every process started.
#[derive(Debug)]
pub(crate) struct Launcher {
    requests: Option<Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

enum Request {
    Launch {
        handed: DescriptorSocket,
        birthplace: Option<Arc<OwnedFd>>,
        order: Order,
        reply: Sender<Result<Child, SandboxError>>,
    },
    Overlay {
        options: OverlayOptions,
        reply: Sender<Result<OwnedFd, SandboxError>>,
    },
}

/// An overlay for kernels without `lowerdir+`.
pub(crate) struct OverlayOptions {
    /// The lower directories, the topmost first.
    pub(crate) lower: Vec<PathBuf>,
    /// The upper and work directory, if any.
    pub(crate) upper: Option<(PathBuf, PathBuf)>,
    /// Further options.
    pub(crate) flags: String,
    /// Flags of the mount.
    pub(crate) attributes: Attributes,
}

/// A process on its way.
#[derive(Debug)]
pub(crate) struct Launching(Receiver<Result<Child, SandboxError>>);

impl Launching {
    /// Waits until there is the process.
    pub(crate) fn wait(self) -> Result<Child, SandboxError> {
        self.0.recv().unwrap_or(Err(SandboxError::Vanished))
    }
}

impl Launcher {
    pub(crate) fn new(program: HelperProgram) -> Result<Self, SandboxError> {
        let (requests, received) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("sandbox-launcher".to_owned())
            .spawn(move || serve(&program, &received))
            .map_err(|source| SandboxError::Prepare { step: "start a thread", source })?;
        Ok(Self { requests: Some(requests), thread: Some(thread) })
    }

    /// Starts a copy of the helper with `handed` as its only descriptor beside the standard ones. Does not wait.
    pub(crate) fn launch(
        &self,
        handed: DescriptorSocket,
        birthplace: Option<Arc<OwnedFd>>,
        order: Order,
    ) -> Launching {
        let (reply, answer) = mpsc::channel();
        self.send(Request::Launch { handed, birthplace, order, reply });
        Launching(answer)
    }

    /// Mounts an overlay the old way, detached.
    pub(crate) fn overlay(&self, options: OverlayOptions) -> Result<OwnedFd, SandboxError> {
        let (reply, answer) = mpsc::channel();
        self.send(Request::Overlay { options, reply });
        answer.recv().unwrap_or(Err(SandboxError::Vanished))
    }

    fn send(&self, request: Request) {
        let requests = self.requests.as_ref().expect("only dropping the launcher takes it");
        // The thread ends only when told, or by a panic: then the receiver of the reply finds it closed.
        if requests.send(request).is_err() {
            tracing::error!("the launcher thread is gone");
        }
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        self.requests = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the launcher thread panicked");
        }
    }
}

/// A step of the thread's own set-up that failed; told to everybody who asks for something.
struct Unprepared {
    step: &'static str,
    errno: i32,
}

trait During<T> {
    fn during(self, step: &'static str) -> Result<T, Unprepared>;
}

impl<T> During<T> for io::Result<T> {
    fn during(self, step: &'static str) -> Result<T, Unprepared> {
        self.map_err(|error| Unprepared { step, errno: error.raw_os_error().unwrap_or(5) })
    }
}

fn serve(program: &HelperProgram, requests: &Receiver<Request>) {
    let mut prepared = Workshop::open(program);
    for request in requests {
        let ready = prepared.as_mut().map_err(|Unprepared { step, errno }| SandboxError::Prepare {
            step,
            source: io::Error::from_raw_os_error(*errno),
        });
        // A requester that went away does not want its answer.
        let delivered = match request {
            Request::Launch { handed, birthplace, order, reply } => {
                let launch = |workshop: &mut Workshop| workshop.launch(&handed, birthplace, order);
                reply.send(ready.and_then(launch)).is_ok()
            }
            Request::Overlay { options, reply } => {
                reply.send(ready.and_then(|workshop| overlay(&workshop.pantry, &options))).is_ok()
            }
        };
        tracing::trace!(delivered, "launcher request");
    }
}

/// What the thread needs for its work.
struct Workshop {
    pantry: Root,
    image: OwnedFd,
    server: ForkServer,
}

impl Workshop {
    fn open(program: &HelperProgram) -> Result<Self, Unprepared> {
        // The program first: its mount can only be copied from where it is attached.
        let image = safe_program(program)?;
        let pantry = stock_pantry()?;
        let server = ForkServer::start(&image).during("start the helper")?;
        Ok(Self { pantry, image, server })
    }

    /// A fork server that somebody has killed is started anew, once.
    fn launch(
        &mut self,
        handed: &DescriptorSocket,
        cgroup: Option<Arc<OwnedFd>>,
        order: Order,
    ) -> Result<Child, SandboxError> {
        let cgroup = cgroup.as_ref().map(AsFd::as_fd);
        let first = self.server.fork(handed, cgroup, order);
        if !first.as_ref().is_err_and(is_gone) {
            return first.map_err(not_forked);
        }
        self.server = ForkServer::start(&self.image).map_err(not_forked)?;
        self.server.fork(handed, cgroup, order).map_err(not_forked)
    }
}

fn not_forked(source: io::Error) -> SandboxError {
    SandboxError::Prepare { step: "start a process in new namespaces", source }
}

/// Whether an error is that of a socket whose other end is closed.
fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

/// The process that all sandboxes begin as copies of. Dropping it ends it.
struct ForkServer {
    orders: Option<DescriptorSocket>,
    process: Child,
}

impl ForkServer {
    fn start(image: &OwnedFd) -> io::Result<Self> {
        let (orders, theirs) = DescriptorSocket::pair()?;
        let process = process::start(image.as_fd(), OsStr::new(HELPER_NAME), theirs.as_fd())?;
        Ok(Self { orders: Some(orders), process })
    }

    fn fork(
        &self,
        handed: &DescriptorSocket,
        cgroup: Option<BorrowedFd<'_>>,
        order: Order,
    ) -> io::Result<Child> {
        let orders = self.orders.as_ref().expect("only dropping it takes the socket");
        let descriptors: Vec<_> = std::iter::once(handed.as_fd()).chain(cgroup).collect();
        orders.send(&encode(&order)?, &descriptors)?;
        let answer = orders.receive()?.ok_or(io::ErrorKind::UnexpectedEof)?;
        match (decode(&answer.bytes)?, answer.descriptors.into_iter().next()) {
            (Outcome::Forked { pid }, Some(pidfd)) => Ok(Child { pidfd, pid }),
            (Outcome::Forked { .. }, None) => Err(io::ErrorKind::InvalidData.into()),
            (Outcome::Failed { errno }, _) => Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

impl Drop for ForkServer {
    fn drop(&mut self) {
        self.orders = None;
        if let Err(error) = process::wait(&self.process.pidfd) {
            tracing::error!(%error, "the helper could not be waited for");
        }
    }
}

/// Our own program in a form that nothing inside a sandbox can write to, though a process there may open `/proc/PID/exe` of one that still
/// executes it (CVE-2019-5736): through a read-only mount of its own, that is attached nowhere, so that nobody can change it.
///
/// A sealed copy in memory does the same, and costs more than all the rest of a start: 12 ms of CPU time for 12 MB, where this was measured.
fn safe_program(program: &HelperProgram) -> Result<OwnedFd, Unprepared> {
    let path = match program {
        HelperProgram::ThisProgram => Path::new("/proc/self/exe"),
        HelperProgram::File(path) => path,
    };
    read_only(path).or_else(|error| {
        // A program that was started from another mount namespace than ours cannot be mounted once more.
        tracing::debug!(%error, "our own program is copied into memory");
        let mut original = File::open(path).during("open our own program")?;
        let copy = sys::memory_file::sealed_copy("rbuild", &mut original);
        copy.map(OwnedFd::from).during("copy our own program into memory")
    })
}

/// A file through a detached, read-only mount.
fn read_only(path: &Path) -> io::Result<OwnedFd> {
    let file = mount::open_path(path)?;
    let mounted = mount::clone_tree(file.as_fd(), Depth::One)?;
    let attributes =
        Attributes::MOUNT_ATTR_RDONLY | Attributes::MOUNT_ATTR_NOSUID | Attributes::MOUNT_ATTR_NODEV;
    mount::restrict(mounted.as_fd(), attributes, Depth::One)?;
    Ok(mounted)
}

/// Gives the calling thread its own mount namespace with the pantry as working directory.
fn stock_pantry() -> Result<Root, Unprepared> {
    this_process::unshare(Namespace::Mount).during("make a mount namespace")?;
    mount::isolate_namespace().during("make a private mount namespace")?;
    let pantry = tmpfs("0700", inert()).during("mount a tmpfs")?;
    // Not over `/`: every layer of mounts there costs each sandbox a grace period of the kernel when it leaves the old root.
    let place = mount::open_path(Path::new("/sys")).during("open /sys")?;
    mount::attach(pantry.as_fd(), place.as_fd()).during("attach a tmpfs")?;
    this_process::enter_directory(pantry.as_fd()).during("enter a tmpfs")?;
    let pantry = Root::from_dir(Dir::from(pantry));
    for name in ["root", "scratch", "nodes", "proc", "dev", "empty", "sys"] {
        pantry.dir().create_dir(name.as_ref()).during("fill a tmpfs")?;
    }
    stock_devices(&pantry).during("copy the device nodes")?;
    stock_empty(&pantry).during("mount an empty directory")?;
    stock_sys(&pantry).during("mount sysfs")?;
    Ok(pantry)
}

fn tmpfs(mode: &str, attributes: Attributes) -> io::Result<OwnedFd> {
    let tmpfs = Filesystem::new(c"tmpfs")?;
    tmpfs.set("mode", mode)?;
    tmpfs.mount(attributes)
}

fn stock_devices(pantry: &Root) -> io::Result<()> {
    let nodes = pantry.dir().open_dir("nodes".as_ref())?;
    for name in DEVICES {
        let source = mount::open_path(&Path::new("/dev").join(name))?;
        let target = nodes.create_file(name.as_ref())?;
        mount::attach(mount::clone_tree(source.as_fd(), Depth::One)?.as_fd(), target.as_fd())?;
    }
    Ok(())
}

fn stock_empty(pantry: &Root) -> io::Result<()> {
    let empty = tmpfs("0755", inert() | Attributes::MOUNT_ATTR_RDONLY)?;
    mount::attach(empty.as_fd(), resolve(pantry, "empty")?.as_fd())
}

fn stock_sys(pantry: &Root) -> io::Result<()> {
    let sys = Filesystem::new(c"sysfs")?.mount(inert() | Attributes::MOUNT_ATTR_RDONLY)?;
    mount::attach(sys.as_fd(), resolve(pantry, "sys")?.as_fd())?;
    mask_sys(sys, resolve(pantry, "empty")?.as_fd())
}

/// Hides parts of an attached sysfs behind copies of the mount `empty`.
pub(crate) fn mask_sys(sys: OwnedFd, empty: BorrowedFd<'_>) -> io::Result<()> {
    let sys = Root::from_dir(Dir::from(sys));
    let mut masked: Vec<String> = MASKED_IN_SYS.iter().map(|&path| path.to_owned()).collect();
    const CPUS: &str = "devices/system/cpu";
    if resolve_if_there(&sys, CPUS)?.is_some() {
        let cpus = sys.open_dir(&RootfsPath::parse(CPUS).map_err(io::Error::other)?)?;
        sys::directory::for_each_entry(&cpus, |cpu| {
            masked.push(format!("{CPUS}/{}/thermal_throttle", cpu.name.to_string_lossy()));
            Ok::<_, io::Error>(())
        })?;
    }
    for path in masked {
        if let Some(target) = resolve_if_there(&sys, &path)? {
            mount::attach(mount::clone_tree(empty, Depth::One)?.as_fd(), target.as_fd())?;
        }
    }
    Ok(())
}

fn resolve(root: &Root, path: &str) -> io::Result<OwnedFd> {
    root.resolve(&RootfsPath::parse(path).map_err(io::Error::other)?)
}

/// `None` where there is no such thing.
pub(crate) fn resolve_if_there(root: &Root, path: &str) -> io::Result<Option<OwnedFd>> {
    match resolve(root, path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        other => other.map(Some),
    }
}

fn overlay(pantry: &Root, options: &OverlayOptions) -> Result<OwnedFd, SandboxError> {
    // Opened here, since overlayfs takes only what is mounted in the namespace of the caller.
    let open = |path: &PathBuf| {
        mount::open_path(path).map_err(|source| SandboxError::Layer { path: path.clone(), source })
    };
    let lower = options.lower.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let upper = match &options.upper {
        Some((upper, work)) => Some((open(upper)?, open(work)?)),
        None => None,
    };
    let names: Vec<String> = lower.iter().map(|fd| crate::overlay::name_of(fd.as_fd())).collect();
    let mut text = format!("{},lowerdir={}", options.flags, names.join(":"));
    if let Some((upper, work)) = &upper {
        let (upper, work) = (crate::overlay::name_of(upper.as_fd()), crate::overlay::name_of(work.as_fd()));
        text.push_str(&format!(",upperdir={upper},workdir={work}"));
    }
    let mounted = mount::mount_overlay_here(c"scratch", text.as_bytes(), options.attributes).and_then(|()| {
        let copy = resolve(pantry, "scratch").and_then(|at| mount::clone_tree(at.as_fd(), Depth::One));
        mount::detach(c"scratch")?;
        copy
    });
    mounted.map_err(|source| SandboxError::Overlay {
        layers: lower.len(),
        kernel_says: String::new(),
        source,
    })
}
