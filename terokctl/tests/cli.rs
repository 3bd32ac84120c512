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

/// What the fake answers; `None` says nothing. Lists `before` and `after` hold messages to send around the answer.
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
            let members = answer.as_object_mut().expect("an object");
            let mut around = |name: &str| match members.remove(name) {
                Some(Value::Array(messages)) => messages,
                _ => Vec::new(),
            };
            let (mut messages, after) = (around("before"), around("after"));
            answer["jsonrpc"] = json!("2.0");
            answer["id"] = request["id"].clone();
            messages.push(answer);
            messages.extend(after);
            for message in messages {
                if stream.write_all(format!("{message}\n").as_bytes()).is_err() {
                    return;
                }
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

fn update(stream: &str, item: Value) -> Value {
    json!({"jsonrpc": "2.0", "method": "operation.update", "params": {"subscription": stream, "result": item}})
}

fn log(stream: &str, line: &str) -> Value {
    update(stream, json!({"log": {"stream": "stdout", "line": line}}))
}

/// What a build ends with: two layers, one warning, one layer that stays old.
fn built() -> Value {
    json!({
        "images": [
            {"layer": "l0", "tag": "localhost/terok-l0:fedora-44", "image_id": "sha256:0123456789abcdef", "cached": true},
            {"layer": "l2-cli", "tag": "localhost/a:l2-cli", "image_id": "sha256:fedcba9876543210", "cached": false},
        ],
        "still_stale": ["l0"], "warnings": ["look at this"],
    })
}

/// A build that is over by the time its record is asked for: part of its log comes behind the answer, among the lines of
/// another stream.
fn quick_build(request: &Value) -> Option<Value> {
    Some(match request["method"].as_str()? {
        "project.build_images" => json!({"result": {"operation_id": "01"}}),
        "operation.subscribe" => json!({
            "result": "s",
            "after": [log("s", "one"), log("other", "not mine"), update("s", json!({"lagged": 3}))],
        }),
        "operation.get" => json!({
            "result": {"id": "01", "state": "succeeded", "result": built()},
            "before": [log("s", "two\u{1b}[2J")],
            "after": [
                update("s", json!({"progress": {"phase": "l0", "done": 1, "total": 2, "unit": "steps"}})),
                log("s", "three"),
                update("s", json!({"operation": {"id": "01", "state": "succeeded"}})),
                log("s", "after the end"),
            ],
        }),
        _ => return None,
    })
}

/// A build that fails after its first line.
fn bad_build(request: &Value) -> Option<Value> {
    Some(match request["method"].as_str()? {
        "project.build_images" => json!({"result": {"operation_id": "01"}}),
        "operation.subscribe" => json!({
            "result": 7,
            "after": [
                json!({"method": "operation.update", "params": {"subscription": 7, "result": {"log": {"stream": "stdout", "line": "one"}}}}),
                json!({"method": "operation.update", "params": {"subscription": 7, "result": {"operation": {"state": "failed"}}}}),
            ],
        }),
        "operation.get" => json!({"result": {
            "id": "01", "state": "failed",
            "error": {"code": 1307, "message": "the step failed", "data": {
                "kind": "build_failed", "layer": "l1", "tag": "localhost/terok-l1-cli:x", "step": "STEP 2/3: RUN false",
                "exit_code": 1, "lines": ["one", "two"], "log": "/b/build.log",
            }},
        }}),
        "project.needs_ssh_key_registration" => json!({"result": false}),
        "project.generate_dockerfiles" => json!({"result": {"paths": ["/b/L0.Dockerfile"]}}),
        "project.gate.sync" => {
            json!({"error": {"code": 1, "message": "off", "data": {"kind": "gate_disabled"}}})
        }
        _ => return None,
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
fn a_build_shows_every_line_of_its_log_and_a_table() {
    let fake = Fake::new(quick_build);
    let (code, out, err) = end(fake.spawn("project build a --dev"));
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(
        out,
        "l0\tlocalhost/terok-l0:fedora-44\t0123456789ab\tcached\nl2-cli\tlocalhost/a:l2-cli\tfedcba987654\tbuilt\n"
    );
    assert_eq!(
        err,
        "one\n… 3 lines are missing here\ntwo\\x1b[2J\nthree\nwarning: look at this\nwarning: still stale: l0\n\
         hint: rebuild them with `terokctl project build a --rebuild-stale`\n"
    );
    let call = fake.calls.recv_timeout(PATIENCE).expect("a call");
    let expected = json!({"project_id": "a", "include_dev": true, "detach": true});
    assert_eq!(call["params"], expected);
}

#[test]
fn a_build_is_silent_if_told_so_and_for_programs() {
    let fake = Fake::new(quick_build);
    let (code, out, err) = end(fake.spawn("project build a --quiet"));
    assert_eq!((code, out.lines().count()), (Some(0), 2), "{out}");
    assert_eq!(err, "warning: look at this\nwarning: still stale: l0\n");
    let (code, out, err) = end(fake.spawn("project build a --json"));
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert_eq!(out, format!("{}\n", built()));
    let (code, out, err) = end(fake.spawn("project build a --no-wait"));
    assert_eq!((code, out.as_str(), err.as_str()), (Some(0), "01\n", ""));
}

#[test]
fn a_failed_build_tells_where_and_its_last_words() {
    let fake = Fake::new(bad_build);
    let (code, out, err) = end(fake.spawn("project build a"));
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert_eq!(
        err,
        "one\nerror: the step failed\n  layer:     l1 (localhost/terok-l1-cli:x)\n  step:      STEP 2/3: RUN false\n  \
         exit code: 1\n  output:    one\n             two\n  whole log: /b/build.log\n"
    );
    let (code, _, err) = end(fake.spawn("project build a --json"));
    let error: Value = serde_json::from_str(&err).expect("nothing but an error object");
    assert_eq!((code, &error["data"]["exit_code"]), (Some(1), &json!(1)));
}

#[test]
fn a_failed_build_does_not_keep_the_gate_from_being_brought_up() {
    let fake = Fake::new(bad_build);
    let (code, out, err) = end(fake.spawn("project init a"));
    assert_eq!((code, out.as_str()), (Some(1), "/b/L0.Dockerfile\n"));
    assert!(
        err.contains("== build\none\nerror: the step failed\n"),
        "{err}"
    );
    assert!(err.contains("exit code: 1"), "{err}");
    assert!(err.contains("gate sync: skipped"), "{err}");
    assert!(
        err.contains("error: not done: build; everything else is"),
        "{err}"
    );
    let (code, out, err) = end(fake.spawn("project init a --json"));
    let all: Value = serde_json::from_str(&out).expect("the steps");
    assert_eq!((code, err.as_str()), (Some(1), ""));
    assert_eq!(all["failed"][0]["error"]["data"]["layer"], "l1", "{all}");
    assert_eq!(all["skipped"][1]["step"], "gate sync", "{all}");
}

#[test]
fn an_interrupted_build_tells_nothing_twice() {
    let fake = Fake::new(|request| {
        use std::sync::atomic::{AtomicBool, Ordering};
        static CANCELLED: AtomicBool = AtomicBool::new(false);
        let running =
            json!({"result": {"id": "01", "method": "m", "state": "running", "started_at": "T"}});
        Some(match request["method"].as_str()? {
            "project.build_images" => json!({"result": {"operation_id": "01"}}),
            "operation.subscribe" => json!({"result": "s", "after": [log("s", "one")]}),
            "operation.cancel" => {
                CANCELLED.store(true, Ordering::SeqCst);
                json!({"result": null, "after": [log("s", "two")]})
            }
            "operation.get" if CANCELLED.load(Ordering::SeqCst) => json!({
                "result": {
                    "id": "01", "method": "m", "state": "cancelled", "started_at": "T",
                    "error": {"code": 1501, "message": "cancelled", "data": {"kind": "cancelled"}},
                },
                "after": [update("s", json!({"operation": {"state": "cancelled"}}))],
            }),
            _ => running,
        })
    });
    let child = fake.spawn("project build a");
    fake.wait_for("operation.get");
    interrupt(&child);
    let (code, out, err) = end(child);
    assert_eq!((code, out.as_str()), (Some(130), ""));
    let lines: Vec<&str> = err
        .lines()
        .filter(|line| !line.starts_with("cancelling"))
        .collect();
    assert_eq!(lines, ["one", "two"], "{err}");
    let subscribed = fake
        .calls
        .try_iter()
        .filter(|call| call["method"] == "operation.subscribe");
    assert_eq!(subscribed.count(), 0, "only before the first look");
}

/// A daemon that lets one of two images go.
fn one_stays(request: &Value) -> Option<Value> {
    let params = &request["params"];
    Some(match request["method"].as_str()? {
        "remove_images" if params["dry_run"] == json!(true) => {
            json!({"result": {"removed": params["images"], "failed": [], "dry_run": true}})
        }
        "remove_images" => {
            json!({"result": {"removed": ["a"], "failed": ["b"], "dry_run": false}})
        }
        _ => return None,
    })
}

#[test]
fn images_are_removed_after_a_yes() {
    let fake = Fake::new(one_stays);
    let (code, out, _) = end(fake.spawn("image remove a b --dry-run"));
    assert_eq!((code, out.as_str()), (Some(0), "Would remove:\n  a\n  b\n"));

    let mut child = fake.spawn("image remove a b");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(b"n\n").expect("it reads");
    let (code, out, err) = end(child);
    assert_eq!((code, out.as_str()), (Some(0), ""));
    assert!(
        err.contains("  a\n  b\nRemove these 2 images? [y/N] "),
        "{err}"
    );
    assert!(err.contains("nothing was removed"), "{err}");
    let real = |call: &Value| call["params"]["dry_run"] != json!(true);
    assert_eq!(fake.calls.try_iter().filter(real).count(), 0);

    let mut child = fake.spawn("image remove a b");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(b"y\n").expect("it reads");
    // One that stays is a failure, for it was named.
    let (code, out, err) = end(child);
    assert_eq!(
        (code, out.as_str()),
        (Some(1), "Removed:\n  a\nFailed:\n  b\n")
    );
    assert!(err.contains("may be in use by a container"), "{err}");
    assert_eq!(end(fake.spawn("image remove a b --yes --quiet")).0, Some(1));
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

fn known(request: &Value) -> Option<Value> {
    Some(match request["method"].as_str()? {
        "discover_projects" => {
            json!({"result": {"projects": [{"id": "orion"}, {"id": "other"}], "broken": [{"id": "odd"}]}})
        }
        "list_images" => json!({"result": [
            {"full_name": "localhost/terok-l0:fedora-44"}, {"full_name": "localhost/orion:l2-cli"},
        ]}),
        _ => return None,
    })
}

#[test]
fn bash_completes_with_what_the_daemon_has() {
    let bash = ["/bin/bash", "/usr/bin/bash"].map(Path::new);
    let Some(bash) = bash.into_iter().find(|path| path.exists()) else {
        eprintln!("skipped: no bash");
        return;
    };
    let fake = Fake::new(known);
    let script = r#"
        source <("$TEROKCTL" completions bash)
        try() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _terokctl; echo "${COMPREPLY[*]}"; }
        try "$TEROKCTL" project show o
        try "$TEROKCTL" proj
        try "$TEROKCTL" watch --project = or
        try "$TEROKCTL" op list --state q
        try "$TEROKCTL" image remove localhost/t
        try "$TEROKCTL" image remove localhost/terok-l0 :
        try "$TEROKCTL" image remove localhost/terok-l0 : fed
        try "$TEROKCTL" image remove localhost/terok-l0 : fedora-44 localhost/o
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
        out,
        "odd orion other\nproject\norion\nqueued\nlocalhost/terok-l0:fedora-44\nfedora-44\nfedora-44\n\
         localhost/orion:l2-cli\ncomplete -F _terokctl terokctl\n",
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
