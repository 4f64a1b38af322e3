//! What a process sees as files: `/proc`, `/sys`, `/dev`, the kinds of mounts, layers.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use expect_test::{Expect, expect};
use sandbox::{
    Access, BindSource, Content, Durability, Feature, Layers, MissingCwd, Mount, MountKind, SandboxError,
    Upper,
};

use crate::world::{World, base, path};

/// Mount point, kind and flags of every mount, without what differs between machines.
const MOUNTS: &str =
    "awk '{ print $5, $(NF-2), $6 }' /proc/self/mountinfo | grep -v -E '^/(proc|sys)/.*' | sort";

#[test]
fn the_mounts_are_these_and_nothing_of_the_machine() {
    let Some(world) = World::new() else { return };
    expect![[r#"
        / overlay rw,relatime
        /dev tmpfs rw,nosuid
        /dev/full devtmpfs rw,relatime
        /dev/mqueue mqueue rw,nosuid,nodev,noexec,relatime
        /dev/null devtmpfs rw,relatime
        /dev/pts devpts rw,nosuid,noexec,relatime
        /dev/random devtmpfs rw,relatime
        /dev/shm tmpfs rw,nosuid,nodev,noexec,relatime
        /dev/tty devtmpfs rw,relatime
        /dev/urandom devtmpfs rw,relatime
        /dev/zero devtmpfs rw,relatime
        /proc proc rw,nosuid,nodev,noexec,relatime
        /sys sysfs ro,nosuid,nodev,noexec,relatime
    "#]]
    .assert_eq(&world.output(MOUNTS));
    let all = world.output("cat /proc/self/mountinfo");
    assert!(!all.contains(world.scratch.path().to_str().unwrap()), "{all}");
    assert!(!all.contains("master:") && !all.contains("shared:"), "{all}");
    assert_eq!(world.output("ls -di / /.. | awk '{print $1}' | uniq | wc -l"), "1\n");
}

#[test]
fn masked_and_read_only_paths_are() {
    let Some(world) = World::new() else { return };
    let script = "for f in interrupts keys timer_list; do cat /proc/$f | wc -c; done; ls /sys/firmware | wc -l; \
        echo 1 > /proc/sys/kernel/printk; touch /sys/x; echo 0 > /proc/self/oom_score_adj && echo own settings work; \
        touch /sys/fs/cgroup/x";
    expect![[r#"
        0
        0
        0
        0
        own settings work
        /bin/sh: can't create /proc/sys/kernel/printk: Read-only file system
        touch: /sys/x: Read-only file system
        touch: /sys/fs/cgroup/x: Read-only file system
    "#]]
    .assert_eq(&world.output(script));
}

#[test]
fn dev_has_what_docker_gives_it() {
    let Some(world) = World::new() else { return };
    let script = "cd /dev; ls -l | awk '{ print $1, $3, $4, $NF }'; head -c 3 zero | wc -c; ls -ld /dev shm mqueue | cut -c1-10";
    expect![[r#"
        total   0
        lrwxrwxrwx root root /proc/kcore
        lrwxrwxrwx root root /proc/self/fd
        crw-rw-rw- root root full
        drwxrwxrwt root root mqueue
        crw-rw-rw- root root null
        lrwxrwxrwx root root pts/ptmx
        drwxr-xr-x root root pts
        crw-rw-rw- root root random
        drwxrwxrwt root root shm
        lrwxrwxrwx root root /proc/self/fd/2
        lrwxrwxrwx root root /proc/self/fd/0
        lrwxrwxrwx root root /proc/self/fd/1
        crw-rw-rw- root root tty
        crw-rw-rw- root root urandom
        crw-rw-rw- root root zero
        3
        drwxr-xr-x
        drwxrwxrwt
        drwxrwxrwt
    "#]]
    .assert_eq(&world.output(script));
}

#[test]
fn setting_up_leaves_nothing_in_the_upper() {
    let Some(world) = World::new() else { return };
    let mut spec = world.spec("true");
    for target in ["etc/hosts", "etc/resolv.conf"] {
        let content = Content(b"x".to_vec());
        let kind = MountKind::File { content, mode: 0o644, uid: 0, gid: 0 };
        spec.mounts.push(Mount { target: path(target), kind });
    }
    let upper = spec.root.upper.as_ref().unwrap().directory.clone();
    assert_eq!(world.run(&spec).exit.code(), 0);
    assert_eq!(fs::read_dir(upper).unwrap().count(), 0);
}

#[test]
fn writes_land_in_the_upper_and_nowhere_else() {
    let Some(world) = World::new() else { return };
    let spec = world.spec("echo new > /tmp/file; rm /etc/hosts; mkdir /etc/d");
    let upper = spec.root.upper.as_ref().unwrap().directory.clone();
    assert_eq!(world.run(&spec).exit.code(), 0);
    assert_eq!(fs::read_to_string(upper.join("tmp/file")).unwrap(), "new\n");
    assert_eq!(fs::metadata(upper.join("etc/hosts")).unwrap().rdev(), 0);
    assert!(upper.join("etc/d").is_dir());
    assert!(base().join("etc/hosts").exists() && !base().join("tmp/file").exists());
}

/// Runs `script` with one mount and gives its output, or the error.
#[track_caller]
fn check_mount(world: &World, target: &str, kind: MountKind, script: &str, expected: Expect) {
    let mut spec = world.spec(script);
    spec.mounts.push(Mount { target: path(target), kind });
    let shown = world.try_run(&spec).map_or_else(|e| e.to_string(), |ran| ran.stdout + &ran.stderr);
    expected.assert_eq(&shown);
}

#[test]
fn binds_show_directories_and_files_with_their_access() {
    let Some(world) = World::new() else { return };
    let source = world.directory("source");
    fs::write(source.join("file"), "content\n").unwrap();
    let bind = |path: PathBuf, access| MountKind::Bind { source: BindSource::Path(path), access };
    let script = "cat /tmp/file; echo new > /tmp/written; echo $?";
    check_mount(
        &world,
        "tmp",
        bind(source.clone(), Access::ReadOnly),
        script,
        expect![[r#"
        content
        1
        /bin/sh: can't create /tmp/written: Read-only file system
    "#]],
    );
    check_mount(
        &world,
        "tmp",
        bind(source.clone(), Access::ReadWrite),
        script,
        expect![[r#"
        content
        0
    "#]],
    );
    assert_eq!(fs::read_to_string(source.join("written")).unwrap(), "new\n");
    let file = source.join("file");
    check_mount(
        &world,
        "etc/hosts",
        bind(file.clone(), Access::ReadOnly),
        "cat /etc/hosts",
        expect![[r#"
        content
    "#]],
    );
    check_mount(
        &world,
        "tmp",
        bind(file.clone(), Access::ReadOnly),
        "",
        expect!["mount point `/tmp` and what is mounted there are not both directories or both files"],
    );
    check_mount(
        &world,
        "etc/hosts",
        bind(source.clone(), Access::ReadOnly),
        "",
        expect!["mount point `/etc/hosts` and what is mounted there are not both directories or both files"],
    );
    check_mount(
        &world,
        "nosuch",
        bind(source.clone(), Access::ReadOnly),
        "",
        expect!["mount point `/nosuch` does not exist in the root"],
    );
    check_mount(
        &world,
        "tmp",
        bind("/nosuch/source".into(), Access::ReadOnly),
        "",
        expect!["cannot open `/nosuch/source`, to be mounted at `/tmp`"],
    );
    let descriptor: OwnedFd = fs::File::open(&file).unwrap().into();
    let kind = MountKind::Bind { source: BindSource::Descriptor(descriptor), access: Access::ReadOnly };
    check_mount(
        &world,
        "etc/hosts",
        kind,
        "cat /etc/hosts",
        expect![[r#"
        content
    "#]],
    );
}

#[test]
fn files_and_tmpfs_are_in_memory_with_their_attributes() {
    let Some(world) = World::new() else { return };
    let file = |mode| MountKind::File { content: Content(b"echo secret".to_vec()), mode, uid: 1000, gid: 7 };
    let script = "stat -c '%a %u %g %F %s' /etc/hosts; cat /etc/hosts; echo; /etc/hosts; grep /etc/hosts /proc/mounts | cut -d' ' -f3,4 | cut -d, -f1-5";
    check_mount(
        &world,
        "etc/hosts",
        file(0o400),
        script,
        expect![[r#"
        400 1000 7 regular file 11
        echo secret
        tmpfs rw,nosuid,nodev,noexec,relatime
        /bin/sh: /etc/hosts: Permission denied
    "#]],
    );
    check_mount(
        &world,
        "etc/hosts",
        file(0o755),
        script,
        expect![[r#"
        755 1000 7 regular file 11
        echo secret
        secret
        tmpfs rw,nosuid,nodev,relatime,noswap
    "#]],
    );
    check_mount(
        &world,
        "dev/pipes/deep/EOF",
        file(0o755),
        "sh /dev/pipes/deep/EOF",
        expect![[r#"
        secret
    "#]],
    );
    let tmpfs = MountKind::Tmpfs { size_bytes: Some(1 << 20), mode: 0o1770 };
    let script = "stat -c '%a' /tmp; df -k /tmp | tail -1 | awk '{ print $1, $2 }'; dd if=/dev/zero of=/tmp/x bs=1M count=2 2>&1 | grep -i space";
    check_mount(
        &world,
        "tmp",
        tmpfs,
        script,
        expect![[r#"
        1770
        none 1024
        dd: error writing '/tmp/x': No space left on device
    "#]],
    );
}

#[test]
fn mount_points_below_a_tmpfs_are_made_and_outer_mounts_come_first() {
    let Some(world) = World::new() else { return };
    let mut spec = world.spec("cat /run/secrets/deep/token; ls -ld /run/secrets/deep | cut -c1-10");
    let content = Content(b"token\n".to_vec());
    let kind = MountKind::File { content, mode: 0o400, uid: 0, gid: 0 };
    spec.mounts.push(Mount { target: path("run/secrets/deep/token"), kind });
    spec.mounts.push(Mount { target: path("run"), kind: MountKind::Tmpfs { size_bytes: None, mode: 0o755 } });
    assert_eq!(world.output_of(&spec), "token\ndrwxr-xr-x\n");
}

#[test]
fn layers_with_a_throw_away_upper_are_writable_and_keep_nothing() {
    let Some(world) = World::new() else { return };
    let source = world.directory("context");
    fs::create_dir(source.join("sub")).unwrap();
    fs::write(source.join("sub/file"), "content\n").unwrap();
    symlink("/sub", source.join("link")).unwrap();
    let kind = |inner: &str, upper| MountKind::Layers {
        layers: Layers { lower: vec![source.clone()], upper },
        path: path(inner),
    };
    let script = "cat /tmp/file; echo changed > /tmp/file; cat /tmp/file; touch /tmp/new; ls /tmp";
    check_mount(
        &world,
        "tmp",
        kind("sub", Some(world.upper())),
        script,
        expect![[r#"
        content
        changed
        file
        new
    "#]],
    );
    check_mount(
        &world,
        "tmp",
        kind("link", Some(world.upper())),
        script,
        expect![[r#"
        content
        changed
        file
        new
    "#]],
    );
    check_mount(
        &world,
        "tmp",
        kind("sub", None),
        script,
        expect![[r#"
        content
        content
        file
        /bin/sh: can't create /tmp/file: Read-only file system
        touch: /tmp/new: Read-only file system
    "#]],
    );
    check_mount(
        &world,
        "etc/hosts",
        kind("sub/file", None),
        "cat /etc/hosts",
        expect![[r#"
        content
    "#]],
    );
    check_mount(
        &world,
        "tmp",
        kind("nosuch", None),
        "",
        expect!["`/nosuch`, to be mounted at `/tmp`, does not exist in its source"],
    );
    assert_eq!(fs::read_to_string(source.join("sub/file")).unwrap(), "content\n");
    assert_eq!(fs::read_dir(source.join("sub")).unwrap().count(), 1);
}

#[test]
fn targets_follow_links_inside_the_root_only() {
    let Some(world) = World::new() else { return };
    let mut spec = world.spec("cat /tmp/inside/data; ls /tmp/inside");
    let upper = spec.root.upper.as_ref().unwrap().directory.clone();
    let outside = world.directory("outside");
    fs::create_dir_all(upper.join("tmp/inside")).unwrap();
    // From outside this would lead to the scratch directory; from inside it is below the root.
    symlink("/../../../tmp/inside", upper.join("escape")).unwrap();
    let source = world.directory("data");
    fs::write(source.join("data"), "here\n").unwrap();
    let kind = MountKind::Bind { source: BindSource::Path(source), access: Access::ReadOnly };
    spec.mounts.push(Mount { target: path("escape"), kind });
    assert_eq!(world.output_of(&spec), "here\ndata\n");
    assert_eq!(fs::read_dir(outside).unwrap().count(), 0);
}

#[test]
fn a_root_with_proc_as_a_link_is_refused() {
    let Some(world) = World::new() else { return };
    let mut spec = world.spec("true");
    let lower = world.directory("odd");
    fs::create_dir(lower.join("elsewhere")).unwrap();
    symlink("elsewhere", lower.join("proc")).unwrap();
    spec.root.lower = vec![lower];
    let error = world.try_run(&spec).unwrap_err().to_string();
    assert_eq!(error, "mount point `/proc` and what is mounted there are not both directories or both files");
}

#[test]
fn a_read_only_root_is_but_its_mounts_are_not() {
    let Some(world) = World::new() else { return };
    let mut spec = world.spec("touch /x; touch /tmp/x && echo tmp; touch /dev/shm/x && echo shm");
    spec.root_access = Access::ReadOnly;
    spec.mounts
        .push(Mount { target: path("tmp"), kind: MountKind::Tmpfs { size_bytes: None, mode: 0o1777 } });
    assert_eq!(world.output_of(&spec), "tmp\nshm\ntouch: /x: Read-only file system\n");
}

#[test]
fn many_layers_fit_with_and_without_one_by_one() {
    for disabled in [&[][..], &[Feature::LowerdirAppend]] {
        let Some(world) = World::without(disabled) else { return };
        let mut spec =
            world.spec("cat /etc/number; ls /etc/layers | wc -l; echo w > /etc/layers/w && echo written");
        let lower: Vec<PathBuf> = (0..127)
            .map(|number| {
                let layer =
                    world.directory(&format!("layers-with-a-rather-long-name/{number}/{}", "x".repeat(64)));
                fs::create_dir_all(layer.join("etc/layers")).unwrap();
                fs::write(layer.join("etc/number"), format!("{number}\n")).unwrap();
                fs::write(layer.join(format!("etc/layers/{number}")), "").unwrap();
                layer
            })
            .collect();
        spec.root.lower.splice(0..0, lower);
        assert_eq!(world.output_of(&spec), "0\n127\nwritten\n", "{disabled:?}");
    }
}

#[test]
fn layers_that_cannot_be_mounted_say_why() {
    for disabled in [&[][..], &[Feature::LowerdirAppend]] {
        let Some(world) = World::without(disabled) else { return };
        let mut spec = world.spec("true");
        spec.root.lower.push("/nosuch/layer".into());
        let error = world.try_run(&spec).unwrap_err().to_string();
        assert_eq!(error, "cannot open layer directory `/nosuch/layer`");
        let mut spec = world.spec("true");
        let upper = spec.root.upper.as_mut().unwrap();
        upper.work = PathBuf::from("/proc");
        let error = world.try_run(&spec).unwrap_err().to_string();
        assert!(error.starts_with("cannot mount 1 layers as one file system"), "{error}");
    }
}

#[test]
fn mount_points_are_made_where_nothing_is_kept_and_only_there() {
    let Some(world) = World::new() else { return };
    let tmpfs = |target: &str| Mount {
        target: path(target),
        kind: MountKind::Tmpfs { size_bytes: None, mode: 0o700 },
    };
    let file = |target: &str| {
        let content = Content(b"text".to_vec());
        Mount { target: path(target), kind: MountKind::File { content, mode: 0o644, uid: 0, gid: 0 } }
    };
    let script = "stat -c '%n %F %a' /new /new/deep /etc/new; cat /etc/new; pwd; touch /x && echo written";
    let mut spec = world.spec(script);
    spec.mounts = vec![file("etc/new"), tmpfs("new/deep")];
    let refused = world.try_run(&spec).unwrap_err();
    assert!(matches!(refused, SandboxError::MissingTarget { .. }), "{refused}");

    // An empty root has not even the directories that every process needs.
    let empty = world.directory("empty");
    for access in [Access::ReadWrite, Access::ReadOnly] {
        spec.root.lower = vec![base().to_owned(), empty.clone()];
        let upper = Upper { durability: Durability::Discarded, ..world.upper() };
        fs::set_permissions(&upper.directory, fs::Permissions::from_mode(0o711)).unwrap();
        spec.root.upper = Some(upper);
        spec.root_access = access;
        spec.cwd = path("made/too");
        spec.missing_cwd = MissingCwd::Create;
        let written = if access == Access::ReadWrite { "written\n" } else { "" };
        let expected =
            "/new directory 755\n/new/deep directory 700\n/etc/new regular file 644\ntext/made/too\n";
        assert_eq!(world.run(&spec).stdout, format!("{expected}{written}"), "{access:?}");
    }
    assert_eq!(fs::read_dir(&empty).unwrap().count(), 0);
}
