//! A real mosquitto, and a link that is cut.

#[cfg(feature = "tls")]
mod secure;

use super::testing::{Mosquitto, PATIENCE, Proxy, eventually, free_port, secret};
use super::*;
use smol::future::FutureExt;

fn quick(mut settings: Settings) -> Settings {
    let ms = Duration::from_millis;
    settings.backoff = BackoffLimits { base: ms(20), cap: ms(200), floor: ms(5), spread: ms(100), busy: ms(200) };
    settings
}

fn device(name: &str, port: u16) -> Settings {
    quick(Settings::device(name, "127.0.0.1", port))
}

fn receiver(name: &str, port: u16, filter: &str) -> Settings {
    Settings { filters: vec![filter.into()], ..quick(Settings::receiver(name, "127.0.0.1", port)) }
}

fn start(settings: Settings) -> (Client, Receiver<Event>) {
    Client::start(settings).expect("a thread")
}

/// The next event.
fn next(events: &Receiver<Event>) -> Event {
    let late = async {
        smol::Timer::after(PATIENCE).await;
        panic!("no event within {PATIENCE:?}")
    };
    smol::block_on(async { events.recv().await.expect("the thread lives") }.or(late))
}

fn next_message(events: &Receiver<Event>) -> (String, Vec<u8>, Ticket) {
    loop {
        if let Event::Message { topic, payload, ticket, .. } = next(events) {
            return (topic, payload, ticket);
        }
    }
}

fn next_fault(events: &Receiver<Event>) -> LinkFault {
    loop {
        if let Event::Disconnected { fault, .. } = next(events) {
            return fault;
        }
    }
}

fn publish(client: &Client, topic: &str, payload: &[u8]) -> Result<(), PublishError> {
    smol::block_on(client.publish(topic, false, payload.to_vec()))
}

/// From one client to another, also a payload far above rumqttc's own limit of 10 KiB.
#[test]
fn a_message_arrives_whole() {
    let broker = Mosquitto::start();
    let (_to, inbox) = start(receiver("to", broker.port, "a/+"));
    let (from, outbox) = start(device("from", broker.port));
    assert_eq!(next(&inbox), Event::Connected { connection: 1 });
    assert_eq!(next(&outbox), Event::Connected { connection: 1 });
    let large: Vec<u8> = (0..120 * 1024).map(|i| i as u8).collect();
    publish(&from, "a/b", &large).expect("taken");
    let (topic, payload, _) = next_message(&inbox);
    assert_eq!((topic.as_str(), payload == large), ("a/b", true));
    let over = vec![0; 120 * 1024 + 1];
    assert_eq!(publish(&from, "a/b", &over), Err(PublishError::TooLarge { bytes: over.len(), max: over.len() - 1 }));
    publish(&from, "a/c", b"still there").expect("the connection survives an oversize publish");
    assert_eq!(next_message(&inbox).0, "a/c");
}

/// What was not acknowledged by hand comes again after a cut, what was does not: an ack belongs to its connection.
#[test]
fn unacknowledged_messages_come_again() {
    let broker = Mosquitto::start();
    let proxy = Proxy::to(broker.port, Duration::from_millis(5));
    let (to, inbox) = start(receiver("to", proxy.port, "a/+"));
    let (from, outbox) = start(device("from", broker.port));
    assert_eq!(next(&outbox), Event::Connected { connection: 1 });
    assert_eq!(next(&inbox), Event::Connected { connection: 1 });
    // What comes from `to` is heard in order: once another has this, the broker has had what was sent before.
    let (_other, seen) = start(receiver("other", broker.port, "b/+"));
    assert_eq!(next(&seen), Event::Connected { connection: 1 });
    let heard = |what: &str| {
        publish(&to, "b/1", what.as_bytes()).expect("taken");
        assert_eq!(next_message(&seen).1, what.as_bytes());
    };
    publish(&from, "a/1", b"acked").expect("taken");
    publish(&from, "a/2", b"not acked").expect("taken");
    let first = next_message(&inbox).2;
    let second = next_message(&inbox).2;
    smol::block_on(to.ack(first)).expect("acked");
    heard("the first ack");
    proxy.cut();
    assert!(matches!(next_fault(&inbox), LinkFault::Broken { .. }));
    let (topic, _, again) = next_message(&inbox);
    assert_eq!(topic, "a/2");
    smol::block_on(to.ack(second)).expect("an ack of an earlier connection is none");
    smol::block_on(to.ack(again)).expect("acked");
    heard("the second ack");
    proxy.cut();
    publish(&from, "a/3", b"later").expect("taken");
    assert_eq!(next_message(&inbox).0, "a/3");
}

/// Cuts at any moment, with publishes waiting and unacknowledged: publishing always goes on again.
#[test]
fn publishing_goes_on_after_every_cut() {
    let broker = Mosquitto::start();
    let proxy = Proxy::to(broker.port, Duration::from_millis(15));
    let (from, outbox) = start(device("from", proxy.port));
    let (mut taken, mut refused) = (0, 0);
    for round in 0..8 {
        eventually("connected", || from.is_connected());
        let (until, enough) = (std::time::Instant::now() + Duration::from_millis(40 + round * 13), taken + 3);
        while std::time::Instant::now() < until || taken < enough {
            match publish(&from, "a/b", &[0; 2000]) {
                Ok(()) => taken += 1,
                Err(_) => refused += 1,
            }
            if round % 2 == 0 && taken % 7 == 3 {
                proxy.cut();
                break;
            }
        }
        proxy.cut();
        eventually("the cut is noticed", || {
            loop {
                match outbox.try_recv() {
                    Ok(Event::Disconnected { .. }) => return true,
                    Ok(_) => {}
                    Err(_) => return false,
                }
            }
        });
    }
    assert!(taken > 20, "{taken} taken, {refused} refused");
}

/// A connection that was of use before it broke, however early, leaves nothing of earlier waits: on a link that is cut within
/// the second the waits once grew to two minutes, although every connection had carried something.
#[test]
fn waits_do_not_add_up_while_connections_are_of_use() {
    let broker = Mosquitto::start();
    let proxy = Proxy::to(broker.port, Duration::ZERO);
    let backoff = BackoffLimits { cap: Duration::from_secs(5), ..device("d", 0).backoff };
    let (client, events) = start(Settings { backoff, ..device("d", proxy.port) });
    for connection in 1..=12 {
        assert_eq!(next(&events), Event::Connected { connection });
        client.was_of_use();
        proxy.cut();
        let Event::Disconnected { retry_in, .. } = next(&events) else { panic!("still connected") };
        assert!(retry_in <= backoff.base, "connection {connection}: {retry_in:?}");
    }
}

/// The broker publishes the will when the connection breaks, and not when we take leave.
#[test]
fn the_will_speaks_for_a_broken_connection_only() {
    let broker = Mosquitto::start();
    let proxy = Proxy::to(broker.port, Duration::ZERO);
    let (_to, inbox) = start(receiver("to", broker.port, "a/state"));
    assert_eq!(next(&inbox), Event::Connected { connection: 1 });
    let will = Will { topic: "a/state".into(), payload: b"gone".to_vec() };
    let (from, outbox) = start(Settings { will: Some(will), ..device("from", proxy.port) });
    assert_eq!(next(&outbox), Event::Connected { connection: 1 });
    proxy.cut();
    assert_eq!(next_message(&inbox).1, b"gone");
    eventually("connected again", || from.is_connected());
    publish(&from, "a/state", b"leaving").expect("taken");
    smol::block_on(from.stop());
    assert_eq!(next_message(&inbox).1, b"leaving");
    std::thread::sleep(Duration::from_millis(200));
    assert!(inbox.is_empty(), "a will after leave was taken");
}

/// The faults that an operator can put right are told apart.
#[test]
fn faults_say_what_is_wrong() {
    let files = |dir: &std::path::Path| {
        std::fs::write(dir.join("users"), "").expect("written");
        secret(&dir.join("secret"), "wrong\n");
        std::fs::write(dir.join("open"), "hunter2\n").expect("written");
    };
    let broker = Mosquitto::with_files("allow_anonymous false\npassword_file {dir}/users\n", files);
    let login = |file: &str| Some(Login { username: "me".into(), password_file: Some(broker.dir.path().join(file)) });
    let (_client, events) = start(Settings { login: login("secret"), ..device("d", broker.port) });
    assert_eq!(next_fault(&events), LinkFault::Credentials);
    let (_client, events) = start(Settings { login: login("no-such-file"), ..device("d", broker.port) });
    assert!(matches!(next_fault(&events), LinkFault::File { .. }));
    let (_client, events) = start(Settings { login: login("open"), ..device("d", broker.port) });
    let told = next_fault(&events).to_string();
    assert!(told.contains("everybody may use it (mode 644)") && !told.contains("hunter2"), "{told}");
    let (_client, events) = start(device("d", free_port()));
    assert!(matches!(next_fault(&events), LinkFault::Unreachable { .. }));
    let (_client, events) = start(quick(Settings::device("d", "no-such-host.invalid", 1)));
    assert!(matches!(next_fault(&events), LinkFault::Unreachable { .. }));
}

/// Two clients with one id evict each other for ever; both are told.
#[test]
fn two_clients_of_one_id_are_named() {
    let broker = Mosquitto::start();
    let (_one, events) = start(device("same", broker.port));
    let (_other, _events) = start(device("same", broker.port));
    for _ in 0..20 {
        if matches!(next_fault(&events), LinkFault::Evicted { .. }) {
            return;
        }
    }
    panic!("never named");
}

/// A broker that closes at a payload above its limit: the payload is named, and the key. One that drops it without a word is
/// found out by the one who waits for the fleet's ack.
#[test]
fn a_payload_above_the_brokers_limit_is_named() {
    let broker = Mosquitto::with("allow_anonymous true\nmax_packet_size 20000\n");
    let (from, events) = start(device("d", broker.port));
    for _ in 0..6 {
        eventually("connected", || from.is_connected());
        publish(&from, "d/small", &[1; 6000]).expect("taken");
        let _ = publish(&from, "d/large", &[1; 30_000]);
        let fault = next_fault(&events);
        if let LinkFault::TooLarge { bytes, taken, times } = fault {
            assert_eq!((bytes, times), (30_000, 3), "{fault}");
            assert!(taken <= 6000, "{fault}");
            return;
        }
    }
    panic!("never named");
}
