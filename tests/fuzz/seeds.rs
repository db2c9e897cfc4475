//! Where the changes begin: a few valid inputs of every kind, small ones.

use uuid::Uuid;
use varved::clock::{Anchor, BootNanos, UtcNanos};
use varved::reading::{BootId, Kind, NoValue, Scale, SegmentSeq, SeqRange, SeriesDef, SeriesId};
use varved::segment::{
    self, Column, Content, Loss, LossReason, Missing, Readings, Segment, Timeline, TimelineClock, Values,
};
use varved::wire::{
    self, Ack, BoardHello, CatalogBoot, CatalogPage, FromBoard, FromLaptop, PulledEvent, Request, Running,
    SegmentFrame, State, StoreAck, StoreHeld, StoreState,
};

/// Target, name, content.
pub(crate) fn all() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let mut all = Vec::new();
    for (name, text) in LINES {
        all.push(("line_protocol", name, text.as_bytes().to_vec()));
    }
    for (name, text) in CONFIGS {
        all.push(("config", name, text.as_bytes().to_vec()));
    }
    for (name, segment) in segments() {
        all.push(("segment", name, segment::encode(&segment).unwrap()));
    }
    for (name, kind, payload) in payloads() {
        all.push(("wire", name, [&[kind], payload.as_slice()].concat()));
    }
    for (name, messages) in conversations() {
        let one = |(kind, payload): &Said| {
            let length = u16::try_from(payload.len()).unwrap().to_le_bytes();
            [&[*kind][..], &length, payload].concat()
        };
        all.push(("receiver", name, messages.iter().flat_map(one).collect()));
    }
    for (name, side, messages) in pulls() {
        let one = |payload: &Vec<u8>| {
            let length = u16::try_from(payload.len()).unwrap().to_le_bytes();
            [&[0][..], &length, payload].concat()
        };
        all.push(("pull", name, [vec![side], messages.iter().flat_map(one).collect()].concat()));
    }
    all
}

const LINES: [(&str, &str); 6] = [
    ("plain", "plant,s=1 temp=21.5,count=42i,open=true,state=\"a \\\"quoted\\\", b; ünï\" 1790000000000000001\n"),
    ("floats", "m a=5e-324,b=-0,c=1.7976931348623157e308,d=NaN,e=inf,f=0.30000000000000004 -1790000000000000009"),
    ("integers", "m a=-9223372036854775808i,b=9223372036854775807u,c=0i\nm v=1i"),
    ("names", "we\\ ather,sta\\,tion=a\\=b,z=1 te\\ mp=1 1\n# a comment\n\n  m v=t \r\n"),
    ("many", "a v=1i 1\nb v=2i 2\nc,t=u v=3i 3\nd v=\"\" 4\ne v=f 5\n"),
    ("broken", "m v=\nm =1\n,a=b v=1\nm,a v=1\nm v=1i 99999999999999999999\nm v=\"open"),
];

const CONFIGS: [(&str, &str); 5] = [
    ("least", "device = \"pump-17\"\n[[sensor]]\nkind = \"hwmon\"\n"),
    (
        "store",
        "[store]\npath = \"/var/lib/varved/varved.db\"\ncommit_interval = \"10s\"\nmax_size = \"64MiB\"\nbuffer = \"1MiB\"\n\
         max_age = \"30d\"\nheadroom = \"16MiB\"\nlocking = \"exclusive\"\npowersafe = true\n",
    ),
    (
        "sensors",
        "[[sensor]]\nkind = \"socket\"\nlisten = \"udp://0.0.0.0:8094\"\n[[sensor]]\nkind = \"exec\"\ncommand = [\"/bin/a\", \"b\"]\n\
         [[sensor]]\nkind = \"file\"\npath = \"/sys/x\"\nname = \"m/v\"\ninterval = \"1s\"\n",
    ),
    (
        "uplink",
        "[uplink]\nbroker = \"mqtts://broker.example:8883\"\nca = \"/etc/ca.pem\"\n[control]\nlisten = \"off\"\n",
    ),
    (
        "fleet",
        "[fleet]\ndata = \"/var/lib/varved-fleet\"\nbroker = \"mqtt://127.0.0.1\"\nlisten = \"127.0.0.1:1883\"\n",
    ),
];

fn range(first: u64, last: u64) -> SeqRange {
    SeqRange::new(first, last).unwrap()
}

fn def(name: &str, kind: Kind) -> SeriesDef {
    SeriesDef { name: name.into(), unit: "Cel".into(), kind, scale: Scale::MILLI }
}

fn data(first: u64, last: u64, readings: Readings, names: Vec<(SeriesId, SeriesDef)>) -> Segment {
    Segment { range: range(first, last), content: Content::Data { readings, names } }
}

fn column(series: u32, values: Values, missing: Vec<Missing>) -> Column {
    Column { series: SeriesId(series), timeline: 0, values, missing }
}

fn timeline(clock: TimelineClock, stamps: impl Iterator<Item = i64>) -> Vec<Timeline> {
    vec![Timeline { clock, stamps: stamps.collect() }]
}

fn noise(n: i64) -> i64 {
    n.wrapping_mul(0x9E37_79B9_7F4A_7C15_u64 as i64) >> 40
}

fn segments() -> Vec<(&'static str, Segment)> {
    let boot = TimelineClock::Boot(BootId(1));
    let steady = || timeline(boot, (0..60).map(|n| n * 1_000_000_000));
    let ints = |f: fn(i64) -> i64| Values::Int((0..60).map(f).collect());
    let floats = |f: fn(i64) -> f64| Values::Float((0..60).map(f).collect());
    let missing = vec![Missing { at: 3, why: NoValue::Unreadable }, Missing { at: 9, why: NoValue::Faulty }];
    let one = |values| Readings { timelines: steady(), columns: vec![column(1, values, Vec::new())] };
    let mixed = Readings {
        timelines: timeline(TimelineClock::Utc, (0..60).map(|n| noise(n) * 1000)),
        columns: vec![
            column(1, Values::Bool((0..60).map(|n| n % 7 == 0).collect()), Vec::new()),
            column(2, Values::Text((0..60).map(|n| format!("state {}", n / 20).into()).collect()), Vec::new()),
            column(3, ints(|n| 21_000 + n % 5), missing),
        ],
    };
    let names = vec![
        (SeriesId(1), def("a/open", Kind::Bool)),
        (SeriesId(2), def("a/state", Kind::Text)),
        (SeriesId(3), def("hwmon/cpu/temp", Kind::Int)),
    ];
    let loss = |reason, readings| {
        let at = Some((BootId(1), BootNanos(7)));
        Content::Loss(Loss { reason, readings, from: at, to: at, utc: Some((UtcNanos(1), UtcNanos(2))) })
    };
    vec![
        ("constant", data(1, 1, one(ints(|_| 5)), Vec::new())),
        ("rising", data(2, 2, one(ints(|n| 100 * n + n % 3)), Vec::new())),
        ("noise", data(3, 3, one(ints(noise)), Vec::new())),
        ("decimals", data(4, 4, one(floats(|n| (noise(n) % 4000) as f64 / 100.0)), Vec::new())),
        ("doubles", data(5, 5, one(floats(|n| (n as f64).sin())), Vec::new())),
        ("odd-doubles", data(6, 6, one(floats(|n| if n % 5 == 0 { f64::NAN } else { 5e-324 * n as f64 })), Vec::new())),
        ("compacted", data(7, 19, mixed, names)),
        ("retention", Segment { range: range(20, 30), content: loss(LossReason::Retention, Some(100)) }),
        ("void", Segment { range: range(31, 31), content: loss(LossReason::Void, None) }),
    ]
}

const STORE: Uuid = Uuid::from_u128(0x1234_5678);

fn page() -> CatalogPage {
    let series = (1..4).map(|id| (SeriesId(id), def(&format!("m/v,s={id}"), Kind::Int))).collect();
    let anchors = vec![
        Anchor { boot: BootNanos(1), utc: UtcNanos(1_790_000_000_000_000_000), trusted: true },
        Anchor { boot: BootNanos(9_000_000_000), utc: UtcNanos(1_790_000_009_000_000_000), trusted: false },
    ];
    CatalogPage { store: STORE, series, boots: vec![CatalogBoot { id: BootId(1), uuid: Uuid::from_u128(9), anchors }] }
}

fn state(high: u64) -> State {
    State {
        online: true,
        session: 77,
        run: 3,
        version: "0.1.0".into(),
        utc: UtcNanos(1_790_000_000_000_000_000),
        clock_trusted: true,
        stores: vec![StoreState { store: STORE, high: SegmentSeq(high), pending: vec![range(2, 3)], recheck: Some(4) }],
    }
}

fn whole(segment: &Segment) -> Vec<u8> {
    let body = segment::encode(segment).unwrap();
    wire::encode(&SegmentFrame::Whole { store: STORE, range: segment.range, body: &body }).unwrap()
}

fn payloads() -> Vec<(&'static str, u8, Vec<u8>)> {
    let ack = Ack {
        stores: vec![StoreAck {
            store: STORE,
            cumulative: SegmentSeq(9),
            ranges: vec![range(12, 14), range(20, 20)],
            high: SegmentSeq(40),
            conflicts: vec![range(3, 3)],
            verified: Some((4, vec![range(1, 2)])),
        }],
    };
    let body = segment::encode(&segments()[6].1).unwrap();
    let chunk = |from: usize, to: usize| {
        let (hash, total) = (wire::hash_of(&body), body.len() as u32);
        let bytes = &body[from..to];
        let frame = SegmentFrame::Chunk { store: STORE, range: range(7, 19), hash, offset: from as u32, total, bytes };
        wire::encode(&frame).unwrap()
    };
    vec![
        ("whole", 0, whole(&segments()[0].1)),
        ("chunk-1", 0, chunk(0, 40)),
        ("chunk-2", 0, chunk(40, body.len())),
        ("catalog", 1, wire::encode(&page()).unwrap()),
        ("state", 2, wire::encode(&state(40)).unwrap()),
        ("ack", 3, wire::encode(&ack).unwrap()),
        ("request", 4, wire::encode(&Request::Segments { store: STORE, ranges: vec![range(1, 9)] }).unwrap()),
        ("pause", 4, wire::encode(&Request::Pause { seconds: 30 }).unwrap()),
    ]
}

/// Device and topic of a message, and its payload.
type Said = (u8, Vec<u8>);

/// What devices say to the receiver: the low bits of a message choose its topic, as in the target.
fn conversations() -> Vec<(&'static str, Vec<Said>)> {
    let (birth, page) = ((3, wire::encode(&state(40)).unwrap()), (1, wire::encode(&page()).unwrap()));
    let segment = |n: usize| (0, whole(&segments()[n].1));
    let other = |(kind, payload): (u8, Vec<u8>)| (kind | 8, payload);
    vec![
        ("one", vec![birth.clone(), page.clone(), segment(0), segment(1), segment(2)]),
        ("losses", vec![page.clone(), segment(7), segment(8), segment(7)]),
        ("compacted", vec![page.clone(), segment(6), segment(3)]),
        ("two", vec![birth.clone(), page.clone(), segment(0), other(birth), other(page), other(segment(0))]),
        ("strays", vec![(5, vec![1, 2, 3, 4, 5]), (6, vec![0; 9]), (16, b"garbage".to_vec())]),
    ]
}

/// What a board says to a laptop (0), and a laptop to a board (2).
fn pulls() -> Vec<(&'static str, u8, Vec<Vec<u8>>)> {
    let board = |message: FromBoard<'_>| wire::encode(&message).unwrap();
    let laptop = |message: FromLaptop| wire::encode(&message).unwrap();
    let running = Running { boot: Uuid::from_u128(9), boottime: 5_000_000_000, utc: 7, trusted: false };
    let hello = |device: &str| {
        board(FromBoard::Hello(BoardHello {
            device: device.into(),
            running: Some(running),
            stores: vec![StoreHeld { store: STORE, high: SegmentSeq(19) }],
            health: Ok("{\"version\":\"0.1.0\"}".into()),
            events: vec![PulledEvent { utc: 5, kind: "rot".into(), detail: "one".into() }],
        }))
    };
    let segment = |n: usize| {
        let (body, range) = (segment::encode(&segments()[n].1).unwrap(), segments()[n].1.range);
        board(FromBoard::Segment(SegmentFrame::Whole { store: STORE, range, body: &body }))
    };
    let plan = board(FromBoard::Plan { segments: 2, bytes: 700 });
    let rest = [
        board(FromBoard::Unreadable { store: Some(STORE), why: "segment 5".into() }),
        board(FromBoard::Acked { store: STORE, ranges: vec![range(1, 3), range(7, 9)] }),
        board(FromBoard::Page(page())),
        board(FromBoard::End),
    ];
    let have = laptop(FromLaptop::Have { store: STORE, series: 2, ranges: vec![range(1, 4), range(9, 9)] });
    vec![
        ("board", 0, [vec![hello("fuzz"), plan.clone(), segment(0), segment(1)], rest.to_vec()].concat()),
        ("board-compacted", 0, [vec![hello(""), plan.clone(), segment(6), segment(7)], rest.to_vec()].concat()),
        ("board-short", 0, vec![hello("fuzz"), plan, board(FromBoard::End)]),
        ("laptop", 2, vec![have.clone(), laptop(FromLaptop::Go)]),
        ("laptop-new", 2, vec![laptop(FromLaptop::Go)]),
        ("laptop-long", 2, vec![have.clone(), have.clone(), have, laptop(FromLaptop::Go)]),
    ]
}
