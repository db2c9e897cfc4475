//! A story: hours of weather over one device, one fleet and the network between, then a calm, then the judgement.
//!
//! What enters: a seed, how long, a planted fault if any. What leaves: figures, or what went wrong. One thread, one event
//! at a time, no clock but the story's own.

use super::account::Account;
use super::board::Board;
use super::dice::Dice;
use super::hub::{Cut, Hub};
use super::net::{Arrival, Net, Side};
use super::plan::{Fault, Plan};
use super::{Around, CALM_NS, Figures, HOUR_NS};
use crate::clock::SECOND;
use crate::reading::{SegmentSeq, SeqRange};
use crate::wire::{Request, SnapshotRequest};
use std::path::Path;

struct World {
    now: i64,
    dice: Dice,
    plan: Plan,
    board: Board,
    net: Net,
    hub: Hub,
    account: Account,
    figures: Figures,
    weather_at: i64,
    put_back_at: i64,
    copy_at: i64,
    dark_at: i64,
}

/// Tells the story of `seed` in the empty directory `dir`.
pub(super) fn tell(seed: u64, hours: i64, fault: Option<Fault>, dir: &Path) -> Result<Figures, String> {
    let mut world = World::new(seed, hours, fault, dir);
    let end = hours * HOUR_NS;
    world.run_until(end)?;
    world.heal()?;
    world.run_until(end + CALM_NS)?;
    world.judge(hours)
}

impl World {
    fn new(seed: u64, hours: i64, fault: Option<Fault>, dir: &Path) -> Self {
        let mut dice = Dice::new(seed);
        let plan = Plan::of(hours, &mut dice);
        let plan = fault.map_or(plan.clone(), |fault| plan.for_fault(fault));
        let end = hours * HOUR_NS;
        let put_back_at = if plan.weather.put_back { dice.between(end / 3, end) } else { i64::MAX };
        let copy_at = if plan.weather.put_back { dice.between(60 * SECOND, put_back_at) } else { i64::MAX };
        let dark_at = plan.weather.blackout_ns.map_or(i64::MAX, |_| dice.between(0, end / 2));
        Self {
            now: 0,
            board: Board::new(plan.board.clone(), fault, dir),
            net: Net::new(plan.manners.clone()),
            hub: Hub::new(&plan, fault, dir),
            account: Account::default(),
            figures: Figures::default(),
            weather_at: dice.spread(SECOND, plan.weather.mean_ns),
            put_back_at,
            copy_at,
            dark_at,
            dice,
            plan,
        }
    }

    fn run_until(&mut self, end: i64) -> Result<(), String> {
        let mut idle = 0;
        while self.now < end {
            let next = self.board.next_at().min(self.hub.next_at()).min(self.net.next_at());
            let next = next.min(self.weather_at).min(self.put_back_at).min(self.copy_at).min(self.dark_at).min(end);
            idle = if next <= self.now { idle + 1 } else { 0 };
            if idle > 10_000 {
                return Err(format!("time stands still at {}", self.at()));
            }
            self.now = self.now.max(next);
            self.step().map_err(|why| format!("{}: {why}", self.at()))?;
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), String> {
        self.change_weather()?;
        for arrival in self.net.run(self.now, &mut self.figures, &mut self.dice) {
            self.pass_on(arrival)?;
        }
        let (board, mut around) = self.at_the_board();
        board.run(&mut around)?;
        if self.hub.next_at() <= self.now {
            let (hub, mut around) = self.at_the_hub();
            hub.run(&mut around)?;
        }
        self.figures.most_in_flight = self.figures.most_in_flight.max(self.board.in_flight());
        Ok(())
    }

    fn at_the_board(&mut self) -> (&mut Board, Around<'_>) {
        let (net, account, figures, dice) = (&mut self.net, &mut self.account, &mut self.figures, &mut self.dice);
        (&mut self.board, Around { now: self.now, net, account, figures, dice })
    }

    fn at_the_hub(&mut self) -> (&mut Hub, Around<'_>) {
        let (net, account, figures, dice) = (&mut self.net, &mut self.account, &mut self.figures, &mut self.dice);
        (&mut self.hub, Around { now: self.now, net, account, figures, dice })
    }

    fn pass_on(&mut self, arrival: Arrival) -> Result<(), String> {
        match arrival {
            Arrival::Connected(Side::Device) => {
                self.figures.connections += 1;
                self.board.connected(self.now);
            }
            Arrival::Disconnected(Side::Device) => self.board.disconnected(self.now),
            Arrival::Connected(Side::Fleet) => self.hub.connected(self.now),
            Arrival::Disconnected(Side::Fleet) => {}
            Arrival::Taken => self.board.passed(self.now),
            Arrival::ForDevice(message) => {
                let (board, mut around) = self.at_the_board();
                board.heard(&message, &mut around)?;
            }
            Arrival::ForFleet(message, ticket) => {
                let (hub, mut around) = self.at_the_hub();
                hub.heard(message, ticket, &mut around);
            }
        }
        Ok(())
    }

    fn change_weather(&mut self) -> Result<(), String> {
        if self.copy_at <= self.now {
            self.copy_at = if self.hub.is_on() { i64::MAX } else { self.now + 60 * SECOND };
            if self.copy_at == i64::MAX {
                self.hub.copy_disk()?;
            }
        }
        if self.put_back_at <= self.now {
            self.put_back_at = i64::MAX;
            let (hub, mut around) = self.at_the_hub();
            let done = hub.put_back(&mut around)?;
            self.figures.put_back += u64::from(done);
        }
        if self.dark_at <= self.now {
            self.dark_at = i64::MAX;
            self.figures.blackouts += 1;
            let lasts = self.plan.weather.blackout_ns.unwrap_or(0);
            self.net.partition(Side::Device, self.now, lasts, &mut self.dice);
        }
        if self.weather_at <= self.now {
            let mean = self.plan.weather.mean_ns;
            self.weather_at = self.now + self.dice.spread((mean / 100).max(1), mean * 2);
            self.blow()?;
        }
        Ok(())
    }

    /// One thing goes wrong, or just happens.
    fn blow(&mut self) -> Result<(), String> {
        let now = self.now;
        let side = if self.dice.per_mille(600) { Side::Device } else { Side::Fleet };
        let lasts = self.dice.spread(SECOND, 40 * 60 * SECOND);
        let short = self.dice.spread(SECOND, 10 * 60 * SECOND);
        match self.dice.roll(20) {
            0..=3 => {
                self.figures.cuts += 1;
                self.net.cut(side, now, &mut self.dice).map_or(Ok(()), |gone| self.pass_on(gone))
            }
            4..=6 => {
                self.figures.partitions += 1;
                self.net.partition(side, now, lasts, &mut self.dice);
                Ok(())
            }
            7..=8 => {
                self.figures.half_open += 1;
                let broker_forgets = self.dice.per_mille(500);
                let gone = self.net.half_open(side, broker_forgets, now, &mut self.dice);
                gone.map_or(Ok(()), |gone| self.pass_on(gone))
            }
            9 => {
                self.figures.broker_restarts += 1;
                let gone = self.net.restart_broker(now, short.min(60 * SECOND), &mut self.dice);
                gone.into_iter().try_for_each(|gone| self.pass_on(gone))
            }
            10..=11 if self.board.is_on() => {
                self.figures.device_power_cuts += 1;
                self.board.cut_power(now, lasts, &mut self.net);
                Ok(())
            }
            12 if self.board.is_on() => {
                let cleanly = self.dice.per_mille(500);
                let (board, mut around) = self.at_the_board();
                board.restart_service(cleanly, &mut around)
            }
            13..=15 if self.hub.is_on() => {
                self.figures.fleet_power_cuts += 1;
                let cuts = [Cut::Idle, Cut::BeforeCommit, Cut::BeforeAnswers, Cut::BetweenAnswers];
                let cut = cuts[self.dice.roll(4) as usize];
                let (hub, mut around) = self.at_the_hub();
                hub.cut_power(cut, short, &mut around);
                Ok(())
            }
            16 => {
                self.figures.clock_steps += 1;
                let by =
                    self.dice.spread(SECOND / 10, 40 * 86_400 * SECOND) * if self.dice.per_mille(500) { 1 } else { -1 };
                if self.dice.per_mille(300) {
                    self.hub.step_clock(by);
                } else {
                    let trusted = self.dice.per_mille(600);
                    self.board.step_clock(by, trusted);
                }
                Ok(())
            }
            17 => {
                self.board.grow();
                Ok(())
            }
            18 => self.board.checkpoint(),
            _ => {
                self.ask();
                Ok(())
            }
        }
    }

    /// An operator asks the device for something.
    fn ask(&mut self) {
        let request = match self.dice.roll(3) {
            0 => Request::Snapshot(SnapshotRequest { nonce: self.dice.roll(u64::MAX), only: None, done: Vec::new() }),
            1 => Request::Catalog,
            _ => {
                let Some(store) = self.board.store() else { return };
                let first = 1 + self.dice.roll(store.next_seq().0 + 3);
                let range = SeqRange { first: SegmentSeq(first), last: SegmentSeq(first + self.dice.roll(20)) };
                Request::Segments { store: store.uuid(), ranges: vec![range] }
            }
        };
        self.figures.asked += 1;
        let (hub, mut around) = self.at_the_hub();
        hub.request(&request, &mut around);
    }

    /// From here on nothing goes wrong, and no more readings come.
    fn heal(&mut self) -> Result<(), String> {
        (self.weather_at, self.put_back_at, self.copy_at) = (i64::MAX, i64::MAX, i64::MAX);
        self.dark_at = i64::MAX;
        self.net.heal(self.now);
        self.hub.calm(self.now);
        let (board, mut around) = self.at_the_board();
        board.calm(&mut around)
    }

    fn judge(mut self, hours: i64) -> Result<Figures, String> {
        let pending = self.board.pending()?;
        if !pending.is_empty() {
            let (heads, held) = (self.board.pending_heads(), self.account.held_of(pending[0].0, self.hub.data()));
            let flying = self.board.in_flight();
            let calm = CALM_NS / SECOND / 60;
            return Err(format!(
                "after a calm of {calm} min, still pending: {heads}; {flying} in flight; the fleet has {held}"
            ));
        }
        if self.board.in_flight() > 0 {
            return Err(format!("after a calm, {} segments are still in flight", self.board.in_flight()));
        }
        let data = self.hub.data().to_owned();
        self.account.check_all_named(&data)?;
        let judged = self.account.judge(&data)?;
        let (readings, commits) = self.account.sizes();
        self.figures.hours = hours as u64;
        self.figures.note(&self.plan);
        (self.figures.readings, self.figures.commits) = (readings, commits);
        self.figures.judged = judged;
        Ok(self.figures)
    }

    fn at(&self) -> String {
        let seconds = self.now / SECOND;
        format!("at {}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
    }
}
