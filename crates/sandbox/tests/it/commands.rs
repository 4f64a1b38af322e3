//! Starting commands: codes, signals, what cannot be started, terminals, process 1.

use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::Duration;

use expect_test::{Expect, expect};
use sandbox::{Ending, MissingCwd, Network, Output, PidOne, Stdio, StopPolicy};
use sys::terminal::WindowSize;

use crate::world::{World, path};

#[test]
fn a_command_gives_its_output_and_code() {
    let Some(world) = World::new() else { return };
    let ran = world.run(&world.spec("echo out; echo err >&2; exit 7"));
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("out\n", "err\n"));
    assert_eq!((ran.exit.ending, ran.exit.code()), (Ending::Exited(7), 7));
    assert!(ran.exit.peak_memory_bytes > 0);
    assert!(!ran.exit.oom_killed);
}

#[test]
fn piped_input_is_read_to_its_end() {
    let Some(world) = World::new() else { return };
    let mut spec = world.spec("cat; echo end >&2");
    spec.stdio = Stdio::Piped;
    let (process, output) = world.sandboxes.start(&spec).unwrap();
    let Output::Piped { mut stdin, mut stdout, mut stderr } = output else { panic!() };
    stdin.write_all(b"typed").unwrap();
    drop(stdin);
    let mut text = String::new();
    stdout.read_to_string(&mut text).unwrap();
    stderr.read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), process.wait().unwrap().code()), ("typedend\n", 0));
}

#[test]
fn a_process_that_dies_by_a_signal_says_which() {
    let Some(world) = World::new() else { return };
    let (process, _output) = world.sandboxes.start(&world.spec("exec sleep 1000")).unwrap();
    process.signaller().kill().unwrap();
    let exit = process.wait().unwrap();
    assert_eq!((exit.ending, exit.code(), exit.oom_killed), (Ending::Killed(9), 137, false));
}

#[test]
fn stopping_is_polite_first() {
    let Some(world) = World::new() else { return };
    let policy = StopPolicy { signal: 15, grace: Duration::from_secs(60) };
    let script = "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.05; done";
    let (process, output) = world.sandboxes.start(&world.spec(script)).unwrap();
    let Output::Captured { mut stdout, .. } = output else { panic!() };
    let mut text = [0; 3];
    stdout.read_exact(&mut text).unwrap();
    assert_eq!(process.stop(policy).unwrap().ending, Ending::Exited(3));
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "bye\n");
}

#[test]
fn a_process_that_does_not_listen_is_killed_after_its_grace() {
    let Some(world) = World::new() else { return };
    let (process, _output) = world.sandboxes.start(&world.spec("exec sleep 1000")).unwrap();
    let policy = StopPolicy { signal: 15, grace: Duration::from_millis(50) };
    assert_eq!(process.stop(policy).unwrap().ending, Ending::Killed(9));
}

#[test]
fn daemons_left_behind_die_with_the_first_process() {
    let Some(world) = World::new() else { return };
    // Reading to the end of the output waits for whoever still holds it.
    let ran = world.run(&world.spec("setsid sleep 1000 & (sleep 1000 &) ; echo done"));
    assert_eq!(ran.stdout, "done\n");
}

#[test]
fn dropping_a_process_kills_it() {
    let Some(world) = World::new() else { return };
    let (process, output) = world.sandboxes.start(&world.spec("sleep 1000 & wait")).unwrap();
    let Output::Captured { mut stdout, .. } = output else { panic!() };
    drop(process);
    assert_eq!(stdout.read(&mut [0; 1]).unwrap(), 0);
}

#[track_caller]
fn check_start(world: &World, args: &[&str], expected: Expect) {
    let mut spec = world.spec("");
    let bin = spec.root.upper.as_ref().unwrap().directory.join("bin");
    fs::create_dir(&bin).unwrap();
    fs::write(bin.join("plain"), "text").unwrap();
    fs::write(bin.join("garbage"), [0; 64]).unwrap();
    fs::write(bin.join("script"), "#!/nosuch/interpreter\n").unwrap();
    for name in ["garbage", "script"] {
        fs::set_permissions(bin.join(name), PermissionsExt::from_mode(0o755)).unwrap();
    }
    symlink("/bin/echo", bin.join("says")).unwrap();
    spec.args = args.iter().map(OsString::from).collect();
    let shown = match world.try_run(&spec) {
        Ok(ran) => format!("{} {}", ran.exit.code(), ran.stdout + &ran.stderr),
        Err(error) => format!("{} {error}", error.exit_code()),
    };
    expected.assert_eq(&shown);
    for pid_one in [PidOne::Command, PidOne::Init] {
        let mut again = world.spec("");
        again.args = spec.args.clone();
        again.root = spec.root.clone();
        again.root.upper.as_mut().unwrap().work = world.upper().work;
        again.pid_one = pid_one;
        let code = world.try_run(&again).map_or_else(|e| e.exit_code(), |ran| ran.exit.code());
        assert_eq!(shown.split(' ').next().unwrap(), code.to_string(), "{pid_one:?}");
    }
}

#[test]
fn commands_are_looked_up_in_path_and_failures_are_told_apart() {
    let Some(world) = World::new() else { return };
    check_start(&world, &["echo", "a b"], expect!["0 a b\n"]);
    check_start(
        &world,
        &["says", "x"],
        expect![[r#"
        127 says: applet not found
    "#]],
    );
    check_start(&world, &["nosuch"], expect!["127 `nosuch` was not found in the root (looked in /bin)"]);
    check_start(&world, &["/bin/nosuch"], expect!["127 `/bin/nosuch` was not found in the root"]);
    check_start(&world, &["/etc/passwd/x"], expect!["127 `/etc/passwd/x` was not found in the root"]);
    check_start(&world, &[""], expect!["127 `` was not found in the root (looked in /bin)"]);
    check_start(&world, &["plain"], expect!["126 `/bin/plain` cannot be executed"]);
    check_start(&world, &["garbage"], expect!["126 `/bin/garbage` cannot be executed"]);
    check_start(&world, &["/tmp"], expect!["126 `/tmp` cannot be executed"]);
    check_start(
        &world,
        &["script"],
        expect!["127 `/bin/script` exists, but the interpreter it asks for does not"],
    );
}

#[test]
fn the_command_is_process_1_and_sees_only_its_own() {
    let Some(world) = World::new() else { return };
    let output = world.output("echo $$; cat /proc/1/comm; echo /proc/[0-9]*");
    assert_eq!(output, "1\nsh\n/proc/1\n");
}

#[test]
fn an_init_reaps_orphans_and_passes_signals_and_codes_on() {
    let Some(world) = World::new() else { return };
    let mut spec = world
        .spec("echo $$; (sleep 0.01 &); sleep 0.1; grep -l 'State:.Z' /proc/[0-9]*/status | wc -l; exit 9");
    spec.pid_one = PidOne::Init;
    let ran = world.run(&spec);
    assert_eq!((ran.stdout.as_str(), ran.exit.code()), ("2\n0\n", 9));

    let mut spec = world.spec("trap 'exit 4' USR1; echo up; while :; do sleep 0.02; done");
    spec.pid_one = PidOne::Init;
    let (process, output) = world.sandboxes.start(&spec).unwrap();
    let Output::Captured { mut stdout, .. } = output else { panic!() };
    stdout.read_exact(&mut [0; 3]).unwrap();
    process.signaller().signal(10).unwrap();
    assert_eq!(process.wait().unwrap().ending, Ending::Exited(4));
}

#[test]
fn a_terminal_has_a_size_a_session_and_a_console() {
    let Some(world) = World::new() else { return };
    for pid_one in [PidOne::Command, PidOne::Init] {
        let mut spec = world.spec("tty; stty size; ls -l /dev/console | cut -c1; read line; echo got $line; stty size; echo x >/dev/tty");
        spec.stdio = Stdio::Terminal(WindowSize { rows: 33, columns: 111 });
        spec.pid_one = pid_one;
        let (process, output) = world.sandboxes.start(&spec).unwrap();
        let Output::Terminal(mut terminal) = output else { panic!() };
        let mut text = String::new();
        while !text.contains("33 111\r\nc\r\n") {
            let mut some = [0; 64];
            let length = terminal.read(&mut some).unwrap();
            text.push_str(std::str::from_utf8(&some[..length]).unwrap());
        }
        process.signaller().resize(WindowSize { rows: 5, columns: 6 }).unwrap();
        terminal.write_all(b"hello\n").unwrap();
        while !text.ends_with("x\r\n") {
            let mut some = [0; 64];
            let length = terminal.read(&mut some).unwrap();
            text.push_str(std::str::from_utf8(&some[..length]).unwrap());
        }
        assert_eq!(process.wait().unwrap().code(), 0);
        assert_eq!(text, "/dev/pts/0\r\n33 111\r\nc\r\nhello\r\ngot hello\r\n5 6\r\nx\r\n", "{pid_one:?}");
    }
}

#[test]
fn a_missing_working_directory_is_made_or_is_an_error() {
    let Some(world) = World::new() else { return };
    let mut spec = world.spec("pwd; ls -ld . | cut -d' ' -f1");
    spec.cwd = path("new/below");
    spec.missing_cwd = MissingCwd::Create;
    assert_eq!(world.output_of(&spec), "/new/below\ndrwxr-xr-x\n");
    let mut spec = world.spec("pwd");
    spec.cwd = path("new/below");
    let error = world.try_run(&spec).unwrap_err();
    assert_eq!(error.to_string(), "cannot use `/new/below` as the working directory");
    let mut spec = world.spec("pwd");
    spec.cwd = path("etc/passwd");
    spec.missing_cwd = MissingCwd::Create;
    assert_eq!(world.try_run(&spec).unwrap_err().exit_code(), 125);
}

#[test]
fn pipes_lead_to_all_three_descriptors_and_belong_to_the_user() {
    let Some(world) = World::new() else { return };
    let mut spec = world.spec("cat /dev/stdin; echo out > /dev/stdout; echo err > /dev/stderr");
    spec.stdio = Stdio::Piped;
    spec.user = "app".parse().unwrap();
    let (process, output) = world.sandboxes.start(&spec).unwrap();
    let Output::Piped { mut stdin, mut stdout, mut stderr } = output else { panic!() };
    stdin.write_all(b"in\n").unwrap();
    drop(stdin);
    let (mut out, mut err) = (String::new(), String::new());
    stdout.read_to_string(&mut out).unwrap();
    stderr.read_to_string(&mut err).unwrap();
    assert_eq!((out.as_str(), err.as_str()), ("in\nout\n", "err\n"));
    assert_eq!(process.wait().unwrap().ending, Ending::Exited(0));
}

#[test]
fn a_helper_made_ready_ahead_serves_who_fits_and_leaves_nothing() {
    let Some(world) = World::new() else { return };
    let spec = |network, shm_bytes| {
        let mut spec = world.spec(
            "ls /sys/class/net; df -k /dev/shm | tail -n 1 | awk '{print $2}'; set -- /proc/[0-9]*; echo $#",
        );
        spec.network = network;
        spec.limits.shm_bytes = shm_bytes;
        spec
    };
    // What a process sees does not depend on how long ago its first half was made.
    let cold = world.output_of(&spec(Network::None, None));
    world.sandboxes.expect_another(&spec(Network::None, None));
    world.sandboxes.expect_another(&spec(Network::None, None));
    assert_eq!(world.output_of(&spec(Network::None, None)), cold);
    // One that does not fit is ended, and a new one made.
    for (network, shm_bytes) in [(Network::Host, None), (Network::None, Some(8 << 20))] {
        let cold = world.output_of(&spec(network, shm_bytes));
        world.sandboxes.expect_another(&spec(Network::None, None));
        assert_eq!(world.output_of(&spec(network, shm_bytes)), cold);
    }
    // Nobody comes for this one; the world's end finds it gone.
    world.sandboxes.expect_another(&spec(Network::None, None));
}
