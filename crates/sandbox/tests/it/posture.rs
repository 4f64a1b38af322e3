//! What a process may do and sees: capabilities, users, system calls, descriptors, environment, network.

use std::fs;
use std::os::fd::AsRawFd as _;

use expect_test::{Expect, expect};
use sandbox::{Feature, HelperProgram, Machine, Network, NewPrivileges, PidOne, Posture, Sandboxes};

use testkit::requirements::{Need, can_run};

use crate::world::{World, driver, owner, test_name};

#[track_caller]
fn check_user(world: &World, user: &str, expected: Expect) {
    let mut spec =
        world.spec("id -u; id -g; id -G; echo $HOME; grep -E 'Cap(Prm|Eff|Bnd)' /proc/self/status");
    spec.user = user.parse().unwrap();
    let shown = world.try_run(&spec).map_or_else(|e| e.to_string(), |ran| ran.stdout.replace('\n', " "));
    expected.assert_eq(&shown.replace('\t', ""));
}

#[test]
fn users_get_their_groups_home_and_capabilities() {
    let Some(world) = World::new() else { return };
    check_user(
        &world,
        "",
        expect!["0 0 0 4 /root CapPrm:00000000a80425fb CapEff:00000000a80425fb CapBnd:00000000a80425fb "],
    );
    check_user(
        &world,
        "app",
        expect![
            "1000 1001 1001 4 /home/app CapPrm:0000000000000000 CapEff:0000000000000000 CapBnd:00000000a80425fb "
        ],
    );
    check_user(
        &world,
        "1000",
        expect![
            "1000 1001 1001 4 /home/app CapPrm:0000000000000000 CapEff:0000000000000000 CapBnd:00000000a80425fb "
        ],
    );
    check_user(
        &world,
        "4711",
        expect!["4711 0 0 / CapPrm:0000000000000000 CapEff:0000000000000000 CapBnd:00000000a80425fb "],
    );
    check_user(
        &world,
        "0:0",
        expect!["0 0 0 /root CapPrm:00000000a80425fb CapEff:00000000a80425fb CapBnd:00000000a80425fb "],
    );
    check_user(
        &world,
        "app:adm",
        expect![
            "1000 4 4 /home/app CapPrm:0000000000000000 CapEff:0000000000000000 CapBnd:00000000a80425fb "
        ],
    );
    check_user(
        &world,
        "nosuch",
        expect!["unable to find user `nosuch`: no entry in /etc/passwd of the image"],
    );
}

#[test]
fn the_other_sets_are_empty_and_a_filter_is_installed() {
    let Some(world) = World::new() else { return };
    let script = "grep -E 'CapInh|CapAmb|NoNewPrivs|Seccomp:' /proc/self/status";
    expect![[r#"
        CapInh:	0000000000000000
        CapAmb:	0000000000000000
        NoNewPrivs:	0
        Seccomp:	2
    "#]]
    .assert_eq(&world.output(script));
    let mut spec = world.spec("grep NoNewPrivs /proc/self/status");
    spec.new_privileges = NewPrivileges::Denied;
    assert_eq!(world.output_of(&spec), "NoNewPrivs:\t1\n");
}

#[test]
fn an_insecure_process_may_do_what_root_may() {
    let Some(world) = World::new() else { return };
    let script = r"
        grep -E 'Seccomp:|NoNewPrivs' /proc/self/status
        mkdir /m && mount -t tmpfs none /m && echo mounted
        mknod /disk b 7 0 && echo made
        (echo inside > /proc/sys/kernel/hostname) 2>/dev/null && echo writable
        grep -q ' /sys sysfs rw' /proc/mounts && echo sys
        test -c /dev/loop-control && test -b /dev/loop0 && echo loop
        # A null device that an image could have brought.
        mknod /null c 1 3 && echo x > /null && echo opened
        ";
    let mut spec = world.spec(script);
    let confined = world.output_of(&spec);
    assert!(!["mounted", "writable", "sys", "loop"].iter().any(|word| confined.contains(word)), "{confined}");
    spec = world.spec(script);
    spec.posture = Posture::Insecure;
    expect![[r#"
        NoNewPrivs:	0
        Seccomp:	0
        mounted
        made
        writable
        sys
        loop
        opened
    "#]]
    .assert_eq(&world.output_of(&spec));
    // Nothing of it stays with the next one.
    spec = world.spec("grep Seccomp: /proc/self/status; mount -t tmpfs none /m 2>&1 | grep -c denied");
    assert_eq!(world.output_of(&spec), "Seccomp:\t2\n1\n");
}

#[test]
fn the_environment_umask_limits_and_descriptors_are_those_asked_for() {
    let Some(world) = World::new() else { return };
    let mut spec = world.spec("env | grep -v -E '^(SHLVL|PWD)=' | sort; umask; ulimit -n; ulimit -Hn; hostname; ls /proc/self/fd | wc -l");
    spec.env.push(("A".into(), "b c=d".into()));
    spec.env.push(("HOME".into(), "".into()));
    spec.limits.ulimits = vec!["nofile=1000:1234".parse().unwrap()];
    // Three, and the one that `ls` reads the directory with.
    expect![[r#"
        A=b c=d
        HOME=/root
        PATH=/bin
        0022
        1000
        1234
        buildkitsandbox
        4
    "#]]
    .assert_eq(&world.output_of(&spec));
}

#[test]
fn signals_are_neither_blocked_nor_ignored() {
    let Some(world) = World::new() else { return };
    // Without a shell, which has its own ideas about SIGQUIT.
    let mut spec = world.spec("");
    spec.args = ["grep", "-E", "Sig(Blk|Ign)", "/proc/self/status"].map(Into::into).to_vec();
    assert_eq!(world.output_of(&spec), "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
}

#[track_caller]
fn check_refused(world: &World, script: &str, expected: Expect) {
    expected.assert_eq(&world.output(script));
}

#[test]
fn system_calls_are_refused_as_docker_refuses_them() {
    let Some(world) = World::new() else { return };
    check_refused(
        &world,
        "unshare -U true; unshare -m true",
        expect![[r#"
        unshare: unshare(0x10000000): Operation not permitted
        unshare: unshare(0x20000): Operation not permitted
    "#]],
    );
    check_refused(
        &world,
        "mount -t tmpfs none /tmp",
        expect![[r#"
        mount: permission denied (are you root?)
    "#]],
    );
    check_refused(
        &world,
        "swapoff /tmp",
        expect![[r#"
        swapoff: /tmp: Operation not permitted
    "#]],
    );
    check_refused(
        &world,
        "chroot / /bin/echo chroot works",
        expect![[r#"
        chroot works
    "#]],
    );
    check_refused(
        &world,
        "hostname other",
        expect![[r#"
        hostname: sethostname: Operation not permitted
    "#]],
    );
    check_refused(
        &world,
        "date -s 2000-01-01 >/dev/null",
        expect![[r#"
        date: can't set date: Operation not permitted
    "#]],
    );
    check_refused(
        &world,
        "dmesg",
        expect![[r#"
        dmesg: klogctl: Operation not permitted
    "#]],
    );
}

/// Calls by number, as `name number arguments…`, made by perl, which every Debian has. The root is the machine's own under an upper.
const CALLS: &str = "socket-unix 41 1 1 0, socket-inet 41 2 1 0, socket-alg 41 38 5 0, socket-vsock 41 40 1 0, \
    personality-ask 135 4294967295, personality-odd 135 4194304, ioctl-tiocsti 16 0 21522 0, ioctl-tioclinux 16 0 21532 0, \
    ptrace-traceme 101 0 0 0 0, clone3 435 0 0, clone-newuser 56 268435473 0 0 0 0, unshare 272 0, setns 308 0 0, mount 165 0 0 0 0 0, \
    umount2 166 0 0, pivot_root 155 0 0, open_tree 428 0 0 0, move_mount 429 0 0 0 0 0, fsopen 430 0 0, mount_setattr 442 0 0 0 0 0, \
    bpf 321 0 0 0, perf_event_open 298 0 0 0 0 0, userfaultfd 323 0, keyctl 250 0 0 0 0 0, add_key 248 0 0 0 0 0, \
    request_key 249 0 0 0 0, io_uring_setup 425 0 0, open_by_handle_at 304 0 0 0, kexec_load 246 0 0 0 0, init_module 175 0 0 0, \
    finit_module 313 0 0 0, delete_module 176 0 0, reboot 169 0 0 0 0, swapon 167 0 0, acct 163 0, syslog 103 0 0 0, iopl 172 3, \
    ioperm 173 0 0 0, clock_settime 227 0 0, settimeofday 164 0 0, sethostname 170 0 0, quotactl 179 0 0 0 0, \
    fanotify_init 300 0 0, kcmp 312 0 0 0 0 0, pidfd_getfd 438 0 0 0, process_madvise 440 0 0 0 0 0, mbind 237 0 0 0 0 0 0, \
    vhangup 153, uselib 134 0, ustat 136 0 0, sysfs 139 0 0 0, unknown 9999, x32-getpid 1073741863, getpid 39, umask 95 18";

#[test]
#[cfg(target_arch = "x86_64")]
fn system_calls_by_number_end_as_docker_ends_them() {
    let Some(world) = World::new() else { return };
    if !can_run(&test_name(), &[Need::Program("perl")]) {
        return;
    }
    let mut spec = world.spec("");
    spec.root.lower = vec!["/".into()];
    spec.env = vec![("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into())];
    let program = format!(
        "for (split /,\\s*/, '{CALLS}') {{ my ($name, $number, @rest) = split; $! = 0; \
           my $result = syscall(int $number, map {{ int }} @rest); \
           printf \"%s %s\\n\", $name, $result == -1 ? $! + 0 : 'ok' }}"
    );
    spec.args = ["perl", "-e", &program].map(Into::into).to_vec();
    expect![[r#"
        socket-unix ok
        socket-inet ok
        socket-alg 1
        socket-vsock 1
        personality-ask ok
        personality-odd 1
        ioctl-tiocsti 1
        ioctl-tioclinux 1
        ptrace-traceme ok
        clone3 38
        clone-newuser 1
        unshare 1
        setns 1
        mount 1
        umount2 1
        pivot_root 1
        open_tree 1
        move_mount 1
        fsopen 1
        mount_setattr 1
        bpf 1
        perf_event_open 1
        userfaultfd 1
        keyctl 1
        add_key 1
        request_key 1
        io_uring_setup 1
        open_by_handle_at 1
        kexec_load 1
        init_module 1
        finit_module 1
        delete_module 1
        reboot 1
        swapon 1
        acct 1
        syslog 1
        iopl 1
        ioperm 1
        clock_settime 1
        settimeofday 1
        sethostname 1
        quotactl 1
        fanotify_init 1
        kcmp 1
        pidfd_getfd 1
        process_madvise 1
        mbind 1
        vhangup 1
        uselib 1
        ustat 1
        sysfs 1
        unknown 38
        x32-getpid 38
        getpid ok
        umask ok
    "#]]
    .assert_eq(&world.output_of(&spec));
}

#[test]
fn without_a_network_there_is_only_loopback_and_it_is_up() {
    let Some(world) = World::new() else { return };
    let mut spec =
        world.spec("ls /sys/class/net; ip -o addr | cut -d' ' -f2,7; ls /sys/firmware | wc -l; touch /sys/x");
    spec.network = Network::None;
    expect![[r#"
        lo
        lo 127.0.0.1/8
        lo ::1/128
        0
        touch: /sys/x: Read-only file system
    "#]]
    .assert_eq(&world.output_of(&spec));
}

#[test]
fn the_network_of_the_machine_is_the_same_one() {
    let Some(world) = World::new() else { return };
    let ours = std::fs::read_link("/proc/self/ns/net").unwrap();
    let inside = world.output("readlink /proc/self/ns/net");
    assert_eq!(inside.trim(), ours.to_str().unwrap());
    for namespace in ["mnt", "pid", "uts", "ipc", "cgroup"] {
        let ours = std::fs::read_link(format!("/proc/self/ns/{namespace}")).unwrap();
        let inside = world.output(&format!("readlink /proc/self/ns/{namespace}"));
        assert_ne!(inside.trim(), ours.to_str().unwrap());
    }
}

#[test]
fn devices_beyond_dockers_list_cannot_be_opened() {
    let script = "mknod /tmp/disk b 254 0 && cat /tmp/disk | head -c1; mknod /tmp/mem c 1 1; cat /tmp/mem; \
                  mknod /tmp/null c 1 3 && echo x > /tmp/null && echo null works; echo y > /dev/null && echo dev works";
    let Some(world) = World::new() else { return };
    expect![[r#"
        null works
        dev works
        cat: can't open '/tmp/disk': Operation not permitted
        cat: can't open '/tmp/mem': Operation not permitted
    "#]]
    .assert_eq(&world.output(script));
    let world = World::without(&[Feature::DeviceFilter]).unwrap();
    expect![[r#"
        dev works
        cat: can't open '/tmp/disk': Permission denied
        cat: can't open '/tmp/mem': Permission denied
        /bin/sh: can't create /tmp/null: Permission denied
    "#]]
    .assert_eq(&world.output(script));
    let world = World::without(&[Feature::Cgroup2, Feature::Cgroup1]).unwrap();
    expect![[r#"
        dev works
        cat: can't open '/tmp/disk': Permission denied
        cat: can't open '/tmp/mem': Permission denied
        /bin/sh: can't create /tmp/null: Permission denied
    "#]]
    .assert_eq(&world.output(script));
}

/// A process inside that still executes our own program is the init.
const WRITE_TO_PROGRAM: &str = "(: >> /proc/1/exe); chmod 0 /proc/1/exe; touch /proc/1/exe";

#[test]
fn our_own_program_cannot_be_written_to_from_inside() {
    let Some(world) = World::new() else { return };
    let mut spec = world.spec(WRITE_TO_PROGRAM);
    spec.pid_one = PidOne::Init;
    expect![[r#"
        /bin/sh: can't create /proc/1/exe: Text file busy
        chmod: /proc/1/exe: Read-only file system
        touch: /proc/1/exe: Read-only file system
    "#]]
    .assert_eq(&world.output_of(&spec));
}

#[test]
fn a_program_that_cannot_be_mounted_is_copied_into_memory() {
    let Some(mut world) = World::new() else { return };
    let HelperProgram::File(path) = driver() else { panic!("the driver is a file") };
    // A file in memory lies on no mount that could be copied.
    let program = sys::memory_file::sealed_copy("driver", &mut fs::File::open(path).unwrap()).unwrap();
    let path = format!("/proc/{}/fd/{}", std::process::id(), program.as_raw_fd());
    world.sandboxes =
        Sandboxes::open(Machine::probe(&[]).unwrap(), owner(), HelperProgram::File(path.into())).unwrap();
    assert_eq!(world.output("echo started"), "started\n");
    let mut spec = world.spec("(: >> /proc/1/exe) 2>/dev/null || echo refused");
    spec.pid_one = PidOne::Init;
    assert_eq!(world.output_of(&spec), "refused\n");
}
