//! Where a segment belongs: it is held against what its device's history has of the same numbers, and against the others.
//!
//! What enters: a checked segment, the history that its device is at. What leaves: what became of it, within the transaction
//! that [`Replica::commit`] ends. What is compared is bounded, whatever a device sends.

use super::history::History;
use super::{Arrived, Known, Placed, Replica};
use crate::clock::UtcNanos;
use crate::fleet::filing::{Filing, Weighing, part_of};
use crate::fleet::refusal::Refusal;
#[cfg(test)]
use crate::reading::SegmentSeq;
use crate::reading::SeqRange;
use crate::segment::{self, Content, Segment, View};
use crate::store::StoreError;
use rusqlite::Connection;

/// A segment that would have to be compared with more than this is kept as another history instead.
const MAX_COMPARED_ROWS: usize = 300_000;
const MAX_COMPARED_BYTES: u64 = 64 << 20;

/// A loss over more segments than this is not compared with them: their numbers are enough to see what is news in it.
const MAX_LOST_ROWS: usize = 16;

#[cfg(test)]
thread_local! {
    /// A planted fault: on this thread, readings that come again are put beside those that are held.
    pub(crate) static FORGETFUL: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// A segment with its content.
#[derive(Clone, Copy)]
struct Weighed<'a> {
    view: &'a View,
    body: &'a [u8],
    content: &'a Segment,
}

impl Replica {
    pub(super) fn place_in_line(
        &mut self,
        device: &str,
        known: &Known,
        segment: Arrived<'_>,
    ) -> Result<Placed, StoreError> {
        let line = self.line(device);
        if !self.histories[line].names_agree(segment.view) {
            return Ok(Placed::Refused(Refusal::OtherNames));
        }
        let Ok(content) = segment::decode(segment.body) else { return Ok(Placed::Refused(Refusal::Segment)) };
        let arrived = Weighed { view: segment.view, body: segment.body, content: &content };
        self.saw(segment.view.range().last)?;
        match self.weigh(line, arrived)? {
            Filing::Conflict => self.place_beside(device, known, line, arrived),
            #[cfg(test)]
            Filing::Duplicate if FORGETFUL.get() => self.file_again(line, arrived).map(|()| Placed::Stored),
            Filing::Duplicate => Ok(Placed::Duplicate),
            _ if self.stands_elsewhere(line, arrived)? => Ok(Placed::Duplicate),
            filing => self.keep(line, arrived, filing).map(|()| Placed::Stored),
        }
    }

    /// In conflict with the device's history: the same again elsewhere, or in another of its histories, or a new one.
    fn place_beside(
        &mut self,
        device: &str,
        known: &Known,
        line: usize,
        arrived: Weighed<'_>,
    ) -> Result<Placed, StoreError> {
        if self.stands_elsewhere(line, arrived)? {
            return Ok(Placed::Duplicate);
        }
        let others: Vec<usize> = self.own_histories(device, line).collect();
        for other in others {
            if !self.histories[line].agrees(&self.histories[other], arrived.view) {
                continue;
            }
            let filing = self.weigh(other, arrived)?;
            if filing != Filing::Conflict {
                self.set_line(device, other)?;
                return self.keep(other, arrived, filing).map(|()| Placed::Back);
            }
        }
        let catalog = self.histories[line].catalog_page(self.uuid, known);
        if !self.has_room(&catalog) {
            return Ok(Placed::Refused(Refusal::CatalogFull));
        }
        let Some(new) = self.begin_history(device, UtcNanos(0))? else {
            return Ok(Placed::Refused(Refusal::Histories));
        };
        self.histories[new].learn(&self.conn, &catalog)?;
        self.set_line(device, new)?;
        self.keep(new, arrived, Filing::New).map(|()| Placed::Beside)
    }

    /// Whether another history holds the same; if so, that is written down for this one.
    fn stands_elsewhere(&mut self, line: usize, arrived: Weighed<'_>) -> Result<bool, StoreError> {
        for other in (0..self.histories.len()).filter(|h| *h != line) {
            let same_names = self.histories[line].agrees(&self.histories[other], arrived.view);
            if same_names && self.weigh(other, arrived)? == Filing::Duplicate {
                self.histories[line].remember_elsewhere(&self.conn, arrived.view.range())?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Compares with what the history holds of the same numbers. Equal bytes are not decoded.
    fn weigh(&self, history: usize, arrived: Weighed<'_>) -> Result<Filing, StoreError> {
        let history = &self.histories[history];
        let range = arrived.view.range();
        if !history.held.meets(range) {
            return Ok(Filing::New);
        }
        let mut weighing = Weighing::new(arrived.content);
        if weighing.is_of_an_absence() && history.overlapping(&self.conn, range, MAX_LOST_ROWS)?.len() == MAX_LOST_ROWS
        {
            history.held.overlapping(range).for_each(|held| weighing.against_numbers(held));
            return Ok(weighing.verdict());
        }
        let held = history.overlapping(&self.conn, range, MAX_COMPARED_ROWS)?;
        let bytes: u64 = held.iter().map(|row| row.bytes).sum();
        if held.len() >= MAX_COMPARED_ROWS || bytes > MAX_COMPARED_BYTES {
            return Ok(Filing::Conflict);
        }
        // What is around them has all their readings. A few bytes of each may say very many, so they are counted before
        // they are decoded.
        let around = held.iter().filter(|row| range.covers(&row.range) && row.range != range);
        let readings: u64 = around.map(|row| row.readings).sum();
        if !weighing.is_of_an_absence() && readings > arrived.view.n() as u64 {
            return Ok(Filing::Conflict);
        }
        for row in held {
            if weighing.is_a_conflict() {
                // No more of what a device may make costly to read.
                break;
            }
            let body = history.body(&self.conn, row.range.first)?;
            if body == arrived.body {
                return Ok(Filing::Duplicate);
            }
            match segment::decode(&body) {
                Ok(held) => weighing.against(&held),
                Err(error) => {
                    log::warn!("replica {}: {} is damaged ({error})", self.path.display(), row.range);
                    weighing.against_damaged(row.range);
                }
            }
        }
        Ok(weighing.verdict())
    }

    fn keep(&mut self, history: usize, arrived: Weighed<'_>, filing: Filing) -> Result<(), StoreError> {
        let history = &mut self.histories[history];
        match filing {
            Filing::Duplicate | Filing::Conflict => Ok(()),
            Filing::New => history.insert(&self.conn, arrived.view, arrived.body),
            Filing::Replaces { gone, lost } => {
                gone.iter().try_for_each(|range| history.delete(&self.conn, *range))?;
                history.insert(&self.conn, arrived.view, arrived.body)?;
                lost.into_iter().try_for_each(|(range, loss)| insert_loss(history, &self.conn, range, loss))
            }
            Filing::Remainder(ranges) => {
                let Content::Loss(loss) = arrived.content.content else { return Ok(()) };
                let part = part_of(loss);
                ranges.into_iter().try_for_each(|range| insert_loss(history, &self.conn, range, part))
            }
        }
    }

    /// See [`FORGETFUL`].
    #[cfg(test)]
    fn file_again(&mut self, history: usize, arrived: Weighed<'_>) -> Result<(), StoreError> {
        let history = &mut self.histories[history];
        let Some(row) = history.overlapping(&self.conn, arrived.view.range(), 1)?.pop() else { return Ok(()) };
        let held = segment::decode(&history.body(&self.conn, row.range.first)?)?;
        let after = SegmentSeq(row.range.last.0 + 1);
        let again = Segment { range: SeqRange { first: after, last: after }, ..arrived.content.clone() };
        let Ok(doubled) = segment::merge(&[held, again]) else { return Ok(()) };
        let body = segment::encode(&Segment { range: row.range, ..doubled })?;
        history.delete(&self.conn, row.range)?;
        history.insert(&self.conn, &View::parse(&body)?, &body)
    }
}

fn insert_loss(
    history: &mut History,
    conn: &Connection,
    range: SeqRange,
    loss: segment::Loss,
) -> Result<(), StoreError> {
    let body = segment::encode(&Segment { range, content: Content::Loss(loss) })?;
    history.insert(conn, &View::parse(&body)?, &body)
}
