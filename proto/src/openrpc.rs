//! The OpenRPC 1.3 document, generated from the method table.

use crate::method::{Access, COMMON_ERRORS, MethodInfo};
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

/// The document of exactly these methods. Schemas stand in `components.schemas`.
pub fn document(methods: &[MethodInfo], version: &str) -> Map<String, Value> {
    let mut generator = SchemaSettings::draft07()
        .with(|s| s.definitions_path = "/components/schemas".into())
        .into_generator();
    let listed: Vec<Value> = methods
        .iter()
        .map(|method| {
            let _ = (method.params_schema)(&mut generator);
            let result = (method.result_schema)(&mut generator);
            let schema = params_object(method, &mut generator);
            describe(method, &schema, result.to_value())
        })
        .collect();
    // The parameter objects themselves are spelled out per method; what they refer to stays.
    let schemas = generator.take_definitions(true);
    let document = json!({
        "openrpc": "1.3.2",
        "info": {
            "title": "terokd",
            "version": crate::API_VERSION,
            "description": format!("Wire contract of terokd {version}"),
            "license": {"name": "Apache-2.0"},
        },
        "methods": listed,
        "components": {"schemas": schemas},
    });
    match document {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// The schema of the parameters as an object, not a reference to it.
fn params_object(method: &MethodInfo, generator: &mut schemars::SchemaGenerator) -> Value {
    let reference = (method.params_schema)(generator).to_value();
    let name = reference
        .get("$ref")
        .and_then(Value::as_str)
        .and_then(|r| r.rsplit('/').next())
        .map(str::to_owned);
    match name {
        Some(name) => generator
            .definitions()
            .get(&name)
            .cloned()
            .unwrap_or(reference),
        None => reference,
    }
}

fn describe(method: &MethodInfo, params: &Value, result: Value) -> Value {
    let properties = params.get("properties");
    let described: Vec<Value> = method
        .params
        .iter()
        .map(|p| {
            json!({
                "name": p.name,
                "summary": p.doc,
                "required": p.required,
                "schema": properties.and_then(|all| all.get(p.name)).cloned().unwrap_or(Value::Bool(true)),
            })
        })
        .chain(common_params(method.access))
        .collect();
    let errors: Vec<Value> = method
        .errors
        .iter()
        .chain(COMMON_ERRORS)
        .map(|kind| json!({"code": kind.code(), "message": kind.name(), "data": {"kind": kind.name()}}))
        .collect();
    let example: Map<String, Value> = serde_json::from_str(method.example).unwrap_or_default();
    json!({
        "name": method.name,
        "summary": method.summary,
        "paramStructure": "either",
        "params": described,
        "result": {"name": "result", "schema": result},
        "errors": errors,
        "x-access": method.access,
        "examples": [{
            "name": method.name,
            "params": example.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect::<Vec<_>>(),
        }],
    })
}

/// Parameters that every method of an access class takes, by name only.
fn common_params(access: Access) -> Vec<Value> {
    let mut all = Vec::new();
    if matches!(access, Access::Mutate | Access::Operation) {
        all.push(json!({
            "name": "request_id", "required": false,
            "summary": "the same id seen within ten minutes joins or replays the first call",
            "schema": {"type": ["string", "null"], "maxLength": 64},
        }));
    }
    if access == Access::Operation {
        all.push(json!({
            "name": "detach", "required": false,
            "summary": "answer at once with the operation's id",
            "schema": {"type": ["boolean", "null"]},
        }));
    }
    all
}

/// The method reference as Markdown.
pub fn markdown(methods: &[MethodInfo]) -> String {
    let mut out = String::from(
        "<!-- Generated from the method table by `make reference`; do not edit. -->\n\n# Methods\n",
    );
    for method in methods {
        out.push_str(&format!(
            "\n## `{}`\n\n{}. Access: {}.\n\n",
            method.name,
            method.summary,
            serde_json::to_value(method.access)
                .ok()
                .as_ref()
                .and_then(Value::as_str)
                .unwrap_or_default()
        ));
        if !method.params.is_empty() {
            out.push_str("| Parameter | | Meaning |\n|---|---|---|\n");
            for p in method.params {
                let need = if p.required { "required" } else { "optional" };
                out.push_str(&format!("| `{}` | {need} | {} |\n", p.name, p.doc));
            }
            out.push('\n');
        }
        let kinds: Vec<String> = method
            .errors
            .iter()
            .map(|k| format!("`{}` ({})", k.name(), k.code()))
            .collect();
        if !kinds.is_empty() {
            out.push_str(&format!("Errors: {}.\n\n", kinds.join(", ")));
        }
        out.push_str(&format!("```json\n{{\"jsonrpc\": \"2.0\", \"id\": 1, \"method\": \"{}\", \"params\": {}}}\n```\n", method.name, method.example));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_in_the_document_resolves() {
        let document = document(crate::methods::ALL, "0");
        let schemas = document["components"]["schemas"]
            .as_object()
            .expect("schemas");
        let text = serde_json::to_string(&document).expect("JSON");
        for part in text.split("\"$ref\":\"").skip(1) {
            let target = part.split('"').next().expect("closing quote");
            let name = target.rsplit('/').next().expect("a name");
            assert!(schemas.contains_key(name), "{target} does not resolve");
        }
        assert_eq!(
            document["methods"].as_array().map(Vec::len),
            Some(crate::methods::ALL.len())
        );
    }
}
