//! The edits of project files: another selection of agents, and a sibling of a project.

use super::{Edited, emit, lookup, remove_key, set_scalar};
use crate::yaml;
use serde_json::Value;
use terok_proto::error::Result;

/// What a sibling does not take over: two projects must not share one directory of tasks.
const DROPPED: [&[&str]; 3] = [
    &["agent"],
    &["tasks", "root"],
    &["gatekeeping", "staging_root"],
];

/// The file of a derived project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Derived {
    /// Its text.
    pub text: String,
    /// A section or the whole document was written anew; comments in it may have moved.
    pub reemitted: bool,
    /// Dotted keys of the source that were not taken over.
    pub dropped: Vec<String>,
}

/// Sets `image.agents`, as the user wrote it.
pub fn set_agents_text(text: &str, selection: &str) -> Result<Edited> {
    set_scalar(text, &["image", "agents"], selection)
}

/// The source's file for a sibling with its own id and the source's gate.
pub fn derive_text(source: &str, new_id: &str, gate_path: &str) -> Result<Derived> {
    let mut text = source.to_owned();
    let mut reemitted = false;
    let mut take = |edited: Edited, text: &mut String| {
        *text = edited.text;
        reemitted |= edited.reemitted;
    };
    if let Ok(document) = yaml::parse(source)
        && is_falsy(&document.value)
    {
        let edited = Edited {
            text: emit::document(source, &Value::Null, &document),
            reemitted: true,
        };
        take(edited, &mut text);
    }
    let mut dropped = Vec::new();
    for path in DROPPED {
        if yaml::parse(&text).is_ok_and(|document| lookup(&document.value, path).is_some()) {
            dropped.push(path.join("."));
            take(remove_key(&text, path)?, &mut text);
        }
    }
    take(set_scalar(&text, &["project", "id"], new_id)?, &mut text);
    take(set_scalar(&text, &["gate", "path"], gate_path)?, &mut text);
    Ok(Derived {
        text,
        reemitted,
        dropped,
    })
}

/// Scalars and lists that a project file may consist of, and that mean "all defaults".
fn is_falsy(value: &Value) -> bool {
    match value {
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Null | Value::Object(_) => false,
    }
}
