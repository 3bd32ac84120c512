//! Children: `git` in a repository, with nobody's configuration and a minimal environment.

use crate::repository::Repository;
use crate::route::Service;
use crate::tokens::Grant;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;
use tokio::process::Child;

/// How long a child that was asked to end may take: it removes its lock files meanwhile.
const GRACE: Duration = Duration::from_millis(800);

/// Refs that only the host sees.
pub(crate) const HIDDEN: &str = "refs/terok";

/// Starts git.
#[derive(Debug)]
pub(crate) struct Git {
    path: OsString,
    config: Vec<(&'static str, OsString)>,
}

impl Git {
    /// With that search path, and hooks from that directory only.
    pub(crate) fn new(path: OsString, hooks: &Path) -> Self {
        let mut config = vec![("core.hooksPath", hooks.as_os_str().to_owned())];
        // Later values win, so a repository cannot say otherwise.
        for (key, value) in [
            ("safe.directory", "*"),
            ("transfer.hideRefs", HIDDEN),
            // What stands there in place of other objects would deceive whoever looks into the gate.
            ("transfer.hideRefs", "refs/replace"),
            ("core.logAllRefUpdates", "always"),
            ("gc.auto", "0"),
            ("maintenance.auto", "false"),
            ("receive.autoGC", "false"),
            ("receive.fsckObjects", "true"),
            ("receive.denyNonFastForwards", "false"),
            ("receive.denyDeletes", "false"),
            ("receive.denyDeleteCurrent", "refuse"),
            ("receive.advertisePushOptions", "false"),
            ("uploadpack.allowFilter", "true"),
            // What protocol 2 does anyway: a blob-less clone comes back for its blobs.
            ("uploadpack.allowAnySHA1InWant", "true"),
        ] {
            config.push((key, value.into()));
        }
        Self { path, config }
    }

    /// Starts the first half of a conversation: what refs there are.
    pub(crate) fn advertise(
        &self,
        service: Service,
        repository: &Repository,
        protocol: Option<&str>,
    ) -> io::Result<Group> {
        // The name of this option that git 2.31 knows, too.
        let arguments = [
            service.command(),
            "--stateless-rpc",
            "--advertise-refs",
            ".",
        ];
        let mut command = self.command(&arguments, repository)?;
        set_protocol(&mut command, protocol);
        command.stdin(Stdio::null());
        Group::start(command)
    }

    /// Starts the second half: one request, one answer.
    pub(crate) fn serve(
        &self,
        service: Service,
        repository: &Repository,
        protocol: Option<&str>,
        grant: &Grant,
        report: Option<&Path>,
    ) -> io::Result<Group> {
        let arguments = [service.command(), "--stateless-rpc", "."];
        let mut command = self.command(&arguments, repository)?;
        set_protocol(&mut command, protocol);
        if let Some(report) = report {
            let who: String = format!("{}/{}", grant.scope, grant.task_id)
                .chars()
                .filter(|c| !c.is_control())
                .collect();
            command
                .env("GIT_COMMITTER_NAME", who)
                .env("GIT_COMMITTER_EMAIL", "task@terok.invalid")
                .env("TEROKD_GATE_TOKEN_ID", grant.id())
                .env("TEROKD_HOOK_REPORT", report);
        }
        command.stdin(Stdio::piped());
        Group::start(command)
    }

    /// Starts the listing that clients get who do not speak the protocol.
    pub(crate) fn list(&self, repository: &Repository) -> io::Result<Group> {
        let format = "--format=%(objectname)%09%(refname)%(if)%(*objectname)%(then)%0a%(*objectname)%09%(refname)^{}%(end)";
        let arguments = [
            "--git-dir=.",
            "for-each-ref",
            format,
            "refs/heads/",
            "refs/tags/",
        ];
        let mut command = self.command(&arguments, repository)?;
        command.stdin(Stdio::null());
        Group::start(command)
    }

    fn command(&self, arguments: &[&str], repository: &Repository) -> io::Result<Command> {
        let mut command = Command::new(find("git", &self.path)?);
        command
            .args(arguments)
            .env_clear()
            .env("PATH", &self.path)
            .env("HOME", "/nonexistent")
            .env("XDG_CONFIG_HOME", "/nonexistent")
            .env("LC_ALL", "C")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_NO_LAZY_FETCH", "1")
            // For the hooks too: what is lost is judged by what is there.
            .env("GIT_NO_REPLACE_OBJECTS", "1")
            .env("GIT_CONFIG_COUNT", self.config.len().to_string());
        for (index, (key, value)) in self.config.iter().enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{index}"), key);
            command.env(format!("GIT_CONFIG_VALUE_{index}"), value);
        }
        command
            .current_dir(repository.working_dir())
            .process_group(0)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Ok(command)
    }
}

fn set_protocol(command: &mut Command, protocol: Option<&str>) {
    if let Some(protocol) = protocol {
        command.env("GIT_PROTOCOL", protocol);
    }
}

/// The program of that name on the search path.
fn find(program: &str, path: &OsStr) -> io::Result<PathBuf> {
    std::env::split_paths(path)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(program))
        .find(|file| {
            file.metadata()
                .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
        })
        .ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                format!("there is no `{program}` on PATH"),
            )
        })
}

/// A value of the header `Git-Protocol` that may become part of an environment.
pub(crate) fn valid_protocol(value: &str) -> bool {
    value.len() <= 256
        && value
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"=:._-".contains(&byte))
}

/// Whether a child that gets this value will speak version 2.
pub(crate) fn speaks_v2(protocol: Option<&str>) -> bool {
    protocol
        .into_iter()
        .flat_map(|value| value.split(':'))
        .any(|pair| pair == "version=2")
}

/// A child and everything it started.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) child: Child,
}

impl Group {
    fn start(command: Command) -> io::Result<Self> {
        let mut command = tokio::process::Command::from(command);
        command.kill_on_drop(true);
        Ok(Self {
            child: command.spawn()?,
        })
    }

    /// Waits for the end.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Asks the whole group to end, and makes it end.
    pub(crate) async fn end(&mut self) {
        self.signal(Signal::SIGTERM);
        if tokio::time::timeout(GRACE, self.child.wait())
            .await
            .is_err()
        {
            self.signal(Signal::SIGKILL);
            if let Err(error) = self.child.wait().await {
                tracing::warn!(%error, "cannot wait for git");
            }
        }
    }

    fn signal(&self, signal: Signal) {
        // No id: it was waited for, and the number may belong to somebody else.
        if let Some(group) = self.child.id().and_then(|id| i32::try_from(id).ok()) {
            let _ = killpg(Pid::from_raw(group), signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_protocol_header_is_checked() {
        for good in ["version=2", "version=1", "version=2:key=a.b-c_d", ""] {
            assert!(valid_protocol(good), "{good}");
        }
        for bad in ["version=2\n", "a b", "$(x)", "é", &"a".repeat(257)] {
            assert!(!valid_protocol(bad), "{bad}");
        }
        assert!(speaks_v2(Some("a=b:version=2")));
        assert!(!speaks_v2(Some("version=20")));
        assert!(!speaks_v2(None));
    }
}
