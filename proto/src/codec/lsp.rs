//! The base protocol of the Language Server Protocol: headers, an empty line, a body.

use super::{Frame, FrameError};

/// No client needs more header than this; a peer that sends more is not speaking this protocol.
const MAX_HEADER: usize = 4096;

/// Finds complete messages in a growing buffer.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Length of the header block and of the body, once known.
    known: Option<(usize, usize)>,
    scanned: usize,
}

impl Decoder {
    /// The next message in `buffer`, or `None` while it is incomplete. The caller drops `consumed` bytes before
    /// the next call.
    ///
    /// # Errors
    /// The header is malformed, or announces more than `max` bytes.
    pub fn decode(&mut self, buffer: &[u8], max: usize) -> Result<Option<Frame>, FrameError> {
        let (header, body) = match self.known {
            Some(known) => known,
            None => match self.header(buffer)? {
                Some(known) => known,
                None => return Ok(None),
            },
        };
        if body > max {
            return Err(FrameError::TooLarge { limit: max });
        }
        self.known = Some((header, body));
        if buffer.len() < header + body {
            return Ok(None);
        }
        *self = Self::default();
        Ok(Some(Frame {
            start: header,
            end: header + body,
            consumed: header + body,
        }))
    }

    fn header(&mut self, buffer: &[u8]) -> Result<Option<(usize, usize)>, FrameError> {
        let from = self.scanned.saturating_sub(3);
        let Some(at) = buffer[from..].windows(4).position(|w| w == b"\r\n\r\n") else {
            self.scanned = buffer.len();
            if buffer.len() > MAX_HEADER {
                return Err(FrameError::BadHeader);
            }
            return Ok(None);
        };
        let end = from + at;
        if end > MAX_HEADER {
            return Err(FrameError::BadHeader);
        }
        let text = std::str::from_utf8(&buffer[..end]).map_err(|_| FrameError::BadHeader)?;
        let mut length = None;
        for line in text.split("\r\n") {
            let (name, value) = line.split_once(':').ok_or(FrameError::BadHeader)?;
            if name.trim().eq_ignore_ascii_case("content-length") {
                let value = value.trim();
                // Digits only: `parse` alone would take a sign.
                if length.is_some()
                    || value.is_empty()
                    || !value.bytes().all(|b| b.is_ascii_digit())
                {
                    return Err(FrameError::BadHeader);
                }
                length = Some(value.parse().unwrap_or(usize::MAX / 2));
            }
        }
        let length = length.ok_or(FrameError::BadHeader)?;
        Ok(Some((end + 4, length)))
    }
}

/// Appends a message with its header.
pub fn encode(message: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("Content-Length: {}\r\n\r\n", message.len()).as_bytes());
    out.extend_from_slice(message.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn drain(chunks: &[&[u8]], max: usize) -> Result<Vec<Vec<u8>>, FrameError> {
        let (mut decoder, mut buffer, mut out) = (Decoder::default(), Vec::new(), Vec::new());
        for chunk in chunks {
            buffer.extend_from_slice(chunk);
            while let Some(frame) = decoder.decode(&buffer, max)? {
                out.push(buffer[frame.start..frame.end].to_vec());
                buffer.drain(..frame.consumed);
            }
        }
        Ok(out)
    }

    #[test]
    fn headers_are_read_and_others_ignored() {
        let two = b"Content-Type: x\r\ncontent-length:2\r\n\r\n{}Content-Length: 1\r\n\r\n[";
        assert_eq!(drain(&[two], 10), Ok(vec![b"{}".to_vec(), b"[".to_vec()]));
    }

    #[test]
    fn hostile_headers_are_refused() {
        for (bytes, error) in [
            (
                &b"Content-Length: 11\r\n\r\n"[..],
                FrameError::TooLarge { limit: 10 },
            ),
            (
                b"Content-Length: 99999999999999999999999\r\n\r\n",
                FrameError::TooLarge { limit: 10 },
            ),
            (b"Content-Length: -1\r\n\r\n", FrameError::BadHeader),
            (b"Content-Length: +1\r\n\r\n", FrameError::BadHeader),
            (
                b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
                FrameError::BadHeader,
            ),
            (b"X: 1\r\n\r\n", FrameError::BadHeader),
            (b"nonsense\r\n\r\n", FrameError::BadHeader),
        ] {
            assert_eq!(drain(&[bytes], 10), Err(error), "{bytes:?}");
        }
        assert_eq!(drain(&[&b"A".repeat(5000)], 10), Err(FrameError::BadHeader));
    }

    proptest! {
        #[test]
        fn encoding_round_trips_in_any_pieces(messages in prop::collection::vec(".{0,20}", 0..5), size in 1usize..9) {
            let mut bytes = Vec::new();
            for message in &messages {
                encode(message, &mut bytes);
            }
            let pieces: Vec<&[u8]> = bytes.chunks(size).collect();
            let expected: Vec<Vec<u8>> = messages.iter().map(|m| m.as_bytes().to_vec()).collect();
            prop_assert_eq!(drain(&pieces, 200), Ok(expected));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = drain(&[&bytes], 50);
        }
    }
}
