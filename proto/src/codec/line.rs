//! One JSON value per line.

use super::{Frame, FrameError};

/// Finds complete lines in a growing buffer; remembers how far it has looked, so single bytes stay cheap.
#[derive(Debug, Default)]
pub struct Decoder {
    scanned: usize,
}

impl Decoder {
    /// The next line in `buffer`, or `None` while it is incomplete; a blank line is an empty frame, for the caller
    /// to pass over. The caller drops `consumed` bytes before the next call.
    ///
    /// # Errors
    /// The line exceeds `max` bytes, whether or not its end has arrived.
    pub fn decode(&mut self, buffer: &[u8], max: usize) -> Result<Option<Frame>, FrameError> {
        let from = self.scanned.min(buffer.len());
        let end = match buffer[from..].iter().position(|b| *b == b'\n') {
            Some(at) => from + at,
            None => buffer.len(),
        };
        if end > max {
            return Err(FrameError::TooLarge { limit: max });
        }
        if end == buffer.len() {
            self.scanned = end;
            return Ok(None);
        }
        self.scanned = 0;
        let blank = buffer[..end].trim_ascii().is_empty();
        Ok(Some(Frame {
            start: 0,
            end: if blank { 0 } else { end },
            consumed: end + 1,
        }))
    }
}

/// Appends a message, which must not contain a line break, and its end.
pub fn encode(message: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(message.as_bytes());
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn drain(chunks: &[&[u8]], max: usize) -> Result<Vec<Vec<u8>>, FrameError> {
        let (mut decoder, mut buffer, mut lines) = (Decoder::default(), Vec::new(), Vec::new());
        for chunk in chunks {
            buffer.extend_from_slice(chunk);
            while let Some(frame) = decoder.decode(&buffer, max)? {
                if frame.end > frame.start {
                    lines.push(buffer[frame.start..frame.end].to_vec());
                }
                buffer.drain(..frame.consumed);
            }
        }
        Ok(lines)
    }

    #[test]
    fn blank_lines_are_passed_over() {
        assert_eq!(
            drain(&[b"\n \n{}\r\n\n[]\n"], 10),
            Ok(vec![b"{}\r".to_vec(), b"[]".to_vec()])
        );
    }

    #[test]
    fn an_endless_line_is_refused_before_it_ends() {
        assert_eq!(
            drain(&[b"0123456789", b"0"], 10),
            Err(FrameError::TooLarge { limit: 10 })
        );
    }

    proptest! {
        #[test]
        fn splitting_never_changes_the_lines(text in "[a-z\\n {}]{0,60}", size in 1usize..7) {
            let whole = drain(&[text.as_bytes()], 100);
            let pieces: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
            prop_assert_eq!(whole, drain(&pieces, 100));
        }
    }
}
