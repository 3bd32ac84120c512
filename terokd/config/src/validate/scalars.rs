//! Coercion of single values, type by type.

use super::{Checker, Finding};
use crate::schema::{Field, Limits, Type};
use crate::yaml::Step;
use serde_json::{Value, json};
use terok_proto::config::ProblemCode;

impl Checker<'_> {
    /// The value in normal form; None where it was refused, or means unset.
    pub(super) fn scalar(&mut self, field: &Field, value: &Value) -> Option<Value> {
        match &field.kind {
            Type::Bool => match boolean(value) {
                Some(value) => Some(json!(value)),
                None => self.refuse("a boolean (true or false)", value),
            },
            Type::Int(limits) => self.int(*limits, value),
            Type::Text => match self.string(value) {
                Some(text) => Some(json!(text)),
                None => self.refuse("a string (put it in quotes)", value),
            },
            Type::ProjectId => match self.string(value) {
                Some(id) if crate::id::is_valid(id) => Some(json!(id)),
                Some(_) => {
                    let message = format!(
                        "{} is no project id: {}",
                        self.quoted(value),
                        crate::id::RULE
                    );
                    self.error(ProblemCode::BadValue, message);
                    None
                }
                None => self.refuse("a string (put it in quotes)", value),
            },
            Type::Word(words) => match self.string(value) {
                Some(word) if words.contains(&word) => Some(json!(word)),
                _ => self.refuse_word(words, value),
            },
            Type::FoldedWord(words) => {
                let word = self.string(value).map(|word| trim(word).to_lowercase());
                match word {
                    Some(word) if words.contains(&word.as_str()) => Some(json!(word)),
                    _ => self.refuse_word(words, value),
                }
            }
            Type::TextList => self.text_list(value),
            Type::Categories => self.categories(value),
            Type::Mapping => self.mapping(value),
            Type::Memory => {
                self.quantity(value, is_memory, "a size such as `4g`, `512m` or `1.5 GiB`")
            }
            Type::Cpus => self.quantity(value, is_decimal, "a number such as `2` or `0.5`"),
            Type::Gpus => match self.bool_or_string(value) {
                Some(value) => Some(value),
                None => self.refuse_union(value, "a boolean", "a string"),
            },
            Type::SharedDir => match self.bool_or_string(value) {
                Some(value) => Some(value),
                None => self.refuse_union(value, "a boolean", "an absolute path"),
            },
            Type::Hook => match (value, self.string(value)) {
                (Value::Bool(false), _) => Some(json!(false)),
                (_, Some(text)) => Some(json!(text)),
                _ => self.refuse("a shell command, or false for none", value),
            },
            Type::Section(_) | Type::PerProject(_) => None,
        }
    }

    fn refuse(&mut self, what: &str, value: &Value) -> Option<Value> {
        self.expected(what, value);
        None
    }

    fn refuse_word(&mut self, words: &[&str], value: &Value) -> Option<Value> {
        let list = words
            .iter()
            .map(|word| format!("\"{word}\""))
            .collect::<Vec<_>>()
            .join(" or ");
        if value.is_string() {
            let message = format!("expected {list}, got {}", self.quoted(value));
            self.error(ProblemCode::BadValue, message);
        } else {
            self.expected(&list, value);
        }
        None
    }

    /// One problem per alternative, as every alternative was tried.
    fn refuse_union(&mut self, value: &Value, first: &str, second: &str) -> Option<Value> {
        for (name, what) in [("bool", first), ("str", second)] {
            self.path.push(Step::from(name));
            self.expected(what, value);
            self.path.pop();
        }
        None
    }

    fn string<'v>(&self, value: &'v Value) -> Option<&'v str> {
        value
            .as_str()
            .filter(|_| !self.places.is_nonfinite(&self.path))
    }

    fn bool_or_string(&self, value: &Value) -> Option<Value> {
        match value {
            Value::String(_) => self.string(value).map(|text| json!(text)),
            other => boolean(other).map(|value| json!(value)),
        }
    }

    fn int(&mut self, limits: Limits, value: &Value) -> Option<Value> {
        let Some(number) = integer(value) else {
            return self.refuse("an integer", value);
        };
        if value.is_boolean() {
            let message = format!("expected an integer, got {value}; it is read as {number}");
            self.warn(ProblemCode::WrongType, message);
        }
        let Limits { min, max, clamp } = limits;
        if (min..=max).contains(&number) {
            return Some(json!(number));
        }
        let shown = self.quoted(value);
        if clamp {
            let used = number.clamp(min, max);
            self.warn(
                ProblemCode::OutOfRange,
                format!("{shown} is not between {min} and {max}; {used} is used"),
            );
            return Some(json!(used));
        }
        self.error(
            ProblemCode::OutOfRange,
            format!("{shown} is not between {min} and {max}"),
        );
        None
    }

    fn text_list(&mut self, value: &Value) -> Option<Value> {
        if let Some(text) = self.string(value) {
            return Some(json!([text]));
        }
        let Value::Array(items) = value else {
            return self.refuse("a list of strings", value);
        };
        let before = self.errors;
        for (index, item) in items.iter().enumerate() {
            self.path.push(Step::Index(index));
            if self.string(item).is_none() {
                self.expected("a string (put it in quotes)", item);
            }
            self.path.pop();
        }
        // A marker that found no list below it means nothing here.
        let kept = items
            .iter()
            .filter(|item| item.as_str() != Some(crate::merge::INHERIT));
        (self.errors == before).then(|| kept.cloned().collect())
    }

    fn categories(&mut self, value: &Value) -> Option<Value> {
        if let Some(text) = self.string(value) {
            let text = trim(text);
            return (!text.is_empty()).then(|| json!([text]));
        }
        match value {
            Value::Array(items) if items.is_empty() => None,
            Value::Array(items) if items.iter().all(Value::is_string) => Some(value.clone()),
            Value::Array(_) => {
                self.error(ProblemCode::WrongType, "every element has to be a string");
                None
            }
            _ => self.refuse("a string or a list of strings", value),
        }
    }

    fn mapping(&mut self, value: &Value) -> Option<Value> {
        if !value.is_object() {
            return self.refuse("a mapping", value);
        }
        let odd = self.places.odd_keys_below(&self.path);
        for path in &odd {
            let mut finding = Finding::error(
                path,
                ProblemCode::WrongType,
                "keys have to be strings; put it in quotes",
            );
            finding.at_key = true;
            self.report(finding);
        }
        odd.is_empty().then(|| value.clone())
    }

    fn quantity(&mut self, value: &Value, matches: fn(&str) -> bool, what: &str) -> Option<Value> {
        let text = match value {
            Value::Number(number) => match number.as_f64() {
                Some(float) if number.is_f64() => format!("{float:?}"),
                _ => number.to_string(),
            },
            Value::String(text) => text.clone(),
            _ => return self.refuse(what, value),
        };
        if trim(&text).is_empty() {
            return None;
        }
        if !matches(&text) {
            let message = format!("expected {what}, got {}", self.quoted(value));
            self.error(ProblemCode::BadValue, message);
            return None;
        }
        Some(json!(text))
    }
}

/// Text without blanks around it, as the format has always understood blanks.
pub(crate) fn trim(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c))
}

fn boolean(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(value) => Some(*value),
        Value::Number(number) => match number.as_f64() {
            Some(0.0) => Some(false),
            Some(1.0) => Some(true),
            _ => None,
        },
        Value::String(text) if text.len() <= 5 => match text.to_ascii_lowercase().as_str() {
            "true" | "t" | "yes" | "y" | "on" | "1" => Some(true),
            "false" | "f" | "no" | "n" | "off" | "0" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

/// An integer, cut to what 64 bits hold.
fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Bool(value) => Some(i64::from(*value)),
        Value::Number(number) => number
            .as_i64()
            .or_else(|| number.as_u64().map(|_| i64::MAX))
            .or_else(|| {
                let float = number.as_f64()?;
                // The conversion saturates.
                (float.fract() == 0.0).then_some(float as i64)
            }),
        Value::String(text) => integer_text(trim(text)),
        _ => None,
    }
}

fn integer_text(text: &str) -> Option<i64> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (digits, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    if fraction.is_empty() || !fraction.bytes().all(|b| b == b'0') {
        return None;
    }
    let mut number: i64 = 0;
    for group in digits.split('_') {
        if group.is_empty() || !group.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        for digit in group.bytes() {
            number = number
                .saturating_mul(10)
                .saturating_add(i64::from(digit - b'0'));
        }
    }
    Some(if negative { -number } else { number })
}

/// `^[0-9]+(\.[0-9]+)? ?[kKmMgGtTpP]?[iI]?[bB]?$`
fn is_memory(text: &str) -> bool {
    let mut rest = text;
    for optional in ["bB", "iI", "kKmMgGtTpP"] {
        rest = rest.strip_suffix(|c| optional.contains(c)).unwrap_or(rest);
    }
    is_decimal(rest.strip_suffix(' ').unwrap_or(rest))
}

/// `^[0-9]+(\.[0-9]+)?$`
fn is_decimal(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match text.split_once('.') {
        Some((whole, part)) => digits(whole) && digits(part),
        None => digits(text),
    }
}
