//! The text that tells an agent where it is and how to work.

use super::lookup;
use crate::merge::is_inherit;
use crate::yaml;
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;
use terok_proto::config::{Family, ProblemCode};
use terok_proto::error::printable_line;

/// What is known about the container that the text is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Package family of the image; null while unknown.
    pub family: Option<Family>,
    /// Roster entries in the image; null while unknown.
    pub installed: Option<BTreeSet<String>>,
}

/// Guidance that humans wrote, already read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guidance {
    /// `instructions.md` next to the global `config.yml`.
    pub global: Option<String>,
    /// `instructions.md` of the project.
    pub project: Option<String>,
}

/// The text for one agent: the stack's instructions, then global guidance, then the project's.
pub fn resolve_instructions(
    config: &Map<String, Value>,
    agent: &str,
    guidance: &Guidance,
    around: &Surroundings,
) -> String {
    let base = match config.get("instructions") {
        value @ Some(Value::Object(_)) => base_text(lookup(value, agent), around),
        value => base_text(value, around),
    };
    let parts = [
        Some(base),
        guidance.global.clone(),
        guidance.project.clone(),
    ];
    let parts: Vec<String> = parts
        .into_iter()
        .flatten()
        .filter(|part| !part.trim().is_empty())
        .collect();
    match parts.as_slice() {
        [only] => only.clone(),
        parts => parts
            .iter()
            .map(|part| part.trim_end())
            .collect::<Vec<_>>()
            .join("\n\n"),
    }
}

/// Reads an `instructions.md`: its trimmed text if there is one, and a warning if it cannot be read.
pub fn read_guidance(path: &Path) -> (Option<String>, Option<String>) {
    let warning = |why: &str| {
        Some(printable_line(&format!(
            "`{}` is ignored: {why}",
            path.display()
        )))
    };
    if !path.exists() {
        return (None, None);
    }
    let bytes = match yaml::read_bytes(path) {
        Ok(bytes) if bytes.len() as u64 > yaml::MAX_BYTES => {
            return (None, warning("it is larger than 1 MiB"));
        }
        Ok(bytes) => bytes,
        Err(problems) => {
            let first = problems.first().filter(|p| p.code == ProblemCode::Io);
            return (
                None,
                warning(first.map_or("it cannot be read", |p| &p.message)),
            );
        }
    };
    match String::from_utf8(bytes) {
        Ok(text) => (
            Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
            None,
        ),
        Err(_) => (None, warning("it is not UTF-8")),
    }
}

/// The daemon's own text. It names only what the image is known to hold.
pub fn bundled_instructions(around: &Surroundings) -> String {
    let mut out = String::from(
        "# Your surroundings\n\
         \n\
         You work inside an isolated container that terok made for this task. The project is checked out in\n\
         `/workspace`; your home directory is `/home/dev`. The container is the security boundary: inside it you may\n\
         change whatever the task needs, and nothing outside it is within your reach.\n\
         \n",
    );
    let packages = match around.family {
        Some(Family::Deb) => "`sudo apt-get install`",
        Some(Family::Rpm) => "`sudo dnf install`",
        None => "the distribution's package manager",
    };
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        "- You have `sudo` without a password. Install what is missing with {packages}; it lasts as long as the\n  \
         container."
    );
    let tools = known_tools(around);
    if !tools.is_empty() {
        let _ = writeln!(
            out,
            "- Installed beside the usual tools: {}.",
            tools.join(", ")
        );
    }
    out.push_str(
        "- Git already knows who you are. Work on a branch of your own, commit in small steps with clear messages,\n  \
         and do not rewrite history that others have seen.\n\
         \n\
         # How to work\n\
         \n\
         - Read the project's own documentation and conventions first.\n\
         - Keep changes to what the task asks for, and run the project's tests before you call it done.\n\
         - Directories like `~/.claude` or `~/.codex` are shared between projects. Keep private notes in a\n  \
         subdirectory named after the project.\n\
         \n\
         # Telling how it goes\n\
         \n\
         Write `/home/dev/.terok/work-status.yml` whenever your situation changes, and at the end:\n\
         \n\
         ```yaml\n\
         status: coding   # planning, coding, testing, debugging, reviewing, documenting, done, blocked, error\n\
         message: what you are doing, in one line\n\
         ```\n",
    );
    out
}

fn known_tools(around: &Surroundings) -> Vec<&'static str> {
    const TOOLS: [(&str, &str); 3] = [
        ("gh", "`gh` (GitHub)"),
        ("glab", "`glab` (GitLab)"),
        ("sonar", "`sonar-scanner`"),
    ];
    let Some(installed) = &around.installed else {
        return Vec::new();
    };
    TOOLS
        .iter()
        .filter(|(name, _)| installed.contains(*name))
        .map(|(_, shown)| *shown)
        .collect()
}

fn base_text(value: Option<&Value>, around: &Surroundings) -> String {
    match value {
        Some(value) if is_inherit(value) => bundled_instructions(around),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(items)) => list_text(items, around),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Bool(value)) => value.to_string(),
        None | Some(Value::Null | Value::Object(_)) => bundled_instructions(around),
    }
}

fn list_text(items: &[Value], around: &Surroundings) -> String {
    let mut bundled = false;
    let mut parts = Vec::new();
    for item in items {
        match item {
            // Said once is enough, however often layers inherit.
            item if is_inherit(item) => {
                if !std::mem::replace(&mut bundled, true) {
                    parts.push(bundled_instructions(around));
                }
            }
            Value::String(text) => parts.push(text.clone()),
            Value::Null | Value::Array(_) | Value::Object(_) => {}
            scalar => parts.push(scalar.to_string()),
        }
    }
    parts.join("\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn text(instructions: Value, guidance: &Guidance) -> String {
        let Value::Object(config) = json!({"instructions": instructions}) else {
            panic!("mapping")
        };
        resolve_instructions(&config, "claude", guidance, &Surroundings::default())
    }

    #[test]
    fn every_form_of_the_key_is_understood() {
        let none = Guidance::default();
        let bundled = bundled_instructions(&Surroundings::default());
        for same in [
            json!(null),
            json!("_inherit"),
            json!({"codex": "x"}),
            json!({"claude": "_inherit"}),
        ] {
            assert_eq!(text(same, &none), bundled);
        }
        assert_eq!(text(json!("own"), &none), "own");
        assert_eq!(text(json!(""), &none), "");
        assert_eq!(text(json!(["a", "b"]), &none), "a\n\nb");
        assert_eq!(text(json!({"_default": ["a"]}), &none), "a");
        assert_eq!(
            text(json!(["_inherit", "b"]), &none),
            format!("{bundled}\n\nb")
        );
    }

    #[test]
    fn guidance_follows_or_stands_alone() {
        let guidance = Guidance {
            global: None,
            project: Some("be nice".into()),
        };
        assert_eq!(text(json!("own\n"), &guidance), "own\n\nbe nice");
        assert_eq!(text(json!(""), &guidance), "be nice");
        let both = Guidance {
            global: Some("g".into()),
            project: Some("p".into()),
        };
        assert_eq!(text(json!("own"), &both), "own\n\ng\n\np");
    }

    #[test]
    fn the_bundled_text_names_only_what_is_there() {
        let around = |family, installed: &[&str]| Surroundings {
            family: Some(family),
            installed: Some(installed.iter().map(|s| (*s).to_owned()).collect()),
        };
        let fedora = bundled_instructions(&around(Family::Rpm, &["claude", "gh"]));
        assert!(fedora.contains("dnf") && !fedora.contains("apt"));
        assert!(fedora.contains("`gh`") && !fedora.contains("glab"));
        let ubuntu = bundled_instructions(&around(Family::Deb, &["glab"]));
        assert!(ubuntu.contains("apt") && !ubuntu.contains("dnf") && ubuntu.contains("glab"));
        assert!(ubuntu.contains("work-status.yml") && ubuntu.contains("/workspace"));
    }

    #[test]
    fn guidance_files_are_optional() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("instructions.md");
        assert_eq!(read_guidance(&path), (None, None));
        std::fs::write(&path, " \n").expect("write");
        assert_eq!(read_guidance(&path), (None, None));
        std::fs::write(&path, "\n Be nice.\n").expect("write");
        assert_eq!(read_guidance(&path), (Some("Be nice.".into()), None));
        std::fs::write(&path, b"caf\xe9").expect("write");
        assert!(
            read_guidance(&path)
                .1
                .is_some_and(|warning| warning.contains("UTF-8"))
        );
        assert!(read_guidance(dir.path()).1.is_some());
    }
}
