//! `git daemon` and sshd, one process per connection, on sockets that tests own; and a server that says nothing.

use super::lab::{HANG, Lab};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use terok_gate::{Access, GateUrl, Upstream};

/// A listener whose connections go to somebody's handler. Its thread ends with the process.
pub struct Server {
    pub port: u16,
    pub connections: Arc<AtomicUsize>,
}

impl Server {
    pub fn start(handle: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let handle = Arc::new(handle);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::SeqCst);
                let handle = Arc::clone(&handle);
                std::thread::spawn(move || handle(stream));
            }
        });
        Self { port, connections }
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// Lets a program serve a connection as inetd would.
fn inetd(mut command: Command, stream: TcpStream) {
    let write = OwnedFd::from(stream.try_clone().unwrap());
    command
        .stdin(OwnedFd::from(stream))
        .stdout(write)
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
        .wait()
        .unwrap();
}

/// `git daemon` for the repositories of a directory.
pub fn git_daemon(base: &Path) -> Server {
    let base = base.to_owned();
    Server::start(move |stream| {
        let mut command = Command::new("git");
        command
            .args(["daemon", "--inetd", "--export-all"])
            .arg(format!("--base-path={}", base.display()));
        inetd(command, stream);
    })
}

/// Accepts, reads, and never answers. Tells of every connection.
pub fn silent() -> (Server, mpsc::Receiver<()>) {
    let (sender, receiver) = mpsc::channel();
    let sender = std::sync::Mutex::new(sender);
    let server = Server::start(move |mut stream| {
        sender.lock().unwrap().send(()).ok();
        std::io::copy(&mut stream, &mut std::io::sink()).ok();
    });
    (server, receiver)
}

/// A real sshd for the current user, with an agent that holds the accepted key.
pub struct Sshd {
    pub server: Server,
    pub known_hosts: PathBuf,
    pub agent: Agent,
    config: PathBuf,
    host_key: PathBuf,
    user: String,
}

impl Sshd {
    pub fn start(lab: &Lab) -> Self {
        let dir = lab.path("ssh");
        std::fs::create_dir(&dir).unwrap();
        // For root, sshd wants a directory that its package's start script makes. For others it does not matter.
        std::fs::create_dir_all("/run/sshd").ok();
        let (host_key, key, config) = (dir.join("host"), dir.join("id"), dir.join("sshd_config"));
        keygen(&host_key);
        keygen(&key);
        std::fs::write(
            &config,
            format!(
                "HostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM {}\nPermitRootLogin yes\nPidFile none\n\
                 PasswordAuthentication no\nKbdInteractiveAuthentication no\nAcceptEnv GIT_PROTOCOL\nLogLevel QUIET\n",
                host_key.display(),
                key.with_extension("pub").display(),
                // An ordinary sshd cannot read the shadow file, and takes every account for locked if it does not
                // ask PAM.
                if whoami() == "root" { "no" } else { "yes" },
            ),
        )
        .unwrap();
        let agent = Agent::start(&dir.join("agent.sock"));
        agent.add(&key);
        let path = config.clone();
        let server = Server::start(move |stream| {
            let mut command = Command::new("/usr/sbin/sshd");
            command.args(["-i", "-f"]).arg(&path);
            inetd(command, stream);
        });
        Self {
            server,
            known_hosts: dir.join("known_hosts"),
            agent,
            config,
            host_key,
            user: whoami(),
        }
    }

    /// The server gets another key.
    pub fn change_host_key(&self) {
        std::fs::remove_file(&self.host_key).unwrap();
        std::fs::remove_file(self.host_key.with_extension("pub")).unwrap();
        keygen(&self.host_key);
        assert!(self.config.is_file());
    }

    pub fn upstream(&self, repo: &Path) -> Upstream {
        Upstream {
            url: GateUrl::parse(&format!(
                "ssh://{}@127.0.0.1:{}{}",
                self.user,
                self.server.port,
                repo.display()
            ))
            .unwrap(),
            access: self.access(&self.agent.socket, false),
        }
    }

    pub fn access(&self, socket: &Path, strict_host_keys: bool) -> Access {
        Access::VaultAgent {
            socket: socket.to_owned(),
            known_hosts: self.known_hosts.clone(),
            strict_host_keys,
        }
    }
}

pub fn keygen(path: &Path) {
    let status = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"])
        .arg(path)
        .status()
        .unwrap();
    assert!(status.success());
}

fn whoami() -> String {
    let output = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A real ssh-agent.
pub struct Agent {
    child: Child,
    pub socket: PathBuf,
}

impl Agent {
    pub fn start(socket: &Path) -> Self {
        use std::io::BufRead;
        let mut child = Command::new("ssh-agent")
            .arg("-D")
            .arg("-a")
            .arg(socket)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // It prints once it listens.
        let mut line = String::new();
        let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        assert!(socket.exists(), "{line}");
        Self {
            child,
            socket: socket.to_owned(),
        }
    }

    pub fn add(&self, key: &Path) {
        let status = Command::new("ssh-add")
            .arg("-q")
            .arg(key)
            .env("SSH_AUTH_SOCK", &self.socket)
            .status()
            .unwrap();
        assert!(status.success());
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A web server with a certificate of its own that answers everything with a page.
pub struct Tls {
    child: Child,
    pub port: u16,
    pub certificate: PathBuf,
}

impl Tls {
    pub fn start(dir: &Path) -> Self {
        use std::io::BufRead;
        let (key, certificate) = (dir.join("tls.key"), dir.join("tls.pem"));
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-days",
                "2",
            ])
            .args([
                "-subj",
                "/CN=t",
                "-addext",
                "subjectAltName=IP:127.0.0.1",
                "-keyout",
            ])
            .arg(&key)
            .arg("-out")
            .arg(&certificate)
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(made.success());
        let mut child = Command::new("openssl")
            .args(["s_server", "-www", "-accept", "127.0.0.1:0", "-cert"])
            .arg(&certificate)
            .arg("-key")
            .arg(&key)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let out = std::io::BufReader::new(child.stdout.take().unwrap());
        let port = out
            .lines()
            .map_while(Result::ok)
            .find_map(|line| {
                line.strip_prefix("ACCEPT ")?
                    .rsplit(':')
                    .next()?
                    .parse()
                    .ok()
            })
            .unwrap();
        Self {
            child,
            port,
            certificate,
        }
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Waits for something that another thread or process does, with a guard against hanging.
pub fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !done() {
        assert!(begun.elapsed() < HANG, "waited too long for {what}");
        std::thread::yield_now();
    }
}
