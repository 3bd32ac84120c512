//! From a project's configuration to what `terok-gate` is handed.

use super::Gates;
use crate::registry::Snapshot;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use terok_config::global::typed::HostKeys;
use terok_gate::{Access, GateSpec, GateUrl, Upstream, personal_agent_socket};
use terok_proto::config::ProjectConfig;
use terok_proto::{Fault, Kind};

/// One project's gate, as its configuration has it at this moment.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    pub(super) config: ProjectConfig,
    pub(super) snapshot: Arc<Snapshot>,
    /// The gate, symbolic links resolved.
    pub(super) path: PathBuf,
    /// `PATH` of the daemon.
    pub(super) search_path: OsString,
}

impl Subject {
    /// Refuses a project that has switched its gate off.
    pub(super) fn enabled(self) -> Result<Self, Fault> {
        if self.config.gate_enabled {
            return Ok(self);
        }
        Err(Fault::new(
            Kind::GateDisabled,
            format!(
                "project `{}` has no gate: set `gate.enabled: true` in its project.yml, or leave this step out",
                self.config.id
            ),
        )
        .with("project_id", self.config.id.as_str()))
    }

    /// Upstream's address, if there is one.
    pub(super) fn url(&self) -> Result<Option<GateUrl>, Fault> {
        self.config
            .upstream_url
            .as_deref()
            .filter(|url| !url.trim().is_empty())
            .map(GateUrl::parse)
            .transpose()
    }

    /// What the repository is handed, without a way to reach upstream.
    pub(super) fn spec(&self) -> GateSpec {
        let paths = &self.snapshot.paths;
        GateSpec {
            path: self.path.clone(),
            base: paths.gate_repos_dir.clone(),
            // What is inside the gate can be read whatever the address is worth; whoever asks upstream learns it.
            upstream_url: self.url().ok().flatten(),
            default_branch: self.config.default_branch.clone(),
            cache_dir: Some(paths.clone_cache_dir.join(&self.config.id)),
            search_path: self.search_path.clone(),
        }
    }
}

impl Gates {
    /// How the project's upstream may be reached; none without an upstream.
    pub(super) async fn upstream(
        &self,
        subject: &Subject,
        personal: Option<bool>,
        background: bool,
    ) -> Result<Option<Upstream>, Fault> {
        let Some(url) = subject.url()? else {
            return Ok(None);
        };
        let access = if !url.is_ssh() {
            Access::Plain
        } else if personal.unwrap_or(subject.config.ssh_use_personal) {
            Access::Personal {
                auth_sock: personal_agent_socket(&self.inner.host, None),
                batch: background,
            }
        } else {
            let socket = self.inner.vault.host_agent(&subject.config.id).await?;
            let host_keys = subject.snapshot.global.terokd.ssh.host_keys;
            Access::VaultAgent {
                socket,
                known_hosts: subject.snapshot.paths.gate_repos_dir.join(".known_hosts"),
                strict_host_keys: host_keys == HostKeys::Strict,
            }
        };
        Ok(Some(Upstream { url, access }))
    }
}
