//! Clients that stop half way and clients that never read: what becomes of them, of their children and of the gate, and
//! what a server that is stopped meanwhile leaves.

use crate::many::resident;
use crate::protocol::{INFO, connect, post, rest};
use crate::refusals::{basic, status};
use crate::world::{PATIENCE, World, client, config, pool, tcp};
use nix::sys::socket::{setsockopt, sockopt::Linger};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use terok_gate_server::{GateServer, Limits, Token, Tokens};

/// More than two socket buffers hold.
const BIG: u64 = 32 << 20;

/// How an answer ends that has come to its end.
const WHOLE: &str = "\r\n0\r\n\r\n";

fn random(file: &Path, bytes: u64) {
    let mut random = std::fs::File::open("/dev/urandom").unwrap().take(bytes);
    std::io::copy(&mut random, &mut std::fs::File::create(file).unwrap()).unwrap();
}

/// Looks until it is so.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    };
    let in_time = tokio::time::timeout(PATIENCE / 2, wait).await;
    in_time.unwrap_or_else(|_| panic!("gave up waiting: {what}"));
}

impl World {
    /// Adds a commit with a file of that size, right in the gate.
    async fn grow(&self, bytes: u64) -> String {
        let seed = self.path("seed-alpha");
        random(&seed.join("big"), bytes);
        self.git(&seed, &["add", "."]).await;
        self.git(&seed, &["commit", "-q", "-m", "big"]).await;
        let gate = self.gate_path("alpha");
        let gate = gate.to_str().unwrap();
        self.git(&seed, &["push", "-q", gate, "main"]).await;
        self.git(&seed, &["rev-parse", "HEAD"]).await
    }

    /// The body of a push of a commit that only the seed has.
    async fn push_body(&self) -> Vec<u8> {
        let (seed, gate) = (self.path("seed-alpha"), self.gate_path("alpha"));
        let old = self.git(&gate, &["rev-parse", "main"]).await;
        std::fs::write(seed.join("note"), "small").unwrap();
        random(&seed.join("blob"), 3 << 20);
        self.git(&seed, &["add", "."]).await;
        self.git(&seed, &["commit", "-q", "-m", "pushed"]).await;
        let new = self.git(&seed, &["rev-parse", "HEAD"]).await;
        let mut packing = client(self.root.path())
            .current_dir(&seed)
            .args(["pack-objects", "--revs", "--stdout", "-q"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let wanted = format!("{new}\n^{old}\n");
        let mut stdin = packing.stdin.take().unwrap();
        stdin.write_all(wanted.as_bytes()).unwrap();
        drop(stdin);
        let pack = packing.wait_with_output().unwrap().stdout;
        let line = format!("{old} {new} refs/heads/main\0 report-status side-band-64k");
        let mut body = format!("{:04x}{line}0000", line.len() + 4).into_bytes();
        body.extend(pack);
        body
    }

    /// Sends half a push, and waits until git is at work on it.
    async fn half_a_push(&self, token: &Token, body: &[u8], chunked: bool) -> TcpStream {
        let half = &body[..body.len() / 2];
        let mut stream = connect(self);
        let headers = if chunked {
            "Transfer-Encoding: chunked\r\n".to_owned()
        } else {
            format!("Content-Length: {}\r\n", body.len())
        };
        let head = post("git-receive-pack", token.expose(), &headers);
        stream.write_all(head.as_bytes()).unwrap();
        if chunked {
            write!(stream, "{:x}\r\n", body.len()).unwrap();
        }
        stream.write_all(half).unwrap();
        until("git unpacks", || !self.unfinished().is_empty()).await;
        stream
    }

    /// Sends a request for everything, and reads no more than the first byte of the answer.
    fn fetch_and_do_not_read(&self, token: &Token, head: &str) -> TcpStream {
        let body = format!("0012command=fetch\n00010032want {head}\n0009done\n0000");
        let headers = format!("Content-Length: {}\r\n", body.len());
        let mut stream = connect(self);
        let request = post("git-upload-pack", token.expose(), &headers) + &body;
        stream.write_all(request.as_bytes()).unwrap();
        stream.read_exact(&mut [0]).unwrap();
        stream
    }

    /// What git has begun in the object store and not finished.
    fn unfinished(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut dirs = vec![self.gate_path("alpha").join("objects")];
        while let Some(dir) = dirs.pop() {
            // What vanishes while it is looked at has been tidied up.
            for entry in dir.read_dir().into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                let begun = ["tmp_", "incoming-", ".tmp-"];
                if begun.iter().any(|prefix| name.starts_with(prefix)) {
                    found.push(name);
                }
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    dirs.push(entry.path());
                }
            }
        }
        found
    }

    /// The gate is what it was, whole, and nobody is at work in it.
    async fn is_as_before(&mut self, head: &str) {
        until("children end", || self.children().is_empty()).await;
        self.idle().await;
        let gate = self.gate_path("alpha");
        assert_eq!(self.git(&gate, &["rev-parse", "main"]).await, head);
        assert_eq!(self.unfinished(), Vec::<String>::new());
        let counted = self.git(&gate, &["count-objects", "-v"]).await;
        assert!(counted.contains("\ngarbage: 0"), "{counted}");
        let fsck = [
            "fsck",
            "--full",
            "--strict",
            "--no-dangling",
            "--no-progress",
        ];
        assert_eq!(self.git(&gate, &fsck).await, "");
        assert_eq!(self.reports(), 0);
        assert!(self.pushes.try_recv().is_err(), "nothing was pushed");
    }

    /// Reports of pushes that lie around.
    fn reports(&self) -> usize {
        let reports = self.path("rt/host").read_dir().unwrap().flatten();
        let is_report = |name: &str| name.starts_with("push-");
        reports
            .filter(|entry| entry.file_name().to_str().is_some_and(is_report))
            .count()
    }

    /// An ordinary push with git.
    async fn pushes_again(&self, token: &Token) {
        let url = self.url(token, "alpha");
        let seed = self.path("seed-alpha");
        self.git(&seed, &["push", "-q", &url, "HEAD:main"]).await;
        let head = self.git(&seed, &["rev-parse", "HEAD"]).await;
        let gate = self.gate_path("alpha");
        assert_eq!(self.git(&gate, &["rev-parse", "main"]).await, head);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_counts_once_from_its_first_byte_to_its_end() {
    let world = World::new().await;
    let token = world.token("alpha", "t1").await;
    let body = world.push_body().await;
    let mut one = world.half_a_push(&token, &body, false).await;
    assert_eq!(world.server.status().active_requests, 1);
    let gate = world.gate_path("alpha");
    let head = world.git(&gate, &["rev-parse", "main"]).await;
    let two = world.fetch_and_do_not_read(&token, &head);
    assert_eq!(world.server.status().active_requests, 2);
    drop(two);
    one.write_all(&body[body.len() / 2..]).unwrap();
    assert_eq!(status(&rest(one)), 200);
    world.idle().await;
    assert_eq!(world.server.status().requests_total, 2);
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_breaks_off_leaves_nothing() {
    for (unpack_limit, chunked) in [("1", true), ("1", false), ("100", true), ("100", false)] {
        let mut world = World::new().await;
        let gate = world.gate_path("alpha");
        // With few objects git writes them one by one, with many it keeps the pack.
        let config = ["config", "receive.unpackLimit", unpack_limit];
        world.git(&gate, &config).await;
        let token = world.token("alpha", "t1").await;
        let before = world.git(&gate, &["rev-parse", "main"]).await;
        let body = world.push_body().await;
        let stream = world.half_a_push(&token, &body, chunked).await;
        if chunked {
            // Cut off, not closed.
            let now = nix::libc::linger {
                l_onoff: 1,
                l_linger: 0,
            };
            setsockopt(&stream, Linger, &now).unwrap();
        }
        drop(stream);
        world.is_as_before(&before).await;
        world.pushes_again(&token).await;
        world.server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_ends_clones_and_pushes_that_are_under_way() {
    // Nothing but the stop ends anything here: all patience is longer than the test's own.
    let limits = Limits {
        header: PATIENCE * 10,
        idle: PATIENCE * 10,
        settle: PATIENCE * 10,
        ..Limits::default()
    };
    let mut world = World::with(limits).await;
    let head = world.grow(BIG).await;
    let token = world.token("alpha", "t1").await;
    let body = world.push_body().await;
    let reading = world.fetch_and_do_not_read(&token, &head);
    let writing = world.half_a_push(&token, &body, false).await;
    // Between two requests, and in the middle of a head.
    let idle = connect(&world);
    let mut asking = connect(&world);
    asking.write_all(b"GET /alpha.git/info").unwrap();
    let children = world.children().join("\n");
    for service in ["upload-pack", "receive-pack"] {
        assert!(children.contains(service), "{children}");
    }
    tokio::time::timeout(PATIENCE, world.server.stop())
        .await
        .expect("the server does not stop");
    // Children of children are told and not waited for.
    until("children end", || world.children().is_empty()).await;
    assert!(!rest(reading).ends_with(WHOLE));
    rest(writing);
    assert_eq!(rest(idle), "");
    rest(asking);
    assert!(TcpStream::connect(world.address()).is_err());
    world.is_as_before(&head).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_outlives_the_server_is_told_by_the_next() {
    let mut world = World::new().await;
    let gate = world.gate_path("alpha");
    let old = world.git(&gate, &["rev-parse", "main"]).await;
    let token = world.token("alpha", "t1").await;
    let seed = world.path("seed-alpha");
    let commit = ["commit", "-q", "--allow-empty", "-m", "more"];
    world.git(&seed, &commit).await;
    let new = world.git(&seed, &["rev-parse", "HEAD"]).await;
    // The refs have moved, and the hook does not get to say so.
    let hold = world.path("it's terokd.post-receive.hold");
    nix::unistd::mkfifo(&hold, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let url = world.url(&token, "alpha");
    let mut push = client(world.root.path())
        .current_dir(&seed)
        .args(["push", "-q", &url, "main"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut held = None;
    let mut pipe = std::fs::OpenOptions::new();
    pipe.write(true).custom_flags(nix::libc::O_NONBLOCK);
    until("the hook waits", || {
        held = pipe.open(&hold).ok();
        held.is_some()
    })
    .await;
    tokio::time::timeout(PATIENCE, world.server.stop())
        .await
        .expect("the server does not stop");
    push.wait().unwrap();
    assert_eq!(world.git(&gate, &["rev-parse", "main"]).await, new);
    assert!(world.pushes.try_recv().is_err(), "nobody knows yet");
    drop(held);
    until("the hook ends", || world.children().is_empty()).await;

    let root = world.root.path();
    for told in [true, false] {
        let tokens = Tokens::open(pool(root).await).await.unwrap();
        let config = config(root, tcp(), Limits::default());
        let (server, mut pushes) = GateServer::start(config, tokens).await.unwrap();
        let push = pushes.try_recv().ok();
        assert_eq!(push.is_some(), told, "once");
        if let Some(push) = push {
            let who = (push.project.as_str(), push.task_id.as_str());
            assert_eq!(who, ("alpha", "t1"));
            assert_eq!(push.gate_path, gate);
            let moved = &push.refs[0];
            assert_eq!(moved.name, "refs/heads/main");
            assert_eq!(
                (&moved.old, &moved.new),
                (&Some(old.clone()), &Some(new.clone()))
            );
        }
        assert_eq!(world.reports(), 0);
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_costs_little_and_holds_up_nobody() {
    let limits = Limits {
        children: 2,
        children_per_task: 1,
        ..Limits::default()
    };
    let world = World::with(limits).await;
    let head = world.grow(BIG).await;
    let (token, other) = (
        world.token("alpha", "t1").await,
        world.token("alpha", "t2").await,
    );
    let before = resident();
    let reading = world.fetch_and_do_not_read(&token, &head);
    let url = world.url(&other, "alpha");
    let clone = ["clone", "-q", &url, "work"];
    world.git(world.root.path(), &clone).await;
    let work = world.path("work");
    let commit = ["commit", "-q", "--allow-empty", "-m", "more"];
    world.git(&work, &commit).await;
    world.git(&work, &["push", "-q", "origin", "main"]).await;
    let grown = resident().saturating_sub(before);
    assert!(grown < 16 * 1024, "who does not read costs {grown} KiB");
    let children = world.children().join("\n");
    assert!(children.contains("upload-pack"), "ended early: {children}");
    world.server.stop().await;
    assert!(!rest(reading).ends_with(WHOLE));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_is_let_go() {
    let patience = Duration::from_millis(500);
    let limits = Limits {
        header: patience,
        idle: patience,
        connections: 1,
        ..Limits::default()
    };
    let mut world = World::with(limits).await;
    let head = world.grow(BIG).await;
    let token = world.token("alpha", "t1").await;
    let request = format!(
        "GET {INFO} HTTP/1.1\r\nHost: gate\r\n{}Connection: close\r\n\r\n",
        basic(token.expose())
    );
    // There is room for one, so whoever is served comes after the one before him is gone.
    let next_is_served = || {
        let mut next = connect(&world);
        next.write_all(request.as_bytes()).unwrap();
        assert_eq!(status(&rest(next)), 200);
    };
    let reading = world.fetch_and_do_not_read(&token, &head);
    next_is_served();
    assert!(!rest(reading).ends_with(WHOLE));

    let mut asking = connect(&world);
    asking.set_write_timeout(Some(PATIENCE)).unwrap();
    let asking = std::thread::spawn(move || {
        loop {
            if let Err(error) = asking.write_all(b"GET /x HTTP/1.1\r\nHost: gate\r\n\r\n") {
                return error;
            }
        }
    });
    let hung_up = asking.join().unwrap();
    let kinds = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
    assert!(kinds.contains(&hung_up.kind()), "{hung_up}");
    next_is_served();

    // A push that was sent as a whole happens, whether or not somebody wants to know.
    let body = world.push_body().await;
    let mut pushing = connect(&world);
    let length = format!("Content-Length: {}\r\n", body.len());
    let push = post("git-receive-pack", token.expose(), &length);
    pushing.write_all(push.as_bytes()).unwrap();
    pushing.write_all(&body).unwrap();
    next_is_served();
    assert!(rest(pushing).contains("unpack ok"));
    let pushed = world.pushes.recv().await.unwrap();
    assert_eq!(pushed.refs[0].old.as_ref(), Some(&head));
    until("children end", || world.children().is_empty()).await;
    world.idle().await;
    world.server.stop().await;
}
