//! `terokctl` as a program over a real daemon (rpc.md §6).

mod ends;
mod gates;
mod keys;
mod terminal;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};
use terok_tests::programs::{need, terokctl, terokd};
use terok_tests::{World, eventually};

/// A world in which `terokctl` finds a daemon to start; whatever it started ends with the value.
struct Desk(World);

impl Desk {
    fn new(world: World) -> Self {
        let bin = world.dir().join("bin");
        fs::create_dir(&bin).unwrap();
        for (name, program) in [("terokd", terokd()), ("terokctl", terokctl())] {
            fs::copy(program, bin.join(name)).unwrap();
        }
        world.settle();
        Self(world)
    }

    fn command(&self, args: &[&str]) -> Command {
        let bin = self.0.dir().join("bin");
        let mut command = self.0.command(&bin.join("terokctl"));
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .args(args)
            .env("PATH", format!("{}:{path}", bin.display()))
            .stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Output of a command that must succeed.
    fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What a command does with text on its standard input: exit code, output, error text.
    fn fed(&self, args: &[&str], input: &str) -> (Option<i32>, String, String) {
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // One that needs no input may end before it reads any.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    }

    /// Result of a command as the wire has it.
    fn wire(&self, args: &[&str]) -> Value {
        let all: Vec<&str> = ["--json"].iter().chain(args).copied().collect();
        serde_json::from_str(&self.ok(&all)).unwrap()
    }

    /// Exit code and error text of a command that must fail.
    fn fails(&self, args: &[&str], code: i32) -> String {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    fn daemon_pid(&self) -> Option<i32> {
        fs::read_to_string(self.0.dir().join("run/d.sock.lock"))
            .ok()?
            .trim()
            .parse()
            .ok()
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        let Some(pid) = self.daemon_pid() else { return };
        let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        if exe.starts_with(self.0.dir()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

#[test]
fn exit_codes_tell_what_happened() {
    let desk = Desk::new(World::with_project("alpha"));
    let error = desk.fails(&["--no-autostart", "project", "list"], 69);
    assert!(!error.is_empty());
    desk.ok(&["project", "list"]);
    desk.ok(&["--no-autostart", "project", "list"]);
    let error = desk.fails(&["project", "show", "none"], 1);
    assert!(error.contains("none"), "{error}");
    desk.fails(&["no-such-command"], 2);
    desk.fails(&["project", "show"], 2);
    desk.fails(&["call", "daemon.status", "{not json"], 2);
    let error = desk.fails(&["--json", "project", "show", "none"], 1);
    let error: Value =
        serde_json::from_str(error.trim()).unwrap_or_else(|e| panic!("{e}: {error}"));
    assert_eq!(
        (&error["code"], &error["data"]["kind"]),
        (&json!(1001), &json!("project_not_found"))
    );
    let pid = Pid::from_raw(desk.daemon_pid().unwrap());
    kill(pid, Signal::SIGSTOP).unwrap();
    eventually("every thread stands still", || {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
        let mut states =
            tasks.map(|t| fs::read_to_string(t.path().join("stat")).unwrap_or_default());
        states
            .all(|s| {
                s.rsplit(')')
                    .next()
                    .is_some_and(|rest| rest.starts_with(" T"))
            })
            .then_some(())
    });
    desk.fails(&["--timeout", "1", "daemon", "status"], 75);
    kill(pid, Signal::SIGCONT).unwrap();
    desk.ok(&["daemon", "stop"]);
    desk.fails(&["--no-autostart", "daemon", "status"], 69);
}

#[test]
fn fifty_first_calls_start_one_daemon() {
    let desk = Desk::new(World::with_project("alpha"));
    let children: Vec<_> = (0..50)
        .map(|_| {
            desk.command(&["--json", "call", "daemon.status"])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let mut pids = Vec::new();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let status: Value = serde_json::from_slice(&output.stdout).unwrap();
        pids.push(status["pid"].as_i64().unwrap());
    }
    assert!(pids.iter().all(|p| *p == pids[0]), "{pids:?}");
    assert_eq!(pids[0], i64::from(desk.daemon_pid().unwrap()));
}

#[test]
fn output_fits_its_reader() {
    let desk = Desk::new(World::with_project("alpha").project("beta", "project: {name: Beta}\n"));
    let piped = desk.ok(&["project", "list"]);
    assert_eq!(piped.lines().count(), 2, "no header when piped: {piped}");
    assert!(piped.lines().all(|l| l.contains('\t')), "{piped}");
    assert!(!piped.contains('\x1b'));
    let wire: Value = serde_json::from_str(&desk.ok(&["--json", "project", "list"])).unwrap();
    assert_eq!(wire[1]["display_name"], "Beta");
    assert_eq!(
        desk.ok(&["--json", "project", "list"])
            .trim_end()
            .lines()
            .count(),
        1
    );
    let flat = desk.ok(&["--flat", "project", "show", "alpha"]);
    assert!(flat.lines().any(|l| l == "security_class=online"), "{flat}");
    assert!(flat.lines().any(|l| l == "config.agents=all"), "{flat}");
    let mut child = desk
        .command(&["--json", "call", "get_project", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"{\"project_id\": \"beta\"}")
        .unwrap();
    let answer: Value = serde_json::from_slice(&child.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(answer["id"], "beta");
}

#[test]
fn agents_are_listed_without_tools_but_with_what_is_broken() {
    let desk = Desk::new(World::with_project("alpha"));
    let file = desk
        .0
        .write("$CONFIG/agent/agents/gh.yaml", "kind: nonsense\n");
    desk.0.settle();
    let names = |args: &[&str]| -> Vec<String> {
        let listed = desk.ok(args);
        let names = listed.lines().filter_map(|line| line.split('\t').next());
        names.map(str::to_owned).collect()
    };
    let agents = names(&["agents", "list"]);
    let all = names(&["agents", "list", "--all"]);
    let has = |list: &[String], name: &str| list.iter().any(|n| n == name);
    for (name, plainly, with_all) in [
        ("claude", true, true),
        ("gh", true, true),
        ("glab", false, true),
        ("toad", false, false),
    ] {
        assert_eq!(has(&agents, name), plainly, "{name}: {agents:?}");
        assert_eq!(has(&all, name), with_all, "{name}: {all:?}");
    }
    let wire = desk.wire(&["agents", "list"]);
    let of = |name: &str| wire.as_array().unwrap().iter().find(|e| e["name"] == name);
    assert!(of("toad").is_some(), "the wire has all of it");
    assert_eq!(of("gh").unwrap()["path"], file.to_str().unwrap());
}

#[test]
fn every_project_command_does_its_call() {
    let desk = Desk::new(World::with_project("alpha").project("broken", "nonsense: 1\n"));
    assert!(desk.ok(&["project", "discover"]).contains("broken"));
    assert!(desk.ok(&["project", "config", "alpha"]).contains("online"));
    assert!(desk.ok(&["project", "presets", "alpha"]).contains("solo"));
    let output = desk.run(&["project", "agents", "alpha", "claude,codex"]);
    assert!(output.status.success(), "{output:?}");
    let hint = String::from_utf8(output.stderr).unwrap();
    assert!(hint.contains("`terokctl project build alpha`"), "{hint}");
    assert!(
        desk.ok(&["--flat", "project", "show", "alpha"])
            .contains("config.agents=claude,codex")
    );
    desk.fails(&["project", "agents", "alpha", "nobody"], 1);
    let error = desk.fails(&["project", "agents", "alpha"], 2);
    assert!(error.contains("project agents alpha SELECTION"), "{error}");
    desk.ok(&["project", "state", "alpha"]);
    desk.ok(&["project", "storage", "alpha"]);
    desk.ok(&["project", "derive", "alpha", "gamma"]);
    let file = desk.0.write(
        "$HOME/new.yml",
        "project:\n  id: fresh\n  security_class: online\n",
    );
    desk.ok(&["project", "new", "--from", file.to_str().unwrap()]);
    let flow = "project: {id: flowing, security_class: online}\n";
    let file = desk.0.write("$HOME/flow.yml", flow);
    desk.ok(&["project", "new", "--from", file.to_str().unwrap()]);
    assert!(desk.ok(&["project", "list"]).contains("flowing"));
    assert!(desk.ok(&["project", "list"]).contains("fresh"));
    assert!(
        desk.ok(&["project", "delete", "gamma", "--yes"])
            .contains("gamma.tar.gz")
    );
    assert!(!desk.0.path("$CONFIG/projects/gamma").exists());
    // Without a confirmation nothing happens, and that is no failure.
    desk.ok(&["project", "delete", "alpha"]);
    assert!(desk.0.path("$CONFIG/projects/alpha").exists());
    let rendered = desk.ok(&["project", "generate", "alpha"]);
    assert!(rendered.lines().count() >= 3, "{rendered}");
    for path in rendered.lines() {
        assert!(std::path::Path::new(path).is_file(), "{path}");
    }
    let state = desk.ok(&["project", "state", "alpha"]);
    assert!(state.contains("dockerfiles\tyes\n"), "{state}");
    // Without Podman nothing can be said about images, and nothing is done about them.
    let error = desk.fails(&["project", "build", "alpha"], 1);
    assert!(error.contains("podman"), "{error}");
    let error = desk.fails(
        &[
            "--json",
            "image",
            "remove",
            "localhost/alpha:l2-cli",
            "--yes",
        ],
        1,
    );
    assert!(error.contains("podman_unavailable"), "{error}");
    let named = desk.ok(&["image", "remove", "localhost/alpha:l2-cli", "--dry-run"]);
    assert_eq!(named, "Would remove:\n  localhost/alpha:l2-cli\n");
    let error = desk.fails(&["project", "build", "alpha", "--agents", "nobody"], 1);
    assert!(error.contains("nobody"), "{error}");
    desk.ok(&["daemon", "paths"]);
    desk.ok(&["daemon", "reload"]);
    desk.ok(&["op", "list"]);
    let id = desk.ok(&["--no-wait", "project", "delete", "alpha", "--yes"]);
    let operation = desk.ok(&[
        "--json",
        "call",
        "operation.get",
        &json!({"id": id.trim()}).to_string(),
    ]);
    assert!(operation.contains("delete_project"), "{operation}");
}

#[test]
fn watching_ends_with_an_interrupt() {
    let desk = Desk::new(World::with_project("alpha"));
    desk.ok(&["daemon", "start"]);
    let out = desk.0.dir().join("watch.out");
    let file = fs::File::create(&out).unwrap();
    let mut child = desk
        .command(&["--json", "watch", "--snapshot", "--kind", "project.added"])
        .stdout(file)
        .spawn()
        .unwrap();
    let seen = |what: &str| {
        fs::read_to_string(&out)
            .unwrap()
            .contains(what)
            .then_some(())
    };
    eventually("the snapshot", || seen("events.snapshot"));
    desk.0.write(
        "$CONFIG/projects/beta/project.yml",
        "project: {security_class: online}\n",
    );
    eventually("the event", || seen("project.added"));
    kill(
        Pid::from_raw(child.id().try_into().unwrap()),
        Signal::SIGINT,
    )
    .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    for line in fs::read_to_string(&out).unwrap().lines() {
        serde_json::from_str::<Value>(line).unwrap();
    }
}

#[test]
fn completions_know_the_projects() {
    let desk = Desk::new(
        World::with_project("alpha").project("another", "project: {security_class: online}\n"),
    );
    desk.ok(&["daemon", "start"]);
    let script = |shell: &str| {
        let text = desk.ok(&["completions", shell]);
        desk.0.write(&format!("$HOME/complete.{shell}"), text)
    };
    let bin = desk.0.dir().join("bin");
    let shell = |program: &str, args: &[&str]| {
        let found = need(program)?;
        let path = format!(
            "{}:{}",
            bin.display(),
            std::env::var("PATH").unwrap_or_default()
        );
        let output = desk
            .0
            .command(&found)
            .args(args)
            .env("PATH", path)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "{program}: {output:?}");
        Some(String::from_utf8(output.stdout).unwrap())
    };
    let file = script("bash");
    let ask = r#"source "$0"; COMP_WORDS=(terokctl project show a); COMP_CWORD=3; _terokctl; printf '%s\n' "${COMPREPLY[@]}""#;
    if let Some(said) = shell("bash", &["-c", ask, file.to_str().unwrap()]) {
        assert_eq!(
            said.split_whitespace().collect::<Vec<_>>(),
            ["alpha", "another"],
            "bash"
        );
    }
    let file = script("fish");
    if let Some(said) = shell(
        "fish",
        &[
            "-c",
            &format!(
                "source {}; complete -C 'terokctl project show a'",
                file.display()
            ),
        ],
    ) {
        assert!(
            said.contains("alpha") && said.contains("another"),
            "fish: {said}"
        );
    }
    let file = script("zsh");
    // What `compadd` would offer, without a terminal.
    let ask = r#"compdef() { : }; compadd() { print -l -- "${@[$((${@[(i)--]}+1)),-1]}" }; source "$0"; words=(terokctl project show a); CURRENT=4; _terokctl"#;
    if let Some(said) = shell("zsh", &["-fc", ask, file.to_str().unwrap()]) {
        assert!(
            said.contains("alpha") && said.contains("another"),
            "zsh: {said}"
        );
    }
}

#[test]
fn manual_pages_are_written() {
    let desk = Desk::new(World::new());
    let dir = desk.0.path("$HOME/man");
    desk.ok(&["man", dir.to_str().unwrap()]);
    let pages: Vec<String> = fs::read_dir(&dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(pages.contains(&"terokctl.1".to_owned()), "{pages:?}");
    assert!(
        fs::read_to_string(dir.join("terokctl.1"))
            .unwrap()
            .contains(".TH")
    );
    assert!(desk.daemon_pid().is_none(), "writing pages needs no daemon");
}

#[test]
fn the_wizard_asks_on_a_terminal() {
    let Some(script) = need("script") else { return };
    let desk = Desk::new(World::new());
    desk.ok(&["daemon", "start"]);
    let bin = desk.0.dir().join("bin/terokctl");
    let mut child = desk
        .0
        .command(&script)
        .args([
            "-qec",
            &format!("{} --no-color project wizard", bin.display()),
            "/dev/null",
        ])
        .env("TERM", "dumb")
        .env("EDITOR", "true")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Class, base, id (once refused), upstream, branch, snippet?, agents?, and whatever is offered afterwards: no.
    let answers = "1\n4\n!!!\nMy Wizard\nhttps://forge.example/r.git\n\nn\nn\nn\nn\nn\nn\n";
    child
        .stdin
        .take()
        .unwrap()
        .write_all(answers.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let text = fs::read_to_string(desk.0.path("$CONFIG/projects/my-wizard/project.yml"))
        .unwrap_or_else(|e| panic!("{e}: {said}\n{}", String::from_utf8_lossy(&output.stderr)));
    assert!(
        text.contains("https://forge.example/r.git") && text.contains("online"),
        "{text}"
    );
    assert!(
        said.contains("Select security mode") && said.contains("my-wizard"),
        "{said}"
    );
    desk.ok(&["project", "show", "my-wizard"]);
}

#[test]
fn a_wizard_that_is_left_writes_nothing() {
    let Some(script) = need("script") else { return };
    let desk = Desk::new(World::new());
    desk.ok(&["daemon", "start"]);
    let bin = desk.0.dir().join("bin/terokctl");
    let mut child = desk
        .0
        .command(&script)
        .args([
            "-qec",
            &format!("{} project wizard", bin.display()),
            "/dev/null",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"1\n1\nunfinished\n\x04")
        .unwrap();
    child.wait().unwrap();
    assert!(!desk.0.path("$CONFIG/projects/unfinished").exists());
}
