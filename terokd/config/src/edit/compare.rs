//! Whether an edit did what it was meant to do, and nothing else.

use crate::yaml::{Document, Step};
use serde_json::Value;

/// Differences that are looked into; more mean that the edit went astray.
const MAX_DIFFERENCES: usize = 1000;

/// What an edit is meant to achieve.
#[derive(Debug)]
pub(super) struct Intent<'a> {
    /// The tree that the new text must read as.
    pub(super) wanted: &'a Value,
    /// The key that changes.
    pub(super) target: Vec<Step>,
    /// A section that may be left without a value instead of as an empty mapping.
    pub(super) emptied: Option<Vec<Step>>,
}

struct Walk<'a> {
    intent: &'a Intent<'a>,
    old: &'a Document,
    new: &'a Document,
    path: Vec<Step>,
    left: usize,
}

impl Intent<'_> {
    /// Whether the new document is the wanted one. Values that are aliases of what was edited may change with it.
    pub(super) fn is_met(&self, old: &Document, new: &Document) -> bool {
        let mut walk = Walk {
            intent: self,
            old,
            new,
            path: Vec::new(),
            left: MAX_DIFFERENCES,
        };
        walk.same(self.wanted, &new.value)
    }
}

impl Walk<'_> {
    fn same(&mut self, wanted: &Value, got: &Value) -> bool {
        if wanted == got {
            return true;
        }
        if self.is_emptied(wanted, got) {
            return true;
        }
        match (wanted, got) {
            (Value::Object(wanted), Value::Object(got)) => {
                let added = got.keys().filter(|key| !wanted.contains_key(*key));
                let keys: Vec<&String> = wanted.keys().chain(added).collect();
                keys.into_iter().all(|key| {
                    self.path.push(Step::Key(key.clone()));
                    let same = match (wanted.get(key), got.get(key)) {
                        (Some(wanted), Some(got)) => self.same(wanted, got),
                        _ => self.is_excused(),
                    };
                    self.path.pop();
                    same
                })
            }
            (Value::Array(wanted), Value::Array(got)) if wanted.len() == got.len() => wanted
                .iter()
                .zip(got)
                .enumerate()
                .all(|(index, (wanted, got))| {
                    self.path.push(Step::Index(index));
                    let same = self.same(wanted, got);
                    self.path.pop();
                    same
                }),
            _ => self.is_excused(),
        }
    }

    fn is_emptied(&self, wanted: &Value, got: &Value) -> bool {
        got.is_null()
            && wanted.as_object().is_some_and(serde_json::Map::is_empty)
            && self.intent.emptied.as_deref() == Some(&self.path)
    }

    /// The path is an alias before and after: it changed because what it stands for was edited.
    fn is_excused(&mut self) -> bool {
        if self.left == 0 || self.path == self.intent.target {
            return false;
        }
        self.left -= 1;
        let places = [self.old.position(&self.path), self.new.position(&self.path)];
        let mut places = places.into_iter().flatten().peekable();
        places.peek().is_some() && places.all(|place| place.indirect)
    }
}
