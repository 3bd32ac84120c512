//! Handlers: three lines each. What they do is in the domain.

mod config;
mod daemon;
mod gate;
mod image;
mod later;
mod project;
mod vault;
mod wizard;

use super::call::Registrar;
use crate::daemon::Daemon;
use crate::registry::ProjectEntry;
use std::sync::Arc;
use terok_config::id::ProjectId;
use terok_proto::Fault;

pub(super) fn register(r: &mut Registrar) {
    project::register(r);
    wizard::register(r);
    config::register(r);
    daemon::register(r);
    gate::register(r);
    image::register(r);
    vault::register(r);
    later::register(r);
}

/// The healthy project of that id.
fn entry(daemon: &Daemon, id: &str) -> Result<Arc<ProjectEntry>, Fault> {
    daemon.registry.project(&ProjectId::parse(id)?)
}
