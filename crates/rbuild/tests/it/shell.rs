//! `rbuild shell`: a process finds what a step has, leaves nothing, and says what became of it.

use std::fs;
use std::io::Write as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sys::terminal::WindowSize;

use crate::commands_run::{in_terminal, read_until};
use crate::world::{World, succeed, write_files};

/// How a command ended and what it wrote.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// A context with a Dockerfile.
struct Built {
    world: World,
    context: PathBuf,
}

impl Built {
    fn new(test: &str, dockerfile: &str) -> Option<Self> {
        let world = World::with_base(test)?;
        let context = world.path("context");
        write_files(&context, &[("Dockerfile", dockerfile), ("file", "of the context\n")]);
        Some(Self { world, context })
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.world.rbuild();
        command.current_dir(&self.context).args(args);
        command
    }

    fn build(&self, args: &[&str]) -> Said {
        said(self.command(&["build", "--progress=plain", "."]).args(args), "")
    }

    /// What a script says that a shell reads.
    fn script(&self, args: &[&str], script: &str) -> Said {
        said(self.command(&["shell", "--progress=plain"]).args(args), script)
    }

    #[track_caller]
    fn check(&self, args: &[&str], script: &str, expected: &str) {
        let said = self.script(args, script);
        assert_eq!((said.code, said.stdout.as_str()), (Some(0), expected), "{args:?}\n{}", said.stderr);
    }

    #[track_caller]
    fn refused(&self, args: &[&str], code: i32, expected: &str) {
        let said = self.script(args, "");
        assert_eq!(said.code, Some(code), "{args:?}\n{}", said.stderr);
        assert!(said.stderr.contains(expected), "{args:?}\n{}", said.stderr);
    }
}

fn said(command: &mut Command, input: &str) -> Said {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("rbuild starts");
    // Who needs none does not wait for it.
    let written = child.stdin.take().expect("it was asked for").write_all(input.as_bytes());
    assert!(
        written.is_ok()
            || input.is_empty()
            || written.is_err_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
    );
    let output = child.wait_with_output().expect("it can be waited for");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it wrote text");
    Said { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

const FAILING: &str = "\
FROM base AS lib
RUN echo of lib > /lib.txt
FROM base AS app
ARG VERSION=1
ENV GREETING=hello
WORKDIR /work
COPY file .
USER app
RUN --network=none \\
    --mount=type=bind,from=lib,source=/lib.txt,target=/mnt/lib \\
    --mount=type=bind,target=/mnt/context \\
    --mount=type=cache,target=/cache,uid=1000 \\
    --mount=type=tmpfs,target=/scratch \\
    --mount=type=secret,id=token,uid=1000 \\
    --mount=type=ssh \\
    echo cached > /cache/x && echo partial > /tmp/left && exit 3
USER root
RUN echo never
";

#[test]
fn before_a_failed_step_is_all_that_the_step_had() {
    let Some(built) = Built::new("before_a_failed_step_is_all", FAILING) else { return };
    let (secret, socket) = (built.world.path("token"), built.world.path("agent"));
    fs::write(&secret, "s3cret\n").unwrap();
    let _agent = UnixListener::bind(&socket).unwrap();
    let (secret, ssh) =
        (format!("id=token,src={}", secret.display()), format!("default={}", socket.display()));
    let options =
        ["--secret", &secret, "--ssh", &ssh, "--build-arg", "VERSION=2", "--add-host", "db:10.0.0.2"];
    let failed = built.build(&options);
    assert_eq!(failed.code, Some(1), "{}", failed.stderr);
    let script = "echo $VERSION $GREETING; pwd; id -u; cat file /mnt/lib /mnt/context/file /cache/x /run/secrets/token
        test -S $SSH_AUTH_SOCK && echo agent; ls /scratch /sys/class/net; grep 10.0 /etc/hosts; hostname; test -e /tmp/left || echo fresh";
    let expected = "2 hello\n/work\n1000\nof the context\nof lib\nof the context\ncached\ns3cret\n\
                    agent\n/scratch:\n\n/sys/class/net:\nlo\n10.0.0.2\tdb\nbuildkitsandbox\nfresh\n";
    // The step that failed last, and the same by its name.
    built.check(&options, script, expected);
    built.check(&[&["app@4"], &options[..]].concat(), script, expected);
    built.check(&[&["1@4"], &options[..]].concat(), "true", "");
}

#[test]
fn after_a_failed_step_is_what_it_left() {
    let Some(built) = Built::new(
        "after_a_failed_step",
        "FROM base\nRUN echo one > /one\nRUN rm /one; echo two > /two; false\nRUN true\n",
    ) else {
        return;
    };
    let script = "cat /one /two 2>/dev/null; ls /one";
    let said = built.script(&["--after", "stage-0@3"], "cat /two; test -e /one || echo gone; exit 5");
    assert_eq!((said.code, said.stdout.as_str()), (Some(5), "two\ngone\n"), "{}", said.stderr);
    assert!(said.stderr.contains("exited with status 1"), "{}", said.stderr);
    built.check(&["stage-0@3"], script, "one\n/one\n");
    // What stands on a step that fails is not there.
    built.refused(&["stage-0@4"], 125, "shell stage-0@3`");
    built.refused(&["--after", "stage-0@4"], 125, "shell stage-0@3`");
    built.refused(&["stage-0"], 125, "shell stage-0@3`");
    built.world.assert_sound();
}

#[test]
fn every_step_of_every_stage_has_a_shell_before_and_after() {
    let dockerfile = "FROM base AS lib\nENV A=lib\nRUN echo $A > /lib\nFROM lib AS app\nENV A=app\nCOPY file /\nENV A=later\nWORKDIR /w\nENV A=end\n";
    let Some(built) = Built::new("every_step_of_every_stage", dockerfile) else { return };
    let script = "echo $A; pwd; ls -d /lib /file /w 2>/dev/null; true";
    for (args, expected) in [
        (&["--after", "lib@1"][..], "\n/\n"),
        (&["lib@2"], "lib\n/\n"),
        (&["--after", "lib@2"], "lib\n/\n/lib\n"),
        // A stage upon a stage begins with its first own step.
        (&["app@1"], "app\n/\n/lib\n"),
        (&["--after", "app@1"], "app\n/\n/file\n/lib\n"),
        (&["APP@2"], "later\n/\n/file\n/lib\n"),
        (&["--after", "1@2"], "later\n/w\n/file\n/lib\n/w\n"),
        (&["app"], "end\n/w\n/file\n/lib\n/w\n"),
        (&[], "end\n/w\n/file\n/lib\n/w\n"),
        (&["--target", "lib"], "lib\n/\n/lib\n"),
    ] {
        built.check(args, script, expected);
    }
    // Nobody needs the files of steps that come later.
    write_files(&built.context, &[("Dockerfile", "FROM base\nRUN echo x > /x\nCOPY missing /\n")]);
    assert_eq!(built.build(&[]).code, Some(1));
    built.check(&[], "cat /x", "x\n");
}

#[test]
fn nothing_that_a_shell_writes_is_kept() {
    let dockerfile = "FROM base\nRUN echo x > /x\nRUN --mount=type=bind,rw,target=/mnt cat /x\n";
    let Some(built) = Built::new("nothing_that_a_shell_writes", dockerfile) else { return };
    assert_eq!(built.build(&["-t", "before"]).code, Some(0));
    built.check(&["stage-0@3"], "echo changed | tee /x /mnt/file /new; rm /etc/passwd", "changed\n");
    built.check(
        &["stage-0@3"],
        "cat /x /mnt/file; ls /new 2>/dev/null; ls /etc/passwd",
        "x\nof the context\n/etc/passwd\n",
    );
    built.check(&["--after", "stage-0@2", "--", "cat", "/x"], "", "x\n");
    let again = built.build(&["-t", "after"]);
    assert!(again.stderr.contains("2 steps reused"), "{}", again.stderr);
    succeed(&mut built.command(&["diff", "before", "after"]));
    built.world.assert_sound();
}

#[test]
fn the_command_that_a_failed_build_offers_can_be_pasted() {
    let Some(built) = Built::new("the_command_that_a_failed_build_offers", "FROM scratch\n") else { return };
    write_files(
        &built.world.path("my dir"),
        &[("Dockerfile.dev", "FROM base AS a\nRUN echo here > /here\nRUN false\nFROM base AS a\n")],
    );
    let mut build = built.world.rbuild();
    build.current_dir(built.world.path("")).args([
        "build",
        "--target=0",
        "-f",
        "my dir/Dockerfile.dev",
        "my dir",
    ]);
    let failed = said(&mut build, "");
    let line =
        failed.stderr.split("open a shell just before this step with `").nth(1).expect("there is help");
    let line = line.split('`').next().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_rbuild")).parent().unwrap();
    let mut pasted = Command::new("/bin/sh");
    pasted.current_dir(built.world.path("")).env_clear().env("PATH", program).args(["-c", line]);
    let found = said(&mut pasted, "cat /here");
    assert_eq!((found.code, found.stdout.as_str()), (Some(0), "here\n"), "{line}\n{}", found.stderr);
}

#[test]
fn the_exit_code_is_the_shells_or_says_why_there_was_none() {
    let dockerfile = "FROM base AS app\nSHELL [\"/bin/ash\", \"-e\", \"-c\"]\nRUN true\nFROM scratch AS empty\nCOPY file /\n";
    let Some(built) = Built::new("the_exit_code_is_the_shells", dockerfile) else { return };
    assert_eq!(built.script(&["app"], "false; exit 7").code, Some(7));
    assert_eq!(built.script(&["app"], "echo $0").stdout, "/bin/ash\n");
    assert_eq!(
        built.script(&["app", "--", "sh", "-c", "sh -c 'kill -KILL $$'; exit $?"], "").code,
        Some(137)
    );
    built.refused(&["empty"], 127, "name a program that it has");
    built.refused(&["app", "--", "/etc/passwd"], 126, "error");
    built.refused(&["app", "--", "nosuch"], 127, "error");
    built.refused(&["ap"], 125, "did you mean `app`?");
    built.refused(&["stage-7"], 125, "there is no stage `stage-7`");
    built.refused(&["app@3"], 125, "there is no step 3 in stage `app`, which has 2");
    built.refused(&["app@0"], 125, "there is no step 0");
    built.refused(&["app@1"], 125, "nothing is before step 1");
    built.refused(&["app@x"], 125, "STAGE@STEP");
    built.refused(&["--no-such-flag"], 125, "unexpected argument");
    built.refused(&["-f", "-"], 125, "standard input is the shell's");
    write_files(
        &built.context,
        &[("Dockerfile", "FROM base\nRUN --mount=type=secret,id=key,required true\n")],
    );
    built.refused(&["stage-0@2"], 125, "--secret id=key");
}

#[test]
fn on_a_terminal_a_shell_is_a_persons() {
    let Some(built) = Built::new("on_a_terminal_a_shell", "FROM base AS app\nRUN true\n") else { return };
    let mut command = built.world.rbuild();
    command.args(["shell", "--progress=plain", "app@2", "--context"]).arg(&built.context);
    command.args(["--", "sh", "-c", "tty; stty size; echo $TERM; read word; echo got:$word; exit 3"]);
    let (mut child, pair) = in_terminal(&command, WindowSize { rows: 31, columns: 97 });
    let mut controller = fs::File::from(pair.controller.try_clone().unwrap());
    let said = read_until(&mut controller, "xterm\r\n");
    assert!(said.contains("just before step 2 of 2 in stage `app` (Dockerfile:2)"), "{said}");
    assert!(said.ends_with("/dev/pts/0\r\n31 97\r\nxterm\r\n"), "{said}");
    controller.write_all(b"word\r").unwrap();
    assert_eq!(read_until(&mut controller, "got:word\r\n"), "word\r\ngot:word\r\n");
    assert_eq!(child.wait().unwrap().code(), Some(3));
}

#[test]
fn the_context_is_the_one_that_is_named() {
    let Some(world) = World::with_base("the_context_is_the_one_that_is_named") else { return };
    write_files(
        &world.path("context"),
        &[("Dockerfile", "FROM base AS app\nCOPY here /seen\n"), ("here", "named\n")],
    );
    // Somewhere else, where there is nothing to build.
    fs::create_dir(world.path("elsewhere")).expect("a directory");
    let mut shell = world.rbuild();
    shell.current_dir(world.path("elsewhere")).args(["shell", "app", "--context"]);
    let output =
        shell.arg(world.path("context")).args(["--", "cat", "/seen"]).output().expect("rbuild starts");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stdout, b"named\n");
}
