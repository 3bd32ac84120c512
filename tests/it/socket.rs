//! The socket: who may connect, and how its file comes and goes (rpc.md §1).

use serde_json::json;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use terok_tests::programs::{account, need, skip, terokd};
use terok_tests::{Daemon, World, eventually};

#[test]
fn socket_and_directory_are_private() {
    let world = World::new();
    let daemon = world.start();
    let run = fs::metadata(world.dir().join("run")).unwrap();
    assert_eq!(run.mode() & 0o7777, 0o700);
    assert_eq!(
        fs::metadata(daemon.socket()).unwrap().mode() & 0o7777,
        0o600
    );
    let lock = fs::read_to_string(world.dir().join("run/d.sock.lock")).unwrap();
    assert_eq!(lock.trim(), daemon.pid().to_string());
    let status = daemon.ok("daemon.status", json!({}));
    assert_eq!(status["socket"], daemon.socket().to_str().unwrap());
    assert_eq!(status["state"], "ready");
}

#[test]
fn a_directory_that_others_can_enter_is_refused() {
    let mut world = World::new();
    world.mkdirs(&world.dir().join("run"));
    world.mode_at_start(world.dir().join("run").to_str().unwrap(), 0o755);
    let mut daemon = Daemon::spawn(&world, |_| {});
    let status = daemon.wait_ready().expect_err("it must refuse");
    daemon.forgive();
    assert_eq!(status.code(), Some(1), "{}", daemon.log());
    assert!(daemon.log().contains("0755"), "{}", daemon.log());
}

#[test]
fn a_directory_of_somebody_else_is_refused() {
    if account().is_none() {
        return skip("root", "only root can make a directory of another account");
    }
    let world = World::new();
    let run = world.dir().join("run");
    world.settle();
    fs::create_dir(&run).unwrap();
    fs::set_permissions(&run, fs::Permissions::from_mode(0o700)).unwrap();
    let other = run.to_str().unwrap().to_owned();
    let mut daemon = Daemon::spawn(&world, |command| {
        // `spawn` hands everything to the daemon's account; take this one back.
        std::os::unix::fs::chown(&other, Some(0), Some(0)).unwrap();
        command.arg("--log").arg("info");
    });
    let status = daemon.wait_ready().expect_err("it must refuse");
    daemon.forgive();
    assert_eq!(status.code(), Some(1), "{}", daemon.log());
}

#[test]
fn a_stale_socket_is_replaced() {
    let world = World::new();
    let mut first = world.start();
    first.kill9();
    assert!(
        world.socket().exists(),
        "a killed daemon leaves its socket behind"
    );
    let second = world.start();
    assert_eq!(second.ok("daemon.status", json!({}))["pid"], second.pid());
}

#[test]
fn a_file_that_is_no_socket_is_not_taken_away() {
    let world = World::new();
    world.mkdirs(&world.dir().join("run"));
    fs::set_permissions(world.dir().join("run"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(world.socket(), "precious").unwrap();
    let mut daemon = Daemon::spawn(&world, |_| {});
    let status = daemon.wait_ready().expect_err("it must refuse");
    daemon.forgive();
    assert_eq!(status.code(), Some(1), "{}", daemon.log());
    assert_eq!(fs::read_to_string(world.socket()).unwrap(), "precious");
}

#[test]
fn a_second_daemon_says_who_is_there() {
    let world = World::new();
    let first = world.start();
    let mut second = Daemon::spawn(&world, |_| {});
    let status = second.wait_ready().expect_err("only one may serve");
    second.forgive();
    assert_eq!(status.code(), Some(4));
    let said = format!("already running (pid {})", first.pid());
    assert!(second.log().contains(&said), "{}", second.log());
    first.ok("daemon.status", json!({}));
}

#[test]
fn of_two_daemons_started_at_once_one_wins() {
    let world = World::new();
    for round in 0..100 {
        let mut both = [Daemon::spawn(&world, |_| {}), Daemon::spawn(&world, |_| {})];
        let results = [both[0].wait_ready(), both[1].wait_ready()];
        let ready = results.iter().filter(|r| r.is_ok()).count();
        assert_eq!(
            ready,
            1,
            "round {round}: {results:?}\n{}\n{}",
            both[0].log(),
            both[1].log()
        );
        let loser = results.iter().find_map(|r| r.err()).unwrap();
        assert_eq!(loser.code(), Some(4), "round {round}");
        for (daemon, result) in both.iter_mut().zip(results) {
            match result {
                // Killed every other time, so that stale files are part of the race.
                Ok(()) if round % 2 == 0 => daemon.kill9(),
                Ok(()) => assert!(daemon.terminate().success(), "{}", daemon.log()),
                Err(_) => daemon.forgive(),
            }
        }
    }
}

#[test]
fn an_orderly_end_takes_the_socket_away() {
    let world = World::new();
    let mut daemon = world.start();
    let idle = daemon.connect();
    assert!(daemon.terminate().success(), "{}", daemon.log());
    assert!(!world.socket().exists());
    drop(idle);

    let mut daemon = world.start();
    let mut client = daemon.connect();
    assert_eq!(
        client.ok("daemon.shutdown", json!({"drain_ms": 100})),
        json!(null)
    );
    assert!(daemon.wait().success(), "{}", daemon.log());
    assert!(
        client.message().is_none(),
        "the connection ends with the daemon"
    );
    assert!(!world.socket().exists());
}

#[test]
fn the_socket_argument_beats_the_environment() {
    let world = World::new();
    let other = world.dir().join("other/s.sock");
    let daemon = world.start_with(|command| {
        command.arg("--socket").arg(&other);
    });
    assert!(other.exists() && !world.socket().exists());
    drop(daemon);

    let world = World::new();
    let runtime = world.dir().join("xdg");
    world.mkdirs(&runtime);
    let _daemon = world.start_with(|command| {
        command
            .env_remove("TEROKD_SOCKET")
            .env("XDG_RUNTIME_DIR", &runtime);
    });
    assert!(runtime.join("terok/terokd.sock").exists());

    let world = World::new();
    let _daemon = world.start_with(|command| {
        command.env_remove("TEROKD_SOCKET");
    });
    assert!(world.path("$DATA/run/terokd.sock").exists());
}

#[test]
fn another_user_is_closed_before_a_byte_is_read() {
    if account().is_none() {
        return skip("root", "only root can become another account");
    }
    let Some(curl) = need("curl") else { return };
    let world = World::new();
    let daemon = world.start();
    // The modes alone would keep them out; the check behind them must hold without.
    fs::set_permissions(world.dir().join("run"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(daemon.socket(), fs::Permissions::from_mode(0o666)).unwrap();
    let ask = |uid: u32| {
        let mut command = Command::new(&curl);
        command
            .args(["-s", "--max-time", "20", "--unix-socket"])
            .arg(daemon.socket())
            .arg("http://localhost/healthz");
        std::os::unix::process::CommandExt::uid(&mut command, uid)
            .output()
            .unwrap()
    };
    let stranger = ask(12345);
    assert!(
        !stranger.status.success() && stranger.stdout.is_empty(),
        "{stranger:?}"
    );
    assert!(ask(terok_tests::programs::UNPRIVILEGED).status.success());
    assert!(ask(0).status.success(), "root may connect");
    let metrics = daemon.http("GET", "/metrics", "").body;
    let refused = metrics
        .lines()
        .find(|l| !l.starts_with('#') && l.contains("peer"))
        .unwrap_or_else(|| panic!("{metrics}"));
    assert!(refused.ends_with(" 1"), "{refused}");
}

/// Starts the daemon with a listening socket at descriptor 3, as systemd does.
fn activated(world: &World, listener: UnixListener) -> Daemon {
    let script = r#"exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=terokd.socket exec "$0""#;
    Daemon::start(world, |command| {
        let mut shell = world.command("/bin/sh".as_ref());
        shell
            .arg("-c")
            .arg(script)
            .arg(terokd())
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(listener)));
        for (name, value) in command.get_envs() {
            shell.env(name, value.unwrap());
        }
        let log = fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(world.dir().join("log.activated"))
            .unwrap();
        shell.stdout(log.try_clone().unwrap()).stderr(log);
        *command = shell;
    })
}

#[test]
fn a_socket_that_was_handed_over_is_used_and_left() {
    let world = World::new();
    let run = world.dir().join("run");
    world.mkdirs(&run);
    fs::set_permissions(&run, fs::Permissions::from_mode(0o700)).unwrap();
    let listener = UnixListener::bind(world.socket()).unwrap();
    // A client that came before the daemon is served.
    let mut early = terok_tests::Client::connect(&world.socket());
    let id = early.send("daemon.status", json!({}));
    let mut daemon = activated(&world, listener.try_clone().unwrap());
    assert_eq!(early.answer(id).unwrap()["pid"], daemon.pid());
    assert!(daemon.terminate().success());
    assert!(
        world.socket().exists(),
        "the socket belongs to whoever made it"
    );
    // It still accepts: nothing is lost while no daemon runs.
    let mut waiting = terok_tests::Client::connect(&world.socket());
    let id = waiting.send("panic.status", json!({}));
    let _again = activated(&world, listener);
    assert_eq!(waiting.answer(id).unwrap()["panicked"], false);
}

#[test]
fn systemd_is_told_about_the_life_of_the_daemon() {
    let world = World::with_project("alpha");
    let mut daemon = Daemon::spawn(&world, |command| {
        command.env("WATCHDOG_USEC", "200000");
    });
    daemon.wait_ready().unwrap();
    let mut told = Vec::new();
    let mut hear = |what: &str, daemon: &Daemon| {
        eventually(what, || {
            told.extend(
                daemon
                    .told()
                    .iter()
                    .flat_map(|t| t.lines().map(str::to_owned).collect::<Vec<_>>()),
            );
            told.iter().any(|l| l.starts_with(what)).then_some(())
        });
        told.clear();
    };
    hear("WATCHDOG=1", &daemon);
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    hear("RELOADING=1", &daemon);
    hear("READY=1", &daemon);
    world.write(
        "$CONFIG/projects/beta/project.yml",
        "project: {security_class: online}\n",
    );
    hear("STATUS=", &daemon);
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    hear("STOPPING=1", &daemon);
    assert!(daemon.wait().success());
}

#[test]
fn ready_means_that_projects_are_loaded_and_the_socket_accepts() {
    let world = World::with_project("alpha").project("beta", "no_such_key: 1\n");
    let daemon = world.start();
    UnixStream::connect(daemon.socket()).unwrap();
    let status = daemon.ok("daemon.status", json!({}));
    assert_eq!(status["projects"], json!({"valid": 1, "broken": 1}));
}
