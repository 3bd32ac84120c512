//! podman-api behind limits of ours.
//!
//! The crate connects by path, reads whole answers into memory and knows no deadline. So it is given a private socket:
//! behind it each connection goes where all others go, and ends when the answer exceeds what an answer may hold.

use crate::connect::{Connector, private_directory};
use crate::fault;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use terok_proto::Fault;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

/// Handles in one process must not share a socket.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// The private socket and the task behind it; both end with it.
#[derive(Debug)]
pub(crate) struct Relay {
    socket: PathBuf,
    task: AbortHandle,
    api: podman_api::Podman,
}

impl Relay {
    pub(crate) fn open(connector: Arc<Connector>) -> Result<Self, Fault> {
        let directory = &connector.settings().directory;
        private_directory(directory)?;
        sweep(directory);
        let name = format!(
            "api.{}.{}.sock",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let socket = directory.join(name);
        let _ = std::fs::remove_file(&socket);
        let listener =
            UnixListener::bind(&socket).map_err(|error| Fault::io("listen at", &socket, &error))?;
        let task = tokio::spawn(serve(listener, connector)).abort_handle();
        let api = podman_api::Podman::unix(&socket);
        Ok(Self { socket, task, api })
    }

    /// The API; each request it makes goes through here.
    pub(crate) fn api(&self) -> &podman_api::Podman {
        &self.api
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// Removes the sockets of processes that are gone.
fn sweep(directory: &Path) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let mut parts = name.to_str().unwrap_or_default().split('.');
        if parts.next() != Some("api") {
            continue;
        }
        let owner = parts.next().and_then(|pid| pid.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

async fn serve(listener: UnixListener, connector: Arc<Connector>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    connections.spawn(pass(client, Arc::clone(&connector)));
                }
                // Out of descriptors, most likely.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn pass(client: UnixStream, connector: Arc<Connector>) {
    // The caller asks again for the reason.
    let Ok(service) = connector.connect().await else {
        return;
    };
    let limit = connector.settings().limits.answer as u64;
    let (mut from_client, mut to_client) = client.into_split();
    let (from_service, mut to_service) = service.into_split();
    let mut from_service = from_service.take(limit);
    tokio::select! {
        _ = copy(&mut from_service, &mut to_client) => {}
        // A client that is gone takes the request back; one that has only finished writing does not exist in HTTP.
        _ = copy(&mut from_client, &mut to_service) => {}
    }
    let _ = to_client.shutdown().await;
}

/// Awaits a call of podman-api and tells its failures apart.
pub(crate) async fn call<T>(
    connector: &Connector,
    what: &str,
    deadline: Duration,
    call: impl Future<Output = podman_api::Result<T>>,
) -> Result<T, Fault> {
    use podman_api::Error;
    let error = match timeout(deadline, call).await {
        Err(_) => return Err(fault::timeout(what, deadline)),
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => error,
    };
    match error {
        Error::Fault { code, message } => {
            // The crate writes `message: cause`, and the cause is the end of the message.
            let message = message.trim_end_matches(": ").to_owned();
            Err(fault::refused_with(what, code.as_u16(), &message))
        }
        Error::SerdeJsonError(error) => Err(fault::nonsense(what, error)),
        Error::InvalidResponse(why) => Err(fault::nonsense(what, why)),
        error => {
            timeout(deadline, connector.connect())
                .await
                .map_err(|_| fault::timeout(what, deadline))??;
            Err(fault::broken(what, error))
        }
    }
}
