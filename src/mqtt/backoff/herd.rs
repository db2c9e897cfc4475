//! Ten thousand devices lose one broker at the same moment: what comes at it, and when all are back. A simulation; the waits
//! are those of [`Backoff`], the broker is as simple as can be.

use super::{Backoff, BackoffLimits};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

const DEVICES: usize = 10_000;

/// A broker that was restarted.
#[derive(Clone, Copy)]
struct Broker {
    /// It is back after so long.
    down_ms: u64,
    /// Handshakes that it finishes within a second; whoever comes beyond that is turned away.
    handshakes_a_second: usize,
    /// Whether it turns away by saying that it is busy (CONNACK 3), or by letting the connection break.
    says_busy: bool,
}

/// What came of it.
#[derive(Debug)]
struct Outcome {
    /// The most attempts in one second.
    peak: usize,
    /// The same, counting only seconds in which the broker was up.
    peak_up: usize,
    attempts: usize,
    /// When the last device was back.
    all_back_s: u64,
    /// When half of them were.
    half_back_s: u64,
}

fn lose(limits: BackoffLimits, broker: Broker) -> Outcome {
    let mut dice = 0x9E37_79B9_7F4A_7C15_u64;
    let mut roll = || {
        // xorshift64*: the same run every time.
        dice ^= dice >> 12;
        dice ^= dice << 25;
        dice ^= dice >> 27;
        dice.wrapping_mul(0x2545_F491_4F6C_DD1D)
    };
    let ms = |wait: Duration| wait.as_millis() as u64;
    let mut devices: Vec<Backoff> = (0..DEVICES).map(|_| Backoff::new(limits)).collect();
    let mut due: BinaryHeap<Reverse<(u64, usize)>> =
        devices.iter_mut().enumerate().map(|(id, device)| Reverse((ms(device.after_loss(roll())), id))).collect();
    let (mut came, mut back) = (vec![0_usize; 100_000], Vec::with_capacity(DEVICES));
    while let Some(Reverse((at_ms, id))) = due.pop() {
        let second = &mut came[(at_ms / 1000) as usize];
        *second += 1;
        let (up, room) = (at_ms >= broker.down_ms, *second <= broker.handshakes_a_second);
        let wait = match (up, room) {
            (true, true) => {
                back.push(at_ms);
                continue;
            }
            (true, false) if broker.says_busy => devices[id].after_busy(roll()),
            _ => devices[id].after_failure(roll()),
        };
        due.push(Reverse((at_ms + ms(wait), id)));
    }
    let up = (broker.down_ms / 1000) as usize;
    Outcome {
        peak: came.iter().copied().max().unwrap_or(0),
        peak_up: came[up..].iter().copied().max().unwrap_or(0),
        attempts: came.iter().sum(),
        all_back_s: back.last().copied().unwrap_or(0).div_ceil(1000),
        half_back_s: back[DEVICES / 2].div_ceil(1000),
    }
}

fn told(what: &str, outcome: &Outcome) {
    let Outcome { peak, peak_up, attempts, all_back_s, half_back_s } = outcome;
    println!(
        "{what}: {peak}/s at most, {peak_up}/s at most while up, {attempts} attempts, half back after {half_back_s} s, \
         all after {all_back_s} s"
    );
}

fn spread(s: u64) -> BackoffLimits {
    BackoffLimits { spread: Duration::from_secs(s), ..BackoffLimits::default() }
}

/// A broker that drops all its clients and is there at once: the spread turns one blow into ten
/// seconds of a thousand.
#[test]
fn the_spread_takes_the_blow_off_a_broker_that_drops_everybody() {
    let broker = Broker { down_ms: 0, handshakes_a_second: 1_500, says_busy: false };
    let [without, with, wide] = [0, 10, 60].map(|s| lose(spread(s), broker));
    told("dropped, no spread", &without);
    told("dropped, 10 s", &with);
    told("dropped, 60 s", &wide);
    assert!(without.peak >= DEVICES, "all of them within a second: {without:?}");
    assert!(with.peak <= 1_150 && with.attempts == DEVICES, "nobody is turned away: {with:?}");
    assert!(with.all_back_s <= 10 && with.all_back_s <= without.all_back_s, "{with:?}, {without:?}");
    assert!(wide.peak <= 250 && wide.all_back_s <= 60, "{wide:?}");
}

/// A restart of 20 s, and a broker that takes 500 handshakes a second: with the spread a tenth comes at a time and half as
/// much in all, and everybody is back as soon.
#[test]
fn a_restart_under_load_is_over_within_minutes() {
    let broker = Broker { down_ms: 20_000, handshakes_a_second: 500, says_busy: false };
    let [without, with] = [0, 10].map(|s| lose(spread(s), broker));
    told("restarted, no spread", &without);
    told("restarted, 10 s", &with);
    assert!(without.peak >= DEVICES, "{without:?}");
    assert!(with.peak <= without.peak / 8 && with.peak_up <= 750, "{with:?}");
    assert!(with.attempts < without.attempts * 2 / 3, "{with:?}, {without:?}");
    assert!(with.all_back_s <= 180, "{with:?}");
}

/// A broker that says that it is busy is left alone for its pause: it is asked less often than one that lets connections
/// break, and never by everybody at once.
#[test]
fn a_busy_broker_is_asked_less_often() {
    let broken = Broker { down_ms: 0, handshakes_a_second: 100, says_busy: false };
    let [broken, busy] = [broken, Broker { says_busy: true, ..broken }].map(|broker| lose(spread(10), broker));
    told("turned away", &broken);
    told("turned away busy", &busy);
    assert!(busy.attempts < broken.attempts, "{busy:?}, {broken:?}");
    assert!(busy.peak <= 1_150, "{busy:?}");
}
