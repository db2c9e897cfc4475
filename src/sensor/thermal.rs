//! `/sys/class/thermal`: the zones by which the kernel decides about cooling.
//!
//! Source: Linux `Documentation/driver-api/thermal/sysfs-api.rst`: `temp` is m°C, `type` the zone's name. Series are
//! `thermal/<type>`; zones of one type get the tag `zone`, with their device's place where they have one and else their number,
//! the only thing left to tell them apart. Not read: trip points, cooling devices.

use super::name::tidy;
use super::poll::{Driver, Heard};
use super::sysfs::{self, Shared};
use crate::reading::{Kind, Scale, SeriesDef, Value};
use std::path::{Path, PathBuf};

/// The thermal zones of a machine.
#[derive(Debug)]
pub(super) struct Thermal {
    class: PathBuf,
    globs: Vec<String>,
    shared: Shared,
    temps: Vec<PathBuf>,
}

impl Thermal {
    pub(super) fn new(root: &Path, globs: &[String]) -> Self {
        let class = root.join("sys/class/thermal");
        Self { class, globs: globs.to_vec(), shared: Shared::default(), temps: Vec::new() }
    }
}

impl Driver for Thermal {
    fn discover(&mut self) -> Vec<SeriesDef> {
        let zones = sysfs::entries(&self.class, "thermal_zone").into_iter();
        let zones: Vec<_> =
            zones.filter_map(|(n, dir)| Some((tidy(&sysfs::read(&dir.join("type")).ok()?)?, n, dir))).collect();
        self.shared.learn(zones.iter().map(|(name, ..)| name.as_str()));
        self.temps.clear();
        let mut defs = Vec::new();
        for (name, number, dir) in zones.into_iter().filter(|(name, ..)| sysfs::wanted(&self.globs, &[name])) {
            let place = sysfs::place(&dir).unwrap_or_else(|| number["thermal_zone".len()..].to_owned());
            let tag = [("zone", place.as_str())];
            let tags = if self.shared.has(&name) { tag.as_slice() } else { &[] };
            if let Some(def) = sysfs::series("thermal", &name, tags, "Cel", Kind::Int, Scale::MILLI) {
                defs.push(def);
                self.temps.push(dir.join("temp"));
            }
        }
        defs
    }

    fn poll(&mut self, values: &mut Vec<Value>) -> Heard {
        values.extend(self.temps.iter().map(|temp| sysfs::int(sysfs::read(temp))));
        Heard::AsKnown
    }
}

#[cfg(test)]
mod tests {
    use super::super::poll::tests::{names, polled};
    use super::super::sysfs::fake::tree;
    use super::*;

    /// Zones go by their type in m°C; twins keep their number, since they have nothing else.
    #[test]
    fn zones_are_read_by_type() {
        let root = tempfile::tempdir().expect("a directory");
        let zone = |n: u32, name: &str, temp: &str| {
            let dir = format!("sys/class/thermal/thermal_zone{n}");
            tree(root.path(), &[(&format!("{dir}/type"), name), (&format!("{dir}/temp"), temp)]);
        };
        zone(0, "cpu-thermal\n", "48312\n");
        zone(2, "acpitz", "-5000");
        zone(10, "acpitz", "27800");
        let mut driver = Thermal::new(root.path(), &[]);
        let seen: Vec<_> = polled(&mut driver).into_iter().map(|(def, value)| (def.name, value)).collect();
        let expected = [
            ("thermal/cpu-thermal".to_owned(), Value::Int(48_312)),
            ("thermal/acpitz,zone=2".to_owned(), Value::Int(-5000)),
            ("thermal/acpitz,zone=10".to_owned(), Value::Int(27_800)),
        ];
        assert_eq!(seen, expected);
        let def = driver.discover().remove(0);
        assert_eq!((def.unit.as_str(), def.scale.apply(48_312)), ("Cel", 48.312));
        assert_eq!(names(&mut Thermal::new(root.path(), &["cpu*".into()])), ["thermal/cpu-thermal"]);
    }
}
