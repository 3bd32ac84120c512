//! The vault and the SSH keys of projects.

use super::entry;
use crate::rpc::call::Registrar;
use terok_config::id::ProjectId;
use terok_proto::Fault;
use terok_proto::methods as m;
use terok_proto::vault::KeyRegistration;

pub(super) fn register(r: &mut Registrar) {
    r.method(|d, p: m::ProjectProvisionSshKey| async move {
        let id = ProjectId::parse(&p.project_id)?;
        usable(&d)?;
        d.keys
            .provision(
                &id,
                p.key_type.as_deref(),
                p.comment,
                p.force.unwrap_or(false),
            )
            .await
    });
    r.method(|d, p: m::ProjectRegisterSshKey| async move {
        let scope = scope(&d, &p.project_id)?;
        d.keys.vault.register_key(&scope, p.key_id).await
    });
    r.method(
        |d, p: m::ProjectPauseForSshKeyRegistrationIfNeeded| async move {
            let entry = entry(&d, &p.project_id)?;
            if !entry.project()?.needs_ssh_key_registration {
                return Ok(KeyRegistration::default());
            }
            d.keys
                .pause(&ProjectId::parse(&p.project_id)?, p.timeout_ms)
                .await
        },
    );
    r.method(|d, p: m::ProjectConfirmSshKeyRegistration| async move {
        d.keys.confirm(&scope(&d, &p.project_id)?);
        Ok(())
    });
    r.method(|d, p: m::ProjectCheckSshKey| async move {
        d.keys.check(&ProjectId::parse(&p.project_id)?).await
    });
    r.method(|d, p: m::ProjectSshListKeys| async move {
        let scope = scope(&d, &p.project_id)?;
        d.keys.vault.keys(&scope).await
    });
    r.method(|d, _: m::VaultGetStatus| async move { Ok(d.keys.vault.status().await) });
    r.method(|d, p: m::VaultProvision| async move {
        usable(&d)?;
        d.keys.vault.provision(p.tier, p.passphrase).await
    });
    r.method(|d, p: m::VaultUnlock| async move {
        usable(&d)?;
        d.keys.vault.unlock(p.passphrase).await
    });
    r.method(|d, p: m::VaultLock| async move {
        d.keys
            .vault
            .lock(p.forget.unwrap_or(false), p.confirm.unwrap_or(false))
            .await
    });
    r.method(|d, p: m::VaultSeal| async move {
        usable(&d)?;
        d.keys.vault.seal(p.key.as_deref()).await
    });
    r.method(|d, _: m::VaultToKeyring| async move {
        usable(&d)?;
        d.keys.vault.to_keyring().await
    });
    r.method(|d, _: m::VaultAcknowledgeRecovery| async move {
        d.keys.vault.acknowledge_recovery().await
    });
    r.method(|d, _: m::VaultListSshKeys| async move { d.keys.vault.all_keys().await });
    r.method(|d, p: m::VaultImportSshKey| async move {
        let scope = match &p.project_id {
            Some(id) => Some(scope(&d, id)?),
            None => None,
        };
        usable(&d)?;
        d.keys.import(scope, p).await
    });
    r.method(|d, p: m::VaultExportSshKey| async move { d.keys.vault.key(p.key_id).await });
    r.method(|d, p: m::VaultRemoveSshKey| async move {
        // A project that is gone or broken may still have keys.
        if let Some(id) = &p.project_id {
            ProjectId::parse(id)?;
        }
        d.keys
            .vault
            .remove_key(p.key_id, p.project_id.as_deref())
            .await
    });
}

/// Fails while the configuration does not say where the vault is and how it opens.
fn usable(d: &crate::daemon::Daemon) -> Result<(), Fault> {
    let snapshot = d.registry.snapshot();
    snapshot.global.launch_fault().map_or(Ok(()), Err)
}

/// The scope of a healthy project: its id.
fn scope(d: &crate::daemon::Daemon, id: &str) -> Result<String, Fault> {
    let entry = entry(d, id)?;
    Ok(entry.project()?.id.clone())
}
