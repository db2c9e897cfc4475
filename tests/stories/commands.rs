//! What a technician types: every command with the real binary, on files that a real service wrote.

mod files;
mod report;
mod service;

use crate::support::*;
use serde_json::Value as Json;
use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output};

/// `varved` with these words.
fn varved<W: AsRef<OsStr>>(words: impl IntoIterator<Item = W>) -> Output {
    Command::new(VARVED).args(words).output().unwrap()
}

/// Standard output of a command that must succeed.
fn said(out: &Output) -> String {
    assert!(out.status.success(), "{}", text(out));
    String::from_utf8(out.stdout.clone()).unwrap()
}

/// Exit code and standard error of a command that must fail; its text ends with what to do, so it has more than one part.
fn told(out: &Output) -> (i32, String) {
    assert!(!out.status.success(), "{}", text(out));
    (out.status.code().unwrap(), String::from_utf8(out.stderr.clone()).unwrap())
}

/// `varved query --db FILE --format FORMAT SQL`.
fn query(db: &Path, format: &str, sql: &str) -> Output {
    varved([OsStr::new("query"), "--db".as_ref(), db.as_ref(), "--format".as_ref(), format.as_ref(), sql.as_ref()])
}

/// The stock shell, on a file that it only reads.
fn stock_sqlite(db: &Path, sql: &str) -> String {
    let out = Command::new("sqlite3").arg("-readonly").arg(db).arg(sql).output();
    said(&out.expect("sqlite3; tests/run installs it")).trim_end().to_owned()
}

/// What is sent: every kind of value, the hard floats, text with what CSV and JSON must quote, one without a stamp.
const LINES: &str = "\
plant,s=1 temp=21.5,count=42i,open=true,state=\"a \\\"quoted\\\", b; ünï\" 1790000000000000001
plant,s=1 temp=0.1,state=\"\" 1790000000000000002
plant,s=1 temp=-0,open=false 1790000000000000003
plant,s=1 temp=5e-324 1790000000000000004
plant,s=1 temp=1.7976931348623157e308 1790000000000000005
plant,s=1 temp=0.30000000000000004,count=-9223372036854775808i 1790000000000000006
plant,s=1 temp=NaN 1790000000000000007
plant,s=1 temp=inf 1790000000000000008
plant,s=2 temp=2.2250738585072011e-308 -1790000000000000009
plant,s=3 temp=31.245270191439438 1790000000000000010
plant,s=3 temp=121.48791951161945 1790000000000000011
now v=7i
";

/// The finite floats among them; the last two are those that a hasty parser gets wrong in the last bit.
const FLOATS: [f64; 9] = [
    21.5,
    0.1,
    -0.0,
    5e-324,
    1.797_693_134_862_315_7e308,
    0.300_000_000_000_000_04,
    2.225_073_858_507_201e-308,
    31.245_270_191_439_438,
    121.487_919_511_619_45,
];

/// Readings in [`LINES`].
const SENT: i64 = 18;

/// A store that a service wrote and has closed: [`LINES`], and a sensor that has no value.
fn recorded(dir: &Path) -> Site {
    let garbage = dir.join("garbage");
    std::fs::write(&garbage, "not a number\n").unwrap();
    let sensor = format!(
        "[[sensor]]\nkind = \"file\"\npath = \"{}\"\nname = \"plain/x\"\ninterval = \"100ms\"",
        garbage.display()
    );
    let site = Site::new(&dir.join("site"), "pump-17", "", &sensor);
    let device = site.run();
    site.send(LINES);
    site.flush();
    wait_for("a reading without a value", 20, || (site.status()["recorded"]["taken"].as_i64()? > SENT).then_some(()));
    assert_eq!(device.stop(), Some(0));
    site
}

/// RFC 4180, header included.
fn csv(text: &str) -> Vec<Vec<String>> {
    let (mut rows, mut row, mut field, mut quoted) = (vec![], vec![], String::new(), false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => field.extend(chars.next()),
            '"' => quoted = !quoted,
            ',' if !quoted => row.push(std::mem::take(&mut field)),
            '\r' if !quoted && chars.next_if_eq(&'\n').is_some() => {
                row.push(std::mem::take(&mut field));
                rows.push(std::mem::take(&mut row));
            }
            c => field.push(c),
        }
    }
    assert!(row.is_empty() && field.is_empty(), "the last line has its end");
    rows
}

fn bits(all: impl IntoIterator<Item = f64>) -> Vec<u64> {
    let mut bits: Vec<u64> = all.into_iter().map(f64::to_bits).collect();
    bits.sort_unstable();
    bits
}

/// A good configuration is told in words; each mistake ends with 78 and its file, line and key, and what would be right.
#[test]
fn check_tells_each_mistake_its_place_and_its_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("varved.toml");
    let check = |config: &str| {
        std::fs::write(&file, config).unwrap();
        varved([OsStr::new("check"), "--config".as_ref(), file.as_ref()])
    };
    let good = "device = \"pump-17\"\n[[sensor]]\nkind = \"hwmon\"\n[uplink]\nbroker = \"mqtt://broker.example\"\n";
    let words = said(&check(good));
    assert!(words.starts_with("ok: 1 sensor, commits every 10 s") && words.contains("broker.example"), "{words}");
    for (config, line, key, advice) in [
        ("[store]\ncomit_interval = \"10s\"", 2, "store.comit_interval", "did you mean `commit_interval`?"),
        ("divice = \"a\"", 1, "divice", "did you mean `device`?"),
        ("[store]\nretention = \"7d\"", 2, "store.retention", "known here are"),
        ("[store]\ncommit_interval = \"10sec\"", 2, "store.commit_interval", "such as \"10s\""),
        ("[store]\ncommit_interval = 10", 2, "store.commit_interval", "not in quotes"),
        ("[store]\nmax_size = \"64MB\"", 2, "store.max_size", "KiB, MiB or GiB"),
        ("[store]\nmax_size = \"1MiB\"", 2, "store.max_size", "from 8MiB"),
        ("\n\n[[sensor]]\ninterval = \"1s\"", 3, "sensor.kind", "is missing"),
        ("[sensor]\nkind = \"proc\"", 1, "sensor", "[[sensor]]"),
        ("[[sensor]]\nkind = \"hwmon\"\nlisten = \"udp://0.0.0.0:9\"", 3, "sensor.listen", "only of kind socket"),
        ("[store]\nlocking = \"exclusive\"\n[control]\nlisten = \"off\"", 4, "control.listen", "locking = \"shared\""),
        ("[store]\ncommit_readings = 200000\nbuffer = \"64KiB\"", 3, "store.buffer", "or more"),
        ("[store]\nmax_size = \"8MiB\"\nbuffer = \"4MiB\"", 3, "store.buffer", "max_size \"18MiB\" or more"),
        ("[uplink]\nbroker = \"mqtts://a\"", 1, "uplink.ca", "mqtts:// needs"),
        ("[uplink]\nbroker = \"mqtt://a\"\npassword_file = \"/x\"", 3, "uplink.password_file", "no `username`"),
        ("device = \"a/b\"", 1, "device", "such as \"pump-17\""),
    ] {
        let (code, why) = told(&check(config));
        let place = format!("varved: {}:{line}: {key}: ", file.display());
        assert_eq!(code, 78, "{config:?}: {why}");
        assert!(why.starts_with(&place) && why.contains(advice), "{config:?}\n  told {why}  not {place}… {advice}");
    }
    let (code, why) = told(&check("[store\n"));
    assert!(code == 78 && why.contains("varved.toml:1: "), "{why}");
    let (code, why) = told(&varved(["check", "--config", "/nonexistent.toml"]));
    assert!(code == 78 && why.contains("/nonexistent.toml") && why.contains("--config"), "{why}");
}

/// CSV and JSON give back every bit of every float, every text, and say why a value is not there.
#[test]
fn csv_and_json_give_back_what_was_sent() {
    let dir = tempfile::tempdir().unwrap();
    let site = recorded(dir.path());
    let sql = "SELECT series, time, utc, value, quality FROM reading WHERE series GLOB 'plant/*' ORDER BY time, series";

    let rows = csv(&said(&query(&site.db(), "csv", sql)));
    assert_eq!(rows[0], ["series", "time", "utc", "value", "quality"]);
    assert_eq!(rows.len() as i64, SENT);
    let temps = rows.iter().filter(|row| row[0].contains("/temp") && row[4] == "ok");
    assert_eq!(bits(temps.map(|row| row[3].parse().unwrap())), bits(FLOATS));
    let find = |series: &str, n: i64| {
        let time = (1_790_000_000_000_000_000 + n).to_string();
        let row = rows.iter().find(|row| row[0] == series && row[1] == time);
        let row = row.unwrap_or_else(|| panic!("{series} {n}"));
        (row[3].as_str(), row[4].as_str())
    };
    assert_eq!(find("plant/state,s=1", 1), ("a \"quoted\", b; ünï", "ok"));
    assert_eq!(find("plant/state,s=1", 2), ("", "ok"));
    assert_eq!(find("plant/count,s=1", 6), ("-9223372036854775808", "ok"));
    assert_eq!((find("plant/open,s=1", 1), find("plant/open,s=1", 3)), (("1", "ok"), ("0", "ok")));
    assert_eq!((find("plant/temp,s=1", 7), find("plant/temp,s=1", 8)), (("", "nan"), ("inf", "infinite")));
    assert_eq!(rows[1][2], "1913-04-12T09:46:39.999999991Z");

    let array: Vec<Json> = serde_json::from_str(&said(&query(&site.db(), "json", sql))).unwrap();
    assert_eq!(array.len() as i64, SENT - 1);
    let temps = array.iter().filter(|row| row["quality"] == "ok" && row["series"].as_str().unwrap().contains("/temp"));
    assert_eq!(bits(temps.map(|row| row["value"].as_f64().unwrap())), bits(FLOATS));
    assert!(array.iter().any(|row| row["value"] == "a \"quoted\", b; ünï"));
    assert!(array.iter().any(|row| row["value"].is_null() && row["quality"] == "infinite"));

    let missing = site.query("SELECT value, quality FROM reading WHERE series = 'plain/x' LIMIT 1");
    assert!(missing[0]["value"].is_null() && missing[0]["quality"] == "unreadable", "{missing:?}");
    let now =
        site.query("SELECT value, abs(time / 1e9 - unixepoch()) < 600 AS recent FROM reading WHERE series = 'now/v'");
    assert_eq!((now[0]["value"].as_i64(), now[0]["recent"].as_i64()), (Some(7), Some(1)), "{now:?}");
    let table = said(&query(&site.db(), "table", sql));
    assert!(table.lines().nth(1).is_some_and(|rule| rule.starts_with("-----")), "{table}");
}

/// A query writes nothing, whatever it says: neither the store, nor another file; and an unknown table is told what is there.
#[test]
fn a_query_only_reads() {
    let dir = tempfile::tempdir().unwrap();
    let site = recorded(dir.path());
    let other = dir.path().join("other.db");
    let before = site.count("segment");
    for (sql, code, part) in [
        ("DELETE FROM segment".to_owned(), 64, "would write"),
        ("INSERT INTO meta VALUES ('a', 1)".to_owned(), 64, "would write"),
        ("UPDATE segment SET n = 0".to_owned(), 64, "would write"),
        ("CREATE TABLE mine (x)".to_owned(), 64, "would write"),
        ("INSERT INTO reading VALUES (1, 2, 3, 4, 5, 6, 7)".to_owned(), 64, ""),
        (format!("ATTACH '{}' AS other", other.display()), 64, "(ATTACH)"),
        (format!("VACUUM INTO '{}'", other.display()), 64, ""),
        ("SELECT * FROM readings".to_owned(), 64, "no such table: readings"),
        ("SELEC 1".to_owned(), 64, "syntax error"),
    ] {
        let (exit, why) = told(&query(&site.db(), "table", &sql));
        assert!(exit == code && why.contains(part) && why.contains("; "), "{sql}: {exit} {why}");
    }
    assert!(!other.exists());
    assert_eq!(site.count("segment"), before);
    let (_, why) = told(&query(&site.db(), "table", "SELECT * FROM readings"));
    assert!(why.contains("shows the tables"), "{why}");
    let help = varved(["query"]);
    assert!(help.status.code() == Some(64) && text(&help).contains("The table `reading`"), "{}", text(&help));
}

/// Mistakes of typing end with 64, say what was meant and where to read on.
#[test]
fn mistakes_of_typing_end_with_a_suggestion() {
    for (words, part) in [
        (&["chekc"][..], "did you mean `varved check`?"),
        (&["stauts"], "did you mean `varved status`?"),
        (&["exprot", "--format", "csv"], "did you mean `varved export`?"),
        (&["frobnicate"], "see `varved --help`"),
        (&["status", "--jsn"], "`--jsn` is not an option of this command"),
        (&["flush", "now"], "`now` is one argument too many"),
        (&["query", "--format", "xml", "SELECT 1"], "`xml` is not one of table, csv, json"),
        (&["export", "--format", "csv", "--since", "soon"], "\"2026-11-22T10:00:00Z\""),
        (&["export"], "sqlite, csv, jsonl or line-protocol"),
        (&["snapshot"], "-o is missing"),
        (&["verify"], "name the file"),
        (&["demo", "--seconds", "0"], "from 1 to 86400"),
    ] {
        let (code, why) = told(&varved(words));
        assert!(code == 64 && why.contains(part) && why.contains("see `varved"), "{words:?}: {code} {why}");
    }
    assert!(said(&varved(["--help"])).contains("Exit codes: 0 ok, 64 usage"));
    assert!(said(&varved(["--version"])).starts_with("varved "));
    for name in ["demo", "run", "check", "status", "flush", "query", "export", "snapshot", "verify"] {
        assert_eq!(said(&varved([name, "--help"])), said(&varved(["help", name])));
    }
}
