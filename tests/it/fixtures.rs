//! The upstreams that other suites use, each proven with the real git client.

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use terok_tests::http_git::Answer;
use terok_tests::proxy::Manner;
use terok_tests::{GitDaemon, HttpGit, Proxy, Sshd, Upstream, World, programs};

fn git(world: &World, arguments: &[&str], change: impl FnOnce(&mut Command)) -> Output {
    let mut command = world.command(&programs::find("git").unwrap());
    command
        .args(arguments)
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_CONFIG_NOSYSTEM", "1");
    change(&mut command);
    command.output().unwrap()
}

/// What `ls-remote` says: the heads and tags, or the error.
fn ls_remote(
    world: &World,
    url: &str,
    change: impl FnOnce(&mut Command),
) -> Result<String, String> {
    let output = git(world, &["ls-remote", url], change);
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// A client that will wait for long.
fn asking(world: &World, url: &str) -> Child {
    let mut command = world.command(&programs::find("git").unwrap());
    command.args(["ls-remote", url]).process_group(0);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

/// Ends a client that still waits, with the helpers it has started.
fn tired(mut client: Child) {
    assert_eq!(client.try_wait().unwrap(), None, "it waits");
    let group = Pid::from_raw(client.id().try_into().unwrap());
    killpg(group, Signal::SIGKILL).unwrap();
    client.wait().unwrap();
}

/// Options of ssh: this key only, these hosts only.
fn ssh<'a>(key: &Path, hosts: &Path) -> impl FnOnce(&mut Command) + 'a {
    let options = format!(
        "ssh -F /dev/null -i {} -o IdentitiesOnly=yes -o BatchMode=yes -o StrictHostKeyChecking=accept-new \
         -o UserKnownHostsFile={} -o GlobalKnownHostsFile=/dev/null",
        key.display(),
        hosts.display()
    );
    |command| {
        command.env("GIT_SSH_COMMAND", options);
    }
}

#[test]
fn an_upstream_changes_as_upstreams_do() {
    let world = World::new();
    let Some(up) = Upstream::new(&world, "up") else {
        return;
    };
    let seen = |up: &Upstream| ls_remote(&world, &up.file_url(), |_| {}).unwrap();
    let (main, side) = (up.head("main"), up.head("side"));
    assert!(seen(&up).starts_with(&format!("{main}\tHEAD\n")));
    let third = up.commit("main", "more");
    assert_eq!(up.head("main~1"), main);
    assert_eq!(up.git(&["show", "main:one"]), "one");
    let forced = up.force_push("main", "other");
    assert_ne!(forced, third);
    assert_eq!(up.head("main~1"), main);
    up.rename("side", "topic/side");
    assert_eq!(up.find("side"), None);
    assert_eq!(up.head("topic/side"), side);
    up.default_branch("topic/side");
    assert!(seen(&up).starts_with(&format!("{side}\tHEAD\n")));
    up.delete("main");
    up.tag("light", "topic/side");
    up.many("n", 1000, "topic/side");
    let all = seen(&up);
    assert_eq!(all.matches("refs/heads/n").count(), 1000);
    assert!(all.contains("refs/tags/v1^{}") && all.contains("refs/tags/light"));
    assert!(!all.contains("refs/heads/main"));
    up.big_blob("topic/side", 100_000);
    assert_eq!(up.git(&["cat-file", "-s", "topic/side:big"]), "100000");
    assert_eq!(up.git(&["fsck", "--strict", "--no-dangling"]), "");
}

#[test]
fn sshd_lets_in_whom_it_knows_until_it_forgets_them() {
    let world = World::new();
    let (Some(up), Some(sshd)) = (Upstream::new(&world, "up"), Sshd::start(&world)) else {
        return;
    };
    let (key, hosts) = (sshd.client_key("client"), world.path("$HOME/hosts"));
    let url = sshd.url(&up);
    let seen = ls_remote(&world, &url, ssh(&key, &hosts)).unwrap();
    assert!(seen.contains(&up.head("side")), "{seen}");
    assert_eq!(sshd.connections(), 1);
    let pinned = std::fs::read_to_string(&hosts).unwrap();
    assert!(pinned.contains(sshd.host_line().trim()), "{pinned}");

    // Pushes are made by the account that the repository belongs to.
    let clone = world.path("$HOME/clone");
    let clone = clone.to_str().unwrap();
    let cloned = git(&world, &["clone", "-q", &url, clone], ssh(&key, &hosts));
    assert!(cloned.status.success(), "{cloned:?}");
    let push = ["-C", clone, "push", "-q", "origin", "HEAD:refs/heads/new"];
    let pushed = git(&world, &push, ssh(&key, &hosts));
    assert!(pushed.status.success(), "{pushed:?}");
    assert_eq!(up.head("new"), up.head("main"));

    // git, and nothing else.
    let port = sshd.port().to_string();
    let mut shell = world.command(&programs::find("ssh").unwrap());
    let user = url.split(['/', '@']).nth(2).unwrap();
    shell.args(["-F", "/dev/null", "-p", &port, "-o", "BatchMode=yes", "-i"]);
    shell
        .arg(&key)
        .args(["-o", &format!("UserKnownHostsFile={}", hosts.display())]);
    let refused = shell
        .args([&format!("{user}@127.0.0.1"), "id"])
        .output()
        .unwrap();
    assert_ne!(refused.status.code(), Some(0));
    assert_ne!(
        refused.status.code(),
        Some(255),
        "ssh itself works: {refused:?}"
    );

    let public = std::fs::read_to_string(key.with_extension("pub")).unwrap();
    sshd.refuse(&public);
    let denied = ls_remote(&world, &url, ssh(&key, &hosts)).unwrap_err();
    assert!(denied.contains("Permission denied"), "{denied}");
    sshd.accept(&public);
    sshd.replace_host_key();
    let changed = ls_remote(&world, &url, ssh(&key, &hosts)).unwrap_err();
    assert!(changed.contains("IDENTIFICATION HAS CHANGED"), "{changed}");
}

#[test]
fn git_daemon_serves_and_takes() {
    let world = World::new();
    let Some(up) = Upstream::new(&world, "up") else {
        return;
    };
    let daemon = GitDaemon::start(&world, up.base()).unwrap();
    let url = daemon.url(&up);
    assert!(
        ls_remote(&world, &url, |_| {})
            .unwrap()
            .contains(&up.head("main"))
    );
    let push = [
        "-C",
        up.path().to_str().unwrap(),
        "push",
        "-q",
        &url,
        "main:refs/heads/new",
    ];
    assert!(git(&world, &push, |_| {}).status.success());
    assert_eq!(up.head("new"), up.head("main"));
    assert_eq!(daemon.connections(), 2);
    daemon.wait_idle();
}

#[test]
fn http_serves_takes_and_refuses_as_told() {
    let world = World::new();
    let Some(up) = Upstream::new(&world, "up") else {
        return;
    };
    up.big_blob("main", 300_000);
    let http = HttpGit::start(&world, up.base()).unwrap();
    let url = http.url(&up);
    let clone = |to: &str| {
        let to = world.path(&format!("$HOME/{to}"));
        let output = git(&world, &["clone", "-q", &url, to.to_str().unwrap()], |_| {});
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), told)
    };
    assert!(clone("one").0);
    let seen = http.requests();
    assert_eq!(seen[0], "GET /up.git/info/refs?service=git-upload-pack");
    assert!(
        seen.contains(&"POST /up.git/git-upload-pack?".to_owned()),
        "{seen:?}"
    );
    let push = [
        "-C",
        up.path().to_str().unwrap(),
        "push",
        "-q",
        &url,
        "side:refs/heads/new",
    ];
    assert!(git(&world, &push, |_| {}).status.success());
    assert_eq!(up.head("new"), up.head("side"));

    // A refusal, once.
    let busy = Answer::Status {
        code: 429,
        retry_after: Some("7".to_owned()),
    };
    http.answer_once(busy);
    let (cloned, told) = clone("two");
    assert!(!cloned && told.contains("429"), "{told}");
    assert!(clone("two").0);
    http.answer(Answer::Status {
        code: 403,
        retry_after: None,
    });
    assert!(clone("three").1.contains("403"));

    // Name and password.
    http.answer(Answer::Basic {
        user: "me".to_owned(),
        password: "se:cret?".to_owned(),
    });
    let refused = ls_remote(&world, &url, |_| {}).unwrap_err();
    assert!(refused.contains("terminal prompts disabled"), "{refused}");
    let wrong = url.replace("http://", "http://me:wrong@");
    assert!(ls_remote(&world, &wrong, |_| {}).is_err());
    let right = url.replace("http://", "http://me:se%3Acret%3F@");
    assert!(
        ls_remote(&world, &right, |_| {})
            .unwrap()
            .contains(&up.head("main"))
    );

    // Half an answer.
    http.answer(Answer::Truncate(5000));
    assert!(!clone("four").0);
    http.answer(Answer::Honest);
    assert!(clone("four").0);
}

#[test]
fn http_hangs_until_the_client_is_tired_or_the_server_gone() {
    let world = World::new();
    let Some(up) = Upstream::new(&world, "up") else {
        return;
    };
    let http = HttpGit::start(&world, up.base()).unwrap();
    let url = http.url(&up);
    for answer in [Answer::Hang, Answer::Stall(10)] {
        http.answer(answer);
        let client = asking(&world, &url);
        http.wait_request("up.git");
        http.requests();
        tired(client);
        http.wait_idle();
    }
    http.answer(Answer::Hang);
    let mut client = asking(&world, &url);
    http.wait_request("up.git");
    drop(http);
    assert!(!client.wait().unwrap().success());
}

#[test]
fn a_proxy_forwards_counts_cuts_hangs_and_dawdles() {
    let world = World::new();
    let Some(up) = Upstream::new(&world, "up") else {
        return;
    };
    up.big_blob("main", 400_000);
    let daemon = GitDaemon::start(&world, up.base()).unwrap();
    let proxy = Proxy::start(daemon.address());
    let url = format!("git://{}/up.git", proxy.address());
    let clone = |to: &str| {
        let to = world.path(&format!("$HOME/{to}"));
        let output = git(&world, &["clone", "-q", &url, to.to_str().unwrap()], |_| {});
        output.status.success()
    };
    assert!(clone("one"));
    let whole = proxy.down();
    assert!(
        whole > 400_000 && proxy.up() > 100,
        "{whole} {}",
        proxy.up()
    );
    assert_eq!((proxy.connections(), daemon.connections()), (1, 1));

    proxy.set(Manner::Cut { after: 50_000 });
    assert!(!clone("two"));
    assert_eq!(proxy.down() - whole, 50_000);

    // It hangs in the middle and goes on when told.
    proxy.set(Manner::Hang { after: 50_000 });
    std::thread::scope(|scope| {
        let cloning = scope.spawn(|| clone("three"));
        proxy.wait_hanging();
        assert_eq!(proxy.down() - whole, 100_000);
        assert!(!cloning.is_finished());
        proxy.set(Manner::Slow { rate: 4_000_000 });
        assert!(cloning.join().unwrap());
    });
    assert!(proxy.down() > 2 * whole);

    // A client that leaves while it hangs leaves nothing behind.
    proxy.set(Manner::Hang { after: 0 });
    let client = asking(&world, &url);
    proxy.wait_hanging();
    tired(client);
    proxy.wait_idle();
    daemon.wait_idle();
}

#[test]
fn servers_end_with_their_clients_still_there() {
    let world = World::new();
    let (Some(up), Some(sshd)) = (
        Upstream::new(&world, "up"),
        Sshd::start_serving(&world, "echo ready; exec sleep 1000"),
    ) else {
        return;
    };
    let (key, hosts) = (sshd.client_key("client"), world.path("$HOME/hosts"));
    let url = sshd.url(&up);
    let mut command = world.command(&programs::find("git").unwrap());
    command.args(["ls-remote", &url]).stderr(Stdio::null());
    ssh(&key, &hosts)(&mut command);
    let mut child = command.spawn().unwrap();
    sshd.wait_connections(1);
    drop(sshd);
    assert!(!child.wait().unwrap().success());
}
