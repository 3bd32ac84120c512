//! A smart-HTTP git server over `git http-backend` that can be told to misbehave.

use crate::listen::{Listener, Shared};
use crate::world::Runner;
use crate::{Upstream, World, programs};
use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What the server does with a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Answer {
    /// What git does.
    #[default]
    Honest,
    /// Asks for this name and password (status 401), and then does what git does.
    Basic {
        /// The name.
        user: String,
        /// The password.
        password: String,
    },
    /// Refuses with a status, and says when to come again.
    Status {
        /// Such as 403, 429 or 503.
        code: u16,
        /// `Retry-After`, a number of seconds or a date.
        retry_after: Option<String>,
    },
    /// Reads the request and says nothing.
    Hang,
    /// Begins the answer to a POST, sends so many bytes of it and closes the connection.
    Truncate(usize),
    /// Begins the answer to a POST, sends so many bytes of it and then nothing more.
    Stall(usize),
}

/// The repositories below a directory over `http://`, readable and writable.
#[derive(Debug)]
pub struct HttpGit {
    listener: Listener,
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    git: PathBuf,
    runner: Runner,
    base: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    standing: Answer,
    next: VecDeque<Answer>,
    seen: Vec<String>,
}

impl HttpGit {
    /// Starts one, unless git is not installed.
    pub fn start(world: &World, base: &Path) -> Option<Self> {
        let inner = Arc::new(Inner {
            git: programs::need("git")?,
            runner: world.runner(),
            base: base.to_owned(),
            state: Mutex::default(),
        });
        let common = Arc::clone(&inner);
        let listener = Listener::start(move |stream, shared| {
            // Clients hang up when they like.
            let _ = common.serve(&stream, shared);
        });
        Some(Self { listener, inner })
    }

    /// The address of a repository in the directory.
    pub fn url(&self, upstream: &Upstream) -> String {
        format!("http://{}/{}", self.address(), upstream.name())
    }

    /// Answers every request so from now on.
    pub fn answer(&self, answer: Answer) {
        self.inner.lock().standing = answer;
    }

    /// Answers one coming request so, before the standing answer counts again.
    pub fn answer_once(&self, answer: Answer) {
        self.inner.lock().next.push_back(answer);
    }

    /// Methods and paths with their queries since the last time.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.inner.lock().seen)
    }

    /// Waits until a request has come that contains the text.
    ///
    /// # Panics
    /// None comes.
    pub fn wait_request(&self, part: &str) {
        crate::eventually("a request", || {
            let state = self.inner.lock();
            state.seen.iter().any(|r| r.contains(part)).then_some(())
        });
    }
}

impl Deref for HttpGit {
    type Target = Listener;

    fn deref(&self) -> &Listener {
        &self.listener
    }
}

struct Request {
    method: String,
    path: String,
    query: String,
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

impl Request {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// The name that is given, if the server is satisfied with name and password.
    fn user(&self, user: &str, password: &str) -> bool {
        let given = self.header("authorization").strip_prefix("Basic ");
        given.is_some_and(|given| given == base64(format!("{user}:{password}").as_bytes()))
    }
}

struct Reply {
    status: String,
    headers: String,
    body: Vec<u8>,
}

impl Reply {
    fn of(status: &str, headers: &str) -> Self {
        Self {
            status: status.to_owned(),
            headers: headers.to_owned(),
            body: Vec::new(),
        }
    }

    /// Sends head and the first bytes of the body.
    fn send(&self, stream: &TcpStream, most: usize) -> std::io::Result<()> {
        let mut writer = stream;
        let (status, headers, length) = (&self.status, &self.headers, self.body.len());
        let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\n\r\n");
        writer.write_all(head.as_bytes())?;
        writer.write_all(&self.body[..most.min(length)])
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is to be done with a request that has just come.
    fn decide(&self, request: &Request) -> Answer {
        let mut state = self.lock();
        let Request {
            method,
            path,
            query,
            ..
        } = request;
        state.seen.push(format!("{method} {path}?{query}"));
        let next = state.next.pop_front();
        next.unwrap_or_else(|| state.standing.clone())
    }

    fn serve(&self, stream: &TcpStream, shared: &Shared) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream);
        while let Some(request) = read_request(&mut reader)? {
            if shared.ended() {
                break;
            }
            let post = request.method == "POST";
            match self.decide(&request) {
                Answer::Basic { user, password } if !request.user(&user, &password) => {
                    let ask = "WWW-Authenticate: Basic realm=\"test\"\r\n";
                    Reply::of("401 Unauthorized", ask).send(stream, 0)?;
                }
                Answer::Status { code, retry_after } => {
                    let again = retry_after.map(|when| format!("Retry-After: {when}\r\n"));
                    let refusal = format!("{code} Refused");
                    Reply::of(&refusal, &again.unwrap_or_default()).send(stream, 0)?;
                }
                Answer::Hang => {
                    std::io::copy(&mut reader, &mut std::io::sink())?;
                }
                Answer::Truncate(most) if post => {
                    self.backend(&request)?.send(stream, most)?;
                    return Ok(());
                }
                Answer::Stall(most) if post => {
                    self.backend(&request)?.send(stream, most)?;
                    std::io::copy(&mut reader, &mut std::io::sink())?;
                }
                _ => self.backend(&request)?.send(stream, usize::MAX)?,
            }
        }
        Ok(())
    }

    /// What git answers.
    fn backend(&self, request: &Request) -> std::io::Result<Reply> {
        let mut child = self
            .runner
            .command(&self.git)
            .arg("http-backend")
            .env("GIT_PROJECT_ROOT", &self.base)
            .env("GIT_HTTP_EXPORT_ALL", "1")
            // With a name it takes pushes.
            .env("REMOTE_USER", "anybody")
            .env("PATH_INFO", &request.path)
            .env("QUERY_STRING", &request.query)
            .env("REQUEST_METHOD", &request.method)
            .env("CONTENT_TYPE", request.header("content-type"))
            .env("CONTENT_LENGTH", request.body.len().to_string())
            .env("HTTP_CONTENT_ENCODING", request.header("content-encoding"))
            .env("HTTP_GIT_PROTOCOL", request.header("git-protocol"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut stdin = child.stdin.take().expect("a pipe");
        let output = std::thread::scope(|scope| {
            scope.spawn(move || stdin.write_all(&request.body));
            child.wait_with_output()
        })?;
        let output = output.stdout;
        let head = output.windows(4).position(|w| w == b"\r\n\r\n");
        let Some(head) = head else {
            return Ok(Reply::of("500 Internal Server Error", ""));
        };
        let mut reply = Reply::of("200 OK", "");
        for line in String::from_utf8_lossy(&output[..head]).lines() {
            match line.strip_prefix("Status: ") {
                Some(told) => told.clone_into(&mut reply.status),
                None => reply.headers.push_str(&format!("{line}\r\n")),
            }
        }
        reply.body = output[head + 4..].to_vec();
        Ok(reply)
    }
}

fn read_request(reader: &mut BufReader<&TcpStream>) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, target) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let mut request = Request {
        method,
        path: path.to_owned(),
        query: query.to_owned(),
        headers,
        body: Vec::new(),
    };
    if request.header("expect") == "100-continue" {
        let mut writer = *reader.get_ref();
        writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    if request.header("transfer-encoding") == "chunked" {
        loop {
            let mut size = String::new();
            reader.read_line(&mut size)?;
            let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk)?;
            if size == 0 {
                break;
            }
            request.body.extend_from_slice(&chunk[..size]);
        }
    } else if let Ok(length) = request.header("content-length").parse() {
        request.body.resize(length, 0);
        reader.read_exact(&mut request.body)?;
    }
    Ok(Some(request))
}

/// As in a header.
pub fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let letters = |chunk: &[u8]| {
        let three = [0, 1, 2].map(|at| chunk.get(at).copied().unwrap_or(0));
        let [a, b, c] = three.map(u32::from);
        let bits = (a << 16) | (b << 8) | c;
        (0..4)
            .map(|n| match n <= chunk.len() {
                true => char::from(LETTERS[(bits >> (18 - 6 * n)) as usize & 63]),
                false => '=',
            })
            .collect::<String>()
    };
    bytes.chunks(3).map(letters).collect()
}
