//! Who issued a certificate, for the words of a fault: as much of DER (X.690) and X.509 (RFC 5280, 4.1) as that takes.
//!
//! What enters: bytes that a stranger may have made. What leaves: a name to show, made harmless for a log, or none. Nothing
//! is verified here and nothing is decided by it.

/// The most characters of one attribute that are shown.
const MAX_SHOWN: usize = 64;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_ID: u8 = 0x06;
/// `[0]`, the version of a certificate.
const VERSION: u8 = 0xA0;
/// UTF-16, big-endian; the other kinds of text are read as UTF-8.
const BMP_STRING: u8 = 0x1E;

/// What is shown of a name: common name, organisation, unit (2.5.4.3, .10, .11).
const SHOWN: [(&[u8], &str); 3] = [(&[0x55, 4, 3], "CN"), (&[0x55, 4, 10], "O"), (&[0x55, 4, 11], "OU")];

/// The issuer of a DER certificate, such as `CN=Example Root, O=Example`.
pub(super) fn issuer(certificate: &[u8]) -> Option<String> {
    let mut outer = Der(certificate).expect(SEQUENCE)?;
    let mut fields = outer.expect(SEQUENCE)?;
    let (tag, _) = fields.next()?;
    if tag == VERSION {
        fields.next()?; // the serial number
    }
    fields.next()?; // the signature's algorithm
    Some(name(fields.expect(SEQUENCE)?.0))
}

/// A name, given what is inside its outer SEQUENCE. One without any attribute that is shown is `(no name)`.
pub(super) fn name(inside: &[u8]) -> String {
    let mut parts = Vec::new();
    let mut sets = Der(inside);
    while let Some((SET, set)) = sets.next() {
        parts.extend(Der(set).expect(SEQUENCE).and_then(attribute));
    }
    if parts.is_empty() { "(no name)".to_owned() } else { parts.join(", ") }
}

fn attribute(mut pair: Der<'_>) -> Option<String> {
    let id = pair.expect(OBJECT_ID)?;
    let (_, label) = SHOWN.iter().find(|(known, _)| *known == id.0)?;
    let (tag, value) = pair.next()?;
    let text = match tag {
        BMP_STRING => {
            let units: Vec<u16> = value.chunks_exact(2).map(|two| u16::from_be_bytes([two[0], two[1]])).collect();
            String::from_utf16_lossy(&units)
        }
        _ => String::from_utf8_lossy(value).into_owned(),
    };
    Some(format!("{label}={}", harmless(&text)))
}

/// A stranger's text as it may stand in a log: short, and on one line.
pub(super) fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).take(MAX_SHOWN).collect()
}

/// What is left to read of a DER encoding.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next element: its tag and what is in it.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (len, rest) = match first {
            0..=0x7F => (usize::from(first), rest),
            // Longer than 2^24 bytes is no certificate.
            0x81..=0x83 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7F))?;
                (bytes.iter().fold(0, |len, byte| len << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (inside, rest) = rest.split_at_checked(len)?;
        self.0 = rest;
        Some((tag, inside))
    }

    fn expect(&mut self, tag: u8) -> Option<Der<'a>> {
        let (found, inside) = self.next()?;
        (found == tag).then_some(Der(inside))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn element(tag: u8, inside: &[u8]) -> Vec<u8> {
        [&[tag, 0x81, inside.len() as u8], inside].concat()
    }

    fn attribute_of(id: u8, text: &[u8]) -> Vec<u8> {
        let pair = [element(OBJECT_ID, &[0x55, 4, id]), element(0x0C, text)].concat();
        element(SET, &element(SEQUENCE, &pair))
    }

    fn certificate(issuer: &[u8]) -> Vec<u8> {
        let fields =
            [element(VERSION, &[2, 1, 2]), element(2, &[9]), element(SEQUENCE, &[]), element(SEQUENCE, issuer)];
        element(SEQUENCE, &element(SEQUENCE, &fields.concat()))
    }

    /// The issuer is found behind version, serial number and algorithm; a name that would break a log's line does not.
    #[test]
    fn the_issuer_is_named_on_one_line() {
        let names =
            [attribute_of(10, b"Example"), attribute_of(6, b"CH"), attribute_of(3, b"Root\n2026 WARN")].concat();
        assert_eq!(issuer(&certificate(&names)).as_deref(), Some("O=Example, CN=Root?2026 WARN"));
        assert_eq!(issuer(&certificate(&[])).as_deref(), Some("(no name)"));
        assert_eq!(issuer(b"no certificate"), None);
    }

    proptest! {
        /// Whatever a stranger sends is read without a panic, cut short anywhere or changed.
        #[test]
        fn no_bytes_are_a_panic(cut in 0usize..80, at in 0usize..80, to: u8, noise: Vec<u8>) {
            let mut bytes = certificate(&attribute_of(3, b"Root"));
            let len = bytes.len();
            bytes[at % len] = to;
            bytes.truncate(cut);
            let _ = (issuer(&bytes), issuer(&noise), name(&noise));
        }
    }
}
