//! Byte streams as streams of messages: the line and `Content-Length` framings over one socket.

use bytes::{Buf, Bytes, BytesMut};
use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll};
use terok_proto::codec::{Dialect, FrameError, line, lsp};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio_util::codec::{Decoder, Encoder, Framed, FramedParts};

/// What ends a stream of messages.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamError {
    /// The peer sent what cannot be decoded; it gets one answer.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The connection broke.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A connection whose first bytes have been looked at already.
#[derive(Debug)]
pub(super) struct Rewound {
    begin: Bytes,
    stream: UnixStream,
}

impl Rewound {
    pub(super) fn new(begin: Vec<u8>, stream: UnixStream) -> Self {
        Self {
            begin: begin.into(),
            stream,
        }
    }
}

impl AsyncRead for Rewound {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.begin.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let n = self.begin.len().min(buf.remaining());
        buf.put_slice(&self.begin[..n]);
        self.begin.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Where messages come from and go to.
pub(super) trait Transport:
    futures_util::Stream<Item = Result<Bytes, StreamError>>
    + futures_util::Sink<String, Error = StreamError>
    + Unpin
    + Send
{
    /// The peer is gone altogether, not only done with sending.
    fn hung_up(&self) -> bool;
}

/// The framing of a stream dialect.
#[derive(Debug)]
pub(super) struct Codec {
    framing: Framing,
    max: usize,
}

#[derive(Debug)]
enum Framing {
    Line(line::Decoder),
    Lsp(lsp::Decoder),
}

/// A socket that speaks a stream dialect; `begin` has been read from it already.
pub(super) fn framed(
    stream: UnixStream,
    begin: Vec<u8>,
    dialect: Dialect,
    max: usize,
) -> Framed<UnixStream, Codec> {
    let framing = match dialect {
        Dialect::Lsp => Framing::Lsp(lsp::Decoder::default()),
        Dialect::Line | Dialect::Http => Framing::Line(line::Decoder::default()),
    };
    let mut parts = FramedParts::new::<String>(stream, Codec { framing, max });
    parts.read_buf = BytesMut::from(&begin[..]);
    Framed::from_parts(parts)
}

impl Transport for Framed<UnixStream, Codec> {
    fn hung_up(&self) -> bool {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        let mut fds = [PollFd::new(self.get_ref().as_fd(), PollFlags::empty())];
        let _ = poll(&mut fds, PollTimeout::ZERO);
        fds[0]
            .revents()
            .is_some_and(|r| r.intersects(PollFlags::POLLHUP | PollFlags::POLLERR))
    }
}

impl Decoder for Codec {
    type Item = Bytes;
    type Error = StreamError;

    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Bytes>, StreamError> {
        loop {
            let frame = match &mut self.framing {
                Framing::Line(decoder) => decoder.decode(buffer, self.max)?,
                Framing::Lsp(decoder) => decoder.decode(buffer, self.max)?,
            };
            let Some(frame) = frame else { return Ok(None) };
            let mut message = buffer.split_to(frame.consumed);
            message.truncate(frame.end);
            message.advance(frame.start);
            if !message.is_empty() || matches!(self.framing, Framing::Lsp(_)) {
                return Ok(Some(message.freeze()));
            }
        }
    }

    /// A last line needs no line break: `printf '{…}' | socat - UNIX:…` is a client too.
    fn decode_eof(&mut self, buffer: &mut BytesMut) -> Result<Option<Bytes>, StreamError> {
        if let Some(message) = self.decode(buffer)? {
            return Ok(Some(message));
        }
        let rest = buffer.split();
        if matches!(self.framing, Framing::Lsp(_)) || rest.trim_ascii().is_empty() {
            return Ok(None);
        }
        Ok(Some(rest.freeze()))
    }
}

impl Encoder<String> for Codec {
    type Error = StreamError;

    fn encode(&mut self, message: String, out: &mut BytesMut) -> Result<(), StreamError> {
        match self.framing {
            Framing::Line(_) => {
                out.reserve(message.len() + 1);
                out.extend_from_slice(message.as_bytes());
                out.extend_from_slice(b"\n");
            }
            Framing::Lsp(_) => {
                out.extend_from_slice(
                    format!("Content-Length: {}\r\n\r\n", message.len()).as_bytes(),
                );
                out.extend_from_slice(message.as_bytes());
            }
        }
        Ok(())
    }
}
