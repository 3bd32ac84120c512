//! Changes to a YAML text that leave everything else as its author wrote it.
//!
//! Owns the technique: find the place by parser positions, splice, read the result back and compare. Only the
//! intended key may differ; if no splice achieves that, the section, at last the document, is written anew. Computes
//! texts only: reading and writing files is the daemon's business.

mod compare;
mod emit;
mod lines;
mod project;
mod scalar;
mod splice;
#[cfg(test)]
mod tests;

pub use project::{Derived, derive_text, set_agents_text};
pub use scalar::{double_quoted, is_no_string, scalar};

pub(crate) use scalar::is_printable;

use crate::validate::{self, Places, failed_to_read};
use crate::yaml::{self, Document, Step};
use compare::Intent;
use serde_json::{Map, Value};
use splice::{Leaf, Site, Splice};
use terok_proto::config::{Problem, Scope, Severity};
use terok_proto::error::Result;
use terok_proto::{Fault, Kind};

/// A changed text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edited {
    /// The new text.
    pub text: String,
    /// A section or the whole document was written anew; comments in it may have moved.
    pub reemitted: bool,
}

/// Sets the string at `path`, creating sections as needed. A section that is no mapping is replaced by one.
pub fn set_scalar(text: &str, path: &[&str], value: &str) -> Result<Edited> {
    set_leaf(text, path, Leaf::Text(value))
}

/// Sets the truth value at `path`, creating sections as needed.
pub fn set_flag(text: &str, path: &[&str], value: bool) -> Result<Edited> {
    set_leaf(text, path, Leaf::Flag(value))
}

fn set_leaf(text: &str, path: &[&str], leaf: Leaf<'_>) -> Result<Edited> {
    let document = open(text)?;
    let old = lookup(&document.value, path);
    if path.is_empty() {
        return Err(Fault::internal("an edit needs a key"));
    }
    let value = leaf.value();
    if old == Some(&value) && !document.is_nonfinite(&steps(path)) {
        return Ok(Edited {
            text: text.to_owned(),
            reemitted: false,
        });
    }
    let mut wanted = document.value.clone();
    put(&mut wanted, path, value);
    let site = Site::new(text, &document);
    let intent = Intent {
        wanted: &wanted,
        target: steps(path),
        emptied: None,
    };
    finish(
        text,
        &document,
        path[0],
        splice::set(&site, path, leaf),
        &intent,
    )
}

/// Removes the key at `path`; a text without it comes back as it is. A section may remain empty.
pub fn remove_key(text: &str, path: &[&str]) -> Result<Edited> {
    let document = open(text)?;
    let Some((last, parents)) = path.split_last() else {
        return Err(Fault::internal("an edit needs a key"));
    };
    if lookup(&document.value, path).is_none() {
        return Ok(Edited {
            text: text.to_owned(),
            reemitted: false,
        });
    }
    let mut wanted = document.value.clone();
    if let Some(Value::Object(map)) = lookup_mut(&mut wanted, parents) {
        map.shift_remove(*last);
    }
    let site = Site::new(text, &document);
    let intent = Intent {
        wanted: &wanted,
        target: steps(path),
        emptied: Some(steps(parents)),
    };
    finish(
        text,
        &document,
        path[0],
        splice::remove(&site, path),
        &intent,
    )
}

/// The first candidate that says what is wanted, else the section written anew, else the document.
fn finish(
    text: &str,
    document: &Document,
    section: &str,
    candidates: Vec<Vec<Splice>>,
    intent: &Intent<'_>,
) -> Result<Edited> {
    for candidate in candidates {
        if let Some(text) = splice::apply(text, candidate)
            && let Ok(read) = yaml::parse(&text)
            && intent.is_met(document, &read)
        {
            return Ok(Edited {
                text,
                reemitted: false,
            });
        }
    }
    let site = Site::new(text, document);
    let anew = intent
        .wanted
        .get(section)
        .map(|value| emit::entry(section, value, document));
    let by_section = splice::replace_entry(&site, section, anew.as_deref())
        .into_iter()
        .filter_map(|candidate| splice::apply(text, candidate));
    let whole = std::iter::once_with(|| emit::document(text, intent.wanted, document));
    for text in by_section.chain(whole) {
        if let Ok(read) = yaml::parse(&text)
            && intent.is_met(document, &read)
        {
            return Ok(Edited {
                text,
                reemitted: true,
            });
        }
    }
    Err(Fault::new(
        Kind::InvalidConfig,
        "the file cannot be changed without changing other settings; edit it by hand",
    ))
}

/// Parses a text whose top level must be a mapping or empty.
fn open(text: &str) -> Result<Document> {
    let document = match yaml::parse(text) {
        Ok(document) => document,
        Err(problems) => {
            let problems: Vec<Problem> = problems
                .iter()
                .map(|problem| {
                    validate::text_problem(Scope::Project, None, problem, Severity::Error)
                })
                .collect();
            let text = failed_to_read("the file", &problems);
            return Err(invalid(text, &problems));
        }
    };
    match document.value {
        Value::Object(_) | Value::Null => Ok(document),
        _ => {
            let finding = validate::not_a_mapping(&document.value);
            let problem = validate::problem(Scope::Project, finding, &Places::one(None, &document));
            let text = format!("{}; the file is left as it is", problem.message);
            Err(invalid(text, &[problem]))
        }
    }
}

fn invalid(text: String, problems: &[Problem]) -> Fault {
    Fault::new(Kind::InvalidConfig, &text)
        .with("text", text)
        .with("errors", serde_json::to_value(problems).unwrap_or_default())
}

fn steps(path: &[&str]) -> Vec<Step> {
    path.iter().copied().map(Step::from).collect()
}

fn lookup<'v>(value: &'v Value, path: &[&str]) -> Option<&'v Value> {
    path.iter()
        .try_fold(value, |value, key| value.as_object()?.get(*key))
}

fn lookup_mut<'v>(value: &'v mut Value, path: &[&str]) -> Option<&'v mut Value> {
    path.iter()
        .try_fold(value, |value, key| value.as_object_mut()?.get_mut(*key))
}

fn put(tree: &mut Value, path: &[&str], value: Value) {
    let mut at = tree;
    for key in path {
        if !at.is_object() {
            *at = Value::Object(Map::new());
        }
        let Value::Object(map) = at else { return };
        at = map.entry(*key).or_insert(Value::Null);
    }
    *at = value;
}
