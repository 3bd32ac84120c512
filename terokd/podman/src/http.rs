//! One request over one fresh connection, with a deadline and a limit: the thin client under everything that
//! podman-api has no words for.

use crate::fault;
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use std::io;
use std::time::Duration;
use terok_proto::Fault;
use tokio::net::UnixStream;
use tokio::task::AbortHandle;
use tokio::time::timeout;

pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A body that is all there.
pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    http_body_util::Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// What is asked.
pub(crate) struct Call {
    /// For messages: `the list of images`.
    pub(crate) what: String,
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) content_type: Option<&'static str>,
    pub(crate) body: Body,
}

impl Call {
    pub(crate) fn new(what: impl Into<String>, method: Method, path: String) -> Self {
        Self {
            what: what.into(),
            method,
            path,
            content_type: None,
            body: full(Bytes::new()),
        }
    }

    pub(crate) fn body(mut self, content_type: &'static str, body: Body) -> Self {
        self.content_type = Some(content_type);
        self.body = body;
        self
    }
}

/// The head of an answer, and its body as it arrives. Dropping it closes the connection.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) what: String,
    pub(crate) status: u16,
    body: Incoming,
    _connection: Closing,
}

/// Ends the task that drives a connection, and the connection with it.
#[derive(Debug)]
struct Closing(AbortHandle);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Sends a call and waits for the head of the answer; the caller keeps the deadline.
pub(crate) async fn send(stream: UnixStream, call: Call) -> Result<Answer, Fault> {
    let Call {
        what,
        method,
        path,
        content_type,
        body,
    } = call;
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("Host", "podman");
    if let Some(content_type) = content_type {
        request = request.header("Content-Type", content_type);
    }
    let request = request
        .body(body)
        .map_err(|error| Fault::internal(format!("{what} is no HTTP request: {error}")))?;
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_headers(100)
        .max_buf_size(64 << 10)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| fault::broken(&what, error))?;
    let driver = tokio::spawn(async move {
        // Its failures arrive at the request, too.
        let _ = connection.await;
    });
    let closing = Closing(driver.abort_handle());
    let response = sender
        .send_request(request)
        .await
        .map_err(|error| translate(&what, &error))?;
    let (head, body) = response.into_parts();
    Ok(Answer {
        what,
        status: head.status.as_u16(),
        body,
        _connection: closing,
    })
}

fn translate(what: &str, error: &hyper::Error) -> Fault {
    if error.is_parse() {
        fault::nonsense(what, error)
    } else {
        let source = std::error::Error::source(error)
            .map(|source| format!(" ({source})"))
            .unwrap_or_default();
        fault::broken(what, format!("{error}{source}"))
    }
}

impl Answer {
    /// The next piece of the body, `None` at its regular end.
    pub(crate) async fn piece(&mut self) -> Result<Option<Bytes>, Fault> {
        loop {
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(translate(&self.what, &error)),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data()
                        && !data.is_empty()
                    {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// The next piece, if it comes within `idle`.
    pub(crate) async fn piece_within(&mut self, idle: Duration) -> Result<Option<Bytes>, Fault> {
        match timeout(idle, self.piece()).await {
            Ok(piece) => piece,
            Err(_) => Err(fault::timeout(&self.what, idle)),
        }
    }

    async fn collect(&mut self, limit: usize) -> Result<Bytes, Fault> {
        let mut all = BytesMut::new();
        while let Some(piece) = self.piece().await? {
            if all.len() + piece.len() > limit {
                return Err(fault::nonsense(
                    &self.what,
                    format!("it is longer than {limit} bytes"),
                ));
            }
            all.extend_from_slice(&piece);
        }
        Ok(all.freeze())
    }

    /// The whole answer.
    pub(crate) async fn whole(mut self, limit: usize) -> Result<Whole, Fault> {
        // Of an error only the message is wanted.
        let limit = if self.status < 400 {
            limit
        } else {
            limit.min(1 << 20)
        };
        let body = self.collect(limit).await?;
        Ok(Whole {
            what: self.what,
            status: self.status,
            body,
        })
    }
}

/// An answer that has been read.
#[derive(Debug)]
pub(crate) struct Whole {
    what: String,
    pub(crate) status: u16,
    pub(crate) body: Bytes,
}

impl Whole {
    /// Fails unless Podman did what was asked. 304 says that it was so already.
    pub(crate) fn done(self) -> Result<Self, Fault> {
        match self.status {
            200..300 | 304 => Ok(self),
            status => Err(fault::refused(&self.what, status, &self.body)),
        }
    }

    /// `None` if what was asked about does not exist.
    pub(crate) fn found(self) -> Result<Option<Self>, Fault> {
        if self.status == 404 {
            Ok(None)
        } else {
            self.done().map(Some)
        }
    }

    pub(crate) fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T, Fault> {
        serde_json::from_slice(&self.body).map_err(|error| fault::nonsense(&self.what, error))
    }
}
