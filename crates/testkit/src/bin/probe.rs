//! Tells what a process may do and what it sees, in lines that compare: run it inside, under one engine and under another.
//!
//! It writes to the file that its argument names, so that its own descriptors are as they were given, else to standard output. It tells names and
//! outcomes, never what differs from run to run (inodes, sources of mounts) or from kernel to kernel (which of the files that engines
//! mask are there at all). Calls are made with arguments that do nothing where they are allowed: then they fail by their
//! arguments, and where they are forbidden, by that.

use std::collections::BTreeSet;
use std::fs::{self, File, FileType};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;

/// Its name, and what tells its lines.
type Section = (&'static str, fn() -> Vec<String>);

fn main() -> std::io::Result<()> {
    let sections: &[Section] = &[
        // First, since every section opens files.
        ("descriptors", descriptors),
        ("identity", identity),
        ("calls", calls),
        ("masks", masks),
        ("writable", writable),
        ("dev", devices),
        ("environment", environment),
        ("limits", limits),
        ("mounts", mounts),
        ("machine", machine),
    ];
    let lines = sections
        .iter()
        .flat_map(|(name, tell)| tell().into_iter().map(move |line| format!("{name}: {line}\n")));
    let text: String = lines.collect();
    match std::env::args_os().nth(1) {
        Some(path) => fs::write(path, text),
        None => std::io::stdout().write_all(text.as_bytes()),
    }
}

/// Lines of `/proc/self/status` that say what the process may do.
const STATUS: &[&str] = &[
    "Uid",
    "Gid",
    "Groups",
    "Umask",
    "CapInh",
    "CapPrm",
    "CapEff",
    "CapBnd",
    "CapAmb",
    "NoNewPrivs",
    "Seccomp",
    "SigBlk",
    "SigIgn",
];

fn identity() -> Vec<String> {
    let status = text("/proc/self/status");
    let lines = status.lines().filter_map(|line| line.split_once(':'));
    let mut told: Vec<String> = lines
        .filter(|(name, _)| STATUS.contains(name))
        .map(|(name, value)| format!("{name} {}", words(value)))
        .collect();
    for (name, path) in [
        ("oom_score_adj", "/proc/self/oom_score_adj"),
        ("personality", "/proc/self/personality"),
        ("timer slack", "/proc/self/timerslack_ns"),
        ("set groups", "/proc/self/setgroups"),
    ] {
        told.push(format!("{name} {}", text(path).trim()));
    }
    told.push(format!("pid {}", std::process::id()));
    let directory = std::env::current_dir().map(|at| at.display().to_string());
    told.push(format!("directory {}", directory.unwrap_or_else(|error| error.to_string())));
    told
}

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A system call with arguments under which it does nothing.
type Call = (&'static str, libc::c_long, &'static [libc::c_long]);

/// Calls of more than one kind: those every program needs, those a capability would allow, and those no container is given.
#[rustfmt::skip]
const CALLS: &[Call] = &[
    ("socket unix", libc::SYS_socket, &[1, 1, 0]),
    ("socket inet", libc::SYS_socket, &[2, 1, 0]),
    ("socket raw", libc::SYS_socket, &[2, 3, 1]),
    ("socket netlink", libc::SYS_socket, &[16, 3, 0]),
    ("socket packet", libc::SYS_socket, &[17, 3, 0]),
    ("socket alg", libc::SYS_socket, &[38, 5, 0]),
    ("socket vsock", libc::SYS_socket, &[40, 1, 0]),
    ("socketpair alg", libc::SYS_socketpair, &[38, 5, 0, 0]),
    ("personality ask", libc::SYS_personality, &[0xffff_ffff]),
    ("personality odd", libc::SYS_personality, &[0x40_0000]),
    ("ioctl tiocsti", libc::SYS_ioctl, &[0, 0x5412, 0]),
    ("ioctl tioclinux", libc::SYS_ioctl, &[0, 0x541c, 0]),
    ("ioctl tiocgwinsz", libc::SYS_ioctl, &[-1, 0x5413, 0]),
    ("ptrace of nobody", libc::SYS_ptrace, &[16, 0, 0, 0]),
    ("process_vm_readv", libc::SYS_process_vm_readv, &[0, 0, 0, 0, 0, 0]),
    ("clone3", libc::SYS_clone3, &[0, 0]),
    ("clone user namespace", libc::SYS_clone, &[0x1000_0011, 0, 0, 0, 0]),
    ("clone mount namespace", libc::SYS_clone, &[0x0002_0011, 0, 0, 0, 0]),
    ("unshare nothing", libc::SYS_unshare, &[0]),
    ("unshare user", libc::SYS_unshare, &[0x1000_0000]),
    ("setns", libc::SYS_setns, &[-1, 0]),
    ("mount", libc::SYS_mount, &[0, 0, 0, 0, 0]),
    ("umount2", libc::SYS_umount2, &[0, 0]),
    ("pivot_root", libc::SYS_pivot_root, &[0, 0]),
    ("chroot", libc::SYS_chroot, &[0]),
    ("open_tree", libc::SYS_open_tree, &[-1, 0, 0]),
    ("move_mount", libc::SYS_move_mount, &[-1, 0, -1, 0, 0]),
    ("fsopen", libc::SYS_fsopen, &[0, 0]),
    ("fsmount", libc::SYS_fsmount, &[-1, 0, 0]),
    ("mount_setattr", libc::SYS_mount_setattr, &[-1, 0, 0, 0, 0]),
    ("name_to_handle_at", libc::SYS_name_to_handle_at, &[-1, 0, 0, 0, 0]),
    ("open_by_handle_at", libc::SYS_open_by_handle_at, &[-1, 0, 0]),
    ("bpf", libc::SYS_bpf, &[0, 0, 0]),
    ("perf_event_open", libc::SYS_perf_event_open, &[0, 0, 0, 0, 0]),
    ("userfaultfd", libc::SYS_userfaultfd, &[0xffff]),
    ("io_uring_setup", libc::SYS_io_uring_setup, &[0, 0]),
    ("io_uring_enter", libc::SYS_io_uring_enter, &[-1, 0, 0, 0, 0, 0]),
    ("keyctl session", libc::SYS_keyctl, &[1, 0, 0, 0, 0]),
    ("add_key", libc::SYS_add_key, &[0, 0, 0, 0, 0]),
    ("request_key", libc::SYS_request_key, &[0, 0, 0, 0]),
    ("kexec_load", libc::SYS_kexec_load, &[0, 0, 0, 0]),
    ("init_module", libc::SYS_init_module, &[0, 0, 0]),
    ("finit_module", libc::SYS_finit_module, &[-1, 0, 0]),
    ("delete_module", libc::SYS_delete_module, &[0, 0]),
    ("reboot", libc::SYS_reboot, &[0, 0, 0, 0]),
    ("swapon", libc::SYS_swapon, &[0, 0]),
    ("swapoff", libc::SYS_swapoff, &[0]),
    ("acct", libc::SYS_acct, &[1]),
    ("quotactl", libc::SYS_quotactl, &[0, 0, 0, 0]),
    ("syslog", libc::SYS_syslog, &[-1, 0, 0]),
    ("clock_settime", libc::SYS_clock_settime, &[0, 0]),
    ("settimeofday", libc::SYS_settimeofday, &[1, 0]),
    ("adjtimex read", libc::SYS_adjtimex, &[0]),
    ("sethostname", libc::SYS_sethostname, &[0, -1]),
    ("setdomainname", libc::SYS_setdomainname, &[0, -1]),
    ("setpriority up", libc::SYS_setpriority, &[0, 0, -1]),
    ("sched_setscheduler", libc::SYS_sched_setscheduler, &[0, 1, 0]),
    ("fanotify_init", libc::SYS_fanotify_init, &[0, 0]),
    ("kcmp", libc::SYS_kcmp, &[0, 0, 0, 0, 0]),
    ("pidfd_getfd", libc::SYS_pidfd_getfd, &[-1, 0, 0]),
    ("process_madvise", libc::SYS_process_madvise, &[-1, 0, 0, 0, 0]),
    ("mbind", libc::SYS_mbind, &[0, 0, 0, 0, 0, 0]),
    ("move_pages", libc::SYS_move_pages, &[0, 0, 0, 0, 0, 0]),
    ("vhangup", libc::SYS_vhangup, &[]),
    ("mknod odd", libc::SYS_mknodat, &[-1, 0, 0, 0]),
    ("landlock version", libc::SYS_landlock_create_ruleset, &[0, 0, 1]),
    ("seccomp ask", libc::SYS_seccomp, &[9, 0, 0]),
    ("unknown", 9999, &[]),
    #[cfg(target_arch = "x86_64")]
    ("iopl", libc::SYS_iopl, &[4]),
    #[cfg(target_arch = "x86_64")]
    ("ioperm", libc::SYS_ioperm, &[-1, 0, 0]),
    #[cfg(target_arch = "x86_64")]
    ("ustat", libc::SYS_ustat, &[-1, 0]),
    #[cfg(target_arch = "x86_64")]
    ("sysfs", libc::SYS_sysfs, &[9, 0, 0]),
    #[cfg(target_arch = "x86_64")]
    ("uselib", libc::SYS_uselib, &[0]),
    #[cfg(target_arch = "x86_64")]
    ("modify_ldt", libc::SYS_modify_ldt, &[9, 0, 0]),
    #[cfg(target_arch = "x86_64")]
    ("x32 getpid", 0x4000_0000 + libc::SYS_getpid, &[]),
];

fn calls() -> Vec<String> {
    CALLS.iter().map(|(name, number, arguments)| format!("{name}: {}", outcome(*number, arguments))).collect()
}

/// Whether it got through to the kernel proper, or how it was refused.
fn outcome(number: libc::c_long, arguments: &[libc::c_long]) -> String {
    let mut all = [0; 6];
    all[..arguments.len()].copy_from_slice(arguments);
    match call(number, all) {
        Ok(()) => "allowed".to_owned(),
        Err(error) => match error.raw_os_error() {
            Some(libc::EPERM) => "EPERM".to_owned(),
            Some(libc::ENOSYS) => "ENOSYS".to_owned(),
            Some(libc::EACCES) => "EACCES".to_owned(),
            // What it says of its arguments depends on the kernel; that it says anything is what counts.
            _ => "allowed".to_owned(),
        },
    }
}

/// Makes a call by its number. A new process, should a call make one, ends at once.
#[expect(
    unsafe_code,
    reason = "calls that must be refused have no safe wrapper, and this program never ships"
)]
fn call(number: libc::c_long, [a, b, c, d, e, f]: [libc::c_long; 6]) -> std::io::Result<()> {
    // SAFETY: every pointer in the table is null or invalid on purpose, and no call of it writes to memory without one. A clone without a
    // stack of its own is a fork; the child leaves at once, without running anything of this process.
    unsafe {
        let result = libc::syscall(number, a, b, c, d, e, f);
        if number == libc::SYS_clone && result == 0 {
            libc::_exit(0);
        }
        if result == -1 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// What engines hide of the machine.
const MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/devices/system/cpu/cpu0/thermal_throttle",
    "/sys/firmware",
    "/proc/kmsg",
    "/proc/kpagecount",
    "/proc/sysrq-trigger",
    "/proc/1/mem",
    "/proc/self/mem",
    "/sys/kernel/debug",
    "/sys/kernel/tracing",
    "/sys/kernel/security",
    "/sys/fs/bpf",
    "/sys/fs/cgroup",
];

fn masks() -> Vec<String> {
    MASKED.iter().map(|path| format!("{path}: {}", what_is_read(Path::new(path)))).collect()
}

/// A file that is not there and one that is covered are as good as each other.
fn what_is_read(path: &Path) -> &'static str {
    let is_shown = match fs::metadata(path) {
        Ok(found) if found.is_dir() => fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some()),
        Ok(_) => File::open(path).and_then(|mut file| file.read(&mut [0; 16])).is_ok_and(|read| read > 0),
        Err(_) => false,
    };
    if is_shown { "shown" } else { "hidden" }
}

/// Places that would change the machine.
const WRITTEN: &[&str] = &[
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/hostname",
    "/proc/sys/net/ipv4/ip_forward",
    "/proc/sys/vm/drop_caches",
    "/proc/sysrq-trigger",
    "/proc/self/oom_score_adj",
    "/proc/self/timens_offsets",
    "/proc/self/uid_map",
    "/sys/kernel/uevent_helper",
    "/sys/power/state",
    "/sys/fs/cgroup/cgroup.procs",
    "/sys/fs/cgroup/memory/release_agent",
    "/etc/hosts",
    "/etc/resolv.conf",
    "/etc/hostname",
    "/dev/shm",
    "/dev",
    "/",
];

fn writable() -> Vec<String> {
    WRITTEN.iter().map(|path| format!("{path}: {}", what_is_writable(Path::new(path)))).collect()
}

/// Opens for writing and writes nothing; of a directory, makes a file and removes it.
fn what_is_writable(path: &Path) -> String {
    let is_directory = fs::metadata(path).is_ok_and(|found| found.is_dir());
    let result = if is_directory {
        let file = path.join("probe-of-writing");
        File::create_new(&file).and_then(|_| fs::remove_file(&file))
    } else {
        File::options().write(true).open(path).map(drop)
    };
    result.map_or_else(|error| error_name(&error), |()| "writable".to_owned())
}

fn error_name(error: &std::io::Error) -> String {
    match (error.kind(), error.raw_os_error()) {
        (ErrorKind::NotFound, _) => "absent".to_owned(),
        (_, Some(libc::EPERM)) => "EPERM".to_owned(),
        (_, Some(libc::EACCES)) => "EACCES".to_owned(),
        (_, Some(libc::EROFS)) => "EROFS".to_owned(),
        (_, Some(libc::EIO)) => "EIO".to_owned(),
        _ => error.to_string(),
    }
}

fn devices() -> Vec<String> {
    let mut lines = BTreeSet::new();
    collect(Path::new("/dev"), &mut lines);
    lines.into_iter().collect()
}

fn collect(directory: &Path, lines: &mut BTreeSet<String>) {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()) {
        let Ok(found) = fs::symlink_metadata(&path) else { continue };
        lines.insert(format!("{} {}", path.display(), described(&path, &found)));
        if found.is_dir() {
            collect(&path, lines);
        }
    }
}

fn described(path: &Path, found: &fs::Metadata) -> String {
    let device = (libc::major(found.rdev()), libc::minor(found.rdev()));
    let mode = found.permissions().mode() & 0o7777;
    let owner = (found.uid(), found.gid());
    match kind(found.file_type()) {
        "link" => format!("-> {}", fs::read_link(path).unwrap_or_default().display()),
        kind @ ("char" | "block") => {
            format!("{kind} {}:{} {mode:04o} {}:{}", device.0, device.1, owner.0, owner.1)
        }
        kind => format!("{kind} {mode:04o} {}:{}", owner.0, owner.1),
    }
}

fn kind(kind: FileType) -> &'static str {
    if kind.is_symlink() {
        "link"
    } else if kind.is_char_device() {
        "char"
    } else if kind.is_block_device() {
        "block"
    } else if kind.is_dir() {
        "directory"
    } else if kind.is_fifo() {
        "fifo"
    } else if kind.is_socket() {
        "socket"
    } else {
        "file"
    }
}

fn descriptors() -> Vec<String> {
    let entries = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let mut open: Vec<u32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    open.sort_unstable();
    let target = |number: &u32| {
        let target = fs::read_link(format!("/proc/self/fd/{number}")).ok()?.to_string_lossy().into_owned();
        // A pipe's number is of no interest; the directory that was just read is closed by now.
        Some(format!("{number} {}", target.split(":[").next().unwrap_or_default()))
    };
    open.iter().filter_map(target).collect()
}

fn environment() -> Vec<String> {
    let shown =
        |name: &str, value: &str| if name == "HOSTNAME" { host_name(value) } else { value.to_owned() };
    let all: BTreeSet<String> =
        std::env::vars().map(|(name, value)| format!("{name}={}", shown(&name, &value))).collect();
    all.into_iter().collect()
}

/// A name that is no one's choice differs from run to run.
fn host_name(name: &str) -> String {
    let is_id = name.len() == 12 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_id { "(an id)".to_owned() } else { name.to_owned() }
}

/// Limits that come from the size of the machine's memory, or from how the person who starts the engine has logged in.
const LIMITS_OF_THE_MACHINE: &[&str] =
    &["Max processes", "Max pending", "Max open files", "Max core file size", "Max locked memory"];

fn limits() -> Vec<String> {
    let is_of_the_machine =
        |line: &&str| LIMITS_OF_THE_MACHINE.iter().any(|beginning| line.starts_with(beginning));
    text("/proc/self/limits").lines().skip(1).filter(|line| !is_of_the_machine(line)).map(words).collect()
}

/// Without sources, numbers and the options of overlays, which name directories of the machine; without what masks files, which is told already;
/// and all mounts of control groups as one, since how many there are is the machine's affair.
fn mounts() -> Vec<String> {
    let mut lines = BTreeSet::new();
    for line in text("/proc/self/mountinfo").lines() {
        let Some((before, after)) = line.split_once(" - ") else { continue };
        let fields: Vec<&str> = before.split(' ').collect();
        let [_, _, _, _, place, options, propagation @ ..] = fields.as_slice() else { continue };
        let is_mask = MASKED.contains(place) || place.starts_with("/sys/devices/");
        if is_mask && !place.starts_with(GROUPS) {
            continue;
        }
        let (place, kind) = match after.split(' ').next().unwrap_or_default() {
            "cgroup" | "cgroup2" => (GROUPS, "cgroup"),
            kind => (*place, kind),
        };
        let propagation = if propagation.is_empty() { "private" } else { "not private" };
        lines.insert(format!("{place} {kind} {options} {propagation}"));
    }
    lines.into_iter().collect()
}

const GROUPS: &str = "/sys/fs/cgroup";

fn machine() -> Vec<String> {
    let entries = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let mut interfaces: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    interfaces.sort();
    let mut told = vec![
        format!("host name {}", host_name(text("/proc/sys/kernel/hostname").trim())),
        format!("network {}", interfaces.join(" ")),
    ];
    for file in ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/.dockerenv"] {
        let mode = fs::metadata(file).map(|found| format!("{:04o}", found.permissions().mode() & 0o7777));
        told.push(format!("{file} {}", mode.unwrap_or_else(|error| error_name(&error))));
    }
    let groups = text("/proc/self/cgroup");
    let is_root = groups.lines().all(|line| line.ends_with(":/"));
    told.push(format!("control groups are {} their own root", if is_root { "at" } else { "below" }));
    told
}

fn text(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| error_name(&error))
}
