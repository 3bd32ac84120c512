//! Upstreams that hang, break off or lie, and callers that lose patience: what is said, and that the gate is as it was.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod support;

use gix::ObjectId;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;
use support::http::Manner;
use support::lab::{HANG, Lab, cancelled_after, listing};
use support::scene::{Scene, fetch, ls, patient, want};
use support::servers::{Agent, keygen, silent, wait_for};
use terok_gate::{
    Access, CliTransport, Control, GateUrl, GitTransport, GixTransport, HostEnv, Limits,
    TransportError, Upstream,
};

#[test]
fn broken_off_transfers_leave_the_gate_as_it_was() {
    let scene = Scene::new();
    // Something incompressible, so that the cut is inside the pack.
    let noise: String = (0..40_000u64)
        .map(|n| format!("{:x}", n.wrapping_mul(0x9E37_79B9_7F4A_7C15)))
        .collect();
    let blob = scene
        .lab
        .feed(&scene.up, &["hash-object", "-w", "--stdin"], &noise);
    let tree = scene
        .lab
        .feed(&scene.up, &["mktree"], &format!("100644 blob {blob}\tf\n"));
    let commit = scene
        .lab
        .git(&scene.up, &["commit-tree", "-m", "big", &tree]);
    let wants = want(ObjectId::from_hex(commit.as_bytes()).unwrap());
    let before = listing(&scene.gate);
    for (name, transport) in scene.lab.transports() {
        for cut in [0, 10, 200, 50_000] {
            scene.http.behave(Manner::Truncate(cut));
            let error =
                fetch(transport.as_ref(), &scene.gate, &scene.upstream, &wants).unwrap_err();
            assert!(
                matches!(
                    error,
                    TransportError::Unreachable(_) | TransportError::Protocol(_)
                ),
                "{name} {cut}: {error:?}"
            );
            assert_eq!(listing(&scene.gate), before, "{name} {cut}");
        }
        // In the middle of the pack, with the connection open: the caller stops it, or the limit does.
        scene.http.behave(Manner::Stall(50_000));
        scene.http.requests();
        let error = cancelled_after(
            || {
                wait_for("the fetch", || {
                    scene
                        .http
                        .requests()
                        .iter()
                        .filter(|line| line.starts_with("POST"))
                        .count()
                        > 0
                })
            },
            |control| transport.fetch(&scene.gate, &scene.upstream, &wants, &patient(), control),
        )
        .unwrap_err();
        assert_eq!(error, TransportError::Cancelled, "{name}");
        assert_eq!(listing(&scene.gate), before, "{name}");
        let limits = Limits {
            inactivity: Duration::from_millis(400),
            ..patient()
        };
        let error = transport
            .fetch(
                &scene.gate,
                &scene.upstream,
                &wants,
                &limits,
                &Control::new(),
            )
            .unwrap_err();
        assert!(
            matches!(error, TransportError::Timeout(_)),
            "{name}: {error:?}"
        );
        assert_eq!(listing(&scene.gate), before, "{name}");
        let limits = Limits {
            total: Duration::from_millis(400),
            ..patient()
        };
        let error = transport
            .fetch(
                &scene.gate,
                &scene.upstream,
                &wants,
                &limits,
                &Control::new(),
            )
            .unwrap_err();
        assert!(
            matches!(error, TransportError::Timeout(_)),
            "{name}: {error:?}"
        );
        assert_eq!(listing(&scene.gate), before, "{name}");
        scene.http.behave(Manner::Honest);
        let gate = scene.lab.bare(&format!("{name}.git"));
        assert_eq!(
            fetch(transport.as_ref(), &gate, &scene.upstream, &wants)
                .unwrap()
                .objects,
            3
        );
    }
}

/// The server's answer to a fetch: `pack` in protocol v2's clothes.
fn answer(pack: &[u8]) -> Vec<u8> {
    let mut out = b"000dpackfile\n".to_vec();
    for piece in pack.chunks(60_000) {
        out.extend_from_slice(format!("{:04x}\u{1}", piece.len() + 5).as_bytes());
        out.extend_from_slice(piece);
    }
    out.extend_from_slice(b"0000");
    out
}

#[test]
fn lies_are_found_out() {
    let scene = Scene::new();
    let id = scene.lab.rev(&scene.up, "refs/heads/main");
    let pack = |ids: &[String]| {
        let input: String = ids.iter().flat_map(|id| [id.as_str(), "\n"]).collect();
        answer(&scene.lab.feed_bytes(
            &scene.up,
            &["pack-objects", "-q", "--stdout"],
            input.as_bytes(),
        ))
    };
    let all: Vec<String> = scene
        .lab
        .git(
            &scene.up,
            &[
                "rev-list",
                "--objects",
                "--no-object-names",
                "refs/heads/main",
            ],
        )
        .lines()
        .map(str::to_owned)
        .collect();
    let mut flipped = pack(&all);
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x55;
    let before = listing(&scene.gate);
    for (name, transport) in scene.lab.transports() {
        for (what, body) in [
            ("garbage", b"\x00\x00garbage".to_vec()),
            (
                "no pack",
                answer(b"this is no pack at all, however long it gets"),
            ),
            ("flipped", flipped.clone()),
            ("the commit only", pack(&[id.to_string()])),
            ("all but one", pack(&all[..all.len() - 1])),
            ("something else", pack(&all[1..])),
            ("a pack of nothing", pack(&[])),
            (
                "an error",
                b"0026ERR Authentication failed for you\n0000".to_vec(),
            ),
            ("nothing", Vec::new()),
        ] {
            scene.http.behave(Manner::Answer("command=fetch", body));
            let error = fetch(transport.as_ref(), &scene.gate, &scene.upstream, &want(id));
            let Err(error) = error else {
                panic!("{name} believes {what}");
            };
            assert!(
                !matches!(
                    error,
                    TransportError::Cancelled | TransportError::Timeout(_)
                ),
                "{name} {what}: {error:?}"
            );
            assert_eq!(listing(&scene.gate), before, "{name} {what}");
        }
        // Ids that the server has not.
        scene.http.behave(Manner::Honest);
        let nothing = ObjectId::from_hex(&[b'7'; 40]).unwrap();
        let error = fetch(
            transport.as_ref(),
            &scene.gate,
            &scene.upstream,
            &want(nothing),
        )
        .unwrap_err();
        assert!(
            matches!(error, TransportError::Protocol(_)),
            "{name}: {error:?}"
        );
        assert_eq!(listing(&scene.gate), before, "{name}");
        scene
            .http
            .behave(Manner::Answer("command=fetch", pack(&all)));
        let gate = scene.lab.bare(&format!("{name}.git"));
        fetch(transport.as_ref(), &gate, &scene.upstream, &want(id)).unwrap();
    }
}

#[test]
fn lists_that_are_none_are_errors() {
    let scene = Scene::new();
    for (name, transport) in scene.lab.transports() {
        for (what, body) in [
            ("garbage", b"<html>hello</html>".to_vec()),
            ("no id", b"0017zzzz refs/heads/main0000".to_vec()),
            ("cut", b"003f1234".to_vec()),
            ("error", b"0018ERR no such thing\n0000".to_vec()),
        ] {
            scene.http.behave(Manner::Answer("command=ls-refs", body));
            let error = ls(transport.as_ref(), &scene.upstream);
            assert!(error.is_err(), "{name} {what}: {error:?}");
        }
        // A server that says nothing is asked again before it is believed.
        scene.http.requests();
        scene
            .http
            .behave(Manner::Answer("command=ls-refs", b"0000".to_vec()));
        let listed = ls(transport.as_ref(), &scene.upstream).unwrap();
        assert!(
            listed.refs.is_empty() && listed.empty_confirmed && listed.head.is_none(),
            "{name}"
        );
        let asked = scene
            .http
            .requests()
            .iter()
            .filter(|line| line.starts_with("POST"))
            .count();
        assert_eq!(asked, 2, "{name}");
    }
}

#[test]
fn hung_servers_are_left_when_the_caller_or_the_limit_says_so() {
    let lab = Lab::new();
    let key = lab.path("id");
    keygen(&key);
    let agent = Agent::start(&lab.path("agent.sock"));
    agent.add(&key);
    let access = Access::VaultAgent {
        socket: agent.socket.clone(),
        known_hosts: lab.path("known_hosts"),
        strict_host_keys: false,
    };
    for (name, transport) in lab.transports() {
        for scheme in ["http", "git", "ssh"] {
            let (server, connected) = silent();
            let upstream = Upstream {
                url: GateUrl::parse(&format!("{scheme}://127.0.0.1:{}/x.git", server.port))
                    .unwrap(),
                access: if scheme == "ssh" {
                    access.clone()
                } else {
                    Access::Plain
                },
            };
            let error = cancelled_after(
                || connected.recv_timeout(HANG).unwrap(),
                |control| transport.ls_refs(&upstream, &[], &patient(), control),
            )
            .unwrap_err();
            assert_eq!(error, TransportError::Cancelled, "{name} {scheme}");
            let limits = Limits {
                ls_refs: Duration::from_millis(300),
                ..patient()
            };
            let error = transport
                .ls_refs(&upstream, &[], &limits, &Control::new())
                .unwrap_err();
            assert!(
                matches!(error, TransportError::Timeout(_)),
                "{name} {scheme}: {error:?}"
            );
            let control = Control::new()
                .with_deadline(std::time::Instant::now() + Duration::from_millis(200));
            let error = transport
                .ls_refs(&upstream, &[], &patient(), &control)
                .unwrap_err();
            assert!(
                matches!(error, TransportError::Timeout(_)),
                "{name} {scheme}: {error:?}"
            );
            let control = Control::new();
            control.cancel();
            let error = transport
                .ls_refs(&upstream, &[], &patient(), &control)
                .unwrap_err();
            assert_eq!(error, TransportError::Cancelled);
        }
    }
}

/// A program in place of ssh that starts another, tells both ids and waits.
#[test]
fn children_and_their_children_die_with_the_call() {
    let lab = Lab::new();
    let gate = lab.bare("gate.git");
    for (name, _) in lab.transports() {
        let pids = lab.path(&format!("{name}.pids"));
        let script = lab.path(&format!("{name}.ssh"));
        std::fs::write(
            &script,
            format!(
                "#!/bin/sh\nsleep 9999 &\necho $$ $! > {0}.new\nmv {0}.new {0}\nwait\n",
                pids.display()
            ),
        )
        .unwrap();
        std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
        let env = HostEnv::new([
            ("PATH", std::env::var("PATH").unwrap()),
            ("HOME", lab.dir.path().to_str().unwrap().to_owned()),
            ("GIT_CONFIG_NOSYSTEM", "1".to_owned()),
            ("GIT_SSH_COMMAND", script.to_str().unwrap().to_owned()),
        ]);
        let transport: Box<dyn GitTransport> = match name {
            "gix" => Box::new(GixTransport::new(env)),
            _ => Box::new(CliTransport::new(env)),
        };
        let upstream = Upstream {
            url: GateUrl::parse("git@example.invalid:x").unwrap(),
            access: Access::Personal {
                auth_sock: None,
                batch: true,
            },
        };
        let wants = want(ObjectId::from_hex(&[b'7'; 40]).unwrap());
        let before = listing(&gate);
        let error = cancelled_after(
            || wait_for("the children", || pids.exists()),
            |control| transport.fetch(&gate, &upstream, &wants, &patient(), control),
        )
        .unwrap_err();
        assert_eq!(error, TransportError::Cancelled, "{name}");
        for pid in std::fs::read_to_string(&pids).unwrap().split_whitespace() {
            let pid = Pid::from_raw(pid.parse().unwrap());
            wait_for("the end of a child", || gone(pid));
        }
        assert_eq!(listing(&gate), before, "{name}");
    }
}

/// Whether a process has ended; somebody else's child may stay a zombie where no init collects.
fn gone(pid: Pid) -> bool {
    kill(pid, None).is_err()
        || std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| {
            stat.rsplit(')')
                .next()
                .is_some_and(|rest| rest.trim_start().starts_with('Z'))
        })
}
