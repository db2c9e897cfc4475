//! `/sys/class/power_supply`: batteries, chargers, mains.
//!
//! Source: Linux `Documentation/ABI/testing/sysfs-class-power` and `Documentation/power/power_supply_class.rst`: voltages
//! in µV, currents in µA, powers in µW, charges in µAh, energies in µWh, temperatures in 0.1 °C, `capacity` in percent. Series are
//! `power_supply/<name>/<attribute>`; the name is the driver's and stable. Not read: limits and settings.

use super::name::tidy;
use super::poll::{Driver, Heard};
use super::sysfs;
use crate::reading::{Kind, NoValue, Scale, SeriesDef, Value};
use std::path::{Path, PathBuf};

const TENTH: Scale = Scale { mantissa: 1, exponent: -1 };

/// The attributes that are measurements, with unit (RFC 8428 and RFC 8798), kind and scale.
const ATTRIBUTES: [(&str, &str, Kind, Scale); 18] = [
    ("voltage_now", "V", Kind::Int, Scale::MICRO),
    ("current_now", "A", Kind::Int, Scale::MICRO),
    ("power_now", "W", Kind::Int, Scale::MICRO),
    ("charge_now", "Ah", Kind::Int, Scale::MICRO),
    ("charge_full", "Ah", Kind::Int, Scale::MICRO),
    ("charge_counter", "Ah", Kind::Int, Scale::MICRO),
    ("energy_now", "Wh", Kind::Int, Scale::MICRO),
    ("energy_full", "Wh", Kind::Int, Scale::MICRO),
    ("capacity", "%EL", Kind::Int, Scale::ONE),
    ("temp", "Cel", Kind::Int, TENTH),
    ("temp_ambient", "Cel", Kind::Int, TENTH),
    ("time_to_empty_now", "s", Kind::Int, Scale::ONE),
    ("time_to_full_now", "s", Kind::Int, Scale::ONE),
    ("cycle_count", "count", Kind::Int, Scale::ONE),
    ("online", "", Kind::Int, Scale::ONE),
    ("present", "", Kind::Bool, Scale::ONE),
    ("status", "", Kind::Text, Scale::ONE),
    ("health", "", Kind::Text, Scale::ONE),
];

/// The power supplies of a machine.
#[derive(Debug)]
pub(super) struct PowerSupply {
    class: PathBuf,
    globs: Vec<String>,
    channels: Vec<(PathBuf, Kind)>,
}

impl PowerSupply {
    pub(super) fn new(root: &Path, globs: &[String]) -> Self {
        Self { class: root.join("sys/class/power_supply"), globs: globs.to_vec(), channels: Vec::new() }
    }
}

impl Driver for PowerSupply {
    fn discover(&mut self) -> Vec<SeriesDef> {
        self.channels.clear();
        let mut defs = Vec::new();
        for (entry, dir) in sysfs::entries(&self.class, "") {
            let Some(name) = tidy(&entry) else { continue };
            for (attribute, unit, kind, scale) in ATTRIBUTES {
                let (path, full) = (dir.join(attribute), format!("{name}/{attribute}"));
                if !path.exists() || !sysfs::wanted(&self.globs, &[&name, attribute, &full]) {
                    continue;
                }
                let measurement = format!("power_supply/{name}");
                if let Some(def) = sysfs::series(&measurement, attribute, &[], unit, kind, scale) {
                    defs.push(def);
                    self.channels.push((path, kind));
                }
            }
        }
        defs
    }

    fn poll(&mut self, values: &mut Vec<Value>) -> Heard {
        values.extend(self.channels.iter().map(|(path, kind)| read(path, *kind)));
        Heard::AsKnown
    }
}

fn read(path: &Path, kind: Kind) -> Value {
    let text = sysfs::read(path);
    match (kind, text) {
        (Kind::Text, Ok(text)) if !text.is_empty() => Value::Text(text.into()),
        (Kind::Bool, Ok(text)) if text == "0" || text == "1" => Value::Bool(text == "1"),
        (Kind::Text | Kind::Bool, Ok(_)) => Value::None(NoValue::Unreadable),
        (_, text) => sysfs::int(text),
    }
}

#[cfg(test)]
mod tests {
    use super::super::poll::tests::polled;
    use super::super::sysfs::fake::tree;
    use super::*;

    /// A battery's numbers have the units of the kernel's document; words stay words.
    #[test]
    fn a_battery_is_read_in_the_kernels_units() {
        let root = tempfile::tempdir().expect("a directory");
        let bat = "sys/class/power_supply/BAT0";
        for (file, text) in [
            ("voltage_now", "12345678"),
            ("temp", "231"),
            ("capacity", "87"),
            ("charge_now", "2500000"),
            ("present", "1"),
            ("status", "Not charging\n"),
            ("voltage_min_design", "1"),
        ] {
            tree(root.path(), &[(&format!("{bat}/{file}"), text)]);
        }
        tree(root.path(), &[("sys/class/power_supply/AC/online", "0\n")]);
        let seen = polled(&mut PowerSupply::new(root.path(), &[]));
        let shown: Vec<String> = seen
            .iter()
            .map(|(def, value)| match value {
                Value::Int(raw) => format!("{} {} {}", def.name, def.scale.apply(*raw), def.unit),
                other => format!("{} {other:?}", def.name),
            })
            .collect();
        let expected = [
            "power_supply/AC/online 0 ",
            "power_supply/BAT0/voltage_now 12.345678 V",
            "power_supply/BAT0/charge_now 2.5 Ah",
            "power_supply/BAT0/capacity 87 %EL",
            "power_supply/BAT0/temp 23.1 Cel",
            "power_supply/BAT0/present Bool(true)",
            "power_supply/BAT0/status Text(\"Not charging\")",
        ];
        assert_eq!(shown, expected);
        tree(root.path(), &[(&format!("{bat}/present"), "maybe")]);
        let chosen = polled(&mut PowerSupply::new(root.path(), &["BAT*/present".into()]));
        assert_eq!(chosen[0].1, Value::None(NoValue::Unreadable));
    }
}
