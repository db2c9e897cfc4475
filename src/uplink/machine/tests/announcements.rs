//! What goes out so that segments are understood: catalogue pages and states.

use super::super::*;
use super::story::*;
use crate::reading::SegmentSeq;
use crate::wire::Request;

/// A new series: its page goes out before the segment that cites it, also where it turns up between look and sending.
#[test]
fn the_catalogue_goes_before_what_cites_it() {
    let mut story = open(3, 3);
    story.run();
    story.catalog = 2;
    story.commit();
    assert_eq!(story.run(), ["catalog", "new 4 Live"]);
    story.commit();
    let sending = (0..20).any(|_| match story.next() {
        Some(Action::Send { .. }) => true,
        Some(action) => {
            story.perform(action);
            false
        }
        None => false,
    });
    assert!(sending);
    story.catalog = 3;
    let cut = Cut { payload_bytes: 1024, whole: true, rest: None };
    story.perform(Action::Send { store: CURRENT, at: SegmentSeq(5), purpose: Purpose::Live, catalog: 2, cut });
    assert_eq!(story.run(), ["catalog", "new 5 Live"]);
}

/// A page that was taken for publication may have died with its connection: unless an ack has shown that it arrived, it
/// goes out again. (The first version published it once, and a cut in that moment left the fleet asking.)
#[test]
fn pages_that_may_be_lost_go_out_again() {
    let mut story = open(4, 3);
    assert_eq!(story.run()[..2], ["state", "catalog all"]);
    story.on(Event::Disconnected).on(Event::Connected).on(ack(&[stated(CURRENT, 3, 3)]));
    assert_eq!(story.run(), ["state", "catalog all", "new 4 Backlog"]);
    story.on(ack(&[stated(CURRENT, 4, 4)]));
    story.on(Event::Disconnected).on(Event::Connected).on(ack(&[stated(CURRENT, 4, 4)]));
    assert_eq!(story.run(), ["state"], "the ack has shown that it arrived");
}

/// Where a connection breaks between two pages of a changed catalogue, the pages that had gone out go out again: they may have
/// died with it. (They were taken for said; the fleet had to ask for them, a round trip later.)
#[test]
fn a_catalogue_that_broke_between_its_pages_goes_out_again() {
    let mut story = Story::new(&[line(CURRENT, true, 3)]);
    story.on(Event::Connected).on(ack(&[stated(CURRENT, 3, 3)])).run();
    story.lines[0].high = SegmentSeq(4);
    story.wait(1).on(Event::Committed).run();
    story.wait(1).on(ack(&[stated(CURRENT, 4, 4)])).run();
    story.on(Event::Disconnected).wait(5).on(Event::Connected).on(ack(&[stated(CURRENT, 4, 4)]));
    assert_eq!(story.run(), ["state"], "what has arrived is not said again");
    (story.catalog, story.lines[0].high) = (2, SegmentSeq(5));
    story.wait(1).on(Event::Committed);
    let next = loop {
        match story.next() {
            Some(action @ Action::PublishCatalog { .. }) => break action,
            Some(action) => story.perform(action),
            None => panic!("no catalogue: {:?}", story.done),
        }
    };
    assert_eq!(next, Action::PublishCatalog { all: false });
    story.done.clear();
    story.on(Event::NotPublished).on(Event::Disconnected).wait(5).on(Event::Connected);
    assert_eq!(story.run(), ["state", "catalog all"]);
}

/// A fleet that lacks a page asks for all; what it could not take is sent right after, without waiting for the timer.
#[test]
fn a_missing_page_costs_one_round_trip() {
    let mut story = open(4, 3);
    story.run();
    story.wait(1).on(Event::Request(Request::Catalog)).on(Event::Request(Request::Catalog));
    assert_eq!(story.run(), ["catalog all", "new 4 Again"]);
    story.wait(1).on(Event::Request(Request::Catalog));
    assert_eq!(story.run(), Vec::<String>::new(), "not too often");
    story.catalog = 2;
    story.commit();
    assert_eq!(story.run(), ["catalog", "new 5 Live"], "a change does not wait, and is not all");
    story.wait(9);
    assert_eq!(story.run()[..1], ["catalog all"]);
}

/// A device connects before it has any series; its first commit brings them all. The page goes out ahead of the segment,
/// and where the fleet sees the segment first all the same it is acknowledged within a second. (The page that had just
/// been published once made the fleet's request for it wait ten seconds.)
#[test]
fn the_first_series_after_the_connection_cost_no_wait() {
    let mut story = open(0, 0);
    assert_eq!(story.run(), ["state", "catalog all"]);
    story.wait(2);
    story.catalog = 2;
    story.commit();
    let begun = story.now;
    while let Some(action) = story.machine.next(story.now) {
        story.perform(action);
    }
    assert_eq!(story.done, ["catalog"], "the segment waits a moment");
    assert_eq!(story.machine.wake_at(), BootNanos(begun.0 + LEAD_NS));
    assert_eq!(story.run(), ["catalog", "new 1 Live"]);
    story.on(Event::Request(Request::Catalog));
    assert_eq!(story.run(), ["catalog all", "new 1 Again"]);
    assert!(story.now.0 - begun.0 < SECOND);
}

/// States are not published for every commit: figures once a minute, a new store within seconds.
#[test]
fn states_are_rare() {
    let mut story = open(0, 0);
    story.run();
    let mut states = 0;
    for _ in 0..120 {
        story.wait(1).commit();
        let high = story.lines[0].high.0;
        states += story.run().iter().filter(|what| *what == "state").count();
        story.on(ack(&[stated(CURRENT, high, high)]));
    }
    assert_eq!(states, 2);
    story.lines.push(line(OLD, false, 0));
    story.wait(10).commit();
    assert!(story.run().contains(&"state".into()));
}
