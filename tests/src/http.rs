//! HTTP/1.1 over the Unix socket, by hand, so that the bytes on the wire are the test's own.

use crate::transport::open;
use std::io::{Read, Write};
use std::path::Path;

/// One HTTP answer.
#[derive(Clone, Debug)]
pub struct HttpAnswer {
    /// Status code.
    pub status: u16,
    /// Headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: String,
}

impl HttpAnswer {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }
}

/// Sends one request and reads the answer until the connection closes.
///
/// # Panics
/// The answer is not HTTP.
pub fn request(socket: &Path, method: &str, path: &str, body: &str) -> HttpAnswer {
    let mut stream = open(socket);
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream
        .write_all(head.as_bytes())
        .expect("the daemon takes the request");
    let mut text = Vec::new();
    stream.read_to_end(&mut text).expect("an answer in time");
    parse(&text)
}

/// Reads an answer that ended with its connection.
///
/// # Panics
/// It is not HTTP.
pub fn parse(bytes: &[u8]) -> HttpAnswer {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let (head, body) = text
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("not HTTP: {text:.300}"));
    let mut lines = head.lines();
    let status = lines
        .next()
        .and_then(|l| l.split(' ').nth(1))
        .and_then(|s| s.parse().ok())
        .expect("a status");
    let headers = lines
        .filter_map(|l| l.split_once(':'))
        .map(|(n, v)| (n.to_ascii_lowercase(), v.trim().to_owned()));
    HttpAnswer {
        status,
        headers: headers.collect(),
        body: body.to_owned(),
    }
}
