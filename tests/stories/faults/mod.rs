//! Faults under the running service: the medium full, read-only, failing; its files moved, cut, replaced; a reader that holds on.
//! Each time: nothing acknowledged is lost, the word is clear and says what to do, and the service goes on or ends with its code.

mod files;
mod medium;
mod partition;
mod reader;

use crate::support::*;
use serde_json::Value as Json;
use std::ops::Range;

/// Series `m/v`, whose value is its number, and so is its stamp.
fn lines(numbers: Range<u64>) -> String {
    numbers.map(|n| format!("m v={n}i {}\n", n + 1)).collect()
}

/// Sends these and waits until they are on flash.
fn acknowledged(site: &Site, numbers: Range<u64>) {
    site.send(&lines(numbers));
    site.flush();
}

/// Whether the file of `site` holds each of these once, and nothing else.
fn assert_holds(site: &Site, numbers: Range<u64>) {
    let sql = "SELECT count(*) AS n, count(DISTINCT time) AS numbers, min(time) AS first, max(time) AS last, \
               sum(value = time - 1) AS same FROM reading WHERE series = 'm/v'";
    let row = &site.query(sql)[0];
    let n = (numbers.end - numbers.start) as i64;
    let got: Vec<Option<i64>> =
        ["n", "numbers", "first", "last", "same"].map(|name| row[name].as_i64()).into_iter().collect();
    let right = [n, n, numbers.start as i64 + 1, numbers.end as i64, n].map(Some);
    assert_eq!(got, right, "n, numbers, first, last, same of {numbers:?}");
}

/// The fault that `status` tells, once there is one.
fn fault(site: &Site) -> String {
    wait_for("the fault to be told", 60, || told(&site.try_status()?))
}

fn told(status: &Json) -> Option<String> {
    status["recorded"]["fault"].as_str().map(str::to_owned)
}

/// Everything that was taken is committed, and no fault is told any more.
fn recovered(site: &Site) -> Json {
    wait_for("the readings to be committed", 90, || {
        site.try_status().filter(|s| s["risk"]["readings"] == 0 && told(s).is_none())
    })
}

/// A site with the database on another file system.
fn site_on(dir: &std::path::Path, db: &std::path::Path, store: &str) -> Site {
    let site = Site::new(dir, "pump-17", store, "");
    let config = std::fs::read_to_string(&site.config).unwrap();
    let config = config.replace(&site.db().display().to_string(), &db.display().to_string());
    std::fs::write(&site.config, config).unwrap();
    // What the stories look at.
    std::os::unix::fs::symlink(db, site.db()).unwrap();
    site
}
