//! `/sys/class/hwmon`: chips that measure temperature, voltage, current, power, energy, humidity and fan speed.
//!
//! Source: Linux `Documentation/hwmon/sysfs-interface.rst`. Series are `hwmon/<chip>/<label>`; a channel without a label
//! goes by its attribute (`temp1`). Two channels of a chip with one label get the tag `channel`, two chips of one name the
//! tag `device` with the last part of their device path. Not read: limits, alarms, PWM settings.

use super::name::tidy;
use super::poll::{Driver, Heard};
use super::sysfs::{self, Shared};
use crate::reading::{Kind, NoValue, Scale, SeriesDef, Value};
use std::path::{Path, PathBuf};

/// What the attributes of each type count in, by the document's units.
const TYPES: [(&str, &str, Scale); 8] = [
    ("temp", "Cel", Scale::MILLI),
    ("in", "V", Scale::MILLI),
    ("curr", "A", Scale::MILLI),
    ("power", "W", Scale::MICRO),
    ("energy", "J", Scale::MICRO),
    ("humidity", "%RH", Scale::MILLI),
    ("fan", "1/min", Scale::ONE),
    ("freq", "Hz", Scale::ONE),
];

/// The hwmon chips of a machine.
#[derive(Debug)]
pub(super) struct Hwmon {
    class: PathBuf,
    globs: Vec<String>,
    shared: Shared,
    channels: Vec<Channel>,
}

#[derive(Debug)]
struct Chip {
    /// Where its attributes are.
    dir: PathBuf,
    /// What names it if its twin has the same name.
    place: String,
    name: String,
}

#[derive(Debug)]
struct Channel {
    input: PathBuf,
    /// `tempN_fault`, where the chip has it.
    fault: Option<PathBuf>,
}

struct Found {
    attribute: String,
    input: PathBuf,
    label: String,
    unit: &'static str,
    scale: Scale,
}

impl Hwmon {
    pub(super) fn new(root: &Path, globs: &[String]) -> Self {
        let class = root.join("sys/class/hwmon");
        Self { class, globs: globs.to_vec(), shared: Shared::default(), channels: Vec::new() }
    }

    fn chips(&self) -> Vec<Chip> {
        let named = sysfs::entries(&self.class, "hwmon").into_iter().filter_map(|(number, dir)| {
            let place = sysfs::place(&dir).unwrap_or(number);
            // Chips registered the old way keep their attributes one directory below.
            let dir = if dir.join("name").exists() { dir } else { dir.join("device") };
            let name = tidy(&sysfs::read(&dir.join("name")).ok()?)?;
            Some(Chip { dir, place, name })
        });
        named.collect()
    }

    fn add(&mut self, chip: &Chip, defs: &mut Vec<SeriesDef>) {
        let found = channels_of(&chip.dir);
        let place = self.shared.has(&chip.name).then_some(("device", chip.place.as_str()));
        for (i, channel) in found.iter().enumerate() {
            let path = format!("{}/{}", chip.name, channel.label);
            if !sysfs::wanted(&self.globs, &[&chip.name, &channel.label, &path]) {
                continue;
            }
            let twin = found.iter().enumerate().any(|(j, other)| j != i && other.label == channel.label);
            let mut tags = Vec::new();
            tags.extend(twin.then_some(("channel", channel.attribute.as_str())));
            tags.extend(place);
            let measurement = format!("hwmon/{}", chip.name);
            let def = sysfs::series(&measurement, &channel.label, &tags, channel.unit, Kind::Int, channel.scale);
            if let Some(def) = def {
                defs.push(def);
                let fault = Some(chip.dir.join(format!("{}_fault", channel.attribute))).filter(|path| path.exists());
                self.channels.push(Channel { input: channel.input.clone(), fault });
            }
        }
    }
}

impl Driver for Hwmon {
    fn discover(&mut self) -> Vec<SeriesDef> {
        let chips = self.chips();
        self.shared.learn(chips.iter().map(|chip| chip.name.as_str()));
        self.channels.clear();
        let mut defs = Vec::new();
        chips.iter().for_each(|chip| self.add(chip, &mut defs));
        defs
    }

    fn poll(&mut self, values: &mut Vec<Value>) -> Heard {
        values.extend(self.channels.iter().map(Channel::read));
        Heard::AsKnown
    }
}

impl Channel {
    /// "fault: 1 = the sensor is open or shorted; the value is not to be trusted".
    fn read(&self) -> Value {
        let faulty = self.fault.as_ref().is_some_and(|fault| sysfs::read(fault).is_ok_and(|text| text == "1"));
        if faulty { Value::None(NoValue::Faulty) } else { sysfs::int(sysfs::read(&self.input)) }
    }
}

fn channels_of(dir: &Path) -> Vec<Found> {
    let mut found = Vec::new();
    for (prefix, unit, scale) in TYPES {
        for (file, input) in sysfs::entries(dir, prefix) {
            let Some((attribute, kind)) = file.split_once('_') else { continue };
            let number = &attribute[prefix.len()..];
            if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
                continue;
            }
            // Some power meters give only an average.
            let average_only =
                kind == "average" && prefix == "power" && !dir.join(format!("{attribute}_input")).exists();
            if kind != "input" && !average_only {
                continue;
            }
            let label = sysfs::read(&dir.join(format!("{attribute}_label"))).ok().and_then(|label| tidy(&label));
            let label = label.unwrap_or_else(|| attribute.to_owned());
            found.push(Found { attribute: attribute.to_owned(), input, label, unit, scale });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::poll::tests::{names, polled};
    use super::super::sysfs::fake::{link, tree};
    use super::*;

    fn board() -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a directory");
        let files = [
            ("sys/class/hwmon/hwmon0/name", "k10temp\n"),
            ("sys/class/hwmon/hwmon0/temp1_input", "23437\n"),
            ("sys/class/hwmon/hwmon0/temp1_label", "Tctl\n"),
            ("sys/class/hwmon/hwmon0/temp1_max", "90000\n"),
            ("sys/class/hwmon/hwmon0/temp2_input", "99000\n"),
            ("sys/class/hwmon/hwmon0/temp2_fault", "1\n"),
            ("sys/class/hwmon/hwmon0/in0_input", "3312\n"),
            ("sys/class/hwmon/hwmon0/power1_input", "1500000\n"),
            ("sys/class/hwmon/hwmon0/power2_average", "7\n"),
            ("sys/class/hwmon/hwmon0/fan1_input", "n/a\n"),
            ("sys/class/hwmon/hwmon0/intrusion0_alarm", "0\n"),
        ];
        tree(root.path(), &files);
        root
    }

    /// Each type has the unit and the scale of the kernel's document, a label names its channel, a fault flag is believed.
    #[test]
    fn a_chip_is_read_by_label_with_the_kernels_units() {
        let root = board();
        let mut driver = Hwmon::new(root.path(), &[]);
        let seen = polled(&mut driver);
        let expected = [
            ("hwmon/k10temp/Tctl", "Cel", 23.437),
            ("hwmon/k10temp/temp2", "Cel", f64::NAN),
            ("hwmon/k10temp/in0", "V", 3.312),
            ("hwmon/k10temp/power1", "W", 1.5),
            ("hwmon/k10temp/power2", "W", 0.000_007),
            ("hwmon/k10temp/fan1", "1/min", f64::NAN),
        ];
        assert_eq!(seen.len(), expected.len());
        for ((def, value), (name, unit, number)) in seen.iter().zip(expected) {
            assert_eq!((def.name.as_str(), def.unit.as_str()), (name, unit));
            match value {
                Value::Int(raw) => assert_eq!(def.scale.apply(*raw), number, "{name}"),
                other => assert!(number.is_nan(), "{name} {other:?}"),
            }
        }
        assert_eq!(seen[1].1, Value::None(NoValue::Faulty));
        assert_eq!(seen[5].1, Value::None(NoValue::Unreadable));
    }

    /// Two chips of one name are told apart by where they sit, not by their number; and stay so when one goes.
    #[test]
    fn twin_chips_are_told_apart_by_their_place() {
        let root = tempfile::tempdir().expect("a directory");
        for (n, place) in [(3, "1-0049"), (7, "1-0048")] {
            let dir = format!("sys/class/hwmon/hwmon{n}");
            tree(root.path(), &[(&format!("{dir}/name"), "lm75"), (&format!("{dir}/temp1_input"), "1000")]);
            link(root.path(), &format!("{dir}/device"), &format!("sys/devices/i2c-1/{place}"));
        }
        let mut driver = Hwmon::new(root.path(), &[]);
        assert_eq!(names(&mut driver), ["hwmon/lm75/temp1,device=1-0049", "hwmon/lm75/temp1,device=1-0048"]);
        std::fs::remove_dir_all(root.path().join("sys/class/hwmon/hwmon3")).expect("unplugged");
        assert_eq!(names(&mut driver), ["hwmon/lm75/temp1,device=1-0048"]);
    }

    /// Two channels with one label keep separate series, and the match list chooses by chip, label or both.
    #[test]
    fn channels_are_chosen_and_told_apart() {
        let root = board();
        let dir = "sys/class/hwmon/hwmon0";
        tree(root.path(), &[(&format!("{dir}/temp2_label"), "CPU 0"), (&format!("{dir}/fan1_label"), "CPU 0")]);
        let chosen = |glob: &str| names(&mut Hwmon::new(root.path(), &[glob.to_owned()]));
        let twins = ["hwmon/k10temp/CPU\\ 0,channel=temp2", "hwmon/k10temp/CPU\\ 0,channel=fan1"];
        assert_eq!(chosen("CPU*"), twins);
        assert_eq!(chosen("k10temp/T*"), ["hwmon/k10temp/Tctl"]);
        assert_eq!(chosen("k10*").len(), 6);
        assert!(chosen("nothing").is_empty());
    }
}
