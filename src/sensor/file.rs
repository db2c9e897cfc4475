//! One file with one number in it: what a driver of one's own, a GPIO or a cgroup prints.
//!
//! What enters: path, series name, unit and scale. What leaves: one channel. The whole file, blanks around it taken off,
//! must be one integer or decimal; its digits are kept as they are (no float on the way). More decimals than were seen
//! before make a finer series of the same name. It does not look for numbers inside other text.

use super::name::{BadName, Name};
use super::poll::{Driver, Heard};
use super::sysfs::{self, Printed};
use crate::config::FileConfig;
use crate::reading::{Kind, SeriesDef, Value};
use std::path::Path;

/// A file that is read as a sensor.
#[derive(Debug)]
pub(super) struct NumberFile {
    config: FileConfig,
    name: String,
    printed: Printed,
}

impl NumberFile {
    pub(super) fn new(root: &Path, config: &FileConfig) -> Result<Self, BadName> {
        let name = Name::parse(&config.name)?.to_text();
        let below = config.path.strip_prefix("/").unwrap_or(&config.path);
        Ok(Self { config: config.clone(), name, printed: Printed { path: root.join(below), decimals: 0 } })
    }
}

impl Driver for NumberFile {
    fn discover(&mut self) -> Vec<SeriesDef> {
        self.printed = Printed::new(self.printed.path.clone(), self.printed.decimals);
        // At 10^-30 there is no finer scale; the value then does not fit and is unreadable.
        let scale = sysfs::finer(self.config.scale, self.printed.decimals).unwrap_or(self.config.scale);
        vec![SeriesDef { name: self.name.clone(), unit: self.config.unit.clone(), kind: Kind::Int, scale }]
    }

    fn poll(&mut self, values: &mut Vec<Value>) -> Heard {
        match self.printed.read() {
            Some(value) => values.push(value),
            None => return Heard::Changed,
        }
        Heard::AsKnown
    }
}

#[cfg(test)]
mod tests {
    use super::super::poll::tests::polled;
    use super::super::sysfs::fake::tree;
    use super::*;
    use crate::reading::{NoValue, Scale};

    /// Integers, decimals that come later, text that is no number, and no file at all.
    #[test]
    fn a_file_is_a_number_or_says_why_not() {
        let root = tempfile::tempdir().expect("a directory");
        let scale = Scale::new(25, -1).expect("a scale");
        let config = FileConfig { path: "/run/flow".into(), name: "m/flow".into(), unit: "l/s".into(), scale };
        let mut driver = NumberFile::new(root.path(), &config).expect("a name");
        assert_eq!(polled(&mut driver)[0].1, Value::None(NoValue::Absent));
        let mut see = |text: &str| {
            tree(root.path(), &[("run/flow", text)]);
            let (def, value) = polled(&mut driver).remove(0);
            assert_eq!((def.name.as_str(), def.unit.as_str()), ("m/flow", "l/s"));
            match value {
                Value::Int(raw) => Ok(def.scale.apply(raw)),
                Value::None(why) => Err(why),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(see(" 42\n"), Ok(105.0));
        assert_eq!(see("0.125"), Ok(0.3125));
        assert_eq!(see("-3"), Ok(-7.5));
        assert_eq!(see("12 %"), Err(NoValue::Unreadable));
        assert_eq!(see(""), Err(NoValue::Unreadable));
        assert_eq!(see("99999999999999999999"), Err(NoValue::Unreadable));
    }
}
