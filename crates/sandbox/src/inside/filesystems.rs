//! The file systems of a sandbox: root, `/proc`, `/sys`, `/dev`, the caller's mounts, and the move into the root.

use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, fchown};
use std::path::Path;

use sys::mount::{self, Attributes, Depth, Filesystem};
use sys::root::{Dir, Node};
use sys::terminal::{Pair, WindowSize};
use sys::{Root, RootfsPath};

use super::message::{At, Failure, errno};
use super::targets::{Targets, is_directory};
use super::{CgroupView, Instructions, MountInstruction, Order, Received, Shown, StdioInstruction};
use crate::launcher::{inert, mask_sys, resolve_if_there};
use crate::{Network, Posture, Stage};

/// The device nodes of every sandbox.
pub(crate) const DEVICES: &[&str] = &["null", "zero", "full", "random", "urandom", "tty"];

/// What of `/proc` is hidden.
const MASKED_IN_PROC: &[&str] = &[
    "acpi",
    "asound",
    "interrupts",
    "kcore",
    "keys",
    "latency_stats",
    "sched_debug",
    "scsi",
    "timer_list",
    "timer_stats",
];
/// What of `/proc` cannot be written.
const READ_ONLY_IN_PROC: &[&str] = &["bus", "fs", "irq", "sys", "sysrq-trigger"];

/// Links in `/dev`.
const LINKS_IN_DEV: &[(&str, &str)] = &[
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
];

/// Where the pantry has `/proc`, `/sys` and `/dev` until there is a root.
const PROC: &CStr = c"proc";
const SYS: &CStr = c"sys";
const DEV: &CStr = c"dev";

/// Size of `/dev`, and of `/dev/shm` if nothing else is asked for, in bytes.
const SMALL_TMPFS: u64 = 64 << 20;

/// Mounts what is the same in every sandbox, in the pantry. This needs no instructions, so it is done while they are awaited.
pub(super) fn prepare(order: Order) -> Result<(), Failure> {
    set_up_proc(order.posture).at(Stage::Proc)?;
    if order.network == Network::None || order.posture == Posture::Insecure {
        set_up_own_sys(order.posture).at(Stage::Sys)?;
    }
    set_up_dev(order).at(Stage::Dev)
}

/// Mounts everything else and moves into the root. Gives the terminal, if one was asked for.
pub(super) fn set_up(instructions: &Instructions, received: &Received) -> Result<Option<Pair>, Failure> {
    let root = attach_root(instructions, received).at(Stage::Root)?;
    let mut targets = Targets::new(root);
    if instructions.make_targets {
        targets.allow_making_in_root().at(Stage::Root)?;
    }
    let proc = targets.own_directory("proc")?;
    mount::take(PROC, proc.as_fd()).at(Stage::Proc)?;
    let sys = targets.own_directory("sys")?;
    mount::take(SYS, sys.as_fd()).at(Stage::Sys)?;
    let sys = Root::from_dir(targets.own_directory("sys")?);
    set_up_cgroup_view(&sys, instructions, received).at(Stage::Sys)?;
    let dev = targets.own_directory("dev")?;
    let dev = take_dev(&dev, instructions).at(Stage::Dev)?;
    targets.allow_making_in(dev.as_fd()).at(Stage::Dev)?;
    let terminal = match instructions.stdio {
        StdioInstruction::Terminal { rows, columns } => {
            Some(open_terminal(&dev, WindowSize { rows, columns }).at(Stage::Terminal)?)
        }
        _ => None,
    };
    for mount in &instructions.mounts {
        set_up_mount(mount, received, &mut targets)?;
    }
    mount::pivot_to(targets.root().as_fd()).at(Stage::PivotRoot)?;
    Ok(terminal)
}

fn attach_root(instructions: &Instructions, received: &Received) -> io::Result<Root> {
    let tree = received.get(instructions.root)?;
    mount::attach(tree, pantry(c"root")?.as_fd())?;
    Ok(Root::from_dir(Dir::from(tree.try_clone_to_owned()?)))
}

/// Forbids writing to the root, which is the root directory by now.
pub(super) fn seal_root() -> io::Result<()> {
    let root = mount::open_path(Path::new("/"))?;
    mount::restrict(root.as_fd(), Attributes::MOUNT_ATTR_RDONLY, Depth::One)
}

/// Something in the pantry, which is the working directory until the move into the root.
fn pantry(name: &CStr) -> io::Result<OwnedFd> {
    mount::open_path(Path::new(OsStr::from_bytes(name.to_bytes())))
}

fn set_up_proc(posture: Posture) -> io::Result<()> {
    let proc = Filesystem::new(c"proc")?.mount(inert())?;
    mount::attach(proc.as_fd(), pantry(PROC)?.as_fd())?;
    if posture == Posture::Insecure {
        return Ok(());
    }
    let proc = Root::from_dir(Dir::from(proc));
    for path in READ_ONLY_IN_PROC {
        let Some(original) = resolve_if_there(&proc, path)? else { continue };
        let copy = mount::clone_tree(original.as_fd(), Depth::One)?;
        mount::restrict(copy.as_fd(), Attributes::MOUNT_ATTR_RDONLY, Depth::One)?;
        mount::attach(copy.as_fd(), original.as_fd())?;
    }
    let (null, empty) = (pantry(c"nodes/null")?, pantry(c"empty")?);
    for path in MASKED_IN_PROC {
        let Some(original) = resolve_if_there(&proc, path)? else { continue };
        let mask = if is_directory(original.as_fd())? { &empty } else { &null };
        mount::attach(mount::clone_tree(mask.as_fd(), Depth::One)?.as_fd(), original.as_fd())?;
    }
    Ok(())
}

/// A sysfs shows the network interfaces of the namespace that it was mounted in.
fn set_up_own_sys(posture: Posture) -> io::Result<()> {
    if posture == Posture::Insecure {
        return mount::attach(Filesystem::new(c"sysfs")?.mount(inert())?.as_fd(), pantry(SYS)?.as_fd());
    }
    let sys = Filesystem::new(c"sysfs")?.mount(inert() | Attributes::MOUNT_ATTR_RDONLY)?;
    mount::attach(sys.as_fd(), pantry(SYS)?.as_fd())?;
    mask_sys(sys, pantry(c"empty")?.as_fd())
}

fn set_up_cgroup_view(sys: &Root, instructions: &Instructions, received: &Received) -> io::Result<()> {
    let Some(place) = resolve_if_there(sys, "fs/cgroup")? else { return Ok(()) };
    let read_only = match instructions.posture {
        Posture::Confined => inert() | Attributes::MOUNT_ATTR_RDONLY,
        Posture::Insecure => inert(),
    };
    match &instructions.cgroup_view {
        CgroupView::Nothing => Ok(()),
        CgroupView::Unified => {
            mount::attach(Filesystem::new(c"cgroup2")?.mount(read_only)?.as_fd(), place.as_fd())
        }
        CgroupView::Legacy(controllers) => {
            let tmpfs = Filesystem::new(c"tmpfs")?;
            tmpfs.set("mode", "0755")?;
            let tmpfs = tmpfs.mount(inert())?;
            mount::attach(tmpfs.as_fd(), place.as_fd())?;
            let directory = Dir::from(tmpfs);
            for (name, tree) in controllers {
                directory.create_dir(OsStr::new(name))?;
                let target = directory.open_dir(OsStr::new(name))?;
                mount::attach(received.get(*tree)?, target.as_fd())?;
            }
            mount::restrict(directory.as_fd(), Attributes::MOUNT_ATTR_RDONLY, Depth::One)
        }
    }
}

fn set_up_dev(order: Order) -> io::Result<()> {
    let dev = tmpfs("755", SMALL_TMPFS, Attributes::MOUNT_ATTR_NOSUID | Attributes::MOUNT_ATTR_STRICTATIME)?;
    mount::attach(dev.as_fd(), pantry(DEV)?.as_fd())?;
    let dev = Dir::from(dev);
    for name in DEVICES {
        let target = dev.create_file(OsStr::new(name))?;
        mount::take(&CString::new(format!("nodes/{name}"))?, target.as_fd())?;
    }
    for (name, target) in LINKS_IN_DEV {
        dev.create_symlink(OsStr::new(name), target.as_bytes())?;
    }
    let pts = Filesystem::new(c"devpts")?;
    pts.set_flag("newinstance")?;
    for (key, value) in [("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")] {
        pts.set(key, value)?;
    }
    let no_programs = Attributes::MOUNT_ATTR_NOSUID | Attributes::MOUNT_ATTR_NOEXEC;
    mount_below(&dev, "pts", pts.mount(no_programs)?)?;
    mount_below(&dev, "mqueue", Filesystem::new(c"mqueue")?.mount(inert())?)?;
    if order.posture == Posture::Insecure {
        make_loop_devices(&dev)?;
    }
    mount_below(&dev, "shm", tmpfs("1777", order.shm_bytes.unwrap_or(SMALL_TMPFS), inert())?)
}

/// The devices by which files are mounted as disks, as the reference builder has them for insecure commands (kernel documentation, "Linux
/// allocated devices").
fn make_loop_devices(dev: &Dir) -> io::Result<()> {
    dev.create_node(OsStr::new("loop-control"), Node::CharDevice { major: 10, minor: 237 })?;
    for minor in 0..8 {
        dev.create_node(OsStr::new(&format!("loop{minor}")), Node::BlockDevice { major: 7, minor })?;
    }
    Ok(())
}

fn take_dev(at: &Dir, instructions: &Instructions) -> io::Result<Dir> {
    let dev = Dir::open(Path::new("dev"))?;
    if !instructions.device_nodes {
        // The nodes are mounts of their own, so they can be opened all the same.
        mount::restrict(dev.as_fd(), Attributes::MOUNT_ATTR_NODEV, Depth::One)?;
    }
    mount::take(DEV, at.as_fd())?;
    Ok(dev)
}

fn tmpfs(mode: &str, bytes: u64, attributes: Attributes) -> io::Result<OwnedFd> {
    let tmpfs = Filesystem::new(c"tmpfs")?;
    tmpfs.set("mode", mode)?;
    tmpfs.set("size", bytes.to_string())?;
    tmpfs.mount(attributes)
}

fn mount_below(dev: &Dir, name: &str, tree: OwnedFd) -> io::Result<()> {
    dev.create_dir(OsStr::new(name))?;
    mount::attach(tree.as_fd(), dev.open_dir(OsStr::new(name))?.as_fd())
}

/// A terminal of the sandbox's own instance of devpts, also to be had as `/dev/console`.
fn open_terminal(dev: &Dir, size: WindowSize) -> io::Result<Pair> {
    let pts = dev.open_dir(OsStr::new("pts"))?;
    let pair = sys::terminal::open_pair(&pts)?;
    sys::terminal::set_window_size(&pair.terminal, size)?;
    let console = dev.create_file(OsStr::new("console"))?;
    let number = sys::terminal::number(&pair.controller)?.to_string();
    let pts = Root::from_dir(pts);
    let node = resolve_if_there(&pts, &number)?.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    mount::attach(mount::clone_tree(node.as_fd(), Depth::One)?.as_fd(), console.as_fd())?;
    Ok(pair)
}

fn set_up_mount(
    instruction: &MountInstruction,
    received: &Received,
    targets: &mut Targets,
) -> Result<(), Failure> {
    let target = &instruction.target;
    let failed = |error: io::Error| Failure::Mount { target: target.clone(), errno: errno(&error) };
    match &instruction.shown {
        Shown::Tree(tree) => targets.attach(received.get(*tree).map_err(failed)?, target),
        Shown::Tmpfs(tree) => {
            let tree = received.get(*tree).map_err(failed)?;
            targets.attach(tree, target)?;
            targets.allow_making_in(tree).map_err(failed)
        }
        Shown::Part { tree, path } => {
            let tree = received.get(*tree).map_err(failed)?;
            let part = take_part(tree, path).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => Failure::LayersPath { path: path.clone(), target: target.clone() },
                _ => failed(error),
            })?;
            targets.attach(part.as_fd(), target)
        }
        Shown::File { content, mode, uid, gid } => {
            let file = make_file(content, *mode, *uid, *gid).map_err(failed)?;
            targets.attach(file.as_fd(), target)
        }
    }
}

/// A detached copy of what lies at `path` below a detached mount. The mount is attached to the pantry for it, since older kernels copy
/// nothing that is not attached; it goes away with the pantry.
fn take_part(tree: BorrowedFd<'_>, path: &[u8]) -> io::Result<OwnedFd> {
    mount::attach(tree, pantry(c"scratch")?.as_fd())?;
    let root = Root::from_dir(Dir::from(tree.try_clone_to_owned()?));
    let part = root.resolve(&RootfsPath::parse(path).map_err(io::Error::other)?)?;
    mount::clone_tree(part.as_fd(), Depth::One)
}

/// One file in a tmpfs of its own, as a detached mount.
fn make_file(content: &[u8], mode: u32, uid: u32, gid: u32) -> io::Result<OwnedFd> {
    let tmpfs = Filesystem::new(c"tmpfs")?;
    // From Linux 6.4 on; before, secrets may reach the swap area, as everything else in memory.
    let kept_out_of_swap = tmpfs.set_flag("noswap").is_ok();
    let mut attributes = Attributes::MOUNT_ATTR_NOSUID | Attributes::MOUNT_ATTR_NODEV;
    attributes.set(Attributes::MOUNT_ATTR_NOEXEC, mode & 0o111 == 0);
    let tree = tmpfs.mount(attributes)?;
    tracing::trace!(kept_out_of_swap, "file mount");
    let mut file: File = Dir::from(tree.try_clone()?).create_file(OsStr::new("file"))?;
    file.write_all(content)?;
    // Owner before mode: the kernel clears set-user-ID bits when the owner changes.
    fchown(&file, Some(uid), Some(gid))?;
    file.set_permissions(PermissionsExt::from_mode(mode))?;
    take_part(tree.as_fd(), b"file")
}
