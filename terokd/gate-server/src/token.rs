//! What a token looks like, what is kept of it, and how it is kept out of logs.

use sha2::{Digest, Sha256};
use std::fmt;
use terok_proto::Fault;

const PREFIX: &str = "terok-g-";
const HEX: usize = 32;

/// A freshly minted token. Its text exists only here and where the caller puts it.
pub struct Token(String);

impl Token {
    /// Takes 128 bits from the operating system.
    pub(crate) fn mint() -> Result<Self, Fault> {
        let mut random = [0_u8; HEX / 2];
        getrandom::fill(&mut random)
            .map_err(|error| Fault::internal(format!("the system gives no randomness: {error}")))?;
        Ok(Self(format!("{PREFIX}{}", hex(&random))))
    }

    /// The token itself: for the environment of its container and nothing else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(***)")
    }
}

/// SHA-256 of a token: what is stored and compared.
pub(crate) type Hash = [u8; 32];

/// The hash of whatever a client presented.
pub(crate) fn hash(presented: &[u8]) -> Hash {
    Sha256::digest(presented).into()
}

/// Whether the text has the form of a token.
pub(crate) fn well_formed(text: &str) -> bool {
    text.strip_prefix(PREFIX)
        .is_some_and(|rest| rest.len() == HEX && rest.bytes().all(is_lower_hex))
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const fn is_lower_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

/// The text with tokens, and user and password in addresses, made unreadable.
pub fn mask(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(found) = next_secret(rest) {
        out.push_str(&rest[..found.start]);
        out.push_str(found.instead);
        rest = &rest[found.end..];
    }
    out.push_str(rest);
    out
}

struct Secret {
    start: usize,
    end: usize,
    instead: &'static str,
}

/// The first secret of the text. Every candidate is looked at once, so the whole costs linear time.
fn next_secret(text: &str) -> Option<Secret> {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        if (rest.starts_with(b"terok-g-") || rest.starts_with(b"terok-p-"))
            && rest.len() >= PREFIX.len() + HEX
            && rest[PREFIX.len()..PREFIX.len() + HEX]
                .iter()
                .all(|byte| is_lower_hex(*byte))
        {
            return Some(Secret {
                start: at + PREFIX.len(),
                end: at + PREFIX.len() + HEX,
                instead: "***",
            });
        }
        if rest.starts_with(b"://") {
            let from = at + 3;
            let end = bytes[from..]
                .iter()
                .position(|byte| matches!(byte, b'/' | b' ' | b'\'' | b'"' | b'\n'))
                .map_or(bytes.len(), |length| from + length);
            if let Some(length) = bytes[from..end].iter().rposition(|byte| *byte == b'@') {
                return Some(Secret {
                    start: from,
                    end: from + length,
                    instead: "***",
                });
            }
            at = from;
        } else {
            at += 1;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_the_form_and_differ() {
        let (one, two) = (Token::mint().unwrap(), Token::mint().unwrap());
        assert!(well_formed(one.expose()), "{}", one.expose());
        assert_ne!(one.expose(), two.expose());
        assert_eq!(format!("{one:?}"), "Token(***)");
        for wrong in [
            "",
            "terok-g-",
            "terok-g-0123456789ABCDEF0123456789abcdef",
            "terok-p-0123456789abcdef0123456789abcdef",
        ] {
            assert!(!well_formed(wrong), "{wrong}");
        }
    }

    #[test]
    fn secrets_are_masked_wherever_they_stand() {
        let token = Token::mint().unwrap();
        let text = format!(
            "é http://{t}@localhost:9418/a.git and {t}{t} https://u:p@ss@h/x?y@z ssh://h/x terok-g-12 é",
            t = token.expose()
        );
        assert_eq!(
            mask(&text),
            "é http://***@localhost:9418/a.git and terok-g-***terok-g-*** https://***@h/x?y@z ssh://h/x terok-g-12 é"
        );
    }
}
