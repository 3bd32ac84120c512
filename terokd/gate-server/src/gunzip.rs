//! Request bodies that arrive compressed, unpacked piece by piece.

use bytes::Bytes;
use flate2::write::GzDecoder;
use std::io::{self, Write as _};

/// Input per step: at deflate's best ratio a step gives half a megabyte, whatever the client sends.
const STEP: usize = 512;

/// Unpacks one stream of gzip.
pub(crate) struct Gunzip {
    decoder: GzDecoder<Vec<u8>>,
}

impl Gunzip {
    /// At the start of a body.
    pub(crate) fn new() -> Self {
        Self {
            decoder: GzDecoder::new(Vec::new()),
        }
    }

    /// Takes a piece off `input` and gives what it unpacks to.
    pub(crate) fn step(&mut self, input: &mut Bytes) -> io::Result<Vec<u8>> {
        let piece = input.split_to(STEP.min(input.len()));
        self.decoder.write_all(&piece)?;
        Ok(std::mem::take(self.decoder.get_mut()))
    }

    /// Checks that the stream was whole and gives its rest.
    pub(crate) fn finish(mut self) -> io::Result<Vec<u8>> {
        self.decoder.try_finish()?;
        Ok(std::mem::take(self.decoder.get_mut()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;

    fn pack(data: &[u8]) -> Bytes {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap().into()
    }

    fn unpack(mut input: Bytes) -> io::Result<(Vec<u8>, usize)> {
        let (mut out, mut largest) = (Vec::new(), 0);
        let mut gunzip = Gunzip::new();
        while !input.is_empty() {
            let piece = gunzip.step(&mut input)?;
            largest = largest.max(piece.len());
            out.extend(piece);
        }
        out.extend(gunzip.finish()?);
        Ok((out, largest))
    }

    #[test]
    fn a_bomb_comes_out_in_small_pieces() {
        let data = vec![0_u8; 20 << 20];
        let (out, largest) = unpack(pack(&data)).unwrap();
        assert_eq!(out.len(), data.len());
        assert!(largest <= 600 << 10, "{largest}");
    }

    #[test]
    fn what_is_torn_or_followed_by_something_is_an_error() {
        let whole = pack(b"hello, hello, hello");
        assert_eq!(unpack(whole.clone()).unwrap().0, b"hello, hello, hello");
        assert!(unpack(whole.slice(..whole.len() - 3)).is_err());
        assert!(unpack(whole.slice(..5)).is_err());
        assert!(unpack(Bytes::from_static(b"0000not gzip at all")).is_err());
        let mut followed = whole.to_vec();
        followed.extend_from_slice(b"more");
        assert!(unpack(followed.into()).is_err());
    }
}
