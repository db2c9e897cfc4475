"""The body of a segment (docs/segment.md): bytes to readings, or to the account of a loss."""

import zlib
from dataclasses import dataclass, field
from enum import Enum
from typing import Optional, Union

from .columns import BOOLEANS, INTEGERS, STAMPS, TEXTS, Contexts, doubles, integers, wrap
from .postcard import Malformed, Newer, Range, Reader
from .range_coder import Number, Stream, fresh, likely, tree

LOSS, NAMES, BLOB, COMPRESSED, SPAN, CHUNKS = 1, 2, 4, 8, 16, 32
KINDS = ("int", "float", "bool", "text")
REASONS = ("void", "overflow", "retention", "damaged", "expired")

MAX_BODY = 2 << 20
MAX_READINGS = MAX_STAMPS = 262_144
MAX_COLUMNS = MAX_TIMELINES = 65_536
MAX_BLOB = MAX_TEXTS = 4 << 20
MAX_TEXT = 16 << 10
MAX_NAME = 512


class Missing(Enum):
    """Why a reading has no value."""
    absent, failed, disabled, faulty, late, unreadable, power_up = range(1, 8)


Value = Union[int, float, bool, str, Missing]


@dataclass
class Column:
    """The readings of one series on one clock. `boot` is the boot id, None where the stamps are UTC; both in ns."""
    series: int
    boot: Optional[int]
    kind: str
    stamps: list[int]
    values: list[Value] = field(default_factory=list)


@dataclass(frozen=True)
class Loss:
    """A dropped range: why, how many readings (None: not known), and the UTC ns between which they lay."""
    reason: str
    readings: Optional[int]
    utc: Optional[tuple[int, int]]


@dataclass
class Segment:
    """`names` are the definitions (name, unit, mantissa, exponent) that the body carries, by series id."""
    range: Range
    loss: Optional[Loss] = None
    columns: list[Column] = field(default_factory=list)
    names: dict[int, tuple[str, str, int, int]] = field(default_factory=dict)


@dataclass
class _Planned:
    """A column as the directory has it, with its texts' number and bytes; and, where a chunk ends with it, that one's length."""
    column: Column
    texts: tuple[int, int]
    ends: bool
    chunk: int = 0


def decode(body: bytes) -> Segment:
    """Decodes a body, or raises `Malformed` or `Newer`."""
    if not 7 <= len(body) <= MAX_BODY:
        raise Malformed(f"a body of {len(body)} bytes")
    if zlib.crc32(body[:-4]) != int.from_bytes(body[-4:], "little"):
        raise Malformed("the CRC of the body is wrong")
    r = Reader(body[:-4])
    version = r.u8()
    if version > 1:
        raise Newer(f"segment version {version}")
    flags = r.u8()
    if version != 1 or flags > 63:
        raise Malformed(f"segment version {version}, flags {flags}")
    first = r.unsigned()
    last = first + (r.unsigned() if flags & SPAN else 0)
    if first < 1 or last >= 1 << 64:
        raise Malformed(f"the range {first}..={last}")
    if flags & LOSS:
        return Segment((first, last), loss=_loss(r))
    segment = Segment((first, last))
    blob = Reader(_blob(r, flags))
    first_length = r.unsigned(32) if flags & CHUNKS else len(r.data) - r.at
    stream = Stream(r.take(first_length))
    planned = _directory(stream)
    if flags & NAMES:
        segment.names = _names(blob, sorted({p.column.series for p in planned}))
    _fill(planned, stream, r, blob)
    r.end()
    blob.end()
    segment.columns = [p.column for p in planned]
    return segment


def _loss(r: Reader) -> Loss:
    reason = r.unsigned(32)
    if reason >= len(REASONS):
        raise Newer(f"reason {reason} of a loss")
    readings = r.option(r.unsigned)
    for _ in ("from", "to"):
        r.option(lambda: (r.unsigned(32), r.signed()))
    utc = r.option(lambda: (r.signed(), r.signed()))
    r.end()
    return Loss(REASONS[reason], readings, utc)


def _blob(r: Reader, flags: int) -> bytes:
    if not flags & BLOB:
        return b""
    raw_length, stored_length = r.unsigned(32), r.unsigned(32)
    if raw_length > MAX_BLOB:
        raise Malformed(f"a blob of {raw_length} bytes")
    stored = r.take(stored_length)
    if flags & COMPRESSED:
        stored = _decompressed(b"\x28\xb5\x2f\xfd" + stored, raw_length)
    if len(stored) != raw_length:
        raise Malformed(f"a blob of {len(stored)} bytes that says {raw_length}")
    return stored


def _decompressed(frame: bytes, raw_length: int) -> bytes:
    import zstandard  # only segments with names or long texts need it
    try:
        claimed = zstandard.frame_content_size(frame)  # -1: the frame does not say
        if claimed not in (-1, raw_length):
            raise Malformed(f"a blob of {claimed} bytes that says {raw_length}")
        return zstandard.ZstdDecompressor().decompress(frame, max_output_size=raw_length)
    except zstandard.ZstdError as error:
        raise Malformed(f"zstd: {error}") from error


def _names(blob: Reader, ids: list[int]) -> dict[int, tuple[str, str, int, int]]:
    names = [blob.text(MAX_NAME) for _ in ids]
    units = [blob.text(MAX_NAME) for _ in ids]
    scales = [(blob.signed(), blob.i8()) for _ in ids]
    return {id: (name, unit, *scale) for id, name, unit, scale in zip(ids, names, units, scales)}


def _bounded(number: int, limit: int, what: str) -> int:
    if number > limit:
        raise Malformed(f"{number} {what} where {limit} are allowed")
    return number


def _directory(stream: Stream) -> list[_Planned]:
    """§3."""
    contexts = Contexts()
    timelines = _timelines(stream, contexts)
    columns, series, timeline, kind = Number(), Number(1), Number(), 0
    same, ends_bit, texts, chunk = likely(1), likely(0), Number(), Number()
    kinds = [tree(4, before) for before in range(4)]
    planned: list[_Planned] = []
    count = _bounded(stream.number(columns), MAX_COLUMNS, "columns")
    readings, id, index, ended = 0, 0, 0, False
    for place in range(count):
        id += stream.number(series)
        if not stream.bit(same):
            index = stream.number(timeline)
        if id >> 32 or index >= len(timelines):
            raise Malformed(f"series {id} on timeline {index}")
        kind = stream.tree(kinds[kind])
        long = (stream.number(texts), stream.number(texts)) if kind == 3 else (0, 0)
        ends = place == count - 1 or stream.bit(ends_bit) == 1
        length = stream.number(chunk) if ends and ended else 0
        ended = ended or ends
        boot, stamps = timelines[index]
        readings = _bounded(readings + len(stamps), MAX_READINGS, "readings")
        planned.append(_Planned(Column(id, boot, KINDS[kind], stamps), long, ends, length))
    return planned


def _timelines(stream: Stream, contexts: Contexts) -> list[tuple[Optional[int], list[int]]]:
    """Of each the boot (None: UTC) and the stamps."""
    how_many, clock, base, n, tail, step = Number(1), Number(), Number(0), Number(), Number(), Number()
    keeps = [fresh() for _ in range(4)]
    timelines: list[tuple[Optional[int], list[int]]] = []
    total = 0
    for place in range(_bounded(stream.number(how_many), MAX_TIMELINES, "timelines")):
        boot = stream.number(clock) - 1
        back = stream.number(base)
        if back == 0:
            length = _bounded(stream.number(n), MAX_STAMPS - total, "stamps")
            if length == 0:
                raise Malformed("a timeline without stamps")
            stamps = integers(stream, contexts, length, STAMPS)
        elif back > place:
            raise Malformed(f"timeline {place} follows one {back} places before")
        else:
            stamps, past = [], 0
            for stamp in timelines[place - back][1]:
                keep = stream.bit(keeps[past])
                past = (past << 1 & 3) | (1 - keep)
                if keep:
                    stamps.append(stamp)
            if not stamps or len(stamps) * 8 < len(timelines[place - back][1]):
                raise Malformed("a timeline that keeps too little of another")
            for _ in range(_bounded(stream.number(tail), 8, "stamps more")):
                unit = 1_000_000 if stream.number(tail) == 1 else 1
                stamps.append(wrap(stamps[-1] + stream.signed(step) * unit))
        total = _bounded(total + len(stamps), MAX_STAMPS, "stamps")
        timelines.append((None if boot < 0 else boot, stamps))
    return timelines


def _fill(planned: list[_Planned], stream: Stream, r: Reader, blob: Reader) -> None:
    """§5: the chunks, the first in the stream of the directory."""
    lengths = [p.chunk for p in planned if p.ends][1:]
    kit, text_bytes = _Kit(), 0
    for place, p in enumerate(planned):
        if place > 0 and planned[place - 1].ends:
            stream, kit = Stream(r.take(lengths.pop(0))), _Kit()
        p.column.values = _values(p, stream, kit, blob)
        if p.column.kind == "text":
            text_bytes += sum(len(v.encode()) for v in p.column.values if isinstance(v, str))
            _bounded(text_bytes, MAX_TEXTS, "bytes of text")


class _Kit:
    """The contexts of a chunk."""

    def __init__(self) -> None:
        self.columns, self.missing, self.gap, self.why, self.text = Contexts(), Number(0), Number(), tree(8), Number()


def _values(p: _Planned, stream: Stream, kit: _Kit, blob: Reader) -> list[Value]:
    n = len(p.column.stamps)
    missing: dict[int, Missing] = {}
    index = 0
    for _ in range(_bounded(stream.number(kit.missing), n, "missing")):
        index += stream.number(kit.gap)
        why = stream.tree(kit.why)
        if index >= n or why == 0:
            raise Malformed(f"reason {why} at {index} of {n}")
        missing[index] = Missing(why)
        index += 1
    present = iter(_present(p, stream, kit, blob, n - len(missing)))
    return [missing[i] if i in missing else next(present) for i in range(n)]


def _present(p: _Planned, stream: Stream, kit: _Kit, blob: Reader, n: int) -> list[Value]:
    """The values that there are, in order."""
    match p.column.kind:
        case "float":
            return doubles(stream, kit.columns, n)
        case "int":
            return integers(stream, kit.columns, n, INTEGERS)
        case "bool":
            bits = integers(stream, kit.columns, n, BOOLEANS)
            if any(bit not in (0, 1) for bit in bits):
                raise Malformed("a boolean that is neither 0 nor 1")
            return [bit == 1 for bit in bits]
    count, size = p.texts
    lengths = [_bounded(stream.number(kit.text), MAX_TEXT, "bytes of a text")
               for _ in range(_bounded(count, n, "texts"))]
    if sum(lengths) != size:
        raise Malformed(f"texts of {sum(lengths)} bytes that say {size}")
    try:
        texts = [blob.take(length).decode("utf-8") for length in lengths]
        return [texts[_index(i, count)] for i in integers(stream, kit.columns, n, TEXTS)]
    except UnicodeDecodeError as error:
        raise Malformed("a text that is not UTF-8") from error


def _index(index: int, count: int) -> int:
    if not 0 <= index < count:
        raise Malformed(f"text {index} of {count}")
    return index
