//! Small aids for drivers that read the kernel's text files.
//!
//! What enters: paths and the texts in them. What leaves: attributes, exact decimals, or a [`NoValue`] that says why not.
//! Nothing here turns a failure into a zero. It knows no kind of sensor.

use super::name::{Name, tidy};
use crate::reading::{Kind, NoValue, Scale, SeriesDef, Value};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// An attribute is at most a page (Linux `Documentation/filesystems/sysfs.rst`).
const MAX_ATTRIBUTE_BYTES: u64 = 4096;

/// The most entries of one directory that are looked at.
const MAX_ENTRIES: usize = 4096;

/// Reads an attribute, blanks around it taken off.
pub(super) fn read(path: &Path) -> Result<String, NoValue> {
    let mut bytes = Vec::with_capacity(64);
    let read = File::open(path).and_then(|file| file.take(MAX_ATTRIBUTE_BYTES).read_to_end(&mut bytes));
    read.map_err(|error| reason(&error))?;
    let text = String::from_utf8(bytes).map_err(|_| NoValue::Unreadable)?;
    Ok(text.trim().to_owned())
}

/// What an error of reading a sensor says about its value.
pub(super) fn reason(error: &io::Error) -> NoValue {
    match Errno::from_io_error(error) {
        Some(Errno::NOENT | Errno::NODEV | Errno::NXIO | Errno::NOTDIR) => NoValue::Absent,
        // hwmon and thermal: "ENODATA" where the channel is switched off.
        Some(Errno::NODATA) => NoValue::Disabled,
        Some(Errno::AGAIN | Errno::TIMEDOUT) => NoValue::Late,
        _ => NoValue::Failed,
    }
}

/// A number as sysfs prints it, every digit kept: `mantissa × 10^-decimals`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Decimal {
    pub(super) mantissa: i64,
    pub(super) decimals: u8,
}

impl Decimal {
    /// Reads `-12`, `+0.488281250`; not `1e3`, which sysfs never prints.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let digits = whole.strip_prefix(['-', '+']).unwrap_or(whole);
        let plain = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if !plain(digits) || !plain(fraction) || (digits.is_empty() && fraction.is_empty()) || fraction.len() > 18 {
            return None;
        }
        let mantissa = format!("{whole}{fraction}").parse().ok()?;
        Some(Self { mantissa, decimals: fraction.len() as u8 })
    }

    /// The mantissa of the same number with at least as many decimals; `None` where that does not fit or loses digits.
    pub(super) fn at(self, decimals: u8) -> Option<i64> {
        let power = i64::checked_pow(10, u32::from(decimals.checked_sub(self.decimals)?))?;
        self.mantissa.checked_mul(power)
    }
}

/// The value of an integer attribute.
pub(super) fn int(text: Result<String, NoValue>) -> Value {
    match text.map(|text| text.parse::<i64>()) {
        Ok(Ok(raw)) => Value::Int(raw),
        Ok(Err(_)) => Value::None(NoValue::Unreadable),
        Err(why) => Value::None(why),
    }
}

/// `scale × 10^-decimals`.
pub(super) fn finer(scale: Scale, decimals: u8) -> Option<Scale> {
    scale.times(Scale::new(1, -i32::from(decimals))?)
}

/// A file that prints one decimal number. How many decimals it prints is learnt as it goes and never unlearnt, so that
/// 23.5, 23.45 and 23 are raw counts of one scale.
#[derive(Debug, Clone)]
pub(super) struct Printed {
    pub(super) path: PathBuf,
    pub(super) decimals: u8,
}

impl Printed {
    /// Looks at the file once, if it is there.
    pub(super) fn new(path: PathBuf, known_decimals: u8) -> Self {
        let mut printed = Self { path, decimals: known_decimals };
        printed.read();
        printed
    }

    /// The number as a count of 10^-decimals. `None` where the decimals were too few up to now: the series is another one from
    /// here on.
    pub(super) fn read(&mut self) -> Option<Value> {
        let number = match read(&self.path) {
            Ok(text) => Decimal::parse(&text),
            Err(why) => return Some(Value::None(why)),
        };
        let Some(number) = number else { return Some(Value::None(NoValue::Unreadable)) };
        if number.decimals > self.decimals {
            self.decimals = number.decimals;
            return None;
        }
        Some(number.at(self.decimals).map_or(Value::None(NoValue::Unreadable), Value::Int))
    }
}

/// The entries of a directory whose name begins with `prefix`, by name with numbers in their order. A directory that
/// isn't there has none: the class may simply not be built into this kernel.
pub(super) fn entries(dir: &Path, prefix: &str) -> Vec<(String, PathBuf)> {
    let Ok(found) = std::fs::read_dir(dir) else { return Vec::new() };
    let named = found.take(MAX_ENTRIES).flatten().filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        name.starts_with(prefix).then(|| (name, entry.path()))
    });
    let mut all: Vec<_> = named.collect();
    all.sort_by(|(a, _), (b, _)| (natural(a), a).cmp(&(natural(b), b)));
    all
}

/// `temp10` after `temp9`.
fn natural(name: &str) -> (&str, u64) {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    (stem, name[stem.len()..].parse().unwrap_or(0))
}

/// The last part of where the `device` link of `dir` leads: `coretemp.0`, `1-0048`, `nvme0`. It names the device by its
/// place, which numbering by probe order does not.
pub(super) fn place(dir: &Path) -> Option<String> {
    let device = std::fs::canonicalize(dir.join("device")).ok()?;
    tidy(device.file_name()?.to_str()?)
}

/// Whether `text` fits the glob: `*` is any run of signs, `?` any one sign; all else is itself.
pub(super) fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(sign) if *sign == '?' || *sign == text[t] => (p, t) = (p + 1, t + 1),
            _ => match star {
                // Let the latest star take one sign more.
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    (p, t) = (at + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|sign| *sign == '*')
}

/// Whether any of the globs fits any of the texts; no globs fit all.
pub(super) fn wanted(globs: &[String], texts: &[&str]) -> bool {
    globs.is_empty() || globs.iter().any(|pattern| texts.iter().any(|text| glob(pattern, text)))
}

/// A series of a driver. `None` where the parts make no name, which a driver then leaves out.
pub(super) fn series(
    measurement: &str,
    field: &str,
    tags: &[(&str, &str)],
    unit: &str,
    kind: Kind,
    scale: Scale,
) -> Option<SeriesDef> {
    let name = Name::new(measurement, field, tags).ok()?.to_text();
    Some(SeriesDef { name, unit: unit.to_owned(), kind, scale })
}

/// Which names stand for more than one device. Once shared, a name stays so for the run: the series of a chip must not
/// change their names because its twin was unplugged.
#[derive(Debug, Default)]
pub(super) struct Shared(std::collections::BTreeSet<String>);

impl Shared {
    /// Learns from the names of all devices that are there now.
    pub(super) fn learn<'a>(&mut self, names: impl Iterator<Item = &'a str>) {
        let mut seen = std::collections::BTreeSet::new();
        for name in names {
            if !seen.insert(name) {
                self.0.insert(name.to_owned());
            }
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains(name)
    }
}

#[cfg(test)]
pub(super) mod fake {
    //! Directory trees that look like a board's.

    use std::path::Path;

    /// Writes files (`path`, text) below `root`, their directories made as needed.
    pub(crate) fn tree(root: &Path, files: &[(&str, &str)]) {
        for (path, text) in files {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            std::fs::write(path, text).expect("a file");
        }
    }

    /// A symbolic link at `at` below `root` to `to`, also below `root`.
    pub(crate) fn link(root: &Path, at: &str, to: &str) {
        std::fs::create_dir_all(root.join(to)).expect("a directory");
        std::fs::create_dir_all(root.join(at).parent().expect("a parent")).expect("a directory");
        std::os::unix::fs::symlink(root.join(to), root.join(at)).expect("a link");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Errors of the kernel become the reasons that the hwmon and thermal documents give them.
    #[test]
    fn errors_become_reasons() {
        let of = |errno: Errno| reason(&io::Error::from(errno));
        assert_eq!(of(Errno::NODATA), NoValue::Disabled);
        assert_eq!(of(Errno::NODEV), NoValue::Absent);
        assert_eq!(of(Errno::IO), NoValue::Failed);
        assert_eq!(of(Errno::AGAIN), NoValue::Late);
        assert_eq!(read(Path::new("/nonexistent/x")), Err(NoValue::Absent));
        assert_eq!(int(Ok("x".into())), Value::None(NoValue::Unreadable));
        assert_eq!(int(Ok(String::new())), Value::None(NoValue::Unreadable));
    }

    /// Digits are kept as they are printed.
    #[test]
    fn decimals_are_exact() {
        let parse = |text| Decimal::parse(text).map(|d| (d.mantissa, d.decimals));
        assert_eq!(parse("-0.500"), Some((-500, 3)));
        assert_eq!(parse("23"), Some((23, 0)));
        assert_eq!(parse("0.000000000000000001"), Some((1, 18)));
        for bad in ["", ".", "-", "1e3", "0x1", "nan", "1.2.3", "9223372036854775808", "- 1"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
        let d = Decimal { mantissa: 5, decimals: 1 };
        assert_eq!((d.at(3), d.at(0), d.at(20)), (Some(500), None, None));
    }

    /// Globs choose devices by name, since their numbers are not stable.
    #[test]
    fn globs_fit_names() {
        for (pattern, text, fits) in [
            ("*", "", true),
            ("cpu*", "cpu_thermal", true),
            ("*temp", "coretemp", true),
            ("c?re*", "coretemp", true),
            ("a*b*c", "a1b2b3c", true),
            ("core", "coretemp", false),
            ("?", "", false),
            ("a*b", "a1b2", false),
        ] {
            assert_eq!(glob(pattern, text), fits, "{pattern} {text}");
        }
    }

    /// temp2 comes before temp10, and a missing directory is empty.
    #[test]
    fn entries_are_in_the_order_of_their_numbers() {
        let dir = tempfile::tempdir().expect("a directory");
        fake::tree(dir.path(), &[("temp10", ""), ("temp2", ""), ("other", "")]);
        let names: Vec<_> = entries(dir.path(), "temp").into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["temp2", "temp10"]);
        assert!(entries(&dir.path().join("nowhere"), "").is_empty());
    }

    /// A name that was shared once stays so when the twin goes.
    #[test]
    fn a_shared_name_stays_shared() {
        let mut shared = Shared::default();
        shared.learn(["nvme", "nvme", "cpu"].into_iter());
        shared.learn(["nvme"].into_iter());
        assert!(shared.has("nvme") && !shared.has("cpu"));
    }
}
