//! The layers of one file: read, merged, checked section by section, with the last good state to fall back on.

use crate::merge::merge_layers;
use crate::validate::{self, Places};
use crate::yaml::{self, Document, Step};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use terok_proto::config::{Origin, Problem, Scope, Severity};

/// One file of a stack.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Which place in the stack.
    pub origin: Origin,
    /// The file.
    pub path: PathBuf,
    /// Its path as text.
    pub name: String,
    /// Its content; none while it does not exist or was never readable.
    pub document: Option<Arc<Document>>,
    /// It could not be used, and no earlier content is known.
    pub lost: bool,
}

/// A stack of files of one kind.
#[derive(Clone)]
pub struct Layers {
    pub(super) scope: Scope,
    /// Lowest first.
    pub layers: Vec<Layer>,
    /// The merged tree as written.
    pub(crate) merged: Map<String, Value>,
    /// In force, in normal form, without defaults.
    pub(crate) tree: Map<String, Value>,
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// Sections that are invalid and have no last good value: the default holds.
    pub invalid: BTreeSet<String>,
}

impl Layers {
    pub(super) fn load(
        scope: Scope,
        files: Vec<(Origin, PathBuf)>,
        previous: Option<&Self>,
    ) -> Self {
        let mut problems = Vec::new();
        let layers: Vec<Layer> = files
            .into_iter()
            .map(|(origin, path)| {
                let before = previous
                    .and_then(|previous| previous.layers.iter().find(|layer| layer.path == path));
                read(scope, origin, path, before, &mut problems)
            })
            .collect();
        let maps: Vec<&Map<String, Value>> = layers
            .iter()
            .filter_map(|layer| layer.document.as_deref()?.value.as_object())
            .collect();
        let merged = merge_layers(maps);
        let places = places(&layers);
        let checked = validate::check(scope, &merged, &places);
        problems.extend(checked.problems);
        let mut tree = checked.tree;
        let mut invalid = BTreeSet::new();
        for section in checked.invalid {
            if !crate::schema::fields(scope)
                .iter()
                .any(|field| field.key == section)
            {
                // Somebody who misspells a protective section must not run with its defaults.
                let meant = problems
                    .iter()
                    .find(|problem| problem.location == section)
                    .and_then(|problem| problem.suggestion.clone());
                if let Some(meant) = meant.filter(|meant| {
                    matches!(meant.as_str(), "shield" | "vault") && !merged.contains_key(meant)
                }) {
                    fall_back(previous, meant, &mut tree, &mut invalid);
                }
                continue;
            }
            fall_back(previous, section, &mut tree, &mut invalid);
        }
        Self {
            scope,
            layers,
            merged,
            tree,
            problems,
            invalid,
        }
    }

    /// Files that could never be read.
    pub fn lost(&self) -> impl Iterator<Item = &Layer> {
        self.layers.iter().filter(|layer| layer.lost)
    }

    pub(super) fn places(&self) -> Places<'_> {
        places(&self.layers)
    }

    /// Which layer sets a key, and its line there. Nobody if a higher layer removes it again.
    pub fn origin(&self, path: &[Step]) -> Option<(&Layer, Option<u64>)> {
        for layer in self.layers.iter().rev() {
            let Some(document) = layer.document.as_deref() else {
                continue;
            };
            match lookup(&document.value, path) {
                Some(Value::Null) => return None,
                Some(_) => {
                    let position = document.position(path);
                    let line = position.map(|at| at.key.map_or(at.line, |key| key.line));
                    return Some((layer, line));
                }
                None => {}
            }
        }
        None
    }
}

/// The value at a key path.
pub(crate) fn lookup<'v>(value: &'v Value, path: &[Step]) -> Option<&'v Value> {
    path.iter().try_fold(value, |value, step| match step {
        Step::Key(key) => value.as_object()?.get(key),
        Step::Index(index) => value.as_array()?.get(*index),
    })
}

fn places(layers: &[Layer]) -> Places<'_> {
    Places::layers(
        layers
            .iter()
            .filter_map(|layer| Some((Some(layer.name.as_str()), layer.document.as_deref()?)))
            .collect(),
    )
}

/// Puts the last good value of a section in force, or marks that there is none.
fn fall_back(
    previous: Option<&Layers>,
    section: String,
    tree: &mut Map<String, Value>,
    invalid: &mut BTreeSet<String>,
) {
    tree.remove(&section);
    match previous.filter(|previous| !previous.invalid.contains(&section)) {
        Some(previous) => {
            if let Some(value) = previous.tree.get(&section) {
                tree.insert(section, value.clone());
            }
        }
        None => {
            invalid.insert(section);
        }
    }
}

fn read(
    scope: Scope,
    origin: Origin,
    path: PathBuf,
    before: Option<&Layer>,
    problems: &mut Vec<Problem>,
) -> Layer {
    let name = path.to_string_lossy().into_owned();
    let mut layer = Layer {
        origin,
        path,
        name,
        document: None,
        lost: false,
    };
    match std::fs::metadata(&layer.path) {
        Err(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
            ) =>
        {
            return layer;
        }
        _ => {}
    }
    let found = match yaml::read_file(&layer.path) {
        Ok(mut document) => match validate::root(scope, &document.value) {
            Some(map) => {
                document.value = Value::Object(map);
                problems.extend(document.warnings.iter().map(|warning| {
                    validate::text_problem(scope, Some(&layer.name), warning, Severity::Warning)
                }));
                layer.document = Some(Arc::new(document));
                return layer;
            }
            None => {
                let places = Places::one(Some(&layer.name), &document);
                let finding = validate::not_a_mapping(&document.value);
                vec![validate::problem(scope, finding, &places)]
            }
        },
        Err(found) => found
            .iter()
            .map(|problem| {
                validate::text_problem(scope, Some(&layer.name), problem, Severity::Error)
            })
            .collect(),
    };
    problems.extend(found);
    layer.document = before.and_then(|before| before.document.clone());
    layer.lost = layer.document.is_none();
    layer
}
