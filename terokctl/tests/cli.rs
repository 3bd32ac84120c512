//! The program as a program: signals, closed pipes, shells and the start of a daemon. What answers is a fake, for what a
//! real daemon cannot be made to do at the right moment; everything else about both is tested black-box elsewhere.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;
use tempfile::TempDir;

const TEROKCTL: &str = env!("CARGO_BIN_EXE_terokctl");
/// Nothing here takes a fraction of it.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the fake answers; `None` says nothing.
type Script = fn(&Value) -> Option<Value>;

struct Fake {
    dir: TempDir,
    calls: Receiver<Value>,
}

impl Fake {
    fn new(script: Script) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let listener = UnixListener::bind(dir.path().join("s")).expect("a socket");
        let (calls, seen) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let calls = calls.clone();
                std::thread::spawn(move || serve(stream, script, &calls));
            }
        });
        Self { dir, calls: seen }
    }

    fn command(&self, line: &str) -> Command {
        let mut command = terokctl(Path::new(TEROKCTL), self.dir.path());
        command
            .arg("--socket")
            .arg(self.dir.path().join("s"))
            .args(line.split(' '));
        command
    }

    fn spawn(&self, line: &str) -> Child {
        self.command(line).spawn().expect("terokctl starts")
    }

    /// Waits until a method has been called.
    fn wait_for(&self, method: &str) {
        while let Ok(call) = self.calls.recv_timeout(PATIENCE) {
            if call["method"] == method {
                return;
            }
        }
        panic!("`{method}` was never called");
    }
}

fn serve(mut stream: UnixStream, script: Script, calls: &Sender<Value>) {
    let reader = BufReader::new(stream.try_clone().expect("a second handle"));
    for line in reader.lines().map_while(Result::ok) {
        let request: Value = serde_json::from_str(&line).expect("one JSON value per line");
        if let Some(mut answer) = script(&request) {
            answer["jsonrpc"] = json!("2.0");
            answer["id"] = request["id"].clone();
            if stream.write_all(format!("{answer}\n").as_bytes()).is_err() {
                return;
            }
        }
        let _ = calls.send(request);
    }
}

fn terokctl(program: &Path, home: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("HOME", home)
        .env("PATH", "/usr/bin:/bin")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn interrupt(child: &Child) {
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process id"));
    kill(pid, Signal::SIGINT).expect("it is alive");
}

fn end(child: Child) -> (Option<i32>, String, String) {
    told(&child.wait_with_output().expect("its end"))
}

fn told(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// An operation that goes on until it is cancelled.
fn endless(request: &Value) -> Option<Value> {
    use std::sync::atomic::{AtomicBool, Ordering};
    static CANCELLED: AtomicBool = AtomicBool::new(false);
    let running =
        json!({"result": {"id": "01", "method": "m", "state": "running", "started_at": "T"}});
    Some(match request["method"].as_str()? {
        "cleanup_images" => json!({"result": {"operation_id": "01"}}),
        "operation.cancel" => {
            CANCELLED.store(true, Ordering::SeqCst);
            running
        }
        "operation.get" if CANCELLED.load(Ordering::SeqCst) => json!({"result": {
            "id": "01", "method": "m", "state": "cancelled", "started_at": "T",
            "error": {"code": 1501, "message": "cancelled", "data": {"kind": "cancelled"}},
        }}),
        "operation.get" => running,
        _ => json!({"result": "s"}),
    })
}

/// One that goes on whatever happens.
fn stubborn(request: &Value) -> Option<Value> {
    Some(match request["method"].as_str()? {
        "cleanup_images" => json!({"result": {"operation_id": "01"}}),
        "operation.get" | "operation.cancel" => {
            json!({"result": {"id": "01", "method": "m", "state": "running", "started_at": "T"}})
        }
        _ => json!({"result": "s"}),
    })
}

#[test]
fn the_first_interrupt_cancels_the_operation() {
    let fake = Fake::new(endless);
    let child = fake.spawn("image cleanup --yes");
    fake.wait_for("operation.get");
    interrupt(&child);
    fake.wait_for("operation.cancel");
    let (code, out, _) = end(child);
    assert_eq!((code, out.as_str()), (Some(130), ""));
}

#[test]
fn the_second_interrupt_leaves_at_once() {
    let fake = Fake::new(stubborn);
    let child = fake.spawn("image cleanup --yes");
    fake.wait_for("operation.get");
    interrupt(&child);
    fake.wait_for("operation.cancel");
    interrupt(&child);
    assert_eq!(end(child).0, Some(130));
}

#[test]
fn an_interrupt_ends_a_call_and_a_question() {
    let fake = Fake::new(|_| None);
    let child = fake.spawn("project list");
    fake.wait_for("list_projects");
    interrupt(&child);
    assert_eq!(end(child).0, Some(130));

    let fake = Fake::new(|request| {
        Some(match request["method"].as_str()? {
            "cleanup_images" => {
                json!({"result": {"removed": ["x"], "failed": [], "dry_run": true}})
            }
            _ => json!({"result": null}),
        })
    });
    let mut child = fake.spawn("image cleanup");
    let mut stderr = child.stderr.take().expect("piped");
    let mut asked = Vec::new();
    while !asked.ends_with(b"[y/N] ") {
        let mut byte = [0];
        stderr.read_exact(&mut byte).expect("a question");
        asked.push(byte[0]);
    }
    interrupt(&child);
    assert_eq!(end(child).0, Some(130));
}

#[test]
fn the_end_of_the_input_is_a_no() {
    let fake =
        Fake::new(|_| Some(json!({"result": {"removed": ["x"], "failed": [], "dry_run": true}})));
    let mut child = fake.spawn("image cleanup");
    drop(child.stdin.take());
    let (code, out, err) = end(child);
    assert_eq!((code, out.as_str()), (Some(0), ""));
    assert!(err.contains("nothing was removed"), "{err}");
}

#[test]
fn a_stream_ends_quietly_with_its_reader() {
    let fake = Fake::new(|_| Some(json!({"result": "s"})));
    let mut child = fake.spawn("watch");
    fake.wait_for("events.subscribe");
    drop(child.stdout.take());
    let (code, _, err) = end(child);
    assert_eq!((code, err.as_str()), (Some(0), ""));
}

#[test]
fn errors_go_to_stderr_as_they_came() {
    let fake = Fake::new(|_| {
        Some(
            json!({"error": {"code": 1210, "message": "busy", "data": {"kind": "project_busy", "retry_after_ms": 5}}}),
        )
    });
    let (code, out, err) = end(fake.spawn("project list --json"));
    assert_eq!((code, out.as_str()), (Some(75), ""));
    assert_eq!(
        err,
        "{\"code\":1210,\"message\":\"busy\",\"data\":{\"kind\":\"project_busy\",\"retry_after_ms\":5}}\n"
    );
}

#[test]
fn parameters_come_from_standard_input() {
    let fake = Fake::new(|request| Some(json!({"result": request["params"]})));
    let mut child = fake.spawn("call some.method -");
    let mut stdin = child.stdin.take().expect("piped");
    stdin
        .write_all(b"{\n  \"a\": [1,\r\n 2]\n}\n")
        .expect("it reads");
    drop(stdin);
    assert_eq!(
        end(child),
        (Some(0), "{\"a\":[1,2]}\n".to_owned(), String::new())
    );
}

fn projects(request: &Value) -> Option<Value> {
    (request["method"] == "discover_projects").then(|| {
        json!({"result": {"projects": [{"id": "orion"}, {"id": "other"}], "broken": [{"id": "odd"}]}})
    })
}

#[test]
fn bash_completes_with_what_the_daemon_has() {
    let bash = ["/bin/bash", "/usr/bin/bash"].map(Path::new);
    let Some(bash) = bash.into_iter().find(|path| path.exists()) else {
        eprintln!("skipped: no bash");
        return;
    };
    let fake = Fake::new(projects);
    let script = r#"
        source <("$TEROKCTL" completions bash)
        try() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _terokctl; echo "${COMPREPLY[*]}"; }
        try "$TEROKCTL" project show o
        try "$TEROKCTL" proj
        try "$TEROKCTL" watch --project = or
        try "$TEROKCTL" op list --state q
        complete -p terokctl
    "#;
    let output = Command::new(bash)
        .args(["--norc", "-c", script])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("TEROKCTL", TEROKCTL)
        .env("TEROKD_SOCKET", fake.dir.path().join("s"))
        .output()
        .expect("bash");
    let (code, out, err) = told(&output);
    assert_eq!(
        out, "odd orion other\nproject\norion\nqueued\ncomplete -F _terokctl terokctl\n",
        "{err}"
    );
    assert_eq!(code, Some(0));
}

#[test]
fn completion_does_not_wait_for_a_daemon_that_hangs_or_start_one() {
    let fake = Fake::new(|_| None);
    let mut command = terokctl(Path::new(TEROKCTL), fake.dir.path());
    command.env("TEROKD_SOCKET", fake.dir.path().join("s"));
    command.args(["__complete", "3", "terokctl", "project", "show", ""]);
    let (code, out, err) = told(&command.output().expect("terokctl"));
    assert_eq!((code, out.as_str(), err.as_str()), (Some(0), "", ""));

    let place = Place::new("touch started");
    let mut command = place.command();
    command.args(["__complete", "3", "terokctl", "project", "show", ""]);
    assert_eq!(command.output().expect("terokctl").stdout, b"");
    assert!(!place.path("started").exists());
}

/// A directory with terokctl and, beside it, a script in the daemon's place.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new(script: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        // Written by another process: a file that this one had open for writing could not be executed while a test beside
        // us happens to fork.
        let made = Command::new("sh")
            .args(["-c", "cp \"$1\" terokctl && printf '#!/bin/sh\\ncd \"$HOME\"\\n%s\\n' \"$2\" > terokd && chmod 755 terokd", "sh"])
            .arg(TEROKCTL)
            .arg(script)
            .current_dir(dir.path())
            .status();
        assert!(made.is_ok_and(|status| status.success()));
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self) -> Command {
        let mut command = terokctl(&self.path("terokctl"), self.dir.path());
        command.env("TEROK_ROOT", self.path("root"));
        command
    }
}

#[test]
fn a_daemon_that_cannot_start_says_why() {
    let place = Place::new("echo \"terokd: the moon is full\" >&2; exit 1");
    let (code, out, err) = told(
        &place
            .command()
            .args(["project", "list"])
            .output()
            .expect("terokctl"),
    );
    assert_eq!((code, out.as_str()), (Some(69), ""));
    assert!(err.contains("the moon is full"), "{err}");
    let mode = |name: &str| {
        std::fs::metadata(place.path(name))
            .expect(name)
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!(mode("root/run"), 0o700);
    assert_eq!(mode("root/run/terokd.log"), 0o600);
}

#[test]
fn a_daemon_gets_a_session_of_its_own_and_the_named_socket() {
    let place = Place::new(
        "echo $$ > pid; cut -d' ' -f6 /proc/$$/stat > sid; echo \"$TEROKD_SOCKET\" > socket; exit 4",
    );
    let mut command = place.command();
    command.args(["--timeout", "1", "project", "list", "--socket"]);
    command.arg(place.path("r/d.sock"));
    // It said that another one runs, which then never answers.
    assert_eq!(told(&command.output().expect("terokctl")).0, Some(75));
    let read = |name: &str| std::fs::read_to_string(place.path(name)).expect(name);
    assert_eq!(read("pid"), read("sid"));
    assert_eq!(
        read("socket").trim(),
        place.path("r/d.sock").to_str().expect("a name")
    );
}

#[test]
fn without_autostart_nothing_starts() {
    let place = Place::new("touch started");
    for line in [
        "--no-autostart project list",
        "panic",
        "panic status",
        "daemon stop",
    ] {
        let output = place
            .command()
            .args(line.split(' '))
            .output()
            .expect("terokctl");
        let expected = if line == "daemon stop" { 0 } else { 69 };
        assert_eq!(output.status.code(), Some(expected), "{line}: {output:?}");
    }
    assert!(!place.path("started").exists());
}

#[test]
fn wrong_usage_is_2() {
    for line in [
        "nonsense",
        "project",
        "project show",
        "call x {",
        "project list --timeout x",
    ] {
        let place = Place::new("exit 1");
        let output = place
            .command()
            .args(line.split(' '))
            .output()
            .expect("terokctl");
        assert_eq!(output.status.code(), Some(2), "{line}");
    }
}

#[test]
fn manual_pages_are_written() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut command = terokctl(Path::new(TEROKCTL), dir.path());
    let output = command
        .arg("man")
        .arg(dir.path().join("man"))
        .output()
        .expect("terokctl");
    assert_eq!(output.status.code(), Some(0));
    let page =
        std::fs::read_to_string(dir.path().join("man/terokctl-project-list.1")).expect("a page");
    assert!(page.contains("terokctl project list"), "{page}");
}
