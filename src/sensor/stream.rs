//! Lines out of a stream of bytes, in bounded memory.
//!
//! What enters: bytes as they come. What leaves: whole lines, and for each line that was too long, its front. It holds
//! at most [`MAX_LINE_BYTES`]; a longer line is thrown away up to its newline, and the lines after it are good again.
//! It does not look into the lines.

/// The longest line, its newline not counted. A text value may be 16 KiB; this leaves room for four of them.
pub const MAX_LINE_BYTES: usize = 64 * 1024;

/// How much of a line that was too long is shown to the one who looks for its sender.
const SAMPLE_BYTES: usize = 80;

/// One thing found in a stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// A line without its newline.
    Line(&'a [u8]),
    /// A line longer than [`MAX_LINE_BYTES`] was met and is thrown away; its front.
    TooLong(&'a [u8]),
}

/// The part of a stream that is not a whole line yet.
#[derive(Debug)]
pub(super) struct LineBuffer {
    held: Vec<u8>,
    skipping: bool,
}

impl LineBuffer {
    pub(super) fn new() -> Self {
        Self { held: Vec::new(), skipping: false }
    }

    /// Takes the next bytes of the stream and hands every line in them to `each`, in order.
    pub(super) fn feed(&mut self, mut bytes: &[u8], mut each: impl FnMut(Found<'_>)) {
        while let Some(newline) = memchr::memchr(b'\n', bytes) {
            let (line, rest) = (&bytes[..newline], &bytes[newline + 1..]);
            bytes = rest;
            if std::mem::take(&mut self.skipping) {
                continue;
            }
            if self.held.is_empty() && line.len() <= MAX_LINE_BYTES {
                each(Found::Line(line));
                continue;
            }
            if self.hold(line, &mut each) {
                each(Found::Line(&self.held));
            }
            self.held.clear();
            self.skipping = false;
        }
        if !self.skipping && !bytes.is_empty() {
            self.hold(bytes, &mut each);
        }
    }

    /// The stream has ended: what it held of an unfinished line, or nothing.
    pub(super) fn finish(&mut self) -> Vec<u8> {
        self.skipping = false;
        std::mem::take(&mut self.held)
    }

    /// Appends, or where that gets too long says so, throws all away and is false.
    fn hold(&mut self, bytes: &[u8], each: &mut impl FnMut(Found<'_>)) -> bool {
        if self.held.len() + bytes.len() > MAX_LINE_BYTES {
            let lacks = SAMPLE_BYTES.saturating_sub(self.held.len()).min(bytes.len());
            self.held.truncate(SAMPLE_BYTES);
            self.held.extend_from_slice(&bytes[..lacks]);
            each(Found::TooLong(&self.held));
            self.held = Vec::new();
            self.skipping = true;
            return false;
        }
        self.held.extend_from_slice(bytes);
        true
    }
}

/// The front of some bytes, escaped for a log line.
pub(super) fn sample(bytes: &[u8]) -> String {
    bytes[..bytes.len().min(SAMPLE_BYTES)].escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(chunks: &[&[u8]]) -> (Vec<Vec<u8>>, usize, Vec<u8>) {
        let (mut buffer, mut good, mut long) = (LineBuffer::new(), Vec::new(), 0);
        for chunk in chunks {
            buffer.feed(chunk, |found| match found {
                Found::Line(line) => good.push(line.to_vec()),
                Found::TooLong(front) => {
                    assert!(front.len() <= SAMPLE_BYTES && !front.is_empty());
                    long += 1;
                }
            });
            assert!(buffer.held.len() <= MAX_LINE_BYTES);
        }
        (good, long, buffer.finish())
    }

    proptest! {
        /// However a stream is cut into reads, the lines are those of the whole stream.
        #[test]
        fn lines_do_not_depend_on_how_the_stream_is_cut(
            stream in proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..200),
            cut in 1usize..20,
        ) {
            let chunks: Vec<&[u8]> = stream.chunks(cut).collect();
            let (good, long, rest) = lines(&chunks);
            let mut whole: Vec<Vec<u8>> = stream.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
            prop_assert_eq!(Some(rest), whole.pop());
            prop_assert_eq!((good, long), (whole, 0));
        }
    }

    /// A mebibyte without a newline costs one count and no memory, and the line after it is good.
    #[test]
    fn an_endless_line_is_thrown_away_up_to_its_newline() {
        let endless = vec![b'x'; 1 << 20];
        let mut chunks: Vec<&[u8]> = vec![b"a\n"];
        chunks.extend(endless.chunks(8192));
        chunks.extend([b"yy\nb\nc".as_slice()]);
        assert_eq!(lines(&chunks), (vec![b"a".to_vec(), b"b".to_vec()], 1, b"c".to_vec()));
        let whole = [endless.as_slice(), b"\nb\n"].concat();
        assert_eq!(lines(&[&whole]), (vec![b"b".to_vec()], 1, Vec::new()));
    }

    /// The limit itself is allowed, one byte more is not; in one piece or in two.
    #[test]
    fn the_limit_is_exact() {
        let fits = [vec![b'x'; MAX_LINE_BYTES], b"\n".to_vec()].concat();
        let more = [vec![b'x'; MAX_LINE_BYTES + 1], b"\n".to_vec()].concat();
        for cut in [1 << 20, 1000] {
            assert_eq!(lines(&fits.chunks(cut).collect::<Vec<_>>()).1, 0);
            assert_eq!(lines(&more.chunks(cut).collect::<Vec<_>>()).1, 1);
        }
    }
}
