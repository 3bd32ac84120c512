//! A request from its first line to its answer: route, then authentication, then token, then scope, then git.
#![allow(
    clippy::result_large_err,
    reason = "an answer is an answer, whichever way it goes"
)]

use crate::exchange::{self, Exchange, Refusal, Start};
use crate::git::{Group, speaks_v2, valid_protocol};
use crate::listen::Origin;
use crate::repository::Repository;
use crate::route::{Endpoint, Route, Service, route};
use crate::server::{Active, Inner};
use crate::tokens::Grant;
use crate::{admission::Permit, auth};
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue,
    RETRY_AFTER, WWW_AUTHENTICATE,
};
use hyper::{Method, Request, Response, StatusCode};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use tokio::sync::{mpsc, oneshot};

/// A `Retry-After` for those who found everything taken.
const RETRY_SECONDS: &str = "5";

/// The one text for everybody whose token does not open what was asked for.
const FORBIDDEN: &str = "this token does not open this repository\n";

/// Answers one request.
pub(crate) async fn answer(
    inner: Arc<Inner>,
    origin: Arc<Origin>,
    request: Request<Incoming>,
) -> Response<Reply> {
    inner.requests.fetch_add(1, Ordering::Relaxed);
    // One request, whoever still works on it.
    let active = Arc::new(inner.active());
    let (parts, body) = request.into_parts();
    let post = match parts.method {
        Method::GET => false,
        Method::POST => true,
        _ => {
            return text(
                StatusCode::NOT_IMPLEMENTED,
                "only GET and POST exist here\n",
            );
        }
    };
    let Some(route) = route(parts.uri.path()) else {
        return text(StatusCode::NOT_FOUND, "there is nothing here\n");
    };
    let Some(user) = auth::user(&parts.headers) else {
        let mut response = text(
            StatusCode::UNAUTHORIZED,
            "the address needs a token: http://TOKEN@host/name.git\n",
        );
        response.headers_mut().insert(
            WWW_AUTHENTICATE,
            HeaderValue::from_static("Basic realm=\"terok gate\""),
        );
        return response;
    };
    let grant = inner
        .tokens
        .lookup(&user)
        .filter(|grant| grant.gate_path == inner.base.path().join(route.name))
        .filter(|grant| origin.admits(&grant.scope, &grant.task_id));
    let Some(grant) = grant else {
        return text(StatusCode::FORBIDDEN, FORBIDDEN);
    };
    tracing::debug!(scope = grant.scope, task = grant.task_id, repository = route.name, endpoint = ?route.endpoint, "request");
    let request = Authorised {
        inner,
        active,
        grant,
        route,
        query: parts.uri.query(),
        headers: &parts.headers,
    };
    match request.answer(post, body).await {
        Ok(response) | Err(response) => response,
    }
}

/// A request whose token opens the repository that it names.
struct Authorised<'a> {
    inner: Arc<Inner>,
    active: Arc<Active>,
    grant: Arc<Grant>,
    route: Route<'a>,
    query: Option<&'a str>,
    headers: &'a HeaderMap,
}

type Answer = Result<Response<Reply>, Response<Reply>>;

impl Authorised<'_> {
    async fn answer(self, post: bool, body: Incoming) -> Answer {
        match (self.route.endpoint, post) {
            (Endpoint::Head, false) => self.head(),
            (Endpoint::InfoRefs, false) => match Service::from_query(self.query) {
                Ok(Some(service)) => self.advertise(service).await,
                Ok(None) => self.list().await,
                Err(()) => Err(text(StatusCode::FORBIDDEN, "there is no such service\n")),
            },
            (Endpoint::Rpc(service), true) => self.serve(service, body).await,
            (endpoint, _) => {
                let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "not with this method\n");
                let allow = if matches!(endpoint, Endpoint::Rpc(_)) {
                    "POST"
                } else {
                    "GET"
                };
                response
                    .headers_mut()
                    .insert(ALLOW, HeaderValue::from_static(allow));
                Err(response)
            }
        }
    }

    fn head(&self) -> Answer {
        let head = self
            .repository()?
            .head()
            .map_err(|error| self.missing(&error))?;
        Ok(plain(StatusCode::OK, Bytes::from(head)))
    }

    async fn list(&self) -> Answer {
        let repository = self.repository()?;
        let permit = self.permit().await?;
        let child = self
            .inner
            .git
            .list(&repository)
            .map_err(|error| self.unstartable(&error))?;
        let kind = HeaderValue::from_static("text/plain; charset=utf-8");
        self.run(child, None, Service::UploadPack, permit, kind, None)
            .await
    }

    async fn advertise(&self, service: Service) -> Answer {
        let repository = self.repository()?;
        let protocol = self.protocol();
        let permit = self.permit().await?;
        let child = self
            .inner
            .git
            .advertise(service, &repository, protocol)
            .map_err(|error| self.unstartable(&error))?;
        let preface = (service == Service::ReceivePack || !speaks_v2(protocol)).then(|| {
            let line = format!("# service={}\n", service.name());
            Bytes::from(format!("{:04x}{line}0000", line.len() + 4))
        });
        let kind = content_type(service, "advertisement");
        self.run(child, None, service, permit, kind, preface).await
    }

    async fn serve(&self, service: Service, incoming: Incoming) -> Answer {
        if self.headers.get(CONTENT_TYPE) != Some(&content_type(service, "request")) {
            return Err(text(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "the content type is another\n",
            ));
        }
        let gzip = match self
            .headers
            .get(CONTENT_ENCODING)
            .map(HeaderValue::as_bytes)
        {
            None => false,
            Some(name) if name.eq_ignore_ascii_case(b"identity") => false,
            Some(name)
                if name.eq_ignore_ascii_case(b"gzip") || name.eq_ignore_ascii_case(b"x-gzip") =>
            {
                true
            }
            Some(_) => {
                return Err(text(
                    StatusCode::UNSUPPORTED_MEDIA_TYPE,
                    "the encoding is none of identity and gzip\n",
                ));
            }
        };
        let limit = self.inner.limits.max_push_bytes;
        // Hyper has refused what is no number.
        let announced = self
            .headers
            .get(CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if announced.is_some_and(|length| length > limit) {
            return Err(refused(Refusal::TooLarge));
        }
        let repository = self.repository()?;
        let permit = self.permit().await?;
        let writes = service == Service::ReceivePack;
        let report = if writes {
            Some(
                self.inner
                    .report(&self.grant)
                    .map_err(|error| self.unstartable(&error))?,
            )
        } else {
            None
        };
        let path = report.as_ref().map(tempfile::TempPath::as_ref);
        let child = self
            .inner
            .git
            .serve(service, &repository, self.protocol(), &self.grant, path)
            .map_err(|error| self.unstartable(&error))?;
        let body = exchange::Body {
            incoming,
            gzip,
            limit,
        };
        let kind = content_type(service, "result");
        self.run(child, Some((body, report)), service, permit, kind, None)
            .await
    }

    /// Lets the child answer, and comes back with the beginning of what it says.
    async fn run(
        &self,
        group: Group,
        input: Option<(exchange::Body, Option<tempfile::TempPath>)>,
        service: Service,
        permit: Permit,
        kind: HeaderValue,
        preface: Option<Bytes>,
    ) -> Answer {
        let limits = &self.inner.limits;
        let (body, report) = input.unzip();
        let exchange = Exchange {
            group,
            body,
            idle: limits.idle,
            settle: (service == Service::ReceivePack).then_some(limits.settle),
            stop: self.inner.stop.clone(),
        };
        let (sender, receiver) = oneshot::channel();
        let inner = Arc::clone(&self.inner);
        let finish = move |killed| {
            if let Some(report) = report.flatten() {
                inner.pushed(report, killed);
            }
        };
        let active = Arc::clone(&self.active);
        self.inner.tasks.spawn(async move {
            exchange.run(sender, finish).await;
            drop((permit, active));
        });
        let reply = match receiver.await.unwrap_or(Start::Refused(Refusal::Failed)) {
            Start::Output(first, rest) => Reply::stream(preface, first, rest),
            Start::Silent => Reply::Whole(preface),
            Start::Refused(refusal) => return Err(refused(refusal)),
        };
        let mut response = Response::new(reply);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, kind);
        headers.insert(
            CACHE_CONTROL,
            HeaderValue::from_static("no-cache, max-age=0, must-revalidate"),
        );
        Ok(response)
    }

    fn repository(&self) -> Result<Repository, Response<Reply>> {
        let opened = self.inner.base.repository(self.route.name);
        opened.map_err(|error| self.missing(&error))
    }

    async fn permit(&self) -> Result<Permit, Response<Reply>> {
        let entered = self
            .inner
            .admission
            .enter(&self.grant.scope, &self.grant.task_id);
        entered.await.ok_or_else(|| {
            tracing::warn!(
                scope = self.grant.scope,
                task = self.grant.task_id,
                "too many requests: one was turned away"
            );
            let mut response = text(
                StatusCode::SERVICE_UNAVAILABLE,
                "too many requests at once: try again\n",
            );
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from_static(RETRY_SECONDS));
            response
        })
    }

    fn protocol(&self) -> Option<&str> {
        let value = self.headers.get("git-protocol")?.to_str().ok()?;
        valid_protocol(value).then_some(value)
    }

    fn missing(&self, error: &io::Error) -> Response<Reply> {
        tracing::debug!(gate = %self.grant.gate_path.display(), %error, "the gate cannot be opened");
        text(
            StatusCode::NOT_FOUND,
            "the gate does not exist: run `terokctl gate sync` on the host\n",
        )
    }

    fn unstartable(&self, error: &io::Error) -> Response<Reply> {
        tracing::warn!(gate = %self.grant.gate_path.display(), %error, "git cannot be started");
        text(
            StatusCode::INTERNAL_SERVER_ERROR,
            "git cannot be started on the host\n",
        )
    }
}

fn content_type(service: Service, what: &str) -> HeaderValue {
    HeaderValue::from_str(&format!("application/x-{}-{what}", service.name()))
        .expect("letters and dashes")
}

fn refused(refusal: Refusal) -> Response<Reply> {
    let (status, message) = match refusal {
        Refusal::Gone => (StatusCode::BAD_REQUEST, "the body ended too soon\n"),
        Refusal::TooLarge => (
            StatusCode::PAYLOAD_TOO_LARGE,
            "the push is larger than `gate_server.max_push_bytes` allows\n",
        ),
        Refusal::Garbled => (
            StatusCode::BAD_REQUEST,
            "the body is not what its encoding says\n",
        ),
        Refusal::Idle => (
            StatusCode::REQUEST_TIMEOUT,
            "nothing arrived for too long\n",
        ),
        Refusal::Stopping => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the gate server is stopping\n",
        ),
        Refusal::Failed => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "git failed on the host\n",
        ),
    };
    let mut response = text(status, message);
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from_static(RETRY_SECONDS));
    }
    response
}

fn text(status: StatusCode, message: &'static str) -> Response<Reply> {
    plain(status, Bytes::from_static(message.as_bytes()))
}

fn plain(status: StatusCode, body: Bytes) -> Response<Reply> {
    let mut response = Response::new(Reply::Whole(Some(body)));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// The body of an answer.
#[derive(Debug)]
pub(crate) enum Reply {
    /// Known as a whole.
    Whole(Option<Bytes>),
    /// As it comes.
    Stream {
        /// What is there already, last first.
        ready: Vec<Bytes>,
        /// What follows.
        rest: mpsc::Receiver<io::Result<Bytes>>,
    },
}

impl Reply {
    fn stream(
        preface: Option<Bytes>,
        first: Bytes,
        rest: mpsc::Receiver<io::Result<Bytes>>,
    ) -> Self {
        let mut ready = vec![first];
        ready.extend(preface);
        Self::Stream { ready, rest }
    }
}

impl HttpBody for Reply {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Whole(body) => Poll::Ready(body.take().map(|body| Ok(Frame::data(body)))),
            Self::Stream { ready, rest } => match ready.pop() {
                Some(piece) => Poll::Ready(Some(Ok(Frame::data(piece)))),
                None => rest
                    .poll_recv(context)
                    .map(|piece| Some(piece?.map(Frame::data))),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => SizeHint::with_exact(body.as_ref().map_or(0, Bytes::len) as u64),
            Self::Stream { .. } => SizeHint::default(),
        }
    }
}
