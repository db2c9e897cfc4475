//! What a technician reads at the end of a pull: what the file holds, what is missing, and how the board is.

use super::size;
use crate::cli::CliError;
use crate::cli::output::{counted, print as print_text};
use crate::clock::UtcNanos;
use crate::fault::Exit;
use crate::pull::fetch::Fetched;
use crate::reading::SeqRange;
use crate::reading::ranges::RangeSet;
use crate::store::query::Session;
use crate::store::rows_file::Added;
use serde_json::Value as Json;
use std::fmt::Write;
use std::path::Path;

use crate::pull::serve::{Got, Rows};

/// Prints it; the exit code says whether something could not be read.
pub(super) fn print(out: &Path, fetched: &Fetched, added: Option<Added>) -> Result<Exit, CliError> {
    let mut file = File { session: Session::open(out).map_err(CliError::fault)? };
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<10} {value}");
    };
    let name = if fetched.hello.device.is_empty() { "a store" } else { &shown(&fetched.hello.device) };
    line("device", format!("{name}, to {} ({})", out.display(), size_of(out)));
    line("readings", file.readings(added));
    line("period", file.period(added.is_some()));
    for (name, value) in file.gaps() {
        line(name, value);
    }
    line("line", traffic(fetched));
    if fetched.anchored {
        let why = "the board does not know the time: this machine's clock stands for it, such readings are `estimated`";
        line("clock", why.to_owned());
    }
    for (name, value) in health(&fetched.hello.health) {
        line(name, value);
    }
    for event in fetched.hello.events.iter().take(3) {
        line("event", format!("{} {}: {}", UtcNanos(event.utc), shown(&event.kind), shown(&event.detail)));
    }
    let unreadable = fetched.unreadable + added.map_or(0, |added| added.unreadable);
    if unreadable > 0 {
        line("UNREADABLE", format!("{}; this is not all:", counted(unreadable, "segment")));
        fetched.reasons.iter().for_each(|why| line("", shown(why)));
    }
    print_text(&text)?;
    Ok(if unreadable > 0 { Exit::Data } else { Exit::Ok })
}

/// Without what a terminal would obey.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

fn size_of(path: &Path) -> String {
    std::fs::metadata(path).map_or_else(|why| why.to_string(), |meta| size(meta.len()))
}

fn traffic(fetched: &Fetched) -> String {
    let seconds = fetched.progress.elapsed.as_secs_f64();
    let all = size(fetched.received + fetched.sent);
    format!("{all} over it in {seconds:.1} s, {}", counted(fetched.progress.segments, "segment"))
}

/// The file that was written.
struct File {
    session: Session,
}

impl File {
    fn row(&mut self, sql: &str) -> Vec<Got> {
        self.session.ask(sql).unwrap_or_default().into_iter().next().unwrap_or_default()
    }

    fn count(&mut self, sql: &str) -> u64 {
        self.row(sql).first().and_then(Got::int).unwrap_or(0).unsigned_abs()
    }

    fn readings(&mut self, added: Option<Added>) -> String {
        let all = self.count("SELECT sum(n) FROM segment WHERE kind = 0");
        let series = self.count("SELECT count(DISTINCT name) FROM series");
        let new = added.map_or(String::new(), |added| {
            let retimed = match added.retimed {
                0 => String::new(),
                n => format!(", {n} with another time than before"),
            };
            format!("; {} new{retimed}", added.readings)
        });
        format!("{all} of {series} series{new}")
    }

    fn period(&mut self, rows: bool) -> String {
        if !rows {
            return "see `varved query --db OUT`".to_owned();
        }
        let ends = self.row("SELECT min(time), max(time) FROM reading");
        let at = |end: usize| ends.get(end).and_then(Got::int).map(UtcNanos);
        let (Some(from), Some(to)) = (at(0), at(1)) else { return "no readings".to_owned() };
        let estimated = self.count("SELECT count(*) FROM reading WHERE quality = 'estimated'");
        let estimated = match estimated {
            0 => String::new(),
            n => format!("; {n} at an estimated time"),
        };
        format!("{from} to {to}{estimated}")
    }

    /// Numbers that are not there, and why.
    fn gaps(&mut self) -> Vec<(&'static str, String)> {
        let mut lines = Vec::new();
        let losses = self.count("SELECT count(*) FROM segment WHERE kind = 1");
        if losses > 0 {
            lines.push((
                "lost",
                format!("{}, with dates and reasons: `varved verify` lists them", counted(losses, "range")),
            ));
        }
        let (mut acked, mut missing) = (0, 0);
        for store in self.session.ask("SELECT id FROM store").unwrap_or_default() {
            let Some(no) = store.first().and_then(Got::int) else { continue };
            let held = self.ranges(&format!(
                "SELECT first_seq, last_seq FROM segment WHERE id BETWEEN {} AND {}",
                no << 48,
                (no << 48) | ((1 << 48) - 1)
            ));
            let Some(all) = SeqRange::new(1, held.high().0) else { continue };
            let gaps = held.gaps(all);
            let with_fleet =
                gaps.common(&self.ranges(&format!("SELECT first_seq, last_seq FROM ack WHERE store = {no}")));
            acked += with_fleet.numbers();
            missing += gaps.numbers() - with_fleet.numbers();
        }
        if acked > 0 {
            lines.push(("gone", format!("{acked} segment numbers: the fleet has them, the board has let go of them")));
        }
        let words = match missing {
            0 => "none".to_owned(),
            n => format!("{n} segment numbers are missing without an account"),
        };
        lines.push(("gaps", words));
        lines
    }

    fn ranges(&mut self, sql: &str) -> RangeSet {
        let range =
            |row: &Vec<Got>| SeqRange::new(row.first()?.int()?.unsigned_abs(), row.get(1)?.int()?.unsigned_abs());
        self.session.ask(sql).unwrap_or_default().iter().filter_map(range).collect()
    }
}

/// What the service says of itself, in three lines.
fn health(health: &Result<String, String>) -> Vec<(&'static str, String)> {
    let status: Json = match health.as_ref().map(|text| serde_json::from_str(text)) {
        Ok(Ok(status)) => status,
        Ok(Err(_)) => return vec![("service", "what it says of itself can't be read".to_owned())],
        Err(why) => return vec![("service", format!("not asked: {}", shown(why)))],
    };
    let number = |at: &str| status.pointer(at).and_then(Json::as_f64).unwrap_or(0.0);
    let word = |at: &str| shown(status.pointer(at).and_then(Json::as_str).unwrap_or("-"));
    let mut lines = vec![(
        "service",
        format!(
            "varved {}, up {:.1} h; {} readings in RAM, last commit {:.0} s ago; clock {}",
            word("/version"),
            number("/uptime_s") / 3600.0,
            number("/risk/readings"),
            number("/recorded/last_commit_age_s"),
            if status.pointer("/clock/trusted") == Some(&Json::Bool(true)) {
                "synchronised"
            } else {
                "not synchronised"
            },
        ),
    )];
    if let Some(fault) = status.pointer("/recorded/fault").and_then(Json::as_str) {
        lines.push(("FAULT", shown(fault)));
    }
    let left = status.pointer("/flash/wear/years_left").and_then(Json::as_f64);
    let left = left.map_or("its end is not known".to_owned(), |years| format!("worn in {years:.1} years"));
    let a_day = status.pointer("/flash/wear/bytes_per_day").and_then(Json::as_u64).unwrap_or(0);
    lines.push(("flash", format!("{} a day; {left}", size(a_day))));
    lines
}
