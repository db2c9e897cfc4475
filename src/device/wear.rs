//! The wear governor's edge: reads the counters, tells the recorder its interval, hands the account to the store.
//!
//! What enters: sysfs and procfs, every few seconds, and what the recorder has committed. What leaves: the commit
//! interval, a line in the log where there is something to say. The decisions are [`crate::wear`]'s.

use super::{Desk, lock};
use crate::store::{Identity, Medium};
use crate::wear::{Action, Kept, Report, Sample, Start, Wear};
use smol::Timer;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How often the counters are read: two small files that lie in RAM.
const TICK: Duration = Duration::from_secs(5);

/// Before the saved account is asked for again.
const READ_AGAIN: Duration = Duration::from_secs(60);

/// The governor, once the store is open.
pub(super) type SharedWear = Arc<Mutex<Option<Wear>>>;

impl Desk {
    /// Observes for ever; ends where there is no store to keep the account.
    pub(super) async fn watch_wear(self) {
        let Some((medium, start)) = self.wear_start().await else { return };
        let (wear, actions) = Wear::new(start, &self.sample(&medium));
        *lock(&self.wear) = Some(wear);
        self.act(actions).await;
        loop {
            let sample = self.sample(&medium);
            let actions = lock(&self.wear).as_mut().map(|wear| wear.observe(&sample)).unwrap_or_default();
            self.act(actions).await;
            Timer::after(TICK).await;
        }
    }

    async fn wear_start(&self) -> Option<(Medium, Start)> {
        // Waits until the store is open, since before that its directory may not be there.
        let kept = loop {
            match self.store.run(|store| store.ledger()).await.ok()? {
                Ok(kept) => break kept,
                // To begin anew would overwrite what can't be read just now.
                Err(why) => log::warn!("flash: the account of writes can't be read for now: {why}"),
            }
            Timer::after(READ_AGAIN).await;
        };
        let (kept, told) = Kept::read(kept.as_deref());
        self.act(told.into_iter().collect()).await;
        let medium = Medium::find(&self.config.root, &self.config.store.path);
        let last_recorded = match kept.boot() {
            Some(boot) => match self.store.run(move |store| store.last_recorded(boot)).await.ok()? {
                Ok(last) => last,
                Err(why) => {
                    log::warn!("flash: when this boot was last recorded can't be read, and counts as not known: {why}");
                    None
                }
            },
            None => None,
        };
        let boot = loop {
            match Identity::read(&self.config.root) {
                Ok(me) => break me.boot_uuid,
                Err(why) => log::warn!("flash: which boot this is can't be read for now: {why}"),
            }
            Timer::after(READ_AGAIN).await;
        };
        let interval = self.config.store.commit_interval;
        let start = Start { config: self.config.flash, interval, medium: medium.clone(), boot, kept, last_recorded };
        Some((medium, start))
    }

    fn sample(&self, medium: &Medium) -> Sample {
        Sample { sight: medium.sight(), tally: self.shared.tally(), now: self.clock.now() }
    }

    async fn act(&self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Interval(interval) => self.shared.set_interval(interval),
                Action::Save(text) => drop(self.store.run(move |store| store.note_ledger(text)).await),
                Action::Warn(text) => log::warn!("{text}"),
                Action::Note(text) => log::info!("{text}"),
            }
        }
    }

    /// Has the account as it stands written with the last commit.
    pub(super) async fn save_wear(&self) {
        let last = lock(&self.wear).as_ref().and_then(Wear::save);
        if let Some(text) = last {
            self.act(vec![Action::Save(text)]).await;
        }
    }

    /// What `status` shows; none until the store is open.
    pub(super) fn wear_report(&self) -> Option<Report> {
        let now = self.clock.now();
        lock(&self.wear).as_ref().map(|wear| wear.report(now))
    }
}
