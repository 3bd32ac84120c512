//! Much at once, and much in one piece.

use crate::refusals::{basic, raw, status};
use crate::world::{World, client, run};
use std::process::Stdio;
use terok_gate_server::Limits;

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_clones_at_once_all_succeed() {
    let world = World::new().await;
    // Ten tasks with twenty clones each: every task has to wait for its own turn.
    let mut clones = Vec::new();
    for task in 0..10 {
        let token = world.token("alpha", &format!("t{task}")).await;
        let url = world.url(&token, "alpha");
        for n in 0..20 {
            let mut command = client(world.root.path());
            let target = world.path(&format!("clone-{task}-{n}"));
            command.args(["clone", "-q", &url]).arg(&target);
            clones.push(tokio::spawn(async move { (run(command).await, target) }));
        }
    }
    for clone in clones {
        let (output, target) = clone.await.unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(
            std::fs::read_to_string(target.join("README")).unwrap(),
            "alpha"
        );
    }
    world.idle().await;
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_mebibytes_in_one_push() {
    let world = World::new().await;
    let token = world.token("alpha", "t1").await;
    let url = world.url(&token, "alpha");
    world
        .git(world.root.path(), &["clone", "-q", &url, "work"])
        .await;
    let work = world.path("work");
    let mut random = std::fs::File::open("/dev/urandom")
        .map(|file| std::io::Read::take(file, 50 << 20))
        .unwrap();
    let mut blob = std::fs::File::create(work.join("blob")).unwrap();
    std::io::copy(&mut random, &mut blob).unwrap();
    drop(blob);
    world.git(&work, &["add", "blob"]).await;
    world.git(&work, &["commit", "-q", "-m", "big"]).await;
    let before = resident();
    world.git(&work, &["push", "-q", "origin", "main"]).await;
    let grown = resident().saturating_sub(before);
    assert!(grown < 16 * 1024, "the push cost {grown} KiB of memory");
    let (here, there) = (
        world.git(&work, &["rev-parse", "HEAD"]).await,
        world
            .git(&world.gate_path("alpha"), &["rev-parse", "main"])
            .await,
    );
    assert_eq!(here, there);
    world.server.stop().await;
}

/// The most that this process has ever had in memory, in KiB.
pub(crate) fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_beyond_the_limit_is_refused() {
    let limits = Limits {
        max_push_bytes: 100_000,
        ..Limits::default()
    };
    let world = World::with(limits).await;
    let token = world.token("alpha", "t1").await;
    let url = world.url(&token, "alpha");
    world
        .git(world.root.path(), &["clone", "-q", &url, "work"])
        .await;
    let work = world.path("work");
    let mut command = std::process::Command::new("sh");
    let made = command
        .args(["-c", "head -c 3000000 /dev/urandom > blob"])
        .current_dir(&work)
        .stdin(Stdio::null())
        .status()
        .unwrap();
    assert!(made.success());
    world.git(&work, &["add", "blob"]).await;
    world.git(&work, &["commit", "-q", "-m", "big"]).await;
    let before = world
        .git(&world.gate_path("alpha"), &["rev-parse", "main"])
        .await;
    let request = format!(
        "POST /alpha.git/git-receive-pack HTTP/1.1\r\nHost: gate\r\n{}Content-Type: application/x-git-receive-pack-request\r\n\
         Content-Length: 100001\r\nConnection: close\r\n\r\n",
        basic(token.expose())
    );
    let answer = raw(&world.address(), request.as_bytes());
    assert_eq!(status(&answer), 413, "{answer}");
    let refused = world
        .try_git(&work, &["push", "-q", "origin", "main"])
        .await;
    assert!(!refused.status.success());
    assert_eq!(
        world
            .git(&world.gate_path("alpha"), &["rev-parse", "main"])
            .await,
        before
    );
    world.server.stop().await;
}
