//! What holds for every segment: round trips of anything, and no harm from any bytes.

use super::*;
use crate::clock::SECOND;
use crate::reading::Scale;
use proptest::collection::vec;
use proptest::prelude::*;

fn arb_values(n: usize) -> impl Strategy<Value = Values> {
    let float = prop_oneof![
        4 => (-100_000_i64..100_000, 0..4_i32).prop_map(|(q, k)| q as f64 / 10_f64.powi(k)),
        2 => any::<u64>().prop_map(f64::from_bits),
        1 => Just(-0.0),
        1 => Just(f64::NAN),
        1 => any::<f32>().prop_map(f64::from),
    ];
    let int = prop_oneof![
        5 => -1_000_i64..1_000,
        1 => any::<i64>(),
        1 => Just(i64::MIN),
        1 => Just(i64::MAX),
        2 => (0..50_i64).prop_map(|i| i * 1_000_000),
    ];
    prop_oneof![
        vec(-40..40_i64, n).prop_map(walk).prop_map(Values::Int),
        vec(-9..9_i64, n).prop_map(walk).prop_map(|all| Values::Float(all.iter().map(|q| *q as f64 / 100.0).collect())),
        vec(int, n).prop_map(Values::Int),
        vec(float, n).prop_map(Values::Float),
        vec((-90_000_i64..90_000).prop_map(|q| q as f64 / 1e4), n).prop_map(Values::Float),
        vec(any::<bool>(), n).prop_map(Values::Bool),
        vec("[a-c]{0,3}|\\PC{0,20}", n).prop_map(|all| Values::Text(all.into_iter().map(Into::into).collect())),
    ]
}

/// What drifts and swings, so that plans differ.
fn walk(steps: Vec<i64>) -> Vec<i64> {
    let (mut at, mut pace) = (1_000, 0);
    let mut next = |step: i64| {
        pace = (pace * 3 + step) / 4;
        at += pace;
        at + step / 8
    };
    steps.into_iter().map(&mut next).collect()
}

fn arb_timeline() -> impl Strategy<Value = Timeline> {
    let clock = prop_oneof![Just(TimelineClock::Utc), (0_u32..3).prop_map(|b| TimelineClock::Boot(BootId(b)))];
    let stamps = prop_oneof![
        3 => (any::<i32>(), 1..80_usize, 1..2_000_i64).prop_map(|(at, n, step)| {
            (0..n as i64).map(|i| i64::from(at) * SECOND + i * step * 1_000_000).collect()
        }),
        1 => vec(any::<i64>(), 1..40),
        1 => (any::<i32>(), 1..80_usize, 300..3_000_i64).prop_map(|(at, n, pace)| {
            (0..n as i64).map(|i| (i64::from(at) + i * pace / 360) * 1_000_000).collect()
        }),
        1 => vec(0..50_i64, 1..80),
    ];
    (clock, stamps).prop_map(|(clock, stamps)| Timeline { clock, stamps })
}

fn arb_column(n: usize, timeline: usize) -> impl Strategy<Value = Column> {
    (arb_values(n), vec(prop::option::weighted(0.1, 0..7_usize), n), 0.0..1.0_f64).prop_map(
        move |(values, why, any)| {
            let why = if any < 0.5 { Vec::new() } else { why };
            let named = why.iter().enumerate().filter_map(|(at, why)| why.map(|why| (at as u32, NoValue::ALL[why])));
            let missing: Vec<Missing> = named.map(|(at, why)| Missing { at, why }).collect();
            Column { series: SeriesId(0), timeline, values, missing }
        },
    )
}

fn arb_segment() -> impl Strategy<Value = Segment> {
    let columns = vec(arb_timeline(), 1..4).prop_flat_map(|timelines| {
        let lengths: Vec<usize> = timelines.iter().map(|t| t.stamps.len()).collect();
        let column = (0..lengths.len()).prop_flat_map(move |t| arb_column(lengths[t], t));
        (Just(timelines), vec((column, 1..9_u32), 0..12))
    });
    (columns, 1..u64::MAX / 2, 0..1_000_u64, any::<bool>()).prop_map(|((timelines, columns), first, span, named)| {
        let mut id = 0;
        let mut column = |(mut column, step): (Column, u32)| {
            id += step;
            column.series = SeriesId(id);
            column
        };
        let columns: Vec<Column> = columns.into_iter().map(&mut column).collect();
        let names = if named { names_of(&columns) } else { Vec::new() };
        let range = SeqRange::new(first, first + span).expect("a range");
        Segment { range, content: Content::Data { readings: Readings { timelines, columns }, names } }
    })
}

fn names_of(columns: &[Column]) -> Vec<(SeriesId, SeriesDef)> {
    let def = |c: &Column| SeriesDef {
        name: format!("weather/temp,station={}", c.series.0),
        unit: "Cel".into(),
        kind: c.values.kind(),
        scale: Scale::MILLI,
    };
    columns.iter().map(|c| (c.series, def(c))).collect()
}

/// Equal in every bit, but for the values where there is none.
fn assert_same(a: &Segment, b: &Segment) {
    assert_eq!(a.range, b.range);
    let (Content::Data { readings: a, names: of_a }, Content::Data { readings: b, names: of_b }) =
        (&a.content, &b.content)
    else {
        assert_eq!(a.content, b.content);
        return;
    };
    assert_eq!((of_a, &a.timelines, a.columns.len()), (of_b, &b.timelines, b.columns.len()));
    for (a, b) in a.columns.iter().zip(&b.columns) {
        assert_eq!((a.series, a.timeline, &a.missing), (b.series, b.timeline, &b.missing));
        assert_eq!((a.values.len(), a.values.kind()), (b.values.len(), b.values.kind()));
        for i in (0..a.values.len()).filter(|i| !a.missing.iter().any(|m| m.at as usize == *i)) {
            match (a.values.get(i), b.values.get(i)) {
                (Some(Value::Float(a)), Some(Value::Float(b))) => assert_eq!(a.to_bits(), b.to_bits(), "value {i}"),
                (a, b) => assert_eq!(a, b, "value {i}"),
            }
        }
    }
}

fn with_right_crc(mut body: Vec<u8>) -> Vec<u8> {
    let frame = body.len().saturating_sub(4);
    let crc = crc32fast::hash(&body[..frame]).to_le_bytes();
    body[frame..].copy_from_slice(&crc);
    body
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Any segment comes back bit by bit: NaN payloads, −0.0, extremes, texts, missing values, stamps that step back.
    #[test]
    fn any_segment_comes_back_bit_by_bit(segment in arb_segment()) {
        let body = encode(&segment).expect("a body");
        assert_same(&decode(&body).expect("a segment"), &segment);
    }

    /// A column that is decoded alone is the one that is decoded with all others.
    #[test]
    fn one_column_alone_is_the_same(segment in arb_segment(), which in any::<prop::sample::Index>()) {
        let view = View::parse(&encode(&segment).expect("a body")).expect("a view");
        let Content::Data { readings, .. } = decode(&encode(&segment).expect("a body")).expect("a segment").content else {
            panic!("data becomes data");
        };
        prop_assert_eq!(view.n(), readings.n());
        if !readings.columns.is_empty() {
            let index = which.index(readings.columns.len());
            let alone = view.column(index).expect("a column");
            prop_assert_eq!(format!("{alone:?}"), format!("{:?}", readings.columns[index]));
        }
    }

    /// Bytes that are wrong under a right checksum are an error or another segment within the caps; never a panic.
    #[test]
    fn wrong_bytes_with_a_right_checksum_do_no_harm(
        segment in arb_segment(),
        hits in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let mut body = encode(&segment).expect("a body");
        for (at, byte) in hits {
            let at = at.index(body.len() - 4);
            body[at] = byte;
        }
        if let Some(cut) = cut {
            body.truncate(cut.index(body.len()));
        }
        if body.len() >= 4 {
            body = with_right_crc(body);
        }
        if let Ok(segment) = decode(&body) {
            prop_assert!(segment.content.n() <= MAX_READINGS);
        }
    }

    /// Bytes at random, too.
    #[test]
    fn random_bytes_do_no_harm(mut body in vec(any::<u8>(), 0..200), flags in 0_u8..64) {
        if body.len() >= 12 {
            body[..3].copy_from_slice(&[VERSION, flags, 1]);
            body = with_right_crc(body);
        }
        drop(decode(&body));
    }

    /// Every single flipped bit is caught by the checksum.
    #[test]
    fn a_flipped_bit_is_caught(segment in arb_segment(), at in any::<prop::sample::Index>(), bit in 0..8_u32) {
        let mut body = encode(&segment).expect("a body");
        let at = at.index(body.len());
        body[at] ^= 1_u8 << bit;
        prop_assert_eq!(decode(&body).map(drop), Err(SegmentError::Checksum));
    }

    /// A merge holds each of its parts, in order, and is no larger than it need be; another reading is not in it.
    #[test]
    fn a_merge_contains_its_parts(a in arb_segment(), b in arb_segment()) {
        let at = |mut segment: Segment, first| {
            segment.range = SeqRange::new(first, first).expect("a range");
            segment
        };
        let (a, b) = (at(a, 7), at(b, 8));
        // Two series of one id and different kinds are no neighbours.
        if let Ok(whole) = merge(&[a.clone(), b.clone()]) {
            let whole = decode(&encode(&whole).expect("a body")).expect("a segment");
            prop_assert_eq!(whole.range, SeqRange::new(7, 8).expect("a range"));
            prop_assert_eq!(whole.content.n(), a.content.n() + b.content.n());
            prop_assert!(contains(&whole, &a) && contains(&whole, &b));
        }
    }
}

/// Segments whose bytes are written down in `tests/data/golden/segment-v1.txt`.
fn golden() -> Vec<(&'static str, Segment)> {
    let range = |first, last| SeqRange::new(first, last).expect("a range");
    let loss = Loss {
        reason: LossReason::Retention,
        readings: Some(58_000),
        from: Some((BootId(3), BootNanos(17 * SECOND))),
        to: Some((BootId(4), BootNanos(-1))),
        utc: Some((UtcNanos(i64::MIN), UtcNanos(1_795_365_945_159_000_000))),
    };
    let regular: Vec<i64> = (0..16).map(|i| 1_795_365_945_159_000_000 + i * SECOND).collect();
    let timelines = vec![
        Timeline { clock: TimelineClock::Utc, stamps: regular.clone() },
        Timeline { clock: TimelineClock::Utc, stamps: [&regular[1..], &[regular[15] + 1_004_000_000]].concat() },
        Timeline { clock: TimelineClock::Boot(BootId(2)), stamps: vec![5, 3, 3, i64::MAX, i64::MIN] },
    ];
    let column = |series, timeline, values| Column { series: SeriesId(series), timeline, values, missing: Vec::new() };
    let ints = |f: fn(i64) -> i64| Values::Int((0..16).map(f).collect());
    let floats = |f: fn(i64) -> f64| Values::Float((0..16).map(f).collect());
    let texts = |all: &[&str]| Values::Text(all.iter().map(|text| (*text).into()).collect());
    let mut columns = vec![
        column(1, 0, ints(|_| 7)),
        column(2, 0, ints(|i| 127_765 + 97 * i + i * i % 7)),
        column(4, 1, floats(|i| (200 + i * i % 11) as f64 / 10.0)),
        column(5, 1, floats(|i| i as f64 / 131.0)),
        column(9, 1, floats(|i| f64::from(1.0_f32 / (i + 3) as f32))),
        column(10, 2, Values::Float(vec![-0.0, f64::NAN, f64::from_bits(0x7FF8_0000_0000_BEEF), f64::INFINITY, 0.1])),
        column(11, 2, Values::Int(vec![i64::MIN, i64::MAX, 0, -1, 1])),
        column(300, 2, Values::Bool(vec![true, false, false, true, true])),
        column(301, 2, texts(&["pump on", "pump off", "pump on", "", "größer"])),
        column(301, 0, texts(&["a"; 16])),
    ];
    columns[6].missing = vec![Missing { at: 2, why: NoValue::Faulty }];
    columns[8].missing = vec![Missing { at: 3, why: NoValue::Absent }];
    let names = {
        let mut names = names_of(&columns);
        names.dedup();
        names
    };
    let data =
        |names| Content::Data { readings: Readings { timelines: timelines.clone(), columns: columns.clone() }, names };
    vec![
        ("loss", Segment { range: range(8, 300), content: Content::Loss(loss) }),
        (
            "empty",
            Segment { range: range(1, 1), content: Content::Data { readings: Readings::default(), names: Vec::new() } },
        ),
        ("ids", Segment { range: range(1_000_000, 1_000_000), content: data(Vec::new()) }),
        ("names", Segment { range: range(1, u64::MAX), content: data(names) }),
        ("learnt", Segment { range: range(7, 7), content: Content::Data { readings: learnt(), names: Vec::new() } }),
        ("missing", Segment { range: range(8, 8), content: Content::Data { readings: missing(), names: Vec::new() } }),
    ]
}

/// Columns of every kind without any value, and one with a value behind them.
fn missing() -> Readings {
    let timelines = vec![Timeline { clock: TimelineClock::Boot(BootId(1)), stamps: vec![1, 2] }];
    let all = [
        Values::Int(vec![0; 2]),
        Values::Float(vec![0.0; 2]),
        Values::Bool(vec![false; 2]),
        Values::Text(vec!["".into(); 2]),
        Values::Float(vec![0.5; 2]),
    ];
    let why = |at| Missing { at, why: if at == 0 { NoValue::Failed } else { NoValue::PowerUp } };
    let column = |(i, values): (u32, Values)| {
        let missing = if i < 4 { vec![why(0), why(1)] } else { Vec::new() };
        Column { series: SeriesId(i + 1), timeline: 0, values, missing }
    };
    Readings { timelines, columns: (0..).zip(all).map(column).collect() }
}

/// Columns that teach and are beside each other, stamps at an even pace that is no whole number, and more than one chunk.
fn learnt() -> Readings {
    let mut state = 3_i64;
    let mut noise = move |most: i64| {
        state = (state * 1_103_515_245 + 12_345) & 0x7FFF_FFFF;
        (state >> 12) % (2 * most + 1) - most
    };
    let timelines = vec![
        Timeline {
            clock: TimelineClock::Boot(BootId(1)),
            stamps: (0..120).map(|i| (5_000_000 + i * 1_000 / 360) * 1_000_000).collect(),
        },
        Timeline { clock: TimelineClock::Boot(BootId(1)), stamps: (0..4_100).map(|i| i * SECOND).collect() },
    ];
    let wave: Vec<i64> = walk((0..120).map(|_| noise(90)).collect());
    let near: Vec<f64> = wave.iter().map(|v| (v * 7 / 4 + noise(2)) as f64 / 100.0).collect();
    let long: Vec<i64> = (0..4_100).map(|i| i / 2_000).collect();
    let column = |series, timeline, values| Column { series: SeriesId(series), timeline, values, missing: Vec::new() };
    let columns = vec![
        column(1, 0, Values::Int(wave)),
        column(2, 0, Values::Float(near)),
        column(3, 1, Values::Int(long.clone())),
        column(9, 1, Values::Int(long)),
        column(10, 0, Values::Int(vec![1; 120])),
    ];
    Readings { timelines, columns }
}

/// Prints the golden file, for a version that has not been released: `cargo test -- --ignored golden --nocapture`.
#[test]
#[ignore = "writes nothing and proves nothing"]
fn print_golden_bytes() {
    for (name, segment) in golden() {
        let body = encode(&segment).expect("a body");
        println!("{name} {}", body.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    }
}

/// One tick of a board is little: ids, one timeline, one value each.
#[test]
fn one_tick_of_fifty_series_fits_120_bytes() {
    let mut state = 11_i64;
    let mut noise = move |most: i64| {
        state = (state * 1_103_515_245 + 12_345) & 0x7FFF_FFFF;
        (state >> 12) % (2 * most + 1) - most
    };
    let mut value = |id: u32| match id {
        1..=25 => Values::Float(vec![(4_200 + noise(900)) as f64 / 100.0]),
        26..=40 => Values::Float(vec![(4_800 + noise(800)) as f64 / 1000.0]),
        41..=45 => Values::Int(vec![i64::from(id) * 9_000 + noise(4_000)]),
        _ => Values::Int(vec![noise(1) + 1]),
    };
    let timelines = vec![Timeline { clock: TimelineClock::Boot(BootId(12)), stamps: vec![1_234_567 * SECOND] }];
    let column = |id| Column { series: SeriesId(id), timeline: 0, values: value(id), missing: Vec::new() };
    let readings = Readings { timelines, columns: (1..=50).map(column).collect() };
    let range = SeqRange::new(1_234_567, 1_234_567).expect("a range");
    let segment = Segment { range, content: Content::Data { readings, names: Vec::new() } };
    let body = encode(&segment).expect("a body");
    assert_same(&decode(&body).expect("a segment"), &segment);
    assert!(body.len() <= 120, "{} bytes", body.len());
}

/// The format of version 1 does not change: old bytes decode to what they were. A writer may find shorter bytes for the
/// same readings, never longer ones.
#[test]
fn golden_bytes_stay_what_they_are() {
    let written = include_str!("../../tests/data/golden/segment-v1.txt");
    for (name, segment) in golden() {
        let line = written.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap_or_default();
        let byte = |at: usize| u8::from_str_radix(&line[at..at + 2], 16).expect("hexadecimal");
        let body: Vec<u8> = (0..line.len()).step_by(2).map(byte).collect();
        assert_same(&decode(&body).expect("a segment"), &segment);
        let now = encode(&segment).expect("a body");
        assert!(now.len() <= body.len(), "{name}: {} bytes, {} before", now.len(), body.len());
    }
}

/// A body of a later version is told from damage, so that it can be kept; so is one that is only a stump.
#[test]
fn a_later_version_is_not_damage() {
    let (_, segment) = golden().swap_remove(0);
    let mut body = encode(&segment).expect("a body");
    body[0] = VERSION + 1;
    assert_eq!(decode(&with_right_crc(body)).map(drop), Err(SegmentError::Newer { version: VERSION + 1 }));
    assert_eq!(decode(&[VERSION, 0, 1]).map(drop), Err(SegmentError::Truncated));
}

/// A few bytes cannot ask for much: every declared size is held against its cap before anything is reserved.
#[test]
fn small_bodies_cannot_ask_for_much() {
    let varint = |mut n: u64| {
        let mut out = Vec::new();
        while n >= 0x80 {
            out.push(n as u8 | 0x80);
            n >>= 7;
        }
        out.push(n as u8);
        out
    };
    // A blob that declares 64 MiB, and a zstd frame of as many zeros behind a smaller declaration.
    let zeros = zstd::bulk::compress(&vec![0; 64 << 20], 19).expect("compressed");
    for raw in [64 << 20, 1_000_u64] {
        let mut body = vec![VERSION, 4 | 8, 1];
        body.extend(varint(raw));
        body.extend(varint(zeros.len() as u64 - 4));
        body.extend(&zeros[4..]);
        body.extend([0; 5]);
        assert!(matches!(decode(&with_right_crc(body)), Err(SegmentError::Corrupt(_))), "{raw}");
    }
    // Directories of noise: whatever they declare is refused or within the caps.
    let mut state = 7_u64;
    for _ in 0..3_000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let noise: Vec<u8> = (0..24).map(|i| (state.rotate_left(i * 5) >> 24) as u8).collect();
        let body = [&[VERSION, 0, 1][..], &noise, &[0; 4]].concat();
        if let Ok(segment) = decode(&with_right_crc(body)) {
            assert!(segment.content.n() <= MAX_READINGS);
        }
    }
}

/// What is above a cap or contradicts itself is refused when it is written, not when it is read.
#[test]
fn what_cannot_be_read_is_not_written() {
    let (_, good) = golden().swap_remove(2);
    let spoil = |how: fn(&mut Readings)| {
        let mut segment = good.clone();
        let Content::Data { readings, .. } = &mut segment.content else { panic!("data") };
        how(readings);
        encode(&segment).map(drop)
    };
    assert_eq!(spoil(|_| ()), Ok(()));
    for how in [
        (|r| r.timelines[0].stamps.clear()) as fn(&mut Readings),
        |r| r.columns[0].timeline = 9,
        |r| r.columns[0].series = SeriesId(7),
        |r| r.columns[6].missing[0].at = 5,
        |r| r.columns[8].values = Values::Text(vec!["x".repeat(20_000).into(); 5]),
    ] {
        assert!(matches!(spoil(how), Err(SegmentError::Unfit(_))));
    }
    let too_many = spoil(|r| {
        r.timelines[0].stamps = vec![0; MAX_READINGS + 1];
        r.columns[0].values = Values::Int(vec![0; MAX_READINGS + 1]);
    });
    assert!(matches!(too_many, Err(SegmentError::TooLarge { .. })));
}

/// Asking for one column of a large segment decodes its chunk up to there, not the rest.
#[test]
fn one_column_does_not_cost_all() {
    let stamps: Vec<i64> = (0..1_000).map(|i| i * SECOND).collect();
    let column = |id: u32| Column {
        series: SeriesId(id),
        timeline: 0,
        values: Values::Int((0..1_000).map(|i| i * i64::from(id) % 97).collect()),
        missing: Vec::new(),
    };
    let timelines = vec![Timeline { clock: TimelineClock::Boot(BootId(1)), stamps }];
    let readings = Readings { timelines, columns: (1..=50).map(column).collect() };
    let content = Content::Data { readings, names: Vec::new() };
    let body = encode(&Segment { range: SeqRange::new(1, 9).expect("a range"), content }).expect("a body");
    let view = View::parse(&body).expect("a view");
    assert_eq!((view.n(), view.decoded().columns), (50_000, 0));
    assert_eq!(view.column(37).expect("a column"), column(38));
    assert!(view.decoded().columns <= 5);
    let bounds = view.bounds();
    assert_eq!((bounds.boot_min, bounds.boot_max, bounds.utc_min), (Some(BootId(1)), Some(BootId(1)), None));
    assert_eq!((bounds.boottime_min, bounds.boottime_max), (Some(BootNanos(0)), Some(BootNanos(999 * SECOND))));
    assert!(view.column(50).is_err() && view.timeline(1).is_err());
}

/// A duplicate is told from a conflict: equal content in another packing is contained, one changed value is not.
#[test]
fn contains_tells_a_duplicate_from_a_conflict() {
    let part = |seq: u64, from: i64, value: f64| {
        let timelines = vec![Timeline { clock: TimelineClock::Utc, stamps: (from..from + 3).collect() }];
        let values = Values::Float(vec![1.5, f64::NAN, value]);
        let columns = vec![Column { series: SeriesId(1), timeline: 0, values, missing: Vec::new() }];
        let content = Content::Data { readings: Readings { timelines, columns }, names: Vec::new() };
        Segment { range: SeqRange::new(seq, seq).expect("a range"), content }
    };
    let whole = merge(&[part(1, 10, 2.0), part(2, 20, 0.0)]).expect("a merge");
    assert!(contains(&whole, &part(2, 20, 0.0)));
    assert!(!contains(&whole, &part(2, 20, -0.0)));
    assert!(!contains(&whole, &part(2, 21, 0.0)));
    assert!(!contains(&part(1, 10, 2.0), &whole));
    assert!(merge(&[part(2, 20, 0.0), part(1, 10, 2.0)]).is_err());
}

/// A kilobyte may say a quarter of a million equal readings. To look for half of them in the others, of which the last is not
/// there, takes a look at each and not at each for each, which would be minutes; nor do ten thousand columns of one series.
#[test]
fn a_comparison_takes_time_in_proportion_to_its_readings() {
    let column = |n: usize, last: i64| Column {
        series: SeriesId(1),
        timeline: 0,
        values: Values::Int([vec![0; n - 1], vec![last]].concat()),
        missing: Vec::new(),
    };
    let segment = |stamps: usize, columns: Vec<Column>| {
        let timelines = vec![Timeline { clock: TimelineClock::Utc, stamps: vec![7; stamps] }];
        let content = Content::Data { readings: Readings { timelines, columns }, names: Vec::new() };
        Segment { range: SeqRange::new(1, 1).expect("a range"), content }
    };
    let (many, half) = (MAX_READINGS, MAX_READINGS / 2);
    let begun = std::time::Instant::now();
    let held = segment(many, vec![column(many, 0)]);
    assert!(!contains(&held, &segment(half, vec![column(half, 1)])));
    assert!(contains(&held, &segment(half, vec![column(half, 0)])));
    let columns = |last| (0..10_000).map(|_| column(2, last)).collect::<Vec<_>>();
    assert!(!contains(&segment(2, columns(0)), &segment(2, columns(1))));
    assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
}

/// A text that is stored once cannot be repeated without end: the cap is on the whole segment, also when it is read.
#[test]
fn repeated_texts_are_bounded() {
    let text: Box<str> = "x".repeat(16 << 10).into();
    let readings = |columns: u32| {
        let timelines = vec![Timeline { clock: TimelineClock::Utc, stamps: vec![0; 64] }];
        let values = || Values::Text(vec![text.clone(); 64]);
        let column = |id| Column { series: SeriesId(id), timeline: 0, values: values(), missing: Vec::new() };
        Readings { timelines, columns: (0..columns).map(column).collect() }
    };
    let segment = |columns| Segment {
        range: SeqRange::new(1, 1).expect("a range"),
        content: Content::Data { readings: readings(columns), names: Vec::new() },
    };
    let body = encode(&segment(4)).expect("a body");
    assert!(body.len() < 1_000);
    assert_same(&decode(&body).expect("a segment"), &segment(4));
    assert!(matches!(encode(&segment(5)), Err(SegmentError::TooLarge { .. })));
    let unchecked = super::body::encode_unchecked(&segment(5)).expect("a body");
    assert_eq!(decode(&unchecked).map(drop), Err(SegmentError::Corrupt("more text than a segment may hold")));
}

/// Columns share chunks, and one can only be decoded after those before it: however many are wanted, that is done once.
#[test]
fn every_second_of_many_columns_is_decoded_in_one_pass() {
    let columns: Vec<Column> = (0..1_000)
        .map(|id| Column {
            series: SeriesId(id),
            timeline: 0,
            values: Values::Int(vec![i64::from(id); 4]),
            missing: vec![],
        })
        .collect();
    let timelines = vec![Timeline { clock: TimelineClock::Utc, stamps: (0..4).map(|i| i * SECOND).collect() }];
    let readings = Readings { timelines, columns };
    let range = SeqRange::new(1, 1).unwrap();
    let body = encode(&Segment { range, content: Content::Data { readings, names: vec![] } }).unwrap();
    let view = View::parse(&body).unwrap();
    let odd = view.decode_columns((1..1_000).step_by(2)).unwrap();
    assert!(odd.iter().map(|column| column.series.0).eq((1..1_000).step_by(2)));
    assert!(odd.iter().all(|column| column.values == Values::Int(vec![i64::from(column.series.0); 4])));
    assert_eq!(view.decoded().columns, 1_000);
    // Out of order is more work, and the same columns.
    let back = view.decode_columns([7, 3]).unwrap();
    assert_eq!(back.iter().map(|column| column.series.0).collect::<Vec<_>>(), [7, 3]);
    assert!(view.decode_columns([1_000]).is_err());
}
