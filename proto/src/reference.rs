//! The method reference as Markdown, from the same table and schemas as the OpenRPC document.

use crate::method::{Access, COMMON_ERRORS, MethodInfo};
use crate::openrpc;
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::fmt::Write;

const HEAD: &str = "<!-- Generated from the method table by `make reference`; do not edit. -->

# Methods

Parameters go by name, or by position in the order listed; optional ones may be left out or `null`. Methods that change
something also take `request_id` (at most 64 characters: the same id seen within ten minutes joins or replays the first
call); those marked *operation* also take `detach` (answer at once with `{\"operation_id\"}`). Both go by name only.
";

/// Every method with its parameters, result and errors, and every type that they name.
pub fn markdown(methods: &[MethodInfo]) -> String {
    let document = openrpc::document(methods, "");
    let schemas = &document["components"]["schemas"];
    let mut out = String::from(HEAD);
    let common: Vec<String> = COMMON_ERRORS.iter().map(kind).collect();
    let _ = write!(
        out,
        "\nEvery method can also answer {}.\n",
        common.join(", ")
    );
    let mut named = BTreeSet::new();
    let described = document["methods"].as_array().into_iter().flatten();
    for (method, described) in methods.iter().zip(described) {
        write_method(&mut out, method, described);
        collect(described, schemas, &mut named);
    }
    out.push_str("\n# Types\n");
    for name in named {
        write_type(&mut out, &name, &schemas[&name]);
    }
    out
}

fn kind(kind: &crate::error::Kind) -> String {
    format!("`{}` ({})", kind.name(), kind.code())
}

fn write_method(out: &mut String, method: &MethodInfo, described: &Value) {
    let access = match method.access {
        Access::Read => "read",
        Access::Mutate => "changes something",
        Access::Operation => "operation",
        Access::Subscription => "subscription",
    };
    let _ = write!(
        out,
        "\n## `{}`\n\n{}. *{access}*\n\n",
        method.name, method.summary
    );
    let own = described["params"].as_array().into_iter().flatten();
    if !method.params.is_empty() {
        out.push_str("| Parameter | Type | | Meaning |\n|---|---|---|---|\n");
        for (param, described) in method.params.iter().zip(own) {
            let need = if param.required {
                "required"
            } else {
                "optional"
            };
            let ty = type_name(&described["schema"]);
            // An optional parameter may always be null; saying so in each row helps nobody.
            let ty = match param.required {
                true => &ty,
                false => ty.strip_suffix(" or null").unwrap_or(&ty),
            };
            let _ = writeln!(
                out,
                "| `{}` | {ty} | {need} | {} |",
                param.name,
                cell(param.doc)
            );
        }
        out.push('\n');
    }
    let _ = write!(
        out,
        "Result: {}.\n\n",
        type_name(&described["result"]["schema"])
    );
    if !method.errors.is_empty() {
        let kinds: Vec<String> = method.errors.iter().map(kind).collect();
        let _ = write!(out, "Errors: {}.\n\n", kinds.join(", "));
    }
    let _ = write!(
        out,
        "```json\n{{\"jsonrpc\": \"2.0\", \"id\": 1, \"method\": \"{}\", \"params\": {}}}\n```\n",
        method.name, method.example
    );
}

fn write_type(out: &mut String, name: &str, schema: &Value) {
    let _ = write!(out, "\n## {name}\n");
    if let Some(text) = schema["description"].as_str() {
        let _ = write!(out, "\n{}\n", text.trim());
    }
    if let Some(fields) = schema["properties"].as_object() {
        write_fields(out, fields, &schema["required"]);
    } else if let Some(variants) = variants(schema) {
        out.push_str("\n| Value | Meaning |\n|---|---|\n");
        for variant in variants {
            let meaning = cell(variant["description"].as_str().unwrap_or_default());
            let _ = writeln!(out, "| {} | {meaning} |", type_name(variant));
        }
    } else {
        let mut bare = schema.clone();
        if let Some(bare) = bare.as_object_mut() {
            bare.remove("description");
        }
        let _ = write!(out, "\n{}.\n", type_name(&bare));
    }
}

fn write_fields(out: &mut String, fields: &Map<String, Value>, required: &Value) {
    out.push_str("\n| Field | Type | | Meaning |\n|---|---|---|---|\n");
    for (name, schema) in fields {
        let always = required
            .as_array()
            .is_some_and(|all| all.iter().any(|n| n == name));
        let need = if always { "always" } else { "optional" };
        let meaning = cell(schema["description"].as_str().unwrap_or_default());
        let _ = writeln!(
            out,
            "| `{name}` | {} | {need} | {meaning} |",
            type_name(schema)
        );
    }
}

fn variants(schema: &Value) -> Option<&Vec<Value>> {
    schema
        .get("oneOf")
        .or_else(|| schema.get("anyOf"))
        .and_then(Value::as_array)
}

/// A schema in a few words; types of their own are links.
fn type_name(schema: &Value) -> String {
    if let Some(name) = reference(schema) {
        return format!("[{name}](#{})", name.to_lowercase());
    }
    if let Some(value) = schema.get("const") {
        return format!("`{value}`");
    }
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        return either(values.iter().map(|v| format!("`{v}`")));
    }
    if let Some(all) = schema.get("allOf").and_then(Value::as_array) {
        return either(all.iter().map(type_name));
    }
    if let Some(variants) = variants(schema) {
        return either(variants.iter().map(type_name));
    }
    match schema.get("type") {
        Some(Value::String(one)) => single(one, schema),
        Some(Value::Array(several)) => either(
            several
                .iter()
                .filter_map(Value::as_str)
                .map(|one| single(one, schema)),
        ),
        _ => "any JSON value".into(),
    }
}

fn single(ty: &str, schema: &Value) -> String {
    match ty {
        "array" => match schema.get("items") {
            Some(Value::Array(places)) => {
                let places: Vec<String> = places.iter().map(type_name).collect();
                format!("tuple of {}", places.join(", "))
            }
            Some(item) => format!("list of {}", type_name(item)),
            None => "list".into(),
        },
        "object" => match schema.get("additionalProperties") {
            Some(value @ Value::Object(_)) => format!("object of {}", type_name(value)),
            _ => "object".into(),
        },
        other => other.into(),
    }
}

fn either(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(" or ")
}

fn reference(schema: &Value) -> Option<&str> {
    schema.get("$ref")?.as_str()?.rsplit('/').next()
}

/// Adds the types that a schema names, and those that they name.
fn collect(schema: &Value, schemas: &Value, named: &mut BTreeSet<String>) {
    if let Some(name) = reference(schema)
        && named.insert(name.to_owned())
    {
        collect(&schemas[name], schemas, named);
    }
    match schema {
        Value::Array(items) => items.iter().for_each(|v| collect(v, schemas, named)),
        Value::Object(map) => map.values().for_each(|v| collect(v, schemas, named)),
        _ => {}
    }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn schemas_are_told_in_a_few_words() {
        for (schema, words) in [
            (json!({"type": "string"}), "string"),
            (json!({"type": ["integer", "null"]}), "integer or null"),
            (
                json!({"type": "array", "items": {"$ref": "#/components/schemas/Project"}}),
                "list of [Project](#project)",
            ),
            (
                json!({"type": "array", "items": [{"type": "string"}, {"type": "boolean"}]}),
                "tuple of string, boolean",
            ),
            (
                json!({"type": "object", "additionalProperties": {"type": "string"}}),
                "object of string",
            ),
            (
                json!({"anyOf": [{"$ref": "#/components/schemas/Family"}, {"type": "null"}]}),
                "[Family](#family) or null",
            ),
            (json!({"enum": ["a", null]}), "`\"a\"` or `null`"),
            (json!(true), "any JSON value"),
        ] {
            assert_eq!(type_name(&schema), words, "{schema}");
        }
    }

    #[test]
    fn every_link_leads_to_a_heading() {
        let text = markdown(crate::methods::ALL);
        let headings: BTreeSet<String> = text
            .lines()
            .filter_map(|l| l.strip_prefix("## "))
            .map(str::to_lowercase)
            .collect();
        let links: Vec<&str> = text
            .split("](#")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
            .collect();
        assert!(links.len() > 50, "{}", links.len());
        for link in links {
            assert!(headings.contains(link), "#{link} leads nowhere");
        }
        for method in crate::methods::ALL {
            assert!(headings.contains(&format!("`{}`", method.name)));
        }
    }
}
