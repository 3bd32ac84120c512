//! Catalog methods whose dependency this version does not drive: they check what they can and answer the typed
//! error of a host without it, so that clients need no second code path. None of them is an operation yet: nothing
//! long is begun.

use super::entry;
use crate::project::NO_PODMAN;
use crate::rpc::call::Registrar;
use terok_config::id::ProjectId;
use terok_proto::methods as m;
use terok_proto::{Fault, Kind, Method};

pub(super) fn register(r: &mut Registrar) {
    r.method(|d, p: m::ProjectImageExists| async move {
        entry(&d, &p.project_id)?;
        no_podman()
    });
    r.method(|d, p: m::ListImages| async move {
        if let Some(id) = &p.project_id {
            crate::project::require_exists(&d.domain, &ProjectId::parse(id)?)?;
        }
        no_podman()
    });
    r.method(|_, _: m::FindOrphanedImages| async { no_podman() });
    r.method(|_, _: m::RemoveImages| async { no_podman() });
    r.method(|_, _: m::CleanupImages| async { no_podman() });
    r.method(|_, _: m::ExecutePanic| async { no_podman() });
    r.method(|_, _: m::PanicStopContainers| async { no_podman() });
    of_project::<m::ProjectCreateTask>(r, |p| &p.project_id, no_podman);
    of_project::<m::ProjectGetTask>(r, |p| &p.project_id, no_podman);
    of_project::<m::ProjectListTasks>(r, |p| &p.project_id, no_podman);
    of_project::<m::ProjectTasks>(r, |p| &p.project_id, no_podman);
    of_project::<m::ProjectRunHeadless>(r, |p| &p.project_id, no_podman);
    of_project::<m::ProjectFollowupHeadless>(r, |p| &p.project_id, no_podman);
    of_project::<m::ProjectAcpEndpoints>(r, |p| &p.project_id, no_podman);
    of_project::<m::ProjectGenerateDockerfiles>(r, |p| &p.project_id, no_podman);
    of_project::<m::ProjectBuildImages>(r, |p| &p.project_id, no_podman);
}

/// A method of a project that answers nothing but its error, once the project is known to be healthy.
fn of_project<M: Method>(
    r: &mut Registrar,
    id: fn(&M) -> &str,
    fault: fn() -> Result<M::Result, Fault>,
) {
    r.method(move |d, p: M| async move {
        entry(&d, id(&p))?;
        fault()
    });
}

fn no_podman<T>() -> Result<T, Fault> {
    Err(Fault::new(Kind::PodmanUnavailable, NO_PODMAN)
        .hint("images and containers are out of reach of this version; use the reference's own commands for them"))
}
