//! The account: what the device ever committed, what the fleet ever said that it holds, and the judgement at the end.
//!
//! What enters: each commit with its readings, each ack as it is published, the replicas' files. What leaves: nothing, or
//! what is wrong. Readings are not kept but summed up, per sequence number, in a way that knows no order: the number of
//! them and the sum of one hash a reading of (series' name, clock and boot, stamp, value). A segment of the replica must be
//! worth exactly the commits that its range covers, so a reading that is lost, changed, doubled or made up shows.

use super::dice::mix;
use crate::batch::{Registry, Track, TrackClock};
use crate::fleet::replica;
use crate::fleet::replica::account::Beside;
use crate::reading::ranges::RangeSet;
use crate::reading::{BootId, SegmentSeq, SeqRange};
use crate::segment::{Content, Loss, LossReason, Readings, TimelineClock, Values, decode};
use crate::store::reader::{HeldStore, Reader};
use crate::wire::{Ack, StoreUuid};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};

/// Readings, summed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Worth {
    pub(super) readings: u64,
    sum: u64,
}

/// What is known of one store id.
#[derive(Debug, Default)]
struct Line {
    commits: BTreeMap<u64, Worth>,
    /// Named by any ack since the fleet's disk was put back.
    named: RangeSet,
    /// Named by any ack at all.
    ever_named: RangeSet,
    /// Named since it was last looked whether the file has it.
    unseen: RangeSet,
}

/// See the room.
#[derive(Default)]
pub(super) struct Account {
    lines: BTreeMap<StoreUuid, Line>,
    /// Replicas that are being looked at.
    beside: BTreeMap<StoreUuid, Beside>,
    /// The fleet's disk was put back to an older copy: what the device let go on the strength of an ack may be gone.
    put_back: bool,
    acks: u64,
}

/// What lies in the fleet's files.
#[derive(Debug, Default)]
struct Replica {
    data: Vec<(SeqRange, Worth)>,
    losses: Vec<(SeqRange, Loss)>,
}

impl Worth {
    fn add(&mut self, reading: u64) {
        self.readings += 1;
        self.sum = self.sum.wrapping_add(mix(reading));
    }

    fn plus(self, other: Self) -> Self {
        Self { readings: self.readings + other.readings, sum: self.sum.wrapping_add(other.sum) }
    }
}

impl Account {
    /// `tracks` are on the medium under `seq`.
    pub(super) fn committed(
        &mut self,
        store: StoreUuid,
        seq: SegmentSeq,
        boot: BootId,
        tracks: &[Track],
        defs: &Registry,
    ) {
        let mut worth = Worth::default();
        for track in tracks {
            let clock = match track.clock {
                TrackClock::Boot => u64::from(boot.0) + 1,
                TrackClock::Utc => 0,
            };
            let column = column(&defs.def(track.key).name, clock);
            sum_up(&mut worth, column, &track.stamps, &track.values);
        }
        self.lines.entry(store).or_default().commits.insert(seq.0, worth);
    }

    /// How many readings were committed, and in how many commits.
    pub(super) fn sizes(&self) -> (u64, u64) {
        let all = self.lines.values().flat_map(|line| line.commits.values());
        all.fold((0, 0), |(readings, commits), worth| (readings + worth.readings, commits + 1))
    }

    /// The receiver publishes `ack`. At every fourth it is looked whether the file of the store holds what is news since.
    pub(super) fn acked(&mut self, ack: &Ack, data: &Path) -> Result<(), String> {
        self.acks += 1;
        for stated in &ack.stores {
            let held = stated.held();
            let line = self.lines.entry(stated.store).or_default();
            let high = line.commits.last_key_value().map_or(0, |(seq, _)| *seq);
            if held.high().0 > high {
                return Err(format!(
                    "an ack names {} of store {}, which committed up to {high}",
                    held.high(),
                    stated.store
                ));
            }
            if !stated.conflicts.is_empty() {
                return Err(format!(
                    "a conflict in {:?} of store {}, which has no twin",
                    stated.conflicts, stated.store
                ));
            }
            for range in held.iter() {
                line.unseen.extend(line.named.gaps(range).iter());
            }
            line.named.extend(held.iter());
            line.ever_named.extend(held.iter());
            if self.acks % 4 == 0 {
                let unseen = std::mem::take(&mut line.unseen);
                self.check_news(stated.store, &unseen, data)?;
            }
        }
        Ok(())
    }

    /// Whether the file of `store` holds what acks have just named.
    fn check_news(&mut self, store: StoreUuid, news: &RangeSet, data: &Path) -> Result<(), String> {
        let beside = match self.beside.entry(store) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(place) => {
                place.insert(Beside::open(&path_of(data, store)).map_err(|e| format!("the replica: {e}"))?)
            }
        };
        for range in news.iter() {
            let held = beside.held(range).map_err(|e| format!("the replica: {e}"))?;
            if !held.covers(range) {
                return Err(format!(
                    "acks named {range} of store {store}, and of that the replica holds only {held:?}"
                ));
            }
        }
        Ok(())
    }

    /// The fleet's disk is as it was at some earlier time: nothing that was said since holds.
    pub(super) fn put_back(&mut self) {
        self.put_back = true;
        self.lines.values_mut().for_each(|line| (line.named, line.unseen) = Default::default());
    }

    /// The receiver's files are no longer what they were.
    pub(super) fn look_away(&mut self) {
        self.beside.clear();
    }

    /// The receiver starts after a power cut: what any ack named must be there.
    pub(super) fn check_all_named(&self, data: &Path) -> Result<(), String> {
        self.lines.keys().try_for_each(|store| self.check_named(*store, data))
    }

    fn check_named(&self, store: StoreUuid, data: &Path) -> Result<(), String> {
        let Some(line) = self.lines.get(&store).filter(|line| !line.named.is_empty()) else { return Ok(()) };
        let held = replica::account::read(&path_of(data, store)).map_err(|e| format!("the replica: {e}"))?.held;
        if held.covers_all(&line.named) {
            return Ok(());
        }
        let missing: Vec<_> = line.named.iter().filter(|range| !held.covers(*range)).collect();
        Err(format!("acks named {missing:?} of store {store}, and the replica holds only {held:?}"))
    }

    /// What the replica of `store` holds, for a report.
    pub(super) fn held_of(&self, store: StoreUuid, data: &Path) -> String {
        replica::account::read(&path_of(data, store)).map_or_else(|e| e.to_string(), |account| format!("{account:?}"))
    }

    /// The judgement, when all has had time to arrive.
    pub(super) fn judge(&self, data: &Path) -> Result<Judged, String> {
        let mut judged = Judged::default();
        for (store, line) in &self.lines {
            if line.commits.is_empty() {
                continue;
            }
            let replica = Replica::read(&path_of(data, *store), *store)?;
            line.judge(&replica, self.put_back, &mut judged).map_err(|why| format!("store {store}: {why}"))?;
        }
        Ok(judged)
    }
}

/// Figures of a judgement.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Judged {
    pub(super) delivered: u64,
    pub(super) lost: u64,
    pub(super) segments: u64,
    pub(super) losses: u64,
}

impl Line {
    fn worth(&self, range: SeqRange) -> Worth {
        let within = self.commits.range(range.first.0..=range.last.0);
        within.fold(Worth::default(), |sum, (_, worth)| sum.plus(*worth))
    }

    fn judge(&self, replica: &Replica, put_back: bool, judged: &mut Judged) -> Result<(), String> {
        let mut covered = RangeSet::new();
        for range in replica.data.iter().map(|(range, _)| *range).chain(replica.losses.iter().map(|(range, _)| *range))
        {
            if covered.meets(range) {
                return Err(format!("{range} is held twice"));
            }
            covered.insert(range);
        }
        for (range, worth) in &replica.data {
            let committed = self.worth(*range);
            if *worth != committed {
                return Err(format!("{range} is worth {worth:?} at the replica; {committed:?} was committed"));
            }
            judged.delivered += worth.readings;
        }
        for (range, loss) in &replica.losses {
            self.judge_loss(*range, loss, put_back)?;
            judged.lost += self.worth(*range).readings;
        }
        judged.segments += replica.data.len() as u64;
        judged.losses += replica.losses.len() as u64;
        let high = self.commits.last_key_value().map_or(0, |(seq, _)| *seq);
        if covered.cumulative().0 != high || covered.high().0 != high {
            return Err(format!("1..={high} was committed, and the replica accounts for {covered:?}"));
        }
        Ok(())
    }

    /// A loss must have happened, and count what it covers.
    fn judge_loss(&self, range: SeqRange, loss: &Loss, put_back: bool) -> Result<(), String> {
        let worth = self.worth(range);
        let real = match loss.reason {
            LossReason::Retention => true,
            LossReason::Expired => put_back && self.ever_named.covers(range),
            LossReason::Void => worth.readings == 0,
            LossReason::Overflow | LossReason::Damaged => false,
        };
        if !real {
            return Err(format!("{range} is said to be lost ({:?}), which did not happen", loss.reason));
        }
        match loss.readings {
            Some(said) if said != worth.readings => {
                Err(format!("{range} is said to have lost {said} readings; it is {}", worth.readings))
            }
            _ => Ok(()),
        }
    }
}

impl Replica {
    fn read(path: &Path, store: StoreUuid) -> Result<Self, String> {
        let reader = Reader::open(path).map_err(|e| format!("the replica cannot be read: {e}"))?;
        let (mut replica, mut wrong) = (Self::default(), None);
        let read = reader.each_body(|body| {
            if let Err(why) = replica.take(body.store, body.bytes, store) {
                wrong.get_or_insert(why);
            }
        });
        read.map_err(|e| format!("the replica cannot be read: {e}"))?;
        wrong.map_or(Ok(replica), Err)
    }

    fn take(&mut self, of: &HeldStore, body: &[u8], store: StoreUuid) -> Result<(), String> {
        if of.variant != 0 || of.uuid != store.to_string() {
            return Err(format!("history {} of store {} in the replica of {store}", of.variant, of.uuid));
        }
        let segment = decode(body).map_err(|e| format!("a segment of the replica: {e}"))?;
        match segment.content {
            Content::Loss(loss) => self.losses.push((segment.range, loss)),
            Content::Data { readings, .. } => self.data.push((segment.range, worth_of(&readings, of)?)),
        }
        Ok(())
    }
}

fn worth_of(readings: &Readings, of: &HeldStore) -> Result<Worth, String> {
    let mut worth = Worth::default();
    for of_series in &readings.columns {
        let Some(def) = of.series.get(&of_series.series) else {
            return Err(format!("series {} has no name", of_series.series.0));
        };
        let timeline = &readings.timelines[of_series.timeline];
        let clock = match timeline.clock {
            TimelineClock::Boot(boot) if !of.boots.contains(&boot) => {
                return Err(format!("boot {} is not known", boot.0));
            }
            TimelineClock::Boot(boot) => u64::from(boot.0) + 1,
            TimelineClock::Utc => 0,
        };
        sum_up(&mut worth, column(&def.name, clock), &timeline.stamps, &of_series.values);
    }
    Ok(worth)
}

fn column(name: &str, clock: u64) -> u64 {
    name.bytes().fold(mix(clock), |word, byte| mix(word ^ u64::from(byte)))
}

fn sum_up(worth: &mut Worth, column: u64, stamps: &[i64], values: &Values) {
    for (at, stamp) in stamps.iter().enumerate() {
        let value = match values {
            Values::Int(all) => all[at] as u64,
            Values::Float(all) => all[at].to_bits(),
            Values::Bool(all) => u64::from(all[at]),
            Values::Text(all) => column_text(&all[at]),
        };
        worth.add(mix(column ^ mix(*stamp as u64)).wrapping_add(value));
    }
}

fn column_text(text: &str) -> u64 {
    column(text, 7)
}

fn path_of(data: &Path, store: StoreUuid) -> PathBuf {
    data.join(super::DEVICE).join(format!("{store}.db"))
}
