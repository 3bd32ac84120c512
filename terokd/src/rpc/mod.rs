//! The method table in service: registration, the one layer around every call, and the handlers.
//!
//! Knows the wire and the domain's functions; no handler touches a file, a database or another program itself.

pub mod call;
pub mod discover;
pub mod metrics;
pub mod subscribe;

mod methods;

use crate::daemon::Daemon;
use call::Registrar;
use jsonrpsee::core::server::Methods;
use std::sync::Arc;

/// Builds the table of all methods over that daemon.
pub fn table(daemon: &Arc<Daemon>) -> Methods {
    let mut registrar = Registrar::new(Arc::clone(daemon));
    methods::register(&mut registrar);
    subscribe::register(&mut registrar);
    registrar.finish()
}
