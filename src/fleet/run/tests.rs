//! The service with a real broker: the embedded one and mosquitto.

use super::*;
use crate::fleet::report;
use crate::mqtt::testing::{Mosquitto, PATIENCE, eventually};
use crate::mqtt::{Settings, Ticket};
use crate::reading::{BootId, SegmentSeq, SeqRange};
use crate::segment::{self, Content, Loss, LossReason, Segment};
use crate::wire::topics::{self, Topic};
use crate::wire::{Ack, CatalogBoot, CatalogPage, State, StoreUuid, decode, encode, frames};
use std::path::Path;

const PREFIX: &str = "varved";

fn config(data: &Path) -> FleetConfig {
    FleetConfig {
        data: data.to_owned(),
        broker: None,
        listen: Some(([127, 0, 0, 1], 0).into()),
        prefix: PREFIX.into(),
        http: None,
        ca: None,
        cert: None,
        key: None,
        username: None,
        password_file: None,
        alpn: None,
    }
}

type Running = std::thread::JoinHandle<Result<(), FleetError>>;

/// A service on a thread of its own, and where its broker listens.
fn start(data: &Path) -> (SocketAddr, smol::channel::Sender<()>, Running) {
    let (stop, stopped) = smol::channel::bounded(1);
    let (tell, told) = std::sync::mpsc::channel();
    let config = config(data);
    let service = std::thread::spawn(move || serve(config, stopped, |address| tell.send(address).expect("told")));
    let address = told.recv().expect("it listens").expect("an embedded broker");
    (address, stop, service)
}

fn device(address: SocketAddr, name: &str) -> (Client, Channel<Event>) {
    let mut settings = Settings::device(name, &address.ip().to_string(), address.port());
    settings.filters = topics::device_filters(PREFIX, name).to_vec();
    let (client, events) = Client::start(settings).expect("a client");
    (client, events)
}

async fn next_ack(events: &Channel<Event>, want: impl Fn(&Ack) -> bool) -> Ack {
    let ack = async {
        loop {
            let Ok(Event::Message { topic, payload, .. }) = events.recv().await else { continue };
            if topic.ends_with("/ack") {
                let ack: Ack = decode(&payload).expect("an ack");
                if want(&ack) {
                    return ack;
                }
            }
        }
    };
    let late = async {
        smol::Timer::after(PATIENCE).await;
        panic!("no such ack within {PATIENCE:?}")
    };
    smol::future::or(ack, late).await
}

async fn connected(events: &Channel<Event>) {
    while !matches!(events.recv().await, Ok(Event::Connected { .. })) {}
}

fn segment(seq: u64) -> Segment {
    let at = Some((BootId(1), crate::clock::BootNanos(seq as i64)));
    let loss = Loss { reason: LossReason::Overflow, readings: Some(seq), from: at, to: at, utc: None };
    Segment { range: SeqRange::new(seq, seq).expect("a range"), content: Content::Loss(loss) }
}

/// From a device's publish to its ack, through the embedded broker: what is acknowledged is in the replica, and a
/// device that comes later finds the ack retained.
#[test]
fn a_device_is_acknowledged_through_the_embedded_broker() {
    let dir = tempfile::tempdir().expect("a directory");
    let (address, stop, service) = start(dir.path());
    let store = StoreUuid::from_u128(7);
    smol::block_on(async {
        let (client, events) = device(address, "pump-17");
        connected(&events).await;
        let topic = |topic| topics::name(PREFIX, "pump-17", topic);
        let boots = vec![CatalogBoot { id: BootId(1), uuid: store, anchors: vec![] }];
        let page = encode(&CatalogPage { store, series: vec![], boots }).expect("a page");
        client.publish(&topic(Topic::Catalog(0)), true, page).await.expect("published");
        // The page and the segments go by different filters and may overtake each other: a device sends again.
        let acked = |ack: &Ack| ack.stores.iter().any(|s| s.store == store && s.cumulative == SegmentSeq(40));
        let send = async {
            loop {
                for seq in 1..=40 {
                    let body = segment::encode(&segment(seq)).expect("a body");
                    for frame in frames(store, segment(seq).range, &body, 100_000) {
                        let frame = frame.expect("a frame");
                        client.publish(&topic(Topic::Segment), false, frame).await.expect("published");
                    }
                }
                smol::Timer::after(Duration::from_millis(300)).await;
            }
        };
        smol::future::or(send, async { drop(next_ack(&events, acked).await) }).await;
        let (_later, events) = device(address, "pump-17");
        next_ack(&events, acked).await;
        client.stop().await;
    });
    stop.close();
    service.join().expect("no panic").expect("a good end");
    let devices = report::devices(dir.path()).expect("an account");
    assert_eq!(devices.len(), 1);
    assert_eq!(devices[0].stores[0].held, ["1..=40"]);
    assert_eq!(devices[0].stores[0].readings_lost, (1..=40).sum::<u64>());
    assert!(report::table(&devices, &[]).contains("pump-17"));
}

/// The receiver restarts beside an outside broker: what was sent meanwhile waits in its session there, and the
/// retained states and catalogues come again.
#[test]
fn a_restarted_receiver_goes_on_where_it_was() {
    let broker = crate::mqtt::testing::Mosquitto::start();
    let dir = tempfile::tempdir().expect("a directory");
    let store = StoreUuid::from_u128(8);
    let address = SocketAddr::from(([127, 0, 0, 1], broker.port));
    let start = || {
        let (stop, stopped) = smol::channel::bounded::<()>(1);
        let outside = crate::config::Broker { host: "127.0.0.1".into(), port: broker.port, tls: false };
        let config = FleetConfig { broker: Some(outside), listen: None, ..config(dir.path()) };
        (stop, std::thread::spawn(move || run(config, stopped)))
    };
    let topic = |topic| topics::name(PREFIX, "a", topic);
    let frame = |seq| {
        let body = segment::encode(&segment(seq)).expect("a body");
        frames(store, segment(seq).range, &body, 100_000).next().expect("one").expect("a frame")
    };
    let held = |n| move |ack: &Ack| ack.stores.iter().any(|s| s.store == store && s.cumulative == SegmentSeq(n));
    smol::block_on(async {
        let (stop, service) = start();
        let (client, events) = device(address, "a");
        connected(&events).await;
        let boots = vec![CatalogBoot { id: BootId(1), uuid: store, anchors: vec![] }];
        let page = encode(&CatalogPage { store, series: vec![], boots }).expect("a page");
        client.publish(&topic(Topic::Catalog(0)), true, page).await.expect("published");
        let state = State {
            online: true,
            session: 1,
            run: 1,
            version: "0.1.0".into(),
            utc: crate::clock::UtcNanos(1),
            clock_trusted: false,
            stores: vec![],
        };
        client.publish(&topic(Topic::State), true, encode(&state).expect("a state")).await.expect("published");
        next_ack(&events, |ack| ack.stores.iter().all(|s| s.store == store)).await;
        client.publish(&topic(Topic::Segment), false, frame(1)).await.expect("published");
        next_ack(&events, held(1)).await;
        stop.close();
        service.join().expect("no panic").expect("a good end");
        for seq in 2..=5 {
            client.publish(&topic(Topic::Segment), false, frame(seq)).await.expect("published");
        }
        let (stop, service) = start();
        // The definitions are asked for or come retained; segments that overtook them are sent again.
        let again = async {
            loop {
                smol::Timer::after(Duration::from_millis(500)).await;
                for seq in 2..=5 {
                    client.publish(&topic(Topic::Segment), false, frame(seq)).await.expect("published");
                }
            }
        };
        smol::future::or(again, async { drop(next_ack(&events, held(5)).await) }).await;
        stop.close();
        service.join().expect("no panic").expect("a good end");
        client.stop().await;
    });
}

/// What is not there yet is refused at the start rather than left out.
#[test]
fn http_is_refused_while_there_is_none() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = FleetConfig { http: Some(([127, 0, 0, 1], 0).into()), ..config(dir.path()) };
    let (_stop, stopped) = smol::channel::bounded(1);
    assert!(matches!(run(config, stopped), Err(FleetError::Config(_))));
}

/// More devices are there at a start than messages may wait at the MQTT thread: each hears from the receiver, over one
/// connection. (It once published acks and read messages in turns; with more than 320 messages at a time each waited for
/// the other, until the connection was given up and all began anew.)
#[test]
fn a_start_with_many_devices_answers_them_all() {
    const DEVICES: u64 = 600;
    let broker = Mosquitto::with("allow_anonymous true\nlog_dest file {dir}/log\n");
    let dir = tempfile::tempdir().expect("a directory");
    let address = SocketAddr::from(([127, 0, 0, 1], broker.port));
    let mut all = Settings::device("all", "127.0.0.1", broker.port);
    all.filters = vec![format!("{PREFIX}/v1/+/ack")];
    let outside = crate::config::Broker { host: "127.0.0.1".into(), port: broker.port, tls: false };
    let config = FleetConfig { broker: Some(outside), listen: None, ..config(dir.path()) };
    smol::block_on(async {
        let (client, _events) = device(address, "writer");
        eventually("the writer connects", || client.is_connected());
        for n in 0..DEVICES {
            let state = State {
                online: true,
                session: n + 1,
                run: 1,
                version: "0.1.0".into(),
                utc: crate::clock::UtcNanos(1),
                clock_trusted: false,
                stores: vec![],
            };
            let topic = topics::name(PREFIX, &format!("d{n}"), Topic::State);
            client.publish(&topic, true, encode(&state).expect("a state")).await.expect("published");
        }
        let (_all, acks) = Client::start(all).expect("a thread");
        connected(&acks).await;
        let (stop, stopped) = smol::channel::bounded::<()>(1);
        let service = std::thread::spawn(move || run(config, stopped));
        let mut told = std::collections::BTreeSet::new();
        let hear = async {
            while (told.len() as u64) < DEVICES {
                if let Event::Message { topic, .. } = acks.recv().await.expect("an event") {
                    told.insert(topic);
                }
            }
        };
        let patience = async {
            smol::Timer::after(PATIENCE).await;
        };
        smol::future::or(hear, patience).await;
        stop.close();
        service.join().expect("no panic").expect("a good end");
        assert_eq!(told.len() as u64, DEVICES, "devices that were answered");
        // Before the fix the first connection was given up after 20 s.
        let log = std::fs::read_to_string(broker.dir.path().join("log")).expect("a log");
        let ours = |line: &&str| line.contains("New client connected") && line.contains("varved-fleet");
        assert_eq!(log.lines().filter(ours).count(), 1, "connections of the receiver: {log}");
    });
}

/// What waits for the desk is bounded by count and by bytes, and leaves in groups that are, in the order of arrival.
#[test]
fn what_waits_is_bounded_and_leaves_in_order() {
    let taken = |n: usize, bytes: usize| {
        let ticket = Ticket::for_tests(n as u16);
        Taken { topic: n.to_string(), payload: vec![0; bytes], ticket }
    };
    let mut waiting = Waiting::default();
    (0..MAX_WAITING).for_each(|n| waiting.push(taken(n, 1)));
    assert!(!waiting.has_room(), "by count");
    let groups = std::iter::from_fn(|| Some(waiting.group()).filter(|group| !group.is_empty()));
    let names: Vec<_> = groups.inspect(|g| assert!(g.len() <= MAX_GROUP)).flatten().map(|t| t.topic).collect();
    assert!(names.iter().enumerate().all(|(n, name)| *name == n.to_string()));
    assert_eq!((names.len(), waiting.bytes), (MAX_WAITING, 0));
    (0..17).for_each(|n| waiting.push(taken(n, 1 << 20)));
    assert!(!waiting.has_room(), "by bytes");
    assert_eq!(waiting.group().len(), MAX_GROUP_BYTES >> 20);
    assert!(waiting.has_room());
}
