//! Single values as one line of printable text.

use serde_json::Value;
use terok_proto::error::printable_line;

/// A value on one line: words for booleans, lists with commas, the rest as JSON. A missing value is empty.
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) => printable_line(text),
        Value::Array(items) if items.iter().all(|v| !v.is_object() && !v.is_array()) => {
            items.iter().map(plain).collect::<Vec<_>>().join(", ")
        }
        other => printable_line(&other.to_string()),
    }
}

/// A number of bytes for humans: powers of 1000, one decimal from kB up.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    // In tenths of the unit, in integers: exact for any size.
    let (mut unit, mut scale) = (0, 1000u64);
    while unit + 1 < UNITS.len()
        && (u128::from(bytes) * 10 + u128::from(scale) / 2) / u128::from(scale) >= 10_000
    {
        unit += 1;
        scale *= 1000;
    }
    let tenths = (u128::from(bytes) * 10 + u128::from(scale) / 2) / u128::from(scale);
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sizes_have_one_decimal_and_never_a_thousand() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (12_500_000, "12.5 MB"),
            (999_949, "999.9 kB"),
            (999_950, "1.0 MB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(size(bytes), text, "{bytes}");
        }
    }

    #[test]
    fn values_fit_on_one_line() {
        assert_eq!(plain(&json!("a\nb\u{1b}")), "a b\\x1b");
        assert_eq!(plain(&json!(["a", 1, true])), "a, 1, yes");
        assert_eq!(plain(&json!({"a": [{}]})), r#"{"a":[{}]}"#);
        assert_eq!(plain(&Value::Null), "");
    }
}
