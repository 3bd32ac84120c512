//! Project ids: what loads, and what may be created.
//!
//! Owns the only statement of both rules; everything that joins an id to a path or a name takes a [`ProjectId`].

use std::fmt;
use terok_proto::error::Result;
use terok_proto::{Fault, Kind};

/// Characters that a new id may have at most; vault scopes and socket names stop there.
pub const MAX_NEW_ID: usize = 64;

/// A project id that matches `[a-z0-9][a-z0-9_-]*`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProjectId(Box<str>);

impl ProjectId {
    /// An id as existing files and callers name it.
    pub fn parse(raw: &str) -> Result<Self> {
        if is_valid(raw) {
            return Ok(Self(raw.into()));
        }
        let shown: String = raw.chars().take(80).collect();
        Err(Fault::new(
            Kind::InvalidProjectId,
            format!("invalid project id `{shown}`: {RULE}"),
        )
        .with("project_id", shown))
    }

    /// An id for a new project: also short enough, and legal as the name of an image.
    pub fn parse_new(raw: &str) -> Result<Self> {
        let id = Self::parse(raw)?;
        match new_id_problem(raw) {
            None => Ok(id),
            Some(why) => Err(Fault::new(
                Kind::InvalidProjectId,
                format!("project id `{raw}` cannot be used for a new project: {why}"),
            )
            .with("project_id", raw)),
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The rule in words, for messages.
pub const RULE: &str =
    "it starts with a lowercase letter or digit; then lowercase letters, digits, `-`, `_`";

/// Whether the text fully matches `[a-z0-9][a-z0-9_-]*`.
pub fn is_valid(raw: &str) -> bool {
    let bytes = raw.as_bytes();
    let plain = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    bytes.first().is_some_and(plain) && bytes.iter().all(|b| plain(b) || *b == b'_' || *b == b'-')
}

/// Why a valid id may not be given to a new project, if so.
pub fn new_id_problem(id: &str) -> Option<&'static str> {
    if id.len() > MAX_NEW_ID {
        Some("it has more than 64 characters")
    } else {
        image_name_problem(id)
    }
}

/// Why no image can be named after a project, if so.
pub fn image_name_problem(id: &str) -> Option<&'static str> {
    if !is_image_repository(id) {
        Some(
            "it is no legal image name: separators stand between letters or digits, as `_`, `__` or dashes",
        )
    } else if id.starts_with("terok-l0") || id.starts_with("terok-l1-cli") {
        Some("names beginning with `terok-l0` or `terok-l1-cli` belong to the base images")
    } else {
        None
    }
}

/// Whether the text matches `[a-z0-9]+((_|__|-+)[a-z0-9]+)*`.
fn is_image_repository(id: &str) -> bool {
    let mut separator = String::new();
    let mut any = false;
    for c in id.chars() {
        match c {
            'a'..='z' | '0'..='9' => {
                if !separator.is_empty() {
                    let dashes = separator.bytes().all(|b| b == b'-');
                    if !any || !(dashes || separator == "_" || separator == "__") {
                        return false;
                    }
                    separator.clear();
                }
                any = true;
            }
            '_' | '-' => separator.push(c),
            _ => return false,
        }
    }
    any && separator.is_empty()
}

impl fmt::Display for ProjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for ProjectId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for ProjectId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_what_the_pattern_says() {
        for good in ["a", "0", "a-", "a_-b", "a___b", "terok-l0x", "x9_y-z"] {
            assert!(ProjectId::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "A", "-a", "_a", "a/b", "..", "a\n", "é", "a b", "a."] {
            let fault = ProjectId::parse(bad).unwrap_err();
            assert_eq!(fault.kind, Kind::InvalidProjectId, "{bad:?}");
        }
    }

    #[test]
    fn new_ids_are_image_names() {
        for good in ["a", "a-b", "a--b", "a_b", "a__b", "terok", "9x"] {
            assert!(ProjectId::parse_new(good).is_ok(), "{good}");
        }
        let long = "a".repeat(65);
        for bad in [
            "a-",
            "a_-b",
            "a___b",
            "a_",
            "terok-l0",
            "terok-l0x",
            "terok-l1-cli-a",
            &long,
        ] {
            assert!(ProjectId::parse_new(bad).is_err(), "{bad}");
        }
        assert!(ProjectId::parse_new(&"a".repeat(64)).is_ok());
    }
}
