//! `path=value` lines: one per leaf, for `grep`, `cut` and shells.
//!
//! A path joins keys and list indexes with dots; a key that would be ambiguous is quoted as JSON. So is a string that
//! does not fit on a line as it is; an empty list or object shows its brackets.

use super::is_printable;
use serde_json::Value;

/// All leaves of a value.
pub(super) fn lines(value: &Value) -> String {
    let mut out = String::new();
    let mut path = String::new();
    walk(value, &mut path, &mut out);
    out
}

fn walk(value: &Value, path: &mut String, out: &mut String) {
    let length = path.len();
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (key, value) in members {
                push(path, &quoted_key(key));
                walk(value, path, out);
                path.truncate(length);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (index, value) in items.iter().enumerate() {
                push(path, &index.to_string());
                walk(value, path, out);
                path.truncate(length);
            }
        }
        leaf => {
            if !path.is_empty() {
                out.push_str(path);
                out.push('=');
            }
            match leaf {
                Value::String(text) => out.push_str(&text_leaf(text)),
                other => out.push_str(&other.to_string()),
            }
            out.push('\n');
        }
    }
}

fn push(path: &mut String, step: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(step);
}

fn quoted_key(key: &str) -> String {
    let clear = !key.is_empty()
        && key.chars().all(|c| {
            c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | ':' | '/' | '@' | '+' | '('..=')')
        });
    if clear { key.to_owned() } else { json(key) }
}

fn text_leaf(text: &str) -> String {
    if text.starts_with('"') || !text.chars().all(is_printable) {
        json(text)
    } else {
        text.to_owned()
    }
}

fn json(text: &str) -> String {
    super::for_terminal(&Value::from(text).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn leaves_have_paths() {
        let value = json!({
            "id": "orion", "gpu": false, "name": null, "none": [], "nothing": {},
            "list": [{"a": 1.5}, ["x"]],
            "values": {"git.upstream_url": {"value": "a=b"}, "": 1},
            "text": "two\nlines", "quoted": "\"x\"", "bad": "\u{9b}2J", "blank": "",
        });
        insta::assert_snapshot!(lines(&value), @r#"
        id=orion
        gpu=false
        name=null
        none=[]
        nothing={}
        list.0.a=1.5
        list.1.0=x
        values."git.upstream_url".value=a=b
        values.""=1
        text="two\nlines"
        quoted="\"x\""
        bad="\u009b2J"
        blank=
        "#);
    }

    #[test]
    fn a_lone_value_has_no_path() {
        assert_eq!(lines(&json!("x")), "x\n");
        assert_eq!(lines(&json!(null)), "null\n");
        assert_eq!(lines(&json!([])), "[]\n");
    }
}
