//! JSON Schema of a file, for editors.

use super::{Field, Type, fields, file_name};
use serde_json::{Map, Value, json};
use terok_proto::config::Scope;

/// JSON Schema (2020-12) of the file that `scope` is about. Lists what validation accepts without warning, and
/// with the lenient spellings of booleans and integers.
pub fn json_schema(scope: Scope) -> Value {
    let mut schema = section(fields(scope));
    if let Some(schema) = schema.as_object_mut() {
        schema.insert(
            "$schema".into(),
            json!("https://json-schema.org/draft/2020-12/schema"),
        );
        schema.insert("title".into(), json!(file_name(scope)));
    }
    schema
}

fn section(fields: &[Field]) -> Value {
    let properties: Map<String, Value> = fields
        .iter()
        .map(|field| (field.key.to_owned(), property(field)))
        .collect();
    json!({"type": ["object", "null"], "properties": properties, "additionalProperties": false})
}

fn property(field: &Field) -> Value {
    let mut schema = match &field.kind {
        Type::Section(children) => section(children),
        Type::PerProject(children) => json!({
            "type": ["object", "null"],
            "propertyNames": {"pattern": ID},
            "additionalProperties": section(children),
        }),
        Type::Mapping => json!({"type": "object"}),
        Type::Bool => json!({"anyOf": [
            {"type": "boolean"},
            {"enum": [0, 1]},
            {"type": "string", "pattern": "^(?i:true|t|yes|y|on|1|false|f|no|n|off|0)$"},
        ]}),
        Type::Int(limits) => json!({"anyOf": [
            if limits.clamp { json!({"type": "integer"}) } else {
                json!({"type": "integer", "minimum": limits.min, "maximum": limits.max})
            },
            {"type": "string", "pattern": "^\\s*[+-]?[0-9]+(_[0-9]+)*(\\.0*)?\\s*$"},
        ]}),
        Type::Text => json!({"type": "string"}),
        Type::ProjectId => json!({"type": "string", "pattern": ID}),
        Type::Word(words) => json!({"enum": words}),
        Type::FoldedWord(words) => json!({
            "type": "string",
            "pattern": format!("^\\s*(?i:{})\\s*$", words.join("|")),
            "examples": words,
        }),
        Type::TextList | Type::Categories => json!({"anyOf": [
            {"type": "string"},
            {"type": "array", "items": {"type": "string"}},
        ]}),
        Type::Memory => json!({"anyOf": [
            {"type": "number", "minimum": 0},
            {"type": "string", "pattern": "^(\\s*|[0-9]+(\\.[0-9]+)? ?[kKmMgGtTpP]?[iI]?[bB]?)$"},
        ]}),
        Type::Cpus => json!({"anyOf": [
            {"type": "number", "minimum": 0},
            {"type": "string", "pattern": "^(\\s*|[0-9]+(\\.[0-9]+)?)$"},
        ]}),
        Type::Gpus => json!({"anyOf": [{"type": "boolean"}, {"enum": [0, 1]}, {"type": "string"}]}),
        Type::Hook => json!({"anyOf": [{"type": "string"}, {"const": false}]}),
        Type::SharedDir => {
            json!({"anyOf": [{"type": "boolean"}, {"enum": [0, 1]}, {"type": "string", "pattern": "^[/~]"}]})
        }
    };
    let nullable = field.nullable && !matches!(field.kind, Type::Section(_) | Type::PerProject(_));
    if nullable {
        schema = match schema.get_mut("anyOf").and_then(Value::as_array_mut) {
            Some(choices) => {
                choices.push(json!({"type": "null"}));
                schema
            }
            None => json!({"anyOf": [schema, {"type": "null"}]}),
        };
    }
    if let Some(schema) = schema.as_object_mut() {
        schema.insert("description".into(), json!(field.doc));
        if !matches!(field.kind, Type::Section(_) | Type::PerProject(_)) {
            schema.insert("default".into(), field.default.value());
        }
        if field.secret {
            schema.insert("writeOnly".into(), json!(true));
        }
    }
    schema
}

const ID: &str = "^[a-z0-9][a-z0-9_-]*$";
