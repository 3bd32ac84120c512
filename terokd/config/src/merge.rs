//! The one merge of layered settings: configuration files, the agent stack and roster overrides.
//!
//! Knows JSON values and the markers `null` and `_inherit`, nothing about files or keys.

use serde_json::{Map, Value};
use std::collections::HashSet;

/// The marker that keeps what the layer below says.
pub const INHERIT: &str = "_inherit";

/// Bytes that repeated list markers of one key may copy; further ones stay markers, which consumers ignore.
const MAX_REPEATED: usize = 1 << 20;

/// Merges `over` onto `base`: null removes, `_inherit` keeps, mappings recurse, lists may splice the base in.
#[must_use]
pub fn deep_merge(base: &Map<String, Value>, over: &Map<String, Value>) -> Map<String, Value> {
    let mut out = base.clone();
    merge_into(&mut out, over);
    out
}

/// Folds layers, lowest first, starting from nothing.
#[must_use]
pub fn merge_layers<'a, I>(layers: I) -> Map<String, Value>
where
    I: IntoIterator<Item = &'a Map<String, Value>>,
{
    let mut out = Map::new();
    for layer in layers {
        merge_into(&mut out, layer);
    }
    out
}

/// Whether a value is the marker string.
#[must_use]
pub fn is_inherit(value: &Value) -> bool {
    value.as_str() == Some(INHERIT)
}

fn merge_into(base: &mut Map<String, Value>, over: &Map<String, Value>) {
    merge_entries(base, over.iter());
}

fn merge_entries<'a>(
    base: &mut Map<String, Value>,
    over: impl Iterator<Item = (&'a String, &'a Value)>,
) {
    // Collected and removed in one pass: a removal keeps the order, so one per key would be quadratic.
    let mut removed = HashSet::new();
    for (key, value) in over {
        match value {
            Value::Null => {
                if base.contains_key(key) {
                    removed.insert(key.as_str());
                }
            }
            Value::String(s) if s == INHERIT => {}
            Value::Object(child) => {
                let marked = child.get(INHERIT) == Some(&Value::Bool(true));
                let kept = child.iter().filter(|(k, _)| !(marked && *k == INHERIT));
                if let Some(Value::Object(below)) = base.get_mut(key) {
                    merge_boxed(below, Box::new(kept));
                } else {
                    let own = kept.map(|(k, v)| (k.clone(), v.clone())).collect();
                    base.insert(key.clone(), Value::Object(own));
                }
            }
            Value::Array(items) => {
                let merged = match base.get(key) {
                    Some(Value::Array(below)) => splice(below, items),
                    _ => items.clone(),
                };
                base.insert(key.clone(), Value::Array(merged));
            }
            other => {
                base.insert(key.clone(), other.clone());
            }
        }
    }
    if !removed.is_empty() {
        base.retain(|key, _| !removed.contains(key.as_str()));
    }
}

/// Type-erased recursion: the filter adapter would otherwise nest in its own type.
fn merge_boxed<'a>(
    base: &mut Map<String, Value>,
    over: Box<dyn Iterator<Item = (&'a String, &'a Value)> + 'a>,
) {
    merge_entries(base, over);
}

fn splice(below: &[Value], items: &[Value]) -> Vec<Value> {
    let weight: usize = below.iter().map(weight).sum();
    let mut copied = 0;
    let mut out = Vec::with_capacity(items.len());
    for item in items {
        // The first copy costs no more than the base did; only repetitions can blow up.
        if is_inherit(item) && (copied == 0 || copied + weight <= MAX_REPEATED) {
            out.extend_from_slice(below);
            copied += weight.max(1);
        } else {
            out.push(item.clone());
        }
    }
    out
}

fn weight(value: &Value) -> usize {
    size_of::<Value>()
        + match value {
            Value::String(s) => s.len(),
            Value::Array(items) => items.iter().map(weight).sum(),
            Value::Object(map) => map.iter().map(|(k, v)| k.len() + weight(v)).sum(),
            _ => 0,
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn merge(base: Value, over: Value) -> Value {
        let (Value::Object(base), Value::Object(over)) = (base, over) else {
            panic!("mappings")
        };
        Value::Object(deep_merge(&base, &over))
    }

    #[test]
    fn follows_the_table() {
        let cases = [
            (
                json!({"m": "a", "t": 5}),
                json!({"m": "b"}),
                json!({"m": "b", "t": 5}),
            ),
            (json!({"m": "a"}), json!({"m": null}), json!({})),
            (
                json!({"s": [1, 2]}),
                json!({"s": ["_inherit", 3]}),
                json!({"s": [1, 2, 3]}),
            ),
            (
                json!({"s": [1]}),
                json!({"s": [0, "_inherit", "_inherit"]}),
                json!({"s": [0, 1, 1]}),
            ),
            (
                json!({"m": {"claude": "a", "codex": "b"}}),
                json!({"m": {"codex": null, "_default": "c"}}),
                json!({"m": {"claude": "a", "_default": "c"}}),
            ),
            (
                json!({}),
                json!({"s": ["_inherit", "x"]}),
                json!({"s": ["_inherit", "x"]}),
            ),
            (
                json!({"m": "a"}),
                json!({"m": "_inherit"}),
                json!({"m": "a"}),
            ),
            (json!({}), json!({"m": "_inherit"}), json!({})),
            (
                json!({"m": "text"}),
                json!({"m": ["_inherit", "more"]}),
                json!({"m": ["_inherit", "more"]}),
            ),
            (
                json!({"m": {"a": 1}}),
                json!({"m": {"_inherit": true, "b": 2}}),
                json!({"m": {"a": 1, "b": 2}}),
            ),
            (
                json!({"m": 1}),
                json!({"m": {"_inherit": true, "b": null, "c": {"_inherit": true}}}),
                json!({"m": {"b": null, "c": {"_inherit": true}}}),
            ),
            (
                json!({}),
                json!({"m": {"a": null}}),
                json!({"m": {"a": null}}),
            ),
            (
                json!({"m": {"a": null}}),
                json!({"m": {"b": 1}}),
                json!({"m": {"a": null, "b": 1}}),
            ),
            (json!({"s": [1]}), json!({"s": []}), json!({"s": []})),
        ];
        for (base, over, want) in cases {
            assert_eq!(merge(base.clone(), over.clone()), want, "{base} + {over}");
        }
    }

    #[test]
    fn folds_from_nothing() {
        let layers = [json!({"a": null, "b": {"c": null}}), json!({"d": 1})];
        let layers: Vec<_> = layers.iter().filter_map(Value::as_object).collect();
        assert_eq!(
            Value::Object(merge_layers(layers)),
            json!({"b": {"c": null}, "d": 1})
        );
    }

    #[test]
    fn repeated_markers_cannot_fill_the_memory() {
        let base = json!({"s": vec!["x".repeat(1000); 1000]});
        let over = json!({"s": vec![INHERIT; 50_000]});
        let merged = merge(base, over);
        let items = merged["s"].as_array().map_or(0, Vec::len);
        assert!((51_000 - 1..60_000).contains(&items), "{items}");
    }
}
