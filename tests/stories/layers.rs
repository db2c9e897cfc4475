//! Imports go downward only: what a room may know of the others is fixed here, not remembered.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The layer of each room. `cli` may also wire the rooms of its own layer together; that is what it is for.
const LAYERS: [(&str, u8); 23] = [
    ("reading", 0),
    ("clock", 0),
    ("fault", 0),
    ("config", 1),
    ("segment", 1),
    ("batch", 1),
    ("wire", 1),
    ("sensor", 2),
    ("store", 2),
    ("mqtt", 2),
    ("signals", 2),
    ("power_fail", 2),
    ("uplink", 3),
    ("upkeep", 3),
    ("wear", 3),
    ("pull", 3),
    ("report", 3),
    ("device", 4),
    ("fleet", 4),
    ("cli", 5),
    // In test builds only; it joins both sides.
    ("simulation", 5),
    ("main", 6),
    ("bin", 6),
];

/// Libraries that only one room may know.
const PRIVATE: [(&str, &[&str]); 4] =
    [("rusqlite", &["store", "fleet"]), ("rumqttc", &["mqtt"]), ("rumqttd", &["fleet"]), ("lexopt", &["cli"])];

#[test]
fn every_import_goes_downward() {
    let wrong: Vec<String> = sources().iter().flat_map(|(path, text)| offences(path, text)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The test above can fail: each kind of wrong import is seen.
#[test]
fn an_upward_import_is_seen() {
    let seen = |path: &str, text: &str| offences(Path::new(path), text).len();
    assert_eq!(seen("src/segment/codec.rs", "use crate::store::Store;"), 1);
    assert_eq!(seen("src/device.rs", "fn f() { crate::fleet::run() }"), 1);
    assert_eq!(seen("src/fleet/run.rs", "use crate::{\n    sensor::Driver,\n    wire::Ack,\n};"), 1);
    assert_eq!(seen("src/uplink/task.rs", "use rumqttc::Client;"), 1);
    assert_eq!(seen("src/store/open.rs", "use crate::segment::View; use rusqlite::Connection;"), 0);
    assert_eq!(seen("src/store/open.rs", "// crate::fleet has its own"), 0);
}

fn offences(path: &Path, text: &str) -> Vec<String> {
    let room = room_of(path);
    let layers: BTreeMap<&str, u8> = LAYERS.into_iter().collect();
    let Some(own) = layers.get(room.as_str()) else {
        return if room == "lib" {
            vec![]
        } else {
            vec![format!("{}: no layer is given to this room", path.display())]
        };
    };
    let code: String = text.lines().map(|l| l.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n");
    let mut wrong = Vec::new();
    for other in rooms_named(&code) {
        let fine = match layers.get(other.as_str()) {
            Some(layer) => layer < own || other == room || (*own < 2 && layer == own),
            None => false,
        };
        if !fine {
            wrong.push(format!("{}: {room} (layer {own}) imports {other}", path.display()));
        }
    }
    for (library, rooms) in PRIVATE {
        if code.contains(&format!("{library}::")) && !rooms.contains(&room.as_str()) {
            wrong.push(format!("{}: {library} belongs to {rooms:?}", path.display()));
        }
    }
    if room == "fleet" {
        let device_rooms = ["sensor", "power_fail", "batch", "uplink", "upkeep", "device"];
        wrong.extend(
            rooms_named(&code)
                .into_iter()
                .filter(|r| device_rooms.contains(&r.as_str()))
                .map(|r| format!("{}: the fleet imports {r}, a room of the device", path.display())),
        );
    }
    wrong
}

/// `src/store/open.rs` and `src/store.rs` are of the room `store`.
fn room_of(path: &Path) -> String {
    let below = path.iter().skip_while(|p| *p != "src").nth(1).unwrap_or_default();
    below.to_string_lossy().trim_end_matches(".rs").to_owned()
}

/// Every room that `crate::room` or `crate::{room…, room…}` names.
fn rooms_named(code: &str) -> Vec<String> {
    let mut rooms = Vec::new();
    for after in code.split("crate::").skip(1) {
        match after.strip_prefix('{') {
            Some(list) => rooms.extend(heads_of_list(list)),
            None => rooms.push(word(after)),
        }
    }
    rooms.retain(|r| !r.is_empty());
    rooms
}

fn heads_of_list(list: &str) -> Vec<String> {
    let (mut depth, mut heads, mut at_head) = (0, Vec::new(), true);
    for (i, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => at_head = true,
            c if at_head && depth == 0 && c.is_alphanumeric() => {
                heads.push(word(&list[i..]));
                at_head = false;
            }
            _ => {}
        }
    }
    heads
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn sources() -> Vec<(PathBuf, String)> {
    let (mut files, mut folders) = (Vec::new(), vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.iter().any(|part| part == "tests" || part == "tests.rs" || part == "testing.rs") {
                // A room's own tests may reach wider.
            } else if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let text = text.split("#[cfg(test)]").next().unwrap_or_default().to_owned();
                files.push((path, text));
            }
        }
    }
    assert!(files.len() > 20, "the sources were found");
    files
}
