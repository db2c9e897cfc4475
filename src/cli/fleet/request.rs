//! `varved-fleet request`: asks a device for everything, or for a range, and tells how it goes.

use super::Place;
use crate::cli::args::Argument;
use crate::cli::{Arguments, CliError, Command, output};
use crate::clock::Clock;
use crate::clock::system::SystemClock;
use crate::fault::Exit;
use crate::fleet::ask::{self, Asked, Wanted};
use crate::fleet::report::RequestLine;
use crate::reading::SeqRange;
use crate::wire::StoreUuid;
use std::path::Path;
use std::time::{Duration, Instant};

pub(super) const REQUEST: Command = Command {
    name: "request",
    args: "DEVICE snapshot|RANGE|cancel [--store UUID] [--wait SECONDS] [--config F] [--data DIR]",
    brief: "asks a device for all that its file holds, or for a range, verified at the end",
    long: "
  snapshot        everything: all segments of all stores in the device's file, and the catalogue
  cancel          ends what was asked of the device and is under way; what it has begun to send comes to its end
  RANGE           sequence numbers, FIRST-LAST or FIRST..=LAST, or one number; `varved-fleet devices` shows which there are
  --store UUID    of which store; default: the one that the device writes to
  --wait SECONDS  shows how far it is, and returns when it has ended: 0 verified, 65 not verified, 75 not in time
  --config F      the receiver's file, for its data folder; default: /etc/varved/fleet.toml
  --data DIR      the data folder itself

The request is written down; the receiver puts it to the device when both are there, and again after a cut or a restart on
either side, until all has come and been compared with the device's own account of it. Each reading is kept once, as ever.
What the device no longer holds and nobody else does comes as the record of its loss. `varved-fleet devices` shows what is
under way and the last snapshot that was verified. A request that is not answered within 30 days is given up. Times can't be
asked for, only sequence numbers.

  varved-fleet request pump-17 snapshot --wait 600
  varved-fleet request pump-17 1200-1250",
    run: request_command,
};

/// How often a request is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

fn request_command(arguments: &mut Arguments) -> Result<Exit, CliError> {
    let (mut place, mut store, mut wait, mut device, mut word) = (Place::default(), None, None, None, None);
    while let Some(argument) = arguments.next_argument()? {
        match argument {
            Argument::Option(name) if name == "store" => store = Some(store_of(arguments)?),
            Argument::Option(name) if name == "wait" => wait = Some(seconds(arguments)?),
            Argument::Option(name) if place.takes(&name, arguments)? => {}
            Argument::Value(value) if word.is_none() => {
                let text = value.into_string().map_err(|_| arguments.wrong("the argument is not UTF-8"))?;
                if device.is_none() { device = Some(text) } else { word = Some(text) }
            }
            other => return Err(arguments.unexpected(&other)),
        }
    }
    let (Some(device), Some(word)) = (device, word) else {
        return Err(arguments.wrong("a device is needed, and `snapshot`, a range or `cancel`"));
    };
    let now = SystemClock::new(Path::new("/")).now().utc;
    if word == "cancel" {
        if store.is_some() || wait.is_some() {
            return Err(
                arguments.wrong("`cancel` ends all that was asked of the device, at once: no --store, no --wait")
            );
        }
        let ended = ask::cancel(&place.data()?, &device, now).map_err(CliError::fault)?;
        let requests = if ended == 1 { "request" } else { "requests" };
        output::print(&format!("cancelled: {ended} {requests} to {device}\n"))?;
        return Ok(Exit::Ok);
    }
    let wanted = wanted(&word, store, arguments)?;
    let data = place.data()?;
    let nonce = uuid::Uuid::new_v4().as_u64_pair().1;
    let asked = ask::ask(&data, &device, wanted, nonce, now).map_err(CliError::fault)?;
    output::print(&told(&device, asked))?;
    wait.map_or(Ok(Exit::Ok), |wait| follow(&data, asked.request, wait))
}

fn wanted(word: &str, store: Option<StoreUuid>, arguments: &Arguments) -> Result<Wanted, CliError> {
    if word == "snapshot" {
        return match store {
            None => Ok(Wanted::Snapshot),
            Some(_) => Err(arguments.wrong("--store goes with a range: a snapshot is of all stores")),
        };
    }
    let (first, last) = word.split_once("..=").or_else(|| word.split_once('-')).unwrap_or((word, word));
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let range = number(first).zip(number(last)).and_then(|(first, last)| SeqRange::new(first, last));
    let range = range.filter(|range| range.last.0 < crate::fleet::FAR_SEQUENCE);
    let wrong =
        || arguments.wrong(format!("`{word}` is neither `snapshot` nor a range such as 1200-1250, from 1 upwards"));
    range.map(|range| Wanted::Range(range, store)).ok_or_else(wrong)
}

fn store_of(arguments: &mut Arguments) -> Result<StoreUuid, CliError> {
    let text = arguments.text()?;
    StoreUuid::parse_str(&text).map_err(|_| arguments.wrong(format!("`{text}` is not a store id (a UUID)")))
}

fn seconds(arguments: &mut Arguments) -> Result<Duration, CliError> {
    let text = arguments.text()?;
    let seconds = text.parse().ok().filter(|seconds: &u64| *seconds <= 30 * 86_400);
    seconds.map(Duration::from_secs).ok_or_else(|| arguments.wrong(format!("`{text}` is not a number of seconds")))
}

fn told(device: &str, asked: Asked) -> String {
    let Asked { request, known, online } = asked;
    let what = if known { "is under way already" } else { "is written down" };
    let when = if online { "at once" } else { "when the device is there" };
    format!("request {request} {what}; the receiver puts it to {device} {when}\n")
}

/// Shows on standard error how far it is, until it has ended or the time is over.
fn follow(data: &Path, request: i64, wait: Duration) -> Result<Exit, CliError> {
    let until = Instant::now() + wait;
    let mut shown = String::new();
    loop {
        let standing = ask::look(data, request).map_err(CliError::fault)?;
        let Some(line) = standing.as_ref().map(RequestLine::of) else {
            eprintln!("request {request} is not remembered any more; ask again");
            return Ok(Exit::TryAgain);
        };
        let progress = line.progress();
        if progress != shown {
            eprintln!("request {request}: {progress}");
            shown = progress;
        }
        if line.ended.is_some() {
            if !line.words.is_empty() {
                eprintln!("request {request}: {}", line.words);
            }
            return Ok(if line.is_verified() { Exit::Ok } else { Exit::Data });
        }
        if Instant::now() >= until {
            eprintln!("request {request} goes on; look at it with `varved-fleet devices`, or ask again to wait for it");
            return Ok(Exit::TryAgain);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}
