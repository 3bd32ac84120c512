//! One request and its child: the body in, the answer out, both at the pace of the slower side, and who ends whom.
//!
//! Runs as a task of its own, so that what has to be tidied up is tidied up when the connection is gone.

use crate::git::Group;
use crate::gunzip::Gunzip;
use crate::token::mask;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use std::future::Future;
use std::io;
use std::process::ExitStatus;
use std::time::Duration;
use terok_proto::error::printable_line;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Bytes of an answer that are read at once.
const PIECE: usize = 32 << 10;

/// Bytes of a child's complaints that reach the log.
const COMPLAINTS: u64 = 4096;

/// How long a push that is stopped may take to tidy up after the end of its input: a signal would make git leave what has
/// arrived so far.
const CLOSING: Duration = Duration::from_millis(500);

/// How long the last complaints of a child are waited for, whose pipe something of its own may hold.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// A child with its request.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) group: Group,
    pub(crate) body: Option<Body>,
    pub(crate) idle: Duration,
    /// Writing goes on for so long with what has arrived when the client is gone: a push is either done with
    /// everything that belongs to it, or not at all. Reading ends at once.
    pub(crate) settle: Option<Duration>,
    pub(crate) stop: CancellationToken,
}

/// The body of a request.
#[derive(Debug)]
pub(crate) struct Body {
    pub(crate) incoming: Incoming,
    pub(crate) gzip: bool,
    pub(crate) limit: u64,
}

/// How the answer begins.
#[derive(Debug)]
pub(crate) enum Start {
    /// Everything is well and the child has said something; the rest follows.
    Output(Bytes, mpsc::Receiver<io::Result<Bytes>>),
    /// Everything is well and the child had nothing to say.
    Silent,
    /// There is no answer.
    Refused(Refusal),
}

/// Why a request ended before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The client is gone, or speaks no HTTP any more.
    Gone,
    /// The body is larger than allowed.
    TooLarge,
    /// The body is not what its encoding says.
    Garbled,
    /// The client neither sends nor reads.
    Idle,
    /// The server stops.
    Stopping,
    /// Git failed without a word.
    Failed,
}

impl Exchange {
    /// Runs to the end. `finish` runs after the child's end and before the end of the answer; it is told whether the child was
    /// killed, so that a hook of its own may still be at work.
    pub(crate) async fn run(self, start: oneshot::Sender<Start>, finish: impl FnOnce(bool)) {
        let Self {
            mut group,
            body,
            idle,
            settle,
            stop,
        } = self;
        let (stdin, mut stdout, stderr) = (
            group.child.stdin.take(),
            group.child.stdout.take(),
            group.child.stderr.take(),
        );
        let complaints = tokio::spawn(log(stderr));
        let mut answer = Answer {
            start: Some(start),
            rest: None,
            idle,
        };
        let conversation = converse(body, stdin, stdout.as_mut(), &mut answer);
        let ended = tokio::select! {
            result = conversation => result,
            () = stop.cancelled() => Err(Refusal::Stopping),
        };
        let mut killed = false;
        let status = match ended {
            Ok(()) => {
                let patience = settle.unwrap_or(idle);
                let status = let_go(group.wait(), patience, &stop).await;
                killed = status.is_none();
                status.and_then(Result::ok).ok_or(Refusal::Failed)
            }
            Err(refusal) => {
                answer.refuse(refusal);
                if let Some(settle) = settle {
                    // Its input has ended, because the conversation that held it is over.
                    let rest = async {
                        drain(stdout).await;
                        let _ = group.wait().await;
                    };
                    killed = let_go(rest, settle, &stop).await.is_none();
                }
                Err(refusal)
            }
        };
        if status.is_err() {
            group.end().await;
        }
        let _ = timeout(LAST_WORDS, complaints).await;
        finish(killed);
        match status {
            Ok(status) => answer.finish(status),
            Err(refusal) => answer.refuse(refusal),
        }
    }
}

/// Where the answer goes: first its beginning, then piece by piece.
struct Answer {
    start: Option<oneshot::Sender<Start>>,
    rest: Option<mpsc::Sender<io::Result<Bytes>>>,
    idle: Duration,
}

impl Answer {
    /// Passes a piece on, and waits until the client has room for it.
    async fn send(&mut self, piece: Bytes) -> Result<(), Refusal> {
        if let Some(start) = self.start.take() {
            let (sender, receiver) = mpsc::channel(1);
            self.rest = Some(sender);
            return start
                .send(Start::Output(piece, receiver))
                .map_err(|_| Refusal::Gone);
        }
        let Some(rest) = &self.rest else {
            return Err(Refusal::Gone);
        };
        match timeout(self.idle, rest.send(Ok(piece))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Refusal::Gone),
            Err(_) => Err(Refusal::Idle),
        }
    }

    /// Waits until nobody wants the answer any more.
    async fn unwanted(&mut self) {
        match (&mut self.start, &self.rest) {
            (Some(start), _) => start.closed().await,
            (None, Some(rest)) => rest.closed().await,
            (None, None) => {}
        }
    }

    /// Says that there will be no answer, or cuts it off.
    fn refuse(&mut self, refusal: Refusal) {
        if let Some(start) = self.start.take() {
            let _ = start.send(Start::Refused(refusal));
        } else if let Some(rest) = self.rest.take() {
            let _ = rest.try_send(Err(io::Error::other("the answer was cut off")));
        }
    }

    /// The child has ended and everything it said was passed on.
    fn finish(mut self, status: ExitStatus) {
        if let Some(start) = self.start.take() {
            let _ = start.send(if status.success() {
                Start::Silent
            } else {
                Start::Refused(Refusal::Failed)
            });
        }
    }
}

/// Both directions at once, until the child has said everything.
async fn converse(
    body: Option<Body>,
    stdin: Option<ChildStdin>,
    stdout: Option<&mut ChildStdout>,
    answer: &mut Answer,
) -> Result<(), Refusal> {
    let Some(stdout) = stdout else {
        return Err(Refusal::Failed);
    };
    let feeding = feed(body, stdin, answer.idle);
    tokio::pin!(feeding);
    let mut fed = false;
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(PIECE);
        tokio::select! {
            result = &mut feeding, if !fed => match result {
                Ok(()) => fed = true,
                Err(refusal) => return Err(refusal),
            },
            read = stdout.read_buf(&mut buffer) => match read {
                Ok(0) | Err(_) => return Ok(()),
                Ok(_) => {
                    let piece = buffer.split().freeze();
                    // Sending waits for the client; the body goes on meanwhile.
                    let sending = answer.send(piece);
                    tokio::pin!(sending);
                    let sent = loop {
                        tokio::select! {
                            sent = &mut sending => break sent,
                            result = &mut feeding, if !fed => match result {
                                Ok(()) => fed = true,
                                Err(refusal) => break Err(refusal),
                            },
                        }
                    };
                    sent?;
                }
            },
            () = answer.unwanted() => return Err(Refusal::Gone),
        }
    }
}

/// Passes the body on to the child, unpacked and counted, then closes its input.
async fn feed(
    body: Option<Body>,
    stdin: Option<ChildStdin>,
    idle: Duration,
) -> Result<(), Refusal> {
    let Some(body) = body else { return Ok(()) };
    let Body {
        mut incoming,
        gzip,
        limit,
    } = body;
    let mut gunzip = gzip.then(Gunzip::new);
    let mut sink = Sink { stdin, left: limit };
    loop {
        let frame = match timeout(idle, incoming.frame()).await {
            Err(_) => return Err(Refusal::Idle),
            Ok(None) => break,
            Ok(Some(Err(_))) => return Err(Refusal::Gone),
            Ok(Some(Ok(frame))) => frame,
        };
        let Ok(mut data) = frame.into_data() else {
            continue;
        };
        match &mut gunzip {
            None => sink.take(&data).await?,
            Some(gunzip) => {
                while !data.is_empty() {
                    let unpacked = gunzip.step(&mut data).map_err(|_| Refusal::Garbled)?;
                    sink.take(&unpacked).await?;
                }
            }
        }
    }
    if let Some(gunzip) = gunzip {
        let unpacked = gunzip.finish().map_err(|_| Refusal::Garbled)?;
        sink.take(&unpacked).await?;
    }
    Ok(())
}

struct Sink {
    stdin: Option<ChildStdin>,
    left: u64,
}

impl Sink {
    async fn take(&mut self, data: &[u8]) -> Result<(), Refusal> {
        self.left = self
            .left
            .checked_sub(data.len() as u64)
            .ok_or(Refusal::TooLarge)?;
        if let Some(stdin) = &mut self.stdin
            && stdin.write_all(data).await.is_err()
        {
            // It has heard enough; its answer says why. The rest is read so that the client comes to listen.
            self.stdin = None;
        }
        Ok(())
    }
}

async fn drain(stdout: Option<ChildStdout>) {
    if let Some(mut stdout) = stdout {
        let _ = tokio::io::copy(&mut stdout, &mut tokio::io::sink()).await;
    }
}

/// Lets a child come to its end for so long, or for a moment once the server stops.
async fn let_go<T>(
    end: impl Future<Output = T>,
    patience: Duration,
    stop: &CancellationToken,
) -> Option<T> {
    tokio::pin!(end);
    tokio::select! {
        ended = timeout(patience, &mut end) => ended.ok(),
        () = stop.cancelled() => timeout(CLOSING, end).await.ok(),
    }
}

/// Complaints of a child go to the log, shortened and cleaned.
async fn log(stderr: Option<ChildStderr>) {
    let Some(mut stderr) = stderr else { return };
    let mut text = Vec::new();
    let _ = (&mut stderr).take(COMPLAINTS).read_to_end(&mut text).await;
    let text = mask(&String::from_utf8_lossy(&text));
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        tracing::warn!(target: "terok_gate_server::git", "{}", printable_line(line));
    }
    discard(stderr).await;
}

async fn discard(mut from: impl AsyncRead + Unpin) {
    let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
}
