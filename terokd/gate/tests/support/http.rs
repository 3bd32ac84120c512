//! A small HTTP server over `git http-backend` that can be told to misbehave.

use super::servers::Server;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

/// What the server does with a request.
#[derive(Clone, Default)]
pub enum Manner {
    /// What git does.
    #[default]
    Honest,
    /// Wants this in `Authorization`.
    Basic(&'static str),
    /// Answers with a status and headers.
    Status(u16, &'static str),
    /// Sends the first bytes of an answer to POST and closes the connection.
    Truncate(usize),
    /// Sends the first bytes of an answer to POST and then nothing, with the connection open.
    Stall(usize),
    /// Answers POSTs that contain the text with these bytes.
    Answer(&'static str, Vec<u8>),
    /// Sends GETs elsewhere.
    Redirect(String),
}

pub struct HttpServer {
    pub server: Server,
    manner: Arc<Mutex<Manner>>,
    seen: Arc<Mutex<Vec<String>>>,
    heard: Arc<Mutex<Vec<HashMap<String, String>>>>,
}

impl HttpServer {
    pub fn start(base: &Path) -> Self {
        let manner = Arc::new(Mutex::new(Manner::default()));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (base, how, log) = (base.to_owned(), Arc::clone(&manner), Arc::clone(&seen));
        let all = Arc::clone(&heard);
        let server = Server::start(move |stream| {
            // Clients hang up when they like.
            serve(&stream, &base, &how, &log, &all).ok();
        });
        Self {
            server,
            manner,
            seen,
            heard,
        }
    }

    pub fn url(&self, name: &str) -> String {
        format!("http://127.0.0.1:{}/{name}", self.server.port)
    }

    pub fn behave(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }

    /// Methods and paths since the last call.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }

    /// Values of a header (lower case) in all requests since the last call.
    pub fn header(&self, name: &str) -> Vec<String> {
        let heard = std::mem::take(&mut *self.heard.lock().unwrap());
        let values = heard.iter().filter_map(|headers| headers.get(name));
        values.cloned().collect()
    }
}

struct Request {
    method: String,
    path: String,
    query: String,
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

fn serve(
    stream: &TcpStream,
    base: &PathBuf,
    manner: &Mutex<Manner>,
    seen: &Mutex<Vec<String>>,
    heard: &Mutex<Vec<HashMap<String, String>>>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream.try_clone()?;
    while let Some(request) = read_request(&mut reader)? {
        seen.lock()
            .unwrap()
            .push(format!("{} {}", request.method, request.path));
        heard.lock().unwrap().push(request.headers.clone());
        let manner = manner.lock().unwrap().clone();
        let post = request.method == "POST";
        match manner {
            Manner::Basic(wanted)
                if request.headers.get("authorization").map(String::as_str) != Some(wanted) =>
            {
                respond(
                    &mut writer,
                    "401 Unauthorized",
                    "WWW-Authenticate: Basic realm=\"t\"\r\n",
                    b"",
                )?;
            }
            Manner::Status(code, headers) => {
                respond(
                    &mut writer,
                    &format!("{code} Refused"),
                    headers,
                    b"<html>no</html>",
                )?;
            }
            Manner::Redirect(to) if !post => {
                let headers = format!("Location: {to}{}?{}\r\n", request.path, request.query);
                respond(&mut writer, "302 Found", &headers, b"")?;
            }
            Manner::Answer(text, body) if post && contains(&request.body, text.as_bytes()) => {
                let headers = "Content-Type: application/x-git-upload-pack-result\r\n";
                respond(&mut writer, "200 OK", headers, &body)?;
            }
            Manner::Truncate(_) | Manner::Stall(_)
                if post && contains(&request.body, b"command=fetch") =>
            {
                let (status, headers, body) = backend(base, &request)?;
                let (Manner::Truncate(n) | Manner::Stall(n)) = manner else {
                    unreachable!()
                };
                write!(
                    writer,
                    "HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n",
                    body.len()
                )?;
                writer.write_all(&body[..n.min(body.len())])?;
                if matches!(manner, Manner::Stall(_)) {
                    std::io::copy(&mut reader, &mut std::io::sink())?;
                }
                stream.shutdown(std::net::Shutdown::Both)?;
                return Ok(());
            }
            _ => {
                let (status, headers, body) = backend(base, &request)?;
                respond(&mut writer, &status, &headers, &body)?;
            }
        }
    }
    Ok(())
}

fn respond(
    writer: &mut TcpStream,
    status: &str,
    headers: &str,
    body: &[u8],
) -> std::io::Result<()> {
    write!(
        writer,
        "HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n",
        body.len()
    )?;
    writer.write_all(body)
}

fn read_request(reader: &mut BufReader<TcpStream>) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (method, target) = (
        words.next().unwrap_or("").to_owned(),
        words.next().unwrap_or("").to_owned(),
    );
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((key, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.insert(key.to_ascii_lowercase(), value.trim().to_owned());
    }
    let mut body = Vec::new();
    if let Some(length) = headers
        .get("content-length")
        .and_then(|text| text.parse().ok())
    {
        body.resize(length, 0);
        reader.read_exact(&mut body)?;
    } else if headers
        .get("transfer-encoding")
        .is_some_and(|text| text == "chunked")
    {
        loop {
            let mut size = String::new();
            reader.read_line(&mut size)?;
            let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk)?;
            if size == 0 {
                break;
            }
            body.extend_from_slice(&chunk[..size]);
        }
    }
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    Ok(Some(Request {
        method,
        path: path.to_owned(),
        query: query.to_owned(),
        headers,
        body,
    }))
}

fn backend(base: &PathBuf, request: &Request) -> std::io::Result<(String, String, Vec<u8>)> {
    let header = |name: &str| request.headers.get(name).cloned().unwrap_or_default();
    let mut child = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", base)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REMOTE_USER", "t")
        .env("PATH_INFO", &request.path)
        .env("QUERY_STRING", &request.query)
        .env("REQUEST_METHOD", &request.method)
        .env("CONTENT_TYPE", header("content-type"))
        .env("CONTENT_LENGTH", request.body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("HTTP_GIT_PROTOCOL", header("git-protocol"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    child.stdin.take().unwrap().write_all(&request.body).ok();
    let output = child.wait_with_output()?.stdout;
    let split = output
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .unwrap_or(output.len() - 4);
    let mut status = "200 OK".to_owned();
    let mut headers = String::new();
    for line in String::from_utf8_lossy(&output[..split]).lines() {
        match line.strip_prefix("Status: ") {
            Some(told) => status = told.to_owned(),
            None => headers.push_str(&format!("{line}\r\n")),
        }
    }
    Ok((status, headers, output[split + 4..].to_vec()))
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}
