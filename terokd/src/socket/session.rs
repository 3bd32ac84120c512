//! One client's JSON-RPC: a message in, an answer out, whatever carried it. All dialects share this code, so
//! their answers are the same to the byte.

use super::Limits;
use crate::daemon::Daemon;
use crate::rpc::call::{Withdrawn, to_wire};
use crate::rpc::subscribe::unsubscribing;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use jsonrpsee::core::id_providers::RandomStringIdProvider;
use jsonrpsee::core::server::{
    BoundedSubscriptions, ConnectionId, Extensions, MethodCallback, MethodResponse, MethodSink,
    Methods, SubscriptionState,
};
use jsonrpsee::types::{Id, Params};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use terok_proto::codec::{Dialect, within_depth};
use terok_proto::{Fault, Kind};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, mpsc};

/// Answers are bounded by the daemon's own data, not by what a client sends; this only keeps them finite.
const MAX_RESPONSE: usize = 256 << 20;

/// Answers of one batch beyond this are not asked for: they are held until the last one is there.
const BATCH_ANSWERS: usize = 64 << 20;

/// Notifications that wait for a slow reader; what comes after them waits in the ring of events.
const NOTIFICATIONS: usize = 32;

/// What a message costs the connection.
#[derive(Debug)]
pub(super) struct Answer {
    /// The text to send, if any.
    pub(super) text: Option<String>,
    /// The message was garbage: this answer is the last.
    pub(super) close: bool,
}

impl Answer {
    const NONE: Self = Self {
        text: None,
        close: false,
    };

    fn text(text: String) -> Self {
        Self {
            text: Some(text),
            close: false,
        }
    }
}

/// One client.
#[derive(Debug)]
pub(super) struct Session {
    methods: Methods,
    limits: Limits,
    id: ConnectionId,
    sink: MethodSink,
    subscriptions: BoundedSubscriptions,
    /// `$/cancelRequest` belongs to the base protocol of LSP alone.
    cancellable: bool,
    streams: bool,
    /// Calls in flight, those of batches too.
    slots: Semaphore,
    calls: Mutex<HashMap<String, Withdrawn>>,
}

/// Where a session's notifications come out.
pub(super) type Notifications = mpsc::Receiver<Box<RawValue>>;

impl Session {
    pub(super) fn new(
        daemon: &Daemon,
        methods: Methods,
        dialect: Dialect,
    ) -> (Arc<Self>, Notifications) {
        static NEXT: AtomicUsize = AtomicUsize::new(1);
        let (sender, receiver) = mpsc::channel(NOTIFICATIONS);
        let session = Self {
            methods,
            limits: daemon.limits,
            id: ConnectionId(NEXT.fetch_add(1, Ordering::Relaxed)),
            sink: MethodSink::new(sender),
            subscriptions: BoundedSubscriptions::new(daemon.limits.subscriptions),
            cancellable: dialect == Dialect::Lsp,
            streams: dialect != Dialect::Http,
            slots: Semaphore::new(daemon.limits.in_flight.min(Semaphore::MAX_PERMITS)),
            calls: Mutex::default(),
        };
        (Arc::new(session), receiver)
    }

    /// The same client after an upgrade to WebSocket: subscriptions become possible.
    pub(super) fn upgraded(daemon: &Daemon, methods: Methods) -> (Arc<Self>, Notifications) {
        Self::new(daemon, methods, Dialect::Line)
    }

    pub(super) fn methods(&self) -> &Methods {
        &self.methods
    }

    /// Answers one message.
    pub(super) fn handle(self: Arc<Self>, message: bytes::Bytes) -> BoxFuture<'static, Answer> {
        Box::pin(async move { self.message(&message).await })
    }

    async fn message(&self, message: &[u8]) -> Answer {
        let Ok(text) = std::str::from_utf8(message) else {
            return last(&Fault::new(Kind::ParseError, "the message is not UTF-8"));
        };
        if !within_depth(message, self.limits.depth) {
            let fault = Fault::new(
                Kind::InvalidRequest,
                format!("the message nests deeper than {}", self.limits.depth),
            )
            .hint("raise `rpc.max_depth` in terokd.yml");
            return Answer::text(null_error(&fault));
        }
        match text.trim_start().as_bytes().first() {
            Some(b'[') => self.batch(text).await,
            _ => match serde_json::from_str::<&RawValue>(text) {
                Ok(one) => self.one(one.get()).await.map_or(Answer::NONE, Answer::text),
                Err(error) => last(&parse_error(&error)),
            },
        }
    }

    async fn batch(&self, text: &str) -> Answer {
        let calls: Vec<&RawValue> = match serde_json::from_str(text) {
            Ok(calls) => calls,
            Err(error) => return last(&parse_error(&error)),
        };
        if calls.is_empty() {
            return Answer::text(null_error(&Fault::new(
                Kind::InvalidRequest,
                "the batch is empty",
            )));
        }
        if calls.len() > self.limits.batch {
            let fault = Fault::new(
                Kind::InvalidRequest,
                format!(
                    "the batch has {} calls, {} are allowed",
                    calls.len(),
                    self.limits.batch
                ),
            );
            return Answer::text(null_error(
                &fault.hint("send several batches, or raise `rpc.max_batch` in terokd.yml"),
            ));
        }
        let taken = AtomicUsize::new(0);
        let answer = async |call: &RawValue| {
            if taken.load(Ordering::Relaxed) > BATCH_ANSWERS {
                return refused_in_batch(call);
            }
            let answer = self.one(call.get()).await;
            let bytes = answer.as_ref().map_or(0, String::len);
            taken.fetch_add(bytes, Ordering::Relaxed);
            answer
        };
        let calls: Vec<BoxFuture<'_, _>> = calls.iter().map(|call| answer(call).boxed()).collect();
        let answers: Vec<Option<String>> = futures_util::stream::iter(calls)
            .buffered(self.limits.in_flight)
            .collect()
            .await;
        let answers: Vec<String> = answers.into_iter().flatten().collect();
        if answers.is_empty() {
            Answer::NONE
        } else {
            Answer::text(format!("[{}]", answers.join(",")))
        }
    }

    /// One request of any shape. `None` for a notification and for a subscription, which answers by itself.
    async fn one(&self, text: &str) -> Option<String> {
        let request: Request<'_> = match serde_json::from_str(text) {
            Ok(request) => request,
            Err(error) => {
                let fault = Fault::new(
                    Kind::InvalidRequest,
                    format!("not a JSON-RPC request: {error}"),
                );
                return Some(null_error(&fault));
            }
        };
        let id = match request.id {
            None => None,
            Some(raw) => match WireId::parse(raw) {
                Some(id) => Some(id),
                None => {
                    let fault = Fault::new(
                        Kind::InvalidRequest,
                        "`id` must be a string, a number or null",
                    );
                    return Some(null_error(&fault));
                }
            },
        };
        let refuse = |fault: &Fault| {
            Some(
                id.as_ref()
                    .map_or_else(|| null_error(fault), |id| id.error(fault)),
            )
        };
        let (Some(method), Some("2.0")) = (request.method.as_deref(), request.jsonrpc.as_deref())
        else {
            return refuse(&Fault::new(
                Kind::InvalidRequest,
                "a request needs `jsonrpc: \"2.0\"` and `method`",
            ));
        };
        if let Some(params) = request.params.map(RawValue::get)
            && !matches!(params.as_bytes().first(), Some(b'{' | b'[' | b'n'))
        {
            return refuse(&Fault::new(
                Kind::InvalidRequest,
                "`params` must be an object or an array",
            ));
        }
        if self.cancellable && method == "$/cancelRequest" {
            self.withdraw(request.params);
            return id.as_ref().map(|id| id.success("null"));
        }
        let Some(callback) = self.methods.method(method) else {
            // A notification gets no answer, whatever is wrong with it.
            let fault = Fault::new(
                Kind::MethodNotFound,
                format!("there is no method `{method}`"),
            )
            .hint("`rpc.methods` lists them");
            return id.as_ref().map(|id| id.error(&fault));
        };
        let response = self
            .invoke(method, callback, id.as_ref(), request.params)
            .await;
        match (id, response) {
            (Some(id), Some(response)) => Some(id.restore(response)),
            _ => None,
        }
    }

    /// Runs a method of the table; `None` if it has answered through the sink.
    async fn invoke(
        &self,
        method: &str,
        callback: &MethodCallback,
        id: Option<&WireId>,
        params: Option<&RawValue>,
    ) -> Option<MethodResponse> {
        let params = Params::new(params.map(RawValue::get));
        let wire = id.map_or(Id::Null, WireId::id);
        let mut extensions = Extensions::new();
        let mut registered = None;
        if let (true, Some(id)) = (self.cancellable, id) {
            let call = Withdrawn::default();
            extensions.insert(call.clone());
            lock(&self.calls).insert(id.key(), call);
            registered = Some(id.key());
        }
        let response = match callback {
            MethodCallback::Sync(call) => call(wire, params, MAX_RESPONSE, extensions),
            MethodCallback::Async(call) => {
                // Never closed: without a slot the call would only run beyond the limit.
                let _slot = self.slots.acquire().await;
                call(
                    wire.into_owned(),
                    params.into_owned(),
                    self.id,
                    MAX_RESPONSE,
                    extensions,
                )
                .await
            }
            MethodCallback::Unsubscription(call) => match unsubscribing(method, &params) {
                Ok(one) => call(
                    wire,
                    Params::new(Some(&one)),
                    self.id,
                    MAX_RESPONSE,
                    extensions,
                ),
                Err(fault) => MethodResponse::error(wire, to_wire(&fault)),
            },
            MethodCallback::Subscription(call) => {
                if !self.streams || id.is_none() {
                    let fault = Fault::new(
                        Kind::InvalidRequest,
                        "a plain HTTP request cannot carry a subscription",
                    )
                    .hint("use a WebSocket, or the line or `Content-Length` framing");
                    return Some(MethodResponse::error(wire, to_wire(&fault)));
                }
                let Some(subscription_permit) = self.subscriptions.acquire() else {
                    let fault = Fault::new(
                        Kind::Overloaded,
                        format!("the connection has {} subscriptions", self.limits.subscriptions),
                    )
                    .hint("end one, open another connection, or raise `rpc.max_subscriptions` in terokd.yml");
                    return Some(MethodResponse::error(wire, to_wire(&fault)));
                };
                let state = SubscriptionState {
                    conn_id: self.id,
                    id_provider: &RandomStringIdProvider::new(16),
                    subscription_permit,
                };
                call(wire, params, self.sink.clone(), state, extensions).await
            }
        };
        if let Some(key) = registered {
            lock(&self.calls).remove(&key);
        }
        (!response.is_subscription()).then_some(response)
    }

    /// `$/cancelRequest {id}`.
    fn withdraw(&self, params: Option<&RawValue>) {
        #[derive(Deserialize)]
        struct Cancel<'a> {
            #[serde(borrow)]
            id: &'a RawValue,
        }
        let Some(cancel) = params.and_then(|p| serde_json::from_str::<Cancel<'_>>(p.get()).ok())
        else {
            return;
        };
        let Some(id) = WireId::parse(cancel.id) else {
            return;
        };
        if let Some(call) = lock(&self.calls).get(&id.key()) {
            call.0.cancel();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A request as it arrives. Members of no meaning are passed over, as JSON-RPC leaves room for them.
#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow, default)]
    jsonrpc: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "present")]
    params: Option<&'a RawValue>,
}

/// Tells a member that is null from one that is absent.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// The id of a request: null is one too, and so is a number that jsonrpsee's own type cannot hold.
#[derive(Debug)]
enum WireId {
    Plain(Id<'static>),
    /// A negative or fractional number, as written.
    Number(String),
}

/// How jsonrpsee begins a response whose id is null.
const NULL_ID: &str = r#"{"jsonrpc":"2.0","id":null,"#;

impl WireId {
    fn parse(raw: &RawValue) -> Option<Self> {
        let text = raw.get();
        match text.as_bytes().first()? {
            b'n' | b'"' => serde_json::from_str::<Id<'_>>(text)
                .ok()
                .map(|id| Self::Plain(id.into_owned())),
            b'-' | b'0'..=b'9' => Some(match text.parse() {
                Ok(number) => Self::Plain(Id::Number(number)),
                Err(_) => Self::Number(text.to_owned()),
            }),
            _ => None,
        }
    }

    fn id(&self) -> Id<'static> {
        match self {
            Self::Plain(id) => id.clone(),
            Self::Number(_) => Id::Null,
        }
    }

    fn key(&self) -> String {
        match self {
            Self::Plain(id) => serde_json::to_string(id).unwrap_or_default(),
            Self::Number(text) => text.clone(),
        }
    }

    fn error(&self, fault: &Fault) -> String {
        self.restore(MethodResponse::error(self.id(), to_wire(fault)))
    }

    fn success(&self, result: &str) -> String {
        format!(
            r#"{{"jsonrpc":"2.0","id":{},"result":{result}}}"#,
            self.key()
        )
    }

    /// Puts the id as written into a response that was made with a stand-in.
    fn restore(&self, response: MethodResponse) -> String {
        let text: String = Box::<str>::from(response.into_json()).into();
        match self {
            Self::Plain(_) => text,
            Self::Number(id) => match text.strip_prefix(NULL_ID) {
                Some(rest) => format!(r#"{{"jsonrpc":"2.0","id":{id},{rest}"#),
                None => text,
            },
        }
    }
}

/// The answer to a call of a batch whose answers are too much already. It did not run.
fn refused_in_batch(call: &RawValue) -> Option<String> {
    let fault = Fault::new(
        Kind::Overloaded,
        format!("the answers of the batch exceed {BATCH_ANSWERS} bytes; this call was not run"),
    )
    .hint("send it in a batch of its own");
    match serde_json::from_str::<Request<'_>>(call.get()) {
        Ok(request) => WireId::parse(request.id?).map(|id| id.error(&fault)),
        Err(_) => Some(null_error(&fault)),
    }
}

fn parse_error(error: &serde_json::Error) -> Fault {
    Fault::new(
        Kind::ParseError,
        format!("the message is not JSON: {error}"),
    )
}

/// An answer to what has no usable id.
pub(super) fn null_error(fault: &Fault) -> String {
    MethodResponse::error(Id::Null, to_wire(fault))
        .as_ref()
        .to_owned()
}

/// The last answer on a connection.
pub(super) fn last(fault: &Fault) -> Answer {
    Answer {
        text: Some(null_error(fault)),
        close: true,
    }
}

/// Sends one error and ends the connection, for peers whose dialect is unknown.
pub(super) async fn last_words(mut stream: UnixStream, fault: &Fault) {
    let text = format!("{}\n", null_error(fault));
    let _ = stream.write_all(text.as_bytes()).await;
    let _ = stream.shutdown().await;
}

/// What a client reads that found all connections taken.
pub(super) fn too_many_connections(limits: &Limits) -> String {
    let fault = Fault::new(
        Kind::Overloaded,
        format!("all {} connections are taken", limits.connections),
    )
    .retry_after_ms(1_000)
    .hint("close idle clients, or raise `rpc.max_connections` in terokd.yml");
    format!("{}\n", null_error(&fault))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_whatever_their_shape() {
        for text in [
            "null",
            "7",
            "-7",
            "1.5",
            "1e3",
            r#""a\"b""#,
            "18446744073709551616",
        ] {
            let raw: &RawValue = serde_json::from_str(text).expect("JSON");
            let id = WireId::parse(raw).expect(text);
            let error = id.error(&Fault::internal("x"));
            assert!(
                error.starts_with(&format!(r#"{{"jsonrpc":"2.0","id":{text},"error":"#)),
                "{error}"
            );
        }
        for text in ["true", "[1]", "{}"] {
            let raw: &RawValue = serde_json::from_str(text).expect("JSON");
            assert!(WireId::parse(raw).is_none(), "{text}");
        }
    }

    #[test]
    fn a_null_id_is_not_an_absent_one() {
        let null: Request<'_> = serde_json::from_str(r#"{"id":null}"#).expect("JSON");
        let absent: Request<'_> = serde_json::from_str("{}").expect("JSON");
        assert!(null.id.is_some() && absent.id.is_none());
    }
}
