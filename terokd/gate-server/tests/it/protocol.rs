//! What git and other clients may do on the wire: protocol versions, shallow and partial clones, encodings, connections
//! that are kept, held up or dropped, and the socket of one task.

use crate::refusals::{basic, raw, status};
use crate::world::{PATIENCE, World, tcp};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;
use terok_gate_server::{GateServer, Limits, Tokens};

pub(crate) const INFO: &str = "/alpha.git/info/refs?service=git-upload-pack";
/// `ls-refs` of protocol 2: one command, no arguments.
const LS_REFS: &[u8] = b"0014command=ls-refs\n00010000";

/// The head of a POST with more header lines.
pub(crate) fn post(service: &str, token: &str, headers: &str) -> String {
    format!(
        "POST /alpha.git/{service} HTTP/1.1\r\nHost: gate\r\n{}Content-Type: application/x-{service}-request\r\n\
         Git-Protocol: version=2\r\n{headers}\r\n",
        basic(token)
    )
}

pub(crate) fn connect(world: &World) -> TcpStream {
    let stream = TcpStream::connect(world.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Everything until the other side hangs up, which it has to do.
pub(crate) fn rest(mut stream: impl Read) -> String {
    let mut answer = Vec::new();
    // It may hang up on what was not read yet.
    if let Err(error) = stream.read_to_end(&mut answer) {
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_version_and_kind_of_clone() {
    let world = World::new().await;
    let token = world.token("alpha", "t1").await;
    let url = world.url(&token, "alpha");
    let root = world.root.path();
    for version in ["0", "1", "2"] {
        let protocol = format!("protocol.version={version}");
        let target = format!("v{version}");
        world
            .git(root, &["-c", &protocol, "clone", "-q", &url, &target])
            .await;
        let head = world
            .git(&world.path(&target), &["log", "--format=%s"])
            .await;
        assert_eq!(head, "second\nfirst", "version {version}");
    }
    world
        .git(root, &["clone", "-q", "--depth=1", &url, "shallow"])
        .await;
    let shallow = world.path("shallow");
    assert_eq!(world.git(&shallow, &["log", "--format=%s"]).await, "second");
    world.git(&shallow, &["fetch", "-q", "--unshallow"]).await;
    let all = world.git(&shallow, &["log", "--format=%s"]).await;
    assert_eq!(all, "second\nfirst");

    world
        .git(
            root,
            &[
                "clone",
                "-q",
                "--filter=blob:none",
                "--no-checkout",
                &url,
                "partial",
            ],
        )
        .await;
    let partial = world.path("partial");
    let count = ["rev-list", "--objects", "--missing=print", "HEAD"];
    let missing = world.git(&partial, &count).await;
    assert!(
        missing.lines().any(|line| line.starts_with('?')),
        "{missing}"
    );
    // What is missing comes when it is needed.
    world.git(&partial, &["checkout", "-q", "main"]).await;
    assert_eq!(
        std::fs::read_to_string(partial.join("README")).unwrap(),
        "alpha"
    );
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_may_be_chunked_compressed_and_announced() {
    let world = World::new().await;
    let token = world.token("alpha", "t1").await;
    let url = world.url(&token, "alpha");
    // A push beyond the buffer is sent in chunks.
    world
        .git(world.root.path(), &["clone", "-q", &url, "work"])
        .await;
    let work = world.path("work");
    std::fs::write(work.join("text"), "line\n".repeat(100_000)).unwrap();
    let random: Vec<u8> = (0..300_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    std::fs::write(work.join("blob"), random).unwrap();
    world.git(&work, &["add", "."]).await;
    world.git(&work, &["commit", "-q", "-m", "chunks"]).await;
    world
        .git(
            &work,
            &["-c", "http.postBuffer=1000", "push", "-q", "origin", "main"],
        )
        .await;
    let head = world.git(&work, &["rev-parse", "HEAD"]).await;
    let gate = world.gate_path("alpha");
    assert_eq!(world.git(&gate, &["rev-parse", "main"]).await, head);

    let length = |n: usize| format!("Content-Length: {n}\r\nConnection: close\r\n");
    let plain = [
        post("git-upload-pack", token.expose(), &length(LS_REFS.len())).as_bytes(),
        LS_REFS,
    ]
    .concat();
    let plain = raw(&world.address(), &plain);
    assert_eq!(status(&plain), 200, "{plain}");
    assert!(
        plain.contains(&format!("{head} refs/heads/main")),
        "{plain}"
    );

    let mut gzip = Command::new("gzip")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    gzip.stdin.take().unwrap().write_all(LS_REFS).unwrap();
    let packed = gzip.wait_with_output().unwrap().stdout;
    let headers = format!("Content-Encoding: gzip\r\n{}", length(packed.len()));
    let request = [
        post("git-upload-pack", token.expose(), &headers).as_bytes(),
        &packed,
    ]
    .concat();
    let answer = raw(&world.address(), &request);
    assert_eq!(status(&answer), 200, "{answer}");
    assert!(
        answer.contains(&format!("{head} refs/heads/main")),
        "{answer}"
    );

    // Somebody who asks first is told to go on before he sends anything.
    let headers = format!("Expect: 100-continue\r\n{}", length(LS_REFS.len()));
    let mut stream = connect(&world);
    stream
        .write_all(post("git-upload-pack", token.expose(), &headers).as_bytes())
        .unwrap();
    let mut first = [0; 12];
    stream.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 100");
    stream.write_all(LS_REFS).unwrap();
    let answer = rest(stream);
    assert!(answer.contains("HTTP/1.1 200"), "{answer}");
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_kept_for_the_next_request() {
    let world = World::new().await;
    let token = world.token("alpha", "t1").await;
    let get = |more: &str| {
        format!(
            "GET {INFO} HTTP/1.1\r\nHost: gate\r\n{}{more}\r\n",
            basic(token.expose())
        )
    };
    let mut stream = connect(&world);
    let requests = get("") + &get("") + &get("Connection: close\r\n");
    stream.write_all(requests.as_bytes()).unwrap();
    let answers = rest(stream);
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 3, "{answers}");
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_too_slow_is_let_go() {
    let limits = Limits {
        header: Duration::from_millis(100),
        idle: Duration::from_millis(100),
        ..Limits::default()
    };
    let world = World::with(limits).await;
    let token = world.token("alpha", "t1").await;
    // Half a head: the other side hangs up.
    let mut stream = connect(&world);
    stream.write_all(b"GET /alpha.git/info").unwrap();
    let answer = rest(stream);
    assert!(!answer.contains(" 200 "), "{answer}");
    // Half a body.
    let mut stream = connect(&world);
    let head = post(
        "git-upload-pack",
        token.expose(),
        "Content-Length: 1000\r\n",
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(b"0014").unwrap();
    let answer = rest(stream);
    assert!(!answer.contains("refs/heads"), "{answer}");
    world.idle().await;
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_house_says_when_to_come_again_and_can_be_closed() {
    let limits = Limits {
        children_per_task: 1,
        wait: Duration::from_millis(50),
        ..Limits::default()
    };
    let world = World::with(limits).await;
    let token = world.token("alpha", "t1").await;
    let other = world.token("alpha", "t2").await;
    // One request that does not end keeps the only child.
    let mut holding = connect(&world);
    let head = post(
        "git-upload-pack",
        token.expose(),
        "Content-Length: 1000\r\n",
    );
    holding.write_all(head.as_bytes()).unwrap();
    holding.write_all(&LS_REFS[..4]).unwrap();
    let get = |token: &str| {
        let text = format!(
            "GET {INFO} HTTP/1.1\r\nHost: gate\r\n{}Connection: close\r\n\r\n",
            basic(token)
        );
        raw(&world.address(), text.as_bytes())
    };
    let asked = std::time::Instant::now();
    let refused = loop {
        let answer = get(token.expose());
        if status(&answer) != 200 {
            break answer;
        }
        assert!(asked.elapsed() < PATIENCE, "the only child is free");
    };
    assert_eq!(status(&refused), 503, "{refused}");
    assert!(
        refused.to_ascii_lowercase().contains("retry-after:"),
        "{refused}"
    );
    assert_eq!(status(&get(other.expose())), 200, "others are served");
    // Whoever is still there does not keep the server from stopping.
    world.server.stop().await;
    rest(holding);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_has_a_socket_of_its_own() {
    let world = World::new().await;
    let mine = world.token("alpha", "t1").await;
    let other = world.token("alpha", "t2").await;
    let dir = world.server.add_task("alpha", "t1").await.unwrap();
    let socket = dir.join("gate-server.sock");
    let meta = std::fs::symlink_metadata(&socket).unwrap();
    assert!(meta.file_type().is_socket());
    assert_eq!(meta.permissions().mode() & 0o777, 0o600);
    let mode = std::fs::metadata(&dir).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "{mode:o}");
    let ask = |token: &str| {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let text = format!(
            "GET {INFO} HTTP/1.1\r\nHost: gate\r\n{}Connection: close\r\n\r\n",
            basic(token)
        );
        stream.write_all(text.as_bytes()).unwrap();
        status(&rest(stream))
    };
    assert_eq!(ask(mine.expose()), 200);
    assert_eq!(ask(other.expose()), 403, "another task's token");
    // What a crash left behind, or somebody planted, does not stay in the way.
    world.server.stop().await;
    let pool = crate::world::pool(world.root.path()).await;
    let tokens = Tokens::open(pool).await.unwrap();
    let config = crate::world::config(world.root.path(), tcp(), Limits::default());
    let (server, _pushes) = GateServer::start(config, tokens).await.unwrap();
    let again = server.add_task("alpha", "t1").await.unwrap();
    assert_eq!(again, dir, "the same address after a restart");
    assert_eq!(ask(mine.expose()), 200);
    server.remove_task("alpha", "t1").await;
    assert!(UnixStream::connect(&socket).is_err());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn something_else_in_a_socket_s_place_is_left_alone() {
    let world = World::new().await;
    let dir = world.server.add_task("alpha", "t1").await.unwrap();
    world.server.remove_task("alpha", "t1").await;
    std::fs::create_dir_all(&dir).unwrap();
    let place = dir.join("gate-server.sock");
    std::fs::write(&place, "precious").unwrap();
    let refused = world.server.add_task("alpha", "t1").await.unwrap_err();
    assert!(refused.message.contains("is no socket"), "{refused}");
    assert_eq!(std::fs::read_to_string(&place).unwrap(), "precious");
    std::fs::remove_file(&place).unwrap();
    std::os::unix::fs::symlink("/dev/null", &place).unwrap();
    assert!(world.server.add_task("alpha", "t1").await.is_err());
    assert!(place.symlink_metadata().unwrap().is_symlink());
    // Somebody who answers there is not pushed aside; a socket that a crash left is.
    std::fs::remove_file(&place).unwrap();
    let other = std::os::unix::net::UnixListener::bind(&place).unwrap();
    assert!(world.server.add_task("alpha", "t1").await.is_err());
    drop(other);
    world.server.add_task("alpha", "t1").await.unwrap();
    UnixStream::connect(&place).unwrap();
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_vanishes_takes_its_child_along() {
    // The only child; without an end it would be kept for two minutes.
    let limits = Limits {
        children: 1,
        ..Limits::default()
    };
    let world = World::with(limits).await;
    let token = world.token("alpha", "t1").await;
    let mut stream = connect(&world);
    let head = post(
        "git-upload-pack",
        token.expose(),
        "Content-Length: 1000\r\n",
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(b"0014").unwrap();
    let until = async |wanted: bool| {
        while world.children().is_empty() == wanted {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE / 2, until(true))
        .await
        .expect("no child");
    drop(stream);
    tokio::time::timeout(PATIENCE / 2, until(false))
        .await
        .expect("the child stays");
    world.idle().await;
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_beyond_the_limit_is_refused() {
    let limits = Limits {
        max_push_bytes: 1000,
        ..Limits::default()
    };
    let world = World::with(limits).await;
    let token = world.token("alpha", "t1").await;
    let close = "Connection: close\r\n";
    let announced = format!("{close}Content-Length: 1001\r\n");
    let chunked = format!("{close}Transfer-Encoding: chunked\r\n");
    let chunk = format!("3e9\r\n{}\r\n0\r\n\r\n", "0".repeat(1001));
    for (headers, body) in [(announced, "0".repeat(1001)), (chunked, chunk)] {
        let request = post("git-receive-pack", token.expose(), &headers) + &body;
        let answer = raw(&world.address(), request.as_bytes());
        assert_eq!(status(&answer), 413, "{headers}: {answer}");
    }
    world.idle().await;
    world.server.stop().await;
}

/// Git itself deletes whatever is there if the old id of the request is zero or names nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_that_does_not_know_the_head_is_refused() {
    let world = World::new().await;
    let token = world.token("alpha", "t1").await;
    let gate = world.root.path().join("gate/alpha.git");
    let head = world.git(&gate, &["rev-parse", "refs/heads/main"]).await;
    let nothing = "0".repeat(40);
    for claimed in [nothing.clone(), "1".repeat(40)] {
        let command =
            format!("{claimed} {nothing} refs/heads/main\0report-status delete-refs agent=x");
        let body = format!("{:04x}{command}0000", command.len() + 4);
        let headers = format!("Connection: close\r\nContent-Length: {}\r\n", body.len());
        let request = post("git-receive-pack", token.expose(), &headers) + &body;
        let answer = raw(&world.address(), request.as_bytes());
        assert!(answer.contains("ng refs/heads/main"), "{answer}");
        let there = world.git(&gate, &["rev-parse", "refs/heads/main"]).await;
        assert_eq!(there, head, "{claimed}");
    }
    world.idle().await;
    world.server.stop().await;
}
