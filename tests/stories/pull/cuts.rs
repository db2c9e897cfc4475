//! The line is cut, or the laptop's program killed, again and again: what has arrived need not come again.

use super::*;
use crate::support::proxy::{Direction, Proxy, Way};
use std::time::Duration;

/// Killed ten times at random moments, while the device records on, a pull goes on where it was; in the end the laptop has what
/// the device committed, each reading once.
#[test]
fn a_pull_that_is_killed_ten_times_goes_on_where_it_was() {
    const READINGS: u64 = 60_000;
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new(&dir.path().join("site"), "pump-17", "", "");
    let device = site.run();
    fill(&site, 0, READINGS);
    let sshd = Sshd::start(&dir.path().join("ssh"), "");
    let proxy = Proxy::to(sshd.port, seed());
    std::fs::remove_file(sshd.dir.join("config")).unwrap();
    sshd.configure("board", proxy.port);
    // So thin that none of the ten gets to its end.
    proxy.set_both(Way { bytes_per_s: Some(10_000), ..Way::default() });
    let laptop = folder(dir.path(), "laptop");
    let out = laptop.join("pump-17.db");
    let mut dice = Dice::new(seed());
    let mut sent = READINGS;
    let log = dir.path().join("pull.log");
    for _ in 0..10 {
        let mut child = Process::start(&mut pulling(&sshd, &site.db(), &out, &[]), &log);
        std::thread::sleep(Duration::from_millis(100 + dice.roll(1_500)));
        fill(&site, sent, 200);
        sent += 200;
        if child.is_running() {
            child.kill9();
        }
        assert!(!out.exists() || stock(&out, "PRAGMA integrity_check") == "ok", "nothing half-written has the name");
    }
    proxy.set_both(Way::default());
    let account = said(&pull(&sshd, &site.db(), &out, &[]));
    assert!(account.contains(&format!("{sent} of 50 series")), "{account}\n{}", std::fs::read_to_string(&log).unwrap());
    only(&laptop, &["pump-17.db"]);
    assert_eq!(device.stop(), Some(0));
    assert_eq!(readings(&out), readings(&site.db()));
    let whole = dir.path().join("whole.db");
    let before = proxy.carried(Direction::Down);
    said(&pull(&sshd, &site.db(), &whole, &[]));
    let at_once = proxy.carried(Direction::Down) - before;
    println!("{before} bytes in eleven pieces, {at_once} at once");
    assert_eq!(readings(&whole), readings(&out));
}
