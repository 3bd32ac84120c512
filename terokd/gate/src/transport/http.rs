//! HTTP for gix, over curl, such that a stalled server can be left at any moment.
//!
//! curl is driven by whoever reads the answer, a few milliseconds at a time; there is no thread and nothing to abandon.
//! What went wrong is kept in a [`Failure`] beside the connection, because gix reduces it to text.

use super::http_config::HttpConfig;
use super::watch::Meter;
use crate::{GateUrl, HostEnv, TransportError, UrlKind};
use curl::easy::{Easy2, Handler, InfoType, List, WriteError};
use curl::multi::{Easy2Handle, Multi};
use gix::error::{ErrorExt, Message};
use gix::protocol::transport::client::blocking_io::http::{
    GetResponse, Http, PostBodyDataKind, PostResponse,
};
use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Headers of one answer; more is no git server.
const HEADER_LIMIT: usize = 256 * 1024;
/// What an error page may contribute to a message.
const PAGE_LIMIT: usize = 4096;
const REDIRECTS: u8 = 5;
/// How long one wait for the network may last before the caller's wishes are looked at.
const TICK: Duration = Duration::from_millis(50);
/// How long a server's list of capabilities is believed.
const CAPABILITIES_AGE: Duration = Duration::from_secs(3600);
/// A protocol v2 list of capabilities has a few hundred bytes; a v0 answer lists refs and is never kept.
const CAPABILITIES_LIMIT: usize = 8 * 1024;
/// A wish to be left alone for longer is cut.
const LONGEST_RETRY: Duration = Duration::from_secs(24 * 3600);

/// Asks helpers for credentials and tells them how it went.
pub(super) trait Credentials {
    /// User and password for `url`; `challenges` are the values of `WWW-Authenticate`.
    fn fill(
        &mut self,
        url: &GateUrl,
        challenges: &[String],
    ) -> Result<(String, String), TransportError>;
    /// Whether the last filled ones were good.
    fn settle(&mut self, good: bool);
}

/// Why a request failed, for the owner of the connection.
pub(super) type Failure = Rc<RefCell<Option<TransportError>>>;

/// What servers said they can, by address. Saves a poll one of its two round trips.
#[derive(Clone, Default)]
pub(super) struct Capabilities(Arc<Mutex<Remembered>>);

/// By address: when it was said, and the answer's body.
type Remembered = HashMap<String, (Instant, Vec<u8>)>;

impl Capabilities {
    fn get(&self, base: &str) -> Option<Vec<u8>> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get(base) {
            Some((at, _)) if at.elapsed() > CAPABILITIES_AGE => {
                known.remove(base);
                None
            }
            Some((_, body)) => Some(body.clone()),
            None => None,
        }
    }

    pub(super) fn forget(&self, base: &str) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(base);
    }

    fn put(&self, base: &str, body: Vec<u8>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() > 4096 {
            known.clear();
        }
        known.insert(base.to_owned(), (Instant::now(), body));
    }
}

/// One conversation with one server. Its requests share a connection.
pub(super) struct Client {
    multi: Rc<Multi>,
    env: HostEnv,
    /// What is said of the server that is asked.
    config: HttpConfig,
    connect: Duration,
    meter: Meter,
    failure: Failure,
    credentials: Box<dyn Credentials>,
    /// In use, or written in the address.
    account: Option<(String, String)>,
    /// The last ones came from a helper that waits to hear how they did.
    unsettled: bool,
    /// Where the server sent us.
    moved: Option<String>,
    capabilities: Option<Capabilities>,
    pub(super) used_capabilities: Rc<RefCell<bool>>,
}

impl Client {
    pub(super) fn new(
        url: &GateUrl,
        env: &HostEnv,
        connect: Duration,
        meter: Meter,
        credentials: Box<dyn Credentials>,
        capabilities: Option<Capabilities>,
    ) -> Self {
        let account = url
            .password()
            .map(|password| (url.user().unwrap_or_default(), password));
        Self {
            multi: Rc::new(Multi::new()),
            env: env.clone(),
            config: HttpConfig::read(env, url),
            connect,
            meter,
            failure: Failure::default(),
            credentials,
            account,
            unsettled: false,
            moved: None,
            capabilities,
            used_capabilities: Rc::default(),
        }
    }

    /// Where the reason of a failure will be.
    pub(super) fn failure(&self) -> Failure {
        Rc::clone(&self.failure)
    }

    fn request(
        &self,
        url: &str,
        headers: &[String],
        body: Option<Vec<u8>>,
    ) -> Result<Transfer, TransportError> {
        let mut easy = Easy2::new(Collector::default());
        self.config
            .apply(&mut easy)
            .and_then(|()| {
                easy.url(url)?;
                easy.signal(false)?;
                easy.connect_timeout(self.connect)?;
                easy.accept_encoding("")?;
                easy.tcp_keepalive(true)?;
                let mut list = List::new();
                for header in headers.iter().chain(&self.config.extra_headers) {
                    list.append(header)?;
                }
                list.append("Expect:")?;
                easy.http_headers(list)?;
                if let Some((user, password)) = &self.account {
                    easy.username(user)?;
                    easy.password(password)?;
                    easy.http_auth(curl::easy::Auth::new().basic(true))?;
                }
                if let Some(body) = &body {
                    easy.post(true)?;
                    easy.post_fields_copy(body)?;
                }
                Ok(())
            })
            .map_err(|error| TransportError::protocol(&format!("curl: {error}")))?;
        let handle = self
            .multi
            .add2(easy)
            .map_err(|error| TransportError::protocol(&format!("curl: {error}")))?;
        Ok(Transfer {
            multi: Rc::clone(&self.multi),
            handle: Some(handle),
            meter: self.meter.clone(),
            failure: Rc::clone(&self.failure),
            over: None,
        })
    }

    fn fetch_advertisement(
        &mut self,
        url: &str,
        base: &str,
        headers: &[String],
    ) -> Result<Transfer, TransportError> {
        let tail = url
            .strip_prefix(base)
            .ok_or_else(|| {
                TransportError::protocol("the request does not begin with the upstream's address")
            })?
            .to_owned();
        let mut base = base.to_owned();
        let mut asked = false;
        for _ in 0..=REDIRECTS {
            let mut transfer = self.request(&format!("{base}{tail}"), headers, None)?;
            transfer.until_answered()?;
            match transfer.status()? {
                200 => {
                    if std::mem::take(&mut self.unsettled) {
                        self.credentials.settle(true);
                    }
                    self.moved = Some(base);
                    return Ok(transfer);
                }
                401 if !asked && self.account.is_none() => {
                    asked = true;
                    let challenges = transfer.header_values("www-authenticate");
                    let address = GateUrl::parse(&base)
                        .map_err(|fault| TransportError::protocol(&fault.message))?;
                    self.account = Some(self.credentials.fill(&address, &challenges)?);
                    self.unsettled = true;
                }
                301 | 302 | 303 | 307 | 308 => {
                    let target = transfer.redirect()?;
                    let next = target.strip_suffix(tail.as_str()).ok_or_else(|| {
                        TransportError::protocol("it redirects to something that is no repository")
                    })?;
                    self.check_redirect(&base, next)?;
                    base = next.to_owned();
                }
                status => {
                    if status == 401 && std::mem::take(&mut self.unsettled) {
                        self.credentials.settle(false);
                    }
                    return Err(transfer.refused(status));
                }
            }
        }
        Err(TransportError::protocol("it redirects in circles"))
    }

    /// A redirect may lead to another server, but not down to plain HTTP, and neither credentials nor settings of the
    /// one that it comes from go along.
    fn check_redirect(&mut self, from: &str, to: &str) -> Result<(), TransportError> {
        let parse = |url: &str| {
            GateUrl::parse(url).map_err(|fault| {
                TransportError::protocol(&format!("it redirects: {}", fault.message))
            })
        };
        let (from, to) = (parse(from)?, parse(to)?);
        let allowed = match to.kind() {
            UrlKind::Https => true,
            UrlKind::Http => from.kind() == UrlKind::Http,
            _ => false,
        };
        if !allowed || to.user().is_some() || to.password().is_some() {
            return Err(TransportError::protocol(&format!("it redirects to {to}")));
        }
        if (from.kind(), from.host(), from.port()) != (to.kind(), to.host(), to.port()) {
            self.account = None;
            self.config = HttpConfig::read_elsewhere(&self.env, &to);
            if std::mem::take(&mut self.unsettled) {
                self.credentials.settle(true);
            }
        }
        Ok(())
    }

    fn note(&self, error: TransportError) -> gix::error::Error {
        let text = error.to_string();
        self.failure.borrow_mut().get_or_insert(error);
        Message::new(text).raise()
    }
}

impl Http for Client {
    type Headers = io::Cursor<Vec<u8>>;
    type ResponseBody = io::BufReader<Body>;
    type PostBody = Outgoing;

    fn get(
        &mut self,
        url: &str,
        base_url: &str,
        headers: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> gix::error::Result<GetResponse<Self::Headers, Self::ResponseBody>> {
        let headers: Vec<String> = headers
            .into_iter()
            .map(|line| line.as_ref().to_owned())
            .collect();
        if let Some(body) = self
            .capabilities
            .as_ref()
            .and_then(|known| known.get(base_url))
        {
            *self.used_capabilities.borrow_mut() = true;
            return Ok(GetResponse {
                headers: io::Cursor::new(
                    b"content-type: application/x-git-upload-pack-advertisement\n".to_vec(),
                ),
                body: io::BufReader::new(Body::Known(io::Cursor::new(body))),
            });
        }
        let mut transfer = self
            .fetch_advertisement(url, base_url, &headers)
            .map_err(|error| self.note(error))?;
        let head = transfer.header_text();
        let moved = self.moved.as_deref() != Some(base_url);
        let Some(known) = self
            .capabilities
            .clone()
            .filter(|_| !moved && self.account.is_none())
        else {
            return Ok(GetResponse {
                headers: io::Cursor::new(head),
                body: io::BufReader::new(Body::Live(Rc::new(RefCell::new(transfer)))),
            });
        };
        // Small ones are read at once, to see whether they can be kept.
        let mut body = Vec::new();
        while body.len() <= CAPABILITIES_LIMIT {
            let piece = transfer
                .fill()
                .map_err(|error| self.note(TransportError::unreachable(&error.to_string())))?;
            if piece == 0 {
                break;
            }
            body.extend_from_slice(transfer.data());
            transfer.consume(piece);
        }
        if body.len() <= CAPABILITIES_LIMIT && memchr(&body, b"version 2\n") {
            known.put(base_url, body.clone());
        }
        Ok(GetResponse {
            headers: io::Cursor::new(head),
            body: io::BufReader::new(Body::Begun(
                io::Cursor::new(body),
                Rc::new(RefCell::new(transfer)),
            )),
        })
    }

    fn post(
        &mut self,
        url: &str,
        _base_url: &str,
        headers: impl IntoIterator<Item = impl AsRef<str>>,
        _body: PostBodyDataKind,
    ) -> gix::error::Result<PostResponse<Self::Headers, Self::ResponseBody, Self::PostBody>> {
        let headers: Vec<String> = headers
            .into_iter()
            .map(|line| line.as_ref().to_owned())
            .collect();
        // The answer can only be asked for once gix has written the request, which it does before it reads headers.
        // It judges the content type of answers by these lines; the real ones are judged in `Outgoing::send`.
        let answer = Rc::new(RefCell::new(Pending {
            client: self.shared(),
            url: url.to_owned(),
            headers,
            body: Some(Vec::new()),
            transfer: None,
        }));
        Ok(PostResponse {
            post_body: Outgoing(Rc::clone(&answer)),
            headers: io::Cursor::new(
                b"content-type: application/x-git-upload-pack-result\n".to_vec(),
            ),
            body: io::BufReader::new(Body::Asked(answer)),
        })
    }

    fn configure(&mut self, _config: &dyn std::any::Any) -> gix::error::Result {
        Ok(())
    }

    fn redirected_base_url(&self) -> Option<String> {
        self.moved.clone()
    }
}

impl Client {
    /// What a request that is sent later needs of us.
    fn shared(&self) -> Self {
        Self {
            multi: Rc::clone(&self.multi),
            env: self.env.clone(),
            config: self.config.clone(),
            connect: self.connect,
            meter: self.meter.clone(),
            failure: Rc::clone(&self.failure),
            credentials: Box::new(NoCredentials),
            account: self.account.clone(),
            unsettled: false,
            moved: None,
            capabilities: None,
            used_capabilities: Rc::clone(&self.used_capabilities),
        }
    }
}

/// Requests after the first use what the first was accepted with.
struct NoCredentials;

impl Credentials for NoCredentials {
    fn fill(&mut self, url: &GateUrl, _: &[String]) -> Result<(String, String), TransportError> {
        Err(TransportError::auth_failed(&url.redacted()))
    }

    fn settle(&mut self, _: bool) {}
}

/// A request whose body is still being written.
pub(super) struct Pending {
    client: Client,
    url: String,
    headers: Vec<String>,
    body: Option<Vec<u8>>,
    transfer: Option<Transfer>,
}

impl Pending {
    fn transfer(&mut self) -> io::Result<&mut Transfer> {
        if let Some(body) = self.body.take() {
            match self.send(body) {
                Ok(transfer) => self.transfer = Some(transfer),
                Err(error) => {
                    let text = error.to_string();
                    self.client.failure.borrow_mut().get_or_insert(error);
                    return Err(io::Error::other(text));
                }
            }
        }
        self.transfer
            .as_mut()
            .ok_or_else(|| io::Error::other("the request failed before"))
    }

    fn send(&mut self, body: Vec<u8>) -> Result<Transfer, TransportError> {
        let mut transfer = self.client.request(&self.url, &self.headers, Some(body))?;
        transfer.until_answered()?;
        match transfer.status()? {
            200 => {}
            status => return Err(transfer.refused(status)),
        }
        let kind = transfer.header_values("content-type");
        if kind
            .iter()
            .any(|kind| kind == "application/x-git-upload-pack-result")
        {
            Ok(transfer)
        } else {
            Err(TransportError::protocol("the answer is no git data"))
        }
    }
}

/// Where gix writes a request.
pub(super) struct Outgoing(Rc<RefCell<Pending>>);

impl Write for Outgoing {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match &mut self.0.borrow_mut().body {
            Some(body) => body.extend_from_slice(data),
            None => return Err(io::Error::other("the request is already sent")),
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where gix reads an answer.
pub(super) enum Body {
    /// Remembered from another time.
    Known(io::Cursor<Vec<u8>>),
    /// Read ahead in part.
    Begun(io::Cursor<Vec<u8>>, Rc<RefCell<Transfer>>),
    /// As it comes.
    Live(Rc<RefCell<Transfer>>),
    /// As it comes, once the request is complete.
    Asked(Rc<RefCell<Pending>>),
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = match self {
            Self::Known(known) => return known.read(buffer),
            Self::Begun(begun, rest) => {
                let n = begun.read(buffer)?;
                if n > 0 || buffer.is_empty() {
                    return Ok(n);
                }
                return rest.borrow_mut().read(buffer);
            }
            Self::Live(transfer) => transfer.borrow_mut().read(buffer)?,
            Self::Asked(pending) => pending.borrow_mut().transfer()?.read(buffer)?,
        };
        Ok(available)
    }
}

/// What curl has brought and nobody has read yet.
#[derive(Default)]
pub(super) struct Collector {
    headers: Vec<u8>,
    data: Vec<u8>,
    /// How much of `data` is read.
    read: usize,
    /// The final answer's body has begun.
    begun: bool,
}

impl Handler for Collector {
    fn write(&mut self, data: &[u8]) -> Result<usize, WriteError> {
        self.begun = true;
        self.data.extend_from_slice(data);
        Ok(data.len())
    }

    fn header(&mut self, line: &[u8]) -> bool {
        if line.starts_with(b"HTTP/") {
            self.headers.clear();
        }
        self.headers.extend_from_slice(line);
        self.headers.len() <= HEADER_LIMIT
    }

    fn debug(&mut self, _: InfoType, _: &[u8]) {}
}

/// One request under way.
pub(super) struct Transfer {
    multi: Rc<Multi>,
    handle: Option<Easy2Handle<Collector>>,
    meter: Meter,
    failure: Failure,
    /// Set when curl is done with it.
    over: Option<Result<(), curl::Error>>,
}

impl Drop for Transfer {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.take() {
            // Closes the connection if the answer was not read to its end.
            self.multi.remove2(handle).ok();
        }
    }
}

impl Transfer {
    fn handle(&mut self) -> &mut Easy2Handle<Collector> {
        self.handle.as_mut().expect("taken by drop only")
    }

    fn collector(&mut self) -> &mut Collector {
        self.handle().get_mut()
    }

    /// Lets curl work until there is something to read or nothing will come.
    fn pump(&mut self) -> Result<(), TransportError> {
        self.meter.waiting();
        let before = self.collector().data.len();
        loop {
            if let Some(reason) = self.meter.stopped() {
                self.meter.done(0);
                return Err(reason);
            }
            let failed =
                |error: curl::MultiError| TransportError::protocol(&format!("curl: {error}"));
            self.multi.perform().map_err(failed)?;
            let mut over = None;
            if let Some(handle) = &self.handle {
                self.multi.messages(|message| {
                    if let Some(result) = message.result_for2(handle) {
                        over = Some(result);
                    }
                });
            }
            let received = self.collector().data.len() - before;
            if over.is_some() {
                self.over = over;
            }
            if received > 0 || self.over.is_some() {
                self.meter.done(received);
                return match &self.over {
                    Some(Err(error)) if received == 0 => Err(curl_error(error)),
                    _ => Ok(()),
                };
            }
            self.multi.wait(&mut [], TICK).map_err(failed)?;
        }
    }

    /// Until the final headers are here.
    fn until_answered(&mut self) -> Result<(), TransportError> {
        while !self.collector().begun && self.over.is_none() {
            self.pump()?;
        }
        Ok(())
    }

    /// Makes data available; zero at the end.
    fn fill(&mut self) -> io::Result<usize> {
        loop {
            let collector = self.collector();
            let available = collector.data.len() - collector.read;
            if available > 0 {
                return Ok(available);
            }
            collector.data.clear();
            collector.read = 0;
            let result = match &self.over {
                Some(Ok(())) => return Ok(0),
                Some(Err(error)) => Err(curl_error(error)),
                None => self.pump(),
            };
            if let Err(error) = result {
                let text = error.to_string();
                self.failure.borrow_mut().get_or_insert(error);
                return Err(io::Error::other(text));
            }
        }
    }

    fn data(&mut self) -> &[u8] {
        let collector = self.collector();
        &collector.data[collector.read..]
    }

    fn consume(&mut self, amount: usize) {
        self.collector().read += amount;
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.fill()?.min(buffer.len());
        buffer[..n].copy_from_slice(&self.data()[..n]);
        self.consume(n);
        Ok(n)
    }

    fn status(&mut self) -> Result<u32, TransportError> {
        self.handle()
            .response_code()
            .map_err(|error| TransportError::protocol(&format!("curl: {error}")))
    }

    fn redirect(&mut self) -> Result<String, TransportError> {
        self.handle()
            .redirect_url()
            .ok()
            .flatten()
            .map(str::to_owned)
            .ok_or_else(|| TransportError::protocol("it redirects to nowhere"))
    }

    fn header_text(&mut self) -> Vec<u8> {
        let text = String::from_utf8_lossy(&self.collector().headers).into_owned();
        text.lines()
            .flat_map(|line| [line, "\n"])
            .collect::<String>()
            .into_bytes()
    }

    fn header_values(&mut self, name: &str) -> Vec<String> {
        String::from_utf8_lossy(&self.collector().headers)
            .lines()
            .filter_map(|line| line.split_once(':'))
            .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim().to_owned())
            .collect()
    }

    /// The error behind a status other than 200.
    fn refused(&mut self, status: u32) -> TransportError {
        let mut page = Vec::new();
        while page.len() < PAGE_LIMIT {
            match self.fill() {
                Ok(n) if n > 0 => {
                    page.extend_from_slice(self.data());
                    self.consume(n);
                }
                _ => break,
            }
        }
        page.truncate(PAGE_LIMIT);
        let is_text = self
            .header_values("content-type")
            .iter()
            .any(|kind| kind.starts_with("text/plain"));
        let mut message = format!("HTTP status {status}");
        if is_text && !page.is_empty() {
            message = format!("{message}: {}", String::from_utf8_lossy(&page).trim());
        }
        let retry = self
            .header_values("retry-after")
            .first()
            .and_then(|value| retry_after(value));
        match (status, retry) {
            (429, retry) => TransportError::RetryAfter {
                after: retry.unwrap_or(super::stderr::DEFAULT_RETRY),
                message: crate::clean_message(&message),
            },
            (503, Some(after)) => TransportError::RetryAfter {
                after,
                message: crate::clean_message(&message),
            },
            (401 | 403 | 407, _) => TransportError::auth_failed(&message),
            (404 | 410, _) => TransportError::not_found(&message),
            (500..=599, _) => TransportError::unreachable(&message),
            _ => TransportError::protocol(&message),
        }
    }
}

/// Seconds, or a date.
fn retry_after(value: &str) -> Option<Duration> {
    let after = match value.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let at = jiff::fmt::rfc2822::DateTimeParser::new()
                .parse_timestamp(value)
                .ok()?;
            let wait = at
                .as_second()
                .saturating_sub(jiff::Timestamp::now().as_second());
            Duration::from_secs(u64::try_from(wait).unwrap_or(0))
        }
    };
    Some(after.min(LONGEST_RETRY))
}

fn curl_error(error: &curl::Error) -> TransportError {
    let text = match error.extra_description() {
        Some(extra) => format!("{}: {extra}", error.description()),
        None => error.description().to_owned(),
    };
    if error.is_operation_timedout() {
        TransportError::timeout(&text)
    } else if error.is_url_malformed()
        || error.is_unsupported_protocol()
        || error.is_bad_content_encoding()
    {
        TransportError::protocol(&text)
    } else {
        TransportError::unreachable(&text)
    }
}

fn memchr(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A build against a libcurl without TLS would refuse most upstreams.
    #[test]
    fn curl_speaks_https() {
        let curl = curl::Version::get();
        assert!(curl.feature_ssl() && curl.protocols().any(|protocol| protocol == "https"));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(retry_after("120"), Some(Duration::from_secs(120)));
        assert_eq!(retry_after("9999999999"), Some(LONGEST_RETRY));
        assert_eq!(
            retry_after("Wed, 21 Oct 2015 07:28:00 GMT"),
            Some(Duration::ZERO)
        );
        assert_eq!(
            retry_after("Wed, 21 Oct 2499 07:28:00 GMT"),
            Some(LONGEST_RETRY)
        );
        assert_eq!(retry_after("soon"), None);
    }
}
