//! Which segments go next.
//!
//! What enters: the lines of the file, whether acknowledged ones are looked for, a reason. What leaves: a [`Plan`] for one
//! transaction. It reads only. What is in flight stays, and so does the newest segment of the current store.

use super::super::ack::SegmentHead;
use super::super::error::StoreError;
use super::super::file::StoreNo;
use super::super::{Line, Store};
use super::STEP_SEGMENTS;
use crate::reading::SeqRange;
use crate::segment::{Content, Loss, LossReason, decode};
use uuid::Uuid;

/// Decisions of a step to one line.
pub(super) struct Plan {
    pub(super) at: usize,
    pub(super) heads: Vec<SegmentHead>,
    /// For what the fleet doesn't have: what is written in their place.
    pub(super) loss: Option<(SeqRange, Loss)>,
}

/// Which segments may go for a reason.
pub(super) type Goes<'a> = &'a dyn Fn(&Line, &SegmentHead) -> bool;

impl Store {
    /// The oldest segments that may go, of those that `goes` names: those that the fleet has, or those that it hasn't.
    pub(super) fn plan(&self, acked: bool, goes: Goes<'_>) -> Result<Option<Plan>, StoreError> {
        for (at, line) in self.lines.iter().enumerate() {
            let current = at + 1 == self.lines.len();
            let mut from = 0;
            loop {
                let page = self.heads(line.no, from, line.high.0, STEP_SEGMENTS)?;
                let Some(last) = page.last() else { break };
                from = last.range.last.0 + 1;
                let stays = |head: &SegmentHead| {
                    line.acked.covers(head.range) != acked
                        || (current && head.range.last == line.high)
                        || self.flies(line.uuid, &head.range)
                        || !goes(line, head)
                };
                let heads = self.run_of(line.no, page, &stays, !acked)?;
                if heads.is_empty() {
                    continue;
                }
                let loss = if acked { None } else { Some(self.loss_of(line, &heads)?) };
                let Some(loss) = loss else { return Ok(Some(Plan { at, heads, loss: None })) };
                if let Some(loss) = loss {
                    return Ok(Some(Plan { at, heads, loss: Some(loss) }));
                }
            }
        }
        Ok(None)
    }

    /// From the first segment of `page` that may go, as many as one step takes; without a gap where they become one loss.
    fn run_of(
        &self,
        no: StoreNo,
        page: Vec<SegmentHead>,
        stays: &dyn Fn(&SegmentHead) -> bool,
        unbroken: bool,
    ) -> Result<Vec<SegmentHead>, StoreError> {
        let most = (self.bounds.file_bytes / 64).max(32 << 10);
        let mut run: Vec<SegmentHead> = Vec::new();
        let mut bytes = 0;
        for head in page {
            if stays(&head) {
                if unbroken && run.iter().any(|h| !h.loss) {
                    break;
                }
                if unbroken {
                    run.clear();
                }
                continue;
            }
            if unbroken {
                let follows = run.last().is_none_or(|last| last.range.last.0 + 1 == head.range.first.0);
                let data = run.iter().any(|h| !h.loss);
                // A loss is all that is left of its range: it is only taken in where it comes right before.
                if (!follows || head.loss) && data {
                    break;
                }
                if !follows || head.loss {
                    run.clear();
                }
                // One that does not know how much it stands for would make every later count unknown.
                if head.loss && self.loss_at(no, &head)?.is_none_or(|loss| loss.readings.is_none()) {
                    continue;
                }
            }
            bytes += head.bytes;
            run.push(head);
            if bytes >= most {
                break;
            }
        }
        if unbroken && run.iter().all(|h| h.loss) {
            run.clear();
        }
        Ok(run)
    }

    /// What is written in place of `heads`. An earlier loss at their front is taken in, if it is counted.
    fn loss_of(&self, line: &Line, heads: &[SegmentHead]) -> Result<Option<(SeqRange, Loss)>, StoreError> {
        let (Some(first), Some(last)) = (heads.first(), heads.last()) else { return Ok(None) };
        let mut loss = Loss { reason: LossReason::Retention, readings: Some(0), from: None, to: None, utc: None };
        for head in heads {
            let part = if head.loss { self.loss_at(line.no, head)? } else { None };
            let readings = part.map_or(Some(head.n), |loss| loss.readings);
            loss.readings = loss.readings.zip(readings).map(|(a, b)| a + b);
            let (from, to, utc) = part.map_or((head.from, head.to, head.utc), |loss| (loss.from, loss.to, loss.utc));
            loss.reach(from, to, utc);
        }
        Ok(Some((SeqRange { first: first.range.first, last: last.range.last }, loss)))
    }

    /// The account in a loss segment; `None` where its body can't be read.
    pub(in crate::store) fn loss_at(&self, no: StoreNo, head: &SegmentHead) -> Result<Option<Loss>, StoreError> {
        let body = self.body_of(no, head.range.first)?;
        Ok(body.and_then(|body| decode(&body).ok()).and_then(|segment| match segment.content {
            Content::Loss(loss) => Some(loss),
            Content::Data { .. } => None,
        }))
    }

    pub(in crate::store) fn flies(&self, uuid: Uuid, range: &SeqRange) -> bool {
        self.in_flight.iter().any(|(store, flying)| *store == uuid && flying.overlaps(range))
    }
}
