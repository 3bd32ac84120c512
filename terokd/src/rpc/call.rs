//! The layer around every call: parameters, access, span, metrics, panic guard, `request_id`, operations and
//! the mapping of faults. Handlers see typed parameters and answer typed results.

use crate::daemon::Daemon;
use crate::ops::{OpCx, OpSpec};
use crate::telemetry::panicked;
use futures_util::FutureExt;
use jsonrpsee::core::server::{Extensions, Methods, RpcModule};
use jsonrpsee::types::{ErrorObjectOwned, Params};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use terok_proto::ops::Detached;
use terok_proto::{Access, Fault, Kind, Method, MethodInfo};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

/// A JSON text that goes to the wire as it is.
pub type Raw = Box<RawValue>;

/// Fires when the client withdraws a call (`$/cancelRequest`); travels in the call's extensions.
#[derive(Clone, Debug, Default)]
pub struct Withdrawn(pub CancellationToken);

/// Registers methods, each through the same layer.
#[derive(Debug)]
pub struct Registrar {
    daemon: Arc<Daemon>,
    module: RpcModule<Daemon>,
    registered: Vec<&'static MethodInfo>,
}

impl Registrar {
    /// An empty table.
    pub fn new(daemon: Arc<Daemon>) -> Self {
        Self {
            module: RpcModule::from_arc(Arc::clone(&daemon)),
            daemon,
            registered: Vec::new(),
        }
    }

    /// The table, complete.
    pub fn finish(self) -> Methods {
        self.daemon.methods.set(self.registered).unwrap_or_default();
        self.module.into()
    }

    /// The module underneath, for subscriptions.
    pub(super) fn module(&mut self) -> &mut RpcModule<Daemon> {
        &mut self.module
    }

    /// Notes a method that is registered some other way.
    pub(super) fn note<M: Method>(&mut self) {
        self.registered.push(&M::INFO);
    }

    /// A method whose handler answers its typed result.
    pub fn method<M, F, Fut>(&mut self, handler: F)
    where
        M: Method,
        F: Fn(Arc<Daemon>, M) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<M::Result, Fault>> + Send + 'static,
    {
        self.raw::<M, _, _>(move |daemon, params| {
            let answer = handler(daemon, params);
            async move { to_raw(&answer.await?) }
        });
    }

    /// A method whose handler answers JSON text that is already serialised.
    pub fn raw<M, F, Fut>(&mut self, handler: F)
    where
        M: Method,
        F: Fn(Arc<Daemon>, M) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<Raw, Fault>> + Send + 'static,
    {
        self.register::<M, _, _>(move |call, params| {
            let handler = handler.clone();
            async move {
                let (params, common) = decode::<M>(&params)?;
                if M::INFO.access == Access::Read {
                    return tokio::select! {
                        biased;
                        answer = handler(Arc::clone(&call.daemon), params) => answer,
                        () = call.withdrawn.0.cancelled() => Err(withdrawn()),
                    };
                }
                // What changes something goes on when the client goes away.
                call.once(common, handler(Arc::clone(&call.daemon), params))
                    .await
            }
        });
    }

    /// A method that runs as an operation: it survives the client, can be detached, followed and cancelled.
    pub fn operation<M, F, Fut>(&mut self, describe: fn(&M) -> OpSpec, handler: F)
    where
        M: Method,
        F: Fn(Arc<Daemon>, OpCx, M) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<M::Result, Fault>> + Send + 'static,
    {
        self.register::<M, _, _>(move |call, params| {
            let handler = handler.clone();
            async move {
                let (params, common) = decode::<M>(&params)?;
                let daemon = Arc::clone(&call.daemon);
                let detach = common.detach;
                let withdrawn = call.withdrawn.clone();
                let run = async move {
                    let spec = describe(&params);
                    let ops = daemon.ops.clone();
                    let started = ops
                        .start(spec, move |cx| async move {
                            let result = handler(daemon, cx, params).await?;
                            serde_json::to_value(result).map_err(|e| Fault::internal(e.to_string()))
                        })
                        .await?;
                    if detach {
                        return to_raw(&Detached {
                            operation_id: started.id,
                        });
                    }
                    let id = started.id.clone();
                    let mut done = std::pin::pin!(started.done);
                    tokio::select! {
                        answer = &mut done => answer,
                        () = withdrawn.0.cancelled() => {
                            ops.cancel(&id).await?;
                            done.await
                        }
                    }
                };
                call.once(common, run).await
            }
        });
    }

    fn register<M, F, Fut>(&mut self, run: F)
    where
        M: Method,
        F: Fn(Call, Params<'static>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<Raw, Fault>> + Send + 'static,
    {
        self.note::<M>();
        let index = self.registered.len() - 1;
        self.module
            .register_async_method(M::INFO.name, move |params, daemon, extensions| {
                let call = Call::new(Arc::clone(&daemon), &M::INFO, &extensions);
                let answer = run(call, params);
                guarded(daemon, &M::INFO, index, answer)
            })
            .expect("method names are unique: a test of the table proves it");
    }
}

/// One call on its way through the layer.
#[derive(Debug)]
struct Call {
    daemon: Arc<Daemon>,
    info: &'static MethodInfo,
    withdrawn: Withdrawn,
}

impl Call {
    fn new(daemon: Arc<Daemon>, info: &'static MethodInfo, extensions: &Extensions) -> Self {
        let withdrawn = extensions.get::<Withdrawn>().cloned().unwrap_or_default();
        Self {
            daemon,
            info,
            withdrawn,
        }
    }

    /// Runs a change once per `request_id`, apart from the connection that asked for it.
    async fn once<Fut>(&self, common: Common, change: Fut) -> Result<Raw, Fault>
    where
        Fut: Future<Output = Result<Raw, Fault>> + Send + 'static,
    {
        if self.daemon.is_stopping() && self.info.name != "daemon.shutdown" {
            return Err(Fault::new(
                Kind::ShuttingDown,
                "the daemon is shutting down: try again in a moment",
            )
            .retry_after_ms(2_000));
        }
        let change = change.in_current_span();
        match common.request_id {
            Some(id) => {
                self.daemon
                    .replay
                    .run(self.info.name, &id, &common.fingerprint, change)
                    .await
            }
            None => {
                let name = self.info.name;
                // The guard runs inside the task: on the thread that panicked.
                let guarded = AssertUnwindSafe(change).catch_unwind().map(move |end| {
                    end.unwrap_or_else(|panic| Err(panicked(name, panic.as_ref())))
                });
                let task = self.daemon.tasks.spawn(name, guarded);
                task.await.unwrap_or_else(|_| {
                    Err(Fault::new(
                        Kind::ShuttingDown,
                        "the daemon stopped during the call",
                    ))
                })
            }
        }
    }
}

/// Parameters that the layer itself understands.
#[derive(Debug, Default)]
struct Common {
    request_id: Option<String>,
    detach: bool,
    /// The parameters as text, to tell a repeated call from another one under the same `request_id`.
    fingerprint: String,
}

/// Takes the parameters apart: the method's own, typed, and those of the layer.
fn decode<M: Method>(params: &Params<'_>) -> Result<(M, Common), Fault> {
    let text = params
        .as_str()
        .map_or("{}", |text| if text.trim() == "null" { "{}" } else { text });
    if M::INFO.access == Access::Read || !text.trim_start().starts_with('{') {
        let own = serde_json::from_str(text).map_err(|e| invalid_params(&M::INFO, &e))?;
        return Ok((
            own,
            Common {
                fingerprint: text.to_owned(),
                ..Common::default()
            },
        ));
    }
    let mut all: Map<String, Value> =
        serde_json::from_str(text).map_err(|e| invalid_params(&M::INFO, &e))?;
    let mut common = Common::default();
    match all.remove("request_id") {
        None | Some(Value::Null) => {}
        Some(Value::String(id)) => common.request_id = Some(id),
        Some(_) => {
            return Err(Fault::new(
                Kind::InvalidParams,
                "`request_id` must be a string",
            ));
        }
    }
    if M::INFO.access == Access::Operation {
        match all.remove("detach") {
            None | Some(Value::Null) => {}
            Some(Value::Bool(detach)) => common.detach = detach,
            Some(_) => {
                return Err(Fault::new(
                    Kind::InvalidParams,
                    "`detach` must be true or false",
                ));
            }
        }
    }
    if common.request_id.is_some() {
        common.fingerprint = format!("{} {}", common.detach, Value::Object(all.clone()));
    }
    let own =
        serde_json::from_value(Value::Object(all)).map_err(|e| invalid_params(&M::INFO, &e))?;
    Ok((own, common))
}

pub(super) fn invalid_params(info: &MethodInfo, error: &serde_json::Error) -> Fault {
    // The position is one in the re-serialised parameters: of no use to the caller.
    let text = error.to_string();
    let reason = text
        .rsplit_once(" at line ")
        .map_or(text.as_str(), |(reason, _)| reason);
    let names: Vec<&str> = info.params.iter().map(|p| p.name).collect();
    let fault = Fault::new(
        Kind::InvalidParams,
        format!("invalid parameters of `{}`: {reason}", info.name),
    );
    if names.is_empty() {
        fault.hint("this method takes no parameters")
    } else {
        fault.hint(format!("its parameters: {}", names.join(", ")))
    }
}

fn withdrawn() -> Fault {
    Fault::new(Kind::Cancelled, "the client withdrew the call")
}

/// Serialises a result.
pub(super) fn to_raw<T: serde::Serialize>(value: &T) -> Result<Raw, Fault> {
    to_raw_value(value).map_err(|e| Fault::internal(format!("cannot serialise the result: {e}")))
}

/// The span, metrics and panic guard around an answer, and the one place where a fault becomes wire.
async fn guarded<Fut>(
    daemon: Arc<Daemon>,
    info: &'static MethodInfo,
    index: usize,
    answer: Fut,
) -> Result<Raw, ErrorObjectOwned>
where
    Fut: Future<Output = Result<Raw, Fault>> + Send,
{
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let request = NEXT.fetch_add(1, Ordering::Relaxed);
    let span = if info.access == Access::Read {
        tracing::debug_span!("call", request, method = info.name)
    } else {
        tracing::info_span!("call", request, method = info.name)
    };
    let begin = Instant::now();
    let answer = AssertUnwindSafe(answer)
        .catch_unwind()
        .instrument(span.clone())
        .await;
    let answer =
        answer.unwrap_or_else(|panic| span.in_scope(|| Err(panicked(info.name, panic.as_ref()))));
    daemon.metrics.call(
        index,
        begin.elapsed(),
        answer.as_ref().err().map(|f| f.kind),
    );
    answer.map_err(|fault| {
        span.in_scope(|| match fault.kind {
            Kind::Internal => tracing::error!(error = %fault, "call failed"),
            _ => tracing::debug!(error = %fault, kind = fault.kind.name(), "call refused"),
        });
        to_wire(&fault)
    })
}

/// A fault as jsonrpsee sends it.
pub fn to_wire(fault: &Fault) -> ErrorObjectOwned {
    let object = fault.to_object();
    ErrorObjectOwned::owned(object.code, object.message, object.data)
}
