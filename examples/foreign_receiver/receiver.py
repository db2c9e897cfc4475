"""The receiver's rules (docs/wire.md) without a network: messages in, messages to publish out.

What leaves was made after the commit, from what the commit returned for. Time is passed in, in seconds that never jump.
"""

import logging
import sqlite3
import zlib
from typing import Callable, Optional
from uuid import UUID

from . import envelope
from .archive import Archive, Conflict, Unknown
from .envelope import Account, Chunk, State, StoreAck, Whole
from .postcard import MAX_RANGES, Malformed, Newer, Range
from .ranges import without
from .segment import decode

CATALOG_EVERY_S = 10.0
GAP_STANDS_S = 60.0
MAX_PIECES_BYTES = 8 << 20  # of one device
PIECE_COST = 128  # what a piece takes beside its bytes, roughly
MAX_PIECES = 1024  # of one body
FAR = 1 << 48  # no sequence number is as high

Publish = Callable[[str, bytes, bool], None]  # topic, payload, retain
log = logging.getLogger("foreign_receiver")


class Pieces:
    """Chunks of one device's bodies that are not whole yet. Of too much the oldest body goes; it is sent again."""

    def __init__(self) -> None:
        self.bodies: dict[tuple, dict[int, bytes]] = {}
        self.size = 0

    def add(self, chunk: Chunk) -> Optional[bytes]:
        """The body, once it is whole."""
        key = (chunk.store, chunk.range, chunk.hash, chunk.total)
        pieces = self.bodies.setdefault(key, {})
        held = pieces.get(chunk.offset)
        if held is None or len(chunk.bytes) > len(held):
            pieces[chunk.offset] = chunk.bytes
            self.size += len(chunk.bytes) + (PIECE_COST if held is None else -len(held))
        body = bytearray()
        for offset in sorted(pieces):
            if offset > len(body):
                break
            body += pieces[offset][len(body) - offset:]
        if len(body) == chunk.total:
            self._drop(key)
            if zlib.crc32(body[:-4]) != chunk.hash:
                raise Malformed(f"the pieces of {chunk.range} do not make what they say")
            return bytes(body)
        if len(pieces) > MAX_PIECES:
            self._drop(key)
        while self.size > MAX_PIECES_BYTES:
            self._drop(next(iter(self.bodies)))
        return None

    def _drop(self, key: tuple) -> None:
        self.size -= sum(len(piece) + PIECE_COST for piece in self.bodies.pop(key).values())


class Receiver:
    """Devices below one prefix, and the archive that they fill."""

    def __init__(self, archive: Archive, prefix: str, publish: Publish) -> None:
        self.archive, self.prefix, self.publish = archive, prefix, publish
        self.pieces: dict[str, Pieces] = {}
        self.catalog_asked: dict[str, float] = {}
        self.gap_since: dict[tuple[str, UUID], float] = {}

    def hear(self, topic: str, payload: bytes, now: float) -> None:
        """Takes in one message, in one transaction, and publishes what follows from it."""
        parsed = envelope.parse_topic(self.prefix, topic)
        if parsed is None or not payload:  # nobody's; or a retained topic that is cleared
            return
        device, kind = parsed
        take = {"segment": self._take_segment, "catalog": self._take_catalog, "state": self._take_state}[kind]
        told: list[str] = []
        try:
            with self.archive.db:
                told = take(device, payload)
        except Unknown as cause:
            log.info("%s: %s is not known yet; asking for the catalogue", device, cause)
            self._ask_for_catalog(device, now)
        except Newer as cause:
            log.warning("%s: set aside a %s of a later version: %s", device, kind, cause)
            with self.archive.db:
                self.archive.set_aside(device, kind, str(cause), payload)
        except (Malformed, Conflict) as cause:
            log.warning("%s: refused a %s: %s", device, kind, cause)
            with self.archive.db:
                self.archive.refuse(device, f"{kind}: {type(cause).__name__}")
        except sqlite3.Error as cause:
            log.error("%s: a %s could not be stored and is not acknowledged: %s", device, kind, cause)
        for name in told:
            self.publish(self._topic(name, "ack"), self._ack(name), True)

    def tick(self, now: float) -> None:
        """To be called about once a second: asks for numbers that have been missing for a while."""
        for device, in self.archive.db.execute("SELECT name FROM device WHERE online = 1").fetchall():
            for store, missing in self._gaps(device).items():
                since = self.gap_since.setdefault((device, store), now)
                if missing and now - since >= GAP_STANDS_S:
                    log.info("%s: asking for %s of store %s", device, missing, store)
                    request = envelope.request_segments(store, missing[:MAX_RANGES])
                    self.publish(self._topic(device, "request"), request, False)
                if not missing or now - since >= GAP_STANDS_S:
                    del self.gap_since[device, store]

    # --- the three kinds of message; each answers which devices to send an ack -------------------------------------

    def _take_segment(self, device: str, payload: bytes) -> list[str]:
        frame = envelope.read_frame(payload)
        body: Optional[bytes]
        if isinstance(frame, Account):
            log.debug("%s: snapshot %d: %s", device, frame.nonce, "ended" if frame.last else frame.stretch)
            return []
        if isinstance(frame, Whole):
            body = frame.body
        else:
            body = self.pieces.setdefault(device, Pieces()).add(frame)
        if body is None:
            return []
        segment = decode(body)
        if segment.range != frame.range or segment.range[1] >= FAR:
            raise Malformed(f"the envelope says {frame.range}, the body {segment.range}")
        verdict = self.archive.file(device, frame.store, segment)
        state = self._birth(device)
        recheck = next((s.recheck for s in state.stores if s.store == frame.store), None) if state else None
        self.archive.bring(device, frame.store, segment.range, recheck)
        self.archive.saw(frame.store, segment.range[1])
        log.debug("%s: %s of store %s: %s", device, segment.range, frame.store, verdict)
        if verdict != "conflict":
            return [device]
        log.warning("%s: %s of store %s differs from what is held; both are kept", device, segment.range, frame.store)
        return self.archive.bringers(frame.store)

    def _take_catalog(self, device: str, payload: bytes) -> list[str]:
        page = envelope.read_catalog(payload)
        for fault in self.archive.learn(device, page):
            log.warning("%s: store %s: %s", device, page.store, fault)
        return []

    def _take_state(self, device: str, payload: bytes) -> list[str]:
        state = envelope.read_state(payload)
        if any(number >= FAR for s in state.stores for number in [s.high, *(last for _, last in s.pending)]):
            raise Malformed("a sequence number of 2^48 or more")
        db = self.archive.db
        known = db.execute("SELECT session, run FROM device WHERE name = ?", (device,)).fetchone()
        if not state.online:
            if known and state.session != int(known[0]) and state.run <= int(known[1]):
                return []  # the will of an earlier session, which came late
            db.execute("UPDATE device SET online = 0 WHERE name = ?", (device,))
            return []
        if known is None or state.session != int(known[0]):
            self.pieces.pop(device, None)
        db.execute("INSERT OR REPLACE INTO device VALUES (?, 1, ?, ?, ?)",
                   (device, str(state.session), str(state.run), payload))
        for s in state.stores:
            self.archive.saw(s.store, s.high)
            if s.recheck is not None:
                self.archive.begin_recheck(device, s.store, s.recheck)
        return [device]

    # --- what is published ----------------------------------------------------------------------------------------

    def _ack(self, device: str) -> bytes:
        """What this device brought and is held now: its latest state's stores first."""
        state = self._birth(device)
        stated = {s.store: s.recheck for s in state.stores} if state else {}
        stores = [*stated, *(s for s in self.archive.stores(device) if s not in stated)]
        return envelope.ack([self._store_ack(device, store, stated.get(store)) for store in stores[:envelope.MAX_STORES]])

    def _store_ack(self, device: str, store: UUID, recheck: Optional[int]) -> StoreAck:
        ranges = self.archive.brought(device, store)
        cumulative = ranges.pop(0)[1] if ranges and ranges[0][0] == 1 else 0
        verified = None
        if recheck is not None:
            verified = (recheck, self.archive.brought(device, store, str(recheck))[:MAX_RANGES])
        return StoreAck(store, cumulative, ranges[:MAX_RANGES], self.archive.high(store),
                        self.archive.conflicts(store)[:MAX_RANGES], verified)

    def _gaps(self, device: str) -> dict[UUID, list[Range]]:
        """Of each store that the device is not comparing: numbers up to its high that are neither held nor pending."""
        state = self._birth(device)
        compared = [s for s in state.stores if s.recheck is None and s.high > 0] if state else []
        return {s.store: without([(1, s.high)], [*self.archive.held(s.store), *s.pending]) for s in compared}

    def _birth(self, device: str) -> Optional[State]:
        """The last state in which the device was online."""
        found = self.archive.db.execute("SELECT birth FROM device WHERE name = ?", (device,)).fetchone()
        return envelope.read_state(found[0]) if found else None

    def _ask_for_catalog(self, device: str, now: float) -> None:
        if now - self.catalog_asked.get(device, -CATALOG_EVERY_S) >= CATALOG_EVERY_S:
            self.catalog_asked[device] = now
            self.publish(self._topic(device, "request"), envelope.REQUEST_CATALOG, False)

    def _topic(self, device: str, what: str) -> str:
        return f"{self.prefix}/v1/{device}/{what}"
