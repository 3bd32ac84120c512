//! The programs that go into images, run as they are with real shells and real git.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("files/scripts")
}

fn all_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("readable").flatten() {
        let path = entry.path();
        if path.is_dir() {
            all_files(&path, found);
        } else {
            found.push(path);
        }
    }
}

#[test]
fn shells_and_interpreters_accept_every_script() {
    let mut files = Vec::new();
    all_files(&scripts(), &mut files);
    assert!(files.len() > 25);
    let has_shellcheck = Command::new("shellcheck").arg("--version").output().is_ok();
    for file in &files {
        let text = fs::read_to_string(file).expect("UTF-8");
        let first = text.lines().next().unwrap_or_default();
        let shell = match first {
            "#!/bin/bash" => "bash",
            "#!/bin/sh" | "# shellcheck shell=sh" => "sh",
            _ => continue,
        };
        let checked = Command::new(shell)
            .arg("-n")
            .arg(file)
            .output()
            .expect("a shell");
        assert!(
            checked.status.success(),
            "{}: {}",
            file.display(),
            String::from_utf8_lossy(&checked.stderr)
        );
        if has_shellcheck {
            let checked = Command::new("shellcheck")
                .args(["-S", "warning"])
                .arg(file)
                .output()
                .expect("shellcheck");
            assert!(
                checked.status.success(),
                "{}",
                String::from_utf8_lossy(&checked.stdout)
            );
        }
    }
}

/// A container's inside in a temporary directory.
struct Container {
    dir: TempDir,
}

impl Container {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        for sub in ["home", "workspace", "policy", "bin"] {
            fs::create_dir(dir.path().join(sub)).expect("created");
        }
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, program: &Path) -> Command {
        let path = std::env::var("PATH").expect("PATH");
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", format!("{}:{path}", self.path("bin").display()))
            .env("HOME", self.path("home"))
            .env("REPO_ROOT", self.path("workspace"))
            .env("TEROK_AGENT_SOCKET", self.path("agent.sock"))
            .env("TEROK_CLAUDE_POLICY_DIR", self.path("policy"))
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_AUTHOR_NAME", "a")
            .env("GIT_AUTHOR_EMAIL", "a@b")
            .env("GIT_COMMITTER_NAME", "a")
            .env("GIT_COMMITTER_EMAIL", "a@b")
            .stdin(Stdio::null());
        command
    }

    /// One start of the container with these variables.
    fn start(&self, variables: &[(&str, &str)]) -> Start {
        let mut command = self.command(&scripts().join("init-ssh-and-repo.sh"));
        command.envs(variables.iter().copied());
        Start::of(command.output().expect("bash"))
    }

    fn git(&self, dir: &str, arguments: &[&str]) -> String {
        let mut command = self.command(Path::new("git"));
        let output = command
            .args(["-c", "init.defaultBranch=main", "-C"])
            .arg(self.path(dir))
            .args(arguments)
            .output()
            .expect("git");
        assert!(
            output.status.success(),
            "git {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout)
            .expect("UTF-8")
            .trim()
            .to_owned()
    }

    fn commit(&self, dir: &str, file: &str, text: &str) {
        fs::write(self.path(dir).join(file), text).expect("written");
        self.git(dir, &["add", "-A"]);
        self.git(dir, &["commit", "-qm", file]);
    }

    /// A repository with a commit, to clone from; its URL.
    fn upstream(&self, name: &str) -> String {
        fs::create_dir(self.path(name)).expect("created");
        self.git(name, &["init", "-q"]);
        self.commit(name, "README", name);
        self.url(name)
    }

    fn url(&self, name: &str) -> String {
        format!("file://{}", self.path(name).display())
    }

    fn mark_new(&self) {
        fs::write(self.path("workspace/.new-task-marker"), "").expect("written");
    }

    fn has(&self, file: &str) -> bool {
        self.path("workspace").join(file).exists()
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path("workspace").join(file)).unwrap_or_default()
    }

    fn origin(&self) -> String {
        self.git("workspace", &["config", "--get-all", "remote.origin.url"])
    }
}

struct Start {
    code: Option<i32>,
    text: String,
}

impl Start {
    fn of(output: Output) -> Self {
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        Self {
            code: output.status.code(),
            text,
        }
    }

    fn ready(self) -> Self {
        assert_eq!(self.code, Some(0), "{}", self.text);
        assert!(self.text.contains(">> init complete\n"), "{}", self.text);
        self
    }

    fn failed(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}", self.text);
        assert!(!self.text.contains("init complete"), "{}", self.text);
        self
    }
}

#[test]
fn without_a_repository_only_the_surroundings_are_prepared() {
    let container = Container::new();
    container.start(&[]).ready();
    container.start(&[]).ready();
    let config = fs::read_to_string(container.path("home/.ssh/config")).expect("written");
    assert_eq!(
        config.matches("StrictHostKeyChecking accept-new").count(),
        1,
        "{config}"
    );
    let mode = |path: &str| {
        use std::os::unix::fs::PermissionsExt;
        fs::metadata(container.path(path))
            .expect("there")
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!(
        (mode("home/.ssh"), mode("home/.ssh/config")),
        (0o700, 0o600)
    );
    assert!(!container.has(".git"));
}

#[test]
fn permissions_are_given_before_anything_can_fail() {
    let container = Container::new();
    let variables = [("CODE_REPO", "file:///nowhere/at/all")];
    container.start(&variables).failed(128);
    assert!(!container.path("policy/managed-settings.json").exists());
    container
        .start(&[variables[0], ("TEROK_UNRESTRICTED", "1")])
        .failed(128);
    let policy =
        fs::read_to_string(container.path("policy/managed-settings.json")).expect("written");
    assert!(policy.contains("bypassPermissions"));
    container
        .start(&[
            ("TEROK_UNRESTRICTED", "1"),
            ("TEROK_CLAUDE_POLICY_DIR", "/nowhere/at/all"),
        ])
        .ready();
}

#[test]
fn a_new_task_clones_its_branch() {
    let container = Container::new();
    let url = container.upstream("up");
    container.git("up", &["checkout", "-qb", "work"]);
    container.commit("up", "file", "1");
    container.git("up", &["checkout", "-q", "main"]);
    container.mark_new();
    container
        .start(&[("CODE_REPO", &url), ("GIT_BRANCH", "work")])
        .ready();
    assert_eq!(container.read("file"), "1");
    assert_eq!(
        container.git("workspace", &["branch", "--show-current"]),
        "work"
    );
    assert!(!container.has(".new-task-marker"));
    let safe = fs::read_to_string(container.path("home/.gitconfig")).expect("written");
    assert!(safe.contains("workspace"), "{safe}");
}

#[test]
fn a_missing_branch_means_the_default_one() {
    for branch in ["gone", "-evil", "a..b"] {
        let container = Container::new();
        let url = container.upstream("up");
        let start = container
            .start(&[("CODE_REPO", &url), ("GIT_BRANCH", branch)])
            .ready();
        assert!(start.text.contains("warning"), "{}", start.text);
        assert_eq!(
            container.git("workspace", &["branch", "--show-current"]),
            "main"
        );
    }
}

#[test]
fn any_other_failure_of_a_clone_is_final() {
    let container = Container::new();
    container
        .start(&[("CODE_REPO", "file:///nowhere/at/all"), ("GIT_BRANCH", "x")])
        .failed(128);
    assert!(!container.has(".git"));
}

#[test]
fn files_without_a_repository_are_not_touched() {
    let container = Container::new();
    let url = container.upstream("up");
    fs::write(container.path("workspace/precious"), "1").expect("written");
    let start = container.start(&[("CODE_REPO", &url)]).failed(128);
    assert!(start.text.contains("precious"), "{}", start.text);
    assert_eq!(container.read("precious"), "1");
}

#[test]
fn a_clone_from_a_faster_source_points_at_the_real_one() {
    let container = Container::new();
    let real = container.upstream("real");
    container.git("real", &["checkout", "-qb", "work"]);
    container.git("real", &["checkout", "-q", "main"]);
    container.git(".", &["clone", "-q", "--bare", "real", "cache"]);
    container.git("real", &["checkout", "-q", "work"]);
    container.commit("real", "newer", "1");
    let variables = [
        ("CODE_REPO", real.as_str()),
        ("CLONE_FROM", &container.url("cache")),
        ("GIT_BRANCH", "work"),
    ];
    container.start(&variables).ready();
    assert_eq!(container.origin(), real);
    assert_eq!(
        container.read("newer"),
        "1",
        "origin had more than the cache"
    );

    // Origin out of reach: what the cache had is enough.
    let container = Container::new();
    container.upstream("cache");
    let start = container
        .start(&[
            ("CODE_REPO", "file:///nowhere/at/all"),
            ("CLONE_FROM", &container.url("cache")),
        ])
        .ready();
    assert!(
        start.text.contains("warning") && container.has("README"),
        "{}",
        start.text
    );
    assert_eq!(container.origin(), "file:///nowhere/at/all");
}

#[test]
fn a_workspace_from_the_cache_is_brought_up_to_date() {
    let container = Container::new();
    let url = container.upstream("up");
    container.git(".", &["clone", "-q", "up", "workspace"]);
    container.git("up", &["checkout", "-qb", "work"]);
    container.commit("up", "later", "1");
    fs::write(container.path("workspace/README"), "changed").expect("written");
    fs::write(container.path("workspace/litter"), "").expect("written");
    container.git("workspace", &["remote", "set-url", "origin", &url]);
    container.mark_new();
    container
        .start(&[("CODE_REPO", &url), ("GIT_BRANCH", "work")])
        .ready();
    assert_eq!(
        (
            container.read("later").as_str(),
            container.read("README").as_str()
        ),
        ("1", "up")
    );
    assert!(!container.has("litter") && !container.has(".new-task-marker"));
    assert_eq!(
        container.git("workspace", &["branch", "--show-current"]),
        "work"
    );
}

#[test]
fn a_cached_workspace_without_the_branch_keeps_its_own() {
    let container = Container::new();
    let url = container.upstream("up");
    container.git(".", &["clone", "-q", &url, "workspace"]);
    container.commit("up", "later", "1");
    container.mark_new();
    let start = container
        .start(&[("CODE_REPO", &url), ("GIT_BRANCH", "gone")])
        .ready();
    assert!(start.text.contains("no branch gone"), "{}", start.text);
    assert!(container.has("later") && !container.has(".new-task-marker"));
}

#[test]
fn a_beginning_that_failed_is_tried_again() {
    let container = Container::new();
    let url = container.upstream("up");
    container.git(".", &["clone", "-q", &url, "workspace"]);
    container.mark_new();
    fs::rename(container.path("up"), container.path("away")).expect("renamed");
    let start = container.start(&[("CODE_REPO", &url)]);
    assert!(start.code != Some(0), "{}", start.text);
    assert!(container.has(".new-task-marker"));
    fs::rename(container.path("away"), container.path("up")).expect("renamed");
    container.start(&[("CODE_REPO", &url)]).ready();
    assert!(!container.has(".new-task-marker"));
}

#[test]
fn a_workspace_with_another_repository_starts_over() {
    let container = Container::new();
    let url = container.upstream("up");
    container.upstream("other");
    container.git(".", &["clone", "-q", &container.url("other"), "workspace"]);
    fs::write(container.path("workspace/litter"), "").expect("written");
    container.mark_new();
    container.start(&[("CODE_REPO", &url)]).ready();
    assert_eq!(container.read("README"), "up");
    assert!(!container.has("litter"));

    // The cache counts as the same repository.
    let container = Container::new();
    let url = container.upstream("up");
    container.git(".", &["clone", "-q", &url, "cache"]);
    container.git(".", &["clone", "-q", &container.url("cache"), "workspace"]);
    container.mark_new();
    let start = container
        .start(&[("CODE_REPO", &url), ("CLONE_FROM", &container.url("cache"))])
        .ready();
    assert!(!start.text.contains("starting over"), "{}", start.text);
    assert_eq!(container.origin(), url);
}

#[test]
fn a_restart_keeps_local_work() {
    let container = Container::new();
    let url = container.upstream("up");
    let variables = [("CODE_REPO", url.as_str()), ("GIT_BRANCH", "main")];
    container.start(&variables).ready();
    container.commit("workspace", "mine", "1");
    fs::write(container.path("workspace/dirty"), "1").expect("written");
    container.commit("up", "theirs", "1");
    container.start(&variables).ready();
    assert!(container.has("mine") && container.has("dirty") && !container.has("theirs"));
    assert!(
        !container
            .git("workspace", &["log", "--format=%s", "HEAD..origin/main"])
            .is_empty(),
        "fetched"
    );

    container
        .start(&[variables[0], variables[1], ("GIT_RESET_MODE", "soft")])
        .ready();
    assert!(container.has("mine") && container.has("dirty"));
    assert_eq!(
        container.git("workspace", &["rev-parse", "HEAD"]),
        container.git("up", &["rev-parse", "HEAD"])
    );
    container
        .start(&[variables[0], variables[1], ("GIT_RESET_MODE", "hard")])
        .ready();
    assert!(!container.has("mine") && container.has("theirs"));

    let start = container
        .start(&[
            variables[0],
            ("GIT_BRANCH", "gone"),
            ("GIT_RESET_MODE", "hard"),
        ])
        .ready();
    assert!(start.text.contains("no reset"), "{}", start.text);
    container
        .start(&[variables[0], ("GIT_RESET_MODE", "nonsense")])
        .ready();
}

#[test]
fn a_restart_without_network_is_ready() {
    let container = Container::new();
    let url = container.upstream("up");
    let variables = [
        ("CODE_REPO", url.as_str()),
        ("EXTERNAL_REMOTE_URL", "file:///nowhere/at/all"),
    ];
    container.start(&variables).ready();
    fs::rename(container.path("up"), container.path("away")).expect("renamed");
    let start = container.start(&variables).ready();
    assert!(start.text.contains("offline"), "{}", start.text);
    assert!(container.has("README"));
}

#[test]
fn a_changed_address_is_taken_over() {
    let container = Container::new();
    container.upstream("up");
    let (old, new) = (
        container.url("up"),
        format!("file://{}/./up", container.dir.path().display()),
    );
    container.start(&[("CODE_REPO", &old)]).ready();
    container.git(
        "workspace",
        &["config", "remote.origin.pushurl", "file:///stale"],
    );
    container.start(&[("CODE_REPO", &new)]).ready();
    assert_eq!(container.origin(), new);
    assert_eq!(
        container.git("workspace", &["remote", "get-url", "--push", "origin"]),
        new
    );
}

#[test]
fn the_other_remotes_are_set_and_replaced() {
    let container = Container::new();
    let url = container.upstream("up");
    let external = container.upstream("external");
    let remote = |name: &str| container.git("workspace", &["remote", "get-url", name]);
    let start = container
        .start(&[
            ("CODE_REPO", &url),
            ("EXTERNAL_REMOTE_URL", &external),
            ("GATE_REMOTE_URL", "http://localhost:9418/a.git"),
        ])
        .ready();
    assert!(
        start.text.contains("note: upstream has commits"),
        "{}",
        start.text
    );
    assert_eq!(
        (remote("external"), remote("gate")),
        (external, "http://localhost:9418/a.git".to_owned())
    );
    let start = container
        .start(&[
            ("CODE_REPO", &url),
            ("EXTERNAL_REMOTE_URL", &url),
            ("GATE_REMOTE_URL", "http://localhost:9418/b.git"),
        ])
        .ready();
    assert!(!start.text.contains("note:"), "{}", start.text);
    assert_eq!(
        (remote("external"), remote("gate")),
        (url.clone(), "http://localhost:9418/b.git".to_owned())
    );
}

#[test]
fn tokens_in_addresses_do_not_reach_the_log() {
    let container = Container::new();
    // Nobody listens on the discard port.
    let secret = "http://user:s3cr3t@127.0.0.1:9/x.git";
    let start = container.start(&[
        ("CODE_REPO", secret),
        ("CLONE_FROM", "http://t0ken@127.0.0.1:9/y.git"),
    ]);
    assert!(start.code != Some(0));
    assert!(start.text.contains("***@127.0.0.1:9"), "{}", start.text);
    let url = container.upstream("up");
    container.start(&[("CODE_REPO", &url)]).ready();
    let again = container
        .start(&[
            ("CODE_REPO", secret),
            ("EXTERNAL_REMOTE_URL", secret),
            ("GATE_REMOTE_URL", secret),
        ])
        .ready();
    for text in [&start.text, &again.text] {
        assert!(
            !text.contains("s3cr3t") && !text.contains("t0ken"),
            "{text}"
        );
    }
}

#[test]
fn a_workspace_must_be_below_the_root() {
    let container = Container::new();
    for root in ["/", "relative"] {
        container
            .start(&[("REPO_ROOT", root), ("CODE_REPO", "file:///x")])
            .failed(1);
    }
}

#[test]
fn wrappers_use_the_policy_of_the_project() {
    let container = Container::new();
    let environment = scripts().join("terok-env.sh");
    fs::write(
        container.path("bin/gh"),
        "#!/bin/sh\necho \"$GIT_AUTHOR_NAME $GIT_COMMITTER_EMAIL\"\n",
    )
    .expect("written");
    Command::new("chmod")
        .arg("+x")
        .arg(container.path("bin/gh"))
        .status()
        .expect("chmod");
    for shell in ["bash", "sh"] {
        let run = |policy: &str, script: &str| {
            let mut command = container.command(Path::new(shell));
            command
                .env("HUMAN_GIT_NAME", "Human")
                .env("HUMAN_GIT_EMAIL", "h@x")
                .env("TEROK_GIT_AUTHORSHIP", policy);
            command
                .arg("-euc")
                .arg(format!(". {0}; . {0}; {script}", environment.display()));
            let output = command.output().expect("a shell");
            assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
            String::from_utf8(output.stdout)
                .expect("UTF-8")
                .trim()
                .to_owned()
        };
        let identity = "(_terok_git_identity Bot b@x; echo \"$GIT_AUTHOR_NAME $GIT_COMMITTER_NAME\"); echo \"$GIT_AUTHOR_NAME\"";
        assert_eq!(
            run("agent-human", identity),
            "Bot Human\na",
            "only in the subshell"
        );
        assert_eq!(run("human-agent", identity), "Human Bot\na");
        assert_eq!(run("agent", identity), "Bot Bot\na");
        assert_eq!(run("human", identity), "Human Human\na");
        assert_eq!(run("agent", "gh pr"), "Human h@x");
        let paths = run("agent", "echo \"$PATH\"");
        assert_eq!(paths.matches(".npm-packages/bin").count(), 1, "{paths}");
    }
}

/// Tells that a test did not run; fails where everything is required.
fn skip(reason: &str) {
    let line = format!(
        "SKIPPED {}: {reason}",
        std::thread::current().name().unwrap_or("test")
    );
    eprintln!("{line}");
    if let Some(list) = std::env::var_os("TEROKD_SKIPPED_FILE") {
        let list = fs::OpenOptions::new().append(true).create(true).open(list);
        let _ = list.and_then(|mut file| writeln!(file, "{line}"));
    }
    assert!(
        std::env::var_os("TEROKD_REQUIRE_ALL").is_none_or(|v| v != "1"),
        "{line}, and everything is required"
    );
}

#[test]
fn bridges_start_once_and_come_back() {
    if Command::new("socat").arg("-V").output().is_err() {
        skip("there is no socat");
        return;
    }
    let container = Container::new();
    fs::create_dir(container.path("run")).expect("created");
    std::os::unix::fs::symlink(
        scripts().join("ssh-agent-bridge.sh"),
        container.path("bin/ssh-agent-bridge.sh"),
    )
    .expect("linked");
    // The host's end of the agent: takes the greeting and one message, answers, hangs up.
    let host =
        std::os::unix::net::UnixListener::bind(container.path("run/ssh.sock")).expect("bound");
    let ensure = || {
        let mut command = container.command(&scripts().join("ensure-bridges.sh"));
        command
            .env("TEROK_BRIDGE_STATE", container.path("state"))
            .env("TEROK_RUN_DIR", container.path("run"))
            .env("TEROK_SSH_SIGNER_TOKEN", "t0k")
            .env("TEROK_SSH_SIGNER_SOCKET", container.path("run/ssh.sock"));
        let output = command.output().expect("sh");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let pid = fs::read_to_string(container.path("state/ssh-agent.pid")).expect("written");
        pid.trim().parse::<i32>().expect("a number")
    };
    let kill = |pid: i32| {
        Command::new("kill")
            .arg(pid.to_string())
            .status()
            .expect("kill");
        while fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|stat| !stat.contains(") Z "))
        {
            std::thread::yield_now();
        }
    };
    let first = ensure();
    assert_eq!(ensure(), first);
    let served = std::thread::spawn(move || {
        use std::io::Read;
        let (mut stream, _) = host.accept().expect("a client");
        let mut heard = [0; 11];
        stream.read_exact(&mut heard).expect("greeting and message");
        stream.write_all(b"pong").expect("answered");
        heard
    });
    {
        use std::io::Read;
        let mut client = std::os::unix::net::UnixStream::connect(container.path("agent.sock"))
            .expect("the bridge listens");
        client.write_all(b"ping").expect("sent");
        let mut answer = Vec::new();
        // Ends because the host hung up, though this side is still open.
        client.read_to_end(&mut answer).expect("answered");
        assert_eq!(answer, b"pong");
    }
    assert_eq!(&served.join().expect("served"), b"\0\0\0\x03t0kping");
    kill(first);
    let second = ensure();
    assert_ne!(
        second, first,
        "the socket that was left behind proved nothing"
    );
    kill(second);
}
