//! Reports of the sample store, and of what a hostile device may have named its series.

use super::summary::{Summary, bin_of};
use super::*;
use crate::clock::UtcNanos;
use crate::store::sample;

fn page(path: &std::path::Path, health: Option<&str>) -> String {
    let reader = Reader::open(path).expect("a reader");
    let mut out = Vec::new();
    write(&reader, health, &AtomicBool::new(false), &mut out).expect("a page").expect("a report");
    String::from_utf8(out).expect("text")
}

/// Each series has its chart and its figures; what is estimated and lost is marked; nothing is fetched from anywhere.
#[test]
fn a_page_has_every_series_and_what_is_missing() {
    let (_directory, path) = sample::store();
    let reader = Reader::open(&path).expect("a reader");
    let summary = Summary::of(&reader, None, &AtomicBool::new(false)).expect("a summary");
    assert_eq!((summary.readings, summary.estimated, summary.series.len()), (sample::READINGS as u64, 22, 5));
    assert_eq!((summary.losses.len(), summary.unreadable), (1, 0));
    let temp = &summary.series["cpu/temp"];
    assert_eq!((temp.n, temp.missing, temp.unit.as_str()), (114, 2, "Cel"));
    assert_eq!(temp.figures.map(|(least, _, most)| (least, most)), Some((20.0, 30.099)));
    assert_eq!(temp.bins.iter().map(|bin| u64::from(bin.n)).sum::<u64>(), temp.n);
    assert_eq!(temp.gaps().len(), 2, "two hours of silence, and one");
    let page = page(&path, Some("{\"version\":\"9.9\",\"flash\":{\"wear\":{\"years_left\":12.5}}}"));
    assert_eq!(page.matches("<svg").count(), 5);
    for part in
        ["cpu/temp", "#ffe7a3\"/>", "varved 9.9", "12.5 years", "numbers skipped at a start", "name=\"viewport\""]
    {
        assert!(page.contains(part), "{part}");
    }
    for bad in ["http:", "https:", "<script", "src=", "@import", "url("] {
        assert!(!page.contains(bad), "{bad}");
    }
}

/// What came from outside is text, not markup.
#[test]
fn a_page_escapes_what_came_from_outside() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("varved.db");
    let conn = sample::store_at(&path);
    let evil = "<script>alert('x')</script>&\"";
    conn.execute("UPDATE series SET name = ?1, unit = ?1 WHERE id = 1", [evil]).expect("a name");
    conn.execute("INSERT INTO event (utc, kind, detail) VALUES (1, ?1, ?1)", [evil]).expect("an event");
    let page = page(&path, Some("{\"recorded\":{\"fault\":\"<script>x\"}}"));
    assert!(!page.contains("<script") && page.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&amp;&quot;"));
}

/// Every moment has a bin, also at the ends of what a clock can hold.
#[test]
fn every_moment_has_a_bin() {
    let whole = (UtcNanos(i64::MIN), UtcNanos(i64::MAX));
    assert_eq!((bin_of(whole.0, whole), bin_of(UtcNanos(0), whole), bin_of(whole.1, whole)), (0, BINS / 2, BINS - 1));
    let one = (UtcNanos(5), UtcNanos(5));
    assert_eq!(bin_of(UtcNanos(5), one), 0);
    assert_eq!(bin_of(UtcNanos(i64::MAX), one), 0, "outside it");
}
