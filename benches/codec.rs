//! Bytes and nanoseconds per reading of the segment codec, beside what else is used for the same.
//!
//! ```text
//! cargo bench --bench codec                      # tests/data/linux_host_1hz.csv.zst
//! cargo bench --bench codec -- FILE.csv[.zst]…   # series,timestamp_ms,value, in order of arrival
//! ```
//!
//! Rows are cut into segments in the order of the file, as a device cuts them: a cut falls anywhere in a tick. A series is
//! of integers where all its values are written so, else of doubles. Every segment is decoded and compared bit by bit
//! before it counts. `+26` is the envelope of an MQTT payload.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Instant;
use varved::reading::{Kind, NoValue, Scale, SeqRange, SeriesDef, SeriesId};
use varved::segment::{
    Column, Content, Missing, Readings, Segment, Timeline, TimelineClock, Values, View, decode, encode,
};

const ENVELOPE_BYTES: usize = 26;

struct Row {
    series: usize,
    stamp_ms: i64,
    text: String,
}

struct Set {
    names: Vec<String>,
    kinds: Vec<Kind>,
    rows: Vec<Row>,
}

fn main() {
    let mut files: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    if files.is_empty() {
        files.push(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/linux_host_1hz.csv.zst").into());
    }
    for file in files {
        match load(&file) {
            Ok(set) => report(&file, &set),
            Err(why) => eprintln!("{file}: {why}"),
        }
    }
}

fn load(file: &str) -> Result<Set, Box<dyn std::error::Error>> {
    let bytes = std::fs::read(file)?;
    let bytes = if file.ends_with(".zst") { zstd::stream::decode_all(&bytes[..])? } else { bytes };
    let text = String::from_utf8(bytes)?;
    let (mut names, mut kinds, mut rows) = (Vec::new(), Vec::new(), Vec::new());
    let mut known: HashMap<&str, usize> = HashMap::new();
    for line in text.lines().skip(1) {
        let mut cells = line.rsplitn(3, ',');
        let (Some(value), Some(stamp), Some(name)) = (cells.next(), cells.next(), cells.next()) else { continue };
        let series = *known.entry(name).or_insert_with(|| {
            names.push(name.to_string());
            kinds.push(Kind::Int);
            names.len() - 1
        });
        if value.parse::<i64>().is_err() && !value.is_empty() {
            kinds[series] = Kind::Float;
        }
        rows.push(Row { series, stamp_ms: stamp.parse()?, text: value.into() });
    }
    Ok(Set { names, kinds, rows })
}

fn report(file: &str, set: &Set) {
    println!("\n{file}: {} readings of {} series", set.rows.len(), set.names.len());
    println!("{:<44}{:>12}{:>12}", "bytes per reading, readings per segment:", 1_000, 10_000);
    let line = |what: &str, of: &dyn Fn(usize) -> f64| println!("{what:<44}{:>12.4}{:>12.4}", of(1_000), of(10_000));
    let per = |n: usize, of: &dyn Fn(&[Row]) -> usize| {
        set.rows.chunks(n).map(of).sum::<usize>() as f64 / set.rows.len() as f64
    };
    line("varved body, ids", &|n| per(n, &|rows| body(set, rows, false).len()));
    line("varved body, ids, +26", &|n| per(n, &|rows| body(set, rows, false).len() + ENVELOPE_BYTES));
    line("varved body, names", &|n| per(n, &|rows| body(set, rows, true).len()));
    line("varved body, names, +26", &|n| per(n, &|rows| body(set, rows, true).len() + ENVELOPE_BYTES));
    line("JSON", &|n| per(n, &|rows| json(set, rows).len()));
    line("JSON, zstd 3", &|n| per(n, &|rows| zstd3(json(set, rows).as_bytes())));
    line("InfluxDB line protocol", &|n| per(n, &|rows| line_protocol(set, rows).len()));
    line("InfluxDB line protocol, zstd 3", &|n| per(n, &|rows| zstd3(line_protocol(set, rows).as_bytes())));
    line("rows (id, stamp, double), zstd 3", &|n| per(n, &|rows| zstd3(&plain_rows(rows))));
    line("Gorilla, names", &|n| per(n, &|rows| gorilla(set, rows)));
    for (what, of) in [("encode, ns per reading", true), ("decode, ns per reading", false)] {
        line(what, &|n| time_ns(set, n, of));
    }
}

/// The best of several rounds over the set: the machine is shared.
fn time_ns(set: &Set, n: usize, encoding: bool) -> f64 {
    let segments: Vec<Segment> = set.rows.chunks(n).map(|rows| segment(set, rows, false)).collect();
    let bodies: Vec<Vec<u8>> = segments.iter().map(|s| encode(s).expect("a body")).collect();
    let mut best = f64::INFINITY;
    for _ in 0..7 {
        let begin = Instant::now();
        let mut work = 0;
        if encoding {
            work = segments.iter().map(|s| encode(s).expect("a body").len()).sum();
        } else {
            bodies.iter().for_each(|b| work += decode(b).expect("a segment").content.n());
        }
        std::hint::black_box(work);
        best = best.min(begin.elapsed().as_nanos() as f64);
    }
    best / set.rows.len() as f64
}

fn body(set: &Set, rows: &[Row], named: bool) -> Vec<u8> {
    let segment = segment(set, rows, named);
    let body = encode(&segment).expect("a body");
    assert_same(&segment, &View::parse(&body).and_then(View::into_segment).expect("a segment"));
    body
}

fn assert_same(a: &Segment, b: &Segment) {
    // NaN is not equal to itself; its printed bits are.
    let bits = |segment: &Segment| {
        let Content::Data { readings, names } = &segment.content else { panic!("data") };
        let mut all = format!("{:?}{:?}{names:?}", segment.range, readings.timelines);
        for column in &readings.columns {
            let _ = write!(all, "{:?}{}{:?}", column.series, column.timeline, column.missing);
            match &column.values {
                Values::Float(floats) => floats.iter().for_each(|f| all += &format!("{:x},", f.to_bits())),
                other => drop(write!(all, "{other:?}")),
            }
        }
        all
    };
    assert!(bits(a) == bits(b), "a segment comes back bit by bit");
}

fn segment(set: &Set, rows: &[Row], named: bool) -> Segment {
    let mut of: Vec<Vec<&Row>> = vec![Vec::new(); set.names.len()];
    rows.iter().for_each(|row| of[row.series].push(row));
    let (mut readings, mut names) = (Readings::default(), Vec::new());
    let mut timelines: HashMap<Vec<i64>, usize> = HashMap::new();
    for (series, rows) in of.iter().enumerate().filter(|(_, rows)| !rows.is_empty()) {
        let stamps: Vec<i64> = rows.iter().map(|row| row.stamp_ms * 1_000_000).collect();
        let timeline = *timelines.entry(stamps).or_insert_with_key(|stamps| {
            readings.timelines.push(Timeline { clock: TimelineClock::Utc, stamps: stamps.clone() });
            readings.timelines.len() - 1
        });
        let empty = rows.iter().enumerate().filter(|(_, row)| row.text.is_empty());
        let missing = empty.map(|(at, _)| Missing { at: at as u32, why: NoValue::Absent }).collect();
        let id = SeriesId(series as u32 + 1);
        readings.columns.push(Column { series: id, timeline, values: values(set.kinds[series], rows), missing });
        if named {
            let name = set.names[series].clone();
            names.push((id, SeriesDef { name, unit: String::new(), kind: set.kinds[series], scale: Scale::ONE }));
        }
    }
    let range = SeqRange::new(1_000, 1_000).expect("a range");
    Segment { range, content: Content::Data { readings, names } }
}

fn values(kind: Kind, rows: &[&Row]) -> Values {
    match kind {
        Kind::Int => Values::Int(rows.iter().map(|row| row.text.parse().unwrap_or(0)).collect()),
        _ => Values::Float(rows.iter().map(|row| row.text.parse().unwrap_or(0.0)).collect()),
    }
}

fn zstd3(bytes: &[u8]) -> usize {
    zstd::bulk::compress(bytes, 3).expect("compressed").len()
}

fn json(set: &Set, rows: &[Row]) -> String {
    let mut out = String::new();
    for row in rows {
        let _ = writeln!(
            out,
            r#"{{"series":"{}","timestamp":"{}","value":{},"device":"pump-17"}}"#,
            set.names[row.series], row.stamp_ms, row.text
        );
    }
    out
}

fn line_protocol(set: &Set, rows: &[Row]) -> String {
    let mut out = String::new();
    for row in rows {
        let suffix = if set.kinds[row.series] == Kind::Int { "i" } else { "" };
        let _ = writeln!(out, "{} value={}{suffix} {}000000", set.names[row.series], row.text, row.stamp_ms);
    }
    out
}

fn plain_rows(rows: &[Row]) -> Vec<u8> {
    let mut out = Vec::new();
    for row in rows {
        out.extend((row.series as u16).to_le_bytes());
        out.extend(row.stamp_ms.to_le_bytes());
        out.extend(row.text.parse().unwrap_or(f64::NAN).to_le_bytes());
    }
    out
}

/// Pelkonen et al., "Gorilla: A Fast, Scalable, In-Memory Time Series Database", VLDB 2015, §4.1: per series a name, then
/// delta-of-delta stamps and XORed doubles. Stamps in milliseconds, so the paper's widths for a second are 12 bits wider.
fn gorilla(set: &Set, rows: &[Row]) -> usize {
    let mut of: Vec<Vec<&Row>> = vec![Vec::new(); set.names.len()];
    rows.iter().for_each(|row| of[row.series].push(row));
    let one = |(series, rows): (usize, &Vec<&Row>)| set.names[series].len() + 2 + gorilla_bits(rows).div_ceil(8);
    of.iter().enumerate().filter(|(_, rows)| !rows.is_empty()).map(one).sum()
}

fn gorilla_bits(rows: &[&Row]) -> usize {
    let value = |row: &Row| row.text.parse::<f64>().unwrap_or(f64::NAN).to_bits();
    let mut bits = 128;
    let (mut delta, mut window) = (0, (0_u32, 0_u32));
    for pair in rows.windows(2) {
        let now = pair[1].stamp_ms - pair[0].stamp_ms;
        bits += match now - delta {
            0 => 1,
            -63..=64 => 9,
            -255..=256 => 12,
            -2047..=2048 => 16,
            _ => 36,
        };
        delta = now;
        let xor = value(pair[0]) ^ value(pair[1]);
        let (lead, trail) = (xor.leading_zeros().min(31), xor.trailing_zeros());
        bits += if xor == 0 {
            1
        } else if window.1 > 0 && lead >= window.0 && trail >= 64 - window.0 - window.1 {
            2 + window.1 as usize
        } else {
            window = (lead, 64 - lead - trail);
            13 + window.1 as usize
        };
    }
    bits
}
