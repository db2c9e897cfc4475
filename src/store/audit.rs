//! Is a file what it should be, and what of it can be read? What `varved verify` asks.
//!
//! What enters: an open [`Reader`]. What leaves: an [`Audit`]: figures, gaps, losses and everything that is wrong. Every body is
//! decoded to its last value and held against its row, the catalogue and its neighbours. Nothing is repaired. Damage ends
//! nothing: what can still be reached is looked at, from both ends of the file.

use super::reader::{Held, HeldStore, ReadError, Reader};
use super::rollup::sum;
use super::scan::range_of;
use crate::reading::SeqRange;
use crate::segment::{Loss, View};
use rusqlite::{OptionalExtension, Row};

/// How many problems, gaps and losses are named; the rest are counted.
pub const MAX_NAMED: usize = 50;

/// What a file was found to be.
#[derive(Debug, Default)]
pub struct Audit {
    /// One for each store in it.
    pub stores: Vec<StoreAudit>,
    /// Everything that is wrong, in words; gaps are not among them.
    pub problems: Named<String>,
}

/// A list that is named up to [`MAX_NAMED`] and counted beyond.
#[derive(Debug)]
pub struct Named<T> {
    /// How many there are.
    pub count: u64,
    /// The first of them.
    pub first: Vec<T>,
}

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self { count: 0, first: Vec::new() }
    }
}

impl<T> Named<T> {
    fn push(&mut self, one: T) {
        self.count += 1;
        if self.first.len() < MAX_NAMED {
            self.first.push(one);
        }
    }
}

/// One store of the file.
#[derive(Debug, Default)]
pub struct StoreAudit {
    /// Its uuid.
    pub uuid: String,
    /// 0, or which of several contents under that uuid.
    pub variant: i64,
    /// Segments that are as they should be, losses included.
    pub sound: u64,
    /// Readings in them.
    pub readings: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// Segments that are not.
    pub unsound: u64,
    /// The highest sequence number.
    pub high: u64,
    /// Ranges with an account of what is lost.
    pub losses: Named<(SeqRange, Loss)>,
    /// Ranges with neither data, nor a loss, nor the fleet's word that it has them.
    pub gaps: Named<SeqRange>,
}

impl Audit {
    /// Whether all is as it should be: nothing wrong, no gap. Losses are accounted for, so they are no fault.
    pub fn is_sound(&self) -> bool {
        self.problems.count == 0 && self.stores.iter().all(|store| store.gaps.count == 0)
    }
}

/// Looks at everything in the first file of `reader`.
///
/// # Errors
/// Where not even the catalogue can be read. All other damage is in the audit.
pub fn audit(reader: &Reader) -> Result<Audit, ReadError> {
    let mut audit = Audit::default();
    let conn = reader.connection();
    let _one_state = conn.unchecked_transaction().map_err(|e| reader.sql("read", e))?;
    check_integrity(reader, &mut audit);
    let held = reader.held()?;
    for store in &held.stores {
        let acked = acked(reader, store.no).unwrap_or_else(|e| {
            audit.problems.push(format!("table ack: {e}"));
            Vec::new()
        });
        let walk = Walk { reader, store, acked };
        let of = walk.run(&mut audit.problems);
        audit.stores.push(of);
    }
    strays(reader, &held, &mut audit);
    match sum::adds_up(conn) {
        Ok(true) => {}
        Ok(false) => {
            audit.problems.push("figures of hours or days have changed or gone since they were written".into())
        }
        Err(error) => audit.problems.push(format!("the figures of hours and days can't be read: {error}")),
    }
    Ok(audit)
}

/// What SQLite itself finds: pages, trees, indexes.
fn check_integrity(reader: &Reader, audit: &mut Audit) {
    let mut check = || -> rusqlite::Result<()> {
        let mut statement = reader.connection().prepare("PRAGMA integrity_check(20)")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let words: String = row.get(0)?;
            if words != "ok" {
                audit.problems.push(format!("SQLite: {}", words.trim().replace('\n', "; ")));
            }
        }
        Ok(())
    };
    if let Err(error) = check() {
        audit.problems.push(format!("SQLite's own check ended early: {error}"));
    }
}

/// Segments of a store that the catalogue doesn't have.
fn strays(reader: &Reader, held: &Held, audit: &mut Audit) {
    let known: Vec<String> = held.stores.iter().map(|store| store.no.to_string()).collect();
    let sql = format!("SELECT count(*) FROM segment WHERE (id >> 48) NOT IN ({})", known.join(", "));
    match reader.connection().query_row(&sql, [], |row| row.get::<_, i64>(0)) {
        Ok(0) => {}
        Ok(count) => audit.problems.push(format!("{count} segments belong to no store of the file")),
        Err(error) => audit.problems.push(format!("table segment: {error}")),
    }
}

fn acked(reader: &Reader, store: i64) -> rusqlite::Result<Vec<(u64, u64)>> {
    let sql = "SELECT first_seq, last_seq FROM ack WHERE store = ?1 ORDER BY first_seq";
    let mut statement = reader.connection().prepare(sql)?;
    let seq = |row: &Row<'_>, at| Ok::<_, rusqlite::Error>(row.get::<_, i64>(at)?.unsigned_abs());
    statement.query_map([store], |row| Ok((seq(row, 0)?, seq(row, 1)?)))?.collect()
}

/// A walk along the segments of one store.
struct Walk<'a> {
    reader: &'a Reader,
    store: &'a HeldStore,
    acked: Vec<(u64, u64)>,
}

/// A whole row of `segment`.
struct Stored {
    id: i64,
    last: i64,
    kind: i64,
    boots: (Option<i64>, Option<i64>),
    boottime: (Option<i64>, Option<i64>),
    utc: (Option<i64>, Option<i64>),
    n: i64,
    body: Vec<u8>,
}

impl Walk<'_> {
    fn run(&self, problems: &mut Named<String>) -> StoreAudit {
        let mut of = StoreAudit { uuid: self.store.uuid.clone(), variant: self.store.variant, ..StoreAudit::default() };
        let (low, high) = (self.store.no << 48, (self.store.no + 1) << 48);
        let mut reached = low - 1;
        loop {
            match self.step(reached, high, true) {
                Ok(Some(stored)) => {
                    reached = stored.id;
                    self.take(&stored, &mut of, problems, true);
                }
                Ok(None) => {
                    self.gap(of.high + 1, of.high, &mut of);
                    return of;
                }
                Err(error) => {
                    problems
                        .push(format!("store {}: the table breaks off behind segment {}: {error}", of.uuid, of.high));
                    break;
                }
            }
        }
        // From the other end, up to the damage: what lies between is the reach of it.
        let mut back = high;
        while let Ok(Some(stored)) = self.step(reached, back, false) {
            back = stored.id;
            self.take(&stored, &mut of, problems, false);
        }
        of
    }

    /// The next row between two ids, neither included.
    fn step(&self, after: i64, before: i64, forward: bool) -> rusqlite::Result<Option<Stored>> {
        let order = if forward { "ASC" } else { "DESC" };
        let sql = format!(
            "SELECT id, last_seq, kind, boot_min, boot_max, boottime_min, boottime_max, utc_min, utc_max, n, body \
             FROM segment WHERE id > ?1 AND id < ?2 ORDER BY id {order} LIMIT 1"
        );
        let conn = self.reader.connection();
        conn.prepare_cached(&sql)?
            .query_row([after, before], |row| {
                Ok(Stored {
                    id: row.get(0)?,
                    last: row.get(1)?,
                    kind: row.get(2)?,
                    boots: (row.get(3)?, row.get(4)?),
                    boottime: (row.get(5)?, row.get(6)?),
                    utc: (row.get(7)?, row.get(8)?),
                    n: row.get(9)?,
                    body: row.get(10)?,
                })
            })
            .optional()
    }

    /// One segment: itself, and where it stands beside the one before it.
    fn take(&self, stored: &Stored, of: &mut StoreAudit, problems: &mut Named<String>, forward: bool) {
        let Some(range) = range_of(stored.id, stored.last) else {
            of.unsound += 1;
            let first = stored.id & ((1 << 48) - 1);
            problems.push(format!("store {}: segment {first}..={} is no range", of.uuid, stored.last));
            return;
        };
        if forward {
            if range.first.0 <= of.high {
                problems.push(format!("store {}: segment {range} overlaps what ends at {}", of.uuid, of.high));
            }
            self.gap(of.high + 1, range.first.0.saturating_sub(1), of);
        }
        of.high = of.high.max(range.last.0);
        match self.check(stored, range) {
            Ok(loss) => {
                of.sound += 1;
                of.readings += stored.n.unsigned_abs();
                of.bytes += stored.body.len() as u64;
                if let Some(loss) = loss {
                    of.losses.push((range, loss));
                }
            }
            Err(why) => {
                of.unsound += 1;
                problems.push(format!("store {}: segment {range}: {why}", of.uuid));
            }
        }
    }

    /// The body of a segment against its row and the catalogue. The account of a loss, where it is one.
    fn check(&self, stored: &Stored, range: SeqRange) -> Result<Option<Loss>, String> {
        let view = View::parse(&stored.body).map_err(|e| e.to_string())?;
        let differs = |what: &str| Err(format!("its row and its body name different {what}"));
        if view.range() != range {
            return Err(format!("its body says that it is {}", view.range()));
        }
        if view.is_loss() != (stored.kind == 1) {
            return differs("kinds");
        }
        if i64::try_from(view.n()).ok() != Some(stored.n) {
            return differs("counts of readings");
        }
        let bounds = view.bounds();
        let boot = |boot: Option<crate::reading::BootId>| boot.map(|boot| i64::from(boot.0));
        if (boot(bounds.boot_min), boot(bounds.boot_max)) != stored.boots {
            return differs("boots");
        }
        if (bounds.boottime_min.map(|at| at.0), bounds.boottime_max.map(|at| at.0)) != stored.boottime {
            return differs("bounds of boottime");
        }
        if (bounds.utc_min.map(|at| at.0), bounds.utc_max.map(|at| at.0)) != stored.utc {
            return differs("bounds of UTC");
        }
        let (series, boots) = view.cites();
        if let Some(series) = series.iter().find(|series| !self.store.series.contains_key(series)) {
            return Err(format!("it cites series {}, which the file does not have", series.0));
        }
        if let Some(boot) = boots.iter().find(|boot| !self.store.boots.contains(boot)) {
            return Err(format!("it cites boot {}, which the file does not have", boot.0));
        }
        let loss = view.loss().copied();
        view.into_segment().map_err(|e| e.to_string())?;
        Ok(loss)
    }

    /// Notes what of `first..=last` the fleet has not said to hold.
    fn gap(&self, first: u64, last: u64, of: &mut StoreAudit) {
        let mut at = first;
        for (from, to) in &self.acked {
            if at > last {
                return;
            }
            if *to < at || *from > last {
                continue;
            }
            if let Some(gap) = SeqRange::new(at, from.saturating_sub(1)) {
                of.gaps.push(gap);
            }
            at = to.saturating_add(1);
        }
        if let Some(gap) = SeqRange::new(at, last) {
            of.gaps.push(gap);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    fn found(spoil: &str) -> Audit {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("varved.db");
        let writer = sample::store_at(&path);
        writer.execute_batch(spoil).expect("the damage");
        audit(&Reader::open(&path).expect("a reader")).expect("an audit")
    }

    /// A sound file is called sound, with its figures.
    #[test]
    fn a_sound_file_is_sound() {
        let audit = found("");
        assert!(audit.is_sound(), "{audit:?}");
        let store = &audit.stores[0];
        assert_eq!((store.sound, store.unsound, store.readings, store.high), (5, 0, sample::READINGS as u64, 7));
        assert_eq!(store.losses.first[0].0.to_string(), "2..=2");
    }

    /// Each kind of damage is found and named, and costs one segment.
    #[test]
    fn each_damage_is_named() {
        let flip = "UPDATE segment SET body = CAST(substr(body, 1, 9) || x'55' || substr(body, 11) AS BLOB) WHERE first_seq = 6";
        for (spoil, words) in [
            (flip, "segment 6..=6: "),
            ("UPDATE segment SET n = n + 1 WHERE first_seq = 7", "different counts"),
            ("UPDATE segment SET kind = 1 WHERE first_seq = 7", "different kinds"),
            ("UPDATE segment SET last_seq = 8 WHERE first_seq = 7", "its body says that it is 7..=7"),
            ("UPDATE segment SET id = 1 << 48 WHERE first_seq = 1", "segment 0..=1 is no range"),
            ("UPDATE segment SET boot_min = 1 WHERE first_seq = 7", "different boots"),
            ("UPDATE segment SET boottime_max = 1 WHERE first_seq = 7", "different bounds of boottime"),
            ("UPDATE segment SET utc_max = 1 WHERE first_seq = 3", "different bounds of UTC"),
            ("DELETE FROM series WHERE id = 4", "cites series 4"),
            ("DELETE FROM anchor WHERE boot = 2; DELETE FROM boot WHERE id = 2", "cites boot 2"),
            ("UPDATE segment SET id = id + (5 << 48) WHERE first_seq = 7", "belong to no store"),
        ] {
            let audit = found(spoil);
            assert!(!audit.is_sound(), "{spoil}");
            let named = audit.problems.first.iter().any(|problem| problem.contains(words));
            assert!(named, "{spoil}: {:?}", audit.problems.first);
        }
    }

    /// A range with neither data nor a loss is a gap; what the fleet says it has is none.
    #[test]
    fn gaps_are_what_nobody_accounts_for() {
        let gaps =
            |spoil| -> Vec<String> { found(spoil).stores[0].gaps.first.iter().map(ToString::to_string).collect() };
        assert_eq!(gaps("DELETE FROM segment WHERE first_seq = 3"), ["3..=5"]);
        assert_eq!(gaps("DELETE FROM segment WHERE first_seq IN (1, 2, 6)"), ["1..=2", "6..=6"]);
        let acked =
            "DELETE FROM segment WHERE first_seq IN (1, 3); INSERT INTO ack VALUES (1, 1, 1), (1, 4, 4), (1, 7, 9)";
        assert_eq!(gaps(acked), ["3..=3", "5..=5"]);
        assert!(!found("DELETE FROM segment WHERE first_seq = 3").is_sound());
    }

    /// A page of garbage in the middle: SQLite says so, and the segments on both sides of it are still found.
    #[test]
    fn both_sides_of_a_damaged_page_are_read() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("varved.db");
        let writer = sample::store_at(&path);
        for seq in 8..400 {
            sample::add(&writer, &sample::filler(seq));
        }
        writer.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("a checkpoint");
        let sql =
            "SELECT pageno FROM dbstat WHERE name = 'segment' AND pagetype = 'leaf' ORDER BY path LIMIT 1 OFFSET 2";
        let page = writer.query_row(sql, [], |row| row.get::<_, i64>(0));
        drop(writer);
        let mut bytes = std::fs::read(&path).expect("the file");
        // Where dbstat isn't built in, the middle of the file is as good: it is full of segments.
        let page = page.map_or(bytes.len() / 4096 / 2, |page| usize::try_from(page).expect("a page"));
        let at = (page - 1) * 4096;
        bytes[at..at + 4096].fill(0xa5);
        std::fs::write(&path, bytes).expect("the damage");
        let audit = audit(&Reader::open(&path).expect("a reader")).expect("an audit");
        let store = &audit.stores[0];
        assert!(!audit.is_sound() && store.high == 399, "{:?}", audit.problems.first);
        assert!((200..397).contains(&store.sound), "{} sound", store.sound);
    }
}
