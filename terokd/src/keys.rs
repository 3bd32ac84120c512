//! SSH keys of projects: minting, importing, and waiting until upstream accepts them.
//!
//! Owns the rules between a project and its scope in the vault, which is its id. Knows the vault for keys and gates
//! for asking upstream; nothing secret passes through here except what the vault is handed.

use crate::gates::Gates;
use crate::project::ssh_summary;
use crate::registry::Registry;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use terok_config::id::ProjectId;
use terok_proto::methods::VaultImportSshKey;
use terok_proto::project::{Project, SshInitResult};
use terok_proto::vault::{CheckedKey, ImportResult, KeyRegistration};
use terok_proto::{Fault, Kind};
use terok_vault::{ImportRequest, Vault};
use tokio::sync::watch;
use tokio::time::Instant;

/// First wait between two looks whether upstream accepts a key; doubles up to [`LONGEST`].
const SHORTEST: Duration = Duration::from_secs(2);
/// Longest wait between two looks.
const LONGEST: Duration = Duration::from_secs(30);

/// SSH keys of all projects.
#[derive(Clone, Debug)]
pub struct Keys {
    /// Where they are.
    pub vault: Vault,
    gates: Gates,
    registry: Registry,
    /// Whoever waits for a registration, by project.
    waiting: Arc<Mutex<HashMap<String, watch::Sender<bool>>>>,
}

impl Keys {
    /// The keys in that vault.
    pub fn new(vault: Vault, gates: Gates, registry: Registry) -> Self {
        Self {
            vault,
            gates,
            registry,
            waiting: Arc::default(),
        }
    }

    /// The project's key, minted if it has none or if more is asked for.
    ///
    /// # Errors
    /// There is no such project, the arguments are wrong, or the vault cannot be used.
    pub async fn provision(
        &self,
        id: &ProjectId,
        key_type: Option<&str>,
        comment: Option<String>,
        force: bool,
    ) -> Result<SshInitResult, Fault> {
        let entry = self.registry.project(id)?;
        let dir = ProjectId::parse(entry.dir_name())?;
        let _lock = self.registry.lock_write(std::slice::from_ref(&dir)).await?;
        let entry = self.registry.project(id)?;
        let project = entry.project()?;
        let key = self
            .vault
            .provision_key(&project.id, key_type, comment.as_deref(), force)
            .await?;
        let upstream = project.config.upstream_url.as_deref();
        let mut result = SshInitResult {
            key_id: key.row.key_id,
            key_type: key.row.key_type,
            fingerprint: key.row.fingerprint,
            comment: key.row.comment,
            public_line: key.row.public_line,
            created: Some(key.created),
            needs_registration: Some(project.needs_ssh_key_registration),
            deploy_key_url: upstream.and_then(deploy_key_url),
            text: None,
        };
        result.text = Some(ssh_summary(&result));
        Ok(result)
    }

    /// Stores a private key, for a project if one is named.
    ///
    /// # Errors
    /// It is no such key, its passphrase is missing, or the vault cannot be used.
    pub async fn import(
        &self,
        scope: Option<String>,
        request: VaultImportSshKey,
    ) -> Result<ImportResult, Fault> {
        self.vault
            .import_key(ImportRequest {
                path: request.path.map(Into::into),
                private_key: request.private_key,
                public_key: request.public_key,
                passphrase: request.passphrase,
                comment: request.comment,
                scope,
            })
            .await
    }

    /// Whether upstream accepts the project's key now; a refusal is an answer, not an error.
    ///
    /// # Errors
    /// There is no such project, it has no upstream, or the vault cannot be used.
    pub async fn check(&self, id: &ProjectId) -> Result<CheckedKey, Fault> {
        match self.gates.probe(id).await {
            Ok(()) => Ok(CheckedKey {
                ok: true,
                message: "upstream accepts the project's key".to_owned(),
            }),
            Err(fault) => match fault.kind {
                Kind::UpstreamAuthFailed
                | Kind::UpstreamUnreachable
                | Kind::HostKeyChanged
                | Kind::Timeout
                | Kind::GitError => Ok(CheckedKey {
                    ok: false,
                    message: fault.message,
                }),
                Kind::GateAuthNotConfigured if !is_about_the_vault(&fault) => Ok(CheckedKey {
                    ok: false,
                    message: fault.message,
                }),
                _ => Err(fault),
            },
        }
    }

    /// Waits until upstream accepts the project's key, somebody says that it was registered, or the time is up.
    ///
    /// # Errors
    /// There is no such project or it is broken, or `git` is missing.
    pub async fn pause(
        &self,
        id: &ProjectId,
        timeout_ms: Option<u64>,
    ) -> Result<KeyRegistration, Fault> {
        let entry = self.registry.project(id)?;
        let project: &Project = entry.project()?;
        let keys = match self.vault.keys(&project.id).await {
            Ok(keys) => keys,
            Err(fault) if fault.kind == Kind::VaultLocked => Vec::new(),
            Err(fault) => return Err(fault),
        };
        let mut answer = KeyRegistration {
            needed: true,
            registered: false,
            public_lines: keys.into_iter().map(|key| key.public_line).collect(),
        };
        if answer.public_lines.is_empty() {
            return Ok(answer);
        }
        let deadline = timeout_ms.map(|ms| Instant::now() + Duration::from_millis(ms));
        let mut confirmed = self.listen(&project.id);
        let mut wait = SHORTEST;
        loop {
            let looked = tokio::select! {
                biased;
                Ok(_) = confirmed.wait_for(|said| *said) => break answer.registered = true,
                looked = self.check(id) => looked,
                () = until(deadline) => break,
            };
            match looked {
                Ok(found) if found.ok => break answer.registered = true,
                Ok(_) => {}
                // Nobody can look, but the user can still say so.
                Err(fault) if fault.kind == Kind::GitMissing => return Err(fault),
                Err(_) => {}
            }
            tokio::select! {
                biased;
                Ok(_) = confirmed.wait_for(|said| *said) => break answer.registered = true,
                () = tokio::time::sleep(wait) => {}
                () = until(deadline) => break,
            }
            wait = (wait * 2).min(LONGEST);
        }
        Ok(answer)
    }

    /// Ends the waits for the registration of a project's key.
    pub fn confirm(&self, scope: &str) {
        if let Some(waiting) = self.waiting().remove(scope) {
            waiting.send_replace(true);
        }
    }

    fn listen(&self, scope: &str) -> watch::Receiver<bool> {
        let mut waiting = self.waiting();
        waiting.retain(|_, sender| sender.receiver_count() > 0);
        waiting
            .entry(scope.to_owned())
            .or_insert_with(|| watch::Sender::new(false))
            .subscribe()
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<String, watch::Sender<bool>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// The vault, not the key, is why nothing can be asked.
fn is_about_the_vault(fault: &Fault) -> bool {
    fault
        .data
        .get("reason")
        .and_then(|reason| reason.as_str())
        .is_some_and(|reason| reason != "no_key")
}

/// Where a well-known forge takes deploy keys.
fn deploy_key_url(upstream: &str) -> Option<String> {
    let rest = match upstream.trim().split_once("://") {
        Some((_, rest)) => rest.split_once('/')?,
        None => upstream.trim().split_once(':')?,
    };
    let (authority, path) = rest;
    let host = authority.rsplit('@').next()?.split(':').next()?;
    let path = path.trim_matches('/');
    let path = path.strip_suffix(".git").unwrap_or(path);
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    if path.is_empty() || !path.contains('/') || !path.chars().all(plain) {
        return None;
    }
    let page = match host.to_ascii_lowercase().as_str() {
        "github.com" | "ssh.github.com" => format!("https://github.com/{path}/settings/keys/new"),
        "gitlab.com" => {
            format!("https://gitlab.com/{path}/-/settings/repository#js-deploy-keys-settings")
        }
        "bitbucket.org" => format!("https://bitbucket.org/{path}/admin/access-keys/"),
        "codeberg.org" => format!("https://codeberg.org/{path}/settings/keys"),
        _ => return None,
    };
    Some(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forges_have_pages_for_keys() {
        let page = |url| deploy_key_url(url);
        assert_eq!(
            page("git@github.com:o/r.git").as_deref(),
            Some("https://github.com/o/r/settings/keys/new")
        );
        assert_eq!(
            page("ssh://git@GitHub.com:22/o/r").as_deref(),
            Some("https://github.com/o/r/settings/keys/new")
        );
        assert_eq!(
            page("git@gitlab.com:group/sub/r.git").as_deref(),
            Some("https://gitlab.com/group/sub/r/-/settings/repository#js-deploy-keys-settings")
        );
        for none in [
            "git@example.org:o/r.git",
            "git@github.com:r",
            "",
            "git@github.com:o/<r>",
        ] {
            assert_eq!(page(none), None, "{none}");
        }
    }
}
