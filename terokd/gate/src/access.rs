//! With which credentials an upstream is reached, and what the children that reach it may see.
//!
//! No child ever asks a human something that nobody sees, and none inherits what the daemon was started with beyond
//! what git and ssh need.

use crate::{GateUrl, TransportError};
use gix::bstr::ByteSlice;
use gix::config::{File, Source};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How the caller may authenticate towards an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Paths, `git://`, and HTTP with the user's credential helpers.
    Plain,
    /// SSH with the keys of one scope of the vault and host keys of our own.
    VaultAgent {
        /// The agent's socket.
        socket: PathBuf,
        /// Pinned host keys; made if missing.
        known_hosts: PathBuf,
        /// Unknown hosts are refused instead of pinned.
        strict_host_keys: bool,
    },
    /// SSH as the user does it.
    Personal {
        /// The user's agent, if there is one.
        auth_sock: Option<PathBuf>,
        /// Nobody is there to answer a question.
        batch: bool,
    },
}

/// An upstream and how to get in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Where.
    pub url: GateUrl,
    /// How.
    pub access: Access,
}

/// The environment that children start from: the daemon's own, or one that a test made.
#[derive(Clone, Debug, Default)]
pub struct HostEnv {
    vars: BTreeMap<OsString, OsString>,
}

/// Variables of git that say where things are installed or whom to trust. All others of its name choose repositories,
/// objects or programs, which is not for our environment to do.
const GIT_KEPT: &[&str] = &[
    "GIT_CONFIG_GLOBAL",
    "GIT_CONFIG_NOSYSTEM",
    "GIT_CONFIG_SYSTEM",
    "GIT_EXEC_PATH",
    "GIT_PROXY_SSL_CAINFO",
    "GIT_SSL_CAINFO",
    "GIT_SSL_CAPATH",
    "GIT_SSL_NO_VERIFY",
];

impl HostEnv {
    /// The environment of this process.
    pub fn from_process() -> Self {
        Self::new(std::env::vars_os())
    }

    /// An environment of exactly these variables.
    pub fn new(vars: impl IntoIterator<Item = (impl Into<OsString>, impl Into<OsString>)>) -> Self {
        Self {
            vars: vars
                .into_iter()
                .map(|(key, value)| (key.into(), value.into()))
                .collect(),
        }
    }

    /// A variable, if it is set and not empty.
    pub fn get(&self, key: &str) -> Option<&OsStr> {
        self.vars
            .get(OsStr::new(key))
            .map(OsString::as_os_str)
            .filter(|value| !value.is_empty())
    }

    /// Where on `PATH` a program is.
    pub fn find_program(&self, name: &str) -> Option<PathBuf> {
        std::env::split_paths(self.get("PATH")?)
            .filter(|dir| dir.is_absolute())
            .map(|dir| dir.join(name))
            .find(|path| {
                path.metadata()
                    .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
            })
    }

    /// The git program with an environment that fits `upstream`, in a process group of its own.
    pub(crate) fn git(&self, upstream: &Upstream) -> Result<Command, TransportError> {
        let mut command = self.command("git", upstream)?;
        if upstream.url.is_ssh()
            && let Some(line) = ssh_command_line(self, &upstream.access)
        {
            command.env("GIT_SSH_COMMAND", line);
            if matches!(upstream.access, Access::VaultAgent { .. }) {
                command.env("GIT_SSH_VARIANT", "ssh");
            }
        }
        Ok(command)
    }

    /// A program with an environment that fits `upstream`, in a process group of its own.
    pub(crate) fn command(
        &self,
        name: &str,
        upstream: &Upstream,
    ) -> Result<Command, TransportError> {
        let program = self
            .find_program(name)
            .ok_or_else(|| TransportError::GitMissing(name.to_owned()))?;
        let mut command = Command::new(program);
        command.env_clear().process_group(0).current_dir("/");
        let asks = matches!(upstream.access, Access::Personal { batch: false, .. });
        for (key, value) in &self.vars {
            if inherited(&key.to_string_lossy(), asks) {
                command.env(key, value);
            }
        }
        command
            .env("LC_ALL", "C")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ASKPASS", "")
            .env("GIT_NO_REPLACE_OBJECTS", "1")
            .env("GCM_INTERACTIVE", "never")
            .env("GIT_ALLOW_PROTOCOL", upstream.url.protocols());
        if !asks {
            command
                .env("SSH_ASKPASS", "")
                .env("SSH_ASKPASS_REQUIRE", "never");
        }
        match &upstream.access {
            Access::VaultAgent { socket, .. } => {
                command.env("SSH_AUTH_SOCK", socket);
            }
            Access::Personal {
                auth_sock: Some(socket),
                ..
            } => {
                command.env("SSH_AUTH_SOCK", socket);
            }
            Access::Personal {
                auth_sock: None, ..
            }
            | Access::Plain => {}
        }
        Ok(command)
    }
}

/// Whether a child gets a variable of the daemon's.
fn inherited(key: &str, asks: bool) -> bool {
    if key.starts_with("GIT_") {
        return GIT_KEPT.contains(&key);
    }
    let of_the_daemon = ["TEROK", "LISTEN_", "NOTIFY_", "WATCHDOG_", "LC_", "GCM_"]
        .iter()
        .any(|prefix| key.starts_with(prefix));
    let for_questions = [
        "SSH_ASKPASS",
        "SSH_ASKPASS_REQUIRE",
        "DISPLAY",
        "WAYLAND_DISPLAY",
    ]
    .contains(&key);
    !of_the_daemon
        && !["SSH_AUTH_SOCK", "LANGUAGE", "PWD", "OLDPWD"].contains(&key)
        && (asks || !for_questions)
}

/// The arguments of ssh before the host; none where the user's own setup decides.
pub(crate) fn ssh_arguments(access: &Access) -> Option<Vec<OsString>> {
    let Access::VaultAgent {
        socket,
        known_hosts,
        strict_host_keys,
    } = access
    else {
        return None;
    };
    let mut arguments: Vec<OsString> = vec!["-F".into(), "/dev/null".into()];
    let mut option = |text: OsString| arguments.extend(["-o".into(), text]);
    option(with_path("IdentityAgent=", socket));
    option("IdentityFile=none".into());
    option("BatchMode=yes".into());
    option(if *strict_host_keys {
        "StrictHostKeyChecking=yes".into()
    } else {
        "StrictHostKeyChecking=accept-new".into()
    });
    option(with_path("UserKnownHostsFile=", known_hosts));
    for rest in [
        "IdentitiesOnly=no",
        "GlobalKnownHostsFile=/dev/null",
        "ForwardAgent=no",
        "ConnectTimeout=15",
        "ServerAliveInterval=15",
        "ServerAliveCountMax=3",
        "PasswordAuthentication=no",
        "KbdInteractiveAuthentication=no",
    ] {
        option(rest.into());
    }
    Some(arguments)
}

/// A path as ssh's option parser wants it: it splits at blanks, knows quotes, and expands `%` and `${…}`.
fn with_path(option: &str, path: &Path) -> OsString {
    let text = path.to_string_lossy().replace('%', "%%");
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@%".contains(c);
    let mut out = OsString::from(option);
    if text.chars().all(plain) {
        out.push(text);
    } else {
        let text = text.replace('\\', "\\\\").replace('"', "\\\"");
        out.push(format!("\"{text}\""));
    }
    out
}

/// The command line for git's own use of ssh; none if git finds it by itself.
pub(crate) fn ssh_command_line(env: &HostEnv, access: &Access) -> Option<OsString> {
    if let Some(arguments) = ssh_arguments(access) {
        let mut line = OsString::from("ssh");
        for argument in arguments {
            line.push(" ");
            line.push(shell_quoted(&argument.to_string_lossy()));
        }
        return Some(line);
    }
    let own = personal_ssh(env);
    if is_batch(access) {
        let line = own.unwrap_or_else(|| "ssh".to_owned());
        return Some(format!("{line} -o BatchMode=yes").into());
    }
    own.map(OsString::from)
}

/// Whether ssh may ask nobody although it is the user's own.
pub(crate) fn is_batch(access: &Access) -> bool {
    matches!(access, Access::Personal { batch: true, .. })
}

/// The command line that the user has told git to use for ssh.
pub(crate) fn personal_ssh(env: &HostEnv) -> Option<String> {
    if let Some(line) = env.get("GIT_SSH_COMMAND") {
        return line.to_str().map(str::to_owned);
    }
    user_git_config(env)
        .iter()
        .rev()
        .find_map(|file| file.string("core.sshCommand"))
        .map(|line| line.to_str_lossy().into_owned())
}

/// git's configuration files of the host, in the order in which they override each other. Ones that cannot be read or
/// parsed are left out: git itself says so to whoever runs it.
pub(crate) fn user_git_config(env: &HostEnv) -> Vec<File> {
    let mut paths = Vec::new();
    if env.get("GIT_CONFIG_NOSYSTEM").is_none() {
        let system = env
            .get("GIT_CONFIG_SYSTEM")
            .map_or_else(|| PathBuf::from("/etc/gitconfig"), PathBuf::from);
        paths.push((system, Source::System));
    }
    if let Some(global) = env.get("GIT_CONFIG_GLOBAL") {
        paths.push((global.into(), Source::User));
    } else {
        let home = env.get("HOME").map(PathBuf::from);
        let config = env
            .get("XDG_CONFIG_HOME")
            .map(PathBuf::from)
            .or_else(|| Some(home.as_ref()?.join(".config")));
        paths.extend(config.map(|dir| (dir.join("git/config"), Source::Git)));
        paths.extend(home.map(|dir| (dir.join(".gitconfig"), Source::User)));
    }
    paths
        .into_iter()
        .filter_map(|(path, source)| File::from_path_no_includes(path, source).ok())
        .collect()
}

/// Text as one word of a shell.
pub(crate) fn shell_quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@%=".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

/// Makes the file with the pinned host keys, readable by its owner only.
pub(crate) fn ensure_known_hosts(path: &Path) -> Result<(), TransportError> {
    std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .map(drop)
        .map_err(|error| TransportError::storage(&format!("{}: {error}", path.display())))
}

/// The user's agent: the one that the calling client named, else the service manager's, else one in a usual place.
pub fn personal_agent_socket(env: &HostEnv, client: Option<&Path>) -> Option<PathBuf> {
    let found = |path: PathBuf, source: &str| {
        tracing::debug!(path = %path.display(), source, "personal ssh agent");
        Some(path)
    };
    if let Some(path) = client {
        return found(path.to_owned(), "client");
    }
    if let Some(path) = env.get("SSH_AUTH_SOCK") {
        return found(path.into(), "environment");
    }
    let runtime = Path::new(env.get("XDG_RUNTIME_DIR")?);
    [
        "ssh-agent.socket",
        "keyring/ssh",
        "gcr/ssh",
        "gnupg/S.gpg-agent.ssh",
    ]
    .iter()
    .map(|name| runtime.join(name))
    .find(|path| is_live_socket(path))
    .and_then(|path| found(path, "runtime directory"))
}

fn is_live_socket(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|meta| meta.file_type().is_socket())
        && std::os::unix::net::UnixStream::connect(path).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vault(socket: &str) -> Access {
        Access::VaultAgent {
            socket: socket.into(),
            known_hosts: "/srv/gate/.known_hosts".into(),
            strict_host_keys: false,
        }
    }

    fn personal(batch: bool) -> Access {
        Access::Personal {
            auth_sock: None,
            batch,
        }
    }

    #[test]
    fn the_pinned_command() {
        assert_eq!(
            ssh_command_line(&HostEnv::default(), &vault("/run/t/agent.sock")).unwrap(),
            "ssh -F /dev/null -o IdentityAgent=/run/t/agent.sock -o IdentityFile=none -o BatchMode=yes \
             -o StrictHostKeyChecking=accept-new -o UserKnownHostsFile=/srv/gate/.known_hosts -o IdentitiesOnly=no \
             -o GlobalKnownHostsFile=/dev/null -o ForwardAgent=no -o ConnectTimeout=15 -o ServerAliveInterval=15 \
             -o ServerAliveCountMax=3 -o PasswordAuthentication=no -o KbdInteractiveAuthentication=no"
        );
        assert_eq!(
            ssh_command_line(&HostEnv::default(), &personal(false)),
            None
        );
        assert_eq!(
            ssh_command_line(&HostEnv::default(), &personal(true)).unwrap(),
            "ssh -o BatchMode=yes"
        );
        let env = HostEnv::new([("GIT_SSH_COMMAND", "my ssh")]);
        assert_eq!(ssh_command_line(&env, &personal(false)).unwrap(), "my ssh");
    }

    /// What a shell and then ssh make of the options is asked of the programs themselves.
    #[test]
    fn odd_paths_survive_shell_and_ssh() {
        let socket = "/tmp/it's a \"100%\" $HOME;x\\y.sock";
        let mut line = ssh_command_line(&HostEnv::default(), &vault(socket)).unwrap();
        line.push(" -G example.com");
        let output = Command::new("sh").arg("-c").arg(line).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let agent = text
            .lines()
            .find_map(|line| line.strip_prefix("identityagent "))
            .unwrap_or_else(|| panic!("{text} {}", String::from_utf8_lossy(&output.stderr)));
        assert_eq!(agent.replace("%%", "%"), socket);
    }

    #[test]
    fn children_see_little() {
        let env = HostEnv::new([
            ("PATH", "/usr/bin:/bin"),
            ("HOME", "/home/u"),
            ("GIT_DIR", "/elsewhere"),
            ("GIT_ASKPASS", "/bin/ask"),
            ("GIT_SSL_CAINFO", "/ca"),
            ("SSH_ASKPASS", "/bin/ask"),
            ("SSH_AUTH_SOCK", "/mine"),
            ("TEROK_GATE_ADMIN_TOKEN", "x"),
            ("NOTIFY_SOCKET", "x"),
            ("LC_MESSAGES", "de_DE"),
        ]);
        let upstream = Upstream {
            url: GateUrl::parse("https://h/x").unwrap(),
            access: Access::Plain,
        };
        let command = env.git(&upstream).unwrap();
        let vars: Vec<(String, String)> = command
            .get_envs()
            .filter_map(|(k, v)| Some((k.to_str()?.to_owned(), v?.to_str()?.to_owned())))
            .collect();
        let vars: Vec<(&str, &str)> = vars.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(
            vars,
            [
                ("GCM_INTERACTIVE", "never"),
                ("GIT_ALLOW_PROTOCOL", "https"),
                ("GIT_ASKPASS", ""),
                ("GIT_NO_REPLACE_OBJECTS", "1"),
                ("GIT_SSL_CAINFO", "/ca"),
                ("GIT_TERMINAL_PROMPT", "0"),
                ("HOME", "/home/u"),
                ("LC_ALL", "C"),
                ("PATH", "/usr/bin:/bin"),
                ("SSH_ASKPASS", ""),
                ("SSH_ASKPASS_REQUIRE", "never"),
            ]
        );
        let nothing = HostEnv::new([("PATH", "/nonexistent")]);
        assert_eq!(
            nothing.git(&upstream).unwrap_err(),
            TransportError::GitMissing("git".into())
        );
    }

    #[test]
    fn the_agent_of_the_client_comes_first() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("ssh-agent.socket");
        let runtime = dir.path().to_str().unwrap();
        let env = HostEnv::new([("XDG_RUNTIME_DIR", runtime)]);
        assert_eq!(personal_agent_socket(&env, None), None);
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert_eq!(personal_agent_socket(&env, None), Some(socket));
        let env = HostEnv::new([("XDG_RUNTIME_DIR", runtime), ("SSH_AUTH_SOCK", "/s")]);
        assert_eq!(personal_agent_socket(&env, None), Some("/s".into()));
        assert_eq!(
            personal_agent_socket(&env, Some(Path::new("/c"))),
            Some("/c".into())
        );
    }
}
