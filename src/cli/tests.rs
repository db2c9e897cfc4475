//! The commands as they are typed: help, mistakes, and exit codes.

use super::*;

fn run(words: &[&str]) -> Result<Exit, CliError> {
    dispatch(&VARVED, words.iter().map(OsString::from).collect())
}

fn told(words: &[&str]) -> (Exit, String) {
    match run(words) {
        Ok(exit) => panic!("{words:?} ended with {exit:?}"),
        Err(error) => (error.exit(), error.to_string()),
    }
}

/// Every command of the table is in the help, has a help of its own, and refuses what it doesn't know by its name.
#[test]
fn every_command_has_its_help() {
    let help = VARVED.help();
    for command in VARVED.commands {
        assert!(help.contains(&format!("  {:<10} {}", command.name, command.brief)), "{}", command.name);
        let own = command.help(&VARVED);
        assert!(own.starts_with(&format!("varved {} {}\n", command.name, command.args)) && own.lines().count() > 4);
        assert!(own.lines().all(|line| line.len() <= 120), "{}", command.name);
        let (exit, text) = told(&[command.name, "--no-such-option"]);
        assert_eq!(exit, Exit::Usage);
        assert_eq!(
            text,
            format!("`--no-such-option` is not an option of this command; see `varved help {}`", command.name)
        );
    }
}

/// Mistakes of typing end with 64 and the way out.
#[test]
fn mistakes_of_typing_are_told_the_way_out() {
    for (words, part) in [
        (&["chekc"][..], "`chekc` is not a command, did you mean `varved check`?; see `varved --help`"),
        (&["frobnicate"], "`frobnicate` is not a command; see `varved --help`"),
        (&["help", "verfy"], "did you mean `varved verify`?"),
        (&["query", "--format", "xml", "SELECT 1"], "`xml` is not one of table, csv, json"),
        (&["query", "SELECT 1", "SELECT 2"], "`SELECT 2` is one argument too many"),
        (&["query", "--db"], "missing argument"),
        (&["verify"], "name the file"),
        (&["verify", "-x"], "`-x` is not an option"),
        (&["snapshot", "--db", "a.db"], "-o is missing"),
        (&["snapshot", "-o", "-"], "standard output"),
    ] {
        let (exit, text) = told(words);
        assert_eq!(exit, Exit::Usage, "{words:?}");
        assert!(text.contains(part) && text.contains("see `varved"), "{words:?}: {text}");
    }
    #[cfg(feature = "device")]
    for (words, part) in [
        (&["export"][..], "--format is missing"),
        (&["export", "--format", "sqlite"], "name a file with -o"),
        (&["export", "--format", "csv", "--since", "soon"], "`soon` is not a time"),
    ] {
        let (exit, text) = told(words);
        assert!(exit == Exit::Usage && text.contains(part), "{words:?}: {text}");
    }
}

/// The exit code says what kind of trouble it is.
#[test]
fn exit_codes_tell_the_trouble() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
    std::fs::write(at("bad.toml"), "[store]\ncomit_interval = \"1s\"").expect("a file");
    std::fs::write(at("text.db"), "no database at all").expect("a file");
    assert_eq!(told(&["check", "--config", &at("bad.toml")]).0, Exit::Config);
    assert!(told(&["check", "--config", &at("bad.toml")]).1.contains("bad.toml:2: store.comit_interval"));
    assert_eq!(told(&["verify", &at("none.db")]).0, Exit::Unavailable);
    assert_eq!(told(&["verify", &at("text.db")]).0, Exit::Data);
    assert_eq!(told(&["query", "--db", &at("none.db"), "SELECT 1"]).0, Exit::Unavailable);
}

/// `check` fails for what a broker would not take and for a secret that others may use, and only notes what is not on this
/// machine or is merely doubtful.
#[cfg(feature = "tls")]
#[test]
fn a_connection_is_checked_before_it_is_made() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
    let secret = |mode: u32| {
        std::fs::write(at("password"), "hunter2").expect("a file");
        std::fs::set_permissions(at("password"), PermissionsExt::from_mode(mode)).expect("chmod");
    };
    let checked = |program: &'static Program, text: &str| {
        std::fs::write(at("it.toml"), text).expect("a file");
        let words = ["check", "--config", &at("it.toml")].map(OsString::from).to_vec();
        dispatch(program, words).expect("checked")
    };
    let device = |uplink: &str| checked(&VARVED, &format!("device = \"d\"\n[uplink]\n{uplink}"));
    let login = format!("username = \"d\"\npassword_file = \"{}\"", at("password"));
    let plain = format!("broker = \"mqtt://b\"\n{login}");
    assert_eq!(device(&plain), Exit::Ok, "a password in the open is a note, and so is a file that is not here");
    secret(0o640);
    assert_eq!(device(&plain), Exit::Ok);
    secret(0o644);
    assert_eq!(device(&plain), Exit::Config);
    let ca = format!("ca = \"{}\"", at("ca.pem"));
    assert_eq!(device(&format!("broker = \"mqtts://b\"\n{ca}")), Exit::Ok);
    std::fs::write(at("ca.pem"), "no certificate").expect("a file");
    assert_eq!(device(&format!("broker = \"mqtts://b\"\n{ca}")), Exit::Config);
    assert_eq!(device(&format!("broker = \"mqtts://x.amazonaws.com:443\"\nca = \"{}\"", at("none"))), Exit::Config);
    #[cfg(feature = "fleet")]
    {
        assert_eq!(checked(&fleet::VARVED_FLEET, &format!("[fleet]\n{plain}")), Exit::Config);
        secret(0o600);
        assert_eq!(checked(&fleet::VARVED_FLEET, &format!("[fleet]\n{plain}")), Exit::Ok);
    }
}

/// The read commands over one store, end to end: a snapshot verifies, a damaged copy doesn't, and says how much is left.
#[test]
fn a_snapshot_verifies_and_a_damaged_copy_does_not() {
    let (directory, path) = crate::store::sample::store();
    let at = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
    let db = path.to_string_lossy().into_owned();
    assert_eq!(run(&["snapshot", "--db", &db, "-o", &at("copy.db")]).expect("a snapshot"), Exit::Ok);
    assert_eq!(told(&["snapshot", "--db", &db, "-o", &at("copy.db")]).0, Exit::Usage);
    assert_eq!(run(&["snapshot", "--db", &db, "-o", &at("copy.db"), "--force"]).expect("a snapshot"), Exit::Ok);
    assert_eq!(run(&["verify", &at("copy.db")]).expect("an audit"), Exit::Ok);

    let mut bytes = std::fs::read(at("copy.db")).expect("the copy");
    // Somewhere in the last page: bodies, not SQLite's own bookkeeping.
    let spot = bytes.windows(3).rposition(|window| window == b"b,c").expect("a text of the sample, stored as it is");
    bytes[spot] ^= 1;
    std::fs::write(at("rot.db"), bytes).expect("a damaged copy");
    assert_eq!(run(&["verify", &at("rot.db")]).expect("an audit"), Exit::Data);
    assert_eq!(run(&["query", "--db", &at("rot.db"), "SELECT count(value) FROM reading"]).expect("rows"), Exit::Data);
}

/// What `check` says of the usual example is what it means.
#[test]
fn a_configuration_is_summed_up() {
    let text = "[[sensor]]\nkind = \"hwmon\"\n[[sensor]]\nkind = \"socket\"\nlisten = \"udp://127.0.0.1:9\"\n";
    let config = crate::config::Config::parse_on(text, "varved.toml", "pump").expect("a configuration");
    let said = check::summary(&config);
    assert!(
        said.starts_with("ok: 2 sensors, commits every 10 s to /var/lib/varved/varved.db, at most 64MiB, no uplink\n")
    );
    assert!(said.contains("  sensor hwmon, every 1 s\n  sensor socket on udp://127.0.0.1:9\n"), "{said}");
}

/// An export into a file has the first moment of its range and not the last, so that the next goes on where it ended; a file
/// that is there stays.
#[cfg(feature = "device")]
#[test]
fn exports_in_turn_have_each_reading_once() {
    let (directory, path) = crate::store::sample::store();
    let db = path.to_string_lossy().into_owned();
    let lines = |name: &str, since: &str, until: &str| {
        let out = directory.path().join(name).to_string_lossy().into_owned();
        let words = ["export", "--db", &db, "--format", "jsonl", "--series", "door/*", "-o", &out];
        let words: Vec<&str> = words.into_iter().chain(["--since", since, "--until", until]).collect();
        assert_eq!(run(&words).expect("an export"), Exit::Ok);
        assert_eq!(told(&words).0, Exit::Usage, "a file that is there");
        std::fs::read_to_string(&out).expect("the file").lines().count()
    };
    let [a, b, c] = ["2026-11-22T12:00:10Z", "2026-11-22T12:00:12Z", "2026-11-22T12:00:14Z"];
    assert_eq!((lines("1", a, b), lines("2", b, c)), (2, 2));
    let out = directory.path().join("rows.db").to_string_lossy().into_owned();
    assert_eq!(run(&["export", "--db", &db, "--format", "sqlite", "-o", &out]).expect("rows"), Exit::Ok);
    assert_eq!(
        run(&["query", "--db", &out, "--format", "csv", "SELECT count(*) FROM reading"]).expect("rows"),
        Exit::Ok
    );
}
