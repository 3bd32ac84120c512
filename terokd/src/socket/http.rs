//! HTTP/1.1 on the same socket: calls by POST, WebSocket by upgrade, and what monitoring reads.

use super::session::{Session, last, null_error};
use super::stream::{Rewound, StreamError, Transport};
use super::{conversation, garbage, session::Notifications};
use crate::daemon::Daemon;
use bytes::Bytes;
use futures_util::{Sink, Stream, ready};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderMap, HeaderValue, UPGRADE};
use hyper::{Method, Request, Response, StatusCode, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};
use terok_proto::codec::FrameError;
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

type Answer = Response<Full<Bytes>>;

/// Serves one HTTP connection.
pub(super) async fn serve(
    daemon: Arc<Daemon>,
    (session, _no_notifications): (Arc<Session>, Notifications),
    stream: Rewound,
    first_message: Instant,
) {
    let begun = Arc::new(AtomicBool::new(false));
    let service = hyper::service::service_fn({
        let (daemon, begun) = (Arc::clone(&daemon), Arc::clone(&begun));
        move |request| {
            let (daemon, session, begun) = (
                Arc::clone(&daemon),
                Arc::clone(&session),
                Arc::clone(&begun),
            );
            async move {
                Ok::<_, Infallible>(route(&daemon, session, request, &begun, first_message).await)
            }
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let mut late = pin!(tokio::time::sleep_until(first_message));
    let mut stopping = false;
    loop {
        tokio::select! {
            _ = connection.as_mut() => return,
            () = late.as_mut(), if !begun.load(Relaxed) => {
                if !begun.swap(true, Relaxed) {
                    return;
                }
            }
            () = daemon.tasks.stopping().cancelled(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

async fn route(
    daemon: &Arc<Daemon>,
    session: Arc<Session>,
    request: Request<Incoming>,
    begun: &AtomicBool,
    first_message: Instant,
) -> Answer {
    match (request.method(), request.uri().path()) {
        (&Method::POST, "/") => call(daemon, session, request, begun, first_message).await,
        (&Method::GET, "/") => {
            begun.store(true, Relaxed);
            upgrade(daemon, &session, request)
        }
        (&Method::OPTIONS, _) => {
            begun.store(true, Relaxed);
            let mut answer = plain(StatusCode::NO_CONTENT, "text/plain", String::new());
            answer
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET, HEAD, OPTIONS, POST"));
            answer
        }
        (method, path) => {
            begun.store(true, Relaxed);
            let mut answer = match path {
                _ if method == Method::POST => not_found(),
                "/healthz" => plain(
                    StatusCode::OK,
                    "text/plain; charset=utf-8",
                    "ok\n".to_owned(),
                ),
                "/metrics" => plain(
                    StatusCode::OK,
                    "text/plain; version=0.0.4; charset=utf-8",
                    daemon.render_metrics(),
                ),
                "/openrpc.json" => {
                    let document = crate::rpc::discover::document(daemon);
                    plain(
                        StatusCode::OK,
                        "application/json",
                        serde_json::Value::Object(document).to_string(),
                    )
                }
                _ => not_found(),
            };
            if method == Method::HEAD {
                *answer.body_mut() = Full::default();
            }
            answer
        }
    }
}

/// `POST /`: one message, one answer.
async fn call(
    daemon: &Arc<Daemon>,
    session: Arc<Session>,
    request: Request<Incoming>,
    begun: &AtomicBool,
    first_message: Instant,
) -> Answer {
    let limit = daemon.limits.message_bytes;
    let collected = Limited::new(request.into_body(), limit).collect();
    let collected = if begun.load(Relaxed) {
        collected.await
    } else {
        match tokio::time::timeout_at(first_message, collected).await {
            Ok(collected) => collected,
            Err(_) => {
                return closing(plain(
                    StatusCode::REQUEST_TIMEOUT,
                    "text/plain",
                    String::new(),
                ));
            }
        }
    };
    begun.store(true, Relaxed);
    let body = match collected {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            daemon.metrics.bad_streams.fetch_add(1, Relaxed);
            let text = null_error(&garbage(FrameError::TooLarge { limit }));
            return closing(plain(
                StatusCode::PAYLOAD_TOO_LARGE,
                "application/json",
                text,
            ));
        }
        Err(_) => return closing(plain(StatusCode::BAD_REQUEST, "text/plain", String::new())),
    };
    if body.trim_ascii().is_empty() {
        let answer = last(&garbage(FrameError::Garbage));
        return closing(plain(
            StatusCode::BAD_REQUEST,
            "application/json",
            answer.text.unwrap_or_default(),
        ));
    }
    let answer = session.handle(body).await;
    let response = match answer.text {
        Some(text) => plain(StatusCode::OK, "application/json", text),
        None => plain(StatusCode::NO_CONTENT, "application/json", String::new()),
    };
    if answer.close {
        closing(response)
    } else {
        response
    }
}

fn plain(status: StatusCode, kind: &'static str, text: String) -> Answer {
    let mut answer = Response::new(Full::from(text));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

fn not_found() -> Answer {
    plain(
        StatusCode::NOT_FOUND,
        "text/plain; charset=utf-8",
        "POST / calls, GET / upgrades to WebSocket; GET /healthz, /metrics, /openrpc.json\n"
            .to_owned(),
    )
}

fn closing(mut answer: Answer) -> Answer {
    answer
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}

fn has_token(headers: &HeaderMap, name: hyper::header::HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|part| part.trim().eq_ignore_ascii_case(token))
}

/// `GET /`: a WebSocket handshake, or an explanation.
fn upgrade(daemon: &Arc<Daemon>, session: &Session, mut request: Request<Incoming>) -> Answer {
    let headers = request.headers();
    let key = headers
        .get("sec-websocket-key")
        .map(|key| derive_accept_key(key.as_bytes()));
    let wanted =
        has_token(headers, UPGRADE, "websocket") && has_token(headers, CONNECTION, "upgrade");
    let version = headers
        .get("sec-websocket-version")
        .is_some_and(|v| v == "13");
    let (Some(key), true, true) = (key, wanted, version) else {
        let mut answer = plain(
            StatusCode::UPGRADE_REQUIRED,
            "text/plain; charset=utf-8",
            "this address speaks WebSocket (version 13), or JSON-RPC by POST\n".to_owned(),
        );
        answer
            .headers_mut()
            .insert(UPGRADE, HeaderValue::from_static("websocket"));
        answer
            .headers_mut()
            .insert("sec-websocket-version", HeaderValue::from_static("13"));
        return answer;
    };
    let Ok(accept) = HeaderValue::from_str(&key) else {
        return plain(StatusCode::BAD_REQUEST, "text/plain", String::new());
    };
    let pending = hyper::upgrade::on(&mut request);
    let fresh = Session::upgraded(daemon, session.methods().clone());
    let inner = Arc::clone(daemon);
    daemon.tasks.spawn("websocket", async move {
        let Ok(upgraded) = pending.await else { return };
        inner.metrics.dialects[3].fetch_add(1, Relaxed);
        let max = inner.limits.message_bytes;
        let config = WebSocketConfig::default()
            .max_message_size(Some(max))
            .max_frame_size(Some(max))
            .max_write_buffer_size(usize::MAX);
        let socket =
            WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config))
                .await;
        conversation::hold(&inner, fresh, WebSocket(socket, max), None).await;
    });
    let mut answer = plain(StatusCode::SWITCHING_PROTOCOLS, "text/plain", String::new());
    let headers = answer.headers_mut();
    headers.remove(CONTENT_TYPE);
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert("sec-websocket-accept", accept);
    answer
}

/// A WebSocket as a stream of messages.
struct WebSocket(WebSocketStream<TokioIo<Upgraded>>, usize);

impl WebSocket {
    fn error(&self, error: WsError) -> StreamError {
        match error {
            WsError::Io(error) => StreamError::Io(error),
            WsError::Capacity(_) => StreamError::Frame(FrameError::TooLarge { limit: self.1 }),
            WsError::Utf8(_) => StreamError::Frame(FrameError::Garbage),
            other => StreamError::Io(std::io::Error::other(other)),
        }
    }
}

impl Stream for WebSocket {
    type Item = Result<Bytes, StreamError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let message = ready!(Pin::new(&mut self.0).poll_next(cx));
            return Poll::Ready(match message {
                None
                | Some(
                    Ok(Message::Close(_)) | Err(WsError::ConnectionClosed | WsError::AlreadyClosed),
                ) => None,
                Some(Ok(Message::Text(text))) => Some(Ok(text.into())),
                Some(Ok(Message::Binary(bytes))) => Some(Ok(bytes)),
                // Answers to pings are queued by the library and go out with the next write or read.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
                Some(Err(error)) => Some(Err(self.error(error))),
            });
        }
    }
}

impl Sink<String> for WebSocket {
    type Error = StreamError;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        Pin::new(&mut self.0)
            .poll_ready(cx)
            .map_err(|e| self.error(e))
    }
    fn start_send(mut self: Pin<&mut Self>, text: String) -> Result<(), StreamError> {
        Pin::new(&mut self.0)
            .start_send(Message::text(text))
            .map_err(|e| self.error(e))
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        Pin::new(&mut self.0)
            .poll_flush(cx)
            .map_err(|e| self.error(e))
    }
    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        Pin::new(&mut self.0)
            .poll_close(cx)
            .map_err(|e| self.error(e))
    }
}

impl Transport for WebSocket {
    /// WebSocket knows no half-closed connection: the end of the stream is the end.
    fn hung_up(&self) -> bool {
        true
    }
}
