//! What is known about a project's infrastructure at this moment.

use super::{Domain, blocking};
use terok_config::id::ProjectId;
use terok_proto::project::ProjectState;
use terok_proto::{Fault, Kind};

/// Which parts of the infrastructure exist (`projects.md` §10). Needs neither Podman nor the vault.
///
/// # Errors
/// There is no such project, or it is broken.
pub async fn state(
    domain: &Domain,
    id: &ProjectId,
    gate_commit: bool,
) -> Result<ProjectState, Fault> {
    let entry = domain.registry.project(id)?;
    let config = &entry.project()?.config;
    let images = domain.images.state(&entry).await?;
    let mut warnings = images.warnings;
    let (ssh, vault_locked) = match domain.vault.has_keys(&config.id).await {
        Ok(has) => (Some(has), false),
        // No key can be assigned to such a name.
        Err(fault) if fault.kind == Kind::InvalidScope => (Some(false), false),
        Err(fault) => {
            warnings.push(format!("SSH keys are unknown: {}", fault.message));
            (None, true)
        }
    };
    let gate_last_commit = if gate_commit {
        domain.gates.last_commit(id).await?
    } else {
        None
    };
    let gate = domain.env.normalise(&config.gate_path);
    Ok(ProjectState {
        dockerfiles: images.dockerfiles,
        dockerfiles_old: images.dockerfiles_old,
        images: images.images,
        images_old: images.images_old,
        stale_layers: images.stale_layers,
        rebuild_set: images.rebuild_set,
        missing_layers: images.missing_layers,
        agents_installed: images.agents_installed,
        agents_configured: images.agents_configured,
        ssh,
        vault_locked,
        gate: blocking(move || Ok(gate.is_dir())).await?,
        gate_last_commit,
        warnings,
    })
}
