//! A gate base with repositories, a server in front of it, and clients.

use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use terok_gate_server::{Config, GateServer, Handed, Limits, Listen, PushEvent, Token, Tokens};
use tokio::sync::mpsc;

/// Guards against hanging; nothing waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct World {
    pub(crate) root: tempfile::TempDir,
    pub(crate) server: GateServer,
    pub(crate) tokens: Tokens,
    pub(crate) pushes: mpsc::Receiver<PushEvent>,
}

pub(crate) async fn pool(root: &Path) -> SqlitePool {
    let file = root.join("state.db");
    let fresh = !file.exists();
    let options = SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(true);
    let pool = SqlitePoolOptions::new()
        .max_connections(1)
        .connect_with(options)
        .await
        .unwrap();
    if fresh {
        sqlx::raw_sql(include_str!("../../../src/store/0003_gate_tokens.sql"))
            .execute(&pool)
            .await
            .unwrap();
    }
    pool
}

/// A program that runs this test binary's hook.
fn hook_program(root: &Path) -> PathBuf {
    let script = root.join("it's terokd");
    let exe = std::env::current_exe().unwrap();
    let text = format!(
        "#!/bin/sh\ntest \"$1\" = gate-hook || exit 9\ntest -e \"$0.${{2:-post-receive}}.missing\" && exit 0\nexport TEST_HOOK=\"$2\" TEST_HOLD=\"$0.$2.hold\"\nexec '{}' hook_child --exact --ignored --nocapture >/dev/null\n",
        exe.display()
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    script
}

pub(crate) fn config(root: &Path, listen: Listen, limits: Limits) -> Config {
    Config {
        base: root.join("gate"),
        runtime_dir: root.join("rt"),
        path: std::env::var_os("PATH").unwrap(),
        hook_program: hook_program(root),
        listen,
        handed: Handed::default(),
        limits,
    }
}

pub(crate) fn tcp() -> Listen {
    Listen::Tcp {
        port: None,
        previous: None,
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(Limits::default()).await
    }

    pub(crate) async fn with(limits: Limits) -> Self {
        Self::listening(tcp(), limits).await
    }

    pub(crate) async fn listening(listen: Listen, limits: Limits) -> Self {
        let root = tempfile::tempdir().unwrap();
        let tokens = Tokens::open(pool(root.path()).await).await.unwrap();
        let config = config(root.path(), listen, limits);
        let (server, pushes) = GateServer::start(config, tokens.clone()).await.unwrap();
        let world = Self {
            root,
            server,
            tokens,
            pushes,
        };
        world.gate("alpha").await;
        world
    }

    /// Makes a gate with one commit on `main`.
    pub(crate) async fn gate(&self, name: &str) -> PathBuf {
        let gate = self.gate_path(name);
        let seed = self.root.path().join(format!("seed-{name}"));
        let seed = seed.to_str().unwrap();
        self.git(self.root.path(), &["init", "-q", "-b", "main", seed])
            .await;
        self.git(
            Path::new(seed),
            &["commit", "-q", "--allow-empty", "-m", "first"],
        )
        .await;
        std::fs::write(format!("{seed}/README"), name).unwrap();
        self.git(Path::new(seed), &["add", "."]).await;
        self.git(Path::new(seed), &["commit", "-q", "-m", "second"])
            .await;
        let gate_text = gate.to_str().unwrap();
        self.git(
            self.root.path(),
            &["clone", "-q", "--bare", seed, gate_text],
        )
        .await;
        gate
    }

    pub(crate) fn gate_path(&self, name: &str) -> PathBuf {
        let base = self.root.path().canonicalize().unwrap().join("gate");
        base.join(format!("{name}.git"))
    }

    pub(crate) async fn token(&self, project: &str, task: &str) -> Token {
        let gate = self.gate_path(project);
        self.tokens.mint(project, task, &gate).await.unwrap()
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.server.port().unwrap())
    }

    pub(crate) fn url(&self, token: &Token, name: &str) -> String {
        format!("http://{}@{}/{name}.git", token.expose(), self.address())
    }

    /// Runs git and expects success.
    pub(crate) async fn git(&self, dir: &Path, arguments: &[&str]) -> String {
        let output = self.try_git(dir, arguments).await;
        assert!(
            output.status.success(),
            "git {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    pub(crate) async fn try_git(&self, dir: &Path, arguments: &[&str]) -> Output {
        let mut command = client(self.root.path());
        command.current_dir(dir).args(arguments);
        run(command).await
    }

    /// Waits until no request is under way: a client has its answer a moment before the server is done with it.
    pub(crate) async fn idle(&self) {
        let idle = async {
            while self.server.status().active_requests > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, idle)
            .await
            .expect("requests do not end");
    }

    /// The command lines of what runs inside `alpha`'s gate.
    pub(crate) fn children(&self) -> Vec<String> {
        let gate = self.gate_path("alpha");
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let cwd = std::fs::read_link(entry.path().join("cwd"));
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            // A zombie has no directory and no words: it is gone but for its parent.
            if cwd.is_ok_and(|cwd| cwd.starts_with(&gate)) {
                found.push(String::from_utf8_lossy(&line).replace('\0', " "));
            }
        }
        found
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }
}

/// Git as a container would run it, with nobody's configuration.
pub(crate) fn client(home: &Path) -> Command {
    let mut command = Command::new("git");
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", home)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_AUTHOR_NAME", "Agent")
        .env("GIT_AUTHOR_EMAIL", "agent@example.com")
        .env("GIT_COMMITTER_NAME", "Agent")
        .env("GIT_COMMITTER_EMAIL", "agent@example.com")
        .stdin(Stdio::null());
    command
}

pub(crate) async fn run(command: Command) -> Output {
    let mut command = tokio::process::Command::from(command);
    command.kill_on_drop(true);
    tokio::time::timeout(PATIENCE, command.output())
        .await
        .expect("git does not come back")
        .unwrap()
}
