//! A roster entry as far as its image layer depends on it.

use super::template;
use crate::embedded::{self, Embedded};
use terok_config::roster::{HelpSection, Roster, has_acp_wrapper};
use terok_proto::config::Family;
use terok_proto::error::printable_line;
use terok_proto::project::RosterKind;
use terok_proto::{Fault, Kind};

/// Author of an agent's commits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitIdentity {
    /// Name.
    pub name: String,
    /// Address.
    pub email: String,
}

/// One entry to install.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Name in selections.
    pub name: String,
    /// Name for humans.
    pub label: String,
    /// Program that tells its version.
    pub(super) binary: Option<String>,
    /// Author of its commits, if it is an agent.
    pub(super) identity: Option<GitIdentity>,
    /// Whether an editor can use it.
    pub(super) acp: bool,
    /// How Toad starts it.
    pub(super) toad_command: Option<String>,
    /// Line of the help page and its section.
    pub(super) help: Option<(HelpSection, String)>,
    /// Steps as root.
    pub(super) root: Option<Step>,
    /// Steps as the container's user.
    pub(super) dev: Option<Step>,
}

/// How something is installed.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// A script that is shipped.
    Script(&'static str),
    /// Instructions of the user's.
    Fragment(String),
}

impl Entry {
    pub(super) fn of(name: &str, roster: &Roster, family: Family) -> Result<Self, Fault> {
        let unknown = || {
            let shown: String = name.chars().take(80).collect();
            Fault::new(Kind::UnknownAgent, format!("`{shown}` cannot be installed"))
                .with("unknown", vec![shown])
        };
        // What selections allow; it gets into labels and file names.
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
        if name.is_empty() || !name.chars().all(plain) {
            return Err(unknown());
        }
        let entry = roster.get(name).ok_or_else(unknown)?;
        let definition = entry.definition.as_ref().ok_or_else(unknown)?;
        let install = definition.install.as_ref().ok_or_else(unknown)?;
        let step = |fragment: &Option<String>, user: &str, key: &str| {
            let shipped =
                embedded::install(name, user).map(|Embedded { path, .. }| Step::Script(path));
            let Some(fragment) = fragment else {
                return Ok(shipped);
            };
            let file = entry.path.as_deref().unwrap_or(name);
            let text = template::render(fragment, family)
                .and_then(|text| closed(&text).map(|()| text))
                .map_err(|why| {
                    Fault::new(
                        Kind::InvalidConfig,
                        format!("roster file `{file}`: `install.{key}`: {why}"),
                    )
                    .with("path", file)
                    .with("key", format!("install.{key}"))
                })?;
            Ok((!text.trim().is_empty()).then_some(Step::Fragment(text)))
        };
        let is_agent = definition.is_agent();
        let git = &definition.git_identity;
        let identity = is_agent.then(|| GitIdentity {
            name: printable_line(git.name.as_deref().unwrap_or(name)),
            email: printable_line(git.email.as_deref().unwrap_or_default()),
        });
        let acp = has_acp_wrapper(name);
        let toad_command = match definition.kind {
            RosterKind::Opencode => Some(format!("{name}-acp")),
            _ if acp => Some(format!("terok-{name}-acp")),
            _ => None,
        };
        let help = definition.help.as_ref();
        let section = help.map_or(
            if is_agent {
                HelpSection::Agent
            } else {
                HelpSection::DevTool
            },
            |help| help.section,
        );
        let is_helper = definition.kind == RosterKind::Runtime && help.is_none();
        let line = match help.and_then(|help| help.label.as_deref()) {
            Some(label) => unescaped(label),
            None => definition.label.clone(),
        };
        Ok(Self {
            name: name.to_owned(),
            label: printable_line(&definition.label),
            binary: definition
                .binary
                .clone()
                .filter(|binary| is_program(binary)),
            identity,
            acp,
            toad_command,
            help: (!is_helper && !line.trim().is_empty()).then_some((section, line)),
            root: step(&install.run_as_root, "root", "run_as_root")?,
            dev: step(&install.run_as_dev, "dev", "run_as_dev")?,
        })
    }
}

/// A name that needs no quoting.
fn is_program(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "._+-".contains(c))
}

/// Fails if what follows the fragment would become part of it.
fn closed(text: &str) -> Result<(), String> {
    match crate::snippet::combine("", Some(text), None) {
        Ok(_) => Ok(()),
        Err(_) => Err("its last line ends in a backslash".to_owned()),
    }
}

/// Expands backslash escapes one by one; what is none stays.
fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let code = |digits: &str, radix: u32| {
            u32::from_str_radix(digits, radix)
                .ok()
                .and_then(char::from_u32)
        };
        let hex = |from: usize, len: usize| {
            after
                .get(from..from + len)
                .filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
                .and_then(|digits| code(digits, 16))
                .map(|c| (c, from + len))
        };
        let octal_len = after
            .bytes()
            .take(3)
            .take_while(|b| (b'0'..=b'7').contains(b))
            .count();
        let expanded = match after.bytes().next() {
            Some(b'n') => Some(('\n', 1)),
            Some(b't') => Some(('\t', 1)),
            Some(b'r') => Some(('\r', 1)),
            Some(b'a') => Some(('\u{7}', 1)),
            Some(b'b') => Some(('\u{8}', 1)),
            Some(b'f') => Some(('\u{c}', 1)),
            Some(b'v') => Some(('\u{b}', 1)),
            Some(b'e') => Some(('\u{1b}', 1)),
            Some(b'\\') => Some(('\\', 1)),
            Some(b'"') => Some(('"', 1)),
            Some(b'\'') => Some(('\'', 1)),
            Some(b'x') => hex(1, 2),
            Some(b'u') => hex(1, 4),
            Some(b'U') => hex(1, 8),
            Some(b'0'..=b'7') => code(&after[..octal_len], 8).map(|c| (c, octal_len)),
            _ => None,
        };
        match expanded {
            Some((c, len)) => {
                out.push(c);
                rest = &after[len..];
            }
            None => {
                out.push('\\');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_of_help_labels_are_expanded() {
        for (text, expanded) in [
            (r"\033[1mbold\x1b[0m", "\u{1b}[1mbold\u{1b}[0m"),
            (r"\u00e9\t\n\\n", "é\t\n\\n"),
            ("größer \\q \\", "größer \\q \\"),
            (r"\x", r"\x"),
            (r"\xé1", r"\xé1"),
            (r"\ud800", r"\ud800"),
            (r"\U0001f438", "🐸"),
        ] {
            assert_eq!(unescaped(text), expanded, "{text}");
        }
    }
}
