//! What can go wrong with Podman, as the faults that a client sees.

use std::path::PathBuf;
use std::time::Duration;
use terok_proto::{Fault, Kind};

/// The most of a message that is passed on.
const MESSAGE: usize = 2048;

pub(crate) fn unavailable(message: impl AsRef<str>) -> Fault {
    Fault::new(Kind::PodmanUnavailable, cut(message.as_ref(), MESSAGE))
}

/// Nobody listens where Podman was looked for.
pub(crate) fn no_service(tried: &[(PathBuf, String)]) -> Fault {
    let tried: Vec<String> = tried
        .iter()
        .map(|(path, why)| format!("`{}`: {why}", path.display()))
        .collect();
    let tried = if tried.is_empty() {
        "there is no socket to try".to_owned()
    } else {
        tried.join("; ")
    };
    unavailable(format!("podman does not answer ({tried})"))
        .hint("install podman, or run `systemctl --user enable --now podman.socket`")
}

/// The connection ended before the answer did.
pub(crate) fn broken(what: &str, why: impl std::fmt::Display) -> Fault {
    unavailable(format!(
        "podman ended the connection during {what}: {why}; try again"
    ))
}

pub(crate) fn timeout(what: &str, after: Duration) -> Fault {
    Fault::new(
        Kind::PodmanTimeout,
        format!(
            "podman did not finish {what} within {} s; see whether its service hangs",
            after.as_secs_f32()
        ),
    )
}

/// An answer that Podman would not give.
pub(crate) fn nonsense(what: &str, why: impl std::fmt::Display) -> Fault {
    Fault::new(
        Kind::PodmanError,
        cut(
            &format!("podman's answer to {what} cannot be used: {why}"),
            MESSAGE,
        ),
    )
}

/// An HTTP status that says no, with the message of Podman's error object.
pub(crate) fn refused(what: &str, status: u16, body: &[u8]) -> Fault {
    #[derive(serde::Deserialize)]
    struct Refusal {
        #[serde(default)]
        message: String,
        #[serde(default)]
        cause: String,
    }
    let message = match serde_json::from_slice::<Refusal>(body) {
        Ok(Refusal { message, cause }) if message.is_empty() => cause,
        Ok(Refusal { message, .. }) => message,
        Err(_) => String::from_utf8_lossy(&body[..body.len().min(MESSAGE)]).into_owned(),
    };
    refused_with(what, status, &message)
}

pub(crate) fn refused_with(what: &str, status: u16, message: &str) -> Fault {
    let message = cut(message.trim(), MESSAGE);
    let message = if message.is_empty() {
        format!("podman refuses {what} with status {status}")
    } else {
        format!("podman refuses {what}: {message}")
    };
    Fault::new(Kind::PodmanError, message).with("status", status)
}

/// At most `limit` bytes of a text, cut between characters.
pub(crate) fn cut(text: &str, limit: usize) -> &str {
    if text.len() <= limit {
        return text;
    }
    let mut end = limit;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn podmans_message_is_passed_on_printable() {
        let fault = refused(
            "the removal of x",
            409,
            br#"{"cause":"image is in use by a container","message":"image used by 28\u001b[31m","response":409}"#,
        );
        assert_eq!(fault.kind, Kind::PodmanError);
        assert_eq!(
            fault.message,
            "podman refuses the removal of x: image used by 28\\x1b[31m"
        );
        assert_eq!(fault.data["status"], 409);
    }

    #[test]
    fn an_error_that_is_no_json_is_still_a_message() {
        assert_eq!(
            refused("x", 500, b"oh\nno").message,
            "podman refuses x: oh no"
        );
        assert_eq!(
            refused("x", 500, b"").message,
            "podman refuses x with status 500"
        );
        assert_eq!(
            refused("x", 500, b"{}").message,
            "podman refuses x with status 500"
        );
        assert!(refused("x", 500, &vec![b'a'; 1 << 20]).message.len() < 3000);
        assert!(refused("x", 500, "ä".repeat(5000).as_bytes()).message.len() < 10_000);
    }
}
