//! Topic names: `<prefix>/v1/<device>/…`.
//!
//! What enters: a prefix, a device and what is meant, or a name that a broker delivered. What leaves: the other of the two.
//! The prefix may hold slashes; a device name never does (`[A-Za-z0-9][A-Za-z0-9._-]{0,63}`), so a name reads one way only.

/// What a topic below a device's name is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// [`super::SegmentFrame`], device to fleet.
    Segment,
    /// [`super::CatalogPage`] of this number, device to fleet, retained.
    Catalog(u16),
    /// [`super::State`], device to fleet, retained.
    State,
    /// [`super::Ack`], fleet to device, retained.
    Ack,
    /// [`super::Request`], fleet to device.
    Request,
}

/// The name of a device's topic.
pub fn name(prefix: &str, device: &str, topic: Topic) -> String {
    let tail = match topic {
        Topic::Segment => "segment",
        Topic::Catalog(page) => return format!("{prefix}/v1/{device}/catalog/{page}"),
        Topic::State => "state",
        Topic::Ack => "ack",
        Topic::Request => "request",
    };
    format!("{prefix}/v1/{device}/{tail}")
}

/// The device and the meaning of a name that [`name`] gave, or `None` for any other.
pub fn parse<'a>(prefix: &str, name: &'a str) -> Option<(&'a str, Topic)> {
    let (device, tail) = name.strip_prefix(prefix)?.strip_prefix("/v1/")?.split_once('/')?;
    let topic = match tail {
        "segment" => Topic::Segment,
        "state" => Topic::State,
        "ack" => Topic::Ack,
        "request" => Topic::Request,
        _ => Topic::Catalog(page(tail.strip_prefix("catalog/")?)?),
    };
    valid_device(device).then_some((device, topic))
}

/// The filters that a receiver subscribes to: everything that devices send, and nothing that it sends itself.
pub fn receiver_filters(prefix: &str) -> [String; 3] {
    ["segment", "catalog/+", "state"].map(|tail| format!("{prefix}/v1/+/{tail}"))
}

/// The topics that a device subscribes to.
pub fn device_filters(prefix: &str, device: &str) -> [String; 2] {
    [name(prefix, device, Topic::Ack), name(prefix, device, Topic::Request)]
}

/// Whether `device` may be a device's name: a letter or digit, then up to 63 letters, digits, `.`, `_` or `-`.
pub fn valid_device(device: &str) -> bool {
    let mut bytes = device.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && device.len() <= 64
        && bytes.all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b))
}

/// Whether `prefix` may begin a topic: 1 to 128 bytes, no wildcard, no control character, no empty level, no leading `$`.
pub fn valid_prefix(prefix: &str) -> bool {
    (1..=128).contains(&prefix.len())
        && !prefix.starts_with('$')
        && !prefix.contains(|c: char| c.is_control() || c == '+' || c == '#')
        && prefix.split('/').all(|level| !level.is_empty())
}

/// A page number in its one written form.
fn page(text: &str) -> Option<u16> {
    let number = text.parse::<u16>().ok()?;
    (number.to_string() == text).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every topic that is built is read back as what it was built for.
    #[test]
    fn names_read_back_as_they_were_built() {
        for prefix in ["varved", "site/7/varved"] {
            for topic in
                [Topic::Segment, Topic::Catalog(0), Topic::Catalog(65_535), Topic::State, Topic::Ack, Topic::Request]
            {
                let name = name(prefix, "pump-17", topic);
                assert_eq!(parse(prefix, &name), Some(("pump-17", topic)), "{name}");
            }
        }
        assert_eq!(name("varved", "pump-17", Topic::Catalog(3)), "varved/v1/pump-17/catalog/3");
    }

    /// A name that is not exactly ours is nobody's: nothing is guessed.
    #[test]
    fn foreign_names_are_not_read() {
        for name in [
            "varved/v1/pump-17/segments",
            "varved/v2/pump-17/segment",
            "varved/v1//segment",
            "varved/v1/-a/segment",
            "varved/v1/a b/segment",
            "varved/v1/pump-17/catalog/",
            "varved/v1/pump-17/catalog/007",
            "varved/v1/pump-17/catalog/65536",
            "varved/v1/pump-17/catalog/+1",
            "varvedx/v1/pump-17/segment",
            "varved/v1/pump-17",
            "",
        ] {
            assert_eq!(parse("varved", name), None, "{name}");
        }
    }

    /// What would break a topic or a subscription is no name.
    #[test]
    fn names_that_would_break_a_topic_are_refused() {
        assert!(valid_device("a") && valid_device("pump-17.b_C") && valid_device(&"a".repeat(64)));
        for bad in ["", "a/b", "+", "#", ".a", "ä", "a\0", &"a".repeat(65)] {
            assert!(!valid_device(bad), "{bad}");
        }
        assert!(valid_prefix("varved") && valid_prefix("a/b/c"));
        for bad in ["", "/a", "a/", "a//b", "a/+", "#", "$SYS", "a\nb"] {
            assert!(!valid_prefix(bad), "{bad}");
        }
    }
}
