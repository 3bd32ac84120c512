//! Catalog methods of tasks and of the kill switch, which this version does not have: they check what they can and
//! answer the typed error of a host without them, so that clients need no second code path. None of them is an
//! operation yet: nothing long is begun.

use super::entry;
use crate::rpc::call::Registrar;
use terok_proto::methods as m;
use terok_proto::{Fault, Kind, Method};

pub(super) fn register(r: &mut Registrar) {
    r.method(|_, _: m::ExecutePanic| async { no_tasks() });
    r.method(|_, _: m::PanicStopContainers| async { no_tasks() });
    of_project::<m::ProjectCreateTask>(r, |p| &p.project_id, no_tasks);
    of_project::<m::ProjectGetTask>(r, |p| &p.project_id, no_tasks);
    of_project::<m::ProjectListTasks>(r, |p| &p.project_id, no_tasks);
    of_project::<m::ProjectTasks>(r, |p| &p.project_id, no_tasks);
    of_project::<m::ProjectRunHeadless>(r, |p| &p.project_id, no_tasks);
    of_project::<m::ProjectFollowupHeadless>(r, |p| &p.project_id, no_tasks);
    of_project::<m::ProjectAcpEndpoints>(r, |p| &p.project_id, no_tasks);
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

fn no_tasks<T>() -> Result<T, Fault> {
    Err(Fault::new(
        Kind::PodmanUnavailable,
        "tasks are not run by this version of terokd",
    )
    .hint("use the reference's own commands for tasks and their containers"))
}
