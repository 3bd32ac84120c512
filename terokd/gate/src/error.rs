//! Why talking to an upstream failed, in words that are safe to show.

use std::path::PathBuf;
use std::time::Duration;
use terok_proto::gate::StalenessErrorKind;
use terok_proto::{Fault, Kind};

/// What the last of a long message is worth keeping.
const MESSAGE_LIMIT: usize = 4096;

/// How far a call to an upstream came that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contact {
    /// The host did not answer, so other upstreams on it are not worth a try either.
    Unanswered,
    /// The host answered, whatever it said.
    Answered,
    /// It was never asked.
    NotTried,
}

/// Why a call to an upstream failed. Messages hold no secrets and no control characters.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// No connection, or it broke.
    #[error("cannot reach upstream: {0}")]
    Unreachable(String),
    /// It did not answer, or stopped sending, for too long.
    #[error("upstream took too long: {0}")]
    Timeout(String),
    /// It refused the credentials, or wanted some and there are none.
    #[error("upstream refused the credentials: {0}")]
    AuthFailed(String),
    /// The server's key is not the pinned one.
    #[error(
        "the host key of `{host}` is not the one pinned in `{}`: if the change is expected, remove the host's lines from that file",
        known_hosts.display()
    )]
    HostKeyChanged {
        /// The server.
        host: String,
        /// The file with the pins.
        known_hosts: PathBuf,
    },
    /// There is no such repository, or not for these credentials.
    #[error("upstream has no such repository: {0}")]
    NotFound(String),
    /// The caller stopped it.
    #[error("cancelled")]
    Cancelled,
    /// The repository does not use SHA-1 ids.
    #[error("upstream uses the object format `{0}`; gates hold sha1 repositories only")]
    UnsupportedObjectFormat(String),
    /// A program that this kind of upstream needs is not installed.
    #[error("`{0}` is not installed on this host: install it and try again")]
    GitMissing(String),
    /// It answered, but not as a git server does.
    #[error("upstream does not speak git as expected: {0}")]
    Protocol(String),
    /// The gate's disk.
    #[error("cannot store what upstream sent: {0}")]
    Storage(String),
    /// It asked to be left alone for a while.
    #[error("upstream asks to wait {} s: {message}", after.as_secs())]
    RetryAfter {
        /// For how long.
        after: Duration,
        /// What it said.
        message: String,
    },
}

impl TransportError {
    pub(crate) fn unreachable(message: &str) -> Self {
        Self::Unreachable(clean_message(message))
    }

    pub(crate) fn timeout(message: &str) -> Self {
        Self::Timeout(clean_message(message))
    }

    pub(crate) fn auth_failed(message: &str) -> Self {
        Self::AuthFailed(clean_message(message))
    }

    pub(crate) fn not_found(message: &str) -> Self {
        Self::NotFound(clean_message(message))
    }

    pub(crate) fn protocol(message: &str) -> Self {
        Self::Protocol(clean_message(message))
    }

    pub(crate) fn storage(message: &str) -> Self {
        Self::Storage(clean_message(message))
    }

    /// How a staleness report names it.
    pub fn error_kind(&self) -> StalenessErrorKind {
        match self {
            Self::Timeout(_) => StalenessErrorKind::Timeout,
            Self::AuthFailed(_) => StalenessErrorKind::AuthFailed,
            Self::HostKeyChanged { .. } => StalenessErrorKind::HostKeyChanged,
            _ => StalenessErrorKind::Unreachable,
        }
    }

    /// What it says of the host, and so of other upstreams there.
    pub fn contact(&self) -> Contact {
        match self {
            Self::Unreachable(_) | Self::Timeout(_) => Contact::Unanswered,
            Self::GitMissing(_) | Self::Cancelled => Contact::NotTried,
            Self::AuthFailed(_)
            | Self::HostKeyChanged { .. }
            | Self::NotFound(_)
            | Self::UnsupportedObjectFormat(_)
            | Self::Protocol(_)
            | Self::Storage(_)
            | Self::RetryAfter { .. } => Contact::Answered,
        }
    }
}

impl From<TransportError> for Fault {
    fn from(error: TransportError) -> Self {
        let kind = match &error {
            TransportError::Unreachable(_)
            | TransportError::NotFound(_)
            | TransportError::RetryAfter { .. } => Kind::UpstreamUnreachable,
            TransportError::Timeout(_) => Kind::Timeout,
            TransportError::AuthFailed(_) => Kind::UpstreamAuthFailed,
            TransportError::HostKeyChanged { .. } => Kind::HostKeyChanged,
            TransportError::Cancelled => Kind::Cancelled,
            TransportError::UnsupportedObjectFormat(_) => Kind::GateUnsupportedObjectFormat,
            TransportError::GitMissing(_) => Kind::GitMissing,
            TransportError::Protocol(_) => Kind::GitError,
            TransportError::Storage(_) => Kind::StorageError,
        };
        let fault = Self::new(kind, error.to_string());
        match error {
            TransportError::HostKeyChanged { host, known_hosts } => fault
                .with("host", host)
                .with("known_hosts", known_hosts.to_string_lossy()),
            TransportError::RetryAfter { after, .. } => {
                fault.retry_after_ms(u64::try_from(after.as_millis()).unwrap_or(u64::MAX))
            }
            TransportError::NotFound(_) => fault.with("reason", "not_found"),
            _ => fault,
        }
    }
}

/// Why a push did not happen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// Upstream refused the update: not a fast-forward, a protected branch, a hook.
    #[error("upstream refused the push: {0}")]
    Rejected(String),
    /// It never came to that.
    #[error(transparent)]
    Transport(#[from] TransportError),
}

impl From<PushError> for Fault {
    fn from(error: PushError) -> Self {
        match error {
            PushError::Rejected(_) => Self::new(Kind::PushRejected, error.to_string()),
            PushError::Transport(error) => error.into(),
        }
    }
}

/// Text of a server or a child, fit for a message: its last 4 KiB without control characters, credentials in URLs and
/// tokens of ours masked.
pub fn clean_message(text: &str) -> String {
    let masked = mask_tokens(&mask_userinfo(tail(text)));
    terok_proto::error::printable_line(masked.trim())
}

/// The last 4 KiB. A credential that the cut goes through loses its mark, so the word that was cut goes as well.
fn tail(text: &str) -> &str {
    if text.len() <= MESSAGE_LIMIT {
        return text;
    }
    let mut start = text.len() - MESSAGE_LIMIT;
    while !text.is_char_boundary(start) {
        start += 1;
    }
    let cut = &text[start..];
    cut.find(char::is_whitespace).map_or("", |at| &cut[at..])
}

/// `scheme://user:secret@` → `scheme://***@`.
fn mask_userinfo(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after
            .find(|c: char| {
                c == '/' || c == '?' || c == '#' || c.is_whitespace() || "\"'`<>".contains(c)
            })
            .unwrap_or(after.len());
        let authority = &after[..end];
        rest = match authority.rfind('@') {
            Some(sign) if authority[..sign].contains(':') || !is_ssh_scheme(before) => {
                out.push_str("***");
                &after[sign..]
            }
            _ => after,
        };
    }
    out.push_str(rest);
    out
}

/// The user name in an SSH URL is no secret; the one in an HTTPS URL often is a token.
fn is_ssh_scheme(before: &str) -> bool {
    before
        .strip_suffix("://")
        .is_some_and(|text| text.to_ascii_lowercase().ends_with("ssh"))
}

/// `terok-g-…` and `terok-p-…` with 32 hex digits.
fn mask_tokens(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("terok-") {
        let (before, after) = rest.split_at(at);
        out.push_str(before);
        let bytes = after.as_bytes();
        let is_token = bytes.len() >= 40
            && matches!(bytes[6], b'g' | b'p')
            && bytes[7] == b'-'
            && bytes[8..40].iter().all(u8::is_ascii_hexdigit);
        if is_token {
            out.push_str(&after[..8]);
            out.push_str("***");
            rest = &after[40..];
        } else {
            out.push_str("terok-");
            rest = &after[6..];
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_lose_their_secrets() {
        for (text, clean) in [
            (
                "fatal: https://u:s3cret@h/x denied",
                "fatal: https://***@h/x denied",
            ),
            ("https://ghp_abc@h/x", "https://***@h/x"),
            ("https://u:p@ss@h/x", "https://***@h/x"),
            ("ssh://git@h/x", "ssh://git@h/x"),
            ("ssh://git:pw@h/x", "ssh://***@h/x"),
            ("https://h/a@b", "https://h/a@b"),
            (
                "http://terok-g-0123456789abcdef0123456789abcdef@h/ and terok-p-0123456789ABCDEF0123456789abcdefZ",
                "http://***@h/ and terok-p-***Z",
            ),
            ("terok-g-short", "terok-g-short"),
            ("a\u{1b}[31m\nb", "a\\x1b[31m b"),
        ] {
            assert_eq!(clean_message(text), clean);
        }
    }

    #[test]
    fn a_long_message_keeps_its_end_and_no_half_credential() {
        let text = format!("https://u:{}@h/x the end", "s".repeat(5000));
        assert_eq!(clean_message(&text), "the end");
        assert_eq!(clean_message(&"é".repeat(5000)), "");
    }
}
