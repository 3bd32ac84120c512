//! Lines of a YAML text: where they begin, how deep they are, how far an entry reaches.

/// Start of the line that holds byte `at`.
pub(super) fn line_start(text: &str, at: usize) -> usize {
    text[..at].rfind('\n').map_or(0, |newline| newline + 1)
}

/// Start of the line after the one that holds byte `at`, or the end of the text.
pub(super) fn next_line(text: &str, at: usize) -> usize {
    text[at..]
        .find('\n')
        .map_or(text.len(), |newline| at + newline + 1)
}

/// Column of byte `at` if only blanks stand before it on its line. A byte order mark has no width.
pub(super) fn column(text: &str, at: usize) -> Option<usize> {
    let before = &text[line_start(text, at)..at];
    let before = before.strip_prefix('\u{feff}').unwrap_or(before);
    before.bytes().all(|b| b == b' ').then_some(before.len())
}

/// Where a scalar or flow collection at `start` ends; the parser may count blanks and a comment behind it in.
pub(super) fn inline_end(text: &str, start: usize, end: usize) -> usize {
    let Some(body) = text.get(start..end) else {
        return end;
    };
    let closing = match body.bytes().next() {
        Some(b'"') => {
            let mut escaped = false;
            body.bytes().skip(1).position(|b| {
                let closes = b == b'"' && !escaped;
                escaped = b == b'\\' && !escaped;
                closes
            })
        }
        Some(b'\'') => {
            let bytes = body.as_bytes();
            let mut at = 1;
            while at < bytes.len() && (bytes[at] != b'\'' || bytes.get(at + 1) == Some(&b'\'')) {
                at += if bytes[at] == b'\'' { 2 } else { 1 };
            }
            (at < bytes.len()).then(|| at - 1)
        }
        Some(open @ (b'{' | b'[')) => {
            let close = if open == b'{' { '}' } else { ']' };
            let bare = body.trim_end();
            let behind = text[end..].trim_start();
            // Behind a trailing comma the parser stops before the bracket.
            return if !bare.ends_with(close) && behind.starts_with(close) {
                text.len() - behind.len() + 1
            } else {
                start + bare.len()
            };
        }
        _ => return start + body.trim_end().len(),
    };
    // The position counts from behind the opening quote.
    closing.map_or(end, |at| start + at + 2)
}

/// What a line is to a scan by indentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// Nothing but white space.
    Blank,
    /// A comment, or what looks like one.
    Comment(usize),
    /// Anything else, with its column.
    Content(usize),
}

pub(super) fn classify(line: &str) -> Line {
    let line = line.strip_prefix('\u{feff}').unwrap_or(line);
    let bare = line.trim_start_matches(' ');
    let indent = line.len() - bare.len();
    match bare.trim_start().bytes().next() {
        None => Line::Blank,
        Some(b'#') => Line::Comment(indent),
        Some(_) => Line::Content(indent),
    }
}

/// Whether a line ends the document.
pub(super) fn is_document_end(line: &str) -> bool {
    line.strip_prefix("...")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

/// How far a stretch of lines below an entry reaches, in three opinions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// After the last line of content.
    pub(super) content: usize,
    /// After comments that are as deep as the content.
    pub(super) comments: usize,
    /// After the blank lines that follow.
    pub(super) blanks: usize,
}

/// The lines from `start`, a line's beginning, that are deeper than `column`; or, for a list, its dashes in it.
pub(super) fn deeper(text: &str, start: usize, column: Option<usize>, dashes: bool) -> Extent {
    let mut extent = Extent {
        content: start,
        comments: start,
        blanks: start,
    };
    let mut at = start;
    while at < text.len() {
        let end = next_line(text, at);
        let line = &text[at..end];
        if is_document_end(line) {
            break;
        }
        let is_deeper = |indent: usize| column.is_none_or(|column| indent > column);
        match classify(line) {
            Line::Blank => extent.blanks = end,
            Line::Comment(indent) => {
                if is_deeper(indent) {
                    extent.comments = end;
                    extent.blanks = end;
                }
                // One that stands further out may still lie between two lines of the section.
            }
            Line::Content(indent) => {
                let bare = line.trim_start();
                let dash = dashes
                    && Some(indent) == column
                    && (bare.starts_with("- ") || bare.trim_end() == "-");
                if !is_deeper(indent) && !dash {
                    break;
                }
                extent = Extent {
                    content: end,
                    comments: end,
                    blanks: end,
                };
            }
        }
        at = end;
    }
    extent
}
