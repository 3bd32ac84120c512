//! The host's SSH agents: one socket per scope, for `ssh` as `git` starts it. Never mounted into a container.
//!
//! A socket is bound once and used until the vault is locked. It has mode 0600 in a directory of mode 0700, and peers
//! of another user are turned away.

mod protocol;

use crate::files;
use crate::settings::Settings;
use crate::vault::{Vault, WeakVault};
use nix::sys::socket::{getsockopt, sockopt};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use terok_proto::{Fault, Kind};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};

/// What `sockaddr_un` holds, without the zero byte at its end.
const PATH_LIMIT: usize = 107;

/// Connections of one scope at a time.
const CONNECTIONS: usize = 64;

/// The sockets that are bound.
#[derive(Debug, Default)]
pub(crate) struct Agents {
    bound: Mutex<Bound>,
    /// One binds at a time.
    binding: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Bound {
    agents: HashMap<String, Agent>,
    /// Counts closings, so that a socket bound meanwhile does not outlive one.
    closings: u64,
}

#[derive(Debug)]
struct Agent {
    path: PathBuf,
    inode: (u64, u64),
    _stop: DropGuard,
}

impl Agents {
    fn bound(&self) -> MutexGuard<'_, Bound> {
        self.bound.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is any.
    pub(crate) fn any(&self) -> bool {
        !self.bound().agents.is_empty()
    }

    /// The socket of a scope, bound if it is not yet or if somebody removed it.
    pub(crate) async fn bind(
        &self,
        vault: &Vault,
        scope: &str,
        settings: &Settings,
    ) -> Result<PathBuf, Fault> {
        let path = socket_path(&settings.host_dir(), scope)?;
        let _binding = self.binding.lock().await;
        let closings = {
            let bound = self.bound();
            if let Some(agent) = bound.agents.get(scope)
                && agent.path == path
                && identity(&path) == Some(agent.inode)
            {
                return Ok(path);
            }
            bound.closings
        };
        let target = path.clone();
        let listener = files::blocking(move || listen(&target)).await?;
        let fail = |e: std::io::Error| Fault::io("serve the SSH agent at", &path, &e);
        let listener = UnixListener::from_std(listener).map_err(fail)?;
        let stop = CancellationToken::new();
        let agent = Agent {
            inode: identity(&path).ok_or_else(|| fail(std::io::ErrorKind::NotFound.into()))?,
            path: path.clone(),
            _stop: stop.clone().drop_guard(),
        };
        {
            let mut bound = self.bound();
            if bound.closings != closings {
                // Locked while this was under way; the guard ends nobody yet.
                let _ = std::fs::remove_file(&path);
                return Err(Fault::new(
                    Kind::GateAuthNotConfigured,
                    "the vault was locked meanwhile",
                )
                .with("scope", scope)
                .with("reason", "vault_locked"));
            }
            bound.agents.insert(scope.to_owned(), agent);
        }
        tokio::spawn(accept(listener, vault.downgrade(), scope.into(), stop));
        Ok(path)
    }

    /// Closes all: sockets, connections.
    pub(crate) fn close(&self) {
        let agents = {
            let mut bound = self.bound();
            bound.closings += 1;
            std::mem::take(&mut bound.agents)
        };
        agents.into_values().for_each(Agent::close);
    }

    /// Closes that of one scope.
    pub(crate) fn close_scope(&self, scope: &str) {
        let agent = self.bound().agents.remove(scope);
        if let Some(agent) = agent {
            agent.close();
        }
    }
}

impl Agent {
    fn close(self) {
        if identity(&self.path) == Some(self.inode) {
            // Whoever removed it first is welcome.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let meta = path.symlink_metadata().ok()?;
    Some((meta.dev(), meta.ino()))
}

/// `agent-<scope>.sock`, or with a hash in place of a scope that is too long for a socket's path.
fn socket_path(dir: &Path, scope: &str) -> Result<PathBuf, Fault> {
    let plain = dir.join(format!("agent-{scope}.sock"));
    if plain.as_os_str().len() <= PATH_LIMIT {
        return Ok(plain);
    }
    let hash = Sha256::digest(scope);
    let hex: String = hash
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let short = dir.join(format!("agent-{hex}.sock"));
    if short.as_os_str().len() <= PATH_LIMIT {
        return Ok(short);
    }
    Err(Fault::new(
        Kind::StorageError,
        format!(
            "`{}` is too long for a socket: use a shorter runtime directory",
            short.display()
        ),
    )
    .with("path", short.to_string_lossy()))
}

/// Binds beside the final name and renames, so that nobody meets a socket with a mode that is too wide.
fn listen(path: &Path) -> Result<std::os::unix::net::UnixListener, Fault> {
    let fail = |e: std::io::Error| Fault::io("bind the SSH agent at", path, &e);
    let dir = path.parent().unwrap_or(Path::new("/"));
    files::private_dir(dir)?;
    let mut random = [0_u8; 4];
    getrandom::fill(&mut random).map_err(|e| Fault::internal(e.to_string()))?;
    let temporary = dir.join(format!(".{:08x}", u32::from_ne_bytes(random)));
    let listener = std::os::unix::net::UnixListener::bind(&temporary).map_err(fail)?;
    let ready = std::fs::set_permissions(&temporary, std::fs::Permissions::from_mode(0o600))
        .and_then(|()| listener.set_nonblocking(true))
        .and_then(|()| std::fs::rename(&temporary, path));
    if let Err(error) = ready {
        // Best effort: the error counts.
        let _ = std::fs::remove_file(&temporary);
        return Err(fail(error));
    }
    Ok(listener)
}

async fn accept(
    listener: UnixListener,
    vault: WeakVault,
    scope: Arc<str>,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            () = stop.cancelled() => return,
            next = next => next,
        };
        let Ok((stream, _)) = accepted else {
            // Out of descriptors, most likely: others need time to give some back.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            continue;
        };
        if !is_ours(&stream) {
            continue;
        }
        let (vault, scope, stop) = (vault.clone(), Arc::clone(&scope), stop.clone());
        tokio::spawn(async move {
            let _place = place;
            tokio::select! {
                () = stop.cancelled() => {}
                result = protocol::serve(stream, &vault, &scope) => {
                    if let Err(error) = result {
                        tracing::debug!(%error, "a client of the SSH agent left in the middle");
                    }
                }
            }
        });
    }
}

fn is_ours(stream: &UnixStream) -> bool {
    getsockopt(stream, sockopt::PeerCredentials)
        .is_ok_and(|peer| peer.uid() == nix::unistd::geteuid().as_raw())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_scopes_get_a_short_socket() {
        let dir = Path::new("/run/user/1000/terok/sandbox/host");
        assert_eq!(
            socket_path(dir, "orion").unwrap(),
            dir.join("agent-orion.sock")
        );
        let scope = "x".repeat(64);
        let deep =
            Path::new("/run/user/1000/a-rather-long-name-of-a-runtime-directory/sandbox/host");
        let short = socket_path(deep, &scope).unwrap();
        assert_eq!(
            short.file_name().unwrap().to_str().unwrap().len(),
            6 + 16 + 5
        );
        let fault = socket_path(&deep.join("y".repeat(80)), &scope).unwrap_err();
        assert_eq!(fault.kind, Kind::StorageError);
    }
}
