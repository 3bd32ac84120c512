//! The OpenRPC 1.3 document, generated from the method table.

use crate::error::Kind;
use crate::method::{Access, COMMON_ERRORS, MethodInfo};
use schemars::generate::SchemaSettings;
use schemars::{Schema, SchemaGenerator};
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
            let mut result = (method.result_schema)(&mut generator);
            let mut params = params_object(method, &mut generator);
            // The generator transforms only what it keeps as a definition.
            for transform in generator.transforms_mut() {
                transform.transform(&mut result);
                transform.transform(&mut params);
            }
            describe(method, params.as_value(), result.to_value())
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
fn params_object(method: &MethodInfo, generator: &mut SchemaGenerator) -> Schema {
    let reference = (method.params_schema)(generator);
    let name = reference
        .get("$ref")
        .and_then(Value::as_str)
        .and_then(|r| r.rsplit('/').next());
    name.and_then(|name| generator.definitions().get(name))
        .and_then(|found| Schema::try_from(found.clone()).ok())
        .unwrap_or(reference)
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
        .chain(request_id_errors(method))
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

/// What a `request_id` can do wrong, unless the method lists it anyway.
fn request_id_errors(method: &MethodInfo) -> &'static [Kind] {
    const KINDS: &[Kind] = &[Kind::InvalidArgument];
    let takes = matches!(method.access, Access::Mutate | Access::Operation);
    if takes && !method.errors.contains(&Kind::InvalidArgument) {
        KINDS
    } else {
        &[]
    }
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
        // `items` in draft 7; the later word would be ignored by those who read the document.
        assert!(!text.contains("prefixItems"), "not draft 7");
        assert_eq!(
            document["methods"].as_array().map(Vec::len),
            Some(crate::methods::ALL.len())
        );
    }
}
