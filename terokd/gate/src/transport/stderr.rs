//! What git and ssh mean by what they say on stderr. They run with `LC_ALL=C`.

use crate::{Access, TransportError, Upstream};
use std::time::Duration;

/// How long a server that says "too many requests" without a time is left alone.
pub(super) const DEFAULT_RETRY: Duration = Duration::from_secs(60);

type Make = fn(&str) -> TransportError;

/// First match wins; in lower case.
const MEANINGS: &[(&str, Make)] = &[
    ("server uses object format", unsupported),
    ("mismatched algorithms", unsupported),
    ("sha256", unsupported_if_told),
    ("permission denied (", TransportError::auth_failed),
    (
        "permission denied, please try again",
        TransportError::auth_failed,
    ),
    (
        "too many authentication failures",
        TransportError::auth_failed,
    ),
    ("authentication failed", TransportError::auth_failed),
    ("could not read username", TransportError::auth_failed),
    ("could not read password", TransportError::auth_failed),
    (
        "unable to get password from user",
        TransportError::auth_failed,
    ),
    ("terminal prompts disabled", TransportError::auth_failed),
    ("returned error: 401", TransportError::auth_failed),
    ("returned error: 403", TransportError::auth_failed),
    ("http basic: access denied", TransportError::auth_failed),
    ("returned error: 429", throttled),
    ("returned error: 404", TransportError::not_found),
    ("repository not found", TransportError::not_found),
    (
        "access denied or repository not exported",
        TransportError::not_found,
    ),
    (
        "does not appear to be a git repository",
        TransportError::not_found,
    ),
    ("not a git repository", TransportError::not_found),
    ("' not found", TransportError::not_found),
    ("no such file or directory: ssh", |_| {
        TransportError::GitMissing("ssh".into())
    }),
    ("cannot run ssh", |_| {
        TransportError::GitMissing("ssh".into())
    }),
    ("ssh: not found", |_| {
        TransportError::GitMissing("ssh".into())
    }),
    ("could not resolve", TransportError::unreachable),
    ("unable to look up", TransportError::unreachable),
    ("connection refused", TransportError::unreachable),
    ("timed out", TransportError::timeout),
    ("timeout, server", TransportError::timeout),
    ("failed to connect", TransportError::unreachable),
    ("couldn't connect", TransportError::unreachable),
    ("no route to host", TransportError::unreachable),
    ("network is unreachable", TransportError::unreachable),
    ("no space left on device", TransportError::storage),
    ("disk quota exceeded", TransportError::storage),
    ("read-only file system", TransportError::storage),
    (
        "insufficient permission for adding",
        TransportError::storage,
    ),
    ("unable to create", TransportError::storage),
    ("unable to write", TransportError::storage),
    ("not our ref", TransportError::protocol),
    ("couldn't find remote ref", TransportError::protocol),
    (
        "did not send all necessary objects",
        TransportError::protocol,
    ),
    ("bad object", TransportError::protocol),
    ("bad pack", TransportError::protocol),
    ("bad line length", TransportError::protocol),
    ("protocol error", TransportError::protocol),
    ("pack signature mismatch", TransportError::protocol),
    ("early eof", TransportError::unreachable),
    ("hung up unexpectedly", TransportError::unreachable),
    ("connection reset", TransportError::unreachable),
    ("connection closed", TransportError::unreachable),
    ("broken pipe", TransportError::unreachable),
    ("transfer closed", TransportError::unreachable),
    ("returned error: 5", TransportError::unreachable),
    ("unable to access", TransportError::unreachable),
    (
        "could not read from remote repository",
        TransportError::unreachable,
    ),
];

fn unsupported(_: &str) -> TransportError {
    TransportError::UnsupportedObjectFormat("sha256".into())
}

fn unsupported_if_told(text: &str) -> TransportError {
    if text.contains("object format") || text.contains("hash algorithm") {
        unsupported(text)
    } else {
        TransportError::protocol(text)
    }
}

fn throttled(text: &str) -> TransportError {
    TransportError::RetryAfter {
        after: DEFAULT_RETRY,
        message: crate::clean_message(text),
    }
}

/// The error behind a failed child's stderr.
pub(super) fn classify(stderr: &str, upstream: &Upstream) -> TransportError {
    let message = message(stderr);
    if let Some(error) = host_key(stderr, upstream) {
        return error;
    }
    // What the server itself wrote proves nothing about us.
    let own: String = stderr
        .split(['\n', '\r'])
        .filter(|line| !line.trim_start().starts_with("remote:"))
        .flat_map(|line| [line, "\n"])
        .collect::<String>()
        .to_ascii_lowercase();
    MEANINGS
        .iter()
        .find(|(words, _)| own.contains(words))
        .map_or_else(
            || TransportError::protocol(&message),
            |(_, make)| make(&message),
        )
}

/// ssh refused the server's key, or knows none and may not learn one.
pub(super) fn host_key(stderr: &str, upstream: &Upstream) -> Option<TransportError> {
    if !upstream.url.is_ssh()
        || !(stderr.contains("REMOTE HOST IDENTIFICATION HAS CHANGED")
            || stderr.contains("Host key verification failed"))
    {
        return None;
    }
    let known_hosts = match &upstream.access {
        Access::VaultAgent { known_hosts, .. } => known_hosts.clone(),
        _ => "~/.ssh/known_hosts".into(),
    };
    Some(TransportError::HostKeyChanged {
        host: upstream.url.host(),
        known_hosts,
    })
}

/// The lines worth showing: no progress, no advice in general terms.
fn message(stderr: &str) -> String {
    let noise = [
        "Please make sure you have the correct access rights",
        "and the repository exists.",
        "Warning: Permanently added",
    ];
    let lines: Vec<&str> = stderr
        .split(['\n', '\r'])
        .map(str::trim)
        .filter(|line| !line.is_empty() && !noise.iter().any(|word| line.starts_with(word)))
        .filter(|line| !is_progress(line))
        .collect();
    if lines.is_empty() {
        "it gave no reason".to_owned()
    } else {
        lines.join("; ")
    }
}

/// `Receiving objects:  42% (…)` and its kind.
fn is_progress(line: &str) -> bool {
    let line = line.strip_prefix("remote: ").unwrap_or(line);
    line.split_once(':').is_some_and(|(what, rest)| {
        what.ends_with("objects") || what.ends_with("deltas")
    } && (rest.contains('%') || rest.contains("done") || rest.trim().bytes().all(|b| b.is_ascii_digit() || b == b',')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::GateUrl;

    fn upstream(url: &str) -> Upstream {
        Upstream {
            url: GateUrl::parse(url).unwrap(),
            access: Access::Plain,
        }
    }

    #[test]
    fn a_server_cannot_pass_for_git() {
        let stderr = "remote: fatal: Authentication failed\nfatal: unable to access 'https://u:p@h/': Could not resolve host: h";
        let error = classify(stderr, &upstream("https://h/x"));
        assert!(
            matches!(&error, TransportError::Unreachable(text) if !text.contains("u:p")),
            "{error}"
        );
        let error = classify("Host key verification failed.", &upstream("https://h/x"));
        assert!(matches!(error, TransportError::Protocol(_)));
    }

    #[test]
    fn messages_are_the_lines_that_matter() {
        let stderr = "remote: Counting objects: 100% (3/3), done.\rReceiving objects:  50% (1/2)\rfatal: early EOF\n";
        let error = classify(stderr, &upstream("https://h/x"));
        assert_eq!(
            error,
            TransportError::Unreachable("fatal: early EOF".into())
        );
    }
}
