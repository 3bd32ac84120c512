//! Framing of the stream dialects: pure functions on byte slices, with every limit inside the decoder.

pub mod line;
pub mod lsp;

/// What the first bytes of a connection chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// One JSON value per line.
    Line,
    /// `Content-Length` headers and a body.
    Lsp,
    /// HTTP/1.1, with an upgrade to WebSocket.
    Http,
}

/// The longest prefix that may be needed to tell the dialects apart.
pub const SNIFF_BYTES: usize = 16;

/// Tells the dialect from the first bytes; `None` asks for more, an error is garbage.
///
/// # Errors
/// The bytes can begin none of the dialects.
pub fn sniff(bytes: &[u8]) -> Result<Option<Dialect>, FrameError> {
    let blank = bytes
        .iter()
        .take_while(|b| matches!(b, b' ' | b'\t' | b'\r' | b'\n'))
        .count();
    let rest = &bytes[blank..];
    let Some(first) = rest.first() else {
        return Ok(None);
    };
    if matches!(first, b'{' | b'[') {
        return Ok(Some(Dialect::Line));
    }
    if blank > 0 {
        return Err(FrameError::Garbage);
    }
    const HTTP: [&[u8]; 4] = [b"GET ", b"POST ", b"OPTIONS ", b"HEAD "];
    let length = b"content-length:";
    let common = rest.len().min(length.len());
    if rest[..common].eq_ignore_ascii_case(&length[..common]) {
        return Ok((common == length.len()).then_some(Dialect::Lsp));
    }
    for verb in HTTP {
        let common = rest.len().min(verb.len());
        if rest[..common] == verb[..common] {
            return Ok((common == verb.len()).then_some(Dialect::Http));
        }
    }
    Err(FrameError::Garbage)
}

/// Why a stream cannot be decoded further. The connection ends after one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A message beyond the limit.
    #[error("the message exceeds {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// Headers that are no headers, or without a length.
    #[error("the header is malformed: expected `Content-Length: N`")]
    BadHeader,
    /// Bytes that begin none of the dialects.
    #[error("the first bytes are neither JSON, nor `Content-Length:`, nor HTTP")]
    Garbage,
}

/// One message inside the decoder's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Where the message begins.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
    /// How many bytes of the buffer are used up.
    pub consumed: usize,
}

/// Fails when JSON nests deeper than `max`. Runs once over the bytes, before any parser does.
pub fn within_depth(json: &[u8], max: usize) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for byte in json {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                if depth > max {
                    return false;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_choose_the_dialect() {
        for (bytes, dialect) in [
            (&b" \r\n{"[..], Ok(Some(Dialect::Line))),
            (b"[", Ok(Some(Dialect::Line))),
            (b"content-LENGTH: 4", Ok(Some(Dialect::Lsp))),
            (b"Con", Ok(None)),
            (b"GE", Ok(None)),
            (b"GET / HTTP/1.1", Ok(Some(Dialect::Http))),
            (b"", Ok(None)),
            (b"DELETE /", Err(FrameError::Garbage)),
            (b"\0", Err(FrameError::Garbage)),
            (b" GET ", Err(FrameError::Garbage)),
            (b"CONNECT x", Err(FrameError::Garbage)),
        ] {
            assert_eq!(sniff(bytes), dialect, "{bytes:?}");
        }
    }

    #[test]
    fn depth_counts_brackets_outside_strings() {
        assert!(within_depth(br#"[["[[[[\"[["]]"#, 2));
        assert!(!within_depth(b"[[[", 2));
        assert!(within_depth(&b"[".repeat(128), 128));
        assert!(!within_depth(&b"[".repeat(129), 128));
    }
}
