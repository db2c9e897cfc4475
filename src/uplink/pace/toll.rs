//! What a message costs on the wire, in bytes, both ways together.
//!
//! What enters: lengths. What leaves: bytes with all headers: MQTT 3.1.1, TLS 1.3 records (5 of header, 1 of type, 16 of
//! tag, at most 16 KiB in each), TCP with timestamps and IPv4 (52 a packet of 1,400), and an acknowledgement for every
//! second packet. It is an estimate: IPv6 adds 20 a packet, and what TCP sends twice nobody here sees.

use crate::config::PaceConfig;

/// IPv4 and TCP with the timestamp option (RFC 791, 9293, 7323).
const PACKET: u64 = 20 + 32;

/// What a packet carries beside them on usual links.
const SEGMENT: u64 = 1400;

/// RFC 8446, 5.2.
const RECORD: u64 = 5 + 1 + 16;

/// The most plain text in one record.
const RECORD_PLAIN: u64 = 16 << 10;

/// A TLS 1.3 handshake with a certificate from each side, both ways: about 2 KiB a chain, and the rest.
const HANDSHAKE: u64 = 6 << 10;

/// See the room.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Toll {
    pub(super) tls: bool,
}

impl Toll {
    /// A publish of `bytes`, topic and payload, with its PUBACK, whoever sends it.
    pub(super) fn publish(&self, bytes: u64) -> u64 {
        self.packet(bytes + 9) + self.packet(4)
    }

    /// A ping and its answer.
    pub(super) fn ping(&self) -> u64 {
        // Where the configuration judges a budget, it reckons with the same.
        PaceConfig::ping_bytes(self.tls)
    }

    /// A connection until segments may go: TCP's three packets, TLS, CONNECT with the will, SUBSCRIBE and their answers.
    pub(super) fn connection(&self) -> u64 {
        3 * PACKET + if self.tls { HANDSHAKE } else { 0 } + 2 * self.packet(200) + 2 * self.packet(8)
    }

    /// `bytes` of MQTT one way, with the acknowledgements that TCP sends for them.
    fn packet(&self, bytes: u64) -> u64 {
        let bytes = bytes + if self.tls { RECORD * bytes.div_ceil(RECORD_PLAIN) } else { 0 };
        let packets = bytes.div_ceil(SEGMENT);
        bytes + PACKET * (packets + packets / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Small messages are mostly headers, large ones hardly; the pings of a day are what docs/config.md says.
    #[test]
    fn headers_weigh_on_small_messages() {
        let (plain, tls) = (Toll { tls: false }, Toll { tls: true });
        assert_eq!(plain.publish(100), 109 + 52 + 56);
        assert_eq!(tls.publish(100), 109 + 22 + 52 + 56 + 22);
        assert!((100_000..110_000).contains(&tls.publish(100_000)), "{}", tls.publish(100_000));
        assert_eq!((2880 * plain.ping() / 1024, 2880 * tls.ping() / 1024), (450, 573));
    }
}
