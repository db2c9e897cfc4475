//! The network between: a broker, and a connection to it from either side.
//!
//! What enters: what the sides publish and acknowledge, and what the weather does. What leaves: [`Arrival`]s at the sides,
//! in time. As MQTT does it: each connection is first in, first out; a device has a clean session, the receiver a
//! persistent one of bounded length whose messages wait for their PUBACK and come again after a reconnect; retained
//! messages come with a subscription. Beyond what MQTT allows: messages of different topics overtake each other, some are
//! taken with a PUBACK and lost, some come twice, the second time late and out of order.

use super::dice::Dice;
use super::{DEVICE, Figures, PREFIX};
use crate::clock::SECOND;
use crate::wire::topics::{self, Topic};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

/// What a device's client has unacknowledged at most, as `mqtt::Settings::device` has it.
const DEVICE_IN_FLIGHT: usize = 8;

/// What the broker sends the receiver before it waits for PUBACKs: mosquitto's default.
const FLEET_IN_FLIGHT: usize = 20;

/// After so long without a sign, one and a half keep-alives, the broker takes a client for gone.
const BROKER_PATIENCE: i64 = 45 * SECOND;

/// And a client the broker: a ping every 30 s that goes unanswered for as long.
const CLIENT_PATIENCE: i64 = 60 * SECOND;

/// The ends of the two connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Side {
    Device = 0,
    Fleet = 1,
}

/// A message on a topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Message {
    pub(super) topic: String,
    pub(super) payload: Vec<u8>,
    pub(super) retain: bool,
}

/// What a side hears from its client.
#[derive(Debug)]
pub(super) enum Arrival {
    Connected(Side),
    Disconnected(Side),
    /// To the device.
    ForDevice(Message),
    /// To the receiver, with what it acknowledges it by.
    ForFleet(Message, Ticket),
    /// The broker took one of the device's publishes: there is room for another.
    Taken,
}

/// Which delivery of which connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket {
    connection: u64,
    packet: u64,
}

/// What one seed's network is like.
#[derive(Debug, Clone)]
pub(super) struct Manners {
    /// Whether the device's link is as thin as they come.
    pub(super) thin: bool,
    /// Latency of each way, the least and the most.
    pub(super) latency_ns: (i64, i64),
    /// Time that a byte takes on the device's link.
    pub(super) byte_ns: i64,
    /// Within the broker, from one topic to another.
    pub(super) overtaking_ns: i64,
    /// Messages lost with a PUBACK, of 1,000.
    pub(super) lost: u64,
    /// Messages that come twice, of 1,000.
    pub(super) twice: u64,
    /// Acks that later ones overtake, of 1,000.
    pub(super) late_acks: u64,
    /// How many messages wait for a receiver that is away.
    pub(super) queue: usize,
    /// Whether a broker that restarts remembers what it retained and queued.
    pub(super) remembers: bool,
    /// Whether what is retained comes again with a session that was there.
    pub(super) retained_again: bool,
}

#[derive(Debug, Default)]
struct Link {
    /// The connection as the client sees it, and as the broker does.
    client: Option<u64>,
    broker: Option<u64>,
    /// Whether the client's end is there at all.
    powered: bool,
    retry_at: i64,
    /// Nothing passes before.
    dark_until: i64,
    /// A connection of which one end is gone is noticed then.
    client_notices_at: Option<i64>,
    broker_notices_at: Option<i64>,
    /// First in, first out.
    last_up: i64,
    last_down: i64,
    /// Until when the link is busy with what was given to it, up and down.
    busy_until: [i64; 2],
    unacknowledged: usize,
    will: Option<Message>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Load {
    Publish(Message),
    Puback(u64),
    Deliver(Message, u64),
    Taken,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Up(Side, u64, Load),
    Down(Side, u64, Load),
    /// From one topic's log to those who subscribed.
    Route(Message),
}

#[derive(Debug, Default)]
struct Session {
    exists: bool,
    waiting: VecDeque<Message>,
    sent: VecDeque<(u64, Message)>,
}

/// See the room.
#[derive(Debug)]
pub(super) struct Net {
    pub(super) manners: Manners,
    pub(super) calm: bool,
    links: [Link; 2],
    packets: BinaryHeap<Reverse<(i64, u64, Way)>>,
    order: u64,
    broker_up_at: i64,
    retained: BTreeMap<String, Message>,
    session: Session,
    routed: BTreeMap<String, i64>,
}

impl Net {
    pub(super) fn new(manners: Manners) -> Self {
        Self {
            manners,
            calm: false,
            links: [Link::default(), Link::default()],
            packets: BinaryHeap::new(),
            order: 0,
            broker_up_at: 0,
            retained: BTreeMap::new(),
            session: Session::default(),
            routed: BTreeMap::new(),
        }
    }

    /// When something happens here.
    pub(super) fn next_at(&self) -> i64 {
        let packet = self.packets.peek().map_or(i64::MAX, |Reverse((at, _, _))| *at);
        let link = |link: &Link| {
            let retry = if link.powered && link.client.is_none() { link.retry_at } else { i64::MAX };
            let notice = |at: Option<i64>| at.unwrap_or(i64::MAX);
            retry.min(notice(link.client_notices_at)).min(notice(link.broker_notices_at))
        };
        self.links.iter().map(link).min().unwrap_or(i64::MAX).min(packet)
    }

    pub(super) fn connected(&self, side: Side) -> bool {
        self.link(side).client.is_some()
    }

    /// Whether the device's client takes a publish now.
    pub(super) fn has_room(&self) -> bool {
        self.link(Side::Device).unacknowledged < DEVICE_IN_FLIGHT
    }

    /// A client is switched on.
    pub(super) fn power_on(&mut self, side: Side, now: i64, will: Option<Message>) {
        let link = self.link_mut(side);
        (link.powered, link.retry_at, link.will) = (true, now, will);
    }

    /// A client is gone without a word.
    pub(super) fn power_off(&mut self, side: Side, now: i64) {
        let link = self.link_mut(side);
        (link.powered, link.client, link.client_notices_at) = (false, None, None);
        link.broker_notices_at = link.broker.map(|_| now + BROKER_PATIENCE);
    }

    pub(super) fn publish(&mut self, side: Side, message: Message, now: i64, dice: &mut Dice) {
        if side == Side::Device {
            self.link_mut(side).unacknowledged += 1;
        }
        self.up(side, Load::Publish(message), now, dice);
    }

    pub(super) fn puback(&mut self, ticket: Ticket, now: i64, dice: &mut Dice) {
        if self.link(Side::Fleet).client == Some(ticket.connection) {
            self.up(Side::Fleet, Load::Puback(ticket.packet), now, dice);
        }
    }

    /// Both ends see the connection end.
    pub(super) fn cut(&mut self, side: Side, now: i64, dice: &mut Dice) -> Option<Arrival> {
        self.broker_drops(side, now, dice);
        self.client_drops(side, now, dice)
    }

    /// Nothing passes for a while; a long one is noticed by the ends, each in its time.
    pub(super) fn partition(&mut self, side: Side, now: i64, lasts: i64, dice: &mut Dice) {
        let link = self.link_mut(side);
        link.dark_until = link.dark_until.max(now + lasts);
        let patience = dice.between(30, 60) * SECOND;
        let link = self.link_mut(side);
        if link.client.is_some() && patience < lasts {
            link.client_notices_at = Some(now + patience);
        }
        if link.broker.is_some() && BROKER_PATIENCE < lasts {
            link.broker_notices_at = Some(now + BROKER_PATIENCE);
        }
    }

    /// One end forgets the connection, and the other finds out later.
    pub(super) fn half_open(&mut self, side: Side, broker_forgets: bool, now: i64, dice: &mut Dice) -> Option<Arrival> {
        if broker_forgets {
            self.broker_drops(side, now, dice);
            let link = self.link_mut(side);
            link.client_notices_at = link.client.map(|_| now + dice.between(30, 60) * SECOND);
            return None;
        }
        let link = self.link_mut(side);
        link.broker_notices_at = link.broker.map(|_| now + BROKER_PATIENCE);
        self.client_drops(side, now, dice)
    }

    /// The broker goes, and comes back with what it remembers.
    pub(super) fn restart_broker(&mut self, now: i64, lasts: i64, dice: &mut Dice) -> Vec<Arrival> {
        self.broker_up_at = now + lasts;
        // What was between two topics' logs is in neither.
        self.packets.retain(|Reverse((_, _, way))| !matches!(way, Way::Route(_)));
        self.routed.clear();
        let gone = [Side::Device, Side::Fleet].map(|side| {
            self.link_mut(side).broker = None;
            self.link_mut(side).broker_notices_at = None;
            self.client_drops(side, now, dice)
        });
        if !self.manners.remembers {
            self.retained.clear();
            self.session = Session::default();
        }
        gone.into_iter().flatten().collect()
    }

    /// A quiet day: everything that is not up comes up.
    pub(super) fn heal(&mut self, now: i64) {
        self.calm = true;
        self.broker_up_at = self.broker_up_at.min(now);
        self.manners.latency_ns.1 = self.manners.latency_ns.1.min(SECOND / 5).max(self.manners.latency_ns.0);
        self.links.iter_mut().for_each(|link| {
            link.dark_until = link.dark_until.min(now);
            link.retry_at = link.retry_at.min(now + SECOND);
        });
    }

    /// Everything that happens here up to `now`.
    pub(super) fn run(&mut self, now: i64, figures: &mut Figures, dice: &mut Dice) -> Vec<Arrival> {
        let mut heard = Vec::new();
        for side in [Side::Device, Side::Fleet] {
            if self.link(side).broker_notices_at.is_some_and(|at| at <= now) {
                self.broker_drops(side, now, dice);
            }
            if self.link(side).client_notices_at.is_some_and(|at| at <= now) {
                heard.extend(self.client_drops(side, now, dice));
            }
            let link = self.link(side);
            if link.powered && link.client.is_none() && link.retry_at <= now {
                heard.extend(self.connect(side, now, dice));
            }
        }
        while self.packets.peek().is_some_and(|Reverse((at, _, _))| *at <= now) {
            let Some(Reverse((_, _, way))) = self.packets.pop() else { break };
            heard.extend(self.arrive(way, now, figures, dice));
        }
        heard
    }

    fn connect(&mut self, side: Side, now: i64, dice: &mut Dice) -> Option<Arrival> {
        if now < self.broker_up_at || now < self.link(side).dark_until {
            let longest = if self.calm { 5 } else { 120 };
            self.link_mut(side).retry_at = now + dice.between(1, longest) * SECOND;
            return None;
        }
        // An older connection of the same client ends here, and says its will.
        self.broker_drops(side, now, dice);
        self.order += 1;
        let connection = self.order;
        let link = self.link_mut(side);
        (link.client, link.broker, link.unacknowledged) = (Some(connection), Some(connection), 0);
        link.busy_until = [now; 2];
        link.broker_notices_at = None;
        match side {
            Side::Device => {
                let ack = topics::name(PREFIX, DEVICE, Topic::Ack);
                if let Some(message) = self.retained.get(&ack).cloned() {
                    self.down(side, Load::Deliver(message, 0), now, dice);
                }
            }
            Side::Fleet => self.resume(now, dice),
        }
        Some(Arrival::Connected(side))
    }

    /// The receiver's session goes on, or begins.
    fn resume(&mut self, now: i64, dice: &mut Dice) {
        let subscribed = !std::mem::replace(&mut self.session.exists, true);
        let again: Vec<_> = self.session.sent.drain(..).map(|(_, message)| message).collect();
        again.into_iter().rev().for_each(|message| self.session.waiting.push_front(message));
        if subscribed || self.manners.retained_again {
            let told = |topic: &str| is_for_fleet(topic);
            let all: Vec<_> = self.retained.values().filter(|m| told(&m.topic)).cloned().collect();
            self.session.waiting.extend(all);
        }
        self.pump(now, dice);
    }

    fn pump(&mut self, now: i64, dice: &mut Dice) {
        while self.link(Side::Fleet).broker.is_some() && self.session.sent.len() < FLEET_IN_FLIGHT {
            let Some(message) = self.session.waiting.pop_front() else { return };
            self.order += 1;
            let packet = self.order;
            self.session.sent.push_back((packet, message.clone()));
            self.down(Side::Fleet, Load::Deliver(message, packet), now, dice);
        }
    }

    fn arrive(&mut self, way: Way, now: i64, figures: &mut Figures, dice: &mut Dice) -> Option<Arrival> {
        let (side, connection, up) = match &way {
            Way::Route(_) => {
                let Way::Route(message) = way else { return None };
                self.route(message, now, figures, dice);
                return None;
            }
            Way::Up(side, connection, _) => (*side, *connection, true),
            Way::Down(side, connection, _) => (*side, *connection, false),
        };
        let link = self.link(side);
        let there = if up { link.broker } else { link.client };
        if there != Some(connection) {
            // The end that knows nothing of the connection says so.
            let link = self.link_mut(side);
            match up {
                true if link.client == Some(connection) => link.client_notices_at = Some(now),
                false if link.broker == Some(connection) => link.broker_notices_at = Some(now),
                _ => {}
            }
            return None;
        }
        if now < link.dark_until {
            // It waits in the sender's socket; whether that lives as long is seen then.
            let later = link.dark_until;
            self.push(later, way);
            return None;
        }
        match way {
            Way::Up(_, _, Load::Publish(message)) => {
                if side == Side::Device {
                    self.down(side, Load::Taken, now, dice);
                }
                self.take(message, now, figures, dice);
                None
            }
            Way::Up(_, _, Load::Puback(packet)) => {
                self.session.sent.retain(|(sent, _)| *sent != packet);
                self.pump(now, dice);
                None
            }
            Way::Down(_, _, Load::Taken) => {
                let link = self.link_mut(side);
                link.unacknowledged = link.unacknowledged.saturating_sub(1);
                Some(Arrival::Taken)
            }
            Way::Down(Side::Device, _, Load::Deliver(message, _)) => Some(Arrival::ForDevice(message)),
            Way::Down(Side::Fleet, connection, Load::Deliver(message, packet)) => {
                Some(Arrival::ForFleet(message, Ticket { connection, packet }))
            }
            _ => None,
        }
    }

    /// The broker has a message, and says so.
    fn take(&mut self, message: Message, now: i64, figures: &mut Figures, dice: &mut Dice) {
        if message.retain {
            self.retained.insert(message.topic.clone(), message.clone());
        }
        if !self.calm && dice.per_mille(self.manners.lost) {
            figures.lost += 1;
            return;
        }
        if !self.calm && dice.per_mille(self.manners.twice) {
            figures.twice += 1;
            let late = now + dice.spread(SECOND / 100, 120 * SECOND);
            self.push(late, Way::Route(message.clone()));
        }
        if !self.calm && is_ack(&message.topic) && dice.per_mille(self.manners.late_acks) {
            figures.late_acks += 1;
            let late = now + dice.spread(SECOND, 60 * SECOND);
            self.push(late, Way::Route(message));
            return;
        }
        let delay = if self.calm { 0 } else { dice.between(0, self.manners.overtaking_ns) };
        let at = (now + delay).max(self.routed.get(&message.topic).copied().unwrap_or(0));
        self.routed.insert(message.topic.clone(), at);
        self.push(at, Way::Route(message));
    }

    fn route(&mut self, message: Message, now: i64, figures: &mut Figures, dice: &mut Dice) {
        if is_for_fleet(&message.topic) {
            let here = self.link(Side::Fleet).broker.is_some();
            if !here && self.session.waiting.len() >= self.manners.queue {
                figures.overflowed += 1;
            } else if self.session.exists {
                self.session.waiting.push_back(message);
                self.pump(now, dice);
            }
        } else if self.link(Side::Device).broker.is_some() {
            self.down(Side::Device, Load::Deliver(message, 0), now, dice);
        }
    }

    fn client_drops(&mut self, side: Side, now: i64, dice: &mut Dice) -> Option<Arrival> {
        let longest = if self.calm { 2 } else { 60 };
        let link = self.link_mut(side);
        link.client_notices_at = None;
        link.client.take()?;
        if link.broker.is_some() {
            link.broker_notices_at.get_or_insert(now + BROKER_PATIENCE);
        }
        link.retry_at = now + dice.between(SECOND / 10, longest * SECOND);
        Some(Arrival::Disconnected(side))
    }

    fn broker_drops(&mut self, side: Side, now: i64, dice: &mut Dice) {
        let link = self.link_mut(side);
        link.broker_notices_at = None;
        if link.broker.take().is_none() {
            return;
        }
        if link.client.is_some() {
            // Its next ping is not answered.
            link.client_notices_at.get_or_insert(now + CLIENT_PATIENCE);
        }
        if let Some(will) = link.will.clone() {
            self.retained.insert(will.topic.clone(), will.clone());
            let late = now + dice.between(0, SECOND);
            self.push(late, Way::Route(will));
        }
    }

    fn up(&mut self, side: Side, load: Load, now: i64, dice: &mut Dice) {
        let Some(connection) = self.link(side).client else { return };
        let at = self.arrival(side, 0, &load, now, dice).max(self.link(side).last_up);
        self.link_mut(side).last_up = at;
        self.push(at, Way::Up(side, connection, load));
    }

    fn down(&mut self, side: Side, load: Load, now: i64, dice: &mut Dice) {
        let Some(connection) = self.link(side).broker else { return };
        let at = self.arrival(side, 1, &load, now, dice).max(self.link(side).last_down);
        self.link_mut(side).last_down = at;
        self.push(at, Way::Down(side, connection, load));
    }

    /// When `load` is across, one way or the other: the device's link takes its time for each byte, one after the other.
    fn arrival(&mut self, side: Side, way: usize, load: &Load, now: i64, dice: &mut Dice) -> i64 {
        let bytes = match load {
            Load::Publish(message) | Load::Deliver(message, _) => message.topic.len() + message.payload.len(),
            _ => 4,
        };
        if side == Side::Fleet {
            return now + dice.between(SECOND / 5000, SECOND / 100);
        }
        let takes = bytes as i64 * self.manners.byte_ns;
        let latency = dice.between(self.manners.latency_ns.0, self.manners.latency_ns.1);
        let busy_until = &mut self.link_mut(side).busy_until[way];
        *busy_until = now.max(*busy_until) + takes;
        *busy_until + latency
    }

    fn push(&mut self, at: i64, way: Way) {
        self.order += 1;
        self.packets.push(Reverse((at, self.order, way)));
    }

    fn link(&self, side: Side) -> &Link {
        &self.links[side as usize]
    }

    fn link_mut(&mut self, side: Side) -> &mut Link {
        &mut self.links[side as usize]
    }
}

fn is_ack(topic: &str) -> bool {
    topic.ends_with("/ack")
}

fn is_for_fleet(topic: &str) -> bool {
    !is_ack(topic) && !topic.ends_with("/request")
}
