//! The data of a document: what `serde_yaml` reads, then the scalars and merges of our dialect, then JSON.

use super::nodes::{NodeId, NodeKind, Style, Tree};
use super::{Document, Step, YamlProblem};
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::collections::HashSet;
use std::fmt;
use terok_proto::config::ProblemCode;

/// A value as read, before styles are known.
#[derive(Debug)]
pub(super) enum Raw {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<Raw>),
    Pairs(Vec<(Raw, Raw)>),
}

pub(super) fn read(text: &str) -> Result<Raw, Vec<YamlProblem>> {
    serde_yaml::from_str(text).map_err(|error| {
        let at = error
            .location()
            .map(|at| (at.line() as u64, at.column() as u64));
        let message = error.to_string();
        // The place is said beside the message, and the parser's second place is only noise.
        let message = message
            .split(" at line ")
            .next()
            .unwrap_or("not YAML")
            .to_owned();
        vec![YamlProblem::syntax(message, at)]
    })
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        Raw::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Int(i128::from(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Int(i128::from(value)))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Raw, E> {
        Ok(Raw::Int(value))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Raw, E> {
        Ok(i128::try_from(value).map_or(Raw::Float(value as f64), Raw::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Raw, E> {
        Ok(Raw::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = access.next_entry()? {
            pairs.push(pair);
        }
        Ok(Raw::Pairs(pairs))
    }

    fn visit_enum<A: de::EnumAccess<'de>>(self, _: A) -> Result<Raw, A::Error> {
        Err(de::Error::custom("tags are not supported; remove it"))
    }
}

/// Turns what was read into a document.
pub(super) fn convert(
    raw: Raw,
    tree: Option<Tree>,
    warnings: Vec<YamlProblem>,
) -> Result<Document, Vec<YamlProblem>> {
    let mut conversion = Conversion {
        tree: tree.as_ref(),
        path: Vec::new(),
        nonfinite: HashSet::new(),
        odd_keys: Vec::new(),
        problems: Vec::new(),
    };
    let root = tree.as_ref().and_then(|tree| tree.root);
    let value = conversion.value(raw, root);
    let Conversion {
        nonfinite,
        odd_keys,
        problems,
        ..
    } = conversion;
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(Document {
        value,
        warnings,
        tree,
        nonfinite,
        odd_keys,
    })
}

struct Conversion<'a> {
    tree: Option<&'a Tree>,
    path: Vec<Step>,
    nonfinite: HashSet<Vec<Step>>,
    odd_keys: Vec<Vec<Step>>,
    problems: Vec<YamlProblem>,
}

impl Conversion<'_> {
    fn value(&mut self, raw: Raw, node: Option<NodeId>) -> Value {
        let node = match (self.tree, node) {
            (Some(tree), Some(id)) => Some(tree.target(id)),
            _ => None,
        };
        if let (Some(tree), Some(id)) = (self.tree, node)
            && let (Some(tag), Some(text)) = (&tree.node(id).tag, tree.scalar_text(id))
        {
            return match tagged(tag, text) {
                Some(Raw::Float(value)) => self.float(value),
                Some(Raw::Int(value)) => integer(value),
                Some(Raw::Bool(value)) => Value::Bool(value),
                Some(Raw::Text(text)) => Value::String(text),
                Some(_) => Value::Null,
                None => {
                    let at = tree.place(id);
                    self.problems.push(YamlProblem::syntax(
                        format!("the value does not fit its tag `!!{tag}`"),
                        at,
                    ));
                    Value::Null
                }
            };
        }
        match raw {
            Raw::List(items) => {
                let ids = self.items(node, items.len());
                let mut out = Vec::with_capacity(items.len());
                for (index, item) in items.into_iter().enumerate() {
                    self.path.push(Step::Index(index));
                    out.push(self.value(item, ids.as_ref().map(|ids| ids[index])));
                    self.path.pop();
                }
                Value::Array(out)
            }
            Raw::Pairs(pairs) => Value::Object(self.mapping(pairs, node)),
            Raw::Null => Value::Null,
            Raw::Bool(value) => Value::Bool(value),
            Raw::Int(value) => integer(value),
            Raw::Float(value) => self.float(value),
            Raw::Text(text) => {
                let plain = match (self.tree, node) {
                    (Some(tree), Some(id)) => {
                        let node = tree.node(id);
                        node.style == Style::Plain
                    }
                    _ => false,
                };
                match plain.then(|| number(&text)).flatten() {
                    Some(Raw::Int(value)) => integer(value),
                    Some(Raw::Float(value)) => self.float(value),
                    _ => Value::String(text),
                }
            }
        }
    }

    fn items(&self, node: Option<NodeId>, len: usize) -> Option<Vec<NodeId>> {
        match &self.tree?.node(node?).kind {
            NodeKind::Seq(items) if items.len() == len => Some(items.clone()),
            _ => None,
        }
    }

    fn pairs(&self, node: Option<NodeId>, len: usize) -> Option<Vec<(NodeId, NodeId)>> {
        match &self.tree?.node(node?).kind {
            NodeKind::Map(pairs) if pairs.len() == len => Some(pairs.clone()),
            _ => None,
        }
    }

    fn float(&mut self, value: f64) -> Value {
        Number::from_f64(value).map_or_else(
            || {
                self.nonfinite.insert(self.path.clone());
                let text = match value {
                    value if value.is_nan() => ".nan",
                    value if value > 0.0 => ".inf",
                    _ => "-.inf",
                };
                Value::String(text.to_owned())
            },
            Value::Number,
        )
    }

    fn mapping(&mut self, pairs: Vec<(Raw, Raw)>, node: Option<NodeId>) -> Map<String, Value> {
        let ids = self.pairs(node, pairs.len());
        let mut out = Map::with_capacity(pairs.len());
        let mut merged = Vec::new();
        for (index, (key, value)) in pairs.into_iter().enumerate() {
            let (key_id, value_id) = ids.as_ref().map(|ids| ids[index]).unzip();
            let is_merge = match (self.tree, key_id) {
                (Some(tree), Some(id)) => tree.is_merge(id),
                _ => matches!(&key, Raw::Text(text) if text == "<<"),
            };
            if is_merge {
                let value = self.value(value, value_id);
                self.collect_merged(value, key_id, &mut merged);
                continue;
            }
            let odd = !matches!(key, Raw::Text(_));
            let name = key_name(key);
            self.path.push(Step::Key(name.clone()));
            if odd {
                self.odd_keys.push(self.path.clone());
            }
            let value = self.value(value, value_id);
            self.path.pop();
            if out.insert(name.clone(), value).is_some() {
                self.problems.push(YamlProblem {
                    code: ProblemCode::DuplicateKey,
                    message: format!(
                        "the key \"{}\" stands twice in one mapping",
                        name.chars().take(80).collect::<String>()
                    ),
                    line: None,
                    column: None,
                });
            }
        }
        for (key, value) in merged {
            out.entry(key).or_insert(value);
        }
        out
    }

    fn collect_merged(
        &mut self,
        value: Value,
        key: Option<NodeId>,
        out: &mut Vec<(String, Value)>,
    ) {
        let sources = match value {
            Value::Array(items) => items,
            other => vec![other],
        };
        for source in sources {
            match source {
                Value::Object(map) => out.extend(map),
                _ => {
                    let at = self.tree.zip(key).and_then(|(tree, key)| tree.place(key));
                    self.problems.push(YamlProblem::syntax(
                        "a merge key takes a mapping or a list of mappings",
                        at,
                    ));
                }
            }
        }
    }
}

fn integer(value: i128) -> Value {
    if let Ok(value) = i64::try_from(value) {
        Value::from(value)
    } else if let Ok(value) = u64::try_from(value) {
        Value::from(value)
    } else {
        Number::from_f64(value as f64).map_or(Value::Null, Value::Number)
    }
}

fn key_name(key: Raw) -> String {
    match key {
        Raw::Text(text) => text,
        Raw::Null => "null".to_owned(),
        Raw::Bool(value) => value.to_string(),
        Raw::Int(value) => value.to_string(),
        Raw::Float(value) => value.to_string(),
        Raw::List(_) => "[…]".to_owned(),
        Raw::Pairs(_) => "{…}".to_owned(),
    }
}

/// A scalar with a tag of the core schema.
fn tagged(tag: &str, text: &str) -> Option<Raw> {
    match tag {
        "str" | "" => Some(Raw::Text(text.to_owned())),
        "null" => matches!(text, "" | "~" | "null" | "Null" | "NULL").then_some(Raw::Null),
        "bool" => match text.to_ascii_lowercase().as_str() {
            "true" => Some(Raw::Bool(true)),
            "false" => Some(Raw::Bool(false)),
            _ => None,
        },
        "int" => number(text).filter(|number| matches!(number, Raw::Int(_))),
        "float" => match (number(text), text.to_ascii_lowercase().as_str()) {
            (Some(Raw::Int(value)), _) => Some(Raw::Float(value as f64)),
            (Some(value), _) => Some(value),
            (None, ".inf" | "+.inf") => Some(Raw::Float(f64::INFINITY)),
            (None, "-.inf") => Some(Raw::Float(f64::NEG_INFINITY)),
            (None, ".nan") => Some(Raw::Float(f64::NAN)),
            (None, _) => text
                .parse::<f64>()
                .ok()
                .filter(|f| f.is_finite())
                .map(Raw::Float),
        },
        _ => None,
    }
}

/// Numbers of YAML 1.2 that `serde_yaml` leaves as text: leading zeros, underscores.
pub(super) fn number(text: &str) -> Option<Raw> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        b'0'..=b'9' => (false, text),
        _ => return None,
    };
    if !digits.as_bytes().first()?.is_ascii_digit() || digits.len() > 400 {
        return None;
    }
    let digits: String = digits.chars().filter(|c| *c != '_').collect();
    let signed = |value: i128| Some(Raw::Int(if negative { -value } else { value }));
    for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        if let Some(rest) = digits.strip_prefix(prefix) {
            return i128::from_str_radix(rest, radix)
                .ok()
                .filter(|_| !rest.starts_with(['+', '-']))
                .and_then(signed);
        }
    }
    if digits.bytes().all(|b| b.is_ascii_digit()) {
        if let Ok(value) = digits.parse::<i128>() {
            return signed(value);
        }
    } else if !is_float(&digits) {
        return None;
    }
    let value: f64 = digits.parse().ok()?;
    Some(Raw::Float(if negative { -value } else { value }))
}

/// Digits, optionally a point and digits, optionally an exponent; at least one of the latter two.
fn is_float(text: &str) -> bool {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let mantissa_ok = match mantissa.split_once('.') {
        Some((whole, part)) => !whole.is_empty() && digits(whole) && digits(part),
        None => exponent.is_some() && !mantissa.is_empty() && digits(mantissa),
    };
    let exponent_ok = exponent.is_none_or(|exponent| {
        let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        !exponent.is_empty() && digits(exponent)
    });
    mantissa_ok && exponent_ok
}
