//! `rbuild run`: what the process gets of what was asked for, and what the caller gets of the process.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::{Child, Command, Stdio};

use sys::root::Dir;
use sys::terminal::{Pair, WindowSize, open_pair, set_window_size};
use testkit::leftovers::assert_no_process;
use testkit::registry::Registry;

use crate::world::{World, succeed};

pub(crate) const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;

/// How a `run` ended and what it wrote.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn run(world: &World, args: &[&str]) -> Ran {
    ran(world.rbuild().arg("run").args(args).stdin(Stdio::null()))
}

fn ran(command: &mut Command) -> Ran {
    let output = command.output().expect("rbuild starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it wrote text");
    Ran { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

#[track_caller]
fn check(world: &World, args: &[&str], expected: &str) {
    let ran = run(world, args);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), expected), "run {args:?}\n{}", ran.stderr);
}

#[track_caller]
fn check_code(world: &World, args: &[&str], expected: i32) {
    let ran = run(world, args);
    assert_eq!(ran.code, Some(expected), "run {args:?}\n{}", ran.stderr);
    if (125..=127).contains(&expected) {
        assert!(ran.stderr.contains("error"), "run {args:?} says nothing of what is wrong: {}", ran.stderr);
    }
}

#[test]
fn the_exit_code_is_the_process_own_or_says_why_there_was_none() {
    let Some(world) = World::with_base("the_exit_code_is_the_process_own") else { return };
    let registry = Registry::start();
    let absent = registry.reference("absent");
    check_code(&world, &["base", "true"], 0);
    check_code(&world, &["base", "sh", "-c", "exit 7"], 7);
    check_code(&world, &["base", "sh", "-c", "sh -c 'kill -KILL $$'; exit $?"], 137);
    check_code(&world, &["--init", "base", "sh", "-c", "kill -TERM $$"], 143);
    check_code(&world, &["--init", "base", "sh", "-c", "exit 9"], 9);
    check_code(&world, &["base", "no-such-program"], 127);
    check_code(&world, &["base", "/no/such/program"], 127);
    check_code(&world, &["base", "/etc/passwd"], 126);
    check_code(&world, &["base", "/etc"], 126);
    check_code(&world, &["base"], 125);
    check_code(&world, &["--no-such-flag", "base", "true"], 125);
    check_code(&world, &["--network", "none"], 125);
    check_code(&world, &["-u", "nobody-of-that-name", "base", "true"], 125);
    check_code(&world, &["-w", "relative", "base", "true"], 125);
    check_code(&world, &["-it", "base", "true"], 125);
    check_code(&world, &["-v", "word:/x", "base", "true"], 125);
    check_code(&world, &["-v", "/tmp:/", "base", "true"], 125);
    check_code(&world, &["-v", "/tmp:/x", "--tmpfs", "/x", "base", "true"], 125);
    check_code(&world, &["--tmpfs", "/x:size=many", "base", "true"], 125);
    check_code(&world, &[&absent, "true"], 125);
}

#[test]
fn what_runs_follows_from_entrypoint_command_and_arguments() {
    let Some(world) = World::with_base("what_runs_follows") else { return };
    world.make_base("both", "ENTRYPOINT [\"echo\", \"entry\"]\nCMD [\"command\"]\n");
    world.make_base("command", "CMD [\"echo\", \"command\"]\n");
    check(&world, &["both"], "entry command\n");
    check(&world, &["both", "own"], "entry own\n");
    check(&world, &["both", "--flag", "-x"], "entry --flag -x\n");
    let ours = ["both", "-i", "-D", "--help", "--root", "x", "-e", "--", "A=1"];
    check(&world, &ours, "entry -i -D --help --root x -e -- A=1\n");
    check_code(&world, &["--nosuch", "both"], 125);
    check(&world, &["--entrypoint", "echo", "both", "own"], "own\n");
    check(&world, &["--entrypoint", "echo", "both"], "\n");
    check(&world, &["--entrypoint", "", "both", "echo", "own"], "own\n");
    check_code(&world, &["--entrypoint", "", "both"], 125);
    check(&world, &["command"], "command\n");
    check(&world, &["command", "echo", "own"], "own\n");
}

#[test]
fn the_environment_is_the_images_and_ones_own() {
    let Some(world) = World::with_base("the_environment_is_the_images") else { return };
    world.make_base("image", "ENV A=image B=image\nUSER app\nWORKDIR /work\n");
    let show = "echo $A,$B,${C-unset},$HOME,$PATH,$PWD,$(id -u):$(id -g)";
    check(&world, &["image", "sh", "-c", show], "image,image,unset,/home/app,/bin,/work,1000:1001\n");
    check(
        &world,
        &["-e", "A=own", "-e", "C=", "-u", "0", "-w", "/a/new/place", "image", "sh", "-c", show],
        "own,image,,/root,/bin,/a/new/place,0:0\n",
    );
    let from_outside = ran(world.rbuild().env("C", "outside").env("D", "stays").args([
        "run",
        "-e",
        "C",
        "-e",
        "B",
        "image",
        "sh",
        "-c",
        "echo $C,${B-unset},${D-unset}",
    ]));
    assert_eq!(from_outside.stdout, "outside,unset,unset\n");
    check(&world, &["-u", "5:7", "image", "sh", "-c", "id -u; id -g; echo $HOME"], "5\n7\n/\n");
    let name = run(
        &world,
        &["--network", "none", "base", "sh", "-c", "echo $HOSTNAME; hostname; cat /etc/hostname"],
    );
    let names: Vec<&str> = name.stdout.lines().collect();
    assert!(
        names.len() == 3 && names[0].len() == 12 && names.iter().all(|name| *name == names[0]),
        "{name:?}"
    );
}

#[test]
fn mounts_show_what_was_asked_for_and_leave_nothing_in_the_image() {
    let Some(world) = World::with_base("mounts_show_what_was_asked_for") else { return };
    let shared = world.path("shared");
    fs::create_dir(&shared).unwrap();
    fs::write(shared.join("file"), "from outside\n").unwrap();
    let volume = |target: &str| format!("{}:{target}", shared.display());
    check(&world, &["-v", &volume("/new/place"), "base", "cat", "/new/place/file"], "from outside\n");
    check(
        &world,
        &["-v", &volume("/new"), "base", "sh", "-c", "echo inside > /new/made; ls /new"],
        "file\nmade\n",
    );
    assert_eq!(fs::read_to_string(shared.join("made")).unwrap(), "inside\n");
    check(
        &world,
        &[
            "-v",
            &volume("/new:ro"),
            "base",
            "sh",
            "-c",
            "rm /new/file 2>/dev/null || echo refused; cat /new/file",
        ],
        "refused\nfrom outside\n",
    );
    let file = format!("{}:/etc/passwd:ro", shared.join("file").display());
    check(&world, &["-v", &file, "base", "cat", "/etc/passwd"], "from outside\n");
    let missing = world.path("missing/deep");
    check(&world, &["-v", &format!("{}:/m", missing.display()), "base", "ls", "/m"], "");
    assert!(missing.is_dir(), "as with Docker, a source that is missing becomes a directory");
    check(
        &world,
        &[
            "--tmpfs",
            "/t:size=1m,mode=700",
            "base",
            "sh",
            "-c",
            "stat -c %a /t; df -k /t | tail -1 | awk '{print $2}'",
        ],
        "700\n1024\n",
    );
    check(&world, &["base", "sh", "-c", "ls -d /new /t /m 2>/dev/null; echo end"], "end\n");
}

#[test]
fn what_is_written_goes_away_and_a_read_only_root_takes_nothing() {
    let Some(world) = World::with_base("what_is_written_goes_away") else { return };
    check(&world, &["base", "sh", "-c", "echo x > /etc/new; rm /etc/passwd; ls /etc/new"], "/etc/new\n");
    check(&world, &["base", "sh", "-c", "ls /etc/new 2>/dev/null; ls /etc/passwd"], "/etc/passwd\n");
    let script = "touch /etc/new 2>/dev/null || echo refused; touch /dev/shm/x /t/x && echo taken; pwd";
    check(
        &world,
        &["--read-only", "--tmpfs", "/t", "-w", "/new/dir", "base", "sh", "-c", script],
        "refused\ntaken\n/new/dir\n",
    );
    // The root's own attributes are the image's, though the directory on top is ours.
    world.make_base("closed", "RUN chmod 0711 /\n");
    check(&world, &["closed", "stat", "-c", "%a", "/"], "711\n");
    world.assert_sound();
}

#[test]
fn the_network_is_the_machines_or_none() {
    let Some(world) = World::with_base("the_network_is_the_machines_or_none") else { return };
    let interfaces = "ls /sys/class/net";
    check(&world, &["--network", "none", "base", "sh", "-c", interfaces], "lo\n");
    let own = succeed(Command::new("sh").args(["-c", interfaces]));
    check(&world, &["base", "sh", "-c", interfaces], &String::from_utf8(own.stdout).unwrap());
    check(&world, &["base", "cat", "/etc/hosts"], &fs::read_to_string("/etc/hosts").unwrap_or_default());
    let resolv_conf = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    check(&world, &["base", "cat", "/etc/resolv.conf"], &resolv_conf);
    let hosts = run(&world, &["--network", "none", "base", "cat", "/etc/hosts"]);
    assert!(hosts.stdout.starts_with("127.0.0.1\tlocalhost\n"), "{hosts:?}");
}

#[test]
fn standard_input_is_closed_unless_asked_for_and_no_descriptor_is_ours() {
    let Some(world) = World::with_base("standard_input_is_closed") else { return };
    let input = world.path("input");
    fs::write(&input, "to be read\n").unwrap();
    let with_input = |flags: &[&str], script: &str| {
        let file = fs::File::open(&input).unwrap();
        ran(world.rbuild().arg("run").args(flags).args(["base", "sh", "-c", script]).stdin(file))
    };
    assert_eq!(with_input(&[], "cat").stdout, "");
    assert_eq!(with_input(&["-i"], "cat").stdout, "to be read\n");
    assert_eq!(with_input(&["-i"], "true").code, Some(0));
    // A file or directory of the machine would be a way out.
    let targets = with_input(&["-i"], "for fd in 0 1 2; do readlink /proc/$$/fd/$fd; done; ls /proc/self/fd");
    let kinds: Vec<&str> = targets.stdout.lines().map(|line| line.split(':').next().unwrap()).collect();
    assert_eq!(kinds, ["pipe", "pipe", "pipe", "0", "1", "2", "3"], "the fourth is of `ls` itself");
    let split = with_input(&[], "echo out; echo err >&2");
    assert_eq!((split.stdout.as_str(), split.stderr.as_str()), ("out\n", "err\n"));
}

#[test]
fn output_comes_whole_and_ends_when_nobody_wants_it() {
    let Some(world) = World::with_base("output_comes_whole") else { return };
    let counted = run(&world, &["base", "seq", "1", "300000"]);
    assert_eq!(counted.stdout.lines().count(), 300_000);
    assert!(counted.stdout.ends_with("\n300000\n"));
    let mut child = world.rbuild().args(["run", "base", "yes"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "y\n");
    assert_ne!(child.wait().unwrap().code(), Some(0), "the writer hears that its pipe is closed");
}

/// A `run` whose first line of output has come.
fn start_until_ready(world: &World, script: &str) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut command = world.rbuild();
    let mut child = command
        .args(["run", "base", "sh", "-c", script])
        .stdout(Stdio::piped())
        .spawn()
        .expect("rbuild starts");
    let mut output = BufReader::new(child.stdout.take().expect("it was asked for"));
    let mut line = String::new();
    output.read_line(&mut line).expect("a pipe can be read");
    assert_eq!(line, "ready\n");
    (child, output)
}

pub(crate) fn send(child: &Child, signal: i32) {
    let process = sys::process::open(child.id()).expect("it runs");
    sys::process::signal(&process, signal).expect("a child can be signalled");
}

#[test]
fn signals_reach_the_process() {
    let Some(world) = World::with_base("signals_reach_the_process") else { return };
    let script = "trap 'echo terminated; exit 5' TERM; trap 'echo user' USR1; echo ready; while :; do sleep 0.02; done";
    let (mut child, mut output) = start_until_ready(&world, script);
    send(&child, 10);
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    send(&child, SIGTERM);
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert_eq!(
        (line.as_str(), rest.as_str(), child.wait().unwrap().code()),
        ("user\n", "terminated\n", Some(5))
    );
}

#[test]
fn a_process_that_does_not_listen_is_killed_at_the_third_request() {
    let Some(world) = World::with_base("a_process_that_does_not_listen") else { return };
    let script = "trap 'echo again' INT; echo ready; while :; do sleep 0.02; done";
    let (mut child, mut output) = start_until_ready(&world, script);
    for _ in 0..2 {
        send(&child, SIGINT);
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line, "again\n");
    }
    send(&child, SIGINT);
    assert_eq!(child.wait().unwrap().code(), Some(137));
}

#[test]
fn a_run_that_is_killed_takes_its_process_along_and_prune_takes_the_rest() {
    let Some(world) = World::with_base("a_run_that_is_killed") else { return };
    let (mut child, _output) = start_until_ready(&world, "echo ready; sleep 1000");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_no_process(&world.store());
    succeed(world.rbuild().arg("prune"));
    assert_eq!(testkit::leftovers::find(&world.store()), "");
    world.assert_sound();
}

/// A terminal with `command` in it.
pub(crate) fn in_terminal(command: &Command, size: WindowSize) -> (Child, Pair) {
    let pair =
        open_pair(Dir::open("/dev/pts".as_ref()).expect("there are terminals")).expect("one more terminal");
    set_window_size(&pair.terminal, size).expect("a terminal has a size");
    let end = || Stdio::from(pair.terminal.try_clone().expect("a descriptor can be copied"));
    // The terminal must be the program's own, or it hears nothing of a new size.
    let mut session = Command::new("setsid");
    session.args(["--ctty", "--wait"]).arg(command.get_program()).args(command.get_args()).env_clear();
    let child = session.stdin(end()).stdout(end()).stderr(end()).spawn().expect("setsid starts");
    (child, pair)
}

/// Reads until the text so far ends with `end`.
pub(crate) fn read_until(from: &mut fs::File, end: &str) -> String {
    let (mut text, mut byte) = (Vec::new(), [0]);
    while !text.ends_with(end.as_bytes()) {
        from.read_exact(&mut byte)
            .unwrap_or_else(|error| panic!("{error} after {}", String::from_utf8_lossy(&text)));
        text.push(byte[0]);
    }
    String::from_utf8(text).expect("it wrote text")
}

fn settings(pair: &Pair) -> String {
    let terminal = pair.terminal.try_clone().expect("a descriptor can be copied");
    let output = Command::new("stty").arg("-g").stdin(terminal).output().expect("stty starts");
    String::from_utf8(output.stdout).expect("it wrote text")
}

#[test]
fn a_terminal_has_our_size_and_follows_it_and_ours_comes_back_as_it_was() {
    let Some(world) = World::with_base("a_terminal_has_our_size") else { return };
    let mut command = world.rbuild();
    let script = "tty; echo $TERM; stty size; trap 'stty size; read word; echo got:$word; exit 3' WINCH; \
                  echo ready; while :; do sleep 0.02; done";
    command.args(["run", "-it", "base", "sh", "-c", script]);
    let (mut child, pair) = in_terminal(&command, WindowSize { rows: 31, columns: 97 });
    let before = settings(&pair);
    let mut controller = fs::File::from(pair.controller.try_clone().unwrap());
    assert_eq!(read_until(&mut controller, "ready\r\n"), "/dev/pts/0\r\nxterm\r\n31 97\r\nready\r\n");
    assert_ne!(settings(&pair), before, "keys must arrive one by one");
    set_window_size(&pair.terminal, WindowSize { rows: 12, columns: 34 }).unwrap();
    assert_eq!(read_until(&mut controller, "\r\n"), "12 34\r\n");
    controller.write_all(b"word\r").unwrap();
    // Echoed once, by the inner terminal.
    assert_eq!(read_until(&mut controller, "got:word\r\n"), "word\r\ngot:word\r\n");
    assert_eq!(child.wait().unwrap().code(), Some(3));
    assert_eq!(settings(&pair), before);
}

#[test]
fn a_terminal_without_input_needs_none_of_ours() {
    let Some(world) = World::with_base("a_terminal_without_input") else { return };
    check(&world, &["-t", "base", "sh", "-c", "test -t 1 && echo terminal"], "terminal\r\n");
}

#[test]
fn files_made_for_the_process_belong_to_it() {
    let Some(world) = World::with_base("files_made_for_the_process") else { return };
    check(
        &world,
        &["-u", "app", "base", "sh", "-c", "echo through the file > /dev/stdout"],
        "through the file\n",
    );
    let shared = world.path("owned");
    fs::create_dir(&shared).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o777)).unwrap();
    check(&world, &["-u", "app", "-v", &format!("{}:/o", shared.display()), "base", "touch", "/o/f"], "");
    let made = fs::metadata(shared.join("f")).unwrap();
    assert_eq!((made.uid(), made.gid()), (1000, 1001));
}
