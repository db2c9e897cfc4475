//! A GPIO line: found by chip and offset or by name, taken, and awaited.
//!
//! What enters: how the configuration names it. What leaves: its level as it is found, then each edge. Chips are asked anew
//! at each try, since their numbers depend on the order in which drivers come. It never polls: what gives no interrupts is
//! refused.

use super::uapi::{self, LineFacts};
use super::{InputError, Seen, below};
use crate::config::{GpioLine, Level};
use smol::Async;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Events taken in at once: as many as the kernel keeps for one line.
const EVENTS: usize = 16;

/// A line that is ours.
#[derive(Debug)]
pub struct Line {
    events: Async<OwnedFd>,
    /// The level at the start, until it is told.
    first: Option<bool>,
    name: String,
}

impl Line {
    /// Finds the line and takes it.
    pub(super) fn take(line: &GpioLine, active: Level, root: &Path) -> Result<Self, InputError> {
        let chips = survey(line, root)?;
        let (chip, offset) = choose(line, &chips.seen, chips.denied)?;
        let name = format!("{}:{offset}", chip.name);
        let taken =
            uapi::take(&chip.device, offset, active == Level::Low).map_err(|cause| match cause.raw_os_error() {
                Some(libc::EBUSY) => {
                    let by = chip.lines[offset as usize].used_by.clone().unwrap_or_default();
                    InputError::Taken { line: name.clone(), by }
                }
                // What the kernel makes of a line without an interrupt.
                Some(libc::ENXIO) => InputError::NoInterrupts { line: name.clone() },
                _ => InputError::Gpio { doing: "take line", what: name.clone(), cause },
            })?;
        // Looked at after it was taken: an edge in between is in the queue of events.
        let level = uapi::is_active(&taken);
        let read = |cause| InputError::Gpio { doing: "read line", what: name.clone(), cause };
        let first = Some(level.map_err(read)?);
        let events = Async::new(taken).map_err(read)?;
        Ok(Self { events, first, name })
    }

    /// A line that a test plays.
    #[cfg(test)]
    pub(super) fn played(first: bool, events: OwnedFd) -> Self {
        let events = Async::new(events).expect("a descriptor");
        Self { events, first: Some(first), name: "gpiochip0:1".into() }
    }

    pub(super) async fn next(&mut self) -> Result<Seen, InputError> {
        if let Some(active) = self.first.take() {
            return Ok(Seen { active, was_active: active });
        }
        loop {
            let mut bytes = [0; EVENTS * uapi::EVENT_BYTES];
            let read = self.events.read_with(|events| Ok(rustix::io::read(events, &mut bytes)?)).await;
            let gone = |cause| InputError::Gpio { doing: "read line", what: self.name.clone(), cause };
            match read.map_err(gone)? {
                0 => return Err(gone(io::ErrorKind::UnexpectedEof.into())),
                // With an edge the line has been active for a moment, whatever it is now.
                n => match uapi::active_after(&bytes[..n]) {
                    Some(active) => return Ok(Seen { active, was_active: true }),
                    None => continue,
                },
            }
        }
    }
}

/// Whether there is such a line; it may be ours already.
pub(super) fn look(line: &GpioLine, root: &Path) -> Result<(), InputError> {
    let chips = survey(line, root)?;
    let (chip, offset) = choose(line, &chips.seen, chips.denied)?;
    match chip.lines[offset as usize].used_by.as_deref() {
        None | Some("varved") => Ok(()),
        Some(by) => Err(InputError::Taken { line: format!("{}:{offset}", chip.name), by: by.to_owned() }),
    }
}

/// A chip and all its lines.
struct Known<D> {
    device: D,
    name: String,
    label: String,
    lines: Vec<LineFacts>,
}

/// The chips that were asked.
struct Chips {
    seen: Vec<Known<File>>,
    /// Why one of them could not be.
    denied: Option<InputError>,
}

/// Asks the chip that is named by its path, or all in `/dev`.
fn survey(line: &GpioLine, root: &Path) -> Result<Chips, InputError> {
    if let GpioLine::Offset { chip, .. } = line {
        if chip.starts_with('/') {
            let known = ask(&below(root, Path::new(chip)), chip)?;
            return Ok(Chips { seen: vec![known], denied: None });
        }
    }
    let mut names: Vec<String> = std::fs::read_dir(root.join("dev"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| number(name).is_some())
        .collect();
    names.sort_by_key(|name| number(name));
    let mut chips = Chips { seen: Vec::new(), denied: None };
    for name in names {
        match ask(&root.join("dev").join(&name), &name) {
            Ok(known) => chips.seen.push(known),
            Err(why) => chips.denied = Some(why),
        }
    }
    Ok(chips)
}

/// The number in `gpiochip4`.
fn number(name: &str) -> Option<u32> {
    name.strip_prefix("gpiochip")?.parse().ok()
}

fn ask(path: &PathBuf, name: &str) -> Result<Known<File>, InputError> {
    let failed = |doing| move |cause| InputError::Gpio { doing, what: path.display().to_string(), cause };
    let device = File::open(path).map_err(failed("open"))?;
    let chip = uapi::chip(&device).map_err(failed("ask"))?;
    let lines = (0..chip.lines).map(|offset| uapi::line_facts(&device, offset));
    let lines = lines.collect::<io::Result<Vec<_>>>().map_err(failed("ask for the lines of"))?;
    Ok(Known { device, name: name.to_owned(), label: chip.label, lines })
}

/// The one line that is meant. Where it isn't among `chips`, but one could not be asked, that is told instead.
fn choose<'a, D>(
    line: &GpioLine,
    chips: &'a [Known<D>],
    denied: Option<InputError>,
) -> Result<(&'a Known<D>, u32), InputError> {
    let missing = |otherwise| Err(denied.unwrap_or(otherwise));
    match line {
        GpioLine::Offset { chip, offset } => {
            // A name is of one chip; a label may be of several.
            let named = chips.iter().find(|known| known.name == *chip);
            let labelled: Vec<_> = chips.iter().filter(|known| known.label == *chip).collect();
            let known = match (named, &labelled[..]) {
                (Some(known), _) | (None, &[known]) => known,
                (None, []) => {
                    let here = chips.iter().map(|known| format!("{} ({})", known.name, known.label)).collect();
                    return missing(InputError::NoChip { chip: chip.clone(), here });
                }
                (None, several) => {
                    let places = several.iter().map(|known| format!("{}:{offset}", known.name)).collect();
                    return Err(InputError::Ambiguous { name: chip.clone(), places });
                }
            };
            match known.lines.len() {
                lines if (*offset as usize) < lines => Ok((known, *offset)),
                lines => Err(InputError::NoOffset { chip: chip.clone(), lines }),
            }
        }
        GpioLine::Named(name) => {
            let lines = chips.iter().flat_map(|known| (0..).zip(&known.lines).map(move |(at, line)| (known, at, line)));
            let found: Vec<_> = lines.clone().filter(|(_, _, line)| line.name == *name).collect();
            match &found[..] {
                [(known, offset, _)] => Ok((known, *offset)),
                [] => missing(InputError::NoLine { name: name.clone(), lines: lines.count() }),
                several => {
                    let places = several.iter().map(|(known, at, _)| format!("{}:{at}", known.name)).collect();
                    Err(InputError::Ambiguous { name: name.clone(), places })
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    fn known(name: &str, label: &str, lines: &[&str]) -> Known<()> {
        let lines = lines.iter().map(|name| LineFacts { name: (*name).into(), used_by: None }).collect();
        Known { device: (), name: name.into(), label: label.into(), lines }
    }

    fn board() -> Vec<Known<()>> {
        vec![
            known("gpiochip0", "soc", &["", "PWR_FAIL", "LED"]),
            known("gpiochip1", "expander", &["LED", "A"]),
            known("gpiochip2", "expander", &["B"]),
        ]
    }

    fn chosen(line: GpioLine) -> Result<(String, u32), String> {
        let chips = board();
        let chosen = choose(&line, &chips, None);
        chosen.map(|(known, offset)| (known.name.clone(), offset)).map_err(|why| why.to_string())
    }

    fn offset(chip: &str, offset: u32) -> GpioLine {
        GpioLine::Offset { chip: chip.into(), offset }
    }

    /// A chip is known by its name or its label, a line by its number or its name; what is twice there is asked about.
    #[test]
    fn a_line_is_found_by_every_name_it_has() {
        assert_eq!(chosen(offset("gpiochip1", 1)), Ok(("gpiochip1".into(), 1)));
        assert_eq!(chosen(offset("soc", 2)), Ok(("gpiochip0".into(), 2)));
        assert_eq!(chosen(GpioLine::Named("PWR_FAIL".into())), Ok(("gpiochip0".into(), 1)));
        for (line, told) in [
            (offset("expander", 0), "several are called expander; write which one, of gpiochip1:0, gpiochip2:0"),
            (GpioLine::Named("LED".into()), "several are called LED; write which one, of gpiochip0:2, gpiochip1:0"),
            (offset("soc", 3), "the lines of soc are 0 to 2; write one of them"),
            (GpioLine::Named("PWR".into()), "none of 6 GPIO lines is called PWR; `gpioinfo` lists them"),
            (
                offset("gpiochip9", 0),
                "there is no GPIO chip gpiochip9; write one that there is: gpiochip0 (soc), gpiochip1 (expander), gpio",
            ),
        ] {
            let why = chosen(line).expect_err(told);
            assert!(why.starts_with(told), "{why}");
        }
    }

    /// A chip that we may not open may be the one: that is told, and not that there is none.
    #[test]
    fn a_chip_that_is_not_for_us_is_told() {
        let denied = || {
            let cause = io::ErrorKind::PermissionDenied.into();
            Some(InputError::Gpio { doing: "open", what: "/dev/gpiochip0".into(), cause })
        };
        let why = choose::<()>(&GpioLine::Named("A".into()), &[], denied()).err().expect("no chip").to_string();
        assert!(why.starts_with("/dev/gpiochip0 is not for us; let the service's user read it"), "{why}");
        assert!(choose(&GpioLine::Named("A".into()), &board(), denied()).is_ok(), "it is not the one");
    }

    /// A file in the place of a chip is no chip, and a machine without any says so.
    #[test]
    fn a_machine_without_chips_says_so() {
        let root = tempfile::tempdir().expect("a folder");
        let take = |line: &GpioLine| {
            let why = Line::take(line, Level::Low, root.path()).expect_err("no chip");
            assert_eq!(look(line, root.path()).expect_err("no chip").to_string(), why.to_string());
            why
        };
        let why = take(&offset("gpiochip0", 17));
        assert!(why.is_of_this_place() && why.to_string().contains("nor any other; load its driver"), "{why}");
        let why = take(&offset("/dev/gpio-power", 1));
        assert!(why.is_of_this_place() && why.to_string().contains("can't open"), "{why}");
        std::fs::create_dir(root.path().join("dev")).expect("a folder");
        std::fs::write(root.path().join("dev/gpiochip0"), "").expect("a file");
        let why = take(&offset("gpiochip0", 17));
        assert!(!why.is_of_this_place() && why.to_string().contains("name a GPIO chip, of a kernel of 5.10"), "{why}");
    }

    /// A line at work, its descriptor played by a socket: first the level as it was, then what each edge left behind, at once
    /// and without a wakeup between; and when the chip is gone, an error.
    #[test]
    fn each_edge_is_told() {
        let (read, mut write) = UnixStream::pair().expect("a pair");
        let mut line = Line::played(false, read.into());
        let mut next = || smol::block_on(line.next()).map_err(|why| why.to_string());
        assert_eq!(next(), Ok(Seen { active: false, was_active: false }));
        write.write_all(&uapi::edge(true)).expect("an edge");
        assert_eq!(next(), Ok(Seen { active: true, was_active: true }));
        write.write_all(&uapi::edge(false)).expect("an edge");
        assert_eq!(next(), Ok(Seen { active: false, was_active: true }));
        write.write_all(&[uapi::edge(true), uapi::edge(false)].concat()).expect("two edges");
        assert_eq!(next(), Ok(Seen { active: false, was_active: true }), "a pulse that is over is not missed");
        drop(write);
        assert!(next().is_err_and(|why| why.starts_with("can't read line gpiochip0:1: ")));
    }
}
