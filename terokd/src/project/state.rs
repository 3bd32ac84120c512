//! What is known about a project's infrastructure at this moment.

use super::{Domain, NO_PODMAN, blocking};
use terok_config::id::ProjectId;
use terok_proto::project::ProjectState;
use terok_proto::{Fault, Kind};

/// The rendered Dockerfiles of a project.
const DOCKERFILES: [&str; 3] = ["L0.Dockerfile", "L1.cli.Dockerfile", "L2.Dockerfile"];

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
    let config = entry.project()?.config.clone();
    let paths = domain.registry.snapshot().paths.clone();
    let mut warnings = vec![format!("images are unknown: {NO_PODMAN}")];
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
    blocking(move || {
        let build = paths.build_dir.join(&config.id);
        let dockerfiles = DOCKERFILES.iter().all(|name| build.join(name).is_file());
        if dockerfiles {
            warnings.push(
                "whether the Dockerfiles are old is unknown: this version does not render them"
                    .to_owned(),
            );
        }
        Ok(ProjectState {
            dockerfiles,
            dockerfiles_old: false,
            images: false,
            images_old: false,
            stale_layers: Vec::new(),
            rebuild_set: Vec::new(),
            missing_layers: Vec::new(),
            agents_installed: None,
            agents_configured: None,
            ssh,
            vault_locked,
            gate: gate.is_dir(),
            gate_last_commit,
            warnings,
        })
    })
    .await
}
