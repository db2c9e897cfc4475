//! What an incoming segment is to those that are held: news, the same again, their successor, or another history.
//!
//! What enters: the incoming segment, and one by one the held ones of the same history that overlap it. What leaves: what
//! to do with it. Pure.
//!
//! ```text
//!                      held: nothing    data                        absence (a loss of numbers)
//! incoming data        New              equal or nested: the same   takes the numbers; what it leaves stays lost
//!                                       readings or a Conflict
//! incoming absence     New              nothing to say              nothing to say; or it has grown (the same reason,
//!                                                                   around the held ones only): takes their place
//!                                       └ only numbers of which nothing is held are news (Remainder)
//! ```
//!
//! An absence says that numbers have no readings (void, retention, damaged, expired): whoever has the readings knows
//! better. An overflow is no absence: its number was committed with that account as its content.

use crate::reading::SeqRange;
use crate::reading::ranges::RangeSet;
use crate::segment::{self, Content, Loss, LossReason, Segment};

/// What to do with an incoming segment.
#[derive(Debug, Clone, PartialEq)]
pub enum Filing {
    /// Nothing of it is held: keep it.
    New,
    /// All that it says is held: nothing to do.
    Duplicate,
    /// Keep it in place of the segments with these ranges, and these losses beside it.
    Replaces {
        /// Ranges of held segments; each is wholly within the incoming one, or an absence.
        gone: Vec<SeqRange>,
        /// What stays lost of an absence that was only partly filled.
        lost: Vec<(SeqRange, Loss)>,
    },
    /// An absence, of which only these numbers are news: keep losses of its reason for them.
    Remainder(Vec<SeqRange>),
    /// It says other than what is held: another history of the same store id.
    Conflict,
}

/// An incoming segment, and what was found about it so far.
#[derive(Debug)]
pub struct Weighing<'a> {
    incoming: &'a Segment,
    known: RangeSet,
    gone: Vec<SeqRange>,
    lost: Vec<(SeqRange, Loss)>,
    duplicate: bool,
    conflict: bool,
    /// Something is held that an incoming absence does not take in.
    apart: bool,
}

impl<'a> Weighing<'a> {
    /// Begins with nothing known.
    pub fn new(incoming: &'a Segment) -> Self {
        Self {
            incoming,
            known: RangeSet::new(),
            gone: Vec::new(),
            lost: Vec::new(),
            duplicate: false,
            conflict: false,
            apart: false,
        }
    }

    /// Weighs it against a held segment that overlaps it.
    pub fn against(&mut self, held: &Segment) {
        debug_assert!(held.range.overlaps(&self.incoming.range));
        self.known.insert(held.range);
        match (absence(self.incoming), absence(held)) {
            (Some(new), Some(old)) if new.reason == old.reason && self.incoming.range.covers(&held.range) => {
                self.gone.push(held.range);
            }
            (Some(_), _) => self.apart = true,
            (None, Some(loss)) => self.fill(held.range, loss),
            (None, None) if held.range.covers(&self.incoming.range) => self.inside(held),
            (None, None) if self.incoming.range.covers(&held.range) => self.around(held),
            (None, None) => self.conflict = true,
        }
    }

    /// Weighs it against a held segment whose body can no longer be read: what covers it may take its place.
    pub fn against_damaged(&mut self, held: SeqRange) {
        self.known.insert(held);
        if absence(self.incoming).is_some() {
            self.apart = true;
            return;
        }
        if self.incoming.range.covers(&held) {
            self.gone.push(held);
        } else {
            self.conflict = true;
        }
    }

    /// Takes in that something is held for these numbers, where an absence comes in and no more needs to be known.
    pub fn against_numbers(&mut self, held: SeqRange) {
        self.known.insert(held);
        self.apart = true;
    }

    /// Whether it says of its numbers that they have no readings.
    pub fn is_of_an_absence(&self) -> bool {
        absence(self.incoming).is_some()
    }

    /// Whether nothing else can come of it.
    pub fn is_a_conflict(&self) -> bool {
        self.conflict
    }

    /// What to do, once it was weighed against all that overlap it.
    pub fn verdict(self) -> Filing {
        if self.conflict {
            return Filing::Conflict;
        }
        if absence(self.incoming).is_some() {
            return self.remainder();
        }
        match (self.duplicate, self.gone.is_empty()) {
            (true, _) => Filing::Duplicate,
            (false, true) => Filing::New,
            (false, false) => Filing::Replaces { gone: self.gone, lost: self.lost },
        }
    }

    /// Nested in, or equal to, what is held.
    fn inside(&mut self, held: &Segment) {
        if says(held, self.incoming) {
            self.duplicate = true;
        } else {
            self.conflict = true;
        }
    }

    /// Covers what is held.
    fn around(&mut self, held: &Segment) {
        if says(self.incoming, held) {
            self.gone.push(held.range);
        } else {
            self.conflict = true;
        }
    }

    fn fill(&mut self, range: SeqRange, loss: Loss) {
        self.gone.push(range);
        let mut left = RangeSet::from_iter([range]);
        left.remove(self.incoming.range);
        self.lost.extend(left.iter().map(|piece| (piece, part_of(loss))));
    }

    fn remainder(self) -> Filing {
        // A loss that has grown counts all that was lost; its part beside the earlier one would not say how many.
        let grown = self.gone.iter().any(|held| *held != self.incoming.range);
        if grown && !self.apart {
            return Filing::Replaces { gone: self.gone, lost: Vec::new() };
        }
        let news: Vec<SeqRange> = self.known.gaps(self.incoming.range).iter().collect();
        match news.as_slice() {
            [] => Filing::Duplicate,
            [all] if *all == self.incoming.range => Filing::New,
            _ => Filing::Remainder(news),
        }
    }
}

/// A loss of a part of what `whole` was a loss of: how many readings fell to the part is not known.
pub fn part_of(whole: Loss) -> Loss {
    Loss { readings: None, ..whole }
}

fn absence(segment: &Segment) -> Option<Loss> {
    match segment.content {
        Content::Loss(loss) if loss.reason != LossReason::Overflow => Some(loss),
        Content::Loss(_) | Content::Data { .. } => None,
    }
}

/// Whether the account `whole` may have been joined from `part` and others of its reason. A count that is not known
/// includes any.
fn counts(whole: &Loss, part: &Loss) -> bool {
    whole.reason == part.reason && whole.readings.is_none_or(|all| part.readings.is_some_and(|some| some <= all))
}

/// Whether `whole` says all that `part` says.
fn says(whole: &Segment, part: &Segment) -> bool {
    match (&whole.content, &part.content) {
        (Content::Data { .. }, Content::Data { .. }) => segment::contains(whole, part),
        (Content::Loss(a), Content::Loss(b)) if whole.range == part.range => a == b,
        (Content::Loss(a), Content::Loss(b)) => counts(a, b),
        _ => false,
    }
}
