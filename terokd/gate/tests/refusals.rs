//! Upstreams that refuse, and what is said then.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::http::{HttpServer, Manner};
use support::lab::{Lab, at, file_url};
use support::scene::{Scene, fetch, ls, want};
use support::servers::{Agent, Server, Sshd, Tls, keygen};
use terok_gate::{
    Access, CliTransport, Control, GateUrl, GitTransport, GixTransport, HostEnv, Limits, Phase,
    PinnedKey, PushError, TransportError, Upstream,
};

#[test]
fn statuses_have_their_meaning() {
    let scene = Scene::new();
    for (name, transport) in scene.lab.transports() {
        for (code, headers) in [
            (401, "WWW-Authenticate: Basic realm=\"x\"\r\n"),
            (403, ""),
            (404, ""),
            (429, "Retry-After: 7\r\n"),
            (500, ""),
            (503, "Retry-After: 9\r\n"),
        ] {
            scene.http.behave(Manner::Status(code, headers));
            let error = ls(transport.as_ref(), &scene.upstream).unwrap_err();
            let good = match code {
                401 | 403 => matches!(error, TransportError::AuthFailed(_)),
                404 => matches!(error, TransportError::NotFound(_)),
                429 if name == "gix" => {
                    matches!(error, TransportError::RetryAfter { after, .. } if after == Duration::from_secs(7))
                }
                // git does not tell what the header said.
                429 => matches!(error, TransportError::RetryAfter { .. }),
                503 if name == "gix" => {
                    matches!(error, TransportError::RetryAfter { after, .. } if after == Duration::from_secs(9))
                }
                _ => matches!(error, TransportError::Unreachable(_)),
            };
            assert!(good, "{name} {code}: {error:?}");
        }
    }
}

#[test]
fn helpers_are_asked_and_nobody_else() {
    let scene = Scene::new();
    scene.http.behave(Manner::Basic("Basic dTpw"));
    let asked = scene.lab.path("asked");
    for (name, transport) in scene.lab.transports() {
        scene.lab.configure("");
        let error = ls(transport.as_ref(), &scene.upstream).unwrap_err();
        assert!(
            matches!(error, TransportError::AuthFailed(_)),
            "{name}: {error:?}"
        );
        // The helper notes what it is asked for, knows the answer, and hears how that went.
        let helper = |password: &str| {
            format!(
                "[credential]\nhelper = \"!f() {{ echo $1 >> {}; test $1 = get && echo username=u && echo password={password}; }}; f\"\n",
                asked.display()
            )
        };
        scene.lab.configure(&helper("p"));
        std::fs::write(&asked, "").unwrap();
        assert_eq!(
            ls(transport.as_ref(), &scene.upstream).unwrap().refs.len(),
            2,
            "{name}"
        );
        assert_eq!(
            std::fs::read_to_string(&asked).unwrap(),
            "get\nstore\n",
            "{name}"
        );
        fetch(
            transport.as_ref(),
            &scene.gate,
            &scene.upstream,
            &scene.wants(),
        )
        .unwrap();
        scene.lab.configure(&helper("wrong"));
        std::fs::write(&asked, "").unwrap();
        let error = ls(transport.as_ref(), &scene.upstream).unwrap_err();
        assert!(
            matches!(error, TransportError::AuthFailed(_)),
            "{name}: {error:?}"
        );
        assert_eq!(
            std::fs::read_to_string(&asked).unwrap(),
            "get\nerase\n",
            "{name}"
        );
        // In the address; it is never shown.
        scene.lab.configure("");
        let url = scene
            .upstream
            .url
            .as_str()
            .replace("http://", "http://u:p@");
        assert_eq!(
            ls(transport.as_ref(), &at(&url)).unwrap().refs.len(),
            2,
            "{name}"
        );
        let error = ls(transport.as_ref(), &at(&url.replace("u:p@", "u:secret@"))).unwrap_err();
        assert!(
            matches!(&error, TransportError::AuthFailed(text) if !text.contains("secret")),
            "{name}: {error:?}"
        );
    }
}

#[test]
fn a_redirect_is_followed_without_credentials() {
    let scene = Scene::new();
    let other = HttpServer::start(scene.lab.dir.path());
    scene.http.behave(Manner::Redirect(format!(
        "http://127.0.0.1:{}",
        other.server.port
    )));
    for (name, transport) in scene.lab.transports() {
        let listed = ls(transport.as_ref(), &scene.upstream).unwrap();
        assert_eq!(listed.refs.len(), 2, "{name}");
        fetch(
            transport.as_ref(),
            &scene.lab.bare(&format!("{name}.git")),
            &scene.upstream,
            &scene.wants(),
        )
        .unwrap();
    }
    other.behave(Manner::Basic("Basic dTpw"));
    let url = scene
        .upstream
        .url
        .as_str()
        .replace("http://", "http://u:p@");
    let error = ls(scene.lab.transports()[0].1.as_ref(), &at(&url)).unwrap_err();
    assert!(matches!(error, TransportError::AuthFailed(_)), "{error:?}");
    scene.http.behave(Manner::Redirect("file:///etc".into()));
    for (name, transport) in scene.lab.transports() {
        let error = ls(transport.as_ref(), &scene.upstream).unwrap_err();
        assert!(
            matches!(
                error,
                TransportError::Protocol(_) | TransportError::Unreachable(_)
            ),
            "{name}: {error:?}"
        );
    }
}

#[test]
fn what_the_user_says_of_a_server_is_not_told_to_another() {
    let scene = Scene::new();
    let other = HttpServer::start(scene.lab.dir.path());
    let there = format!("http://127.0.0.1:{}", other.server.port);
    let here = scene.http.url("");
    scene.lab.configure(&format!(
        "[http \"{here}\"]\nextraHeader = \"Authorization: Bearer here\"\nextraHeader = \"X-Here: 1\"\n\
         [http]\nextraHeader = \"Cookie: all\"\nextraHeader = \"X-All: 1\"\n"
    ));
    let transport = GixTransport::new(scene.lab.env.clone());
    let list = || assert_eq!(ls(&transport, &scene.upstream).unwrap().refs.len(), 2);
    list();
    assert_eq!(scene.http.header("authorization")[0], "Bearer here");
    list();
    assert_eq!(scene.http.header("cookie")[0], "all");
    let transport = GixTransport::new(scene.lab.env.clone());
    let list = || assert_eq!(ls(&transport, &scene.upstream).unwrap().refs.len(), 2);
    scene.http.behave(Manner::Redirect(there.clone()));
    for (header, told) in [
        ("authorization", 0),
        ("x-here", 0),
        ("cookie", 0),
        ("x-all", 2),
    ] {
        list();
        assert_eq!(other.header(header).len(), told, "{header}");
    }
    // What is said of the other server is told to it.
    scene.lab.configure(&format!(
        "[http \"{there}\"]\nextraHeader = \"Authorization: Bearer there\"\n"
    ));
    list();
    assert_eq!(other.header("authorization"), ["Bearer there"; 2]);
    assert!(
        !scene
            .http
            .header("authorization")
            .contains(&"Bearer there".to_owned())
    );
}

#[test]
fn a_poll_without_news_is_one_request_on_one_connection() {
    let scene = Scene::new();
    let transport = GixTransport::new(scene.lab.env.clone());
    ls(&transport, &scene.upstream).unwrap();
    assert_eq!(
        scene.http.requests(),
        ["GET /up.git/info/refs", "POST /up.git/git-upload-pack"]
    );
    assert_eq!(scene.http.server.connections(), 1);
    ls(&transport, &scene.upstream).unwrap();
    assert_eq!(scene.http.requests(), ["POST /up.git/git-upload-pack"]);
    assert_eq!(scene.http.server.connections(), 2);
    // The server is not what it was: what is remembered of it is forgotten.
    scene.http.behave(Manner::Status(404, ""));
    let error = ls(&transport, &scene.upstream).unwrap_err();
    assert!(matches!(error, TransportError::NotFound(_)), "{error:?}");
    scene.http.behave(Manner::Honest);
    scene.http.requests();
    ls(&transport, &scene.upstream).unwrap();
    assert_eq!(
        scene.http.requests(),
        ["GET /up.git/info/refs", "POST /up.git/git-upload-pack"]
    );
}

#[test]
fn host_keys_are_pinned_told_once_and_held() {
    let lab = Lab::new();
    let up = lab.upstream();
    for (name, transport) in lab.transports() {
        let _ = std::fs::remove_dir_all(lab.path("ssh"));
        let sshd = Sshd::start(&lab);
        let upstream = sshd.upstream(&up);
        let strict = Upstream {
            access: sshd.access(&sshd.agent.socket, true),
            ..upstream.clone()
        };
        let error = ls(transport.as_ref(), &strict).unwrap_err();
        assert!(
            matches!(error, TransportError::HostKeyChanged { .. }),
            "{name}: {error:?}"
        );
        // Whatever else stands in the file.
        std::fs::write(&sshd.known_hosts, b"# caf\xe9\n").unwrap();
        std::fs::set_permissions(&sshd.known_hosts, PermissionsExt::from_mode(0o600)).unwrap();
        let pins = Pins::default();
        let look = |upstream: &Upstream| {
            transport.ls_refs(upstream, &[], &Limits::default(), &pins.control())
        };
        look(&upstream).unwrap();
        let pinned = pins.told();
        assert_eq!(pinned.len(), 1, "{name}: {pinned:?}");
        assert_eq!(pinned[0].host, format!("[127.0.0.1]:{}", sshd.server.port));
        assert!(pinned[0].fingerprint.starts_with("SHA256:"), "{pinned:?}");
        look(&upstream).unwrap();
        assert_eq!(pins.told(), [], "{name}");
        assert_eq!(
            ls(transport.as_ref(), &strict).unwrap().refs.len(),
            2,
            "{name}"
        );
        let mode = std::fs::metadata(&sshd.known_hosts)
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
        // Another key than the one that is let in; the user's own would not be tried.
        let other = lab.path(&format!("{name}-other"));
        keygen(&other);
        let agent = Agent::start(&lab.path(&format!("{name}-agent.sock")));
        agent.add(&other);
        let stranger = Upstream {
            access: sshd.access(&agent.socket, false),
            ..upstream.clone()
        };
        let error = ls(transport.as_ref(), &stranger).unwrap_err();
        assert!(
            matches!(error, TransportError::AuthFailed(_)),
            "{name}: {error:?}"
        );
        let missing = sshd.upstream(&lab.path("nothing.git"));
        let error = ls(transport.as_ref(), &missing).unwrap_err();
        assert!(
            matches!(error, TransportError::NotFound(_)),
            "{name}: {error:?}"
        );
        let pins = std::fs::read(&sshd.known_hosts).unwrap();
        sshd.change_host_key();
        let error = ls(transport.as_ref(), &upstream).unwrap_err();
        assert!(
            matches!(&error, TransportError::HostKeyChanged { host, known_hosts }
                if host == "127.0.0.1" && *known_hosts == sshd.known_hosts),
            "{name}: {error:?}"
        );
        assert_eq!(std::fs::read(&sshd.known_hosts).unwrap(), pins, "{name}");
    }
}

/// Host keys that calls were told of.
#[derive(Clone, Default)]
struct Pins(Arc<Mutex<Vec<PinnedKey>>>);

impl Pins {
    fn control(&self) -> Control {
        let told = Arc::clone(&self.0);
        Control::new().with_pinned(move |key| told.lock().unwrap().push(key))
    }

    fn told(&self) -> Vec<PinnedKey> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

#[test]
fn a_pinned_host_key_is_told_whatever_comes_of_the_call() {
    let lab = Lab::new();
    let up = lab.upstream();
    let (gate, head) = (lab.bare("gate.git"), lab.rev(&up, "refs/heads/main"));
    for (name, transport) in lab.transports() {
        let _ = std::fs::remove_dir_all(lab.path("ssh"));
        let sshd = Sshd::start(&lab);
        let upstream = sshd.upstream(&up);
        let agent = Agent::start(&lab.path(&format!("{name}-empty.sock")));
        let stranger = Upstream {
            access: sshd.access(&agent.socket, false),
            ..upstream.clone()
        };
        let pins = Pins::default();
        let (limits, control) = (Limits::default(), pins.control());
        let listed = |upstream: &Upstream| {
            let listed = transport.ls_refs(upstream, &[], &limits, &control);
            listed.map(drop).map_err(PushError::from)
        };
        let fetched = |upstream: &Upstream| {
            let fetched = transport.fetch(&gate, upstream, &want(head), &limits, &control);
            fetched.map(drop).map_err(PushError::from)
        };
        let both = |upstream: &Upstream| {
            let mut choose = |_: &_| want(head);
            let refs = &["refs/heads/"];
            let both =
                transport.ls_refs_and_fetch(&gate, upstream, refs, &mut choose, &limits, &control);
            both.map(drop).map_err(PushError::from)
        };
        // Nothing has to be where it is pushed from: the host key comes first.
        let pushed = |upstream: &Upstream| {
            transport.push(&up, upstream, head, "refs/heads/x", None, &limits, &control)
        };
        type Call<'a> = &'a dyn Fn(&Upstream) -> Result<(), PushError>;
        let calls: [(&str, Call<'_>); 4] = [
            ("list", &listed),
            ("fetch", &fetched),
            ("both", &both),
            ("push", &pushed),
        ];
        for (what, call) in calls {
            std::fs::remove_file(&sshd.known_hosts).ok();
            let error = call(&stranger).unwrap_err();
            assert!(
                matches!(error, PushError::Transport(TransportError::AuthFailed(_))),
                "{name} {what}: {error:?}"
            );
            let told = pins.told();
            assert_eq!(told.len(), 1, "{name} {what}: {told:?}");
            // Those who come later have nothing to tell.
            call(&stranger).unwrap_err();
            listed(&upstream).unwrap();
            assert_eq!(pins.told(), [], "{name} {what}");
            // The same key, pinned again, is told again: somebody had taken it out.
            std::fs::remove_file(&sshd.known_hosts).unwrap();
            listed(&upstream).unwrap();
            assert_eq!(pins.told(), told, "{name} {what}");
        }
    }
}

#[test]
fn of_many_who_meet_a_host_at_once_one_tells() {
    let lab = Lab::new();
    let up = lab.upstream();
    let sshd = Sshd::start(&lab);
    let (upstream, pins) = (sshd.upstream(&up), Pins::default());
    let transport = GixTransport::default();
    let barrier = std::sync::Barrier::new(6);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                barrier.wait();
                let control = pins.control();
                transport
                    .ls_refs(&upstream, &[], &Limits::default(), &control)
                    .unwrap();
            });
        }
    });
    assert_eq!(pins.told().len(), 1);
}

#[test]
fn unreachable_is_told_from_missing() {
    let lab = Lab::new();
    let up = lab.upstream();
    let daemon = support::servers::git_daemon(lab.dir.path());
    // A port that was just given back has no listener.
    let port = Server::start(|_| {}).port;
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    assert_ne!(port, closed);
    for (name, transport) in lab.transports() {
        for url in [
            format!("http://127.0.0.1:{closed}/x"),
            format!("git://127.0.0.1:{closed}/x"),
            "http://does-not-exist.invalid/x".to_owned(),
            "git://does-not-exist.invalid/x".to_owned(),
        ] {
            let error = ls(transport.as_ref(), &at(&url)).unwrap_err();
            assert!(
                matches!(error, TransportError::Unreachable(_)),
                "{name} {url}: {error:?}"
            );
        }
        for url in [
            format!("git://127.0.0.1:{}/nothing.git", daemon.port),
            file_url(&lab.path("nothing.git")),
        ] {
            let error = ls(transport.as_ref(), &at(&url)).unwrap_err();
            assert!(
                matches!(error, TransportError::NotFound(_)),
                "{name} {url}: {error:?}"
            );
        }
        let error = ls(
            transport.as_ref(),
            &at(&format!("http://127.0.0.1:{port}/x")),
        )
        .unwrap_err();
        assert!(
            matches!(error, TransportError::Unreachable(_)),
            "{name}: {error:?}"
        );
        // The gate itself is no repository.
        let nowhere = lab.path("nowhere.git");
        let wants = want(lab.rev(&up, "refs/heads/main"));
        let error = fetch(transport.as_ref(), &nowhere, &at(&file_url(&up)), &wants).unwrap_err();
        assert!(
            matches!(error, TransportError::Storage(_)),
            "{name}: {error:?}"
        );
    }
}

#[test]
fn certificates_are_checked_as_the_user_has_configured() {
    let lab = Lab::new();
    let tls = Tls::start(lab.dir.path());
    let upstream = at(&format!("https://127.0.0.1:{}/x.git", tls.port));
    for (name, transport) in lab.transports() {
        lab.configure("");
        let error = ls(transport.as_ref(), &upstream).unwrap_err();
        assert!(
            matches!(&error, TransportError::Unreachable(text) if text.contains("certificate")),
            "{name}: {error:?}"
        );
        // Behind the encryption there is a page, but no repository.
        for trust in [
            format!("[http]\nsslCAInfo = {}\n", tls.certificate.display()),
            format!(
                "[http \"https://127.0.0.1:{}\"]\nsslVerify = false\n",
                tls.port
            ),
        ] {
            lab.configure(&trust);
            let error = ls(transport.as_ref(), &upstream).unwrap_err();
            assert!(
                !error.to_string().contains("certificate")
                    && !matches!(error, TransportError::AuthFailed(_)),
                "{name}: {error:?}"
            );
        }
    }
}

#[test]
fn sha256_is_refused() {
    let lab = Lab::new();
    let up = lab.path("up.git");
    lab.git(
        lab.dir.path(),
        &["init", "-q", "--bare", "--object-format=sha256", "up.git"],
    );
    let http = HttpServer::start(lab.dir.path());
    let tree = lab.feed(&up, &["mktree"], "");
    let commit = lab.git(&up, &["commit-tree", "-m", "x", &tree]);
    lab.git(&up, &["update-ref", "refs/heads/main", &commit]);
    for (name, transport) in lab.transports() {
        for upstream in [at(&file_url(&up)), at(&http.url("up.git"))] {
            let error = ls(transport.as_ref(), &upstream).unwrap_err();
            assert!(
                matches!(error, TransportError::UnsupportedObjectFormat(_)),
                "{name}: {error:?}"
            );
        }
    }
}

#[test]
fn without_git_http_still_works_and_the_rest_says_what_is_missing() {
    let scene = Scene::new();
    let env = HostEnv::new([("PATH", "/nonexistent"), ("HOME", "/nonexistent")]);
    let gix = GixTransport::new(env.clone());
    let cli = CliTransport::new(env);
    assert_eq!(ls(&gix, &scene.upstream).unwrap().refs.len(), 2);
    assert_eq!(
        fetch(&gix, &scene.gate, &scene.upstream, &scene.wants())
            .unwrap()
            .objects,
        6
    );
    let missing = TransportError::GitMissing("git".into());
    assert_eq!(ls(&gix, &at(&file_url(&scene.up))).unwrap_err(), missing);
    assert_eq!(ls(&cli, &scene.upstream).unwrap_err(), missing);
    let ssh = Upstream {
        url: GateUrl::parse("git@h.invalid:x").unwrap(),
        access: Access::Personal {
            auth_sock: None,
            batch: true,
        },
    };
    assert_eq!(
        ls(&gix, &ssh).unwrap_err(),
        TransportError::GitMissing("ssh".into())
    );
    let id = scene.lab.rev(&scene.up, "refs/heads/main");
    let error = gix
        .push(
            &scene.up,
            &scene.upstream,
            id,
            "refs/heads/x",
            None,
            &Limits::default(),
            &Control::new(),
        )
        .unwrap_err();
    assert_eq!(error, PushError::Transport(missing));
}

#[test]
fn pushes_are_held_to_their_lease() {
    let lab = Lab::new();
    let up = lab.upstream();
    let gate = lab.path("gate.git");
    lab.git(
        lab.dir.path(),
        &["clone", "-q", "--bare", "up.git", "gate.git"],
    );
    let old = lab.rev(&up, "refs/heads/main");
    let new = lab.commit(&gate, "main", "work");
    // A hook of the gate's that would be seen.
    let hook = gate.join("hooks/pre-push");
    std::fs::create_dir_all(gate.join("hooks")).unwrap();
    std::fs::write(
        &hook,
        format!(
            "#!/bin/sh\ntouch {}\nexit 1\n",
            lab.path("hooked").display()
        ),
    )
    .unwrap();
    std::fs::set_permissions(&hook, PermissionsExt::from_mode(0o755)).unwrap();
    let http = HttpServer::start(lab.dir.path());
    let sshd = Sshd::start(&lab);
    let transport = GixTransport::new(lab.env.clone());
    let push = |upstream: &Upstream, id, to: &str, lease| {
        transport.push(
            &gate,
            upstream,
            id,
            to,
            lease,
            &Limits::default(),
            &Control::new(),
        )
    };
    for (at, upstream) in [
        at(&file_url(&up)),
        at(&http.url("up.git")),
        sshd.upstream(&up),
    ]
    .iter()
    .enumerate()
    {
        let fresh = format!("refs/heads/new{at}");
        push(upstream, new, &fresh, None).unwrap();
        assert_eq!(lab.rev(&up, &fresh), new);
        let error = push(upstream, new, &fresh, Some(old));
        // It is there already: git has nothing to do, whatever the lease.
        assert!(
            matches!(error, Ok(()) | Err(PushError::Rejected(_))),
            "{error:?}"
        );
        let error = push(upstream, old, &fresh, Some(new)).unwrap_err();
        assert!(matches!(error, PushError::Rejected(_)), "{error:?}");
        assert_eq!(lab.rev(&up, &fresh), new);
    }
    push(&at(&file_url(&up)), new, "refs/heads/main", Some(old)).unwrap();
    assert_eq!(lab.rev(&up, "refs/heads/main"), new);
    // Somebody else was faster.
    let newer = lab.commit(&gate, "main", "more");
    lab.commit(&up, "main", "other");
    let error = push(&at(&file_url(&up)), newer, "refs/heads/main", Some(new)).unwrap_err();
    assert!(
        matches!(&error, PushError::Rejected(text) if text.contains("stale")),
        "{error:?}"
    );
    let error = push(&at(&file_url(&up)), newer, "refs/heads/side/x", None).unwrap_err();
    assert!(matches!(error, PushError::Rejected(_)), "{error:?}");
    // Upstream's own rules, in upstream's own words.
    let rule = up.join("hooks/pre-receive");
    std::fs::create_dir_all(up.join("hooks")).unwrap();
    std::fs::write(&rule, "#!/bin/sh\necho main is protected >&2\nexit 1\n").unwrap();
    std::fs::set_permissions(&rule, PermissionsExt::from_mode(0o755)).unwrap();
    for upstream in [
        at(&file_url(&up)),
        at(&http.url("up.git")),
        sshd.upstream(&up),
    ] {
        let error = push(&upstream, newer, "refs/heads/refused", None).unwrap_err();
        assert!(
            matches!(&error, PushError::Rejected(text) if text.contains("main is protected")),
            "{error:?}"
        );
    }
    for to in ["main", "refs/tags/x", "refs/heads/a..b", "refs/heads/-x:y"] {
        assert!(push(&at(&file_url(&up)), newer, to, None).is_err(), "{to}");
    }
    http.behave(Manner::Status(403, ""));
    let error = push(&at(&http.url("up.git")), newer, "refs/heads/x", None).unwrap_err();
    assert!(
        matches!(error, PushError::Transport(TransportError::AuthFailed(_))),
        "{error:?}"
    );
    assert!(!lab.path("hooked").exists());
}

#[test]
fn progress_counts_objects_and_bytes() {
    let lab = Lab::new();
    let up = lab.bare("up.git");
    for n in 0..50 {
        lab.commit(&up, "main", &format!("c{n}"));
    }
    let wants = want(lab.rev(&up, "refs/heads/main"));
    for (name, transport) in lab.transports() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let control =
            Control::new().with_progress(move |progress| log.lock().unwrap().push(progress));
        let gate = lab.bare(&format!("{name}.git"));
        transport
            .fetch(
                &gate,
                &at(&file_url(&up)),
                &wants,
                &Limits::default(),
                &control,
            )
            .unwrap();
        let seen = seen.lock().unwrap();
        let last = seen
            .iter()
            .rfind(|progress| progress.phase == Phase::Receiving)
            .copied();
        assert!(
            last.is_some_and(|last| last.objects == 150 && last.total == Some(150)),
            "{name}: {seen:?}"
        );
    }
}
