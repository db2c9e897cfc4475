//! What an eMMC says of its wear, and what follows from it together with the account.
//!
//! The level moves in steps of 10 % (JESD84-B51 §7.4, EXT_CSD 268 and 269), so the first one seen says little; but
//! between two of its moves lies a known part of the endurance, and the account knows how many bytes. What leaves: the
//! endurance, once that much is known, and how much of it was gone at the beginning.

use crate::store::medium::Life;
use serde::{Deserialize, Serialize};

/// The part of the endurance that a step of the level stands for.
const STEP: f64 = 0.1;

/// The levels, with the account's bytes when they were seen.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct LifeLog {
    /// When the account began.
    pub(super) first: Option<u8>,
    pub(super) now: Option<Life>,
    /// A move to this level at this many bytes.
    moved: Option<(u8, u64)>,
    step_bytes: Option<u64>,
}

impl LifeLog {
    /// The medium says `life` when the account stands at `bytes`.
    pub(super) fn note(&mut self, life: Life, bytes: u64) {
        self.first.get_or_insert(life.level);
        let before = self.now.replace(life).map_or(life.level, |life| life.level);
        if life.level <= before {
            return;
        }
        match self.moved {
            Some((level, _)) if life.level <= level => return,
            Some((level, at)) => {
                self.step_bytes = bytes.checked_sub(at).map(|took| took / u64::from(life.level - level));
            }
            None => {}
        }
        self.moved = Some((life.level, bytes));
    }

    /// What the medium stands in all, in bytes, judged by its last step; none until two moves were seen.
    pub(super) fn endurance_bytes(&self) -> Option<u64> {
        self.step_bytes.filter(|bytes| *bytes > 0).map(|bytes| (bytes as f64 / STEP) as u64)
    }

    /// The part that was used when the account began: the middle of what the level may mean. A medium that did not say
    /// is taken for new.
    pub(super) fn used_at_first(&self) -> f64 {
        self.first.map_or(0.0, |level| ((f64::from(level) - 0.5) * STEP).min(1.0))
    }

    /// What an operator should act on; none while all is well. Level 10 is 90–100 % used, PRE_EOL_INFO 2 is "warning",
    /// 3 "urgent" (the same section).
    pub(super) fn alarm(&self) -> Option<String> {
        let life = self.now?;
        let used = match life.level {
            10 => "is 90 to 100 % used by its own estimate",
            11.. => "has exceeded the life that its maker estimates",
            _ => match life.pre_eol {
                2 => "has used 80 % of its reserved blocks",
                3.. => "has hardly a reserved block left",
                _ => return None,
            },
        };
        Some(format!("the eMMC {used}; plan its replacement"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(level: u8) -> Life {
        Life { level, pre_eol: 1 }
    }

    /// The first level and the first move only say where a step begins; the second move says how long one is.
    #[test]
    fn two_moves_measure_a_step() {
        let mut log = LifeLog::default();
        for (level, bytes) in [(3, 0), (3, 500), (4, 1_000), (4, 10_000)] {
            log.note(at(level), bytes);
            assert_eq!(log.endurance_bytes(), None);
        }
        log.note(at(5), 31_000);
        assert_eq!(log.endurance_bytes(), Some(300_000));
        assert_eq!(log.used_at_first(), 0.25);
        log.note(at(7), 31_000 + 40_000);
        assert_eq!(log.endurance_bytes(), Some(200_000));
    }

    /// A level that goes back, which some firmware does, measures nothing.
    #[test]
    fn a_level_that_goes_back_measures_nothing() {
        let mut log = LifeLog::default();
        [(3, 0), (4, 100), (3, 200), (3, 300), (4, 400)].iter().for_each(|(level, bytes)| log.note(at(*level), *bytes));
        assert_eq!(log.endurance_bytes(), None);
        assert_eq!(LifeLog::default().used_at_first(), 0.0);
    }

    /// Worn media are told of in words, by either of the two figures.
    #[test]
    fn worn_media_raise_the_alarm() {
        let alarm = |level, pre_eol| {
            let mut log = LifeLog::default();
            log.note(Life { level, pre_eol }, 0);
            log.alarm()
        };
        assert_eq!(alarm(9, 1), None);
        assert_eq!(alarm(1, 0), None);
        assert!(alarm(10, 1).is_some_and(|told| told.contains("90 to 100 %")));
        assert!(alarm(11, 1).is_some_and(|told| told.contains("exceeded")));
        assert!(alarm(2, 2).is_some_and(|told| told.contains("80 %")));
        assert!(alarm(2, 3).is_some_and(|told| told.contains("reserved block left")));
    }
}
