//! Projects: listing, reading, changing, deleting, measuring.

use super::entry;
use crate::agents::ProjectAgents;
use crate::daemon::Daemon;
use crate::ops::OpSpec;
use crate::project::{self, DeleteOptions, DeriveOptions};
use crate::rpc::call::{Raw, Registrar, to_raw};
use serde_json::value::RawValue;
use std::collections::BTreeSet;
use std::path::Path;
use terok_config::id::ProjectId;
use terok_proto::methods as m;
use terok_proto::project::{BrokenProject, DiscoverResult};
use terok_proto::{Fault, Kind, Method};

pub(super) fn register(r: &mut Registrar) {
    r.raw(|d, _: m::ListProjects| async move {
        let snapshot = d.registry.snapshot();
        let projects = snapshot.projects.values();
        to_raw(
            &projects
                .filter_map(|entry| entry.text())
                .collect::<Vec<_>>(),
        )
    });
    r.raw(|d, _: m::DiscoverProjects| async move {
        let snapshot = d.registry.snapshot();
        let projects = joined(
            snapshot
                .projects
                .values()
                .filter_map(|entry| entry.config_text()),
        );
        let broken: Vec<BrokenProject> = snapshot
            .projects
            .values()
            .filter_map(|entry| entry.broken())
            .collect();
        // The same object as `DiscoverResult`, without parsing and printing every project again.
        debug_assert!(
            serde_json::from_str::<DiscoverResult>(&format!(
                r#"{{"projects":{projects},"broken":[]}}"#
            ))
            .is_ok()
        );
        raw(format!(
            r#"{{"projects":{projects},"broken":{}}}"#,
            to_raw(&broken)?
        ))
    });
    r.raw(|d, p: m::GetProject| async move {
        let entry = entry(&d, &p.project_id)?;
        Ok(entry.text().unwrap_or(RawValue::NULL).to_owned())
    });
    r.method(|d, p: m::LoadProject| async move {
        project::load_fresh(&d.domain, &ProjectId::parse(&p.project_id)?).await
    });
    r.method(|d, p: m::RequireProjectExists| async move {
        project::require_exists(&d.domain, &ProjectId::parse(&p.project_id)?)
    });
    r.method(|d, p: m::DeriveProject| async move {
        let options = DeriveOptions {
            without_keys: p.without_keys.unwrap_or(false),
            copy: p.copy.unwrap_or_default(),
            shadow: p.shadow.unwrap_or(false),
        };
        project::derive(
            &d.domain,
            &ProjectId::parse(&p.source_id)?,
            &p.new_id,
            options,
        )
        .await
    });
    r.operation(
        |p: &m::DeleteProject| delete_spec::<m::DeleteProject>(&p.project_id, p),
        |d, cx, p: m::DeleteProject| async move {
            let options = DeleteOptions {
                dry_run: p.dry_run.unwrap_or(false),
                keep_images: p.keep_images.unwrap_or(false),
            };
            project::delete(&d.domain, &cx, &ProjectId::parse(&p.project_id)?, options).await
        },
    );
    r.operation(
        |p: &m::ProjectDelete| delete_spec::<m::ProjectDelete>(&p.project_id, p),
        |d, cx, p: m::ProjectDelete| async move {
            let options = DeleteOptions {
                dry_run: p.dry_run.unwrap_or(false),
                keep_images: p.keep_images.unwrap_or(false),
            };
            project::delete(&d.domain, &cx, &ProjectId::parse(&p.project_id)?, options).await
        },
    );
    r.method(|d, p: m::FindProjectsSharingGate| async move {
        project::find_sharing_gate(
            &d.domain,
            Path::new(&p.gate_path),
            p.exclude_project.as_deref(),
        )
    });
    r.method(|d, p: m::SetProjectImageAgents| async move {
        project::set_image_agents(&d.domain, &ProjectId::parse(&p.project_id)?, &p.selection).await
    });
    r.method(|d, p: m::WriteProjectYaml| async move {
        project::write_new(
            &d.domain,
            &p.project_id,
            &p.rendered,
            p.overwrite.unwrap_or(false),
        )
        .await
    });
    r.method(|d, p: m::ProjectReadYaml| async move {
        project::read_yaml(&d.domain, &ProjectId::parse(&p.project_id)?).await
    });
    r.method(|d, p: m::ProjectWriteYaml| async move {
        project::write_yaml(
            &d.domain,
            &ProjectId::parse(&p.project_id)?,
            &p.text,
            p.base_hash.as_deref(),
        )
        .await
    });
    r.method(|d, p: m::ProjectGetState| async move {
        project::state(
            &d.domain,
            &ProjectId::parse(&p.project_id)?,
            p.gate_commit.unwrap_or(true),
        )
        .await
    });
    r.method(|d, p: m::ProjectStorageDetail| async move {
        project::storage_detail(
            &d.domain,
            &ProjectId::parse(&p.project_id)?,
            p.refresh.unwrap_or(false),
        )
        .await
    });
    r.method(|d, p: m::GetStorageOverview| async move {
        project::storage_overview(&d.domain, p.refresh.unwrap_or(false)).await
    });
    r.method(|d, p: m::ProjectNeedsSshKeyRegistration| async move {
        Ok(entry(&d, &p.project_id)?
            .project()?
            .needs_ssh_key_registration)
    });
    r.method(|d, p: m::ProjectListPresets| async move {
        agents(&d, &p.project_id, |a| a.list_presets())
    });
    r.method(|d, p: m::ProjectLoadPreset| async move {
        agents(&d, &p.project_id, |a| Ok(a.load_preset(&p.name)?.preset))
    });
    r.method(|d, p: m::ProjectAgentsResolveConfig| async move {
        agents(&d, &p.project_id, |a| {
            Ok(
                a.resolve_config(p.preset.as_deref(), p.cli_overrides.as_ref())?
                    .config,
            )
        })
    });
    r.method(|d, p: m::ProjectAgentsResolveInstructions| async move {
        let installed = installed(&d, &p.project_id).await?;
        agents(&d, &p.project_id, |a| {
            a.resolve_instructions(&p.provider, p.preset.as_deref(), installed)
        })
    });
    r.method(|d, p: m::ProjectAgentsGetProvider| async move {
        let mut provider = agents(&d, &p.project_id, |a| a.get_provider(p.name.as_deref()))?;
        let installed = installed(&d, &p.project_id).await?;
        provider.installed = installed.map(|names| names.contains(&provider.name));
        Ok(provider)
    });
}

/// What is in a project's image, if that is known. Without Podman it is not, which says it all.
async fn installed(d: &Daemon, id: &str) -> Result<Option<BTreeSet<String>>, Fault> {
    let id = entry(d, id)?.id().to_owned();
    let installed = d.images.installed(&id).await;
    Ok(installed
        .ok()
        .and_then(|installed| installed.names().cloned()))
}

/// Asks a healthy project's agents, all from one snapshot.
fn agents<T>(
    d: &Daemon,
    id: &str,
    ask: impl FnOnce(&ProjectAgents<'_>) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let entry = entry(d, id)?;
    let snapshot = d.registry.snapshot();
    ask(&ProjectAgents {
        snapshot: &snapshot,
        entry: &entry,
        env: &d.env,
    })
}

fn delete_spec<M: Method>(project_id: &str, params: &M) -> OpSpec {
    OpSpec {
        method: M::INFO.name,
        project_id: Some(project_id.to_owned()),
        task_id: None,
        params: serde_json::to_value(params).unwrap_or_default(),
        resumable: true,
    }
}

/// A JSON array of texts that are JSON already.
fn joined<'a>(items: impl Iterator<Item = &'a str>) -> String {
    let mut out = String::from("[");
    for item in items {
        if out.len() > 1 {
            out.push(',');
        }
        out.push_str(item);
    }
    out.push(']');
    out
}

fn raw(text: String) -> Result<Raw, Fault> {
    RawValue::from_string(text)
        .map_err(|e| Fault::new(Kind::Internal, format!("cannot serialise the result: {e}")))
}
