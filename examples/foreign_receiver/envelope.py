"""Envelopes and the messages in them (docs/wire.md): payloads to values, and back for what a fleet says.

`Malformed` is damage or a broken rule. `Newer` is news: a version or a variant that this program does not know.
"""

import re
import zlib
from dataclasses import dataclass
from typing import Optional, Union
from uuid import UUID

from .postcard import Malformed, Newer, Range, Reader, Writer

VERSION = 1
MAX_PAYLOAD = 262_144
MAX_BODY = 2_097_152
MAX_STORES = 16
KINDS = ("int", "float", "bool", "text")

_DEVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PAGE = re.compile(r"0|[1-9][0-9]{0,4}")


@dataclass(frozen=True)
class Whole:
    store: UUID
    range: Range
    body: bytes


@dataclass(frozen=True)
class Chunk:
    store: UUID
    range: Range
    hash: int
    offset: int
    total: int
    bytes: bytes


@dataclass(frozen=True)
class Stretch:
    """What the device holds of a range of numbers, and what the readings there add up to."""
    store: UUID
    range: Range
    readings: list[Range]
    losses: list[Range]
    count: int
    digest: int


@dataclass(frozen=True)
class Account:
    """How far a snapshot is."""
    nonce: int
    stores: list[tuple[UUID, Range]]
    stretch: Optional[Stretch]
    last: bool


@dataclass(frozen=True)
class Series:
    """What a segment's series id stands for. An integer's value in its unit is raw × mantissa × 10^exponent."""
    id: int
    name: str
    unit: str
    kind: str
    mantissa: int
    exponent: int


@dataclass(frozen=True)
class Boot:
    """A boot of the device, and moments (boottime ns, UTC ns, trusted) at which both its clocks were read."""
    id: int
    boot: UUID
    anchors: list[tuple[int, int, bool]]


@dataclass(frozen=True)
class CatalogPage:
    store: UUID
    series: list[Series]
    boots: list[Boot]


@dataclass(frozen=True)
class StoreState:
    store: UUID
    high: int
    pending: list[Range]
    recheck: Optional[int]


@dataclass(frozen=True)
class State:
    online: bool
    session: int
    run: int
    version: str
    utc: int
    clock_trusted: bool
    stores: list[StoreState]


@dataclass(frozen=True)
class StoreAck:
    store: UUID
    cumulative: int
    ranges: list[Range]
    high: int
    conflicts: list[Range]
    verified: Optional[tuple[int, list[Range]]]


def parse_topic(prefix: str, topic: str) -> Optional[tuple[str, str]]:
    """The device and what kind of message it is ('segment', 'catalog', 'state'); None for a topic that is nobody's."""
    if not topic.startswith(prefix + "/v1/"):
        return None
    device, _, rest = topic[len(prefix) + 4:].partition("/")
    kind, _, page = rest.partition("/")
    numbered = kind == "catalog" and _PAGE.fullmatch(page) is not None and int(page) < 65536
    if _DEVICE.fullmatch(device) and (numbered or rest in ("segment", "state")):
        return device, kind
    return None


def open_envelope(payload: bytes) -> Reader:
    """The message in an envelope, after the checks in their order: length, CRC, version."""
    if not 5 <= len(payload) <= MAX_PAYLOAD:
        raise Malformed(f"a payload of {len(payload)} bytes")
    if zlib.crc32(payload[:-4]) != int.from_bytes(payload[-4:], "little"):
        raise Malformed("the CRC of the envelope is wrong")
    if payload[0] > VERSION:
        raise Newer(f"envelope version {payload[0]}")
    if payload[0] < VERSION:
        raise Malformed(f"envelope version {payload[0]}")
    return Reader(payload[1:-4])


def seal(message: Writer) -> bytes:
    """The envelope around a message."""
    inner = bytes([VERSION]) + bytes(message.data)
    return inner + zlib.crc32(inner).to_bytes(4, "little")


def read_frame(payload: bytes) -> Union[Whole, Chunk, Account]:
    r = open_envelope(payload)
    variant = r.unsigned(32)
    frame: Union[Whole, Chunk, Account]
    if variant == 0:
        frame = Whole(r.uuid(), r.range(), r.blob(MAX_BODY))
    elif variant == 1:
        frame = Chunk(r.uuid(), r.range(), r.unsigned(32), r.unsigned(32), r.unsigned(32), r.blob(MAX_BODY))
        if not frame.bytes or frame.offset + len(frame.bytes) > frame.total or frame.total > MAX_BODY:
            raise Malformed(f"a chunk of {len(frame.bytes)} bytes at {frame.offset} of {frame.total}")
    elif variant == 2:
        frame = Account(r.unsigned(), r.many(MAX_STORES, lambda: (r.uuid(), r.range())), r.option(lambda: stretch(r)), r.flag())
    else:
        raise Newer(f"variant {variant} of SegmentFrame")
    r.end()
    return frame


def stretch(r: Reader) -> Stretch:
    return Stretch(r.uuid(), r.range(), r.ranges(), r.ranges(), r.unsigned(), r.unsigned())


def read_catalog(payload: bytes) -> CatalogPage:
    r = open_envelope(payload)

    def kind() -> str:
        number = r.unsigned(32)
        if number >= len(KINDS):
            raise Newer(f"kind {number} of a series")
        return KINDS[number]

    def series() -> Series:
        return Series(r.unsigned(32), r.text(512), r.text(64), kind(), r.signed(), r.i8())

    def boot() -> Boot:
        return Boot(r.unsigned(32), r.uuid(), r.many(4096, lambda: (r.signed(), r.signed(), r.flag())))

    page = CatalogPage(r.uuid(), r.many(4096, series), r.many(1024, boot))
    r.end()
    return page


def read_state(payload: bytes) -> State:
    r = open_envelope(payload)

    def store() -> StoreState:
        return StoreState(r.uuid(), r.unsigned(), r.ranges(), r.option(r.unsigned))

    state = State(r.flag(), r.unsigned(), r.unsigned(), r.text(64), r.signed(), r.flag(), r.many(MAX_STORES, store))
    r.end()
    return state


def ack(stores: list[StoreAck]) -> bytes:
    w = Writer().unsigned(len(stores))
    for s in stores:
        w.uuid(s.store).unsigned(s.cumulative).ranges(s.ranges).unsigned(s.high).ranges(s.conflicts)
        w.unsigned(0 if s.verified is None else 1)
        if s.verified is not None:
            w.unsigned(s.verified[0]).ranges(s.verified[1])
    return seal(w)


def request_segments(store: UUID, ranges: list[Range]) -> bytes:
    return seal(Writer().unsigned(0).uuid(store).ranges(ranges))


REQUEST_CATALOG = seal(Writer().unsigned(1))


def request_snapshot(nonce: int, only: Optional[tuple[UUID, Range]], done: list[tuple[UUID, list[Range]]]) -> bytes:
    w = Writer().unsigned(2).unsigned(nonce).unsigned(0 if only is None else 1)
    if only is not None:
        w.uuid(only[0]).unsigned(only[1][0]).unsigned(only[1][1])
    w.unsigned(len(done))
    for store, ranges in done:
        w.uuid(store).ranges(ranges)
    return seal(w)
