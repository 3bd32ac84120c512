//! The daemon about itself, and operations.

use crate::rpc::call::Registrar;
use crate::rpc::discover;
use std::time::Duration;
use terok_proto::Fault;
use terok_proto::methods as m;

/// A drain longer than this is a typing error.
const MAX_DRAIN_MS: u64 = 3_600_000;

pub(super) fn register(r: &mut Registrar) {
    r.method(|d, _: m::DaemonGetStatus| async move { Ok(d.status().await) });
    r.method(
        |d, _: m::DaemonGetPaths| async move { Ok(d.registry.snapshot().paths.daemon_paths()) },
    );
    r.method(|d, _: m::DaemonReload| async move { Ok(d.reload().await) });
    r.method(|d, p: m::DaemonShutdown| async move {
        if p.drain_ms.is_some_and(|ms| ms > MAX_DRAIN_MS) {
            return Err(Fault::invalid_argument(format!(
                "`drain_ms` must be at most {MAX_DRAIN_MS}"
            )));
        }
        d.order_stop(p.drain_ms.map(Duration::from_millis));
        Ok(())
    });
    r.method(|d, _: m::PanicGetStatus| async move {
        Ok(crate::panic::status(&d.registry.snapshot().paths))
    });
    r.method(
        |d, p: m::OperationList| async move { d.ops.list(p.project_id.as_deref(), p.state).await },
    );
    r.method(|d, p: m::OperationGet| async move { d.ops.get(&p.id).await });
    r.method(|d, p: m::OperationCancel| async move { d.ops.cancel(&p.id).await });
    r.method(|d, _: m::RpcDiscover| async move { Ok(discover::document(&d)) });
    r.method(|d, _: m::RpcMethods| async move {
        Ok(d.methods().iter().map(|m| m.name.to_owned()).collect())
    });
}
