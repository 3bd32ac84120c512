//! The OpenRPC document of the methods registered.

use crate::daemon::Daemon;
use terok_proto::MethodInfo;

/// The document, of exactly what is registered.
pub fn document(daemon: &Daemon) -> serde_json::Map<String, serde_json::Value> {
    let methods: Vec<MethodInfo> = daemon.methods().iter().map(|m| **m).collect();
    terok_proto::openrpc::document(&methods, env!("CARGO_PKG_VERSION"))
}
