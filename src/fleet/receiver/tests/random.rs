//! A story told by dice: commits, compactions, duplicates, reordering, lost acks, kills. Whatever the order, the replica
//! holds what was committed, once.

use super::rig::*;
use crate::segment::Segment;

/// A small generator (Steele, Lea, Flood: SplitMix64), so that a seed tells the same story everywhere.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % below as u64) as usize
    }
}

/// A device that commits, compacts now and then, and holds all it has; and the messages that are on their way.
struct Story {
    device: Unit,
    held: Vec<Segment>,
    high: u64,
    wire: Vec<(String, Vec<u8>)>,
}

impl Story {
    fn commit(&mut self) {
        self.high += 1;
        let segment = self.device.commit(self.high);
        self.held.push(segment);
    }

    fn compact(&mut self, dice: &mut Dice) {
        if self.held.len() < 3 {
            return;
        }
        let from = dice.roll(self.held.len() - 2);
        let to = (from + 2 + dice.roll(4)).min(self.held.len());
        let (first, last) = (self.held[from].range.first.0, self.held[to - 1].range.last.0);
        self.held.splice(from..to, [self.device.compacted(first, last)]);
    }

    fn send(&mut self, dice: &mut Dice) {
        if let Some(segment) = self.held.get(dice.roll(self.held.len().max(1))) {
            let limit = if dice.roll(4) == 0 { 1024 } else { 100_000 };
            self.wire.extend(self.device.pieces(segment, limit));
        }
    }
}

fn told_by(seed: u64) {
    let mut dice = Dice(seed);
    let mut rig = Rig::new();
    let mut stories: Vec<Story> = (0..3)
        .map(|i| Story { device: Unit::new(&format!("d{i}"), i + 1), held: Vec::new(), high: 0, wire: Vec::new() })
        .collect();
    for _ in 0..250 {
        let i = dice.roll(stories.len());
        match dice.roll(12) {
            0..=3 => stories[i].commit(),
            4 => stories[i].compact(&mut dice),
            5..=8 => stories[i].send(&mut dice),
            9 => stories[i].wire = stories[i].wire.drain(..).rev().collect(),
            10 => {
                // Some arrive, some twice, of all devices in one group; some are lost.
                let mut group = Vec::new();
                for story in &mut stories {
                    let n = dice.roll(story.wire.len() + 1);
                    let mut arrived: Vec<_> = story.wire.drain(..n).collect();
                    if !arrived.is_empty() && dice.roll(2) == 0 {
                        arrived.push(arrived[dice.roll(arrived.len())].clone());
                    }
                    group.extend(arrived.into_iter().filter(|_| dice.roll(5) > 0));
                }
                rig.hear(&group);
            }
            _ => {
                if dice.roll(4) == 0 {
                    rig.kill();
                    rig.start();
                }
                rig.hear(&stories[i].device.pages());
            }
        }
    }
    for story in &mut stories {
        let device = story.device.clone();
        rig.hear(&[device.pages(), std::mem::take(&mut story.wire)].concat());
        let all: Vec<_> = story.held.iter().map(|segment| device.message(segment)).collect();
        rig.hear(&all);
        let expected = device.expected(0, 1..=story.high);
        if story.high > 0 {
            assert_eq!(rig.readings(&device), expected, "seed {seed}, {}", device.name);
            let ack = rig.hear(&[device.birth(story.high)]).of(&device);
            assert_eq!((ack.cumulative.0, ack.conflicts), (story.high, vec![]), "seed {seed}");
        }
    }
}

/// Twelve stories; the seed of one that fails is in its message.
#[test]
fn whatever_the_order_each_reading_is_held_once() {
    (0..12).for_each(told_by);
}
