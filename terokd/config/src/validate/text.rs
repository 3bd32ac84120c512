//! How problems read: quoting, suggestions, and the text form of a broken file.

use crate::schema::{self, Field};
use crate::yaml::Step;
use serde_json::Value;
use terok_proto::config::{Problem, Scope, Severity};
use terok_proto::error::printable_text;

/// Characters of an offending value that a message quotes.
const QUOTED: usize = 80;

/// A value for a message: scalars quoted and cut, collections by name.
pub fn quoted(value: &Value) -> String {
    match value {
        Value::String(text) => {
            let mut shown: String = text.chars().take(QUOTED).collect();
            if shown.len() < text.len() {
                shown.push('…');
            }
            format!("\"{shown}\"")
        }
        Value::Number(number) => number.to_string(),
        Value::Bool(value) => value.to_string(),
        _ => type_of(value).to_owned(),
    }
}

/// What kind of value it is.
pub(super) fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}

/// The nearest of some names, at most two edits away.
pub(crate) fn nearest<'n>(given: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    if given.len() > 64 {
        return None;
    }
    names
        .map(|name| (distance(given, name), name))
        // Two edits turn any two-letter word into any other.
        .filter(|(distance, name)| *distance <= 2 && *distance < name.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Edit distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// The file in which a key is known that is unknown in `scope`.
pub(super) fn belongs_elsewhere(scope: Scope, path: &[Step]) -> Option<&'static str> {
    let others: &[Scope] = match scope {
        Scope::Project => &[Scope::Terokd, Scope::Global],
        Scope::Global => &[Scope::Terokd, Scope::Project],
        Scope::Terokd => &[Scope::Global, Scope::Project],
    };
    others
        .iter()
        .find(|other| knows(schema::fields(**other), path))
        .map(|other| schema::file_name(*other))
}

fn knows(fields: &[Field], path: &[Step]) -> bool {
    let Some((Step::Key(first), rest)) = path.split_first() else {
        return path.is_empty();
    };
    fields
        .iter()
        .find(|field| field.key == first)
        .is_some_and(|field| rest.is_empty() || knows(field.children(), rest))
}

/// Text form of a file that cannot be read or parsed.
pub fn failed_to_read(path: &str, problems: &[Problem]) -> String {
    let reasons: Vec<String> = problems
        .iter()
        .filter(|problem| problem.severity == Severity::Error)
        .map(|problem| match (problem.line, problem.column) {
            (Some(line), Some(column)) => {
                format!("{} (line {line}, column {column})", problem.message)
            }
            _ => problem.message.clone(),
        })
        .collect();
    printable_text(&format!("Failed to read {path}: {}", reasons.join("\n  ")))
}

/// Text form of a file that breaks the tables: a header, then one line per error.
pub fn problem_lines(scope: Scope, path: &str, problems: &[Problem]) -> String {
    let mut out = format!("Invalid {} ({path}):", schema::file_name(scope));
    for problem in problems {
        if problem.severity != Severity::Error {
            continue;
        }
        let location: Vec<String> = problem
            .loc
            .iter()
            .map(|step| match step {
                Value::String(key) => key.clone(),
                other => other.to_string(),
            })
            .collect();
        let location = location.join(" → ");
        let separator = if location.is_empty() { "" } else { ": " };
        out.push_str(&format!("\n  {location}{separator}{}", problem.message));
    }
    printable_text(&out)
}
