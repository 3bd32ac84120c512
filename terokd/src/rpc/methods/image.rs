//! Images: rendered, built, listed, cleaned up.

use crate::images::BuildRequest;
use crate::ops::OpSpec;
use crate::rpc::call::Registrar;
use terok_config::id::ProjectId;
use terok_image::build::Options;
use terok_proto::Method;
use terok_proto::methods as m;

pub(super) fn register(r: &mut Registrar) {
    r.method(|d, p: m::ProjectImageExists| async move {
        let id = ProjectId::parse(&p.project_id)?;
        d.images.exists(id.as_str()).await
    });
    r.method(|d, p: m::ListImages| async move {
        let id = p.project_id.as_deref().map(ProjectId::parse).transpose()?;
        d.images.list(id.as_ref().map(ProjectId::as_str)).await
    });
    r.method(|d, _: m::FindOrphanedImages| async move { d.images.orphaned().await });
    r.operation(
        |_: &m::RemoveImages| spec::<m::RemoveImages>(None),
        |d, cx, p: m::RemoveImages| async move {
            let dry_run = p.dry_run.unwrap_or(false);
            d.images.remove(&cx, &p.images, dry_run).await
        },
    );
    r.operation(
        |_: &m::CleanupImages| spec::<m::CleanupImages>(None),
        |d, cx, p: m::CleanupImages| async move {
            d.images.clean_up(&cx, p.dry_run.unwrap_or(false)).await
        },
    );
    r.method(|d, p: m::ProjectGenerateDockerfiles| async move {
        d.images.generate(&ProjectId::parse(&p.project_id)?).await
    });
    r.operation(
        |p: &m::ProjectBuildImages| spec::<m::ProjectBuildImages>(Some(&p.project_id)),
        |d, cx, p: m::ProjectBuildImages| async move {
            let id = ProjectId::parse(&p.project_id)?;
            d.images.build(&cx, &id, p.into()).await
        },
    );
}

impl From<m::ProjectBuildImages> for BuildRequest {
    fn from(params: m::ProjectBuildImages) -> Self {
        Self {
            options: Options {
                include_dev: params.include_dev.unwrap_or(false),
                refresh_agents: params.refresh_agents.unwrap_or(false),
                full: params.full.unwrap_or(false),
                rebuild_stale: params.rebuild_stale.unwrap_or(false),
            },
            agents: params.agents,
        }
    }
}

/// Builds and removals are not resumed: what was done stands, and asking again does the rest.
fn spec<M: Method>(project_id: Option<&str>) -> OpSpec {
    OpSpec {
        method: M::INFO.name,
        project_id: project_id.map(str::to_owned),
        task_id: None,
        params: serde_json::Value::Null,
        resumable: false,
    }
}
