//! The stream dialects as a client sees them: one text goes out, one text comes in.

use crate::PATIENCE;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use tungstenite::{Message, WebSocket};

/// A framing.
pub trait Transport {
    /// Sends one message.
    fn send(&mut self, text: &str);

    /// Receives one message; `None` when the daemon has closed the connection.
    fn receive(&mut self) -> Option<String>;
}

/// Opens the socket, with a deadline on everything that follows.
///
/// # Panics
/// The socket does not accept.
pub fn open(socket: &Path) -> UnixStream {
    let stream = UnixStream::connect(socket)
        .unwrap_or_else(|e| panic!("cannot connect to {}: {e}", socket.display()));
    stream
        .set_read_timeout(Some(PATIENCE))
        .expect("a read deadline");
    stream
        .set_write_timeout(Some(PATIENCE))
        .expect("a write deadline");
    stream
}

/// One JSON value per line.
#[derive(Debug)]
pub struct Line {
    /// The connection.
    pub stream: UnixStream,
    buffer: Vec<u8>,
}

impl Line {
    /// Speaks over `stream`.
    pub fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    /// Sends bytes as they are.
    ///
    /// # Panics
    /// The daemon does not take them.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.stream
            .write_all(bytes)
            .expect("the daemon takes what is sent");
    }

    /// Everything until the daemon closes.
    ///
    /// # Panics
    /// It does not close in time.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut all = std::mem::take(&mut self.buffer);
        match self.stream.read_to_end(&mut all) {
            Ok(_) => {}
            Err(e) if matches!(e.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {}
            Err(e) => panic!("the connection did not end: {e}"),
        }
        all
    }
}

impl Transport for Line {
    fn send(&mut self, text: &str) {
        let mut line = text.as_bytes().to_vec();
        line.push(b'\n');
        self.raw(&line);
    }

    fn receive(&mut self) -> Option<String> {
        let mut searched = 0;
        loop {
            if let Some(end) = self.buffer[searched..]
                .iter()
                .position(|b| *b == b'\n')
                .map(|at| at + searched)
            {
                let mut line: Vec<u8> = self.buffer.drain(..=end).collect();
                line.pop();
                return Some(String::from_utf8(line).expect("answers are UTF-8"));
            }
            searched = self.buffer.len();
            fill(&mut self.stream, &mut self.buffer)?;
        }
    }
}

/// The base protocol of the Language Server Protocol.
#[derive(Debug)]
pub struct Lsp {
    /// The connection.
    pub stream: UnixStream,
    buffer: Vec<u8>,
}

impl Lsp {
    /// Speaks over `stream`.
    pub fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
        }
    }
}

impl Transport for Lsp {
    fn send(&mut self, text: &str) {
        let frame = format!("Content-Length: {}\r\n\r\n{text}", text.len());
        self.stream
            .write_all(frame.as_bytes())
            .expect("the daemon takes what is sent");
    }

    fn receive(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                let length: usize = head
                    .lines()
                    .filter_map(|line| line.split_once(':'))
                    .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                    .and_then(|(_, value)| value.trim().parse().ok())
                    .expect("every frame has a length");
                while self.buffer.len() < end + 4 + length {
                    fill(&mut self.stream, &mut self.buffer)?;
                }
                let frame: Vec<u8> = self
                    .buffer
                    .drain(..end + 4 + length)
                    .skip(end + 4)
                    .collect();
                return Some(String::from_utf8(frame).expect("answers are UTF-8"));
            }
            fill(&mut self.stream, &mut self.buffer)?;
        }
    }
}

/// WebSocket over the same socket.
#[derive(Debug)]
pub struct Ws(pub WebSocket<UnixStream>);

impl Ws {
    /// Upgrades `stream`.
    ///
    /// # Panics
    /// The daemon refuses.
    pub fn new(stream: UnixStream) -> Self {
        let (socket, _) =
            tungstenite::client("ws://localhost/", stream).expect("the upgrade is accepted");
        Self(socket)
    }
}

impl Transport for Ws {
    fn send(&mut self, text: &str) {
        self.0
            .send(Message::text(text))
            .expect("the daemon takes what is sent");
    }

    fn receive(&mut self) -> Option<String> {
        loop {
            match self.0.read() {
                Ok(Message::Text(text)) => return Some(text.to_string()),
                Ok(Message::Close(_)) => return None,
                Ok(_) => {}
                Err(tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed) => {
                    return None;
                }
                Err(e) => panic!("no answer: {e}"),
            }
        }
    }
}

fn fill(stream: &mut UnixStream, buffer: &mut Vec<u8>) -> Option<()> {
    let mut chunk = [0; 65536];
    match stream.read(&mut chunk) {
        Ok(0) => None,
        Ok(n) => {
            buffer.extend_from_slice(&chunk[..n]);
            Some(())
        }
        Err(e) if matches!(e.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => None,
        Err(e) => panic!("no answer in time: {e}"),
    }
}
