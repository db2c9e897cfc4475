//! Turns, medians, processors.

use crate::Outcome;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::time::Instant;

/// The middle one; of two, the lower.
pub(crate) fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get((sorted.len().max(1) - 1) / 2).copied().unwrap_or(f64::NAN)
}

/// The median of the quotients of the turns: what slows one turn slows both its sides.
pub(crate) fn ratio(over: &[f64], under: &[f64]) -> f64 {
    median(&over.iter().zip(under).map(|(over, under)| over / under).collect::<Vec<_>>())
}

/// One side of a comparison: does the work of turn number so and so, and says what came out.
pub(crate) type Side<'a> = Box<dyn FnMut(usize) -> Outcome<f64> + 'a>;

/// What the sides took, in seconds, turn by turn.
#[derive(Default)]
pub(crate) struct Turns {
    /// By side, by turn.
    pub seconds: Vec<Vec<f64>>,
}

/// Lets the sides work in turns, each first as often as the others, after one round that is not counted. All sides must
/// come to the same result in the same turn, to nine digits.
pub(crate) fn in_turns(turns: usize, sides: &mut [Side<'_>]) -> Outcome<Turns> {
    let mut all = Turns { seconds: vec![Vec::new(); sides.len()] };
    for turn in 0..=turns {
        let mut results = vec![0.0; sides.len()];
        for place in 0..sides.len() {
            let side = (place + turn) % sides.len();
            let began = Instant::now();
            results[side] = sides[side](turn)?;
            if turn > 0 {
                all.seconds[side].push(began.elapsed().as_secs_f64());
            }
        }
        let (first, scale) = (results[0], results[0].abs().max(1.0));
        if results.iter().any(|result| (result - first).abs() > 1e-9 * scale) {
            return Err(format!("the sides disagree in turn {turn}: {results:?}").into());
        }
    }
    Ok(all)
}

/// Keeps this thread, and what it starts from here on, on one of the processors that it may use: the first of them, or
/// the second, and so on. On a machine with too few they share.
pub(crate) fn pin(number: usize) -> Outcome<()> {
    let allowed = allowed()?;
    let mut one = CpuSet::new();
    one.set(allowed[number % allowed.len()]);
    Ok(sched_setaffinity(None, &one)?)
}

/// How many processors there are to use.
pub(crate) fn processors() -> Outcome<usize> {
    Ok(allowed()?.len())
}

fn allowed() -> Outcome<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    let allowed: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect();
    if allowed.is_empty() { Err("no processor to run on".into()) } else { Ok(allowed) }
}

/// Seconds that the threads of a process, or this thread alone, were on a processor (`/proc/PID/task/*/schedstat`, Linux
/// `Documentation/scheduler/sched-stats.rst`).
pub(crate) fn cpu_seconds(pid: Option<u32>) -> Outcome<f64> {
    let read = |path: std::path::PathBuf| -> Outcome<f64> {
        let text = std::fs::read_to_string(path)?;
        Ok(text.split_ascii_whitespace().next().ok_or("an empty schedstat")?.parse::<f64>()? / 1e9)
    };
    let Some(pid) = pid else { return read("/proc/thread-self/schedstat".into()) };
    let mut seconds = 0.0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        seconds += read(task?.path().join("schedstat"))?;
    }
    Ok(seconds)
}
