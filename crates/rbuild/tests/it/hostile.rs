//! RUN steps that mean harm: each stays in its box, ends with its build, and leaves the machine as it was.
//!
//! What single system calls and paths give is in `probe`; here are the attacks that take more than one.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use testkit::leftovers;

use crate::building::Building;
use crate::world::{World, succeed, write_files};

/// What cancelling and tearing down may take; a build that hangs would take for ever.
const PROMPTLY: Duration = Duration::from_secs(10);

fn build_command(world: &World, dockerfile: &str) -> Command {
    let context = world.path("context");
    write_files(&context, &[("Dockerfile", dockerfile)]);
    let mut command = world.rbuild();
    command.args(["build", "--progress", "plain", "--tag", "app"]).arg(context);
    command
}

#[track_caller]
fn build(world: &World, dockerfile: &str) -> String {
    String::from_utf8_lossy(&succeed(&mut build_command(world, dockerfile)).stderr).into_owned()
}

fn try_build(world: &World, dockerfile: &str) -> Output {
    build_command(world, dockerfile).output().unwrap()
}

/// Bytes of the program that could be overwritten.
fn own_program() -> Vec<u8> {
    fs::read(env!("CARGO_BIN_EXE_rbuild")).unwrap()
}

#[test]
fn the_program_cannot_be_overwritten_through_proc() {
    let Some(world) = World::with_base("the_program_cannot_be_overwritten_through_proc") else { return };
    let before = own_program();
    // The interpreter is whatever executes the script: at the start of the RUN, that is us.
    let script = "#!/proc/self/exe\n";
    let attack = "FROM base\n\
        COPY --chmod=755 evil /evil\n\
        RUN (for i in $(seq 2000); do for p in /proc/[0-9]*/exe; do case $(readlink $p) in *busybox) ;; *) cp /bin/busybox $p && echo overwritten ;; esac; done; done) 2>/dev/null & for i in $(seq 20); do /evil; done; true\n\
        RUN [\"/evil\"]\n";
    write_files(&world.path("context"), &[("evil", script)]);
    let began = Instant::now();
    let output = try_build(&world, attack);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "a helper without its message is no program: {said}");
    assert!(!said.contains("| overwritten"), "{said}");
    assert!(began.elapsed() < 6 * PROMPTLY, "it took {:?}", began.elapsed());
    assert!(own_program() == before, "the program is another");
    leftovers::assert_nothing_left(&world.store());
}

#[test]
fn a_disk_of_the_machine_cannot_be_opened_in_a_run_or_later() {
    let Some(world) = World::with_base("a_disk_of_the_machine_cannot_be_opened_in_a_run_or_later") else {
        return;
    };
    let device = fs::metadata(world.path(".")).unwrap().dev();
    // major(3) and minor(3) of what is below 4096 and 256.
    let (major, minor) = ((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xf_ff00));
    let said = build(
        &world,
        &format!(
            "FROM base\nRUN mknod /disk b {major} {minor}; mknod /mem c 1 1; mknod /kmsg c 1 11; \
             for f in /disk /mem /kmsg; do head -c 1 $f > /dev/null && echo opened $f; done; true\n"
        ),
    );
    assert!(!said.contains("| opened"), "{said}");
    let later = world.rbuild().args(["run", "app", "head", "-c", "1", "/disk"]).output().unwrap();
    assert_eq!(later.status.code(), Some(1), "{later:?}");
    assert_eq!(later.stdout, b"");
}

#[test]
fn a_daemon_ends_with_its_step() {
    let Some(world) = World::with_base("a_daemon_ends_with_its_step") else { return };
    let began = Instant::now();
    build(
        &world,
        "FROM base\n\
         RUN setsid sh -c 'trap \"\" TERM HUP INT; while true; do sleep 1; done' & (setsid sleep 600 > /dev/null 2>&1 &) ; echo done\n\
         RUN test $(ls /proc | grep -c '^[0-9]') -lt 6\n",
    );
    assert!(began.elapsed() < PROMPTLY, "it took {:?}", began.elapsed());
    leftovers::assert_nothing_left(&world.store());
}

/// Many processes, in sessions of their own, deaf to what asks them to end.
const BOMB: &str = "FROM base\n\
    RUN for i in $(seq 300); do setsid sh -c 'trap \"\" TERM HUP INT; sleep 600; sleep 600' & done; echo exploded; sleep 600\n";

#[test]
fn a_fork_bomb_ends_with_a_killed_build() {
    let Some(world) = World::with_base("a_fork_bomb_ends_with_a_killed_build") else { return };
    let bomb = Building::start(&mut build_command(&world, BOMB));
    bomb.wait_for("| exploded").unwrap();
    assert!(bomb.kill());
    leftovers::assert_no_process(&world.store());
    succeed(world.rbuild().arg("prune"));
}

#[test]
fn a_fork_bomb_ends_with_a_cancelled_build() {
    let Some(world) = World::with_base("a_fork_bomb_ends_with_a_cancelled_build") else { return };
    let bomb = Building::start(&mut build_command(&world, BOMB));
    bomb.wait_for("| exploded").unwrap();
    let began = Instant::now();
    succeed(Command::new("kill").args(["-TERM", &bomb.pid().to_string()]));
    let (status, said) = bomb.finish();
    assert_eq!(status.code(), Some(130), "{said}");
    assert!(began.elapsed() < PROMPTLY, "it took {:?}", began.elapsed());
    leftovers::assert_nothing_left(&world.store());
}

#[test]
fn a_signal_to_everybody_reaches_nobody_outside() {
    let Some(world) = World::with_base("a_signal_to_everybody_reaches_nobody_outside") else { return };
    let mut bystander = Command::new("sleep").arg("600").spawn().unwrap();
    let script = format!("kill -9 {}; kill -9 -1; kill -9 0; true", bystander.id());
    let output = try_build(&world, &format!("FROM base\nRUN {script}\n"));
    assert!(matches!(output.status.code(), Some(0 | 1)), "{output:?}");
    assert!(bystander.try_wait().unwrap().is_none(), "the bystander is dead");
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

/// The most memory a build of this file ever holds, in KiB, and that it succeeds.
fn peak_memory(world: &World, dockerfile: &str, progress: &str) -> u64 {
    let context = world.path("context");
    write_files(&context, &[("Dockerfile", dockerfile)]);
    let mut command = world.rbuild();
    // Or the second way of showing it has nothing to show.
    command.args(["build", "--no-cache", "--progress", progress]).arg(context);
    let mut build = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut peak = 0;
    loop {
        let status = fs::read_to_string(format!("/proc/{}/status", build.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        peak = line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(peak);
        if let Some(ended) = build.try_wait().unwrap() {
            assert!(ended.success(), "{ended}");
            return peak;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_flood_of_output_takes_no_memory() {
    let Some(world) = World::with_base("a_flood_of_output_takes_no_memory") else { return };
    for progress in ["plain", "quiet"] {
        for script in [
            // Lines of a kilobyte.
            "yes $(head -c 1000 /dev/zero | tr '\\0' x) | head -c 120m",
            // One line.
            "head -c 120m /dev/zero | tr '\\0' x",
        ] {
            let peak = peak_memory(&world, &format!("FROM base\nRUN {script}; sleep 0.1\n"), progress);
            assert!((1 << 10..100 << 10).contains(&peak), "{progress}: {peak} KiB for `{script}`");
        }
    }
}

/// A directory with a file that no step may see or change, and what is in it.
fn canary(world: &World) -> PathBuf {
    let directory = world.path("canary");
    write_files(&directory, &[("file", "as it was")]);
    directory
}

#[track_caller]
fn assert_untouched(canary: &Path) {
    let names: Vec<_> = fs::read_dir(canary).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["file"]);
    assert_eq!(fs::read_to_string(canary.join("file")).unwrap(), "as it was");
}

#[test]
fn links_of_an_image_lead_no_mount_out_of_it() {
    let Some(world) = World::with_base("links_of_an_image_lead_no_mount_out_of_it") else { return };
    let canary = canary(&world);
    let up = format!("../../../../../../../../..{}", canary.display());
    for (name, script) in [
        ("proc", "test -e /proc/self/status"),
        ("sys", "true"),
        ("dev", "echo x > /dev/null"),
        ("etc/resolv.conf", "cat /etc/resolv.conf > /dev/null"),
        ("etc/hosts", "cat /etc/hosts > /dev/null"),
        ("cache", "echo x > /cache/evil"),
        ("secret", "true"),
    ] {
        let tree = world.path("context/tree");
        if tree.exists() {
            fs::remove_dir_all(&tree).unwrap();
        }
        fs::create_dir_all(tree.join("etc")).unwrap();
        symlink(&up, tree.join(name)).unwrap();
        let dockerfile = format!(
            "FROM scratch\nCOPY --from=base /bin /bin\nENV PATH=/bin\nCOPY tree /\n\
             RUN --mount=type=cache,target=/cache/inner --mount=type=tmpfs,target=/secret/inner {script}\n"
        );
        // A refusal is as good as a success; a panic or a hang is not.
        let output = try_build(&world, &dockerfile);
        assert!(matches!(output.status.code(), Some(0 | 1 | 4)), "{name}: {output:?}");
        assert_untouched(&canary);
        leftovers::assert_nothing_left(&world.store());
    }
}

#[test]
fn a_working_directory_among_descriptors_leads_nowhere() {
    let Some(world) = World::with_base("a_working_directory_among_descriptors_leads_nowhere") else { return };
    let canary = canary(&world);
    for number in 0..12 {
        for place in ["/proc/self/fd", "/proc/1/fd", "/dev/fd"] {
            let up = "../".repeat(12);
            let dockerfile = format!(
                "FROM base\nWORKDIR {place}/{number}\nRUN cat {up}{0}/file; echo x > {up}{0}/evil; true\n",
                canary.display()
            );
            let output = try_build(&world, &dockerfile);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!said.contains("| as it was"), "{place}/{number}: {said}");
            assert!(matches!(output.status.code(), Some(0 | 1 | 4)), "{place}/{number}: {said}");
        }
    }
    assert_untouched(&canary);
}

#[test]
fn memory_filesystems_of_a_run_have_an_end() {
    let Some(world) = World::with_base("memory_filesystems_of_a_run_have_an_end") else { return };
    let said = build(
        &world,
        "FROM base\nRUN for d in /dev /dev/shm; do head -c 200m /dev/zero > $d/x 2> /dev/null && echo filled $d; rm -f $d/x; done; true\n\
         RUN --mount=type=tmpfs,target=/t,size=1m head -c 2m /dev/zero > /t/x 2> /dev/null && echo filled /t; true\n",
    );
    assert!(!said.contains("| filled"), "{said}");
}

#[test]
fn other_users_cannot_read_the_store() {
    let Some(world) = World::with_base("other_users_cannot_read_the_store") else { return };
    build(&world, "FROM base\nRUN cp /bin/busybox /suid && chmod 4755 /suid\n");
    let mode = fs::metadata(world.store()).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "{mode:o}");
    for entry in fs::read_dir(world.store()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{} {mode:o}", entry.path().display());
    }
}
