//! Gates: sync, comparison, review, promotion, polling, the gate server.

use crate::daemon::Daemon;
use crate::gates::SyncRequest;
use crate::ops::OpSpec;
use crate::rpc::call::Registrar;
use std::sync::Arc;
use terok_config::id::ProjectId;
use terok_proto::methods as m;
use terok_proto::{Fault, Method};

pub(super) fn register(r: &mut Registrar) {
    r.operation(
        |p: &m::ProjectGateSync| of_project::<m::ProjectGateSync>(&p.project_id, p, true),
        |d, cx, p: m::ProjectGateSync| async move {
            let id = ProjectId::parse(&p.project_id)?;
            d.gates.sync(&cx, &id, SyncRequest::from(p)).await
        },
    );
    r.operation(
        |p: &m::ProjectGateSyncBranches| {
            of_project::<m::ProjectGateSyncBranches>(&p.project_id, p, true)
        },
        |d, cx, p: m::ProjectGateSyncBranches| async move {
            let id = ProjectId::parse(&p.project_id)?;
            d.gates
                .sync_branches(&cx, &id, p.branches.unwrap_or_default())
                .await
        },
    );
    r.method(|d, p: m::ProjectGateCompareVsUpstream| async move {
        d.gates.compare(&id(&p.project_id)?, p.branch).await
    });
    r.method(|d, p: m::ProjectGateLastCommit| async move {
        d.gates.last_commit(&id(&p.project_id)?).await
    });
    r.method(
        |d, p: m::ProjectGateGetStatus| async move { d.gates.status(&id(&p.project_id)?).await },
    );
    r.method(
        |d, p: m::ProjectGatePending| async move { d.gates.pending(&id(&p.project_id)?).await },
    );
    r.method(|d, p: m::ProjectGateApplyPending| async move {
        d.gates.apply_pending(&id(&p.project_id)?, p.ops).await
    });
    r.method(
        |d, p: m::ProjectGateBackups| async move { d.gates.backups(&id(&p.project_id)?).await },
    );
    r.method(|d, p: m::ProjectGateRestoreBackup| async move {
        d.gates.restore_backup(&id(&p.project_id)?, p.r#ref).await
    });
    r.method(|d, p: m::ProjectGatePruneBackups| async move {
        d.gates
            .prune_backups(&id(&p.project_id)?, p.older_than_days)
            .await
    });
    r.method(|d, p: m::ProjectGateReview| async move {
        d.gates.review(&id(&p.project_id)?, p.branch).await
    });
    r.operation(
        |p: &m::ProjectGatePromote| of_project::<m::ProjectGatePromote>(&p.project_id, p, false),
        |d, cx, p: m::ProjectGatePromote| async move {
            d.gates
                .promote(
                    &cx,
                    &id(&p.project_id)?,
                    p.branch,
                    p.upstream_branch,
                    p.expect_commit,
                )
                .await
        },
    );
    r.method(|d, _: m::GateServerGetStatus| async move { Ok(d.gates.server_status()) });
    r.method(|d, p: m::PollingGetStatus| async move {
        Ok(d.polling
            .status(gate_of(&d, p.project_id.as_deref())?.as_deref()))
    });
    r.operation(
        |p: &m::PollingPollNow| OpSpec {
            method: m::PollingPollNow::INFO.name,
            project_id: p.project_id.clone(),
            task_id: None,
            params: serde_json::Value::Null,
            resumable: false,
        },
        |d, cx, p: m::PollingPollNow| async move {
            let project = p.project_id.as_deref().map(id).transpose()?;
            let targets = d.gates.poll_targets(project.as_ref())?;
            tokio::select! {
                found = d.polling.poll_now(targets) => Ok(found),
                () = cx.cancelled() => Err(Fault::new(terok_proto::Kind::Cancelled, "polling was cancelled")),
            }
        },
    );
}

/// The gate of a project, if one is named.
fn gate_of(
    daemon: &Arc<Daemon>,
    project: Option<&str>,
) -> Result<Option<std::path::PathBuf>, Fault> {
    let Some(project) = project else {
        return Ok(None);
    };
    let entry = super::entry(daemon, project)?;
    Ok(Some(
        daemon.env.normalise(&entry.project()?.config.gate_path),
    ))
}

fn id(text: &str) -> Result<ProjectId, Fault> {
    ProjectId::parse(text)
}

fn of_project<M: Method>(project_id: &str, params: &M, resumable: bool) -> OpSpec {
    OpSpec {
        method: M::INFO.name,
        project_id: Some(project_id.to_owned()),
        task_id: None,
        params: serde_json::to_value(params).unwrap_or_default(),
        resumable,
    }
}
