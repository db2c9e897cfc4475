"""What the fleet holds: one plain SQLite file, and the rules by which a segment is filed in it.

`reading` has a row for each reading, `segment` one for each range that is held. Losses are held like data, but never
stand against it: whoever has the readings of a number knows better than an account that says they are gone.
"""

import sqlite3
from dataclasses import dataclass
from itertools import groupby
from typing import Iterator, Optional
from uuid import UUID

from .envelope import CatalogPage, Series
from .postcard import Malformed, Range
from .ranges import union
from .segment import Column, Missing, Segment

MAX_HISTORIES = 16
MAX_ASIDE = 1000

SCHEMA = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
-- A range that is held. kind: data; or the reason of a loss. history: 0, or more where contents differ from those held.
CREATE TABLE IF NOT EXISTS segment (id INTEGER PRIMARY KEY, store TEXT, history INTEGER, first INTEGER, last INTEGER,
    device TEXT, kind TEXT, readings INTEGER);
CREATE INDEX IF NOT EXISTS segment_range ON segment (store, history, last);
-- time: ns. Where boot is NULL it is UTC, else CLOCK_BOOTTIME of that boot. quality: ok, nan, or why there is no value.
CREATE TABLE IF NOT EXISTS reading (segment INTEGER, device TEXT, store TEXT, series TEXT, unit TEXT, boot TEXT,
    time INTEGER, value, quality TEXT);
CREATE INDEX IF NOT EXISTS reading_segment ON reading (segment);
-- The same with UTC, going on from the last trusted anchor before a reading, or else the first; NULL without any.
CREATE VIEW IF NOT EXISTS reading_utc AS SELECT device, store, series, CASE WHEN boot IS NULL THEN time ELSE time + coalesce(
    (SELECT utc - boottime FROM anchor a WHERE a.boot = reading.boot AND a.device = reading.device AND trusted
        AND boottime <= time ORDER BY boottime DESC LIMIT 1),
    (SELECT utc - boottime FROM anchor a WHERE a.boot = reading.boot AND a.device = reading.device AND trusted
        ORDER BY boottime LIMIT 1)) END AS utc, value, unit, quality FROM reading;
-- What each device itself brought. recheck: '' for ever; else only since the device gave that number.
CREATE TABLE IF NOT EXISTS brought (device TEXT, store TEXT, recheck TEXT, first INTEGER, last INTEGER);
CREATE TABLE IF NOT EXISTS high (store TEXT PRIMARY KEY, high INTEGER);
CREATE TABLE IF NOT EXISTS series (device TEXT, store TEXT, id INTEGER, name TEXT, unit TEXT, kind TEXT,
    mantissa INTEGER, exponent INTEGER, PRIMARY KEY (device, store, id));
CREATE TABLE IF NOT EXISTS boot (device TEXT, store TEXT, id INTEGER, boot TEXT, PRIMARY KEY (device, store, id));
CREATE TABLE IF NOT EXISTS anchor (device TEXT, boot TEXT, boottime INTEGER, utc INTEGER, trusted INTEGER,
    PRIMARY KEY (device, boot, boottime, utc, trusted));
-- birth: the last state that was online, as it came.
CREATE TABLE IF NOT EXISTS device (name TEXT PRIMARY KEY, online INTEGER, session TEXT, run TEXT, birth BLOB);
CREATE TABLE IF NOT EXISTS refusal (device TEXT, why TEXT, n INTEGER, PRIMARY KEY (device, why));
-- Messages of a later version, kept for whoever can read them.
CREATE TABLE IF NOT EXISTS aside (id INTEGER PRIMARY KEY, device TEXT, kind TEXT, why TEXT, payload BLOB);
"""


class Unknown(Exception):
    """A series or boot that no page has named yet."""


class Conflict(Exception):
    """One more history of a store than there may be."""


@dataclass(frozen=True)
class Row:
    """A reading as it is stored, without what its segment says."""
    series: str
    unit: str
    boot: Optional[str]
    time: int
    value: object
    quality: str


class Archive:
    """The file. Whoever calls holds a transaction around it (`with archive.db`)."""

    def __init__(self, path: str) -> None:
        self.db = sqlite3.connect(path)
        self.db.executescript(SCHEMA)

    # --- catalogues -----------------------------------------------------------------------------------------------

    def learn(self, device: str, page: CatalogPage) -> list[str]:
        """Takes a page in; forgets nothing. The faults: ids that came with another definition, of which the latest counts."""
        who, faults = (device, str(page.store)), []
        for s in page.series:
            faults += self._define("series", (*who, s.id), (s.name, s.unit, s.kind, s.mantissa, s.exponent))
        for b in page.boots:
            faults += self._define("boot", (*who, b.id), (str(b.boot),))
            self.db.executemany("INSERT OR IGNORE INTO anchor VALUES (?, ?, ?, ?, ?)",
                                [(device, str(b.boot), *anchor) for anchor in b.anchors])
        return faults

    def _define(self, table: str, key: tuple, definition: tuple) -> list[str]:
        held = self.db.execute(f"SELECT * FROM {table} WHERE device = ? AND store = ? AND id = ?", key).fetchone()
        if held is not None and held[3:] == definition:
            return []
        marks = ", ".join("?" * (len(key) + len(definition)))
        self.db.execute(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", (*key, *definition))
        return [] if held is None else [f"{table} {key[2]} was {held[3:]} and now is {definition}"]

    def rows(self, device: str, store: UUID, segment: Segment) -> list[Row]:
        """The segment's readings by the names that this device gave; `Unknown` where one is missing."""
        key = (device, str(store))
        rows: list[Row] = []
        for column in segment.columns:
            held = self.db.execute("SELECT id, name, unit, kind, mantissa, exponent FROM series "
                                   "WHERE device = ? AND store = ? AND id = ?", (*key, column.series)).fetchone()
            if held is None:
                raise Unknown(f"series {column.series}")
            series = Series(*held)
            told = segment.names.get(column.series)
            if column.kind != series.kind:
                raise Malformed(f"series {column.series} is {column.kind} in the body and {series.kind} in the catalogue")
            if told not in (None, (series.name, series.unit, series.mantissa, series.exponent)):
                raise Malformed(f"series {column.series} is {told} in the body and {series} in the catalogue")
            rows += _rows(column, series, self._boot(key, column.boot))
        return rows

    def _boot(self, key: tuple[str, str], id: Optional[int]) -> Optional[str]:
        if id is None:
            return None
        held = self.db.execute("SELECT boot FROM boot WHERE device = ? AND store = ? AND id = ?", (*key, id)).fetchone()
        if held is None:
            raise Unknown(f"boot {id}")
        return held[0]

    # --- filing ---------------------------------------------------------------------------------------------------

    def file(self, device: str, store: UUID, segment: Segment) -> str:
        """Files a segment: 'new', 'duplicate', 'replaces', or 'conflict' where it was kept beside what is held."""
        rows = self.rows(device, store, segment)
        kind = segment.loss.reason if segment.loss else "data"
        count = segment.loss.readings if segment.loss else len(rows)
        if kind not in ("data", "overflow"):
            return self._file_absence(device, store, segment.range, kind, count)
        for history in range(MAX_HISTORIES):
            held = [h for h in self._held(store, history, segment.range) if h[3] in ("data", "overflow")]
            verdict = self._weigh(segment.range, kind, count, rows, held)
            if verdict == "duplicate":
                return verdict
            if verdict != "conflict":
                self._drop([h[0] for h in held])
                self._insert(device, store, history, segment.range, kind, count, rows)
                return verdict if history == 0 else "conflict"
        raise Conflict(f"{segment.range} of store {store} would be one more than {MAX_HISTORIES} histories")

    def _weigh(self, new: Range, kind: str, count: Optional[int], rows: list[Row], held: list[tuple]) -> str:
        """What it is beside these, (id, first, last, kind, readings), which overlap it."""
        if not held:
            return "new"
        for id, first, last, held_kind, held_count in held:
            inside, around = first <= new[0] and new[1] <= last, new[0] <= first and last <= new[1]
            if kind != held_kind or not (inside or around):
                return "conflict"
            wide, narrow = (held_count, count) if inside else (count, held_count)
            if kind == "overflow" and wide is not None and (narrow is None or narrow > wide):
                return "conflict"
            wider, narrower = (self._rows_of(id), rows) if inside else (rows, self._rows_of(id))
            if not _contains(wider, narrower):
                return "conflict"
        return "duplicate" if inside else "replaces"

    def _file_absence(self, device: str, store: UUID, new: Range, reason: str, count: Optional[int]) -> str:
        """Numbers without readings. A wider account of the same reason has grown: it counts the narrower ones too."""
        held = [h for h in self._held(store, 0, new) if h[3] == reason]
        if any(first <= new[0] and new[1] <= last for _, first, last, _, _ in held):
            return "duplicate"
        self._drop([h[0] for h in held if new[0] <= h[1] and h[2] <= new[1]])
        self._insert(device, store, 0, new, reason, count, [])
        return "new"

    def _held(self, store: UUID, history: int, around: Range) -> list[tuple]:
        return self.db.execute("SELECT id, first, last, kind, readings FROM segment WHERE store = ? AND history = ? "
                               "AND last >= ? AND first <= ?", (str(store), history, *around)).fetchall()

    def _rows_of(self, segment: int) -> list[Row]:
        found = self.db.execute("SELECT series, unit, boot, time, value, quality FROM reading WHERE segment = ? "
                                "ORDER BY rowid", (segment,))
        return [Row(*row) for row in found]

    def _insert(self, device: str, store: UUID, history: int, range: Range, kind: str, count: Optional[int],
                rows: list[Row]) -> None:
        id = self.db.execute("INSERT INTO segment VALUES (NULL, ?, ?, ?, ?, ?, ?, ?)",
                             (str(store), history, *range, device, kind, count)).lastrowid
        self.db.executemany("INSERT INTO reading VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                            [(id, device, str(store), r.series, r.unit, r.boot, r.time, r.value, r.quality) for r in rows])

    def _drop(self, segments: list[int]) -> None:
        self.db.executemany("DELETE FROM reading WHERE segment = ?", [(id,) for id in segments])
        self.db.executemany("DELETE FROM segment WHERE id = ?", [(id,) for id in segments])

    # --- what an ack says -----------------------------------------------------------------------------------------

    def bring(self, device: str, store: UUID, range: Range, recheck: Optional[int]) -> None:
        """Notes that this device brought the range, and that it did so since it gave the number `recheck`."""
        for since in [""] if recheck is None else ["", str(recheck)]:
            key = (device, str(store), since)
            touching = self.db.execute("SELECT rowid, first, last FROM brought WHERE device = ? AND store = ? AND "
                                       "recheck = ? AND last >= ? - 1 AND first <= ? + 1", (*key, *range)).fetchall()
            [(first, last)] = union([range, *((first, last) for _, first, last in touching)])
            self.db.executemany("DELETE FROM brought WHERE rowid = ?", [(rowid,) for rowid, _, _ in touching])
            self.db.execute("INSERT INTO brought VALUES (?, ?, ?, ?, ?)", (*key, first, last))

    def brought(self, device: str, store: UUID, recheck: str = "") -> list[Range]:
        return self.db.execute("SELECT first, last FROM brought WHERE device = ? AND store = ? AND recheck = ? "
                               "ORDER BY first", (device, str(store), recheck)).fetchall()

    def begin_recheck(self, device: str, store: UUID, recheck: int) -> None:
        """Another number: what was verified under an earlier one counts no more."""
        self.db.execute("DELETE FROM brought WHERE device = ? AND store = ? AND recheck NOT IN ('', ?)",
                        (device, str(store), str(recheck)))

    def stores(self, device: str) -> list[UUID]:
        found = self.db.execute("SELECT DISTINCT store FROM brought WHERE device = ? ORDER BY store", (device,))
        return [UUID(store) for store, in found]

    def bringers(self, store: UUID) -> list[str]:
        return [d for d, in self.db.execute("SELECT DISTINCT device FROM brought WHERE store = ?", (str(store),))]

    def held(self, store: UUID) -> list[Range]:
        """All numbers of the store that are held, whoever brought them: as data or as lost."""
        return union(self.db.execute("SELECT first, last FROM segment WHERE store = ?", (str(store),)))

    def conflicts(self, store: UUID) -> list[Range]:
        found = self.db.execute("SELECT first, last FROM segment WHERE store = ? AND history > 0", (str(store),))
        return union(found)

    def saw(self, store: UUID, high: int) -> None:
        self.db.execute("INSERT INTO high VALUES (?, ?) ON CONFLICT (store) DO UPDATE SET high = max(high, excluded.high)",
                        (str(store), high))

    def high(self, store: UUID) -> int:
        found = self.db.execute("SELECT high FROM high WHERE store = ?", (str(store),)).fetchone()
        return found[0] if found else 0

    # --- refusals -------------------------------------------------------------------------------------------------

    def refuse(self, device: str, why: str) -> None:
        self.db.execute("INSERT INTO refusal VALUES (?, ?, 1) ON CONFLICT DO UPDATE SET n = n + 1", (device, why))

    def set_aside(self, device: str, kind: str, why: str, payload: bytes) -> None:
        """Keeps the latest few."""
        id = self.db.execute("INSERT INTO aside VALUES (NULL, ?, ?, ?, ?)", (device, kind, why, payload)).lastrowid
        self.db.execute("DELETE FROM aside WHERE id <= ?", (id - MAX_ASIDE,))


def _rows(column: Column, series: Series, boot: Optional[str]) -> Iterator[Row]:
    for time, value in zip(column.stamps, column.values):
        if isinstance(value, Missing):
            yield Row(series.name, series.unit, boot, time, None, value.name)
        elif value != value:  # SQLite has no NaN
            yield Row(series.name, series.unit, boot, time, None, "nan")
        else:
            yield Row(series.name, series.unit, boot, time, _scaled(value, column.kind, series), "ok")


def _scaled(value: object, kind: str, series: Series) -> object:
    """The value in its unit: an integer where it is one that SQLite holds, else the nearest double."""
    if kind != "int" or (series.mantissa, series.exponent) == (1, 0):
        return value
    raw = value * series.mantissa
    scaled = raw * 10 ** series.exponent if series.exponent >= 0 else raw / 10 ** -series.exponent
    return scaled if isinstance(scaled, float) or abs(scaled) < 1 << 63 else float(scaled)


def _contains(wider: list[Row], narrower: list[Row]) -> bool:
    """Whether every reading of `narrower` is in `wider`, per series and clock in order."""
    def clock(row: Row) -> tuple[str, str]:
        return row.series, row.boot or ""

    runs = {key: iter(list(rows)) for key, rows in groupby(sorted(wider, key=clock), key=clock)}
    return all(row in runs.get(clock(row), iter(())) for row in narrower)
