//! Output of containers: two streams in one, each piece behind a header of eight bytes.

use crate::fault;
use std::collections::VecDeque;
use terok_proto::Fault;

/// Which stream a piece belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Channel {
    Out,
    Err,
}

/// Takes the streams apart; pieces are handed on as they come and never gathered.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    header: Vec<u8>,
    channel: Option<Channel>,
    left: usize,
}

impl Frames {
    pub(crate) fn feed(
        &mut self,
        mut bytes: &[u8],
        mut each: impl FnMut(Channel, &[u8]),
    ) -> Result<(), Fault> {
        while !bytes.is_empty() {
            if let (Some(channel), 1..) = (self.channel, self.left) {
                let (now, later) = bytes.split_at(self.left.min(bytes.len()));
                self.left -= now.len();
                each(channel, now);
                bytes = later;
                continue;
            }
            let (now, later) = bytes.split_at((8 - self.header.len()).min(bytes.len()));
            self.header.extend_from_slice(now);
            bytes = later;
            if let [kind, 0, 0, 0, size @ ..] = self.header.as_slice()
                && let Ok(size) = <[u8; 4]>::try_from(size)
            {
                self.channel = Some(match kind {
                    0 | 1 => Channel::Out,
                    2 => Channel::Err,
                    other => {
                        return Err(fault::nonsense(
                            "a container's output",
                            format!("there is no stream {other}"),
                        ));
                    }
                });
                self.left = u32::from_be_bytes(size) as usize;
                self.header.clear();
            } else if self.header.len() == 8 {
                return Err(fault::nonsense(
                    "a container's output",
                    "a piece has no header",
                ));
            }
        }
        Ok(())
    }
}

/// The last bytes of something long.
#[derive(Debug)]
pub(crate) struct Tail {
    limit: usize,
    bytes: VecDeque<u8>,
}

impl Tail {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            bytes: VecDeque::new(),
        }
    }

    pub(crate) fn push(&mut self, text: &[u8]) {
        let text = &text[text.len().saturating_sub(self.limit)..];
        let over = (self.bytes.len() + text.len()).saturating_sub(self.limit);
        self.bytes.drain(..over);
        self.bytes.extend(text);
    }

    pub(crate) fn take(self) -> Vec<u8> {
        self.bytes.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(kind: u8, text: &[u8]) -> Vec<u8> {
        let size = u32::try_from(text.len()).unwrap().to_be_bytes();
        [&[kind, 0, 0, 0], size.as_slice(), text].concat()
    }

    #[test]
    fn a_recorded_log_is_taken_apart() {
        let log = [frame(1, b"out\n"), frame(2, b"err\n"), frame(1, b"")].concat();
        let mut seen = Vec::new();
        Frames::default()
            .feed(&log, |channel, text| seen.push((channel, text.to_vec())))
            .unwrap();
        assert_eq!(
            seen,
            [
                (Channel::Out, b"out\n".to_vec()),
                (Channel::Err, b"err\n".to_vec())
            ]
        );
    }

    #[test]
    fn what_has_no_header_is_refused() {
        for bad in [
            b"hello world".as_slice(),
            &[9, 0, 0, 0, 0, 0, 0, 1, 65],
            &[1, 1, 0, 0, 0, 0, 0, 1],
        ] {
            assert!(Frames::default().feed(bad, |_, _| {}).is_err());
        }
    }

    #[test]
    fn only_the_end_is_kept() {
        let mut tail = Tail::new(5);
        for text in ["abc", "def", "", "0123456789", "x"] {
            tail.push(text.as_bytes());
        }
        assert_eq!(tail.take(), b"6789x");
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(texts in prop::collection::vec((1..3_u8, prop::collection::vec(any::<u8>(), 0..50)), 0..10), size in 1..60_usize) {
            let all: Vec<u8> = texts.iter().flat_map(|(kind, text)| frame(*kind, text)).collect();
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let mut frames = Frames::default();
            for piece in all.chunks(size) {
                frames.feed(piece, |channel, text| match channel {
                    Channel::Out => out.extend_from_slice(text),
                    Channel::Err => err.extend_from_slice(text),
                }).unwrap();
            }
            let of = |wanted: u8| texts.iter().filter(|(kind, _)| *kind == wanted).flat_map(|(_, text)| text.clone()).collect::<Vec<u8>>();
            prop_assert_eq!(out, of(1));
            prop_assert_eq!(err, of(2));
        }

        #[test]
        fn nothing_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
            let _ = Frames::default().feed(&bytes, |_, _| {});
        }
    }
}
