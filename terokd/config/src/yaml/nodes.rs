//! The shape of a document as the event parser sees it: where each node stands and how it was written.

use super::{MAX_DEPTH, MAX_EXPANDED, Step, YamlProblem};
use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use terok_proto::config::ProblemCode;

/// How a value was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Bare, or left out.
    Plain,
    /// `'…'`
    SingleQuoted,
    /// `"…"`
    DoubleQuoted,
    /// `|`
    Literal,
    /// `>`
    Folded,
    /// A mapping or list by indentation.
    Block,
    /// A mapping or list in brackets.
    Flow,
}

/// Where a value stands, and its key if it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// Line of the value, from 1.
    pub line: u64,
    /// Column of the value in characters, from 1.
    pub column: u64,
    /// Bytes of the value; those of an alias for an aliased value.
    pub span: Range<usize>,
    /// How it was written.
    pub style: Style,
    /// It is written as an alias, or comes from a merge key.
    pub indirect: bool,
    /// The key before it.
    pub key: Option<KeyPosition>,
}

/// Where a key stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPosition {
    /// Line, from 1.
    pub line: u64,
    /// Column in characters, from 1.
    pub column: u64,
    /// Its bytes, quotes included.
    pub span: Range<usize>,
}

pub(super) type NodeId = usize;

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) kind: NodeKind,
    pub(super) style: Style,
    /// Name of its core tag, for scalars.
    pub(super) tag: Option<Box<str>>,
    line: u32,
    column: u32,
    start: u32,
    end: u32,
}

#[derive(Clone, Debug)]
pub(super) enum NodeKind {
    /// With its text if it is a key, else with its length.
    Scalar {
        key: Option<Box<str>>,
        len: u32,
    },
    Seq(Vec<NodeId>),
    Map(Vec<(NodeId, NodeId)>),
    Alias(NodeId),
}

/// All nodes of a document; the root is [`Tree::root`].
#[derive(Clone, Debug)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    pub(super) root: Option<NodeId>,
}

pub(super) enum Failure {
    /// Not YAML, says this parser.
    Syntax(YamlProblem),
    /// YAML, but not accepted.
    Refused(Vec<YamlProblem>),
}

/// A collection that is still open.
struct Open {
    id: NodeId,
    anchor: usize,
    key: Option<NodeId>,
    keys: HashMap<Box<str>, NodeId>,
}

impl Tree {
    pub(super) fn build(text: &str, skipped: usize) -> Result<Self, Failure> {
        let offsets = Offsets::new(text, skipped);
        let mut tree = Self {
            nodes: Vec::new(),
            root: None,
        };
        let mut open: Vec<Open> = Vec::new();
        let mut anchors: HashMap<usize, NodeId> = HashMap::new();
        let mut refused: Vec<YamlProblem> = Vec::new();
        let mut documents = 0;
        let mut parser = Parser::new_from_str(text);
        while let Some(event) = parser.next_event() {
            let (event, span) = event.map_err(|error| {
                let at = (
                    error.marker().line() as u64,
                    error.marker().col() as u64 + 1,
                );
                Failure::Syntax(YamlProblem::syntax(error.info(), Some(at)))
            })?;
            let at = (span.start.line() as u64, span.start.col() as u64 + 1);
            let (kind, style, tag, anchor) = match event {
                Event::DocumentStart(_) => {
                    documents += 1;
                    if documents > 1 {
                        refused.push(YamlProblem::syntax(
                            "a second document begins here; the file holds exactly one",
                            Some(at),
                        ));
                        break;
                    }
                    continue;
                }
                Event::SequenceEnd | Event::MappingEnd => {
                    if let Some(done) = open.pop() {
                        if let Some(node) = tree.nodes.get_mut(done.id) {
                            // The parser counts what stands behind a closing bracket to it.
                            let closed = ['}', ']']
                                .iter()
                                .any(|c| offsets.starts_with(text, &span, *c));
                            node.end = if closed && node.style == Style::Flow {
                                offsets.byte(span.start.index()) + 1
                            } else {
                                offsets.byte(span.end.index())
                            };
                        }
                        if done.anchor > 0 {
                            anchors.insert(done.anchor, done.id);
                        }
                    }
                    continue;
                }
                Event::Alias(anchor) => match anchors.get(&anchor) {
                    Some(target) => (NodeKind::Alias(*target), Style::Plain, None, 0),
                    None => {
                        refused.push(YamlProblem::syntax(
                            "the alias refers to a value that it is part of",
                            Some(at),
                        ));
                        break;
                    }
                },
                Event::Scalar(value, style, anchor, tag) => {
                    let is_key = open.last().is_some_and(|o| {
                        o.key.is_none() && matches!(tree.nodes[o.id].kind, NodeKind::Map(_))
                    });
                    let kind = NodeKind::Scalar {
                        len: u32::try_from(value.len()).unwrap_or(u32::MAX),
                        key: (is_key || tag.is_some()).then(|| value.into()),
                    };
                    (kind, scalar_style(style), tag, anchor)
                }
                Event::SequenceStart(anchor, tag) => {
                    let flow = text[offsets.content(text, &span)..].starts_with('[');
                    (
                        NodeKind::Seq(Vec::new()),
                        collection_style(flow),
                        tag,
                        anchor,
                    )
                }
                Event::MappingStart(anchor, tag) => {
                    let flow = text[offsets.content(text, &span)..].starts_with('{');
                    (
                        NodeKind::Map(Vec::new()),
                        collection_style(flow),
                        tag,
                        anchor,
                    )
                }
                Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {
                    continue;
                }
            };
            let in_block = open
                .last()
                .is_none_or(|open| tree.nodes[open.id].style == Style::Block);
            if matches!(kind, NodeKind::Scalar { len: 1.., .. })
                && style == Style::Plain
                && in_block
                && offsets.follows_tab(text, &span)
            {
                refused.push(YamlProblem::syntax(
                    "a tab before a value; use blanks",
                    Some(at),
                ));
            }
            if let Some(tag) = &tag
                && core_name(&tag.handle, &tag.suffix).is_none()
            {
                refused.push(YamlProblem::syntax(
                    "tags are not supported; remove it",
                    Some(at),
                ));
            }
            let is_collection = matches!(kind, NodeKind::Seq(_) | NodeKind::Map(_));
            let id = tree.nodes.len();
            let start = offsets.content(text, &span);
            let start = block_header(text, start, style).unwrap_or(start);
            let start = u32::try_from(start).unwrap_or(u32::MAX);
            tree.nodes.push(Node {
                kind,
                style,
                tag: match (&tag, is_collection) {
                    (Some(tag), false) => core_name(&tag.handle, &tag.suffix).map(Into::into),
                    _ => None,
                },
                line: u32::try_from(at.0).unwrap_or(u32::MAX),
                column: u32::try_from(at.1).unwrap_or(u32::MAX),
                start: start + offsets.skipped,
                end: quoted_end(text, start, style).map_or_else(
                    || offsets.byte(span.end.index()),
                    |end| end + offsets.skipped,
                ),
            });
            tree.attach(id, &mut open, &mut refused);
            if is_collection {
                if open.len() >= MAX_DEPTH {
                    refused.push(YamlProblem::syntax(
                        format!("nested deeper than {MAX_DEPTH} levels"),
                        Some(at),
                    ));
                    break;
                }
                open.push(Open {
                    id,
                    anchor,
                    key: None,
                    keys: HashMap::new(),
                });
            } else if anchor > 0 {
                anchors.insert(anchor, id);
            }
            if refused.len() > 50 {
                break;
            }
        }
        if refused.is_empty() {
            Ok(tree)
        } else {
            Err(Failure::Refused(refused))
        }
    }

    fn attach(&mut self, id: NodeId, open: &mut [Open], refused: &mut Vec<YamlProblem>) {
        let Some(parent) = open.last_mut() else {
            self.root.get_or_insert(id);
            return;
        };
        if let NodeKind::Seq(items) = &mut self.nodes[parent.id].kind {
            items.push(id);
            return;
        }
        let Some(key) = parent.key.take() else {
            parent.key = Some(id);
            if let Some(text) = self.key_text(id) {
                let text: Box<str> = text.into();
                if let Some(first) = parent.keys.insert(text.clone(), id) {
                    let (first, second) = (&self.nodes[first], &self.nodes[id]);
                    refused.push(YamlProblem {
                        code: ProblemCode::DuplicateKey,
                        message: format!(
                            "the key \"{}\" stands twice in one mapping: at line {}, column {} and at line {}, column {}",
                            text.chars().take(80).collect::<String>(),
                            first.line, first.column, second.line, second.column,
                        ),
                        line: Some(u64::from(second.line)),
                        column: Some(u64::from(second.column)),
                    });
                }
            }
            return;
        };
        if let NodeKind::Map(pairs) = &mut self.nodes[parent.id].kind {
            pairs.push((key, id));
        }
    }

    pub(super) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id]
    }

    /// The node itself, or the one its alias stands for.
    pub(super) fn target(&self, id: NodeId) -> NodeId {
        match self.nodes[id].kind {
            NodeKind::Alias(target) => target,
            _ => id,
        }
    }

    fn key_text(&self, id: NodeId) -> Option<&str> {
        match &self.nodes[self.target(id)].kind {
            NodeKind::Scalar { key, .. } => key.as_deref(),
            _ => None,
        }
    }

    /// Refuses documents whose aliases multiply into something huge.
    pub(super) fn check_expansion(&self) -> Result<(), Vec<YamlProblem>> {
        // Children come after their parent and aliases after their target, so one pass from the back does not
        // suffice; sizes are computed on the way and kept.
        let mut sizes: Vec<Option<u64>> = vec![None; self.nodes.len()];
        let Some(root) = self.root else { return Ok(()) };
        let size = self.size(root, &mut sizes);
        let own = self.nodes.len() as u64
            + u64::from(self.nodes.iter().map(|n| n.end).max().unwrap_or(0));
        if size > own && size > MAX_EXPANDED {
            return Err(vec![YamlProblem::syntax(
                "aliases expand to more than 4 MiB",
                None,
            )]);
        }
        Ok(())
    }

    /// Values plus bytes of text below a node. Recursion is bounded by the depth limit times the chain of aliases,
    /// which are kept results: an alias follows its target.
    fn size(&self, id: NodeId, sizes: &mut Vec<Option<u64>>) -> u64 {
        if let Some(size) = sizes[id] {
            return size;
        }
        let size = match &self.nodes[id].kind {
            NodeKind::Scalar { len, .. } => 1 + u64::from(*len),
            NodeKind::Alias(target) => self.size(*target, sizes),
            NodeKind::Seq(items) => items.iter().fold(1u64, |sum, item| {
                sum.saturating_add(self.size(*item, sizes))
            }),
            NodeKind::Map(pairs) => pairs.iter().fold(1u64, |sum, (key, value)| {
                sum.saturating_add(self.size(*key, sizes))
                    .saturating_add(self.size(*value, sizes))
            }),
        };
        sizes[id] = Some(size);
        size
    }

    pub(super) fn position(&self, path: &[Step]) -> Option<Position> {
        let mut id = self.root?;
        let mut key = None;
        let mut indirect = false;
        for step in path {
            indirect |= matches!(self.nodes[id].kind, NodeKind::Alias(_));
            let target = self.target(id);
            (key, id) = match (step, &self.nodes[target].kind) {
                (Step::Key(name), NodeKind::Map(_)) => {
                    let (key, value, merged) = self.find(target, name, 0)?;
                    indirect |= merged;
                    (Some(key), value)
                }
                (Step::Index(index), NodeKind::Seq(items)) => (None, *items.get(*index)?),
                _ => return None,
            };
        }
        let node = &self.nodes[id];
        Some(Position {
            line: u64::from(node.line),
            column: u64::from(node.column),
            span: node.start as usize..node.end as usize,
            style: self.nodes[self.target(id)].style,
            indirect: indirect || matches!(node.kind, NodeKind::Alias(_)),
            key: key.map(|key| {
                let node = &self.nodes[key];
                KeyPosition {
                    line: u64::from(node.line),
                    column: u64::from(node.column),
                    span: node.start as usize..node.end as usize,
                }
            }),
        })
    }

    /// A key of a mapping: its own first, then those of its merge keys.
    fn find(&self, map: NodeId, name: &str, depth: usize) -> Option<(NodeId, NodeId, bool)> {
        let NodeKind::Map(pairs) = &self.nodes[map].kind else {
            return None;
        };
        let own = pairs
            .iter()
            .find(|(key, _)| self.key_text(*key) == Some(name));
        if let Some((key, value)) = own {
            return Some((*key, *value, false));
        }
        if depth >= MAX_DEPTH {
            return None;
        }
        let (_, merged) = pairs.iter().find(|(key, _)| self.is_merge(*key))?;
        let merged = self.target(*merged);
        let sources = match &self.nodes[merged].kind {
            NodeKind::Seq(items) => items.clone(),
            _ => vec![merged],
        };
        sources.into_iter().find_map(|source| {
            let (key, value, _) = self.find(self.target(source), name, depth + 1)?;
            Some((key, value, true))
        })
    }

    /// The text with the tags of scalars taken out: their values are made here, and the reader of values refuses
    /// some of them.
    pub(super) fn without_tags<'t>(&self, text: &'t str, skipped: usize) -> Cow<'t, str> {
        let mut owned: Option<Vec<u8>> = None;
        for node in &self.nodes {
            let Some(tag) = &node.tag else { continue };
            let start = node.start as usize - skipped;
            let written = [
                format!("!!{tag}"),
                format!("!<{CORE}{tag}>"),
                "!".to_owned(),
            ];
            let Some((at, len)) = written.iter().find_map(|tag| tag_before(text, start, tag))
            else {
                continue;
            };
            let bytes = owned.get_or_insert_with(|| text.as_bytes().to_vec());
            bytes[at..at + len].fill(b' ');
            let empty = matches!(node.kind, NodeKind::Scalar { len: 0, .. });
            if empty && node.style == Style::Plain && len >= 2 {
                bytes[at..at + 2].copy_from_slice(b"''");
            }
        }
        let owned = owned.and_then(|bytes| String::from_utf8(bytes).ok());
        owned.map_or(Cow::Borrowed(text), Cow::Owned)
    }

    /// Text of a key or of a tagged scalar.
    pub(super) fn scalar_text(&self, id: NodeId) -> Option<&str> {
        match &self.nodes[id].kind {
            NodeKind::Scalar { key, .. } => key.as_deref(),
            _ => None,
        }
    }

    /// Line and column of a node, from 1.
    pub(super) fn place(&self, id: NodeId) -> Option<(u64, u64)> {
        let node = self.nodes.get(id)?;
        Some((u64::from(node.line), u64::from(node.column)))
    }

    /// Whether a key is the merge key.
    pub(super) fn is_merge(&self, key: NodeId) -> bool {
        self.nodes[key].style == Style::Plain && self.key_text(key) == Some("<<")
    }
}

fn scalar_style(style: ScalarStyle) -> Style {
    match style {
        ScalarStyle::Plain => Style::Plain,
        ScalarStyle::SingleQuoted => Style::SingleQuoted,
        ScalarStyle::DoubleQuoted => Style::DoubleQuoted,
        ScalarStyle::Literal => Style::Literal,
        ScalarStyle::Folded => Style::Folded,
    }
}

fn collection_style(flow: bool) -> Style {
    if flow { Style::Flow } else { Style::Block }
}

/// Where the `|` or `>` of a block scalar stands; the parser begins with its content.
fn block_header(text: &str, start: usize, style: Style) -> Option<usize> {
    let indicator = match style {
        Style::Literal => '|',
        Style::Folded => '>',
        _ => return None,
    };
    let before = text.get(..start)?.trim_end();
    let line = before.rfind('\n').map_or(0, |at| at + 1);
    let header = &before[line..];
    // The header may be followed by a comment, which may look like a header.
    let cuts = header.match_indices(" #").map(|(at, _)| at);
    cuts.chain([header.len()]).find_map(|cut| {
        let bare = header[..cut]
            .trim_end()
            .trim_end_matches(|c: char| c.is_ascii_digit() || c == '+' || c == '-');
        bare.ends_with(indicator).then(|| line + bare.len() - 1)
    })
}

/// Where a quoted scalar ends; the parser counts blanks and comments behind it to it.
fn quoted_end(text: &str, start: u32, style: Style) -> Option<u32> {
    let rest = text.as_bytes().get(start as usize + 1..)?;
    let mut at = 0;
    match style {
        Style::SingleQuoted => loop {
            match (rest.get(at)?, rest.get(at + 1)) {
                (b'\'', Some(b'\'')) => at += 2,
                (b'\'', _) => break,
                _ => at += 1,
            }
        },
        Style::DoubleQuoted => loop {
            match rest.get(at)? {
                b'\\' => at += 2,
                b'"' => break,
                _ => at += 1,
            }
        },
        _ => return None,
    }
    u32::try_from(start as usize + 1 + at + 1).ok()
}

/// Name of a tag of the core schema, or of the two collections that read as plain data. The non-specific tag makes
/// a string.
fn core_name<'t>(handle: &str, suffix: &'t str) -> Option<&'t str> {
    let name = match handle {
        CORE => suffix,
        "" if suffix == "!" => "str",
        "" => suffix.strip_prefix(CORE)?,
        "!" if suffix.is_empty() => "str",
        _ => return None,
    };
    let known = [
        "str", "int", "float", "bool", "null", "map", "seq", "set", "omap",
    ];
    known.contains(&name).then_some(name)
}

/// Place and length of a tag that stands before its value, with nothing but blanks and an anchor between them.
fn tag_before(text: &str, start: usize, tag: &str) -> Option<(usize, usize)> {
    let end = (start + tag.len()).min(text.len());
    let from = start.saturating_sub(120);
    let window = text.as_bytes().get(from..end)?;
    let found = window
        .windows(tag.len())
        .rposition(|part| part == tag.as_bytes())?;
    let at = from + found;
    let clear = text.get(at + tag.len()..start).is_none_or(|between| {
        let anchor = between.trim();
        anchor.is_empty() || (anchor.starts_with('&') && !anchor.contains(char::is_whitespace))
    });
    clear.then_some((at, tag.len()))
}

const CORE: &str = "tag:yaml.org,2002:";

/// From characters, which the parser counts, to bytes.
struct Offsets {
    skipped: u32,
    table: Option<Vec<u32>>,
}

impl Offsets {
    fn new(text: &str, skipped: usize) -> Self {
        let skipped = u32::try_from(skipped).unwrap_or(0);
        let table = (!text.is_ascii()).then(|| {
            let starts = text.char_indices().map(|(at, _)| at);
            starts
                .chain([text.len()])
                .map(|at| u32::try_from(at).unwrap_or(u32::MAX) + skipped)
                .collect()
        });
        Self { skipped, table }
    }

    fn byte(&self, index: usize) -> u32 {
        match &self.table {
            None => u32::try_from(index).unwrap_or(u32::MAX - self.skipped) + self.skipped,
            Some(table) => table.get(index).or(table.last()).copied().unwrap_or(0),
        }
    }

    /// Where a node itself begins, behind its anchor and tag; in `text`, without what was skipped.
    fn content(&self, text: &str, span: &Span) -> usize {
        let at = |index| (self.byte(index) - self.skipped) as usize;
        let (mut start, end) = (at(span.start.index()), at(span.end.index()));
        while let Some(rest) = text.get(start..)
            && rest.starts_with(['&', '!'])
        {
            let word = rest.find(char::is_whitespace).unwrap_or(rest.len());
            let rest = &rest[word..];
            let blank = rest.len() - rest.trim_start().len();
            if start + word + blank > end.max(start + word) && end > at(span.start.index()) {
                break;
            }
            start += word + blank;
        }
        start
    }

    fn follows_tab(&self, text: &str, span: &Span) -> bool {
        let at = (self.byte(span.start.index()) - self.skipped) as usize;
        at > 0 && text.as_bytes().get(at - 1) == Some(&b'\t')
    }

    fn starts_with(&self, text: &str, span: &Span, bracket: char) -> bool {
        let at = (self.byte(span.start.index()) - self.skipped) as usize;
        text.get(at..).is_some_and(|rest| rest.starts_with(bracket))
    }
}
