//! A tree against the tables of [`crate::schema`]: every problem at once, and the tree in normal form.
//!
//! Owns types, unknown keys and doubts about single values. Knows nothing of other files, of paths or of rules
//! that involve several keys of a project; those are in [`crate::resolve`].

mod doubts;
mod scalars;
#[cfg(test)]
mod tests;
mod text;

pub use doubts::{is_base_image, is_cdi_name};
pub(crate) use text::nearest;
pub use text::{failed_to_read, problem_lines, quoted};

use crate::schema::{self, Field, Type};
use crate::yaml::{Document, Position, Step, YamlProblem, dotted};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use terok_proto::config::{Problem, ProblemCode, Scope, Severity};
use terok_proto::error::printable_line;

/// Where the keys of a tree stand: one document, or several layers of which the last one that has a key counts.
#[derive(Clone, Debug, Default)]
pub struct Places<'a> {
    layers: Vec<(Option<&'a str>, &'a Document)>,
}

impl<'a> Places<'a> {
    /// Places in one document.
    pub fn one(path: Option<&'a str>, document: &'a Document) -> Self {
        Self {
            layers: vec![(path, document)],
        }
    }

    /// Places in layers, lowest first.
    pub fn layers(layers: Vec<(Option<&'a str>, &'a Document)>) -> Self {
        Self { layers }
    }

    /// The file and position of a key.
    pub fn find(&self, path: &[Step]) -> Option<(Option<&'a str>, Position)> {
        self.layers
            .iter()
            .rev()
            .find_map(|(file, document)| Some((*file, document.position(path)?)))
    }

    fn is_nonfinite(&self, path: &[Step]) -> bool {
        self.layers.iter().any(|(_, d)| d.is_nonfinite(path))
    }

    fn is_odd_key(&self, path: &[Step]) -> bool {
        self.layers
            .iter()
            .any(|(_, d)| d.odd_keys().iter().any(|odd| odd == path))
    }

    fn odd_keys_below(&self, path: &[Step]) -> Vec<Vec<Step>> {
        let direct = |odd: &&Vec<Step>| odd.len() == path.len() + 1 && odd.starts_with(path);
        self.layers
            .iter()
            .flat_map(|(_, d)| d.odd_keys().iter().filter(direct).cloned())
            .collect()
    }
}

/// Result of [`check`].
#[derive(Clone, Debug)]
pub struct Checked {
    /// The tree in normal form: coerced values; without nulls, unknown keys and keys that have errors.
    pub tree: Map<String, Value>,
    /// What is wrong, in the order of the tables, unknown keys after known ones.
    pub problems: Vec<Problem>,
    /// Top-level keys with at least one error.
    pub invalid: BTreeSet<String>,
}

impl Checked {
    /// Whether there is no error; warnings may remain.
    pub fn is_valid(&self) -> bool {
        self.invalid.is_empty()
    }
}

/// Checks a whole tree.
pub fn check(scope: Scope, tree: &Map<String, Value>, places: &Places<'_>) -> Checked {
    let mut checker = Checker {
        scope,
        places,
        path: Vec::new(),
        problems: Vec::new(),
        errors: 0,
        invalid: BTreeSet::new(),
        secret: false,
    };
    let tree = checker.section(schema::fields(scope), tree);
    let Checker {
        problems, invalid, ..
    } = checker;
    Checked {
        tree,
        problems,
        invalid,
    }
}

/// A problem of one key, placed.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Where.
    pub path: Vec<Step>,
    /// What.
    pub code: ProblemCode,
    /// How bad.
    pub severity: Severity,
    /// Why. Made printable by [`problem`].
    pub message: String,
    /// Point at the key instead of the value.
    pub at_key: bool,
    /// A key that may have been meant.
    pub suggestion: Option<String>,
}

impl Finding {
    /// An error about the value at `path`.
    pub fn error(path: &[Step], code: ProblemCode, message: impl Into<String>) -> Self {
        Self {
            path: path.to_vec(),
            code,
            severity: Severity::Error,
            message: message.into(),
            at_key: false,
            suggestion: None,
        }
    }

    /// A warning about the value at `path`.
    pub fn warning(path: &[Step], code: ProblemCode, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(path, code, message)
        }
    }
}

/// Turns a finding into a problem; looks its line up, or that of the nearest section around it.
pub fn problem(scope: Scope, finding: Finding, places: &Places<'_>) -> Problem {
    let mut place = None;
    for len in (0..=finding.path.len()).rev() {
        place = places.find(&finding.path[..len]);
        if place.is_some() {
            break;
        }
    }
    let first = places.layers.last().and_then(|(file, _)| *file);
    let (file, line, column) = match place {
        Some((file, position)) => {
            let (line, column) = match position.key {
                Some(key) if finding.at_key || position.indirect || position.span.is_empty() => {
                    (key.line, key.column)
                }
                _ => (position.line, position.column),
            };
            (file, Some(line), Some(column))
        }
        None => (first, None, None),
    };
    Problem {
        path: file.map(str::to_owned),
        scope,
        project_id: None,
        location: dotted(&finding.path),
        loc: finding
            .path
            .into_iter()
            .map(|step| match step {
                Step::Key(key) => Value::from(key),
                Step::Index(index) => Value::from(index),
            })
            .collect(),
        code: finding.code,
        message: printable_line(&finding.message),
        severity: finding.severity,
        line,
        column,
        suggestion: finding.suggestion,
    }
}

/// A problem of the text as a whole.
pub fn text_problem(
    scope: Scope,
    path: Option<&str>,
    problem: &YamlProblem,
    severity: Severity,
) -> Problem {
    Problem {
        path: path.map(str::to_owned),
        scope,
        project_id: None,
        loc: Vec::new(),
        location: String::new(),
        code: problem.code,
        message: printable_line(&problem.message),
        severity,
        line: problem.line,
        column: problem.column,
        suggestion: None,
    }
}

/// The mapping at the top of a document; empty documents count as empty mappings. `project.yml` may also be any
/// other falsy value.
pub fn root(scope: Scope, value: &Value) -> Option<Map<String, Value>> {
    let falsy = match value {
        Value::Object(map) => return Some(map.clone()),
        Value::Null => true,
        Value::Bool(value) => !*value && scope == Scope::Project,
        Value::Number(number) => number.as_f64() == Some(0.0) && scope == Scope::Project,
        Value::String(text) => text.is_empty() && scope == Scope::Project,
        Value::Array(items) => items.is_empty() && scope == Scope::Project,
    };
    falsy.then(Map::new)
}

/// Parses and checks a text that may not be a file: syntax and the tables, with warnings.
pub fn check_syntax_and_schema(text: &str, scope: Scope, path: Option<&str>) -> Vec<Problem> {
    let document = match crate::yaml::parse(text) {
        Ok(document) => document,
        Err(problems) => {
            let severity = Severity::Error;
            return problems
                .iter()
                .map(|problem| text_problem(scope, path, problem, severity))
                .collect();
        }
    };
    let places = Places::one(path, &document);
    let mut problems = match root(scope, &document.value) {
        Some(tree) => check(scope, &tree, &places).problems,
        None => vec![problem(scope, not_a_mapping(&document.value), &places)],
    };
    problems.extend(
        document
            .warnings
            .iter()
            .map(|warning| text_problem(scope, path, warning, Severity::Warning)),
    );
    problems
}

/// The top level is something else than a mapping.
pub fn not_a_mapping(value: &Value) -> Finding {
    Finding::error(
        &[],
        ProblemCode::WrongType,
        format!(
            "expected a mapping at the top level, got {}",
            text::type_of(value)
        ),
    )
}

struct Checker<'a> {
    scope: Scope,
    places: &'a Places<'a>,
    path: Vec<Step>,
    problems: Vec<Problem>,
    errors: usize,
    invalid: BTreeSet<String>,
    /// Values below the current field are not to be quoted.
    secret: bool,
}

/// Problems that one file may have; more say nothing new.
const MAX_PROBLEMS: usize = 500;

impl Checker<'_> {
    fn report(&mut self, finding: Finding) {
        if finding.severity == Severity::Error {
            self.errors += 1;
            let top = match finding.path.first() {
                Some(Step::Key(key)) => key.clone(),
                _ => String::new(),
            };
            self.invalid.insert(top);
        }
        if self.problems.len() < MAX_PROBLEMS {
            self.problems
                .push(problem(self.scope, finding, self.places));
        }
    }

    fn error(&mut self, code: ProblemCode, message: impl Into<String>) {
        let finding = Finding::error(&self.path, code, message);
        self.report(finding);
    }

    fn warn(&mut self, code: ProblemCode, message: impl Into<String>) {
        let finding = Finding::warning(&self.path, code, message);
        self.report(finding);
    }

    fn quoted(&self, value: &Value) -> String {
        if self.secret {
            text::type_of(value).to_owned()
        } else {
            text::quoted(value)
        }
    }

    fn expected(&mut self, what: &str, value: &Value) {
        let message = if value.is_null() {
            format!("expected {what}; remove the key or give it a value")
        } else {
            format!("expected {what}, got {}", self.quoted(value))
        };
        self.error(ProblemCode::WrongType, message);
    }

    fn section(
        &mut self,
        fields: &'static [Field],
        tree: &Map<String, Value>,
    ) -> Map<String, Value> {
        let mut out = Map::new();
        for field in fields {
            let Some(value) = tree.get(field.key) else {
                continue;
            };
            self.path.push(Step::from(field.key));
            let outer = self.secret;
            self.secret |= field.secret;
            if let Some(value) = self.field(field, value) {
                out.insert(field.key.to_owned(), value);
            }
            self.secret = outer;
            self.path.pop();
        }
        for key in tree.keys() {
            if fields.iter().any(|field| field.key == key) {
                continue;
            }
            self.path.push(Step::Key(key.clone()));
            if self.problems.len() >= MAX_PROBLEMS {
                if let Some(Step::Key(top)) = self.path.first() {
                    self.invalid.insert(top.clone());
                }
                self.path.pop();
                break;
            }
            self.unknown(fields, key);
            self.path.pop();
        }
        if self.path.len() == 1
            && self.path[0] == Step::from("network")
            && self.scope == Scope::Global
        {
            self.port_range(&out);
        }
        out
    }

    fn unknown(&mut self, siblings: &[Field], key: &str) {
        if self.places.is_odd_key(&self.path) {
            let mut finding = Finding::error(
                &self.path,
                ProblemCode::WrongType,
                "keys have to be strings; put it in quotes",
            );
            finding.at_key = true;
            return self.report(finding);
        }
        let suggestion = text::nearest(key, siblings.iter().map(|field| field.key));
        let elsewhere = text::belongs_elsewhere(self.scope, &self.path);
        let message = match (elsewhere, suggestion) {
            (Some(file), _) => format!("unknown key: it belongs in `{file}`"),
            (None, Some(meant)) => format!("unknown key (did you mean \"{meant}\"?)"),
            (None, None) => "unknown key".to_owned(),
        };
        self.report(Finding {
            at_key: true,
            suggestion: suggestion.map(str::to_owned),
            ..Finding::error(&self.path, ProblemCode::UnknownKey, message)
        });
    }

    fn field(&mut self, field: &'static Field, value: &Value) -> Option<Value> {
        if let Type::Section(children) = field.kind {
            return match value {
                Value::Null => None,
                Value::Object(tree) => Some(Value::Object(self.section(children, tree))),
                _ => {
                    self.expected_mapping(value);
                    None
                }
            };
        }
        if let Type::PerProject(children) = field.kind {
            return self.per_project(children, value);
        }
        if value.is_null() && field.nullable {
            return None;
        }
        let before = self.errors;
        let value = self.scalar(field, value)?;
        if self.errors > before {
            return None;
        }
        self.doubt(&value);
        Some(value)
    }

    fn expected_mapping(&mut self, value: &Value) {
        self.error(
            ProblemCode::WrongType,
            format!("expected a mapping, got {}", text::type_of(value)),
        );
    }

    fn per_project(&mut self, children: &'static [Field], value: &Value) -> Option<Value> {
        let entries = match value {
            Value::Null => return None,
            Value::Object(entries) => entries,
            _ => {
                self.expected_mapping(value);
                return None;
            }
        };
        let mut out = Map::new();
        for (id, entry) in entries {
            self.path.push(Step::Key(id.clone()));
            if !crate::id::is_valid(id) {
                let message = format!("not a project id: {}", crate::id::RULE);
                let mut finding = Finding::error(&self.path, ProblemCode::BadValue, message);
                finding.at_key = true;
                self.report(finding);
            } else if let Value::Object(tree) = entry {
                let entry = self.section(children, tree);
                out.insert(id.clone(), Value::Object(entry));
            } else if !entry.is_null() {
                self.expected_mapping(entry);
            }
            self.path.pop();
        }
        Some(Value::Object(out))
    }

    fn port_range(&mut self, network: &Map<String, Value>) {
        let port = |key: &str| {
            network.get(key).and_then(Value::as_i64).or_else(|| {
                let field = schema::fields(Scope::Global)
                    .iter()
                    .find(|f| f.key == "network")?
                    .children()
                    .iter()
                    .find(|f| f.key == key)?;
                field.default.value().as_i64()
            })
        };
        if let (Some(start), Some(end)) = (port("port_range_start"), port("port_range_end"))
            && start > end
        {
            self.error(
                ProblemCode::Conflict,
                format!(
                    "port_range_start ({start}) is greater than port_range_end ({end}); swap them"
                ),
            );
        }
    }
}
