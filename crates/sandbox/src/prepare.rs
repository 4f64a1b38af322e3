//! Our own side of a start: everything that has to do with paths of the machine becomes a detached mount or a descriptor, so that the
//! process inside never uses a path of the machine.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use sys::RootfsPath;
use sys::mount::{self, Attributes, Depth, Filesystem};

use crate::cgroup::Group;
use crate::inside::{CgroupView, Handle, Instructions, MountInstruction, Shown, StdioInstruction};
use crate::process::Output;
use crate::sandboxes::Shared;
use crate::spec::{
    Access, BindSource, Durability, MissingCwd, Mount, MountKind, NewPrivileges, PidOne, Posture, Spec, Stdio,
};
use crate::{SandboxError, overlay};

/// What is sent to the helper.
pub(crate) struct Prepared {
    pub(crate) instructions: Instructions,
    pub(crate) descriptors: Vec<OwnedFd>,
}

/// The descriptors to be sent, in order.
#[derive(Default)]
struct Bag(Vec<OwnedFd>);

impl Bag {
    fn put(&mut self, descriptor: OwnedFd) -> Handle {
        self.0.push(descriptor);
        Handle(self.0.len() - 1)
    }
}

/// Makes the mounts and instructions for `spec`, and our ends of its pipes (`None`: a terminal, which the helper makes).
pub(crate) fn prepare(
    spec: &Spec,
    shared: &Shared,
    group: &Group,
) -> Result<(Prepared, Option<Output>), SandboxError> {
    let mut bag = Bag::default();
    let root = overlay::mount(&spec.root, root_attributes(spec, shared), &shared.machine, &shared.launcher)?;
    let root = bag.put(root);
    let mut mounts = Vec::with_capacity(spec.mounts.len());
    let mut ordered: Vec<&Mount> = spec.mounts.iter().collect();
    ordered.sort_by_key(|mount| mount.target.components().count());
    for mount in ordered {
        mounts.push(prepare_mount(mount, spec, shared, &mut bag)?);
    }
    let (stdio, output) = prepare_stdio(spec.stdio, &mut bag)?;
    let (joins, cgroup_view) = prepare_cgroups(shared, group, &mut bag)?;
    let instructions = Instructions {
        root,
        mounts,
        args: spec.args.iter().map(|arg| arg.as_bytes().to_vec()).collect(),
        env: spec.env.iter().map(|(n, v)| (n.as_bytes().to_vec(), v.as_bytes().to_vec())).collect(),
        cwd: spec.cwd.as_bytes().to_vec(),
        create_cwd: spec.missing_cwd == MissingCwd::Create,
        user: spec.user.clone(),
        make_targets: makes_targets(spec),
        seal_root: makes_targets(spec) && spec.root_access == Access::ReadOnly,
        hostname: spec.hostname.clone(),
        ulimits: spec.limits.ulimits.clone(),
        stdio,
        init: spec.pid_one == PidOne::Init,
        no_new_privileges: spec.new_privileges == NewPrivileges::Denied,
        posture: spec.posture,
        device_nodes: shared.machine.device_filter || spec.posture == Posture::Insecure,
        joins,
        cgroup_view,
        filter: match spec.posture {
            Posture::Confined => {
                shared.filter.iter().map(|i| (i.code, i.jump_true, i.jump_false, i.operand)).collect()
            }
            Posture::Insecure => Vec::new(),
        },
    };
    Ok((Prepared { instructions, descriptors: bag.0 }, output))
}

/// Without a filter on devices, nobody who is confined may open a node that was made inside or that an image brought.
fn device_attributes(spec: &Spec, shared: &Shared) -> Attributes {
    match spec.posture {
        Posture::Confined if !shared.machine.device_filter => Attributes::MOUNT_ATTR_NODEV,
        Posture::Confined | Posture::Insecure => Attributes::empty(),
    }
}

/// Whether what is made in the root is nobody's.
fn makes_targets(spec: &Spec) -> bool {
    spec.root.upper.as_ref().is_some_and(|upper| upper.durability == Durability::Discarded)
}

/// A root in which mount points are made is made read-only after that.
fn root_attributes(spec: &Spec, shared: &Shared) -> Attributes {
    let mut attributes = device_attributes(spec, shared);
    let is_read_only = spec.root_access == Access::ReadOnly && !makes_targets(spec);
    attributes.set(Attributes::MOUNT_ATTR_RDONLY, is_read_only);
    attributes
}

fn prepare_mount(
    mount: &Mount,
    spec: &Spec,
    shared: &Shared,
    bag: &mut Bag,
) -> Result<MountInstruction, SandboxError> {
    let target = &mount.target;
    let failed = |source| SandboxError::Mount { target: target.clone(), source };
    let shown = match &mount.kind {
        MountKind::Bind { source, access } => {
            let tree = open_bind(source, target)?;
            let mut attributes = device_attributes(spec, shared);
            attributes.set(Attributes::MOUNT_ATTR_RDONLY, *access == Access::ReadOnly);
            mount::restrict(tree.as_fd(), attributes, Depth::Whole).map_err(failed)?;
            Shown::Tree(bag.put(tree))
        }
        MountKind::Layers { layers, path } => {
            let attributes = device_attributes(spec, shared);
            let tree = overlay::mount(layers, attributes, &shared.machine, &shared.launcher)?;
            Shown::Part { tree: bag.put(tree), path: path.as_bytes().to_vec() }
        }
        MountKind::Tmpfs { size_bytes, mode } => {
            Shown::Tmpfs(bag.put(tmpfs(*size_bytes, *mode).map_err(failed)?))
        }
        MountKind::File { content, mode, uid, gid } => {
            Shown::File { content: content.0.clone(), mode: *mode, uid: *uid, gid: *gid }
        }
    };
    Ok(MountInstruction { target: target.as_bytes().to_vec(), shown })
}

fn open_bind(source: &BindSource, target: &RootfsPath) -> Result<OwnedFd, SandboxError> {
    let failed = |source| SandboxError::Mount { target: target.clone(), source };
    match source {
        BindSource::Path(path) => {
            let opened = mount::open_path(path).map_err(|source| SandboxError::BindSource {
                path: path.clone(),
                target: target.clone(),
                source,
            })?;
            mount::clone_tree(opened.as_fd(), Depth::Whole).map_err(failed)
        }
        BindSource::Descriptor(fd) => mount::clone_tree(fd.as_fd(), Depth::Whole).map_err(failed),
    }
}

fn tmpfs(size_bytes: Option<u64>, mode: u32) -> io::Result<OwnedFd> {
    let tmpfs = Filesystem::new(c"tmpfs")?;
    tmpfs.set("mode", format!("{mode:o}"))?;
    if let Some(size) = size_bytes {
        tmpfs.set("size", size.to_string())?;
    }
    tmpfs.mount(Attributes::MOUNT_ATTR_NOSUID | Attributes::MOUNT_ATTR_NODEV)
}

fn prepare_stdio(stdio: Stdio, bag: &mut Bag) -> Result<(StdioInstruction, Option<Output>), SandboxError> {
    let failed = |source| SandboxError::Prepare { step: "make pipes for the output", source };
    match stdio {
        Stdio::Captured => {
            let (stdout, stdout_theirs) = io::pipe().map_err(failed)?;
            let (stderr, stderr_theirs) = io::pipe().map_err(failed)?;
            let instruction = StdioInstruction::Captured {
                stdout: bag.put(stdout_theirs.into()),
                stderr: bag.put(stderr_theirs.into()),
            };
            let [stdout, stderr] = [OwnedFd::from(stdout), OwnedFd::from(stderr)].map(Into::into);
            Ok((instruction, Some(Output::Captured { stdout, stderr })))
        }
        Stdio::Terminal(size) => {
            Ok((StdioInstruction::Terminal { rows: size.rows, columns: size.columns }, None))
        }
        Stdio::Piped => {
            let (stdin_theirs, stdin) = io::pipe().map_err(failed)?;
            let (stdout, stdout_theirs) = io::pipe().map_err(failed)?;
            let (stderr, stderr_theirs) = io::pipe().map_err(failed)?;
            let instruction = StdioInstruction::Piped {
                stdin: bag.put(stdin_theirs.into()),
                stdout: bag.put(stdout_theirs.into()),
                stderr: bag.put(stderr_theirs.into()),
            };
            let stdin = OwnedFd::from(stdin).into();
            let [stdout, stderr] = [OwnedFd::from(stdout), OwnedFd::from(stderr)].map(Into::into);
            Ok((instruction, Some(Output::Piped { stdin, stdout, stderr })))
        }
        // The helper was started with our own descriptors.
        Stdio::Inherited => Ok((StdioInstruction::Inherited, Some(Output::Inherited))),
    }
}

/// The groups to join, and what `/sys/fs/cgroup` shows.
fn prepare_cgroups(
    shared: &Shared,
    group: &Group,
    bag: &mut Bag,
) -> Result<(Vec<Handle>, CgroupView), SandboxError> {
    let failed = |source| SandboxError::Prepare { step: "show the process its cgroups", source };
    let (mut joins, mut shown) = (Vec::new(), Vec::new());
    for membership in &group.joined {
        joins.push(bag.put(membership.procs.try_clone().map_err(failed)?));
        let tree = mount::clone_tree(membership.directory.as_fd(), Depth::One).map_err(failed)?;
        let attributes = crate::launcher::inert() | Attributes::MOUNT_ATTR_RDONLY;
        mount::restrict(tree.as_fd(), attributes, Depth::One).map_err(failed)?;
        shown.push((membership.controller.to_owned(), bag.put(tree)));
    }
    let view = if !shared.machine.cgroup1.is_empty() {
        CgroupView::Legacy(shown)
    } else if shared.machine.cgroup2.is_some() {
        CgroupView::Unified
    } else {
        CgroupView::Nothing
    };
    Ok((joins, view))
}
