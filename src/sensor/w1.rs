//! `/sys/bus/w1/devices`: thermometers on the 1-Wire bus (DS18B20 and its family).
//!
//! Source: Linux `Documentation/w1/slaves/w1_therm.rst`: `temperature` is m°C, and every read makes the chip convert, up to
//! 750 ms each; so all are told to convert at once by writing `trigger` to the bus master's `therm_bulk_read`, which
//! reads −1 until they are done. Older kernels have only `w1_slave`, whose first line says whether the CRC was right.
//! Series are `w1/<id>/temperature`; the id is burnt into the chip.
//!
//! 85.00 °C is what the chip holds from power-up to its first conversion (DS18B20 data sheet, table 1). It is given as
//! [`NoValue::PowerUp`], unless the value before was within 5 °C of it: a boiler may well be that hot.

use super::name::tidy;
use super::poll::{Driver, Heard};
use super::sysfs;
use crate::reading::{Kind, NoValue, Scale, SeriesDef, Value};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Family codes with a thermometer, by `drivers/w1/slaves/w1_therm.c`.
const FAMILIES: [&str; 5] = ["10-", "22-", "28-", "3b-", "42-"];
const POWER_UP_MILLI_CEL: i64 = 85_000;
const NEAR_MILLI_CEL: i64 = 5_000;

/// How long a conversion is waited for: 750 ms by the data sheet, and some more for clones.
const CONVERSION_STEPS: u32 = 20;
const CONVERSION_STEP: Duration = Duration::from_millis(50);

/// The 1-Wire thermometers of a machine.
#[derive(Debug)]
pub(super) struct W1 {
    bus: PathBuf,
    globs: Vec<String>,
    channels: Vec<Channel>,
}

#[derive(Debug)]
struct Channel {
    path: PathBuf,
    old_form: bool,
    before: Option<i64>,
}

impl W1 {
    pub(super) fn new(root: &Path, globs: &[String]) -> Self {
        Self { bus: root.join("sys/bus/w1/devices"), globs: globs.to_vec(), channels: Vec::new() }
    }
}

impl Driver for W1 {
    fn discover(&mut self) -> Vec<SeriesDef> {
        let known = std::mem::take(&mut self.channels);
        let mut defs = Vec::new();
        for (entry, dir) in sysfs::entries(&self.bus, "") {
            let thermometer = FAMILIES.iter().any(|family| entry.to_ascii_lowercase().starts_with(family));
            let Some(id) = tidy(&entry).filter(|id| thermometer && sysfs::wanted(&self.globs, &[id])) else { continue };
            let Some(path) = ["temperature", "w1_slave"].map(|file| dir.join(file)).into_iter().find(|p| p.exists())
            else {
                continue;
            };
            if let Some(def) = sysfs::series(&format!("w1/{id}"), "temperature", &[], "Cel", Kind::Int, Scale::MILLI) {
                let before = known.iter().find(|channel| channel.path == path).and_then(|channel| channel.before);
                self.channels.push(Channel { old_form: path.ends_with("w1_slave"), path, before });
                defs.push(def);
            }
        }
        defs
    }

    fn poll(&mut self, values: &mut Vec<Value>) -> Heard {
        if !self.channels.is_empty() {
            convert_all(&self.bus);
        }
        values.extend(self.channels.iter_mut().map(Channel::read));
        Heard::AsKnown
    }
}

impl Channel {
    fn read(&mut self) -> Value {
        let text = sysfs::read(&self.path);
        let text = if self.old_form { text.and_then(|text| old_form(&text)) } else { text };
        match sysfs::int(text) {
            Value::Int(POWER_UP_MILLI_CEL) if !self.is_near() => Value::None(NoValue::PowerUp),
            Value::Int(raw) => {
                self.before = Some(raw);
                Value::Int(raw)
            }
            other => other,
        }
    }

    fn is_near(&self) -> bool {
        self.before.is_some_and(|before| (before - POWER_UP_MILLI_CEL).abs() <= NEAR_MILLI_CEL)
    }
}

/// ```text
/// 72 01 4b 46 7f ff 0e 10 57 : crc=57 YES
/// 72 01 4b 46 7f ff 0e 10 57 t=23125
/// ```
fn old_form(text: &str) -> Result<String, NoValue> {
    let (first, second) = text.split_once('\n').ok_or(NoValue::Unreadable)?;
    if !first.trim_end().ends_with("YES") {
        return Err(NoValue::Failed);
    }
    second.rsplit_once("t=").map(|(_, value)| value.trim().to_owned()).ok_or(NoValue::Unreadable)
}

/// Has every chip of every bus convert at the same time. Where that is not possible, or not allowed, each read converts
/// by itself: slower, not wrong.
fn convert_all(bus: &Path) {
    let masters = sysfs::entries(bus, "w1_bus_master").into_iter().map(|(_, dir)| dir.join("therm_bulk_read"));
    let started: Vec<_> = masters.filter(|path| trigger(path).is_ok()).collect();
    for _ in 0..CONVERSION_STEPS {
        if !started.iter().any(|path| sysfs::read(path).is_ok_and(|state| state == "-1")) {
            break;
        }
        std::thread::sleep(CONVERSION_STEP);
    }
}

fn trigger(path: &Path) -> std::io::Result<()> {
    use std::io::Write as _;
    // Not created where it isn't there.
    std::fs::OpenOptions::new().write(true).open(path)?.write_all(b"trigger\n")
}

#[cfg(test)]
mod tests {
    use super::super::poll::tests::{names, polled};
    use super::super::sysfs::fake::tree;
    use super::*;

    fn values(driver: &mut W1) -> Vec<Value> {
        polled(driver).into_iter().map(|(_, value)| value).collect()
    }

    /// Both forms are read, a bad CRC is no value, and other 1-Wire chips are left alone.
    #[test]
    fn thermometers_are_read_in_both_forms() {
        let root = tempfile::tempdir().expect("a directory");
        let bus = "sys/bus/w1/devices";
        let good = "72 01 : crc=57 YES\n72 01 t=23125\n";
        tree(
            root.path(),
            &[
                (&format!("{bus}/28-000005e2fdc3/temperature"), "-1250\n"),
                (&format!("{bus}/10-000802824e58/w1_slave"), good),
                (&format!("{bus}/22-000802824e59/w1_slave"), "72 01 : crc=57 NO\n72 01 t=23125\n"),
                (&format!("{bus}/01-000000000001/id"), "x"),
                (&format!("{bus}/w1_bus_master1/therm_bulk_read"), "0"),
            ],
        );
        let mut driver = W1::new(root.path(), &[]);
        assert_eq!(values(&mut driver), [Value::Int(23_125), Value::None(NoValue::Failed), Value::Int(-1250)]);
        let wrote = std::fs::read_to_string(root.path().join(bus).join("w1_bus_master1/therm_bulk_read"));
        assert_eq!(wrote.expect("the file"), "trigger\n", "all chips are told to convert at once");
        assert_eq!(names(&mut W1::new(root.path(), &["28-*".into()])), ["w1/28-000005e2fdc3/temperature"]);
    }

    /// 85.00 °C out of nowhere is the power-up value; on a boiler that has been near it, it is a temperature.
    #[test]
    fn the_power_up_value_is_no_temperature_unless_it_was_near() {
        let root = tempfile::tempdir().expect("a directory");
        let set = |text| tree(root.path(), &[("sys/bus/w1/devices/28-01/temperature", text)]);
        set("85000");
        let mut driver = W1::new(root.path(), &[]);
        let mut seen = values(&mut driver);
        for text in ["20000", "85000", "84937", "85000"] {
            set(text);
            seen.extend(values(&mut driver));
        }
        let none = Value::None(NoValue::PowerUp);
        assert_eq!(seen, [none.clone(), Value::Int(20_000), none, Value::Int(84_937), Value::Int(85_000)]);
    }
}
