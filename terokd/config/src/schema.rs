//! The one declaration of every key of `config.yml`, `project.yml` and `terokd.yml`.
//!
//! Validation, suggestions, defaults, JSON Schema and the generated reference all come from these tables; nothing
//! else in the crate lists keys. Knows no file and no rule that involves more than one key.

mod json;
mod markdown;
mod tables;

pub use json::json_schema;
pub use markdown::markdown;
pub use tables::fields;

use serde_json::{Map, Value, json};
use terok_proto::config::Scope;

/// One key.
#[derive(Debug)]
pub struct Field {
    /// Its name.
    pub key: &'static str,
    /// What it accepts.
    pub kind: Type,
    /// Null is accepted too and means unset.
    pub nullable: bool,
    /// What holds when nobody sets it.
    pub default: Preset,
    /// Its value is never shown.
    pub secret: bool,
    /// What it does, in one line.
    pub doc: &'static str,
}

/// What a key accepts.
#[derive(Debug)]
pub enum Type {
    /// Booleans, also as words and as 0 and 1.
    Bool,
    /// Integers, also as text.
    Int(Limits),
    /// A string.
    Text,
    /// A string that matches the id pattern.
    ProjectId,
    /// Exactly one of these words.
    Word(&'static [&'static str]),
    /// One of these words, trimmed and in any case.
    FoldedWord(&'static [&'static str]),
    /// Strings; a single one counts as a list of one.
    TextList,
    /// Categories of task names: a string or a list of strings; blank is null.
    Categories,
    /// A free-form mapping.
    Mapping,
    /// A size for `podman --memory`.
    Memory,
    /// A number for `podman --cpus`.
    Cpus,
    /// A boolean, `all`, `none` or a CDI name.
    Gpus,
    /// A shell command, or `false` to switch an inherited one off.
    Hook,
    /// A boolean or an absolute path.
    SharedDir,
    /// A mapping with these keys.
    Section(&'static [Field]),
    /// A mapping from project id to a mapping with these keys.
    PerProject(&'static [Field]),
}

/// Limits of an integer.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The least.
    pub min: i64,
    /// The greatest.
    pub max: i64,
    /// What lies beyond is cut with a warning instead of refused.
    pub clamp: bool,
}

/// A default, as constant data.
#[derive(Clone, Copy, Debug)]
pub enum Preset {
    /// Unset.
    Null,
    /// A boolean.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A string.
    Text(&'static str),
    /// A list of strings.
    List(&'static [&'static str]),
    /// An empty mapping.
    Map,
}

impl Preset {
    /// The default as JSON.
    pub fn value(self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(value) => json!(value),
            Self::Int(value) => json!(value),
            Self::Text(value) => json!(value),
            Self::List(value) => json!(value),
            Self::Map => json!({}),
        }
    }
}

impl Field {
    /// Keys below a section; none for anything else.
    pub fn children(&self) -> &'static [Field] {
        match self.kind {
            Type::Section(fields) => fields,
            _ => &[],
        }
    }
}

/// Name of the file that a scope is about.
pub fn file_name(scope: Scope) -> &'static str {
    match scope {
        Scope::Project => "project.yml",
        Scope::Global => "config.yml",
        Scope::Terokd => "terokd.yml",
    }
}

/// The tree with the default of every key that it lacks.
pub fn with_defaults(scope: Scope, tree: &Map<String, Value>) -> Map<String, Value> {
    fill(fields(scope), tree)
}

fn fill(fields: &[Field], tree: &Map<String, Value>) -> Map<String, Value> {
    let empty = Map::new();
    let mut out = Map::with_capacity(fields.len());
    for field in fields {
        let given = tree.get(field.key).filter(|value| !value.is_null());
        let value = match (&field.kind, given) {
            (Type::Section(children), given) => {
                let inner = given.and_then(Value::as_object).unwrap_or(&empty);
                Value::Object(fill(children, inner))
            }
            (Type::PerProject(children), given) => {
                let entries = given.and_then(Value::as_object).unwrap_or(&empty);
                let filled = entries.iter().map(|(id, entry)| {
                    let inner = entry.as_object().unwrap_or(&empty);
                    (id.clone(), Value::Object(fill(children, inner)))
                });
                Value::Object(filled.collect())
            }
            (_, Some(value)) => value.clone(),
            (_, None) => field.default.value(),
        };
        out.insert(field.key.to_owned(), value);
    }
    out
}

/// Every leaf of a scope with its dotted key, in table order. Per-project entries appear as `projects.<id>.…`.
pub fn leaves(scope: Scope) -> Vec<(String, &'static Field)> {
    fn walk(prefix: &str, fields: &'static [Field], out: &mut Vec<(String, &'static Field)>) {
        for field in fields {
            let name = format!("{prefix}{}", field.key);
            match field.kind {
                Type::Section(children) => walk(&format!("{name}."), children, out),
                Type::PerProject(children) => walk(&format!("{name}.<id>."), children, out),
                _ => out.push((name, field)),
            }
        }
    }
    let mut out = Vec::new();
    walk("", fields(scope), &mut out);
    out
}

/// Whether a dotted key holds a secret.
pub fn is_secret(scope: Scope, path: &[&str]) -> bool {
    let mut fields = fields(scope);
    for (i, key) in path.iter().enumerate() {
        let Some(field) = fields.iter().find(|field| field.key == *key) else {
            return false;
        };
        if field.secret || i + 1 == path.len() {
            return field.secret;
        }
        fields = field.children();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_unique_and_documented() {
        for scope in [Scope::Project, Scope::Global, Scope::Terokd] {
            let all = leaves(scope);
            let mut names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
            names.sort_unstable();
            let count = names.len();
            names.dedup();
            assert_eq!(names.len(), count);
            for (name, field) in &all {
                assert!(field.doc.len() > 8, "{name}");
                let unset = matches!(field.default, Preset::Null);
                assert!(
                    field.nullable || !unset || name == "project.security_class",
                    "{name}"
                );
            }
        }
    }

    #[test]
    fn every_key_is_in_the_json_schema_and_the_reference() {
        for scope in [Scope::Project, Scope::Global, Scope::Terokd] {
            let schema = json_schema(scope);
            let text = markdown(scope);
            for (name, _) in leaves(scope) {
                let pointer = name.replace("<id>", "*").replace('.', "/properties/");
                let pointer = format!("/properties/{pointer}")
                    .replace("/properties/*", "/additionalProperties");
                assert!(schema.pointer(&pointer).is_some(), "{pointer}");
                assert!(text.contains(&format!("| `{name}` |")), "{name}");
            }
        }
    }

    #[test]
    fn defaults_fill_what_is_missing() {
        let mut tree = Map::new();
        tree.insert("shield".into(), json!({"audit": false}));
        let full = with_defaults(Scope::Global, &tree);
        assert_eq!(full["shield"]["audit"], json!(false));
        assert_eq!(full["shield"]["drop_on_task_run"], json!(true));
        assert_eq!(full["network"]["port_range_end"], json!(32700));
        assert!(is_secret(Scope::Global, &["credentials", "passphrase"]));
        assert!(!is_secret(Scope::Global, &["credentials", "dir"]));
    }
}
