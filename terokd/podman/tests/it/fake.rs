//! A service that does what a test tells it to.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use terok_podman::{Podman, Settings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What is sent back, byte by byte.
#[derive(Clone)]
pub(crate) enum Reply {
    /// A regular answer.
    Json(u16, String),
    /// These bytes, and then the end.
    Cut(Vec<u8>),
    /// These bytes, and then nothing more.
    Hang(Vec<u8>),
    /// These bytes, and then those again and again.
    Endless(Vec<u8>, Vec<u8>),
}

type Behaviour = Arc<dyn Fn(&str) -> Reply + Send + Sync>;

pub(crate) struct Fake {
    pub(crate) dir: tempfile::TempDir,
    shared: Arc<Shared>,
    running: Option<JoinSet<()>>,
}

struct Shared {
    behaviour: Mutex<Behaviour>,
    requests: Mutex<Vec<String>>,
    /// Lines for whoever listens to events.
    events: watch::Sender<Vec<u8>>,
}

pub(crate) fn id(n: u8) -> String {
    format!("{n:064x}")
}

/// A list of one image.
pub(crate) fn image(n: u8) -> String {
    format!(
        r#"[{{"Id":"{}","RepoTags":["localhost/x:{n}"],"Size":{n}}}]"#,
        id(n)
    )
}

impl Fake {
    pub(crate) fn start(behaviour: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        let shared = Shared {
            behaviour: Mutex::new(Arc::new(behaviour)),
            requests: Mutex::default(),
            events: watch::Sender::new(Vec::new()),
        };
        let mut fake = Self {
            dir: tempfile::tempdir().unwrap(),
            shared: Arc::new(shared),
            running: None,
        };
        fake.again();
        fake
    }

    /// Answers pings, events and versions as Podman does, and lists this image.
    pub(crate) fn honest(n: u8) -> Self {
        Self::start(lists(n))
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("fake.sock")
    }

    pub(crate) fn settings(&self) -> Settings {
        let url = format!("unix://{}", self.socket().display());
        Settings::new(self.dir.path().join("own"), None, false)
            .with_container_host(&url)
            .unwrap()
    }

    pub(crate) fn podman(&self) -> Podman {
        Podman::new(self.settings())
    }

    pub(crate) fn behave(&self, behaviour: impl Fn(&str) -> Reply + Send + Sync + 'static) {
        *self.shared.behaviour.lock().unwrap() = Arc::new(behaviour);
    }

    /// How many requests held the text.
    pub(crate) fn asked(&self, text: &str) -> usize {
        self.shared
            .requests
            .lock()
            .unwrap()
            .iter()
            .filter(|line| line.contains(text))
            .count()
    }

    /// Tells all who listen.
    pub(crate) fn event(&self, line: &str) {
        let line = format!("{line}\n");
        self.shared
            .events
            .send_modify(|all| all.extend_from_slice(line.as_bytes()));
    }

    pub(crate) fn listeners(&self) -> usize {
        self.shared.events.receiver_count()
    }

    /// Ends with all its connections; the socket stays behind, as after a crash.
    pub(crate) async fn stop(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.shutdown().await;
        }
    }

    pub(crate) fn again(&mut self) {
        let _ = std::fs::remove_file(self.socket());
        let listener = UnixListener::bind(self.socket()).unwrap();
        let shared = Arc::clone(&self.shared);
        let mut running = JoinSet::new();
        running.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        self.running = Some(running);
    }
}

pub(crate) fn lists(n: u8) -> impl Fn(&str) -> Reply + Send + Sync + 'static {
    move |request| {
        if request.contains("/images/json") {
            Reply::Json(200, image(n))
        } else if request.contains("/containers/json") {
            Reply::Json(200, "[]".into())
        } else {
            Reply::Json(200, "{}".into())
        }
    }
}

async fn serve(mut stream: UnixStream, shared: Arc<Shared>) {
    let mut head = Vec::new();
    while !head.windows(4).any(|w| w == b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let line = String::from_utf8_lossy(&head)
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned();
    shared.requests.lock().unwrap().push(line.clone());
    let behaviour = Arc::clone(&shared.behaviour.lock().unwrap());
    let reply = behaviour(&line);
    if line.contains("/events") && matches!(reply, Reply::Json(200, _)) {
        return events(stream, &shared).await;
    }
    let _ = match reply {
        Reply::Json(status, body) => {
            let head = format!(
                "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            stream
                .write_all(&[head.as_bytes(), body.as_bytes()].concat())
                .await
        }
        Reply::Cut(bytes) => stream.write_all(&bytes).await,
        Reply::Hang(bytes) => {
            let _ = stream.write_all(&bytes).await;
            return std::future::pending().await;
        }
        Reply::Endless(bytes, more) => {
            let mut sent = stream.write_all(&bytes).await;
            while sent.is_ok() {
                sent = stream.write_all(&more).await;
            }
            sent
        }
    };
    let _ = stream.shutdown().await;
}

/// The head comes with the first event, as with Podman 4.3.
async fn events(mut stream: UnixStream, shared: &Shared) {
    let mut lines = shared.events.subscribe();
    let mut sent = lines.borrow_and_update().len();
    let mut head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    while lines.changed().await.is_ok() {
        let new = lines.borrow_and_update()[sent..].to_vec();
        sent += new.len();
        let chunk = format!(
            "{head}{:x}\r\n{}\r\n",
            new.len(),
            String::from_utf8_lossy(&new)
        );
        head = "";
        if stream.write_all(chunk.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Whether a directory holds nothing but what its owner may see.
pub(crate) fn is_private(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).unwrap().mode() & 0o077 == 0
}
