//! Data as YAML text, for what cannot be edited in place.

use super::lines::{inline_end, next_line};
use super::scalar::scalar;
use crate::yaml::{Document, Step};
use saphyr_parser::{Event, Parser};
use serde_json::Value;

/// One entry of the top level as block text.
pub(super) fn entry(key: &str, value: &Value, document: &Document) -> String {
    let mut out = Emitter {
        document,
        out: String::new(),
        path: Vec::new(),
    };
    out.entry(key, value, 0);
    out.out
}

/// The whole document. Its comments are kept, in front of it.
pub(super) fn document(text: &str, value: &Value, document: &Document) -> String {
    let mut out = Emitter {
        document,
        out: String::new(),
        path: Vec::new(),
    };
    for comment in comments(text) {
        out.out.push_str(comment.trim_end());
        out.out.push('\n');
    }
    match value {
        Value::Object(map) if map.is_empty() => out.out.push_str("{}\n"),
        Value::Object(map) => {
            for (key, value) in map {
                out.entry(key, value, 0);
            }
        }
        // An empty document says the same as `null`.
        _ => {}
    }
    out.out
}

struct Emitter<'a> {
    document: &'a Document,
    out: String,
    path: Vec<Step>,
}

impl Emitter<'_> {
    fn entry(&mut self, key: &str, value: &Value, column: usize) {
        self.indent(column);
        self.out.push_str(&scalar(key));
        self.out.push(':');
        self.path.push(Step::Key(key.to_owned()));
        self.value(value, column + 2);
        self.path.pop();
    }

    /// What follows a colon or dash, line end included; nested entries begin at `column`.
    fn value(&mut self, value: &Value, column: usize) {
        match value {
            Value::Object(map) if !map.is_empty() => {
                self.out.push('\n');
                for (key, value) in map {
                    self.entry(key, value, column);
                }
            }
            Value::Array(items) if !items.is_empty() => {
                self.out.push('\n');
                for (index, item) in items.iter().enumerate() {
                    self.indent(column);
                    self.out.push('-');
                    self.path.push(Step::Index(index));
                    self.value(item, column + 2);
                    self.path.pop();
                }
            }
            leaf => {
                self.out.push(' ');
                let text = self.leaf(leaf);
                self.out.push_str(&text);
                self.out.push('\n');
            }
        }
    }

    fn leaf(&self, value: &Value) -> String {
        match value {
            Value::String(text) if self.document.is_nonfinite(&self.path) => text.clone(),
            Value::String(text) => scalar(text),
            Value::Null => "null".to_owned(),
            Value::Bool(value) => value.to_string(),
            Value::Number(number) => number.to_string(),
            Value::Array(_) => "[]".to_owned(),
            Value::Object(_) => "{}".to_owned(),
        }
    }

    fn indent(&mut self, column: usize) {
        self.out.extend(std::iter::repeat_n(' ', column));
    }
}

/// Every comment of a text, in order.
fn comments(text: &str) -> Vec<&str> {
    let body = text.strip_prefix('\u{feff}').unwrap_or(text);
    let scalars = scalars(body);
    let mut scalars = scalars.iter().peekable();
    let mut out = Vec::new();
    let mut at = 0;
    while let Some(found) = body[at..].find('#').map(|offset| at + offset) {
        while scalars.peek().is_some_and(|scalar| scalar.1 <= found) {
            scalars.next();
        }
        if let Some((start, end)) = scalars.peek()
            && (start..end).contains(&&found)
        {
            at = found + 1;
        } else if found == 0 || body[..found].ends_with([' ', '\t', '\n', '\r']) {
            let end = next_line(body, found);
            out.push(&body[found..end]);
            at = end;
        } else {
            at = found + 1;
        }
    }
    out
}

/// Byte ranges of all scalars, in order, as far as the text can be parsed.
fn scalars(body: &str) -> Vec<(usize, usize)> {
    let mut chars = body
        .char_indices()
        .map(|(byte, _)| byte)
        .enumerate()
        .peekable();
    // Positions come in characters and in order, so one pass over the text translates them all.
    let mut byte = |index: usize| {
        while chars.peek().is_some_and(|(number, _)| *number < index) {
            chars.next();
        }
        chars.peek().map_or(body.len(), |(_, byte)| *byte)
    };
    let mut out = Vec::new();
    for event in Parser::new_from_str(body) {
        let Ok((event, span)) = event else { break };
        if matches!(event, Event::Scalar(..)) && !span.is_empty() {
            let start = byte(span.start.index());
            let end = byte(span.end.index());
            out.push((start, inline_end(body, start, end)));
        }
    }
    out
}
