//! Fields of Podman's JSON, read without trust: what has the wrong type counts as absent, numbers saturate.

use crate::fault;
use serde_json::Value;
use std::collections::BTreeMap;
use terok_proto::Fault;

pub(crate) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

pub(crate) fn flag(value: &Value, key: &str) -> bool {
    value.get(key).and_then(Value::as_bool).unwrap_or_default()
}

/// A whole number; what does not fit becomes the nearest that does.
pub(crate) fn signed(value: &Value, key: &str) -> Option<i64> {
    let number = value.get(key)?;
    number
        .as_i64()
        .or_else(|| number.as_u64().map(|_| i64::MAX))
        // A cast from a float saturates, and makes 0 of what is no number.
        .or_else(|| number.as_f64().map(|float| float as i64))
}

/// A size: negative is 0.
pub(crate) fn size(value: &Value, key: &str) -> u64 {
    let Some(number) = value.get(key) else {
        return 0;
    };
    number
        .as_u64()
        .or_else(|| number.as_i64().map(|_| 0))
        .or_else(|| number.as_f64().map(|float| float as u64))
        .unwrap_or_default()
}

pub(crate) fn texts(value: &Value, key: &str) -> Vec<String> {
    let list = value.get(key).and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

pub(crate) fn labels(value: &Value, key: &str) -> BTreeMap<String, String> {
    let map = value.get(key).and_then(Value::as_object);
    map.into_iter()
        .flatten()
        .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
        .collect()
}

/// A full id in hex, without the `sha256:` that some answers put before it.
pub(crate) fn id(what: &str, value: &Value, key: &str) -> Result<String, Fault> {
    let raw = text(value, key);
    let id = raw.strip_prefix("sha256:").unwrap_or(raw);
    if is_id(id) {
        Ok(id.to_owned())
    } else {
        Err(fault::nonsense(
            what,
            format!("`{}` is no id", fault::cut(raw, 100)),
        ))
    }
}

/// Whether the text is a full id of an image or a container.
pub(crate) fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// A list, of which Podman says `null` when it is empty.
pub(crate) fn list(what: &str, body: &[u8]) -> Result<Vec<Value>, Fault> {
    let list: Option<Vec<Value>> =
        serde_json::from_slice(body).map_err(|error| fault::nonsense(what, error))?;
    Ok(list.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_saturate() {
        let value = json!({"n": -1, "big": u64::MAX, "huge": 1e300, "text": "5", "float": 1.9, "null": null});
        let sizes: Vec<u64> = ["n", "big", "huge", "text", "float", "null", "none"]
            .map(|key| size(&value, key))
            .into();
        assert_eq!(sizes, [0, u64::MAX, u64::MAX, 0, 1, 0, 0]);
        let signed: Vec<_> = ["n", "big", "huge", "text", "null"]
            .map(|key| signed(&value, key))
            .into();
        assert_eq!(
            signed,
            [Some(-1), Some(i64::MAX), Some(i64::MAX), None, None]
        );
    }

    #[test]
    fn lists_may_be_null_but_nothing_else() {
        assert!(list("x", b"null").unwrap().is_empty());
        assert_eq!(list("x", b"[1,2]").unwrap().len(), 2);
        for bad in ["", "{}", "[1", "5", "<html>"] {
            assert!(list("x", bad.as_bytes()).is_err(), "{bad}");
        }
        let deep = "[".repeat(100_000);
        assert!(list("x", deep.as_bytes()).is_err());
    }
}
