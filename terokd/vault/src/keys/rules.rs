//! What a scope, a comment and a key type may look like.

use super::codec::KeyType;
use terok_proto::{Fault, Kind};

const SCOPE_LIMIT: usize = 64;
const COMMENT_LIMIT: usize = 200;

/// Refuses what is no user scope. Scopes with `%` belong to the infrastructure: nobody reaches them from outside.
pub(crate) fn check_scope(scope: &str) -> Result<(), Fault> {
    let mut bytes = scope.bytes();
    let starts = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
    let rest = bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if starts && rest && scope.len() <= SCOPE_LIMIT {
        return Ok(());
    }
    let message = if scope.starts_with('%') {
        format!("scope `{}` is reserved", shorten(scope))
    } else {
        format!(
            "scope `{}` is not usable: a letter or digit, then letters, digits, `.`, `_`, `-`, 64 at most",
            shorten(scope)
        )
    };
    Err(Fault::new(Kind::InvalidScope, message))
}

/// Whether listings show a scope.
pub(crate) fn is_visible(scope: &str) -> bool {
    !scope.starts_with('%')
}

/// Refuses a comment that could deceive whoever reads the public line.
pub(crate) fn check_comment(comment: &str) -> Result<(), Fault> {
    let refuse = |position: usize, what: &str| {
        Err(Fault::new(
            Kind::UnsafeComment,
            format!("the comment has {what} at position {position}"),
        )
        .with("position", position))
    };
    for (index, c) in comment.chars().enumerate() {
        let position = index + 1;
        if index == COMMENT_LIMIT {
            return refuse(position, "more than 200 characters, the first too many");
        }
        if c.is_control() {
            return refuse(position, "a control character");
        }
        if matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        {
            return refuse(
                position,
                "a character that changes the direction or the line",
            );
        }
    }
    Ok(())
}

/// The key type of that name; `ed25519` without one.
pub(crate) fn key_type(name: Option<&str>) -> Result<KeyType, Fault> {
    match name {
        None | Some("ed25519") => Ok(KeyType::Ed25519),
        Some("rsa") => Ok(KeyType::Rsa),
        Some(other) => Err(Fault::invalid_argument(format!(
            "key type `{}` is unknown: use `ed25519` or `rsa`",
            shorten(other)
        ))),
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes() {
        for good in ["a", "A9", "orion", "a..b", "a-b_c.d", "0", &"x".repeat(64)] {
            assert!(check_scope(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            ".a",
            "-a",
            "_a",
            "%host",
            "a/b",
            "a b",
            "ä",
            "a\n",
            "..",
            &"x".repeat(65),
        ] {
            assert_eq!(
                check_scope(bad).unwrap_err().kind,
                Kind::InvalidScope,
                "{bad}"
            );
        }
        assert!(!is_visible("%host"));
    }

    #[test]
    fn comments() {
        for good in ["", "tk-main:orion", "Grüße, 世界", &"ä".repeat(200)] {
            assert!(check_comment(good).is_ok(), "{good}");
        }
        for (bad, position) in [
            ("a\nb", 2),
            ("\u{7f}", 1),
            ("ab\u{85}", 3),
            ("x\u{202e}y", 2),
            ("\u{2066}", 1),
            (&*"a".repeat(201), 201),
        ] {
            let fault = check_comment(bad).unwrap_err();
            assert_eq!(fault.kind, Kind::UnsafeComment, "{bad:?}");
            assert_eq!(fault.data["position"], position, "{bad:?}");
        }
    }

    #[test]
    fn key_types() {
        assert!(matches!(key_type(None), Ok(KeyType::Ed25519)));
        assert!(matches!(key_type(Some("rsa")), Ok(KeyType::Rsa)));
        assert_eq!(
            key_type(Some("ecdsa")).unwrap_err().kind,
            Kind::InvalidArgument
        );
    }
}
