//! What is commonly sent instead, through the same client at the same QoS. Nobody acknowledges it but the broker.

use super::relay::Relay;
use super::set::{Row, Set};
use super::site::{Site, connect};
use super::{Bytes, Outcome, intervals};
use smol::future::FutureExt as _;
use std::fmt::Write as _;
use varved::mqtt::Event;
use varved::reading::Kind;

/// Handshake and total of a publish for each reading.
pub(crate) fn json(site: &Site, set: &Set) -> Outcome<(Bytes, Bytes)> {
    let payloads = set.rows.iter().map(|row| Ok(json_of(set, row).into_bytes()));
    send(site, &site.relay()?, payloads)
}

/// Handshake and total of a publish for each interval, written by `text` and compressed.
pub(crate) fn batches(
    site: &Site,
    set: &Set,
    interval_s: i64,
    text: fn(&Set, &[&Row]) -> String,
) -> Outcome<(Bytes, Bytes)> {
    let all = intervals(set, interval_s);
    let payloads = all.iter().map(|rows| Ok(zstd::bulk::compress(text(set, rows).as_bytes(), 3)?));
    send(site, &site.relay()?, payloads)
}

/// An object and a line for each reading.
pub(crate) fn json_lines(set: &Set, rows: &[&Row]) -> String {
    rows.iter().map(|row| json_of(set, row) + "\n").collect()
}

/// A line for each reading that has a value; the protocol has no other.
pub(crate) fn line_protocol(set: &Set, rows: &[&Row]) -> String {
    let mut out = String::new();
    for row in rows.iter().filter(|row| !row.text.is_empty()) {
        let suffix = if set.kinds[row.series] == Kind::Int { "i" } else { "" };
        let _ = writeln!(out, "{} value={}{suffix} {}000000", set.names[row.series], row.text, row.stamp_ms);
    }
    out
}

fn json_of(set: &Set, row: &Row) -> String {
    let value = if row.text.is_empty() { "null" } else { &row.text };
    format!(r#"{{"series":"{}","ts":{},"value":{value}}}"#, set.names[row.series], row.stamp_ms)
}

fn send(site: &Site, relay: &Relay, payloads: impl Iterator<Item = Outcome<Vec<u8>>>) -> Outcome<(Bytes, Bytes)> {
    let (client, events, handshake) = connect(site.settings("pump-17", relay), relay)?;
    smol::block_on(async {
        for payload in payloads {
            let publish = async { Ok(client.publish("plant/pump-17/readings", false, payload?).await?) };
            let ended = async {
                match events.recv().await {
                    Ok(Event::Disconnected { fault, .. }) => Outcome::<()>::Err(fault.to_string().into()),
                    other => Err(format!("in the midst of it: {other:?}").into()),
                }
            };
            publish.or(ended).await?;
        }
        Outcome::Ok(())
    })?;
    let total = relay.settled();
    smol::block_on(client.stop());
    Ok((handshake, total))
}
