//! A power-fail input in the real service: a file of a made-up board plays it. What is in RAM is on flash within some hundred
//! milliseconds, and a supply that comes back, or an input that is not there, changes nothing.

use crate::support::*;
use serde_json::Value as Json;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The file of the input, below the board's root.
const ONLINE: &str = "sys/class/power_supply/usb/online";

/// A device that commits once an hour, on a board whose supply the test holds.
struct Board {
    site: Site,
    root: PathBuf,
    _dir: tempfile::TempDir,
}

impl Board {
    /// `input` goes into `[power_fail]`.
    fn new(input: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = "commit_interval = \"1h\"";
        let site = Site::new(&dir.path().join("site"), "pump-17", store, &format!("[power_fail]\n{input}"));
        let root = dir.path().join("root");
        let text = std::fs::read_to_string(&site.config).unwrap();
        std::fs::write(&site.config, text.replacen("[store]", &format!("root = \"{}\"\n[store]", root.display()), 1))
            .unwrap();
        let board = Self { site, root, _dir: dir };
        board.put("proc/sys/kernel/random/boot_id", "5d0c2bd4-0d6f-4c1c-9f0e-3a8b1b6d2a01");
        board
    }

    /// One with the input of most stories, and a supply that is good.
    fn with_file() -> Self {
        let board = Self::new(&format!("file = \"/{ONLINE}\""));
        board.supply("1");
        board
    }

    fn put(&self, file: &str, text: &str) {
        let path = self.root.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let new = path.with_extension("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, path).unwrap();
    }

    fn supply(&self, online: &str) {
        self.put(ONLINE, &format!("{online}\n"));
    }

    /// The service, once it knows how its supply is.
    fn run(&self, active: bool) -> Process {
        let device = self.site.run();
        self.power("the input", |power| power["active"] == active);
        device
    }

    /// What the service says of its supply, once `ready` is true of it.
    fn power(&self, what: &str, ready: impl Fn(&Json) -> bool) -> Json {
        wait_for(what, 20, || {
            let power = self.site.ask("status")?["power_fail"].clone();
            ready(&power).then_some(power)
        })
    }

    /// Readings of their own stamps, in RAM.
    fn send(&self, stamps: std::ops::Range<u64>) {
        let n = stamps.end - stamps.start;
        let before = self.site.ask("status").unwrap()["recorded"]["taken"].as_u64().unwrap();
        let lines: String = stamps.map(|at| format!("m v={at}i {at}\n")).collect();
        self.site.send(&lines);
        wait_for("the readings to be taken", 20, || {
            (self.site.ask("status")?["recorded"]["taken"] == before + n).then_some(())
        });
    }

    /// How many readings only RAM has.
    fn at_risk(&self) -> u64 {
        self.site.ask("status").unwrap()["risk"]["readings"].as_u64().unwrap()
    }

    /// How long it takes from now until nothing is in RAM only.
    fn time_to_safety(&self) -> Duration {
        let begun = Instant::now();
        while self.at_risk() > 0 {
            assert!(begun.elapsed() < Duration::from_secs(40), "{:?}", self.site.status());
            std::thread::sleep(Duration::from_millis(2));
        }
        begun.elapsed()
    }
}

/// Some hundred milliseconds, on a machine that has nothing else to do.
fn soon() -> Duration {
    Duration::from_millis(500) * slowness()
}

/// With commits an hour apart, what was taken before the power failed is on flash some hundred milliseconds after, without a
/// flush; kill -9 right then takes none of it. While the input says that all is well, nothing is committed early.
#[test]
fn what_is_in_ram_is_on_flash_before_the_supply_is_gone() {
    let board = Board::with_file();
    let device = board.run(false);
    board.send(0..100);
    std::thread::sleep(Duration::from_secs(2));
    let status = board.site.status();
    assert_eq!((&status["risk"]["readings"], &status["recorded"]["commits"]), (&100.into(), &0.into()), "{status}");
    assert_eq!(status["power_fail"]["times"], 0);

    board.supply("0");
    let took = board.time_to_safety();
    println!("power_fail: 100 readings on flash {} ms after the edge", took.as_millis());
    device.kill9();
    assert!(took < soon(), "{took:?}");
    assert_eq!(board.site.count("reading"), 100);
}

/// What comes in while the supply still carries is committed every quarter of a second; so is what comes in right before the
/// end. kill -9 then takes no more than that.
#[test]
fn while_the_power_fails_commits_are_short() {
    let board = Board::with_file();
    let device = board.run(false);
    board.supply("0");
    board.power("the failure", |power| power["active"] == true);
    let begun = Instant::now();
    for batch in 0..4 {
        board.send(batch * 10..batch * 10 + 10);
        let took = board.time_to_safety();
        assert!(took < soon(), "batch {batch}: {took:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(9) * slowness());
    device.kill9();
    assert_eq!(board.site.count("reading"), 40);
}

/// A supply that comes back, after edges that chatter, is one failure; from then on commits are an hour apart again, until the
/// next one.
#[test]
fn a_brown_out_that_recovers_changes_nothing() {
    let board = Board::with_file();
    let device = board.run(false);
    board.send(0..10);
    for online in ["0", "1", "0", "1"] {
        board.supply(online);
        std::thread::sleep(Duration::from_millis(250));
    }
    let power = board.power("the supply to be back", |power| power["active"] == false && power["times"] == 1);
    assert!(power["last_commit_ms"].as_f64() > Some(0.0) && power["last"].is_string(), "{power}");
    assert_eq!(board.at_risk(), 0);

    board.send(10..20);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(board.at_risk(), 10, "nothing is committed early any more");
    board.supply("0");
    assert!(board.time_to_safety() < soon());
    assert_eq!(board.power("the second failure", |power| power["active"] == true)["times"], 2);
    board.supply("1");
    board.power("the supply to be back again", |power| power["active"] == false);
    let screen = text(&board.site.command("status"));
    assert!(screen.contains(&format!("good, says /{ONLINE}; 2 failures since start, the last ")), "{screen}");
    assert_eq!(device.log_text().matches("power: it fails, says ").count(), 2, "{}", device.log_text());
    assert_eq!(device.log_text().matches("power: back after ").count(), 2, "{}", device.log_text());
    assert_eq!(device.stop(), Some(0));
    assert_eq!(board.site.count("reading"), 20);
}

/// An input that stays active is a battery, or the wrong level: after ten seconds commits are an hour apart again, and the flash
/// is not worn by it.
#[test]
fn an_input_that_is_stuck_wears_nothing() {
    let board = Board::with_file();
    board.supply("0");
    let device = board.run(true);
    assert!(device.log_text().contains("if it does not fail, turn `active` round"), "{}", device.log_text());
    board.send(0..10);
    assert!(board.time_to_safety() < soon());
    std::thread::sleep(Duration::from_secs(11));
    board.send(10..20);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(board.at_risk(), 10);
    assert!(text(&board.site.command("status")).contains("POWER FAILS"));
    assert_eq!(device.stop(), Some(0));
    assert_eq!(board.site.count("reading"), 20);
}

/// A file, a chip or a line that is not there ends nothing: the log says once what to do, `status` too, `check` beforehand; and a
/// file that comes later is watched.
#[test]
fn a_service_without_its_input_records() {
    let wrong_chip = Board::new("gpio = \"gpiochip0:17\"");
    let wrong_line = Board::new("gpio = \"PWR_FAIL\"");
    let no_chip = Board::new("gpio = \"gpiochip0:17\"");
    no_chip.put("dev/gpiochip0", "");
    let no_level = Board::new(&format!("file = \"/{ONLINE}\""));
    no_level.put(ONLINE, "Charging\n");
    for (board, code, told) in [
        (wrong_chip, 0, "there is no GPIO chip gpiochip0, nor any other; load its driver"),
        (wrong_line, 0, "none of 0 GPIO lines is called PWR_FAIL; `gpioinfo` lists them"),
        (no_chip, 78, "name a GPIO chip, of a kernel of 5.10 or newer, or write file ="),
        (no_level, 78, "begins with \"Charging\", which is no level; write a file that begins with 0 or 1"),
    ] {
        let checked = board.site.command("check");
        assert_eq!(checked.status.code(), Some(code), "{}", text(&checked));
        assert!(text(&checked).contains("power_fail.") && text(&checked).contains(told), "{}", text(&checked));
        let device = board.site.run();
        let power = board.power("the fault", |power| power["fault"].is_string());
        assert!(power["fault"].as_str().unwrap().contains(told) && power["active"].is_null(), "{power}");
        assert!(text(&board.site.command("status")).contains("NO POWER-FAIL"));
        board.send(0..10);
        board.site.flush();
        assert_eq!(board.site.count("reading"), 10);
        std::thread::sleep(Duration::from_secs(6));
        assert_eq!(device.log_text().matches(told).count(), 1, "{}", device.log_text());
        assert_eq!(device.stop(), Some(0));
    }

    let late = Board::new(&format!("file = \"/{ONLINE}\""));
    let checked = text(&late.site.command("check"));
    assert!(checked.contains("note: power_fail.file names /sys/") && checked.contains("load its driver"), "{checked}");
    let device = late.site.run();
    late.power("the fault", |power| power["fault"].is_string());
    late.supply("1");
    let power = late.power("the input", |power| power["active"] == false);
    assert!(power["fault"].is_null(), "{power}");
    assert!(device.log_text().contains("which is there again"), "{}", device.log_text());
    late.send(0..10);
    late.supply("0");
    assert!(late.time_to_safety() < soon());
}
