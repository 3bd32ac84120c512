//! Every answer against `rpc.discover`: results by their schema, errors by the method's list of kinds.

use crate::client::{Client, RpcError};
use crate::transport::Transport;
use jsonschema::Validator;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// What the daemon says about its methods.
pub struct Checked {
    document: Value,
    validators: Mutex<HashMap<String, Arc<Validator>>>,
}

impl std::fmt::Debug for Checked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Checked")
    }
}

static LEARNT: OnceLock<Checked> = OnceLock::new();

impl Checked {
    /// Asks once per process; every daemon that a test starts is the same program.
    ///
    /// # Panics
    /// The daemon does not describe itself.
    pub fn learn<T: Transport>(client: &mut Client<T>) -> &'static Self {
        if let Some(learnt) = LEARNT.get() {
            return learnt;
        }
        let document = client
            .unchecked("rpc.discover", json!({}))
            .expect("rpc.discover answers");
        LEARNT.get_or_init(|| Self {
            document,
            validators: Mutex::default(),
        })
    }

    /// The description of one method.
    pub fn method(&self, name: &str) -> Option<&Value> {
        self.document["methods"]
            .as_array()?
            .iter()
            .find(|m| m["name"] == name)
    }

    /// Names of all methods.
    pub fn names(&self) -> Vec<&str> {
        let methods = self.document["methods"].as_array().into_iter().flatten();
        methods.filter_map(|m| m["name"].as_str()).collect()
    }

    /// Checks one answer.
    ///
    /// # Panics
    /// The answer is not what the description promises.
    pub fn judge(&self, method: &str, params: &Value, answer: &Result<Value, RpcError>) {
        match answer {
            Ok(result) => self.judge_result(method, params, result),
            Err(error) => self.judge_error(method, params, error),
        }
    }

    fn judge_result(&self, method: &str, params: &Value, result: &Value) {
        let description = self
            .method(method)
            .unwrap_or_else(|| panic!("{method} is not in rpc.discover"));
        if params.get("detach") == Some(&json!(true)) {
            assert!(
                result["operation_id"].is_string(),
                "{method} detached answered {result}"
            );
            return;
        }
        let validator = {
            let mut all = self
                .validators
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let build = || {
                let mut schema = Map::new();
                schema.insert(
                    "$schema".to_owned(),
                    json!("http://json-schema.org/draft-07/schema#"),
                );
                schema.insert("allOf".to_owned(), json!([description["result"]["schema"]]));
                schema.insert("components".to_owned(), self.document["components"].clone());
                let schema = Value::Object(schema);
                Arc::new(
                    jsonschema::validator_for(&schema)
                        .unwrap_or_else(|e| panic!("schema of {method}: {e}")),
                )
            };
            Arc::clone(all.entry(method.to_owned()).or_insert_with(build))
        };
        let wrong: Vec<String> = validator
            .iter_errors(result)
            .map(|e| format!("{}: {e:.300}", e.instance_path()))
            .take(5)
            .collect();
        assert!(
            wrong.is_empty(),
            "{method} {params} does not answer its schema:\n{}",
            wrong.join("\n")
        );
    }

    fn judge_error(&self, method: &str, params: &Value, error: &RpcError) {
        let what = format!("{method} {params} answered {error:?}");
        assert!(!error.message.is_empty(), "no message: {what}");
        assert!(
            !error.message.chars().any(char::is_control),
            "control characters in the message: {what}"
        );
        let kind = error.kind();
        assert_ne!(
            kind, "internal",
            "bad input must never be an internal error: {what}"
        );
        if kind == "method_not_found" {
            return;
        }
        let description = self
            .method(method)
            .unwrap_or_else(|| panic!("not in rpc.discover: {what}"));
        let listed = description["errors"].as_array().into_iter().flatten();
        let listed = listed
            .filter(|e| e["data"]["kind"] == kind)
            .find(|e| e["code"] == error.code);
        assert!(
            listed.is_some(),
            "a kind that the method does not list: {what}"
        );
    }
}
