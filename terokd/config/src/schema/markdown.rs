//! The reference of a file as a table, for the documentation.

use super::{Field, Type, file_name, leaves};
use std::fmt::Write as _;
use terok_proto::config::Scope;

/// A Markdown table of every key: type, default, meaning.
pub fn markdown(scope: Scope) -> String {
    let mut out = format!(
        "# `{}`\n\n| Key | Type | Default | Meaning |\n|---|---|---|---|\n",
        file_name(scope)
    );
    for (name, field) in leaves(scope) {
        let default = match field.default.value() {
            value if value.is_null() => "–".to_owned(),
            value => format!("`{value}`"),
        };
        let doc = field.doc.replace('|', "\\|");
        let _ = writeln!(
            out,
            "| `{name}` | {} | {default} | {doc} |",
            type_name(field)
        );
    }
    out
}

fn type_name(field: &Field) -> String {
    let words = |words: &[&str]| {
        let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
        quoted.join(", ")
    };
    let name = match &field.kind {
        Type::Bool => "boolean".to_owned(),
        Type::Int(limits) => format!("integer, {} to {}", limits.min, limits.max),
        Type::Text => "string".to_owned(),
        Type::ProjectId => "project id".to_owned(),
        Type::Word(list) | Type::FoldedWord(list) => words(list),
        Type::TextList => "list of strings".to_owned(),
        Type::Categories => "string or list of strings".to_owned(),
        Type::Mapping | Type::Section(_) | Type::PerProject(_) => "mapping".to_owned(),
        Type::Memory => "size".to_owned(),
        Type::Cpus => "number".to_owned(),
        Type::Gpus => "boolean or string".to_owned(),
        Type::Hook => "string or `false`".to_owned(),
        Type::SharedDir => "boolean or path".to_owned(),
    };
    if field.nullable && !matches!(field.kind, Type::Mapping) {
        format!("{name}, or null")
    } else {
        name
    }
}
