//! The layer around every call: parameters, access, span, metrics, panic guard, `request_id`, operations and
//! the mapping of faults. Handlers see typed parameters and answer typed results.

use crate::daemon::Daemon;
use crate::ops::{OpCx, OpSpec, Ops, Work};
use crate::telemetry::panicked;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use jsonrpsee::core::server::{Extensions, Methods, RpcModule};
use jsonrpsee::types::{ErrorObjectOwned, Params};
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use terok_config::id::ProjectId;
use terok_proto::ops::Detached;
use terok_proto::{Access, Fault, Kind, Method, MethodInfo};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

/// A JSON text that goes to the wire as it is.
pub type Raw = Box<RawValue>;

/// An answer under way. Boxed, so that the layer is compiled once and not once per method: that was a third of the
/// program.
type Answering = BoxFuture<'static, Result<Raw, Fault>>;
/// From parameters to what answers them.
type Prepare = dyn Fn(&Call, &Params<'_>) -> Result<(Common, Answering), Fault> + Send + Sync;

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
        F: Fn(Arc<Daemon>, M) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Raw, Fault>> + Send + 'static,
    {
        self.register(&M::INFO, move |call, params| {
            let (params, common) = decode::<M>(params)?;
            let answer = handler(Arc::clone(&call.daemon), params).boxed();
            Ok((common, answer))
        });
    }

    /// A method that runs as an operation: it survives the client, can be detached, followed and cancelled.
    pub fn operation<M, F, Fut>(&mut self, describe: fn(&M) -> OpSpec, handler: F)
    where
        M: Method,
        F: Fn(Arc<Daemon>, OpCx, M) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<M::Result, Fault>> + Send + 'static,
    {
        self.register(&M::INFO, move |call, params| {
            let (params, common) = decode::<M>(params)?;
            let spec = describe(&params);
            // Nothing is recorded or told of an id that cannot be one.
            if let Some(id) = &spec.project_id {
                ProjectId::parse(id)?;
            }
            let (daemon, handler) = (Arc::clone(&call.daemon), handler.clone());
            let work = Box::new(move |cx| {
                async move {
                    let result = handler(daemon, cx, params).await?;
                    serde_json::to_value(result).map_err(|e| Fault::internal(e.to_string()))
                }
                .boxed()
            });
            let run = operate(
                call.daemon.ops.clone(),
                spec,
                work,
                common.detach,
                call.withdrawn.clone(),
            );
            Ok((common, run.boxed()))
        });
    }

    fn register<P>(&mut self, info: &'static MethodInfo, prepare: P)
    where
        P: Fn(&Call, &Params<'_>) -> Result<(Common, Answering), Fault> + Send + Sync + 'static,
    {
        self.registered.push(info);
        self.register_prepared(info, Arc::new(prepare));
    }

    fn register_prepared(&mut self, info: &'static MethodInfo, prepare: Arc<Prepare>) {
        let index = self.registered.len() - 1;
        self.module
            .register_async_method(info.name, move |params, daemon, extensions| {
                let call = Call::new(Arc::clone(&daemon), info, &extensions);
                let answer = call.answer(Arc::clone(&prepare), params);
                guarded(daemon, info, index, answer)
            })
            .expect("method names are unique: a test of the table proves it");
    }
}

/// Runs an operation until it has ended, or only begun if the caller does not want to wait.
async fn operate(
    ops: Ops,
    spec: OpSpec,
    work: Work,
    detach: bool,
    withdrawn: Withdrawn,
) -> Result<Raw, Fault> {
    let started = ops.start(spec, work).await?;
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

    async fn answer(self, prepare: Arc<Prepare>, params: Params<'static>) -> Result<Raw, Fault> {
        let (common, answer) = prepare(&self, &params)?;
        if self.info.access == Access::Read {
            return tokio::select! {
                biased;
                answer = answer => answer,
                () = self.withdrawn.0.cancelled() => Err(withdrawn()),
            };
        }
        // What changes something goes on when the client goes away.
        self.once(common, answer).await
    }

    /// Runs a change once per `request_id`, apart from the connection that asked for it.
    async fn once(&self, common: Common, change: Answering) -> Result<Raw, Fault> {
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
                    Err(
                        Fault::new(Kind::ShuttingDown, "the daemon stopped during the call")
                            .retry_after_ms(2_000),
                    )
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
    let (own, common) = split(&M::INFO, params.as_str().unwrap_or("{}"))?;
    let own = serde_json::from_str(&own).map_err(|e| invalid_params(&M::INFO, &e))?;
    Ok((own, common))
}

/// The text of a method's own parameters, and those of the layer.
fn split<'a>(info: &MethodInfo, text: &'a str) -> Result<(Cow<'a, str>, Common), Fault> {
    let text = if text.trim() == "null" { "{}" } else { text };
    if info.access == Access::Read || !text.trim_start().starts_with('{') {
        let common = Common {
            fingerprint: text.to_owned(),
            ..Common::default()
        };
        return Ok((Cow::Borrowed(text), common));
    }
    let Members(mut all) = serde_json::from_str(text).map_err(|e| invalid_params(info, &e))?;
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
    if info.access == Access::Operation {
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
    let own = Value::Object(all).to_string();
    if common.request_id.is_some() {
        common.fingerprint = format!("{} {own}", common.detach);
    }
    Ok((Cow::Owned(own), common))
}

/// Members of an object, each of them once: of two with one name, nobody knows which was meant.
struct Members(Map<String, Value>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Once;
        impl<'de> Visitor<'de> for Once {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut all = Map::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if all.contains_key(&name) {
                        return Err(A::Error::custom(format_args!("duplicate field `{name}`")));
                    }
                    all.insert(name, value);
                }
                Ok(Members(all))
            }
        }
        deserializer.deserialize_map(Once)
    }
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
