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
        vec(int, n).prop_map(Values::Int),
        vec(float, n).prop_map(Values::Float),
        vec((-90_000_i64..90_000).prop_map(|q| q as f64 / 1e4), n).prop_map(Values::Float),
        vec(any::<bool>(), n).prop_map(Values::Bool),
        vec("[a-c]{0,3}|\\PC{0,20}", n).prop_map(|all| Values::Text(all.into_iter().map(Into::into).collect())),
    ]
}

fn arb_timeline() -> impl Strategy<Value = Timeline> {
    let clock = prop_oneof![Just(TimelineClock::Utc), (0_u32..3).prop_map(|b| TimelineClock::Boot(BootId(b)))];
    let stamps = prop_oneof![
        3 => (any::<i32>(), 1..80_usize, 1..2_000_i64).prop_map(|(at, n, step)| {
            (0..n as i64).map(|i| i64::from(at) * SECOND + i * step * 1_000_000).collect()
        }),
        1 => vec(any::<i64>(), 1..40),
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
    fn random_bytes_do_no_harm(mut body in vec(any::<u8>(), 0..200), flags in 0_u8..16) {
        if body.len() >= 12 {
            body[..4].copy_from_slice(&[VERSION, flags, 1, 0]);
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
