//! Polling: the shape of a driver, when it is asked, and what becomes of its answers.
//!
//! ```text
//! discover ─► poll ─► poll ─► … ─► discover (once a minute, when a channel is gone, when the driver asks) ─► …
//! ```
//!
//! What enters: a [`Driver`] and an interval. What leaves: one chunk of readings per tick, stamped with the *scheduled* tick, so
//! that a regular timeline stays regular. A channel that vanishes goes on as readings that say `absent`. Nothing a
//! sensor does stops the loop; a full queue holds it back, and the ticks it misses by that are counted.
//!
//! Each block has one thread of [`STACK_BYTES`], since reading a sensor may block for seconds in the kernel.

use super::counters::{Counters, Seldom};
use crate::batch::Registry;
use crate::clock::{BootNanos, Clock, SECOND};
use crate::reading::{NoValue, Reading, SeriesDef, SeriesKey, Stamp, Value};
use smol::channel::{Receiver, Sender, TrySendError};
use smol::future::or;
use std::sync::Arc;
use std::time::Duration;

/// The stack of a polling thread.
pub const STACK_BYTES: usize = 128 * 1024;

/// The most vanished channels that a block goes on reporting as absent; beyond that the oldest is let go.
const MAX_VANISHED: usize = 256;

/// A sleep is cut into pieces of this length, because timers stand still while the machine sleeps and boottime does not.
const MAX_NAP_NANOS: i64 = 30 * SECOND;

/// A kind of sensor. One file each; it holds what it needs to read again cheaply.
pub trait Driver: Send {
    /// Looks for what there is now. The answers of [`Driver::poll`] are in this order.
    fn discover(&mut self) -> Vec<SeriesDef>;

    /// Asks every channel of the latest [`Driver::discover`] and appends one value for each, in that order; or says that
    /// the list is no longer right.
    fn poll(&mut self, values: &mut Vec<Value>) -> Heard;

    /// Called once, after the last poll.
    fn fini(&mut self) {}
}

/// What [`Driver::poll`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// One value for each channel.
    AsKnown,
    /// The channels are others now, or mean something else (another scale): what was appended is void. `discover` is called,
    /// then `poll` once more for the same tick.
    Changed,
}

/// When the next tick is: at the multiples of `interval` in boottime, whatever the poll before took.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Schedule {
    interval: i64,
    next: i64,
}

/// What [`Schedule::ask`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    /// Not yet; this long, in nanoseconds.
    In(i64),
    /// The tick at `at` is due, and `skipped` before it went by unread.
    Tick { at: BootNanos, skipped: u64 },
}

impl Schedule {
    fn new(interval: Duration, now: BootNanos) -> Self {
        let interval = i64::try_from(interval.as_nanos()).unwrap_or(i64::MAX).max(1);
        Self { interval, next: next_multiple(now.0, interval) }
    }

    /// A tick is read if it is less than one interval late; older ones are skipped. Each tick is given out once.
    fn ask(&mut self, now: BootNanos) -> Due {
        if now.0 < self.next {
            return Due::In(self.next - now.0);
        }
        let at = now.0 - now.0.rem_euclid(self.interval);
        let skipped = (at - self.next) / self.interval;
        self.next = at.saturating_add(self.interval);
        Due::Tick { at: BootNanos(at), skipped: skipped.unsigned_abs() }
    }
}

fn next_multiple(now: i64, interval: i64) -> i64 {
    match now.rem_euclid(interval) {
        0 => now,
        over => now.saturating_add(interval - over),
    }
}

/// A driver and what is known of its channels.
pub(super) struct Poller {
    driver: Box<dyn Driver>,
    registry: Arc<Registry>,
    counters: Arc<Counters>,
    /// The channels of the latest discovery; no key where the registry is full.
    known: Vec<(SeriesDef, Option<SeriesKey>)>,
    /// Channels of earlier discoveries that were not found again.
    vanished: Vec<(SeriesDef, SeriesKey)>,
    since_discovery: u32,
    every_polls: u32,
    seldom: Seldom,
    seldom_late: Seldom,
    /// How many channels had no value when that was last noted in the log.
    noted_missing: usize,
    values: Vec<Value>,
}

impl Poller {
    pub(super) fn new(
        driver: Box<dyn Driver>,
        interval: Duration,
        registry: Arc<Registry>,
        counters: Arc<Counters>,
    ) -> Self {
        let every_polls = 60_000 / u32::try_from(interval.as_millis()).unwrap_or(u32::MAX).clamp(1, 60_000);
        Self {
            driver,
            registry,
            counters,
            known: Vec::new(),
            vanished: Vec::new(),
            since_discovery: u32::MAX,
            every_polls,
            seldom: Seldom::default(),
            seldom_late: Seldom::default(),
            noted_missing: 0,
            values: Vec::new(),
        }
    }

    /// Asks every channel once, for the tick `at`.
    pub(super) fn tick(&mut self, at: BootNanos) -> Vec<Reading> {
        if self.since_discovery >= self.every_polls {
            self.discover(at);
        }
        self.since_discovery = self.since_discovery.saturating_add(1);
        self.values.clear();
        if self.driver.poll(&mut self.values) == Heard::Changed {
            self.discover(at);
            self.values.clear();
            // A list that changes under our hands twice in a row is taken up at the next tick.
            if self.driver.poll(&mut self.values) == Heard::Changed {
                self.values.clear();
                self.since_discovery = u32::MAX;
            }
        }
        self.readings(at)
    }

    fn readings(&mut self, at: BootNanos) -> Vec<Reading> {
        let stamp = Stamp::Boot(at);
        // One value for each channel is the driver's contract; were it broken, a channel without an answer has failed.
        self.values.resize(self.known.len(), Value::None(NoValue::Failed));
        let absent = self.values.contains(&Value::None(NoValue::Absent));
        let answers = self.known.iter().zip(self.values.drain(..));
        let present = answers.filter_map(|((_, key), value)| Some(Reading { series: (*key)?, stamp, value }));
        let mut readings: Vec<_> = present.collect();
        let gone = self.vanished.iter();
        readings.extend(gone.map(|(_, key)| Reading { series: *key, stamp, value: Value::None(NoValue::Absent) }));
        // Looked into at once where something went missing, but not at every tick while it stays away.
        if absent && self.since_discovery >= self.every_polls.min(10) {
            self.since_discovery = u32::MAX;
        }
        self.account(&readings, at);
        readings
    }

    fn account(&mut self, readings: &[Reading], at: BootNanos) {
        let missing = readings.iter().filter(|reading| matches!(reading.value, Value::None(_)));
        let count = missing.clone().count();
        self.counters.add_readings(readings.len(), count);
        let first = missing.clone().next().map(|reading| (reading.series, &reading.value));
        // A channel that stays switched off is one note, not one a minute.
        if count == self.noted_missing {
            return;
        }
        let Some(others) = self.seldom.allow(at) else { return };
        self.noted_missing = count;
        let (source, n) = (self.counters.source(), readings.len());
        match first {
            Some((series, Value::None(why))) => {
                let (name, why) = (&self.registry.def(series).name, why.as_str());
                log::warn!(
                    "sensor: {source}: {count} of {n} channels have no value, {name} is {why}; {others} notes held back"
                );
            }
            _ => log::info!("sensor: {source}: all {n} channels have values again"),
        }
    }

    fn note_skipped(&mut self, skipped: u64, at: BootNanos) {
        if skipped == 0 {
            return;
        }
        self.counters.add_skipped_ticks(skipped);
        if let Some(others) = self.seldom_late.allow(at) {
            let source = self.counters.source();
            log::warn!(
                "sensor: {source}: {skipped} ticks went by unread; {others} notes held back; a longer interval helps"
            );
        }
    }

    fn discover(&mut self, now: BootNanos) {
        self.since_discovery = 0;
        let found = self.driver.discover();
        let mut before: Vec<_> = std::mem::take(&mut self.known);
        self.known = found.into_iter().map(|def| self.admit(def, now)).collect();
        before.retain(|(old, _)| !self.known.iter().any(|(def, _)| def.name == old.name));
        self.vanished.retain(|(old, _)| !self.known.iter().any(|(def, _)| def.name == old.name));
        self.vanished.extend(before.into_iter().filter_map(|(def, key)| Some((def, key?))));
        let over = self.vanished.len().saturating_sub(MAX_VANISHED);
        self.vanished.drain(..over);
    }

    fn admit(&mut self, def: SeriesDef, now: BootNanos) -> (SeriesDef, Option<SeriesKey>) {
        let key = self.registry.key(&def).ok();
        if key.is_none() {
            self.counters.add_refused(super::line_protocol::Refusal::SeriesFull);
            if self.seldom.allow(now).is_some() {
                let source = self.counters.source();
                log::warn!("sensor: {source}: no room for series {}; raise [store] max_series", def.name);
            }
        }
        (def, key)
    }
}

impl std::fmt::Debug for Poller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Poller").field("source", &self.counters.source()).finish_non_exhaustive()
    }
}

/// Polls until `stop` closes or nobody takes the readings any more. Runs on its own thread.
pub(super) fn run(
    mut poller: Poller,
    interval: Duration,
    clock: &dyn Clock,
    out: &Sender<Vec<Reading>>,
    stop: &Receiver<()>,
) {
    let mut schedule = Schedule::new(interval, clock.now().boot);
    loop {
        match schedule.ask(clock.now().boot) {
            Due::In(nanos) => {
                if nap(nanos, stop) {
                    break;
                }
            }
            Due::Tick { at, skipped } => {
                poller.note_skipped(skipped, at);
                let chunk = poller.tick(at);
                if !smol::future::block_on(hand_on(chunk, out, stop, &poller.counters)) {
                    break;
                }
            }
        }
    }
    poller.driver.fini();
}

/// Sleeps, and is true where it was woken because all is to stop.
fn nap(nanos: i64, stop: &Receiver<()>) -> bool {
    // As in `device.rs`: `smol::block_on` would have async-io's thread wake for nothing.
    let nap = Duration::from_nanos(nanos.clamp(0, MAX_NAP_NANOS).unsigned_abs());
    smol::future::block_on(or(stopped(stop), async {
        smol::Timer::after(nap).await;
        false
    }))
}

/// True once the other end of `stop` is gone; nothing is ever sent through it.
pub(super) async fn stopped(stop: &Receiver<()>) -> bool {
    while stop.recv().await.is_ok() {}
    true
}

/// Hands readings on, held back while the queue is full. False where it is time to end: told to stop, or nobody is there to take
/// them. What could not be handed on then is counted as dropped.
pub(super) async fn hand_on(
    chunk: Vec<Reading>,
    out: &Sender<Vec<Reading>>,
    stop: &Receiver<()>,
    counters: &Counters,
) -> bool {
    if chunk.is_empty() {
        return true;
    }
    let n = chunk.len() as u64;
    let chunk = match out.try_send(chunk) {
        Ok(()) => return true,
        Err(TrySendError::Full(chunk)) => chunk,
        Err(TrySendError::Closed(_)) => {
            counters.add_dropped(n);
            return false;
        }
    };
    let sent = or(async { out.send(chunk).await.is_ok() }, async { !stopped(stop).await }).await;
    if !sent {
        counters.add_dropped(n);
    }
    sent
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::reading::{Kind, Scale};

    /// Everything that a driver finds and says, once.
    pub(crate) fn polled(driver: &mut dyn Driver) -> Vec<(SeriesDef, Value)> {
        let defs = driver.discover();
        let mut values = Vec::new();
        assert_eq!(driver.poll(&mut values), Heard::AsKnown);
        assert_eq!(defs.len(), values.len(), "one value for each channel");
        defs.into_iter().zip(values).collect()
    }

    /// The names of what a driver finds.
    pub(crate) fn names(driver: &mut dyn Driver) -> Vec<String> {
        driver.discover().into_iter().map(|def| def.name).collect()
    }

    const MS: i64 = 1_000_000;

    /// Ticks are at the multiples of the interval; one that is late keeps its scheduled stamp; those that went by are
    /// counted and none is given twice.
    #[test]
    fn ticks_are_multiples_of_the_interval_and_late_ones_are_skipped() {
        let mut schedule = Schedule::new(Duration::from_millis(100), BootNanos(1230 * MS));
        let tick = |at: i64, skipped| Due::Tick { at: BootNanos(at * MS), skipped };
        assert_eq!(schedule.ask(BootNanos(1230 * MS)), Due::In(70 * MS));
        assert_eq!(schedule.ask(BootNanos(1300 * MS)), tick(1300, 0));
        assert_eq!(schedule.ask(BootNanos(1301 * MS)), Due::In(99 * MS));
        assert_eq!(schedule.ask(BootNanos(1499 * MS)), tick(1400, 0));
        assert_eq!(schedule.ask(BootNanos(1500 * MS)), tick(1500, 0));
        assert_eq!(schedule.ask(BootNanos(1999 * MS)), tick(1900, 3));
        assert_eq!(schedule.ask(BootNanos(1999 * MS)), Due::In(MS));
    }

    /// A driver that does what the test says.
    struct Scripted {
        lists: Vec<Vec<&'static str>>,
        answers: Vec<(Heard, Vec<Value>)>,
        discoveries: Arc<std::sync::atomic::AtomicU32>,
    }

    fn def(name: &str) -> SeriesDef {
        SeriesDef { name: name.to_owned(), unit: String::new(), kind: Kind::Int, scale: Scale::ONE }
    }

    impl Driver for Scripted {
        fn discover(&mut self) -> Vec<SeriesDef> {
            self.discoveries.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let list = if self.lists.len() > 1 { self.lists.remove(0) } else { self.lists[0].clone() };
            list.into_iter().map(def).collect()
        }

        fn poll(&mut self, values: &mut Vec<Value>) -> Heard {
            let (heard, answer) = if self.answers.len() > 1 { self.answers.remove(0) } else { self.answers[0].clone() };
            values.extend(answer);
            heard
        }
    }

    struct Bench {
        poller: Poller,
        registry: Arc<Registry>,
        counters: Arc<Counters>,
        discoveries: Arc<std::sync::atomic::AtomicU32>,
    }

    fn bench(lists: &[&[&'static str]], answers: &[(Heard, &[Value])], max_series: u32) -> Bench {
        let discoveries = Arc::new(std::sync::atomic::AtomicU32::new(0));
        let lists = lists.iter().map(|list| list.to_vec()).collect();
        let answers = answers.iter().map(|(heard, values)| (*heard, values.to_vec())).collect();
        let driver = Box::new(Scripted { lists, answers, discoveries: discoveries.clone() });
        let (registry, counters) = (Arc::new(Registry::new(max_series)), Arc::new(Counters::new("test")));
        let poller = Poller::new(driver, Duration::from_secs(1), registry.clone(), counters.clone());
        Bench { poller, registry, counters, discoveries }
    }

    impl Bench {
        fn tick(&mut self, at: i64) -> Vec<(String, Value)> {
            let readings = self.poller.tick(BootNanos(at));
            assert!(readings.iter().all(|r| r.stamp == Stamp::Boot(BootNanos(at))));
            readings.into_iter().map(|r| (self.registry.def(r.series).name.clone(), r.value)).collect()
        }

        fn discoveries(&self) -> u32 {
            self.discoveries.load(std::sync::atomic::Ordering::Relaxed)
        }
    }

    /// A sensor that is pulled out goes on as a reading with a reason, and is back when it is back.
    #[test]
    fn a_vanished_sensor_is_a_reading_with_a_reason_until_it_is_back() {
        let (known, changed) = (Heard::AsKnown, Heard::Changed);
        let (one, two) = (Value::Int(1), Value::Int(2));
        let absent = Value::None(NoValue::Absent);
        let mut bench = bench(
            &[&["a/v", "b/v"], &["a/v"], &["a/v", "b/v"]],
            &[
                (known, &[one.clone(), two.clone()]),
                (changed, &[]),
                (known, std::slice::from_ref(&one)),
                (changed, &[]),
                (known, &[one.clone(), two.clone()]),
            ],
            10,
        );
        let reading = |name: &str, value: &Value| (name.to_owned(), value.clone());
        assert_eq!(bench.tick(1), [reading("a/v", &one), reading("b/v", &two)]);
        assert_eq!(bench.tick(2), [reading("a/v", &one), reading("b/v", &absent)]);
        assert_eq!(bench.tick(3), [reading("a/v", &one), reading("b/v", &two)]);
        let seen = bench.counters.snapshot();
        assert_eq!((seen.readings, seen.missing), (6, 1));
    }

    /// New hardware is found within a minute, and a missing channel is looked for at once, but not at every tick.
    #[test]
    fn discovery_is_repeated_once_a_minute_and_when_something_is_missing() {
        let mut quiet = bench(&[&["a/v"]], &[(Heard::AsKnown, &[Value::Int(1)])], 10);
        (0..120).for_each(|at| drop(quiet.tick(at)));
        assert_eq!(quiet.discoveries(), 2);
        let mut missing = bench(&[&["a/v"]], &[(Heard::AsKnown, &[Value::None(NoValue::Absent)])], 10);
        (0..120).for_each(|at| drop(missing.tick(at)));
        assert_eq!(missing.discoveries(), 12);
    }

    /// Where `max_series` is reached the other channels go on and the refusal is counted.
    #[test]
    fn a_channel_without_room_is_counted_and_the_others_go_on() {
        let mut bench = bench(&[&["a/v", "b/v"]], &[(Heard::AsKnown, &[Value::Int(1), Value::Int(2)])], 1);
        assert_eq!(bench.tick(1), [("a/v".to_owned(), Value::Int(1))]);
        assert_eq!(bench.counters.snapshot().refused.get("series-full"), Some(&1));
    }

    /// A driver that never agrees with itself neither loops nor makes readings up.
    #[test]
    fn a_list_that_always_changes_gives_failed_readings() {
        let mut bench = bench(&[&["a/v"]], &[(Heard::Changed, &[Value::Int(1)])], 10);
        assert_eq!(bench.tick(1), [("a/v".to_owned(), Value::None(NoValue::Failed))]);
    }

    /// With a full queue and nobody taking, a stop ends the wait and what was in hand is counted.
    #[test]
    fn a_stop_ends_the_wait_for_a_full_queue() {
        let (out, kept) = smol::channel::bounded(1);
        let (stop, stopped) = smol::channel::bounded::<()>(1);
        let counters = Counters::new("test");
        let reading = Reading { series: SeriesKey(0), stamp: Stamp::Boot(BootNanos(1)), value: Value::Int(1) };
        assert!(smol::block_on(hand_on(vec![reading.clone()], &out, &stopped, &counters)));
        drop(stop);
        assert!(!smol::block_on(hand_on(vec![reading; 3], &out, &stopped, &counters)));
        assert_eq!((counters.snapshot().dropped, kept.len()), (3, 1));
    }
}
