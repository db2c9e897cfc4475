//! `/sys/bus/iio/devices`: converters, inertial, light and environment sensors of the Industrial I/O subsystem.
//!
//! Source: Linux `Documentation/ABI/testing/sysfs-bus-iio`: value = (raw + offset) × scale, in mV, mA, m°C, kPa, m%…;
//! `*_input` is that value already worked out. Scale and offset may be the channel's own or shared by type, by direction or by all. Series are
//! `iio/<device>/<channel>`, by label where the device gives one; devices of one name get the tag `device` with the
//! part of the device path above them. Scale and offset are read with every value, since they may be set at run time: another
//! scale is another series. Not read: buffers, triggers, events.

use super::name::tidy;
use super::poll::{Driver, Heard};
use super::sysfs::{self, Decimal, Printed, Shared};
use crate::reading::{Kind, NoValue, Scale, SeriesDef, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const KILO: Scale = Scale { mantissa: 1, exponent: 3 };

/// The types whose unit is fixed by the document; others are read without a unit.
const TYPES: [(&str, &str, Scale); 22] = [
    ("voltage", "V", Scale::MILLI),
    ("altvoltage", "V", Scale::MILLI),
    ("current", "A", Scale::MILLI),
    ("power", "W", Scale::MILLI),
    ("energy", "J", Scale::ONE),
    ("resistance", "Ohm", Scale::ONE),
    ("capacitance", "F", Scale { mantissa: 1, exponent: -9 }),
    ("temp", "Cel", Scale::MILLI),
    ("pressure", "Pa", KILO),
    ("humidityrelative", "%RH", Scale::MILLI),
    ("accel", "m/s2", Scale::ONE),
    ("gravity", "m/s2", Scale::ONE),
    ("velocity", "m/s", Scale::ONE),
    // Gauss.
    ("magn", "T", Scale { mantissa: 1, exponent: -4 }),
    ("incli", "deg", Scale::ONE),
    ("angl", "rad", Scale::ONE),
    ("illuminance", "lx", Scale::ONE),
    ("distance", "m", Scale::ONE),
    ("ph", "pH", Scale::ONE),
    ("electricalconductivity", "S/m", Scale::ONE),
    ("massconcentration", "ug/m3", Scale::ONE),
    ("steps", "count", Scale::ONE),
];

/// The IIO devices of a machine.
#[derive(Debug)]
pub(super) struct Iio {
    bus: PathBuf,
    globs: Vec<String>,
    shared: Shared,
    channels: Vec<Channel>,
    /// How many decimals the `*_input` files printed so far.
    decimals: BTreeMap<PathBuf, u8>,
}

#[derive(Debug)]
enum Channel {
    Input(Printed),
    Raw { raw: PathBuf, scale: Factor, offset: Factor },
}

/// A scale or offset as it was when the series was made.
#[derive(Debug, Default)]
struct Factor {
    path: Option<PathBuf>,
    text: String,
}

impl Iio {
    pub(super) fn new(root: &Path, globs: &[String]) -> Self {
        Self {
            bus: root.join("sys/bus/iio/devices"),
            globs: globs.to_vec(),
            shared: Shared::default(),
            channels: Vec::new(),
            decimals: BTreeMap::new(),
        }
    }

    fn add(&mut self, dir: &Path, device: &str, place: Option<&str>, defs: &mut Vec<SeriesDef>) {
        for (file, path) in sysfs::entries(dir, "in_") {
            let Some((base, form)) = file.rsplit_once('_') else { continue };
            let worked_out = form == "raw" && dir.join(format!("{base}_input")).exists();
            if !matches!(form, "raw" | "input") || worked_out {
                continue;
            }
            let label = sysfs::read(&dir.join(format!("{base}_label"))).ok().and_then(|label| tidy(&label));
            let label = label.unwrap_or_else(|| base["in_".len()..].to_owned());
            if !sysfs::wanted(&self.globs, &[device, &label, &format!("{device}/{label}")]) {
                continue;
            }
            let (unit, fixed) = unit_of(base);
            let channel = self.channel(dir, base, path, form);
            let tag = place.map(|place| [("device", place)]);
            let tags = tag.as_ref().map_or([].as_slice(), |tag| tag.as_slice());
            // A scale that is no number leaves the fixed one; the channel then says that it can't be read.
            let scale = channel.scale().and_then(|own| own.times(fixed)).unwrap_or(fixed);
            if let Some(def) = sysfs::series(&format!("iio/{device}"), &label, tags, unit, Kind::Int, scale) {
                defs.push(def);
                self.channels.push(channel);
            }
        }
    }

    fn channel(&self, dir: &Path, base: &str, path: PathBuf, form: &str) -> Channel {
        if form == "input" {
            let decimals = self.decimals.get(&path).copied().unwrap_or(0);
            return Channel::Input(Printed::new(path, decimals));
        }
        Channel::Raw { raw: path, scale: Factor::find(dir, base, "scale"), offset: Factor::find(dir, base, "offset") }
    }
}

impl Driver for Iio {
    fn discover(&mut self) -> Vec<SeriesDef> {
        let devices = sysfs::entries(&self.bus, "iio:device").into_iter().filter_map(|(number, dir)| {
            let name = tidy(&sysfs::read(&dir.join("name")).ok()?)?;
            Some((name, place(&dir).unwrap_or(number), dir))
        });
        let devices: Vec<_> = devices.collect();
        self.shared.learn(devices.iter().map(|(name, ..)| name.as_str()));
        self.channels.clear();
        let mut defs = Vec::new();
        for (name, place, dir) in &devices {
            let place = self.shared.has(name).then_some(place.as_str());
            self.add(dir, name, place, &mut defs);
        }
        defs
    }

    fn poll(&mut self, values: &mut Vec<Value>) -> Heard {
        let mut heard = Heard::AsKnown;
        for channel in &mut self.channels {
            let value = channel.read();
            if let (None, Channel::Input(printed)) = (&value, &*channel) {
                self.decimals.insert(printed.path.clone(), printed.decimals);
            }
            match value {
                Some(value) => values.push(value),
                None => heard = Heard::Changed,
            }
        }
        heard
    }
}

impl Channel {
    /// The factor from the raw count to the document's unit.
    fn scale(&self) -> Option<Scale> {
        match self {
            Self::Input(printed) => sysfs::finer(Scale::ONE, printed.decimals),
            Self::Raw { scale, offset, .. } => sysfs::finer(scale.as_scale()?, offset.as_offset()?.decimals),
        }
    }

    /// `None` where scale, offset or decimals are not what the series was made with.
    fn read(&mut self) -> Option<Value> {
        match self {
            Self::Input(printed) => printed.read(),
            Self::Raw { raw, scale, offset } => match (scale.is_same(), offset.is_same()) {
                (Err(why), _) | (_, Err(why)) => Some(Value::None(why)),
                (Ok(true), Ok(true)) => Some(raw_value(raw, scale, offset).map_or_else(Value::None, Value::Int)),
                _ => None,
            },
        }
    }
}

fn raw_value(raw: &Path, scale: &Factor, offset: &Factor) -> Result<i64, NoValue> {
    let raw = sysfs::read(raw)?;
    let (Some(raw), Some(offset), Some(_)) = (Decimal::parse(&raw), offset.as_offset(), scale.as_scale()) else {
        return Err(NoValue::Unreadable);
    };
    raw.at(offset.decimals).and_then(|raw| raw.checked_add(offset.mantissa)).ok_or(NoValue::Unreadable)
}

impl Factor {
    /// The channel's own attribute, or the one it shares: with its type, its direction, or all of the device.
    fn find(dir: &Path, base: &str, what: &str) -> Self {
        let kind = kind_of(base);
        let (first, rest) = base["in_".len()..].split_once('_').unwrap_or((&base["in_".len()..], ""));
        let unnumbered: String = first.chars().filter(|c| !c.is_ascii_digit()).collect();
        let modified = if rest.is_empty() { String::new() } else { format!("in_{unnumbered}_{rest}_{what}") };
        let shared = [format!("in_{unnumbered}_{what}"), format!("in_{kind}_{what}"), format!("in_{what}")];
        let mut names = [format!("{base}_{what}"), modified].into_iter().chain(shared).chain([what.to_owned()]);
        let path = names.find_map(|name| Some(dir.join(name)).filter(|path| path.is_file()));
        let text = path.as_ref().and_then(|path| sysfs::read(path).ok()).unwrap_or_default();
        Self { path, text }
    }

    fn is_same(&self) -> Result<bool, NoValue> {
        self.path.as_ref().map_or(Ok(true), |path| Ok(sysfs::read(path)? == self.text))
    }

    /// Without an attribute the scale is one.
    fn as_scale(&self) -> Option<Scale> {
        if self.path.is_none() { Some(Scale::ONE) } else { Scale::parse(&self.text) }
    }

    /// Without an attribute the offset is zero.
    fn as_offset(&self) -> Option<Decimal> {
        let text = if self.path.is_none() { "0" } else { &self.text };
        let offset = Decimal::parse(text)?;
        // 512.000000 is 512: fewer decimals leave more room for the raw count.
        let mut plain = offset;
        while plain.decimals > 0 && plain.mantissa % 10 == 0 {
            plain = Decimal { mantissa: plain.mantissa / 10, decimals: plain.decimals - 1 };
        }
        Some(plain)
    }
}

/// `voltage` of `in_voltage0`, `in_voltage0-voltage1`, `in_voltage_supply`.
fn kind_of(base: &str) -> &str {
    let kind = base["in_".len()..].split(['_', '-']).next().unwrap_or("");
    kind.trim_end_matches(|c: char| c.is_ascii_digit())
}

fn unit_of(base: &str) -> (&'static str, Scale) {
    let kind = kind_of(base);
    let known = TYPES.iter().find(|(name, ..)| *name == kind);
    known.map_or(("", Scale::ONE), |(_, unit, scale)| (*unit, *scale))
}

/// The device that this IIO device belongs to: the directory above it.
fn place(dir: &Path) -> Option<String> {
    let real = std::fs::canonicalize(dir).ok()?;
    tidy(real.parent()?.file_name()?.to_str()?)
}

#[cfg(test)]
mod tests {
    use super::super::poll::tests::{names, polled};
    use super::super::sysfs::fake::{link, tree};
    use super::*;

    fn device(root: &Path, n: u32, parent: &str, files: &[(&str, &str)]) {
        let real = format!("sys/devices/{parent}/iio:device{n}");
        link(root, &format!("sys/bus/iio/devices/iio:device{n}"), &real);
        for (file, text) in files {
            tree(root, &[(&format!("{real}/{file}"), text)]);
        }
    }

    fn shown(driver: &mut Iio) -> Vec<String> {
        let show = |(def, value): (SeriesDef, Value)| match value {
            Value::Int(raw) => format!("{} {} {}", def.name, def.scale.apply(raw), def.unit),
            other => format!("{} {other:?}", def.name),
        };
        polled(driver).into_iter().map(show).collect()
    }

    /// Own scale before shared scale, integer and decimal offsets, the document's units, and a label for a name.
    #[test]
    fn raw_offset_and_scale_make_the_value() {
        let root = tempfile::tempdir().expect("a directory");
        let files = [
            ("name", "adc\n"),
            ("in_voltage0_raw", "2048\n"),
            ("in_voltage0_scale", "2.000000000\n"),
            ("in_voltage1_raw", "100"),
            ("in_voltage1_label", "battery"),
            ("in_voltage_scale", "0.488281250"),
            ("in_voltage0-voltage1_raw", "-5"),
            ("in_voltage-voltage_scale", "10"),
            ("in_temp_raw", "900"),
            ("in_temp_offset", "-273.150000"),
            ("in_temp_scale", "1000"),
            ("in_pressure_input", "101.325000"),
            ("in_accel_x_raw", "7"),
            ("in_accel_scale", "0.5"),
            ("in_proximity_raw", "3"),
            ("in_voltage0_sampling_frequency", "10"),
        ];
        device(root.path(), 0, "i2c-1/1-0048", &files);
        let mut seen = shown(&mut Iio::new(root.path(), &[]));
        seen.sort();
        let expected = [
            "iio/adc/accel_x 3.5 m/s2",
            "iio/adc/battery 0.048828125 V",
            "iio/adc/pressure 101325 Pa",
            "iio/adc/proximity 3 ",
            "iio/adc/temp 626.85 Cel",
            "iio/adc/voltage0 4.096 V",
            "iio/adc/voltage0-voltage1 -0.05 V",
        ];
        assert_eq!(seen, expected);
    }

    /// A scale that is set at run time makes another series; no value is ever given under the wrong one.
    #[test]
    fn another_scale_is_another_series() {
        let root = tempfile::tempdir().expect("a directory");
        device(root.path(), 0, "spi0.0", &[("name", "adc"), ("in_voltage0_raw", "5"), ("in_voltage_scale", "1")]);
        let mut driver = Iio::new(root.path(), &[]);
        assert_eq!(shown(&mut driver), ["iio/adc/voltage0 0.005 V"]);
        tree(root.path(), &[("sys/devices/spi0.0/iio:device0/in_voltage_scale", "4")]);
        assert_eq!(driver.poll(&mut Vec::new()), Heard::Changed);
        assert_eq!(shown(&mut driver), ["iio/adc/voltage0 0.02 V"]);
        tree(root.path(), &[("sys/devices/spi0.0/iio:device0/in_voltage_scale", "none")]);
        assert_eq!(driver.poll(&mut Vec::new()), Heard::Changed);
        assert_eq!(polled(&mut driver)[0].1, Value::None(NoValue::Unreadable));
    }

    /// More decimals than before make a finer series, fewer do not make another one.
    #[test]
    fn decimals_only_get_finer() {
        let root = tempfile::tempdir().expect("a directory");
        device(root.path(), 0, "i2c-1", &[("name", "bmp"), ("in_temp_input", "23500")]);
        let set = |text| tree(root.path(), &[("sys/devices/i2c-1/iio:device0/in_temp_input", text)]);
        let mut driver = Iio::new(root.path(), &[]);
        assert_eq!(shown(&mut driver), ["iio/bmp/temp 23.5 Cel"]);
        set("23500.25");
        assert_eq!(driver.poll(&mut Vec::new()), Heard::Changed);
        assert_eq!(shown(&mut driver), ["iio/bmp/temp 23.50025 Cel"]);
        set("23500.5");
        assert_eq!(shown(&mut driver), ["iio/bmp/temp 23.5005 Cel"]);
    }

    /// Two devices of one name go by where they sit.
    #[test]
    fn twins_are_told_apart_by_their_place() {
        let root = tempfile::tempdir().expect("a directory");
        for (n, parent) in [(0, "i2c-1/1-0076"), (1, "i2c-1/1-0077")] {
            device(root.path(), n, parent, &[("name", "bme280"), ("in_temp_input", "1")]);
        }
        let mut driver = Iio::new(root.path(), &[]);
        assert_eq!(names(&mut driver), ["iio/bme280/temp,device=1-0076", "iio/bme280/temp,device=1-0077"]);
    }
}
