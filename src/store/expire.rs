//! Making room: what the fleet has goes first, then the oldest, as a dated loss. What goes is the full resolution: hourly
//! figures stay.
//!
//! What enters: which segments are in flight, the moment. What leaves: whether there was anything to do. A step is one
//! transaction over a bounded number of segments. It promises that nothing unacknowledged goes without its loss in the same
//! transaction, that an acknowledgement is on the medium no later than the deletion it allows, that no reading goes before it
//! is in the hourly figures (where its time is known), and that the newest segment of the current store stays, which keeps
//! its numbers from being used twice. Pages that come free are used again; they are given back to the file system where
//! the file is above its bound, or where more of them are free than a steady state needs.

mod choice;
mod room;
mod tidy;

use super::ack::{SegmentHead, write_acks};
use super::error::StoreError;
use super::file::StoreNo;
use super::retention::target_bytes;
use super::{Line, Step, Store, commit};
use crate::clock::timebase::{Quality, Timebase};
use crate::clock::{Now, UtcNanos};
use crate::reading::{BootId, SegmentSeq, SeqRange};
use choice::{Goes, Plan};
use room::{STEP_BYTES, vacuum};
use uuid::Uuid;

/// The most segments that one step takes.
const STEP_SEGMENTS: usize = 256;

impl Store {
    /// Deletes some of what may go if the file is nearly full: what was set aside, if the partition is; acknowledged
    /// segments, oldest first; if there are none, the oldest others become a loss. Else what is older than `max_age`, and
    /// what nothing cites any more. Segments that overlap `in_flight` stay. `now` is trusted only where the clock is believed.
    ///
    /// # Errors
    /// Those of a commit; nothing has changed then.
    pub fn expire_step(&mut self, in_flight: &[(Uuid, SeqRange)], now: Now) -> Result<Step, StoreError> {
        self.in_flight = in_flight.to_vec();
        if self.retention.pressed && self.discard_aside(now, true)? == Step::Worked {
            return Ok(Step::Worked);
        }
        if !self.log_has_room()? {
            return Ok(Step::Idle);
        }
        if self.used_bytes()? > target_bytes(self.bounds.file_bytes) {
            return match self.thin_rollups()? {
                Step::Worked => Ok(Step::Worked),
                Step::Idle => self.make_room(now),
            };
        }
        match self.expire_aged(now)? {
            Step::Worked => Ok(Step::Worked),
            Step::Idle => self.tidy(now),
        }
    }

    /// One deletion, whether or not the file is full.
    pub(super) fn make_room(&mut self, now: Now) -> Result<Step, StoreError> {
        let any: Goes<'_> = &|_, _| true;
        let plan = match self.plan(true, any)? {
            Some(plan) => Some(plan),
            None => self.plan(false, any)?,
        };
        plan.map_or(Ok(Step::Idle), |plan| self.carry_out(plan, now))
    }

    /// One deletion of what is older than `max_age`, so far as its time and the present one are known beyond doubt.
    fn expire_aged(&mut self, now: Now) -> Result<Step, StoreError> {
        let Some(mut age) = self.retention.age else { return Ok(Step::Idle) };
        let bases: Vec<Timebase> = self.lines.iter().map(|line| self.timebase_of(line.no)).collect::<Result<_, _>>()?;
        let end = |line: &Line, head: &SegmentHead| {
            let at = self.lines.iter().position(|l| l.no == line.no)?;
            end_of(bases.get(at)?, head)
        };
        let Some(oldest) = self.oldest_end(&end)? else { return Ok(Step::Idle) };
        let cutoff = age.cutoff(oldest, now);
        let Some(cutoff) = cutoff else {
            self.retention.age = Some(age);
            return Ok(Step::Idle);
        };
        let aged: Goes<'_> = &|line, head| end(line, head).is_some_and(|end| end < cutoff);
        let plan = match self.plan(true, aged)? {
            Some(plan) => Some(plan),
            None => self.plan(false, aged)?,
        };
        self.retention.age = Some(age);
        plan.map_or(Ok(Step::Idle), |plan| self.carry_out(plan, now))
    }

    /// When the first segment with readings ends whose time is known; in each line they come in the order in which they were
    /// recorded.
    fn oldest_end(
        &self,
        end: &dyn Fn(&Line, &SegmentHead) -> Option<UtcNanos>,
    ) -> Result<Option<UtcNanos>, StoreError> {
        let mut oldest: Option<UtcNanos> = None;
        for line in &self.lines {
            let mut from = 0;
            loop {
                let page = self.heads(line.no, from, line.high.0, STEP_SEGMENTS)?;
                let Some(last) = page.last() else { break };
                from = last.range.last.0 + 1;
                if let Some(found) = page.iter().filter(|head| !head.loss).find_map(|head| end(line, head)) {
                    oldest = Some(oldest.map_or(found, |oldest| oldest.min(found)));
                    break;
                }
            }
        }
        Ok(oldest)
    }

    /// What is known of time in a store.
    fn timebase_of(&self, no: StoreNo) -> Result<Timebase, StoreError> {
        let boots = self.boots(no)?;
        let known: Result<Vec<_>, StoreError> =
            boots.into_iter().map(|(boot, _)| Ok((boot, self.anchors(no, boot)?))).collect();
        Ok(Timebase::new(known?))
    }

    /// Deletes what the plan says, and counts before that what is not in the hourly figures yet.
    fn carry_out(&mut self, plan: Plan, now: Now) -> Result<Step, StoreError> {
        if let Some(last) = plan.heads.iter().rfind(|head| !head.loss && head.range.first > self.lines[plan.at].rolled)
        {
            match self.roll(plan.at, Some(SegmentSeq(last.range.last.0 + 1)), now) {
                Ok(Step::Worked) if self.lines[plan.at].rolled < last.range.last => return Ok(Step::Worked),
                // All of it is counted, or its time is not known.
                Ok(_) => {}
                // Room comes first.
                Err(StoreError::Full { .. }) => {
                    log::warn!("store: segments up to {} go without hourly figures: there is no room", last.range);
                }
                Err(e) => return Err(e),
            }
        }
        let no = self.lines[plan.at].no;
        let acks = self.unwritten_acks();
        let shrink = self.pragma("page_count")? * self.pragma("page_size")? > self.bounds.file_bytes;
        let pages = STEP_BYTES / self.pragma("page_size")?;
        self.transaction("expire segments", |conn| {
            for head in &plan.heads {
                commit::delete(conn, no, head.range.first)?;
            }
            if let Some((range, loss)) = plan.loss {
                commit::insert_loss(conn, no, range, loss)?;
            }
            write_acks(conn, &acks)?;
            if shrink { vacuum(conn, pages) } else { Ok(()) }
        })?;
        self.acks_written();
        self.account(&plan);
        Ok(Step::Worked)
    }

    fn account(&mut self, plan: &Plan) {
        let line = &mut self.lines[plan.at];
        plan.heads.iter().for_each(|head| line.tally.remove(&head.range, head.n, &line.acked));
        if let Some((range, loss)) = &plan.loss {
            line.tally.add(range, 0, &line.acked);
            let readings = loss.readings.unwrap_or(0);
            log::warn!("store: retention dropped {readings} readings, segments {range}, that the fleet doesn't have");
        }
    }
}

/// When the latest reading of a segment was taken; `None` where that is an estimate, or where a boot in between has none but
/// estimates.
fn end_of(timebase: &Timebase, head: &SegmentHead) -> Option<UtcNanos> {
    let own = head.utc.map(|(_, last)| last);
    let Some(((first, from), (last, to))) = head.from.zip(head.to) else { return own };
    let proven =
        |boot, at| Some(timebase.utc(boot, at)).filter(|(_, quality)| *quality == Quality::Ok).map(|(utc, _)| utc);
    let (from, to) = (proven(first, from)?, proven(last, to)?);
    // Where boots are joined, those between lie between, if they know the time at all.
    (first.0 + 1..last.0).try_for_each(|boot| proven(BootId(boot), crate::clock::BootNanos(0)).map(drop))?;
    own.into_iter().chain([from, to]).max()
}

#[cfg(test)]
mod tests;
