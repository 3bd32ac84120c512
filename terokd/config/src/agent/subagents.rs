//! Sub-agent entries of an agent configuration: their files, and which of them take part.

use crate::env::Environment;
use crate::merge::is_inherit;
use crate::validate::Finding;
use crate::yaml::{self, Step};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::path::Path;
use terok_proto::config::ProblemCode;
use terok_proto::error::printable_line;

/// Fields of a sub-agent that are passed through to the agent.
const PASSED: [&str; 12] = [
    "description",
    "tools",
    "disallowedTools",
    "model",
    "permissionMode",
    "mcpServers",
    "hooks",
    "maxTurns",
    "skills",
    "memory",
    "background",
    "isolation",
];

/// Sub-agents that take part in a run, and what was left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Subagents {
    /// Content of `agents.json`.
    pub agents: Map<String, Value>,
    /// Skipped entries, missing files, unknown selected names.
    pub warnings: Vec<String>,
}

/// Makes the `file` of each sub-agent of an `agent:` section or preset absolute. `base` is the directory of the
/// file that declares them.
pub fn resolve_files(
    agent: &mut Map<String, Value>,
    base: &Path,
    env: &Environment,
) -> Result<(), Finding> {
    let items = match agent.get_mut("subagents") {
        None | Some(Value::Null) => return Ok(()),
        Some(Value::String(marker)) if marker == crate::merge::INHERIT => return Ok(()),
        Some(Value::Array(items)) => items,
        Some(_) => {
            return Err(Finding::error(
                &["subagents".into()],
                ProblemCode::WrongType,
                "expected a list of sub-agents",
            ));
        }
    };
    for (index, item) in items.iter_mut().enumerate() {
        let Some(Value::String(file)) = item.get_mut("file") else {
            continue;
        };
        if file.trim().is_empty() {
            continue;
        }
        let expanded = env.expand_user(file).map_err(|unknown| {
            let path: [Step; 3] = ["subagents".into(), index.into(), "file".into()];
            Finding::error(
                &path,
                ProblemCode::BadValue,
                format!("no such user: `{}`", unknown.0),
            )
        })?;
        *file = env
            .normalise(base.join(expanded))
            .to_string_lossy()
            .into_owned();
    }
    Ok(())
}

/// The sub-agents that are on by default or selected by name, with their files read.
pub fn select(config: &Map<String, Value>, selected: &[String]) -> Subagents {
    let mut out = Subagents::default();
    let items: &[Value] = match config.get("subagents") {
        None | Some(Value::Null) => &[],
        Some(Value::Array(items)) => items,
        Some(_) => {
            out.warnings
                .push("`subagents` is no list; it is ignored".to_owned());
            &[]
        }
    };
    let mut known = BTreeSet::new();
    for (index, item) in items.iter().enumerate() {
        if is_inherit(item) {
            continue;
        }
        let entry = match read_entry(item) {
            Ok(entry) => entry,
            Err(why) => {
                out.warn(format!("sub-agent {} is skipped: {why}", index + 1));
                continue;
            }
        };
        let Some(name) = entry
            .get("name")
            .and_then(Value::as_str)
            .filter(|name| !name.is_empty())
        else {
            out.warn(format!(
                "sub-agent {} is skipped: it has no name",
                index + 1
            ));
            continue;
        };
        known.insert(name.to_owned());
        let on =
            entry.get("default") == Some(&Value::Bool(true)) || selected.iter().any(|s| s == name);
        if on {
            out.agents.insert(name.to_owned(), rendered(&entry));
        }
    }
    for name in selected.iter().filter(|name| !known.contains(*name)) {
        out.warn(format!("there is no sub-agent `{name}`"));
    }
    out
}

impl Subagents {
    fn warn(&mut self, warning: String) {
        self.warnings.push(printable_line(&warning));
    }
}

/// The fields of an entry, those of its file filled in.
fn read_entry(item: &Value) -> Result<Map<String, Value>, String> {
    let Some(entry) = item.as_object() else {
        return Err("it is no mapping".to_owned());
    };
    let file = entry
        .get("file")
        .and_then(Value::as_str)
        .filter(|file| !file.trim().is_empty());
    let Some(file) = file else {
        return Ok(entry.clone());
    };
    let bytes = yaml::read_bytes(Path::new(file)).map_err(|problems| {
        format!(
            "`{file}`: {}",
            problems.first().map_or("unreadable", |p| &p.message)
        )
    })?;
    if bytes.len() as u64 > yaml::MAX_BYTES {
        return Err(format!("`{file}` is larger than 1 MiB"));
    }
    let text = String::from_utf8(bytes).map_err(|_| format!("`{file}` is not UTF-8"))?;
    let mut fields = parse_markdown(&text).map_err(|why| format!("`{file}`: {why}"))?;
    if let Some(default) = entry.get("default") {
        fields.insert("default".into(), default.clone());
    }
    Ok(fields)
}

/// Front matter between two `---` lines as fields, the rest as `prompt`.
fn parse_markdown(text: &str) -> Result<Map<String, Value>, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut fields = Map::new();
    let mut body = text;
    let mut lines = text.split_inclusive('\n');
    if let Some(opening) = lines.next().filter(|line| line.trim_end() == "---") {
        let start = opening.len();
        let mut at = start;
        for line in lines {
            if line.trim_end() == "---" {
                let document = yaml::parse(&text[start..at]).map_err(|problems| {
                    problems
                        .first()
                        .map_or_else(String::new, |p| p.message.clone())
                })?;
                match document.value {
                    Value::Object(map) => fields = map,
                    Value::Null => {}
                    _ => return Err("the front matter is no mapping".to_owned()),
                }
                body = &text[at + line.len()..];
                break;
            }
            at += line.len();
        }
    }
    fields.insert("prompt".into(), body.trim().into());
    Ok(fields)
}

fn rendered(entry: &Map<String, Value>) -> Value {
    let mut out = Map::new();
    for key in PASSED {
        if let Some(value) = entry.get(key).filter(|value| !value.is_null()) {
            out.insert(key.to_owned(), without_markers(value));
        }
    }
    let prompt = entry
        .get("system_prompt")
        .or_else(|| entry.get("prompt"))
        .and_then(Value::as_str);
    out.insert("prompt".into(), prompt.unwrap_or_default().into());
    Value::Object(out)
}

/// Stray list markers mean nothing to an agent.
fn without_markers(value: &Value) -> Value {
    match value {
        Value::Array(items) => items
            .iter()
            .filter(|item| !is_inherit(item))
            .cloned()
            .collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config(value: Value) -> Map<String, Value> {
        let Value::Object(map) = value else {
            panic!("mapping")
        };
        map
    }

    #[test]
    fn defaults_and_selected_ones_take_part() {
        let config = config(json!({"subagents": [
            {"name": "a", "default": true, "tools": ["_inherit", "Read"], "system_prompt": "A", "odd": 1},
            {"name": "b", "prompt": "B"},
            {"name": "c", "default": true, "prompt": "first"},
            {"name": "c", "default": true, "prompt": "second"},
            "_inherit",
            {"prompt": "nameless"},
            7,
        ]}));
        let got = select(&config, &["b".to_owned(), "x".to_owned()]);
        assert_eq!(
            Value::Object(got.agents),
            json!({"a": {"tools": ["Read"], "prompt": "A"}, "c": {"prompt": "second"}, "b": {"prompt": "B"}})
        );
        assert_eq!(got.warnings.len(), 3, "{:?}", got.warnings);
    }

    #[test]
    fn files_carry_front_matter_and_prompt() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("r.md");
        std::fs::write(
            &path,
            "---\r\nname: r\r\ndefault: true\r\nmodel: opus\r\n---\r\nReview it.\r\n",
        )
        .expect("write");
        let entry = |extra: Value| {
            let mut item = json!({"file": path});
            if let Some(default) = extra.as_bool() {
                item["default"] = default.into();
            }
            config(json!({"subagents": [item]}))
        };
        let got = select(&entry(Value::Null), &[]);
        assert_eq!(
            Value::Object(got.agents),
            json!({"r": {"model": "opus", "prompt": "Review it."}})
        );
        assert!(select(&entry(false.into()), &[]).agents.is_empty());
        let gone = config(json!({"subagents": [{"file": dir.path().join("gone.md")}]}));
        assert!(select(&gone, &[]).warnings[0].contains("gone.md"));
    }

    #[test]
    fn text_without_front_matter_is_all_prompt() {
        assert_eq!(
            parse_markdown("Do it.\n---\nx").expect("text")["prompt"],
            "Do it.\n---\nx"
        );
        assert_eq!(
            parse_markdown("---\nname: x\n").expect("unclosed")["prompt"],
            "---\nname: x"
        );
        assert!(parse_markdown("---\n- x\n---\n").is_err());
    }
}
