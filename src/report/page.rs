//! A [`Summary`] as one HTML file: no script, no font, no image, nothing from a network. Everything that came from outside is escaped.

use super::BINS;
use super::summary::{Bin, Lost, Series, Summary, bin_of};
use crate::clock::UtcNanos;
use crate::segment::LossReason;
use serde_json::Value as Json;
use std::fmt::Write as _;
use std::io;

/// Height of a chart, in points of its own.
const HEIGHT: f64 = 120.0;

const STYLE: &str = "body{font:16px/1.45 system-ui,sans-serif;margin:0 auto;max-width:60rem;padding:1rem;color:#1b1f24;background:#fff}\
h1{font-size:1.5rem;margin:0}h2{font-size:1.1rem;margin:1.6rem 0 .2rem;overflow-wrap:anywhere}p{margin:.2rem 0}\
.dim{color:#57606a;font-size:.875rem}.bad{color:#a40e26}svg{display:block;width:100%;height:110px;background:#f6f8fa;margin:.3rem 0}\
.ends{display:flex;justify-content:space-between}table{border-collapse:collapse;width:100%;font-size:.875rem}\
td,th{text-align:left;padding:.2rem .6rem .2rem 0;border-top:1px solid #d8dee4;vertical-align:top;overflow-wrap:anywhere}\
.key i{display:inline-block;width:.9em;height:.9em;margin:0 .25em 0 .8em;vertical-align:-.1em}";

/// What stands for what in a chart.
const GAP: &str = "#d8dee4";
const ESTIMATED: &str = "#ffe7a3";
const LOST: &str = "#ffc1ba";
const LINE: &str = "#0969da";

/// Writes the page.
///
/// # Errors
/// Those of `out`.
pub fn write(summary: &Summary, out: &mut impl io::Write) -> io::Result<()> {
    let name = escaped(summary.device.as_deref().unwrap_or(&summary.file));
    write!(
        out,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\
         <title>{name}</title><style>{STYLE}</style></head><body>\n<h1>{name}</h1>\n"
    )?;
    out.write_all(head(summary).as_bytes())?;
    out.write_all(health(summary).as_bytes())?;
    let losses: Vec<(usize, usize)> = summary.losses.iter().filter_map(|lost| bins_of(lost, summary)).collect();
    for (name, series) in &summary.series {
        out.write_all(chart(name, series, &losses, summary).as_bytes())?;
    }
    if summary.series_left_out > 0 {
        writeln!(out, "<p class=bad>{} more series have no chart here.</p>", summary.series_left_out)?;
    }
    out.write_all(lost(summary).as_bytes())?;
    out.write_all(events(summary).as_bytes())?;
    writeln!(out, "<p class=dim>varved {}</p>\n</body></html>", env!("CARGO_PKG_VERSION"))
}

fn head(summary: &Summary) -> String {
    let mut text = String::new();
    let _ = match summary.period {
        Some((from, to)) => writeln!(text, "<p>{} to {}, UTC</p>", minute(from), minute(to)),
        None => writeln!(text, "<p>No readings.</p>"),
    };
    let series = summary.series.len() + summary.series_left_out;
    let _ = writeln!(
        text,
        "<p>{} readings of {series} series; {} at an estimated time, {} without a value</p>\n<p class=dim>{}</p>",
        summary.readings,
        summary.estimated,
        summary.missing,
        escaped(&summary.file)
    );
    if summary.unreadable > 0 {
        let _ = writeln!(text, "<p class=bad>{} segments can't be read: this is not all.</p>", summary.unreadable);
        for why in &summary.reasons {
            let _ = writeln!(text, "<p class=\"bad dim\">{}</p>", escaped(why));
        }
    }
    let _ = writeln!(
        text,
        "<p class=\"dim key\">In the charts<i style=\"background:{LINE}\"></i>least to greatest<i style=\"background:{GAP}\"></i>no \
         readings<i style=\"background:{ESTIMATED}\"></i>the clock was not trusted<i style=\"background:{LOST}\"></i>lost</p>"
    );
    text
}

/// What the service said of itself, as far as it is of interest on a page.
fn health(summary: &Summary) -> String {
    let mut text = String::from("<h2>Device</h2>\n");
    let Some((said, at)) = &summary.health else { return text + "<p class=dim>Its service was not asked.</p>\n" };
    let Ok(status) = serde_json::from_str::<Json>(said) else {
        let _ = writeln!(text, "<p class=dim>{}</p>", escaped(said));
        return text;
    };
    if let Some(at) = at {
        let _ = writeln!(text, "<p class=dim>as of {}</p>", minute(*at));
    }
    text += "<table>\n";
    let number = |at: &str| status.pointer(at).and_then(Json::as_f64);
    let mut row = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            let _ = writeln!(text, "<tr><th>{name}<td>{}", escaped(&value));
        }
    };
    let word = |at: &str| status.pointer(at).and_then(Json::as_str).map(str::to_owned);
    row("fault", word("/recorded/fault"));
    row("software", word("/version").map(|version| format!("varved {version}")));
    row("up", number("/uptime_s").map(|s| format!("{:.1} h", s / 3600.0)));
    row("in RAM only", number("/risk/readings").map(|n| format!("{n} readings")));
    row("last commit", word("/recorded/last_commit"));
    row(
        "not fitting in RAM, lost",
        number("/recorded/overflowed").filter(|n| *n > 0.0).map(|n| format!("{n} readings")),
    );
    row("not yet sent", number("/pending/readings").map(|n| format!("{n} readings")));
    row("link", word("/link/state"));
    let trusted = status.pointer("/clock/trusted").and_then(Json::as_bool);
    row("clock", trusted.map(|trusted| if trusted { "synchronised" } else { "not synchronised" }.to_owned()));
    row("file", number("/store/file_bytes").map(size));
    row("full in", number("/store/hours_to_full").map(|h| format!("{:.1} days", h / 24.0)));
    row("written to the flash", number("/flash/wear/written_bytes").map(size));
    row("a day", number("/flash/wear/bytes_per_day").map(size));
    row("a reading", number("/flash/wear/bytes_per_reading").map(|bytes| format!("{bytes:.1} B")));
    row("flash worn in", number("/flash/wear/years_left").map(|years| format!("{years:.1} years")));
    row("commits", word("/flash/wear/why"));
    text + "</table>\n"
}

fn chart(name: &str, series: &Series, losses: &[(usize, usize)], summary: &Summary) -> String {
    let unit = if series.unit.is_empty() { String::new() } else { format!(" {}", escaped(&series.unit)) };
    let mut text = format!("<h2>{}</h2>\n<p>{}{unit}</p>\n", escaped(name), escaped(&series.last));
    let gaps = series.gaps();
    let _ = write!(text, "<svg viewBox=\"0 0 {BINS} {HEIGHT}\" preserveAspectRatio=\"none\" role=\"img\">");
    for (from, to) in runs(&series.bins, |bin| bin.estimated > 0) {
        band(&mut text, (from, to), ESTIMATED);
    }
    gaps.iter().for_each(|gap| band(&mut text, *gap, GAP));
    losses.iter().for_each(|loss| band(&mut text, *loss, LOST));
    if let Some((least, _, most)) = series.figures {
        curve(&mut text, &series.bins, &gaps, (least, most));
    } else {
        for (from, to) in runs(&series.bins, |bin| bin.n > 0) {
            let _ = write!(text, "<path d=\"M{from} 60H{to}\" stroke=\"{LINE}\" stroke-width=\"6\"/>");
        }
    }
    text += "</svg>\n";
    if let Some((from, to)) = summary.period {
        let _ = writeln!(text, "<p class=\"dim ends\"><span>{}</span><span>{}</span></p>", minute(from), minute(to));
    }
    let figures = series.figures.map_or(String::new(), |(least, mean, most)| {
        format!("; {} to {}{unit}, mean {}", short(least), short(most), short(mean))
    });
    let missing = if series.missing > 0 { format!("; {} without a value", series.missing) } else { String::new() };
    let gaps = gaps.iter().map(|(from, to)| to - from).max().map_or(String::new(), |longest| {
        let hours = summary.period.map_or(0.0, |(from, to)| (to.0 as f64 - from.0 as f64) / 3.6e12);
        format!("; {} gaps, the longest about {}", gaps.len(), span(longest as f64 * hours / BINS as f64))
    });
    let _ = writeln!(text, "<p class=dim>{} readings{figures}{missing}{gaps}</p>", series.n);
    text
}

/// From the least to the greatest value of each bin, as a filled shape; joined but where there is a gap.
fn curve(text: &mut String, bins: &[Bin], gaps: &[(usize, usize)], (least, most): (f64, f64)) {
    let height = if most > least { (HEIGHT - 10.0) / (most - least) } else { 0.0 };
    // A constant stands in the middle.
    let floor = if most > least { HEIGHT - 5.0 } else { HEIGHT / 2.0 };
    let y = |value: f64| floor - (value - least) * height;
    let mut stretch: Vec<(usize, f64, f64)> = Vec::new();
    let mut gaps = gaps.iter().peekable();
    for (at, bin) in bins.iter().enumerate() {
        if gaps.next_if(|gap| gap.0 <= at).is_some() {
            shape(text, &std::mem::take(&mut stretch));
        }
        if let Some((low, high)) = bin.values {
            stretch.push((at, y(low), y(high)));
        }
    }
    shape(text, &stretch);
}

fn shape(text: &mut String, stretch: &[(usize, f64, f64)]) {
    let Some((first, low, high)) = stretch.first() else { return };
    let _ = write!(text, "<path d=\"M{first} {high:.1}");
    for (at, _, high) in stretch.iter().skip(1) {
        let _ = write!(text, "L{at} {high:.1}");
    }
    if stretch.len() == 1 {
        let _ = write!(text, "h1L{} {low:.1}", first + 1);
    }
    for (at, low, _) in stretch.iter().rev() {
        let _ = write!(text, "L{at} {low:.1}");
    }
    let _ = write!(
        text,
        "Z\" fill=\"{LINE}\" stroke=\"{LINE}\" stroke-width=\"1.5\" stroke-linejoin=\"round\" vector-effect=\"non-scaling-stroke\"/>"
    );
}

fn band(text: &mut String, (from, to): (usize, usize), colour: &str) {
    let _ = write!(text, "<rect x=\"{from}\" width=\"{}\" height=\"{HEIGHT}\" fill=\"{colour}\"/>", to - from);
}

/// Runs of bins of which something is true, each with the first bin behind it.
fn runs(bins: &[Bin], is: impl Fn(&Bin) -> bool) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for (at, _) in bins.iter().enumerate().filter(|(_, bin)| is(bin)) {
        match runs.last_mut().filter(|(_, end)| *end == at) {
            Some((_, end)) => *end = at + 1,
            None => runs.push((at, at + 1)),
        }
    }
    runs
}

fn bins_of(lost: &Lost, summary: &Summary) -> Option<(usize, usize)> {
    let (all, (from, to)) = (summary.period?, lost.period?);
    let outside = to < all.0 || from > all.1 || lost.loss.reason == LossReason::Void;
    (!outside).then(|| (bin_of(from, all), bin_of(to, all) + 1))
}

fn lost(summary: &Summary) -> String {
    if summary.losses.is_empty() {
        return "<h2>Lost</h2>\n<p class=dim>Nothing that is known of.</p>\n".to_owned();
    }
    let mut text = String::from("<h2>Lost</h2>\n<table>\n<tr><th>from<th>to<th>readings<th>why\n");
    for lost in &summary.losses {
        let why = match lost.loss.reason {
            LossReason::Void => "numbers skipped at a start; what they held, if anything, is not known",
            LossReason::Overflow => "the buffer was full while the medium took nothing",
            LossReason::Retention => "room was needed before the fleet had them",
            LossReason::Damaged => "damaged on the medium",
            LossReason::Expired => "the fleet had them, and has lost them since",
        };
        let end = |end: Option<UtcNanos>| end.map_or("-".to_owned(), minute);
        let readings = lost.loss.readings.map_or("-".to_owned(), |n| n.to_string());
        let (from, to) = (end(lost.period.map(|p| p.0)), end(lost.period.map(|p| p.1)));
        let _ = writeln!(text, "<tr><td>{from}<td>{to}<td>{readings}<td>{why}");
    }
    text += "</table>\n";
    if summary.losses_left_out > 0 {
        let _ = writeln!(text, "<p class=dim>and {} more</p>", summary.losses_left_out);
    }
    text
}

fn events(summary: &Summary) -> String {
    if summary.events.is_empty() {
        return String::new();
    }
    let mut text = String::from("<h2>Events of the file</h2>\n<table>\n");
    for (at, kind, detail) in &summary.events {
        let _ = writeln!(text, "<tr><td>{}<td>{}<td>{}", minute(*at), escaped(kind), escaped(detail));
    }
    text + "</table>\n"
}

/// A moment as people read it, to the minute.
fn minute(at: UtcNanos) -> String {
    let text = at.to_string();
    text.get(..16).map_or(text.clone(), |minute| minute.replace('T', " "))
}

fn span(hours: f64) -> String {
    match hours {
        h if h < 1.0 / 60.0 => format!("{:.1} s", h * 3600.0),
        h if h < 1.0 => format!("{:.0} min", h * 60.0),
        h if h < 48.0 => format!("{h:.1} h"),
        h => format!("{:.1} days", h / 24.0),
    }
}

fn size(bytes: f64) -> String {
    match bytes {
        b if b < 10_240.0 => format!("{b:.0} B"),
        b if b < 10_485_760.0 => format!("{:.0} KiB", b / 1024.0),
        b => format!("{:.1} MiB", b / 1_048_576.0),
    }
}

/// A number in six digits or so.
fn short(value: f64) -> String {
    let text = format!("{value:.3}");
    let trimmed = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    if value != 0.0 && (value.abs() < 0.001 || value.abs() >= 1e12) {
        format!("{value:.4e}")
    } else {
        trimmed.to_owned()
    }
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}
