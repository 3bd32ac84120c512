//! Both transports against real servers: what they list, what they bring, and that they leave nothing behind.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod support;

use gix::ObjectId;
use std::path::Path;
use support::http::HttpServer;
use support::lab::{Lab, at, file_url, listing};
use support::servers::{Server, Sshd, git_daemon};
use terok_gate::{Advertisement, Control, GitTransport, Limits, RemoteRef, Upstream, UrlKind};

/// The same repository behind every kind of server.
struct Everywhere {
    lab: Lab,
    up: std::path::PathBuf,
    http: HttpServer,
    daemon: Server,
    ssh: Sshd,
    upstreams: Vec<(&'static str, Upstream)>,
}

impl Everywhere {
    fn new() -> Self {
        let lab = Lab::new();
        let up = lab.upstream();
        let http = HttpServer::start(lab.dir.path());
        let daemon = git_daemon(lab.dir.path());
        let ssh = Sshd::start(&lab);
        let upstreams = vec![
            ("file", at(&file_url(&up))),
            ("path", at(up.to_str().unwrap())),
            ("http", at(&http.url("up.git"))),
            (
                "git",
                at(&format!("git://127.0.0.1:{}/up.git", daemon.port)),
            ),
            ("ssh", ssh.upstream(&up)),
        ];
        Self {
            lab,
            up,
            http,
            daemon,
            ssh,
            upstreams,
        }
    }

    fn each(&self, test: impl Fn(&str, &dyn GitTransport, &Upstream)) {
        for (transport_name, transport) in self.lab.transports() {
            for (name, upstream) in &self.upstreams {
                test(
                    &format!("{transport_name}-{name}"),
                    transport.as_ref(),
                    upstream,
                );
            }
        }
    }
}

fn ls(
    transport: &dyn GitTransport,
    upstream: &Upstream,
    prefixes: &[&str],
) -> terok_gate::Advertisement {
    transport
        .ls_refs(upstream, prefixes, &Limits::default(), &Control::new())
        .unwrap()
}

fn fetch(
    transport: &dyn GitTransport,
    gate: &Path,
    upstream: &Upstream,
    wants: &[RemoteRef],
) -> terok_gate::FetchReport {
    transport
        .fetch(gate, upstream, wants, &Limits::default(), &Control::new())
        .unwrap()
}

fn names(refs: &[RemoteRef]) -> Vec<&str> {
    refs.iter().map(|found| found.name.as_str()).collect()
}

#[test]
fn refs_are_listed_alike_from_everywhere() {
    let all = Everywhere::new();
    let (lab, up) = (&all.lab, &all.up);
    lab.git(up, &["update-ref", "refs/pull/1/head", "refs/heads/main"]);
    let expected = |name: &str, peeled: Option<&str>| RemoteRef {
        name: name.to_owned(),
        id: lab.rev(up, name),
        peeled: peeled.map(|name| lab.rev(up, name)),
    };
    all.each(|name, transport, upstream| {
        let listed = ls(transport, upstream, &["refs/heads/", "refs/tags/"]);
        assert_eq!(
            listed.refs,
            [
                expected("refs/heads/main", None),
                expected("refs/heads/side/x", None),
                expected("refs/tags/v1", Some("refs/tags/v1^{}")),
            ],
            "{name}"
        );
        assert_eq!(listed.head.as_deref(), Some("refs/heads/main"), "{name}");
        assert!(!listed.empty_confirmed, "{name}");
        let one = ls(transport, upstream, &["refs/heads/side/x"]);
        assert_eq!(names(&one.refs), ["refs/heads/side/x"], "{name}");
        assert_eq!(one.head.as_deref(), Some("refs/heads/main"), "{name}");
        let everything = ls(transport, upstream, &[]);
        assert_eq!(everything.refs.len(), 4, "{name}: {:?}", everything.refs);
    });
}

#[test]
fn fetches_bring_what_is_missing_and_move_no_ref() {
    let all = Everywhere::new();
    let (lab, up) = (&all.lab, &all.up);
    let old: Vec<RemoteRef> = ls(
        lab.transports()[0].1.as_ref(),
        &all.upstreams[0].1,
        &["refs/heads/", "refs/tags/"],
    )
    .refs;
    let newer = lab.commit(up, "main", "four");
    let more = RemoteRef {
        name: "refs/heads/main".into(),
        id: newer,
        peeled: None,
    };
    all.each(|name, transport, upstream| {
        let gate = lab.bare(&format!("{name}.git"));
        let before = listing(&gate);
        let report = fetch(transport, &gate, upstream, &old);
        // Three commits with a tree and a blob each, and the tag.
        assert_eq!(report.objects, 10, "{name}");
        assert!(report.bytes > 0, "{name}");
        let added: Vec<_> = listing(&gate)
            .into_keys()
            .filter(|path| !before.contains_key(path))
            .collect();
        assert!(
            added
                .iter()
                .all(|path| path.starts_with(gate.join("objects/pack"))
                    && path
                        .file_name()
                        .unwrap()
                        .to_str()
                        .unwrap()
                        .starts_with("pack-")
                    && path.extension().is_some_and(|ext| ext != "keep")),
            "{name}: {added:?}"
        );
        for reference in &old {
            lab.git(
                &gate,
                &[
                    "update-ref",
                    &reference
                        .name
                        .replace("refs/heads/", "refs/terok/upstream/"),
                    &reference.id.to_string(),
                ],
            );
        }
        lab.git(&gate, &["fsck", "--full", "--strict"]);
        let report = fetch(transport, &gate, upstream, std::slice::from_ref(&more));
        assert_eq!(report.objects, 3, "{name}: only what is new");
        assert_eq!(
            lab.git(&gate, &["for-each-ref", "--count=1", "refs/heads"]),
            "",
            "{name}"
        );
        lab.git(
            &gate,
            &["update-ref", "refs/terok/upstream/main", &newer.to_string()],
        );
        lab.git(&gate, &["fsck", "--full", "--strict"]);
        let before = listing(&gate);
        assert_eq!(fetch(transport, &gate, upstream, &old).objects, 0, "{name}");
        assert_eq!(
            listing(&gate),
            before,
            "{name}: nothing to do, nothing done"
        );
    });
}

#[test]
fn empty_upstreams_are_told_from_silent_ones() {
    let all = Everywhere::new();
    std::fs::remove_dir_all(&all.up).unwrap();
    all.lab.bare("up.git");
    all.each(|name, transport, upstream| {
        let listed = ls(transport, upstream, &["refs/heads/", "refs/tags/"]);
        assert!(
            listed.refs.is_empty() && listed.empty_confirmed,
            "{name}: {listed:?}"
        );
        if name.starts_with("gix") {
            assert_eq!(listed.head.as_deref(), Some("refs/heads/main"), "{name}");
        }
    });
}

#[test]
fn gix_needs_one_connection_to_list_and_fetch() {
    let all = Everywhere::new();
    let lab = &all.lab;
    let newest = lab.rev(&all.up, "refs/heads/main");
    all.each(|name, transport, upstream| {
        let gate = lab.bare(&format!("{name}.git"));
        let connections = || match upstream.url.kind() {
            UrlKind::Http => all.http.server.connections(),
            UrlKind::Git => all.daemon.connections(),
            UrlKind::Ssh => all.ssh.server.connections(),
            _ => 0,
        };
        let before = connections();
        let call = |choose: &mut dyn FnMut(&Advertisement) -> Vec<RemoteRef>| {
            let (limits, control) = (Limits::default(), Control::new());
            transport
                .ls_refs_and_fetch(&gate, upstream, &["refs/heads/"], choose, &limits, &control)
                .unwrap()
        };
        let (listed, report) = call(&mut |listed| {
            listed
                .refs
                .iter()
                .filter(|found| found.id == newest)
                .cloned()
                .collect()
        });
        assert_eq!(listed.refs.len(), 2, "{name}");
        assert_eq!(report.objects, 6, "{name}");
        lab.git(
            &gate,
            &[
                "update-ref",
                "refs/terok/upstream/main",
                &newest.to_string(),
            ],
        );
        lab.git(&gate, &["fsck", "--full", "--strict"]);
        let made = connections() - before;
        let gix = name.starts_with("gix");
        let local = upstream.url.kind() == UrlKind::File;
        assert!(!gix || made == usize::from(!local), "{name}: {made}");
        let (_, report) = call(&mut |_| Vec::new());
        assert_eq!(report.objects, 0, "{name}");
    });
}

#[test]
fn ten_thousand_refs() {
    let lab = Lab::new();
    let up = lab.bare("up.git");
    let mut input = String::new();
    let ids: Vec<ObjectId> = (0..10)
        .map(|n| lab.commit(&up, "main", &format!("c{n}")))
        .collect();
    for n in 0..10_000 {
        input.push_str(&format!("create refs/heads/b/{n:05} {}\n", ids[n % 10]));
    }
    lab.feed(&up, &["update-ref", "--stdin"], &input);
    let http = HttpServer::start(lab.dir.path());
    for (name, transport) in lab.transports() {
        for upstream in [at(&file_url(&up)), at(&http.url("up.git"))] {
            let begun = std::time::Instant::now();
            let listed = ls(transport.as_ref(), &upstream, &["refs/heads/"]);
            assert_eq!(listed.refs.len(), 10_001, "{name}");
            let listing_took = begun.elapsed();
            let gate = lab.bare(&format!("{name}-{:?}.git", upstream.url.kind()));
            let report = fetch(transport.as_ref(), &gate, &upstream, &listed.refs);
            assert_eq!(report.objects, 30, "{name}");
            eprintln!(
                "{name} {:?}: ls-refs {listing_took:?}, with fetch {:?}",
                upstream.url.kind(),
                begun.elapsed()
            );
        }
    }
}
