//! What the service answers at its control socket: how it is, that it has committed, what its file holds.
//!
//! What enters: requests of local clients. What leaves: one answer each. A client that waits for the store never keeps
//! another one from `status`.

use super::control::{self, Answer, Request};
use super::recorder::Ask;
use super::{Desk, ask, lock, written_bytes};
use crate::clock::{Now, SECOND, UtcNanos};
use crate::fault::{Exit, Fault};
use crate::sensor::{Counters, Inlets, Running, SocketFile};
use crate::store::{Store, StoreFacts};
use crate::uplink::UplinkStatus;
use serde_json::{Value as Json, json};
use smol::channel::{Sender, bounded};
use smol::future::or;
use smol::{Executor, Task, Timer};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// How long `status` waits for the store, which may be busy with a commit.
const STATUS_PATIENCE: Duration = Duration::from_secs(2);

/// What the workers of the control socket share.
struct Hatch {
    listener: smol::Async<UnixListener>,
    /// Goes when the last worker does.
    _file: SocketFile,
    desk: Desk,
    asks: Sender<Ask>,
    counters: Vec<Arc<Counters>>,
    inlets: Inlets,
    /// Requests that wait for the store.
    waiting: AtomicUsize,
}

impl Hatch {
    /// What waits for the store may wait for as long as the medium takes no writes, whether or not its client is still
    /// there. One worker is kept out of that: `status` is needed then most of all.
    async fn answer(&self, request: Request) -> Answer {
        if request == Request::Status {
            return Answer::Ok(self.desk.status(&self.counters).await);
        }
        let answer = match self.waiting.fetch_add(1, Relaxed) < control::WORKERS - 1 {
            true => self.answer_of_store(request).await,
            false => {
                let text = "others wait for the store already; see `varved status` for why it takes long, try again";
                Answer::Error { exit: Exit::TryAgain as u8, text: text.to_owned() }
            }
        };
        self.waiting.fetch_sub(1, Relaxed);
        answer
    }

    async fn answer_of_store(&self, request: Request) -> Answer {
        match request {
            Request::Status => Answer::Ok(self.desk.status(&self.counters).await),
            Request::Flush => {
                self.inlets.drain().await;
                ask(&self.asks, Ask::Flush).await;
                Answer::Ok(Json::Null)
            }
            Request::Query { sql } => self.desk.query(sql).await,
        }
    }
}

impl Desk {
    /// Makes the control socket, where one is configured, and its workers. Recording does not wait for it.
    pub(super) fn serve_control(
        self,
        asks: Sender<Ask>,
        sensors: &Running,
        executor: &Executor<'static>,
    ) -> Vec<Task<()>> {
        let Some(path) = self.config.control.listen.clone() else { return Vec::new() };
        let (counters, inlets) = (sensors.counters().to_vec(), sensors.inlets());
        let (ready, hatches) = bounded::<Arc<Hatch>>(control::WORKERS);
        let worker = |_| {
            let hatches = hatches.clone();
            executor.spawn(async move {
                let Ok(hatch) = hatches.recv().await else { return };
                let hatch = &*hatch;
                control::serve(&hatch.listener, |request| hatch.answer(request)).await;
            })
        };
        let mut tasks: Vec<_> = (0..control::WORKERS).map(worker).collect();
        tasks.push(executor.spawn(async move {
            let (listener, file) = control::bind(&path).await;
            let waiting = AtomicUsize::new(0);
            let hatch = Arc::new(Hatch { listener, _file: file, desk: self, asks, counters, inlets, waiting });
            for _ in 0..control::WORKERS {
                let _ = ready.send(hatch.clone()).await;
            }
        }));
        tasks
    }

    /// Everything there is to know, as `status --json` prints it.
    async fn status(&self, counters: &[Arc<Counters>]) -> Json {
        let now = self.clock.now();
        let (risk, recorded) = self.shared.report(now);
        let both = |store: &mut Store| store.facts().and_then(|facts| Ok((facts, store.history()?)));
        let facts = or(async { self.store.run(both).await.ok().and_then(Result::ok) }, async {
            Timer::after(STATUS_PATIENCE).await;
            None
        });
        let (facts, history) = facts.await.unzip();
        let uptime_s = self.started.elapsed().as_secs_f64();
        let written = written_bytes();
        let link = lock(&self.link).clone();
        json!({
            "device": self.config.device,
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "uptime_s": uptime_s,
            "risk": risk,
            "recorded": recorded,
            "pending": facts.map(|f| json!({
                "segments": f.pending_segments,
                "readings": f.pending_readings,
                "bytes": f.pending_bytes(),
                "drain_s": link.outlook.drain_s(f.pending_bytes()),
                "oldest": f.oldest_pending_utc.map(|utc| utc.to_string()),
            })),
            "store": facts.map(|f| self.store_status(&f, uptime_s)),
            "history": history.map(|h| json!({
                "readings_from": h.readings_from.map(|(utc, _)| utc.to_string()),
                "readings_from_quality": h.readings_from.map(|(_, quality)| quality.as_str()),
                "hours_from": h.rollups.hours_from.map(|utc| utc.to_string()),
                "days_from": h.rollups.days_from.map(|utc| utc.to_string()),
                "rollup_rows": h.rollups.rows,
            })),
            "link": link_status(&link, now),
            "power_fail": self.power_report(),
            "clock": { "utc": UtcNanos(now.utc.0).to_string(), "trusted": self.shared.clock_is_trusted() },
            "flash": {
                "written_bytes": written,
                "bytes_per_day": (written as f64 / uptime_s.max(1.0) * 86_400.0) as u64,
                "wear": self.wear_report(),
            },
            "sensors": counters.iter().map(|c| c.snapshot()).collect::<Vec<_>>(),
        })
    }

    fn store_status(&self, facts: &StoreFacts, uptime_s: f64) -> Json {
        let free =
            facts.file_limit_bytes.saturating_sub((facts.pages - facts.free_pages) * u64::from(facts.page_bytes));
        let per_hour = facts.body_bytes as f64 / uptime_s.max(1.0) * 3600.0;
        json!({
            "path": self.config.store.path,
            "file_bytes": facts.file_bytes,
            "wal_bytes": facts.wal_bytes,
            "max_bytes": self.config.store.max_size_bytes,
            "limit_bytes": facts.file_limit_bytes,
            "page_bytes": facts.page_bytes,
            "pages": facts.pages,
            "free_pages": facts.free_pages,
            "segments": facts.segments,
            "readings": facts.readings,
            "pending_readings": facts.pending_readings,
            // At the present rate, before compaction, with nothing expired.
            "hours_to_full": (per_hour > 0.0).then(|| free as f64 / per_hour),
        })
    }

    /// SQL for a client of the control socket: under exclusive locking nobody else can read.
    async fn query(&self, sql: String) -> Answer {
        match self.store.run(move |store| store.query(&sql)).await {
            Ok(Ok(rows)) => Answer::Ok(rows),
            Ok(Err(why)) => Answer::Error { exit: why.exit() as u8, text: why.to_string() },
            Err(why) => Answer::Error { exit: Exit::Unavailable as u8, text: why.to_string() },
        }
    }
}

/// What the uplink tells of itself, and for how long the fleet has asked for silence.
fn link_status(link: &UplinkStatus, now: Now) -> Json {
    let mut status = json!(link);
    let paused_ns = link.silent_until.map(|until| until.0 - now.boot.0).filter(|left| *left > 0);
    status["paused_s"] = json!(paused_ns.map(|ns| ns / SECOND));
    status
}
