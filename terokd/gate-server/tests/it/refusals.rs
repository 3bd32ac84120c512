//! Who does not get in, and how they are told; what cannot be reached by any path.

use crate::world::{World, client};
use proptest::prelude::*;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// One request as it is, one answer as it is.
pub(crate) fn raw(address: &str, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    stream.write_all(request).unwrap();
    let mut answer = Vec::new();
    // A server that hangs up early has said what it had to say.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

pub(crate) fn status(answer: &str) -> u16 {
    let code = answer.split(' ').nth(1).unwrap_or_default();
    code.parse().unwrap_or(0)
}

fn get(address: &str, target: &str, header: &str) -> String {
    let request =
        format!("GET {target} HTTP/1.1\r\nHost: gate\r\n{header}Connection: close\r\n\r\n");
    raw(address, request.as_bytes())
}

pub(crate) fn basic(user: &str) -> String {
    let output = std::process::Command::new("sh")
        .args([
            "-c",
            "printf %s \"$1\" | base64 -w0",
            "sh",
            &format!("{user}:x"),
        ])
        .output()
        .unwrap();
    format!(
        "Authorization: Basic {}\r\n",
        String::from_utf8(output.stdout).unwrap()
    )
}

const INFO: &str = "/alpha.git/info/refs?service=git-upload-pack";

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_has_its_status() {
    let world = World::new().await;
    world.gate("beta").await;
    let token = world.token("alpha", "t1").await;
    let address = world.address();
    let mine = basic(token.expose());
    let unknown = basic("terok-g-00000000000000000000000000000000");
    let rows: &[(&str, &str, u16)] = &[
        (INFO, &mine, 200),
        (INFO, "", 401),
        (INFO, "Authorization: Bearer x\r\n", 401),
        (INFO, "Authorization: Basic !!!!\r\n", 401),
        (INFO, "Authorization: Basic bm9jb2xvbg==\r\n", 401),
        (INFO, "Authorization: Basic Ong=\r\n", 401),
        (INFO, &unknown, 403),
        ("/beta.git/info/refs?service=git-upload-pack", &mine, 403),
        ("/gamma.git/info/refs?service=git-upload-pack", &mine, 403),
        ("/alpha.git/config", &mine, 404),
        ("/alpha.git/objects/info/packs", &mine, 404),
        ("/alpha/info/refs?service=git-upload-pack", &mine, 404),
        (
            "/../gate/alpha.git/info/refs?service=git-upload-pack",
            &mine,
            404,
        ),
        (
            "/%2e%2e/alpha.git/info/refs?service=git-upload-pack",
            &mine,
            404,
        ),
        ("/.known_hosts", &mine, 404),
        ("/", "", 404),
    ];
    for (target, header, expected) in rows {
        let answer = get(&address, target, header);
        assert_eq!(status(&answer), *expected, "{target} {header:?}: {answer}");
        if *expected == 401 {
            assert!(
                answer
                    .to_ascii_lowercase()
                    .contains("www-authenticate: basic realm=\"terok gate\""),
                "{answer}"
            );
        }
    }
    // An unknown token and somebody else's gate look the same.
    let body = |answer: &str| answer.split("\r\n\r\n").nth(1).map(str::to_owned);
    let other = get(
        &address,
        "/beta.git/info/refs?service=git-upload-pack",
        &mine,
    );
    assert_eq!(body(&get(&address, INFO, &unknown)), body(&other));
    let put = raw(
        &address,
        format!("PUT /alpha.git/HEAD HTTP/1.1\r\nHost: gate\r\n{mine}Connection: close\r\n\r\n")
            .as_bytes(),
    );
    assert_eq!(status(&put), 501, "{put}");
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_opens_nothing() {
    let world = World::new().await;
    let token = world.token("alpha", "t1").await;
    let (address, header) = (world.address(), basic(token.expose()));
    assert_eq!(status(&get(&address, INFO, &header)), 200);
    assert_eq!(world.tokens.revoke_task("alpha", "t1").await.unwrap(), 1);
    assert_eq!(status(&get(&address, INFO, &header)), 403);
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_daemon_keeps_is_neither_seen_nor_touched() {
    let mut world = World::new().await;
    let token = world.token("alpha", "t1").await;
    let url = world.url(&token, "alpha");
    let gate = world.gate_path("alpha");
    let head = world.git(&gate, &["rev-parse", "main"]).await;
    world
        .git(&gate, &["update-ref", "refs/terok/upstream/main", &head])
        .await;
    // A hook of the repository's own never runs.
    let hook = gate.join("hooks/pre-receive");
    std::fs::create_dir_all(gate.join("hooks")).unwrap();
    std::fs::write(&hook, "#!/bin/sh\ntouch \"$GIT_DIR/ran\"\nexit 1\n").unwrap();
    std::fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();

    let listed = world.git(world.root.path(), &["ls-remote", &url]).await;
    assert!(!listed.contains("refs/terok"), "{listed}");
    world
        .git(world.root.path(), &["clone", "-q", &url, "work"])
        .await;
    let work = world.path("work");
    let hidden = world
        .try_git(
            &work,
            &["push", "-q", "origin", "HEAD:refs/terok/upstream/evil"],
        )
        .await;
    assert!(!hidden.status.success(), "a hidden ref was written");

    world
        .git(&work, &["commit", "-q", "--amend", "-m", "rewritten"])
        .await;
    world
        .git(&work, &["push", "-q", "--force", "origin", "HEAD:main"])
        .await;
    let push = world.pushes.recv().await.unwrap();
    assert_eq!(push.refs[0].old.as_deref(), Some(head.as_str()));
    let kept = world
        .git(
            &gate,
            &[
                "for-each-ref",
                "--format=%(objectname) %(refname)",
                "refs/terok/backup",
            ],
        )
        .await;
    assert!(
        kept.starts_with(&format!("{head} refs/terok/backup/main/")),
        "{kept}"
    );
    assert!(!gate.join("ran").exists(), "a hook of the repository ran");
    world.server.stop().await;
}

/// Any request line and headers that a client can think of.
#[test]
fn no_request_gets_more_than_a_refusal() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let world = runtime.block_on(World::new());
    let address = world.address();
    let config = ProptestConfig::with_cases(200);
    proptest!(config, |(path in "[ -~]{0,60}", header in "[A-Za-z-]{1,20}: [ -~]{0,60}", method in "(GET|POST|HEAD|PUT|[A-Z]{1,8})")| {
        let path = path.replace(' ', "%20");
        let request = format!("{method} /{path} HTTP/1.1\r\nHost: gate\r\n{header}\r\nConnection: close\r\n\r\n");
        let answer = raw(&address, request.as_bytes());
        let code = status(&answer);
        prop_assert!(code == 0 || (400..500).contains(&code) || code == 501, "{}: {}", request, answer);
    });
    // Nobody was hurt by that.
    let token = runtime.block_on(world.token("alpha", "t1"));
    let url = world.url(&token, "alpha");
    let mut command = client(world.root.path());
    let listed = command.args(["ls-remote", &url]).output().unwrap();
    assert!(listed.status.success());
    runtime.block_on(world.server.stop());
}

/// With a replacement of its own, a client could show the host another history than the one that is there.
#[tokio::test(flavor = "multi_thread")]
async fn replaced_objects_are_refused_and_deceive_nobody() {
    let world = World::new().await;
    let token = world.token("alpha", "t1").await;
    let url = world.url(&token, "alpha");
    let gate = world.gate_path("alpha");
    let head = world.git(&gate, &["rev-parse", "main"]).await;
    world
        .git(world.root.path(), &["clone", "-q", &url, "work"])
        .await;
    let work = world.path("work");
    world
        .git(&work, &["commit", "-q", "--amend", "-m", "rewritten"])
        .await;
    let new = world.git(&work, &["rev-parse", "HEAD"]).await;
    world.git(&work, &["replace", "--graft", &new, &head]).await;
    let replacement = format!("refs/replace/{new}");
    let push = ["push", "-q", "origin", &replacement];
    assert!(!world.try_git(&work, &push).await.status.success());
    // One that came another way: as if nothing of `main` were lost.
    world
        .git(
            &gate,
            &["fetch", "-q", "../../work", "refs/replace/*:refs/replace/*"],
        )
        .await;
    let push = ["push", "-q", "--force", "origin", "HEAD:main"];
    world.git(&work, &push).await;
    let list = [
        "for-each-ref",
        "--format=%(objectname)",
        "refs/terok/backup",
    ];
    assert_eq!(world.git(&gate, &list).await, head);
    let listed = world.git(&work, &["ls-remote", "origin"]).await;
    assert!(!listed.contains("refs/replace"), "{listed}");
    world.server.stop().await;
}
