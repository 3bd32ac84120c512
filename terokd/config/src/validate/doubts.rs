//! Values that load but are probably not meant: warnings about one key.

use super::Checker;
use super::scalars::trim;
use crate::yaml::dotted;
use serde_json::Value;
use terok_proto::config::{ProblemCode, Scope};

impl Checker<'_> {
    /// Warns about an accepted value.
    pub(super) fn doubt(&mut self, value: &Value) {
        if self.scope == Scope::Terokd {
            return;
        }
        let Some(text) = value.as_str() else { return };
        let key = dotted(&self.path);
        let message = match key.as_str() {
            "run.gpus" if !is_gpus(text) => format!(
                "{} selects no GPU; use true, `all`, `none` or a CDI name such as `nvidia.com/gpu=0`",
                self.quoted(value)
            ),
            "run.timezone" if !is_timezone(text) => format!(
                "{} is not in the time zone database; use a name such as `Europe/Prague`, or `UTC`",
                self.quoted(value)
            ),
            "image.base_image" if trim(text).is_empty() => {
                "it is blank, so the default is used; remove the key or give it a value".to_owned()
            }
            "image.base_image" if !is_base_image(text) => format!(
                "{} is no image reference; use `[host/]name[:tag][@sha256:digest]`",
                self.quoted(value)
            ),
            "git.human_name" | "git.human_email" if trim(text).is_empty() => {
                "it is blank and hides what git's own configuration says; remove the key or give it a value"
                    .to_owned()
            }
            "git.default_branch" if text.chars().any(char::is_control) => {
                "the name of a branch has no control characters".to_owned()
            }
            "git.authorship" if self.scope == Scope::Global && !is_authorship(text) => format!(
                "{} is not one of `agent-human`, `human-agent`, `agent`, `human`; projects that inherit it do not load",
                self.quoted(value)
            ),
            _ => return,
        };
        self.warn(ProblemCode::BadValue, message);
    }
}

/// Words that mean something for `run.gpus`.
fn is_gpus(text: &str) -> bool {
    text.eq_ignore_ascii_case("all") || text.eq_ignore_ascii_case("none") || is_cdi_name(text)
}

/// Whether the text is a CDI name, `vendor/class=name`.
pub fn is_cdi_name(text: &str) -> bool {
    let part = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || ".-_:".contains(c))
    };
    text.split_once('/')
        .and_then(|(vendor, rest)| Some((vendor, rest.split_once('=')?)))
        .is_some_and(|(vendor, (class, name))| part(vendor) && part(class) && part(name))
}

fn is_timezone(text: &str) -> bool {
    if text == "UTC" || trim(text).is_empty() {
        return true;
    }
    let database = jiff::tz::db();
    // A host without the database cannot judge.
    database.is_definitively_empty() || (text.len() <= 64 && database.get(text).is_ok())
}

fn is_authorship(text: &str) -> bool {
    let text = trim(text).to_lowercase();
    matches!(
        text.as_str(),
        "" | "agent-human" | "human-agent" | "agent" | "human"
    )
}

/// Whether the text has the shape `[host[:port]/]name[:tag][@sha256:<64 hex>]`.
pub fn is_base_image(text: &str) -> bool {
    if text.len() > 256 || text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return false;
    }
    let (name, digest) = match text.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (text, None),
    };
    if let Some(digest) = digest {
        let Some(hex) = digest.strip_prefix("sha256:") else {
            return false;
        };
        if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return false;
        }
    }
    let (host, rest) = match name.split_once('/') {
        Some((host, rest)) if host.contains(':') => (Some(host), rest),
        _ => (None, name),
    };
    if let Some((host, port)) = host.and_then(|host| host.split_once(':'))
        && (!is_name(host) || port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()))
    {
        return false;
    }
    let (name, tag) = match rest.split_once(':') {
        Some((name, tag)) => (name, Some(tag)),
        None => (rest, None),
    };
    is_name(name) && tag.is_none_or(is_tag)
}

fn is_name(text: &str) -> bool {
    let edge = |c: char| c.is_ascii_alphanumeric();
    text.starts_with(edge)
        && text.ends_with(edge)
        && text.chars().all(|c| edge(c) || "._/-".contains(c))
}

fn is_tag(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
}
