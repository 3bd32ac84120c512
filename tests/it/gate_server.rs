//! Where agents reach their gates: sockets that are handed over, addresses that stay.

use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Stdio;
use terok_tests::http_git::base64;
use terok_tests::programs::{need, terokd};
use terok_tests::{Daemon, PATIENCE, Upstream, World, eventually};

const TCP: &str = "services: {mode: tcp}\n";

/// Starts the daemon as systemd does, with the gate's listener before the daemon's own.
fn activated(world: &World, gate: impl Into<OwnedFd>, own: &UnixListener) -> Daemon {
    let script = r#"exec 3<&0 4<&1 </dev/null >&2; LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=terokd-gate:terokd.socket exec "$0""#;
    let own = own.try_clone().unwrap();
    Daemon::start(world, |command| {
        let mut shell = world.command("/bin/sh".as_ref());
        shell
            .arg("-c")
            .arg(script)
            .arg(terokd())
            .stdin(Stdio::from(gate.into()))
            .stdout(Stdio::from(OwnedFd::from(own)));
        for (name, value) in command.get_envs() {
            shell.env(name, value.unwrap());
        }
        let log = fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(world.dir().join("log.activated"))
            .unwrap();
        shell.stderr(log);
        *command = shell;
    })
}

fn own_socket(world: &World) -> UnixListener {
    let run = world.dir().join("run");
    world.mkdirs(&run);
    fs::set_permissions(&run, fs::Permissions::from_mode(0o700)).unwrap();
    UnixListener::bind(world.socket()).unwrap()
}

fn ask(stream: &mut UnixStream) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
        .write_all(b"GET /alpha.git/HEAD HTTP/1.1\r\nHost: gate\r\nConnection: close\r\n\r\n")
        .unwrap();
}

fn answer(mut stream: UnixStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

fn status(daemon: &Daemon) -> Value {
    daemon.ok("gate_server.status", json!({}))
}

#[test]
fn a_socket_that_was_handed_over_for_gates_is_used_and_left() {
    let world = World::new();
    let own = own_socket(&world);
    let path = world.dir().join("run/gate.sock");
    let gate = UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    // An agent that came before the daemon is served, also while it is replaced.
    for _ in 0..2 {
        let mut early = UnixStream::connect(&path).unwrap();
        ask(&mut early);
        let mut daemon = activated(&world, gate.try_clone().unwrap(), &own);
        assert!(answer(early).starts_with("HTTP/1.1 401"));
        let status = status(&daemon);
        assert_eq!(status["mode"], "systemd", "{status}");
        assert_eq!(status["transport"], "socket");
        assert_eq!(status["address"], path.to_str().unwrap());
        assert!(daemon.terminate().success());
        assert!(path.exists(), "the socket belongs to whoever made it");
    }
    // What others can reach is not served.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    let daemon = activated(&world, gate, &own);
    let status = status(&daemon);
    assert_eq!(status["running"], false, "{status}");
    assert!(
        status["error"].as_str().unwrap().contains("0666"),
        "{status}"
    );
}

#[test]
fn a_port_that_was_handed_over_has_to_be_on_loopback() {
    let world = World::new().file("$CONFIG/config.yml", TCP);
    let own = own_socket(&world);
    let gate = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = gate.local_addr().unwrap();
    let mut daemon = activated(&world, gate, &own);
    let told = status(&daemon);
    assert_eq!(told["mode"], "systemd", "{told}");
    assert_eq!(told["port"], address.port());
    assert!(daemon.terminate().success());

    let daemon = activated(&world, TcpListener::bind("0.0.0.0:0").unwrap(), &own);
    let told = status(&daemon);
    assert_eq!(told["running"], false, "{told}");
    assert!(
        told["error"].as_str().unwrap().contains("loopback"),
        "{told}"
    );
}

#[test]
fn the_port_stays_over_restarts() {
    let world = World::new().file("$CONFIG/config.yml", TCP);
    let mut daemon = world.start();
    let first = status(&daemon);
    let port = first["port"].as_u64().unwrap();
    assert!((18_700..=32_700).contains(&port), "{first}");
    assert_eq!(first["mode"], "daemon");
    assert!(daemon.terminate().success());
    let mut daemon = world.start();
    assert_eq!(status(&daemon)["port"], port);
    daemon.kill9();
    let daemon = world.start();
    assert_eq!(status(&daemon)["port"], port);
}

/// Clones the gate of `name` with a token of the user name.
fn clone(world: &World, port: u64, token: &str, name: &str, target: &str) -> bool {
    let Some(git) = need("git") else { return false };
    let url = format!("http://{token}@127.0.0.1:{port}/{name}.git");
    let mut command = world.command(&git);
    command
        .env("GIT_TERMINAL_PROMPT", "0")
        .args(["clone", "-q", &url])
        .arg(world.path(&format!("$HOME/{target}")));
    command.output().unwrap().status.success()
}

/// A project `alpha` whose upstream nobody polls.
fn with_upstream() -> Option<World> {
    let world = World::new().file("$CONFIG/config.yml", TCP);
    let upstream = Upstream::new(&world, "up")?;
    let yaml = format!(
        "git: {{upstream_url: \"{}\", default_branch: main}}\ngatekeeping: {{upstream_polling: {{enabled: false}}}}\n",
        upstream.file_url()
    );
    Some(world.project("alpha", &yaml))
}

#[test]
fn a_derived_project_clones_and_a_deleted_one_does_not() {
    let Some(world) = with_upstream() else { return };
    let world = world.project("other", "{}\n");
    let mut daemon = world.start();
    daemon.ok("project.gate.sync", json!({"project_id": "alpha"}));
    let derived = json!({"source_id": "alpha", "new_id": "beta"});
    daemon.ok("derive_project", derived);
    assert!(daemon.terminate().success());
    let token = |n: u8| format!("terok-g-{n:032x}");
    let tokens = json!({
        token(1): {"scope": "alpha", "task": "t1"},
        token(2): {"scope": "beta", "task": "t2"},
        token(3): {"scope": "other", "task": "t3"},
    });
    let file = "$DATA/sandbox/gate/tokens.json";
    world.write(file, tokens.to_string());
    let mut daemon = world.start();
    let port = status(&daemon)["port"].as_u64().unwrap();
    assert!(clone(&world, port, &token(1), "alpha", "one"));
    assert!(
        clone(&world, port, &token(2), "alpha", "two"),
        "of a derived project"
    );
    assert!(
        !clone(&world, port, &token(3), "alpha", "three"),
        "of a stranger"
    );

    daemon.ok("delete_project", json!({"project_id": "beta"}));
    assert!(!clone(&world, port, &token(2), "alpha", "deleted"));
    // The file still has the token; and this start cannot serve anybody.
    assert!(daemon.terminate().success());
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = held.local_addr().unwrap().port();
    world.write(
        "$CONFIG/config.yml",
        format!("{TCP}gate_server: {{port: {taken}}}\n"),
    );
    let mut daemon = world.start();
    let told = status(&daemon);
    assert_eq!(told["running"], false, "{told}");
    assert!(
        told["error"].as_str().unwrap().contains("cannot listen"),
        "{told}"
    );
    assert!(daemon.terminate().success());
    drop(held);
    let daemon = world.start();
    assert!(clone(&world, taken.into(), &token(1), "alpha", "again"));
    assert!(!clone(&world, taken.into(), &token(2), "alpha", "revived"));
    drop(daemon);
}

#[test]
fn a_deletion_that_is_killed_leaves_no_token_behind() {
    let Some(world) = with_upstream() else { return };
    let token = |n: usize| format!("terok-g-{n:032x}");
    let points = ["delete.renamed_all", "delete.journal_removed"];
    let mut tokens = json!({token(9): {"scope": "alpha", "task": "t9"}});
    for n in 0..points.len() {
        tokens[token(n)] = json!({"scope": format!("beta{n}"), "task": "t"});
    }
    world.write("$DATA/sandbox/gate/tokens.json", tokens.to_string());
    let mut daemon = world.start();
    daemon.ok("project.gate.sync", json!({"project_id": "alpha"}));
    for (n, point) in points.into_iter().enumerate() {
        let derived = json!({"source_id": "alpha", "new_id": format!("beta{n}")});
        daemon.ok("derive_project", derived.clone());
        assert!(daemon.terminate().success());
        daemon = world.start_with(|command| {
            command.env("TEROKD_CRASH_AT", point);
        });
        let mut client = daemon.connect();
        client.send("delete_project", json!({"project_id": format!("beta{n}")}));
        assert!(!daemon.wait().success(), "it dies at {point}");
        daemon = world.start();
        // Whoever gets the name next is somebody else.
        daemon.ok("derive_project", derived);
        let port = status(&daemon)["port"].as_u64().unwrap();
        let opens =
            |token: &str, to: &str| clone(&world, port, token, "alpha", &format!("{to}{n}"));
        assert!(opens(&token(9), "mine"));
        assert!(!opens(&token(n), "theirs"), "killed at {point}");
    }
}

#[test]
fn a_push_that_nobody_was_told_of_is_in_the_next_stream() {
    let world = World::new().project("alpha", "{}\n");
    let mut daemon = world.start();
    let told = status(&daemon);
    let socket = Path::new(told["address"].as_str().unwrap()).to_owned();
    assert!(daemon.terminate().success());
    // As the hook of a push leaves it that outlives the daemon.
    let gate = world.path("$DATA/sandbox/gate/alpha.git");
    let who = json!({"project": "alpha", "task_id": "t1", "gate_path": gate, "refs": []});
    let (old, new) = ("0".repeat(40), "1".repeat(40));
    let report = socket.with_file_name("push-AbCdEf.refs");
    fs::write(&report, format!("{who}\n{old} {new} refs/heads/main\n")).unwrap();
    world.own(&report);
    let daemon = world.start();
    // Whoever comes back with what he knew of the last daemon learns the epoch, and can have all of it.
    let since = json!({"since": 7, "epoch": "of the last"});
    let epoch = daemon.events(since).next_of("events.gap")["epoch"].clone();
    let mut events = daemon.events(json!({"since": 0, "epoch": epoch}));
    let pushed = events.next_about("gate.pushed", "alpha");
    assert_eq!(pushed["task_id"], "t1", "{pushed}");
    let moved = json!([{"name": "refs/heads/main", "old": null, "new": new}]);
    assert_eq!(pushed["data"]["refs"], moved, "{pushed}");
    assert!(!report.exists());
}

/// Begins a POST to a service of `alpha`'s gate.
fn post(port: u64, token: &str, service: &str, length: usize) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port as u16)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let user = base64(format!("{token}:x").as_bytes());
    write!(
        stream,
        "POST /alpha.git/git-{service} HTTP/1.1\r\nHost: gate\r\nAuthorization: Basic {user}\r\nGit-Protocol: version=2\r\n\
         Content-Type: application/x-git-{service}-request\r\nContent-Length: {length}\r\n\r\n"
    )
    .unwrap();
    stream
}

/// Everything until the daemon hangs up.
fn rest(mut stream: TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
    answer
}

/// Command lines of what runs in a directory.
fn at_work(dir: &Path) -> String {
    let mut found = String::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let cwd = fs::read_link(entry.path().join("cwd"));
        if cwd.is_ok_and(|cwd| cwd.starts_with(dir)) {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            found += &String::from_utf8_lossy(&line).replace('\0', " ");
            found.push('\n');
        }
    }
    found
}

#[test]
fn a_daemon_that_stops_takes_clones_and_pushes_along() {
    let world = World::new().file("$CONFIG/config.yml", TCP);
    let Some(upstream) = Upstream::new(&world, "up") else {
        return;
    };
    // More than two socket buffers hold, and does not compress.
    let mut noise = vec![0; 24 << 20];
    let mut random = fs::File::open("/dev/urandom").unwrap();
    random.read_exact(&mut noise).unwrap();
    let head = upstream.commit_file("main", "big", &noise);
    let yaml = format!(
        "git: {{upstream_url: \"{}\", default_branch: main}}\ngatekeeping: {{upstream_polling: {{enabled: false}}}}\n",
        upstream.file_url()
    );
    let world = world.project("alpha", &yaml);
    let token = format!("terok-g-{:032x}", 1);
    let tokens = json!({token.as_str(): {"scope": "alpha", "task": "t1"}});
    world.write("$DATA/sandbox/gate/tokens.json", tokens.to_string());
    let mut daemon = world.start();
    daemon.ok("project.gate.sync", json!({"project_id": "alpha"}));
    let gate = world.path("$DATA/sandbox/gate/alpha.git");
    let gate = gate.canonicalize().unwrap();
    let port = status(&daemon)["port"].as_u64().unwrap();

    let want = format!("0012command=fetch\n00010032want {head}\n0009done\n0000");
    let mut reading = post(port, &token, "upload-pack", want.len());
    reading.write_all(want.as_bytes()).unwrap();
    reading.read_exact(&mut [0]).unwrap();
    let line = format!("{head} {} refs/heads/main\0 report-status", "1".repeat(40));
    let mut writing = post(port, &token, "receive-pack", 1 << 20);
    write!(
        writing,
        "{:04x}{line}0000PACK\0\0\0\x02\0\0\0\x03",
        line.len() + 4
    )
    .unwrap();
    eventually("git is at work on both", || {
        let at_work = at_work(&gate);
        let both = ["pack-objects", "unpack-objects"];
        both.iter().all(|name| at_work.contains(name)).then_some(())
    });
    assert!(daemon.terminate().success());
    // Children of children are told and not waited for.
    eventually("git ends", || at_work(&gate).is_empty().then_some(()));
    assert!(rest(reading).len() < noise.len());
    rest(writing);
    assert!(!daemon.log().contains("do not end"), "{}", daemon.log());
    let quarantined = fs::read_dir(gate.join("objects")).unwrap().flatten();
    let names = quarantined.map(|entry| entry.file_name().into_string().unwrap());
    let left: Vec<_> = names.filter(|name| name.contains("incoming")).collect();
    assert_eq!(left, Vec::<String>::new());
    let daemon = world.start();
    assert!(clone(&world, port, &token, "alpha", "again"));
    drop(daemon);
}
