//! What the processes take, second by second.

use super::Outcome;
use super::device::Ledger;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

/// One second of the load.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sample {
    /// Since the load began.
    pub seconds: f64,
    /// Segments acknowledged so far.
    pub acknowledged: u64,
    /// Committed and not acknowledged.
    pub backlog: u64,
    /// Latency of this second's acks.
    pub p50_ms: f64,
    /// The same.
    pub p99_ms: f64,
    /// Resident memory of the receiver, the broker and the devices, in KiB.
    pub rss_kib: [u64; 3],
}

pub(crate) fn sample(ledger: &Ledger, pids: [u32; 3], began: Instant) -> Outcome<Sample> {
    let latencies = ledger.new_latencies();
    let (committed, acknowledged) = (ledger.committed.load(Relaxed), ledger.acked.load(Relaxed));
    let mut rss_kib = [0; 3];
    for (rss, pid) in rss_kib.iter_mut().zip(pids) {
        *rss = rss_of(pid)?;
    }
    Ok(Sample {
        seconds: began.elapsed().as_secs_f64(),
        acknowledged,
        backlog: committed.saturating_sub(acknowledged),
        p50_ms: quantile_ms(&latencies, 0.5),
        p99_ms: quantile_ms(&latencies, 0.99),
        rss_kib,
    })
}

/// A quantile of ascending microseconds, in milliseconds; NaN of none.
pub(crate) fn quantile_ms(ascending_us: &[u32], quantile: f64) -> f64 {
    let at = ((ascending_us.len() as f64 - 1.0) * quantile).round().max(0.0) as usize;
    ascending_us.get(at).map_or(f64::NAN, |us| f64::from(*us) / 1e3)
}

/// `/proc/PID/smaps_rollup`, in KiB (Linux `Documentation/filesystems/proc.rst`).
fn rss_of(pid: u32) -> Outcome<u64> {
    field(&format!("/proc/{pid}/smaps_rollup"), "Rss:")
}

/// Bytes that the process caused to be written to the medium.
pub(crate) fn written_bytes(pid: u32) -> Outcome<u64> {
    field(&format!("/proc/{pid}/io"), "write_bytes:")
}

fn field(path: &str, name: &str) -> Outcome<u64> {
    let text = std::fs::read_to_string(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).ok_or("a field is missing")?;
    Ok(line.split_whitespace().next().unwrap_or_default().parse()?)
}

/// Seconds that all threads were on a processor.
pub(crate) fn cpu_seconds(pids: [u32; 3]) -> Outcome<[f64; 3]> {
    let mut seconds = [0.0; 3];
    for (sum, pid) in seconds.iter_mut().zip(pids) {
        for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
            *sum += text.split_ascii_whitespace().next().unwrap_or_default().parse::<f64>()? / 1e9;
        }
    }
    Ok(seconds)
}

/// What was added since `before`.
pub(crate) fn less(now: [f64; 3], before: [f64; 3]) -> [f64; 3] {
    [now[0] - before[0], now[1] - before[1], now[2] - before[2]]
}
