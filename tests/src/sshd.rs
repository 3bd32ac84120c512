//! A real sshd with host key, configuration and accepted keys of its own, one process per connection.

use crate::listen::Listener;
use crate::world::Runner;
use crate::{Upstream, World, programs};
use std::fs;
use std::ops::Deref;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// A running server. When the tests run as root, so does sshd, which lets root in; what a client asks for then runs
/// under the unprivileged account, whose shell would refuse.
#[derive(Debug)]
pub struct Sshd {
    listener: Listener,
    runner: Runner,
    dir: PathBuf,
    user: String,
    keygen: PathBuf,
}

impl Sshd {
    /// Starts one, unless OpenSSH is not installed. Nobody is let in yet.
    ///
    /// # Panics
    /// Its files cannot be made.
    pub fn start(world: &World) -> Option<Self> {
        Self::start_serving(world, "exec git-shell -c \"$SSH_ORIGINAL_COMMAND\"")
    }

    /// The same with a line of shell that answers whatever a client asks for.
    ///
    /// # Panics
    /// Its files cannot be made.
    pub fn start_serving(world: &World, answer: &str) -> Option<Self> {
        let (sshd, keygen) = (programs::need("sshd")?, programs::need("ssh-keygen")?);
        let (id, _) = (programs::need("id")?, programs::need("ssh")?);
        let dir = tempfile::Builder::new()
            .prefix("sshd-")
            .tempdir_in(world.dir())
            .expect("a directory")
            .keep();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).expect("a mode");
        if programs::account().is_some() {
            // For root, sshd wants a directory that its package's start script makes.
            let _ = fs::create_dir_all("/run/sshd");
        }
        let answers = dir.join("answer");
        let drop_root = match (programs::account(), programs::need("setpriv")) {
            (None, _) => String::new(),
            (Some(_), None) => return None,
            (Some(uid), Some(setpriv)) => format!(
                "[ \"$1\" = unprivileged ] || exec {} --reuid={uid} --regid={uid} --clear-groups \"$0\" unprivileged\n",
                setpriv.display()
            ),
        };
        let home = world.path("$HOME");
        let text = format!(
            "#!/bin/sh\nHOME='{}'\nexport HOME\n{drop_root}{answer}\n",
            home.display()
        );
        fs::write(&answers, text).expect("the forced command");
        fs::set_permissions(&answers, fs::Permissions::from_mode(0o755)).expect("a mode");
        let config = format!(
            "HostKey {dir}/host\nAuthorizedKeysFile {dir}/authorized\nForceCommand {dir}/answer\nStrictModes no\nUsePAM {pam}\n\
             PermitRootLogin yes\nPidFile none\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
             AcceptEnv GIT_PROTOCOL\nUseDNS no\nPrintMotd no\nPrintLastLog no\nLogLevel QUIET\n",
            dir = dir.display(),
            // An ordinary sshd cannot read the shadow file, and takes every account for locked if it does not ask PAM.
            pam = if programs::account().is_some() {
                "no"
            } else {
                "yes"
            },
        );
        fs::write(dir.join("config"), config).expect("a configuration");
        fs::write(dir.join("authorized"), "").expect("a list of keys");
        let told = std::process::Command::new(id).arg("-un").output();
        let told = told.expect("an account").stdout;
        let runner = world.runner();
        let path = dir.join("config");
        let listener = Listener::start(move |stream, shared| {
            let mut command = std::process::Command::new(&sshd);
            command.args(["-i", "-f"]).arg(&path);
            shared.inetd(&mut command, stream);
        });
        let server = Self {
            listener,
            runner,
            user: String::from_utf8_lossy(&told).trim().to_owned(),
            dir,
            keygen,
        };
        server.replace_host_key();
        Some(server)
    }

    /// The server gets another key; connections that are open keep theirs.
    ///
    /// # Panics
    /// It cannot be made.
    pub fn replace_host_key(&self) {
        let key = self.dir.join("host");
        let new = self.dir.join("host.new");
        self.keygen(&new);
        fs::rename(new.with_extension("new.pub"), key.with_extension("pub")).expect("a key");
        fs::rename(&new, &key).expect("a key");
    }

    /// Line of a `known_hosts` file.
    ///
    /// # Panics
    /// There is no host key.
    pub fn host_line(&self) -> String {
        let key = fs::read_to_string(self.dir.join("host.pub")).expect("a host key");
        format!("[127.0.0.1]:{} {}\n", self.port(), key.trim())
    }

    /// The host key in short, as ssh shows it.
    ///
    /// # Panics
    /// There is no host key.
    pub fn fingerprint(&self) -> String {
        let shown = std::process::Command::new(&self.keygen)
            .arg("-lf")
            .arg(self.dir.join("host.pub"))
            .output()
            .expect("ssh-keygen");
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        shown.split(' ').nth(1).expect("a fingerprint").to_owned()
    }

    /// Lets the owner of a public key in.
    ///
    /// # Panics
    /// The list cannot be written.
    pub fn accept(&self, public_line: &str) {
        self.change_keys(|keys| keys.push(public_line.trim().to_owned()));
    }

    /// Lets the owner of a public key in no more.
    ///
    /// # Panics
    /// The list cannot be written.
    pub fn refuse(&self, public_line: &str) {
        self.change_keys(|keys| keys.retain(|key| key != public_line.trim()));
    }

    fn change_keys(&self, change: impl FnOnce(&mut Vec<String>)) {
        let list = self.dir.join("authorized");
        let text = fs::read_to_string(&list).expect("the list of keys");
        let mut keys = text.lines().map(str::to_owned).collect();
        change(&mut keys);
        let new = self.dir.join("authorized.new");
        fs::write(&new, keys.join("\n") + "\n").expect("a list of keys");
        fs::rename(&new, &list).expect("a list of keys");
    }

    /// Makes a key pair for a client and lets it in.
    ///
    /// # Panics
    /// It cannot be made.
    pub fn client_key(&self, name: &str) -> PathBuf {
        let key = self.dir.join(name);
        self.keygen(&key);
        let public = fs::read_to_string(key.with_extension("pub")).expect("a public key");
        self.accept(&public);
        for path in [&key, &key.with_extension("pub")] {
            self.runner.own(path);
        }
        key
    }

    fn keygen(&self, path: &Path) {
        let status = std::process::Command::new(&self.keygen)
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"])
            .arg(path)
            .stdout(Stdio::null())
            .status()
            .expect("ssh-keygen");
        assert!(status.success(), "ssh-keygen: {status}");
    }

    /// The address of a repository.
    pub fn url(&self, upstream: &Upstream) -> String {
        self.url_at(self.port(), upstream)
    }

    /// The address of a repository through a proxy's port.
    pub fn url_at(&self, port: u16, upstream: &Upstream) -> String {
        let path = upstream.path().display();
        format!("ssh://{}@127.0.0.1:{port}{path}", self.user)
    }
}

impl Deref for Sshd {
    type Target = Listener;

    fn deref(&self) -> &Listener {
        &self.listener
    }
}
