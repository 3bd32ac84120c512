//! Candidates for an edit in place. None of them is trusted: the caller reads every result back.

use super::lines::{self, Extent, Line, column, deeper, line_start, next_line};
use super::scalar::{double_quoted, scalar};
use super::{lookup, steps};
use crate::yaml::{Document, Position, Step, Style};
use serde_json::Value;
use std::ops::Range;

/// Replaces some bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Splice {
    range: Range<usize>,
    with: String,
}

/// A text with what is known about it.
#[derive(Debug)]
pub(super) struct Site<'a> {
    text: &'a str,
    document: &'a Document,
    newline: &'static str,
    /// Blanks by which the author indents.
    step: usize,
}

/// The text with all splices applied; none if they overlap or fall between the bytes of a character.
pub(super) fn apply(text: &str, mut splices: Vec<Splice>) -> Option<String> {
    splices.sort_by_key(|splice| splice.range.start);
    let mut out = String::with_capacity(text.len() + 64);
    let mut at = 0;
    for splice in splices {
        out.push_str(text.get(at..splice.range.start)?);
        text.get(splice.range.clone())?;
        out.push_str(&splice.with);
        at = splice.range.end;
    }
    out.push_str(text.get(at..)?);
    Some(out)
}

/// Ways to set a string.
pub(super) fn set(site: &Site<'_>, path: &[&str], value: Leaf<'_>) -> Vec<Vec<Splice>> {
    let mut depth = 0;
    let mut node = &site.document.value;
    while let Some(child) = path.get(depth).and_then(|key| node.as_object()?.get(*key)) {
        node = child;
        depth += 1;
    }
    let (there, missing) = path.split_at(depth);
    if missing.is_empty() {
        return site
            .replace(there, &New::Scalar(value))
            .into_iter()
            .collect();
    }
    let chain = New::Chain(missing, value);
    match node {
        Value::Object(_) => site.insert(there, &chain),
        _ if there.is_empty() => site.begin(&chain),
        _ => site.replace(there, &chain).into_iter().collect(),
    }
}

/// Ways to remove a key.
pub(super) fn remove(site: &Site<'_>, path: &[&str]) -> Vec<Vec<Splice>> {
    let Some(position) = site.document.position(&steps(path)) else {
        return Vec::new();
    };
    let Some(parent) = site.document.position(&steps(&path[..path.len() - 1])) else {
        return Vec::new();
    };
    if parent.style == Style::Flow {
        return site.remove_from_flow(&position).into_iter().collect();
    }
    let Some(range) = site.entry(path, &position) else {
        return Vec::new();
    };
    vec![vec![Splice {
        range,
        with: String::new(),
    }]]
}

/// Puts a text in the place of a top-level entry, or removes the entry.
pub(super) fn replace_entry(site: &Site<'_>, key: &str, with: Option<&str>) -> Option<Vec<Splice>> {
    let position = site.document.position(&[key.into()])?;
    if site.document.position(&[])?.style == Style::Flow || key_of(&position, site.text)?.1 != 0 {
        return None;
    }
    let range = site.entry(&[key], &position)?;
    let with = with.unwrap_or_default().replace('\n', site.newline);
    Some(vec![Splice { range, with }])
}

/// A value without parts.
#[derive(Clone, Copy, Debug)]
pub(super) enum Leaf<'a> {
    Text(&'a str),
    Flag(bool),
}

impl Leaf<'_> {
    /// As YAML that every reader takes for the same.
    fn yaml(self) -> String {
        match self {
            Self::Text(text) => scalar(text),
            Self::Flag(flag) => flag.to_string(),
        }
    }

    pub(super) fn value(self) -> Value {
        match self {
            Self::Text(text) => text.into(),
            Self::Flag(flag) => flag.into(),
        }
    }
}

/// What is put into a document.
enum New<'a> {
    /// A string.
    Scalar(Leaf<'a>),
    /// Mappings within each other, the innermost with a string.
    Chain(&'a [&'a str], Leaf<'a>),
}

impl New<'_> {
    fn flow(&self) -> String {
        match self {
            Self::Scalar(value) => value.yaml(),
            Self::Chain(..) => format!("{{{}}}", self.flow_entry()),
        }
    }

    /// Without the outermost braces.
    fn flow_entry(&self) -> String {
        let Self::Chain(keys, value) = self else {
            return self.flow();
        };
        let mut out = String::new();
        for (i, key) in keys.iter().enumerate() {
            if i > 0 {
                out.push('{');
            }
            out.push_str(&scalar(key));
            out.push_str(": ");
        }
        out.push_str(&value.yaml());
        out.push_str(&"}".repeat(keys.len().saturating_sub(1)));
        out
    }

    /// As lines from `column`, each with its end.
    fn block(&self, column: usize, step: usize, newline: &str) -> String {
        let Self::Chain(keys, value) = self else {
            return String::new();
        };
        let mut out = String::new();
        for (i, key) in keys.iter().enumerate() {
            out.push_str(&" ".repeat(column + i * step));
            out.push_str(&scalar(key));
            out.push(':');
            if i + 1 == keys.len() {
                out.push(' ');
                out.push_str(&value.yaml());
            }
            out.push_str(newline);
        }
        out
    }
}

impl<'a> Site<'a> {
    pub(super) fn new(text: &'a str, document: &'a Document) -> Self {
        let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
        Self {
            text,
            document,
            newline,
            step: indentation(text, document).unwrap_or(2),
        }
    }

    /// Puts something in the place of a value.
    fn replace(&self, path: &[&str], new: &New<'_>) -> Option<Vec<Splice>> {
        let text = self.text;
        let position = self.document.position(&steps(path))?;
        let parent = self.document.position(&steps(&path[..path.len() - 1]))?;
        let span = self.span(&position);
        if position.indirect && !text.get(span.clone())?.starts_with('*') {
            return None;
        }
        let key = position.key.as_ref()?;
        let colon = colon_after(text, key.span.end);
        if parent.style == Style::Flow {
            return Some(vec![if span.is_empty() {
                let at = colon.unwrap_or(key.span.end);
                let lead = if colon.is_some() { " " } else { ": " };
                Splice {
                    range: at..at,
                    with: format!("{lead}{}", new.flow()),
                }
            } else {
                Splice {
                    range: span,
                    with: new.flow(),
                }
            }]);
        }
        let colon = colon?;
        let key_column = column(text, key.span.start)?;
        let is_list = lookup(&self.document.value, path).is_some_and(Value::is_array);
        // Where the old value stands on its first line, and which whole lines it takes up after that.
        let (inline, below) = match position.style {
            Style::Plain | Style::SingleQuoted | Style::DoubleQuoted | Style::Flow => (span, None),
            _ if position.indirect => (span, None),
            Style::Literal | Style::Folded => {
                let line = text.get(colon..next_line(text, colon))?;
                let at = colon + line.find(['|', '>'])?;
                let header = text[at + 1..]
                    .trim_start_matches(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-'));
                let after = next_line(text, colon);
                let below = deeper(text, after, Some(key_column), false).content;
                (at..text.len() - header.len(), Some(after..below))
            }
            Style::Block => {
                let after = next_line(text, key.span.end);
                (
                    colon..colon,
                    Some(after..deeper(text, after, Some(key_column), is_list).comments),
                )
            }
        };
        let inline = if inline.is_empty() {
            colon..colon
        } else {
            inline
        };
        // Comments between the entries of a collection that goes away stay.
        let kept: String = match (&below, position.style) {
            (Some(below), Style::Block) => text
                .get(below.clone())?
                .split_inclusive('\n')
                .filter(|line| matches!(lines::classify(line), Line::Comment(_)))
                .collect(),
            _ => String::new(),
        };
        let mut out = Vec::new();
        match new {
            New::Scalar(value) => {
                let value = match value {
                    Leaf::Text(text) if position.style == Style::DoubleQuoted => {
                        double_quoted(text)
                    }
                    value => value.yaml(),
                };
                let lead = if inline.is_empty() { " " } else { "" };
                out.push(Splice {
                    range: inline,
                    with: format!("{lead}{value}"),
                });
                out.extend(below.map(|range| Splice { range, with: kept }));
            }
            New::Chain(..) => {
                let end = inline.end;
                let at_own_line = text.get(colon..inline.start)?.contains('\n');
                let range = if !at_own_line {
                    colon..end
                } else if text[end..next_line(text, end)].trim().is_empty() {
                    line_start(text, inline.start)..next_line(text, end)
                } else {
                    inline
                };
                out.push(Splice {
                    range,
                    with: String::new(),
                });
                let block = new.block(key_column + self.step, self.step, self.newline);
                let at = next_line(text, end);
                let range = below.filter(|below| below.start == at).unwrap_or(at..at);
                out.push(self.at_line(range, kept + &block));
            }
        }
        Some(out)
    }

    /// Adds an entry to a mapping.
    fn insert(&self, section: &[&str], new: &New<'_>) -> Vec<Vec<Splice>> {
        let Some(position) = self.document.position(&steps(section)) else {
            return Vec::new();
        };
        if position.indirect {
            return Vec::new();
        }
        if position.style == Style::Flow {
            return self.insert_in_flow(&position, new);
        }
        let Some((first, child_column)) = self.first_child(section) else {
            return Vec::new();
        };
        let first_line = line_start(self.text, first);
        let extent = match &position.key {
            None => deeper(self.text, first_line, None, false),
            Some(key) => {
                let Some(key_column) = column(self.text, key.span.start) else {
                    return Vec::new();
                };
                deeper(self.text, first_line, Some(key_column), false)
            }
        };
        let Extent {
            content,
            comments,
            blanks,
        } = extent;
        let ends = if section.is_empty() {
            [comments, blanks, content]
        } else {
            [content, comments, blanks]
        };
        let block = new.block(child_column, self.step, self.newline);
        ends.into_iter()
            .map(|at| self.at_line(at..at, block.clone()))
            // At the very front a byte order mark must stay first.
            .chain((first_line > 0).then(|| Splice {
                range: first_line..first_line,
                with: block.clone(),
            }))
            .map(|splice| vec![splice])
            .collect()
    }

    /// Starts a document that holds nothing yet.
    fn begin(&self, new: &New<'_>) -> Vec<Vec<Splice>> {
        let block = new.block(0, self.step, self.newline);
        let extent = deeper(self.text, 0, None, false);
        let mut out: Vec<Vec<Splice>> = [extent.blanks, extent.comments]
            .into_iter()
            .map(|at| vec![self.at_line(at..at, block.clone())])
            .collect();
        if let Some(root) = self
            .document
            .position(&[])
            .filter(|root| !root.span.is_empty())
        {
            out.push(vec![Splice {
                range: root.span,
                with: block,
            }]);
        }
        out
    }

    fn insert_in_flow(&self, position: &Position, new: &New<'_>) -> Vec<Vec<Splice>> {
        let Some(body) = self.text.get(self.span(position)) else {
            return Vec::new();
        };
        let (Some(inside), Some(brace)) = (body.strip_prefix('{'), body.rfind('}')) else {
            return Vec::new();
        };
        let entry = new.flow_entry();
        let start = position.span.start + 1;
        let inner = inside
            .get(..brace.saturating_sub(1))
            .unwrap_or_default()
            .trim_end();
        let end = start + inner.len();
        let lead = match inner.chars().last() {
            None => "",
            Some(',') => " ",
            Some(_) => ", ",
        };
        let at_end = Splice {
            range: end..end,
            with: format!("{lead}{entry}"),
        };
        let at_start = Splice {
            range: start..start,
            with: format!("{entry}, "),
        };
        vec![vec![at_end], vec![at_start]]
    }

    fn remove_from_flow(&self, position: &Position) -> Option<Vec<Splice>> {
        let text = self.text;
        let key = position.key.as_ref()?;
        let end = if position.span.is_empty() {
            colon_after(text, key.span.end).unwrap_or(key.span.end)
        } else {
            self.span(position).end
        };
        let rest = text.get(end..)?;
        let after = rest.trim_start();
        let range = if let Some(after) = after.strip_prefix(',') {
            key.span.start..text.len() - after.trim_start_matches([' ', '\t']).len()
        } else {
            let before = text.get(..key.span.start)?.trim_end();
            before.strip_suffix(',').map_or(key.span.start, str::len)..end
        };
        Some(vec![Splice {
            range,
            with: String::new(),
        }])
    }

    /// The bytes of a value that stands on its key's line.
    fn span(&self, position: &Position) -> Range<usize> {
        let Range { start, end } = position.span;
        start..lines::inline_end(self.text, start, end)
    }

    /// The lines of an entry of a block mapping.
    fn entry(&self, path: &[&str], position: &Position) -> Option<Range<usize>> {
        let text = self.text;
        let (start, key_column) = key_of(position, text)?;
        let is_list = lookup(&self.document.value, path).is_some_and(Value::is_array);
        let inline = matches!(
            position.style,
            Style::Plain | Style::SingleQuoted | Style::DoubleQuoted | Style::Flow
        ) || position.indirect;
        let last = if inline && !position.span.is_empty() {
            self.span(position).end.max(start)
        } else {
            start
        };
        let after = next_line(text, last);
        let end = deeper(text, after, Some(key_column), is_list && !inline).comments;
        Some(line_start(text, start) + mark(text, start)..end)
    }

    /// The first own key of a block mapping, with its column.
    fn first_child(&self, section: &[&str]) -> Option<(usize, usize)> {
        let map = lookup(&self.document.value, section)?.as_object()?;
        let mut path = steps(section);
        // Keys that come from a merge stand elsewhere; the tree lists them in any order.
        let mut starts = map.keys().filter_map(|key| {
            path.push(Step::Key(key.clone()));
            let position = self.document.position(&path);
            path.pop();
            let position = position?;
            let own = !position.indirect || self.text.get(position.span.clone())?.starts_with('*');
            own.then_some(position.key?.span.start)
        });
        let first = starts.next()?;
        let first = starts.take(100).fold(first, usize::min);
        Some((first, column(self.text, first)?))
    }

    /// A splice at the beginning of a line; ends the line before if that has no end.
    fn at_line(&self, range: Range<usize>, with: String) -> Splice {
        let before = self.text.get(..range.start).unwrap_or_default();
        let open = !before.is_empty() && before != "\u{feff}" && !before.ends_with('\n');
        let with = if open {
            format!("{}{with}", self.newline)
        } else {
            with
        };
        Splice { range, with }
    }
}

/// Start and column of an entry's key.
fn key_of(position: &Position, text: &str) -> Option<(usize, usize)> {
    let start = position.key.as_ref()?.span.start;
    Some((start, column(text, start)?))
}

/// Bytes of a byte order mark at the beginning of the line of `at`.
fn mark(text: &str, at: usize) -> usize {
    if line_start(text, at) == 0 && text.starts_with('\u{feff}') {
        '\u{feff}'.len_utf8()
    } else {
        0
    }
}

/// Just behind the colon of a key that ends at `at`.
fn colon_after(text: &str, at: usize) -> Option<usize> {
    let rest = text.get(at..)?;
    let bare = rest.trim_start_matches([' ', '\t']);
    bare.starts_with(':')
        .then(|| at + (rest.len() - bare.len()) + 1)
}

/// By how many blanks the first indented section is indented.
fn indentation(text: &str, document: &Document) -> Option<usize> {
    document
        .value
        .as_object()?
        .iter()
        .take(100)
        .find_map(|(section, value)| {
            let first = value.as_object()?.keys().next()?;
            let path = [Step::Key(section.clone()), Step::Key(first.clone())];
            let parent = document
                .position(&path[..1])
                .filter(|p| p.style == Style::Block && !p.indirect)?;
            let child = document.position(&path).filter(|p| !p.indirect)?;
            let outer = lines::column(text, parent.key?.span.start)?;
            let inner = lines::column(text, child.key?.span.start)?;
            inner
                .checked_sub(outer)
                .filter(|step| (1..=8).contains(step))
        })
}
