//! How the device speaks to its fleet: what the store has found, in envelopes under their topics.
//!
//! What enters: [`Found`], the moment. What leaves: [`Answer`]: the messages to publish, in order, and what the machine is
//! to be told before the first and after the last. Pure. Messages are made one at a time: of a segment there is the body
//! and one frame in RAM, not all of them.

use super::answers::Found;
use super::machine::{Action, Cut, Event, Purpose, Rest};
use crate::clock::{Now, UtcNanos};
use crate::reading::SeqRange;
use crate::store::Shipment;
use crate::wire::topics::{self, Topic};
use crate::wire::{self, Account, CatalogPage, SegmentFrame, State, StoreState, StoreUuid};

/// What an envelope adds to a catalogue page, and a little more.
const PAGE_OVERHEAD: usize = 64;

/// A page has at most so many bytes: a link of 2 kB/s carries it in 8 s, and a series that is new costs one of them.
const PAGE_BYTES: usize = 16 << 10;

/// What tells this run of the service from others.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Session {
    /// Of this run, random.
    pub(crate) number: u64,
    /// Counts the runs.
    pub(crate) run: u64,
}

impl Session {
    /// A birth with a moment, a will or a farewell without.
    pub(super) fn state(&self, stores: Vec<StoreState>, born: Option<(UtcNanos, bool)>) -> State {
        State {
            online: born.is_some(),
            session: self.number,
            run: self.run,
            version: env!("CARGO_PKG_VERSION").into(),
            utc: born.map_or(UtcNanos(0), |(utc, _)| utc),
            clock_trusted: born.is_some_and(|(_, trusted)| trusted),
            stores,
        }
    }

    /// What the broker says for us when the connection breaks, and we when we go.
    pub(crate) fn farewell(&self) -> State {
        self.state(Vec::new(), None)
    }
}

/// See the room.
#[derive(Debug)]
pub(crate) struct Voice {
    names: Names,
    session: Session,
    max_payload: usize,
    /// CRC of each catalogue page as last published.
    pages: Vec<Option<u32>>,
    /// The segment of which some messages went out. There is one: what has begun is brought to its end before another begins.
    begun: Option<Begun>,
}

/// A segment that is being cut.
#[derive(Debug, Clone)]
struct Begun {
    store: StoreUuid,
    shipment: Shipment,
    /// Of its body.
    hash: u32,
}

/// What the topics are made of.
#[derive(Debug, Clone)]
struct Names {
    prefix: String,
    device: String,
}

/// A message to publish at QoS 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outgoing {
    /// Its topic.
    pub(crate) topic: String,
    /// Whether the broker keeps it.
    pub(crate) retain: bool,
    /// Its payload.
    pub(crate) payload: Vec<u8>,
    /// Which page of the catalogue it is, if it is one.
    pub(crate) page: Option<Page>,
}

/// A page as it was made, for [`Voice::said`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Page {
    number: u16,
    crc: Option<u32>,
}

/// What comes of an action.
#[derive(Debug)]
pub(crate) struct Answer {
    /// To be told before the first message goes out.
    pub(crate) before: Option<Event>,
    /// To be told when the last message was taken.
    pub(crate) after: Event,
    words: Words,
}

#[derive(Debug)]
enum Words {
    None,
    Segment { topic: String, store: StoreUuid, shipment: Shipment, max_payload: usize },
    Piece { topic: String, segment: Begun, max_payload: usize, from: usize },
    Catalog { names: Names, pages: Vec<CatalogPage>, said: Vec<Option<u32>> },
    One(Outgoing),
}

impl Voice {
    /// One that has said nothing yet, whose payloads have at most `max_payload` bytes.
    pub(crate) fn new(prefix: &str, device: &str, session: Session, max_payload: usize) -> Self {
        let names = Names { prefix: prefix.to_owned(), device: device.to_owned() };
        Self { names, session, max_payload, pages: Vec::new(), begun: None }
    }

    /// The most bytes of a catalogue page.
    pub(crate) fn page_bytes(&self) -> usize {
        self.max_payload.saturating_sub(PAGE_OVERHEAD).min(PAGE_BYTES)
    }

    /// The segment that `action` goes on with, if it is the one that has begun.
    pub(crate) fn begun(&self, action: &Action) -> Option<Shipment> {
        let (Action::Send { cut, .. } | Action::Copy { cut, .. }) = action else { return None };
        let begun = self.begun.as_ref().filter(|begun| cut.rest.is_some_and(|rest| begun.is(&rest)));
        begun.map(|begun| begun.shipment.clone())
    }

    /// The connection is gone, and with it what went out of a segment.
    pub(crate) fn disconnected(&mut self) {
        self.begun = None;
    }

    /// Puts into words what was found.
    pub(crate) fn answer(&mut self, found: Found, now: Now) -> Answer {
        match found {
            Found::Told(after) => Answer { before: None, after, words: Words::None },
            Found::Segment { store, shipment, purpose, cut } => {
                let (range, bytes) = (shipment.range, shipment.body.len() as u64);
                let after = Event::Sent { store, range, bytes, purpose };
                if cut.whole {
                    return self.segment(store, shipment, cut.payload_bytes, after);
                }
                self.piece(store, shipment, cut, |rest| match rest {
                    Some(rest) => Event::Piece(Rest { purpose, ..rest }),
                    None => after,
                })
            }
            Found::Copy { store, within, told, shipment, cut } => self.piece(store, shipment, cut, |rest| match rest {
                Some(rest) => Event::CopyPiece(rest),
                None => Event::Copied { store, within, told: Some(told) },
            }),
            Found::Account(account) => self.account(account),
            Found::Catalog { version, pages, all } => {
                let said = if all { Vec::new() } else { self.pages.clone() };
                let words = Words::Catalog { names: self.names.clone(), pages, said };
                Answer { before: None, after: Event::CatalogPublished { catalog: version, all }, words }
            }
            Found::State(stores) => self.state(stores, now),
        }
    }

    /// A page was taken for publication; as long as it stays as it is it need not go out again.
    pub(crate) fn said(&mut self, page: Page) {
        let number = usize::from(page.number);
        self.pages.resize(self.pages.len().max(number + 1), None);
        self.pages[number] = page.crc;
    }

    /// That the device goes; `None` where that cannot be said.
    pub(crate) fn farewell(&self) -> Option<Outgoing> {
        let payload = wire::encode(&self.session.farewell()).ok()?;
        Some(Outgoing { topic: self.names.topic(Topic::State), retain: true, payload, page: None })
    }

    fn segment(&self, store: StoreUuid, shipment: Shipment, payload_bytes: usize, after: Event) -> Answer {
        let (topic, max_payload) = (self.names.topic(Topic::Segment), self.max_payload.min(payload_bytes));
        Answer { before: None, after, words: Words::Segment { topic, store, shipment, max_payload } }
    }

    /// On the topic of segments, so that it comes after those that it is of.
    fn account(&self, account: Account) -> Answer {
        let words = match wire::encode(&SegmentFrame::Account(account.clone())) {
            Ok(payload) => {
                Words::One(Outgoing { topic: self.names.topic(Topic::Segment), retain: false, payload, page: None })
            }
            Err(e) => {
                log::warn!("uplink: the account of a snapshot cannot be sent: {e}");
                Words::None
            }
        };
        Answer { before: None, after: Event::AccountPublished(account), words }
    }

    /// The next message of a segment, or its first where it is not the one that had begun; `after` names what is told then,
    /// by what is left.
    fn piece(
        &mut self,
        store: StoreUuid,
        shipment: Shipment,
        cut: Cut,
        after: impl FnOnce(Option<Rest>) -> Event,
    ) -> Answer {
        let segment = match self.begun.take().filter(|begun| begun.shipment.is_same_as(&shipment)) {
            Some(begun) => begun,
            None => Begun { store, hash: wire::hash_of(&shipment.body), shipment },
        };
        let (range, bytes) = (segment.shipment.range, segment.shipment.body.len());
        let from = cut.rest.filter(|rest| segment.is(rest)).map_or(0, |rest| rest.through as usize);
        let max_payload = self.max_payload.min(cut.payload_bytes);
        let through = u32::try_from(from + wire::piece_bytes(from, bytes, max_payload)).unwrap_or(u32::MAX);
        let bytes = bytes as u64;
        let rest = Rest { store, range, hash: segment.hash, bytes, through, purpose: Purpose::Wanted };
        let more = u64::from(through) < bytes;
        self.begun = more.then(|| segment.clone());
        let after = after(more.then_some(rest));
        let topic = self.names.topic(Topic::Segment);
        Answer { before: None, after, words: Words::Piece { topic, segment, max_payload, from } }
    }

    fn state(&self, stores: Vec<StoreState>, now: Now) -> Answer {
        let before = Some(Event::Stating(stores.iter().map(|state| (state.store, state.high)).collect()));
        let words = match wire::encode(&self.session.state(stores, Some((now.utc, now.trusted)))) {
            Ok(payload) => {
                Words::One(Outgoing { topic: self.names.topic(Topic::State), retain: true, payload, page: None })
            }
            Err(e) => {
                log::warn!("uplink: the state cannot be sent: {e}");
                Words::None
            }
        };
        Answer { before, after: Event::StatePublished, words }
    }
}

impl Begun {
    /// Whether that is what is left of it.
    fn is(&self, rest: &Rest) -> bool {
        (self.store, self.shipment.range, self.hash) == (rest.store, rest.range, rest.hash)
    }
}

impl Answer {
    /// What is to be published, in this order, each made when it is asked for.
    pub(crate) fn messages(&self) -> Box<dyn Iterator<Item = Outgoing> + Send + '_> {
        match &self.words {
            Words::None => Box::new(std::iter::empty()),
            Words::One(message) => Box::new(std::iter::once(message.clone())),
            Words::Catalog { names, pages, said } => {
                let numbered = (0..=u16::MAX).zip(pages);
                Box::new(numbered.filter_map(|(number, page)| names.page(number, page, said)))
            }
            Words::Segment { topic, store, shipment: Shipment { range, body, .. }, max_payload } => {
                let frames = wire::frames(*store, *range, body, *max_payload);
                Box::new(frames.filter_map(move |frame| segment_message(topic, *store, *range, frame)))
            }
            Words::Piece { topic, segment: Begun { store, shipment, hash }, max_payload, from } => {
                let frame = wire::piece(*store, shipment.range, &shipment.body, *hash, *from, *max_payload);
                Box::new(segment_message(topic, *store, shipment.range, frame).into_iter())
            }
        }
    }
}

fn segment_message(
    topic: &str,
    store: StoreUuid,
    range: SeqRange,
    frame: Result<Vec<u8>, wire::WireError>,
) -> Option<Outgoing> {
    let logged = |e| log::warn!("uplink: segment {range} of store {store} cannot be sent: {e}");
    let payload = frame.map_err(logged).ok()?;
    Some(Outgoing { topic: topic.to_owned(), retain: false, payload, page: None })
}

impl Names {
    fn topic(&self, topic: Topic) -> String {
        topics::name(&self.prefix, &self.device, topic)
    }

    /// The message that carries a page, unless that was said as it is.
    fn page(&self, number: u16, page: &CatalogPage, said: &[Option<u32>]) -> Option<Outgoing> {
        let logged = |e| log::warn!("uplink: catalogue page {number}: {e}");
        let payload = wire::encode(page).map_err(logged).ok()?;
        let crc = wire::crc_of(&payload);
        if crc.is_some() && said.get(usize::from(number)) == Some(&crc) {
            return None;
        }
        let topic = self.topic(Topic::Catalog(number));
        Some(Outgoing { topic, retain: true, payload, page: Some(Page { number, crc }) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::BootNanos;
    use crate::uplink::machine::Purpose;

    const NOW: Now = Now { boot: BootNanos(1), utc: UtcNanos(2), trusted: true };

    fn voice() -> Voice {
        Voice::new("p", "pump", Session { number: 5, run: 1 }, 1024)
    }

    fn pages(count: u128, all: bool) -> Found {
        let page = |k| CatalogPage { store: StoreUuid::from_u128(k), series: vec![], boots: vec![] };
        Found::Catalog { version: 7, pages: (1..=count).map(page).collect(), all }
    }

    fn topics_of(answer: &Answer) -> Vec<String> {
        answer.messages().map(|message| message.topic).collect()
    }

    /// A page that was taken goes out again when it changes or when all are wanted; one that was not taken, at once.
    #[test]
    fn only_pages_that_differ_from_what_was_taken_go_out() {
        let mut voice = voice();
        let first = voice.answer(pages(2, false), NOW);
        assert_eq!(topics_of(&first), ["p/v1/pump/catalog/0", "p/v1/pump/catalog/1"]);
        let taken = first.messages().next().and_then(|message| message.page).expect("a page");
        voice.said(taken);
        assert_eq!(topics_of(&voice.answer(pages(2, false), NOW)), ["p/v1/pump/catalog/1"]);
        assert_eq!(topics_of(&voice.answer(pages(2, true), NOW)).len(), 2);
    }

    /// A segment above the payload limit comes in frames that fit, and counts as sent with the bytes of its body.
    #[test]
    fn a_segment_comes_in_frames_that_fit() {
        let range = SeqRange::new(3, 9).expect("a range");
        let store = StoreUuid::from_u128(1);
        let cut = Cut { payload_bytes: 8192, whole: true, rest: None };
        let shipment = Shipment::for_tests(range, vec![1; 5000]);
        let found = Found::Segment { store, shipment, purpose: Purpose::Live, cut };
        let answer = voice().answer(found, NOW);
        let payloads: Vec<_> = answer.messages().map(|message| message.payload.len()).collect();
        assert_eq!(payloads.len(), 6);
        assert!(payloads.iter().all(|bytes| *bytes <= 1024), "{payloads:?}");
        assert!(matches!(answer.after, Event::Sent { bytes: 5000, .. }));
    }

    /// What is not live goes one message at a time, cut as the link is then, and a receiver puts it together; a body that
    /// was compacted meanwhile begins anew.
    #[test]
    fn a_segment_goes_message_by_message() {
        let (store, range) = (StoreUuid::from_u128(1), SeqRange::new(3, 9).expect("a range"));
        let body: Vec<u8> = (0..5000u32).map(|k| (k % 251) as u8).collect();
        let mut assembler = wire::Assembler::new(wire::AssemblerLimits::default());
        let mut rest = None;
        for payload_bytes in [8192, 1024, 2048, 1100, 1024, 1024, 1024] {
            let mut max = Voice::new("p", "pump", Session { number: 5, run: 1 }, 1500);
            let cut = Cut { payload_bytes, whole: false, rest };
            let shipment = |body| Shipment::for_tests(range, body);
            let found = |body| Found::Segment { store, shipment: shipment(body), purpose: Purpose::Backlog, cut };
            if let Some(before) = rest {
                let other = max.answer(found(vec![7; 5000]), NOW);
                assert!(matches!(other.after, Event::Piece(Rest { through, .. }) if through < 1500), "{before:?}");
            }
            let answer = max.answer(found(body.clone()), NOW);
            let messages: Vec<_> = answer.messages().collect();
            assert_eq!(messages.len(), 1);
            assert!(messages[0].payload.len() <= payload_bytes.min(1500));
            let frame = wire::decode::<wire::SegmentFrame<'_>>(&messages[0].payload).expect("a frame");
            let whole = assembler.accept("pump", frame).expect("it adds up");
            match answer.after {
                Event::Piece(left) => rest = Some(left),
                Event::Sent { bytes: 5000, .. } => {
                    assert_eq!(whole.expect("complete").body.into_owned(), body);
                    return;
                }
                other => panic!("{other:?}"),
            }
            assert!(whole.is_none());
        }
        panic!("it never ends");
    }

    /// What a state names is told before it goes out: the fleet may answer with it at once.
    #[test]
    fn a_state_is_told_before_it_goes_out() {
        let store = StoreUuid::from_u128(1);
        let high = crate::reading::SegmentSeq(4);
        let stated = StoreState { store, high, pending: vec![], recheck: None };
        let answer = voice().answer(Found::State(vec![stated]), NOW);
        assert!(matches!(&answer.before, Some(Event::Stating(highs)) if highs[..] == [(store, high)]));
        assert_eq!(topics_of(&answer), ["p/v1/pump/state"]);
    }
}
