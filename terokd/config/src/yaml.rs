//! One YAML document as data, with the place of every key and value.
//!
//! Owns the dialect: which scalars are numbers, what is refused, how big a file may be. `serde_yaml` decides what
//! is YAML and what a scalar says; the events of `saphyr-parser` add positions and styles. Knows no schema.

mod nodes;
mod raw;
#[cfg(test)]
mod tests;

pub use nodes::{Position, Style};

use nodes::Tree;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::fs::OpenOptions;
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use terok_proto::config::ProblemCode;

/// Bytes that a file may have.
pub const MAX_BYTES: u64 = 1 << 20;
/// Mappings and lists within each other.
pub const MAX_DEPTH: usize = 64;
/// Values and bytes that aliases may expand to.
const MAX_EXPANDED: u64 = 4 << 20;

/// One step of a key path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// A key of a mapping.
    Key(String),
    /// An element of a list.
    Index(usize),
}

impl From<&str> for Step {
    fn from(key: &str) -> Self {
        Self::Key(key.to_owned())
    }
}

impl From<usize> for Step {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

/// A key path in dots, `""` for the whole document.
pub fn dotted(path: &[Step]) -> String {
    joined(path, ".")
}

/// A key path with any separator.
pub fn joined(path: &[Step], separator: &str) -> String {
    let mut out = String::new();
    for (i, step) in path.iter().enumerate() {
        if i > 0 {
            out.push_str(separator);
        }
        match step {
            Step::Key(key) => out.push_str(key),
            Step::Index(index) => out.push_str(&index.to_string()),
        }
    }
    out
}

/// A parsed document. Its `Debug` shows no data: files can hold secrets.
#[derive(Clone)]
pub struct Document {
    /// The data. Numbers that JSON cannot hold stand as text, see [`Self::is_nonfinite`].
    pub value: Value,
    /// What is doubtful but harmless.
    pub warnings: Vec<YamlProblem>,
    tree: Option<Tree>,
    nonfinite: HashSet<Vec<Step>>,
    odd_keys: Vec<Vec<Step>>,
}

/// What is wrong with a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct YamlProblem {
    /// `syntax`, `duplicate_key` or `io`.
    pub code: ProblemCode,
    /// Why. Never quotes values.
    pub message: String,
    /// Line, from 1.
    pub line: Option<u64>,
    /// Column in characters, from 1.
    pub column: Option<u64>,
}

impl YamlProblem {
    fn syntax(message: impl Into<String>, at: Option<(u64, u64)>) -> Self {
        Self {
            code: ProblemCode::Syntax,
            message: message.into(),
            line: at.map(|at| at.0),
            column: at.map(|at| at.1),
        }
    }

    fn io(message: impl Into<String>) -> Self {
        Self {
            code: ProblemCode::Io,
            message: message.into(),
            line: None,
            column: None,
        }
    }
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document")
            .field("warnings", &self.warnings)
            .finish_non_exhaustive()
    }
}

impl Document {
    /// A document made of data alone, without places.
    pub fn from_value(value: Value) -> Self {
        Self {
            value,
            warnings: Vec::new(),
            tree: None,
            nonfinite: HashSet::new(),
            odd_keys: Vec::new(),
        }
    }

    /// Where the value at that path stands, and its key.
    pub fn position(&self, path: &[Step]) -> Option<Position> {
        self.tree.as_ref()?.position(path)
    }

    /// Whether the text at that path was written as `.inf` or `.nan`, unquoted.
    pub fn is_nonfinite(&self, path: &[Step]) -> bool {
        self.nonfinite.contains(path)
    }

    /// Paths of keys that were not strings in the file; in [`Self::value`] they are text.
    pub fn odd_keys(&self) -> &[Vec<Step>] {
        &self.odd_keys
    }
}

/// Reads and parses a file.
pub fn read_file(path: &Path) -> Result<Document, Vec<YamlProblem>> {
    parse_bytes(&read_bytes(path)?)
}

/// Reads a file of at most [`MAX_BYTES`].
pub fn read_bytes(path: &Path) -> Result<Vec<u8>, Vec<YamlProblem>> {
    let io = |error: std::io::Error| {
        vec![YamlProblem::io(match error.kind() {
            std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
            std::io::ErrorKind::NotFound => "no such file".to_owned(),
            _ => error.to_string(),
        })]
    };
    // Without waiting: a pipe in the file's place would have us wait for its other end.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(path)
        .map_err(io)?;
    if !file.metadata().map_err(io)?.is_file() {
        return Err(vec![YamlProblem::io("not a regular file")]);
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(io)?;
    Ok(bytes)
}

/// Parses the bytes of a file, which must be UTF-8.
pub fn parse_bytes(bytes: &[u8]) -> Result<Document, Vec<YamlProblem>> {
    if bytes.len() as u64 > MAX_BYTES {
        return Err(vec![YamlProblem::syntax(
            "the file is larger than 1 MiB",
            None,
        )]);
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => parse(text),
        Err(error) => {
            let good = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
            let at = place(&good, good.len());
            Err(vec![YamlProblem::syntax("the file is not UTF-8", Some(at))])
        }
    }
}

/// Parses one document. Byte positions count from the start of `text`, also behind a byte order mark.
pub fn parse(text: &str) -> Result<Document, Vec<YamlProblem>> {
    if text.len() as u64 > MAX_BYTES {
        return Err(vec![YamlProblem::syntax(
            "the text is larger than 1 MiB",
            None,
        )]);
    }
    let body = text.strip_prefix('\u{feff}').unwrap_or(text);
    let skipped = text.len() - body.len();
    if let Some(at) = body.bytes().position(is_forbidden) {
        return Err(vec![YamlProblem::syntax(
            format!(
                "control character {:#04x} in the file; write it as an escape in double quotes",
                body.as_bytes()[at]
            ),
            Some(place(body, at)),
        )]);
    }
    let mut warnings = Vec::new();
    let body = without_directives(body, &mut warnings);
    let (tree, raw) = match Tree::build(&body, skipped) {
        Ok(tree) => {
            tree.check_expansion()?;
            let raw = raw::read(&tree.without_tags(&body, skipped))?;
            (Some(tree), raw)
        }
        Err(nodes::Failure::Refused(problems)) => return Err(problems),
        // The two parsers differ at the edges of the language: what the reader of values accepts is YAML, as long
        // as it cannot be made to expand or to recurse.
        Err(nodes::Failure::Syntax(problem)) => {
            // Tabs in the wrong place were always refused.
            let line = usize::try_from(problem.line.unwrap_or(1)).unwrap_or(1);
            let text = body.lines().nth(line.saturating_sub(1));
            let tab = text.is_some_and(|text| text.contains('\t'));
            let risky = tab || body.contains('*') || deepest(&body) > MAX_DEPTH;
            match raw::read(&body) {
                Ok(raw) if !risky => (None, raw),
                _ => return Err(vec![problem]),
            }
        }
    };
    raw::convert(raw, tree, warnings)
}

/// C0 controls except tab and line ends, and DEL.
fn is_forbidden(byte: u8) -> bool {
    (byte < 0x20 && !matches!(byte, b'\t' | b'\n' | b'\r')) || byte == 0x7f
}

/// Line and column, from 1, of a byte position.
fn place(text: &str, at: usize) -> (u64, u64) {
    let before = &text[..at];
    let line = before.matches('\n').count() as u64 + 1;
    let column = before
        .rsplit('\n')
        .next()
        .unwrap_or_default()
        .chars()
        .count() as u64
        + 1;
    (line, column)
}

/// Brackets that are open at once, counted naively: an upper bound for flow nesting.
fn deepest(text: &str) -> usize {
    let (mut depth, mut deepest) = (0usize, 0);
    for byte in text.bytes() {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// Turns directives that mean nothing here into comments of the same length.
fn without_directives<'a>(body: &'a str, warnings: &mut Vec<YamlProblem>) -> Cow<'a, str> {
    let mut ignored: Vec<Range<usize>> = Vec::new();
    let mut at = 0;
    for (number, line) in body.split_inclusive('\n').enumerate() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        if line.starts_with('%') && words.first() != Some(&"%TAG") {
            let version = words.get(1).copied().unwrap_or_default();
            if words.first() != Some(&"%YAML") || version != "1.2" {
                warnings.push(YamlProblem::syntax(
                    "this directive is ignored: files are read as YAML 1.2",
                    Some((number as u64 + 1, 1)),
                ));
                ignored.push(at..at + 1);
            }
        } else if !line.starts_with('%') && !line.starts_with('#') && !words.is_empty() {
            break;
        }
        at += line.len();
    }
    if ignored.is_empty() {
        return Cow::Borrowed(body);
    }
    let mut owned = body.to_owned();
    for range in ignored {
        owned.replace_range(range, "#");
    }
    Cow::Owned(owned)
}
