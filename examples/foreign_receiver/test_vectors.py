"""The golden vectors of docs/wire.md and tests/data/golden, and what must be refused: `python3 -m unittest`."""

import math
import re
import struct
import unittest
import zlib
from dataclasses import replace
from pathlib import Path
from uuid import UUID

from . import envelope
from .envelope import Account, Boot, CatalogPage, Chunk, Series, State, StoreAck, StoreState, Stretch, Whole
from .postcard import Malformed, Newer
from .segment import Missing, decode

ROOT = Path(__file__).resolve().parents[2]
STORE = UUID("00112233-4455-6677-8899-aabbccddeeff")
SECOND = 1_000_000_000


def page_vectors() -> list[bytes]:
    text = (ROOT / "docs/wire.md").read_text(encoding="utf-8").partition("## Golden vectors")[2]
    return [bytes.fromhex(digits) for digits in re.findall(r"^      ([0-9a-f]+)$", text, re.MULTILINE)]


def bodies() -> dict[str, bytes]:
    lines = (ROOT / "tests/data/golden/segment-v1.txt").read_text(encoding="ascii").splitlines()
    return {name: bytes.fromhex(digits) for name, digits in map(str.split, lines)}


def bits(value: float) -> str:
    return struct.pack(">d", value).hex()


class Envelopes(unittest.TestCase):
    """Every vector of the page is read as what the page says it is, or written from that."""

    def test_what_a_device_says(self) -> None:
        anchor = (5, -5, True)
        catalog = CatalogPage(STORE, [Series(1, "hwmon/cpu/temp1", "Cel", "int", 1, -3)], [Boot(1, UUID(int=1), [anchor])])
        state = State(True, 300, 7, "0.1.0", SECOND, True, [StoreState(STORE, 42, [(3, 5), (40, 42)], 9)])
        stretch = Stretch(STORE, (1, 42), [(3, 40), (42, 42)], [(41, 41)], 1200, 0x0123456789ABCDEF)
        whole, chunk, account, last, page, birth, *_ = page_vectors()
        self.assertEqual(envelope.read_frame(whole), Whole(STORE, (1, 300), b"body"))
        self.assertEqual(envelope.read_frame(chunk), Chunk(STORE, (1, 300), 0xDEADBEEF, 128, 1000, b"piece"))
        self.assertEqual(envelope.read_frame(account), Account(77, [(STORE, (1, 42))], stretch, False))
        self.assertEqual(envelope.read_frame(last), Account(77, [(STORE, (1, 42))], None, True))
        self.assertEqual(envelope.read_catalog(page), catalog)
        self.assertEqual(envelope.read_state(birth), state)

    def test_what_a_fleet_says(self) -> None:
        ack = StoreAck(STORE, 2, [(6, 39)], 39, [(6, 6)], (9, [(1, 2)]))
        vectors = page_vectors()
        for ours in (envelope.ack([ack]), envelope.request_segments(STORE, [(3, 5)]), envelope.REQUEST_CATALOG,
                     envelope.request_snapshot(77, None, [(STORE, [(1, 20)])]),
                     envelope.request_snapshot(78, (STORE, (3, 5)), [])):
            self.assertIn(ours, vectors[6:])

    def test_damage_and_news_are_told_apart(self) -> None:
        whole = page_vectors()[0]
        for at in range(len(whole)):
            with self.assertRaises(Malformed):
                envelope.read_frame(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1:])
        inner = b"\x02" + whole[1:-4]
        with self.assertRaises(Newer):
            envelope.read_frame(inner + zlib.crc32(inner).to_bytes(4, "little"))
        inner = b"\x01\x3f" + whole[2:-4]
        with self.assertRaises(Newer):  # a variant that this program does not know
            envelope.read_frame(inner + zlib.crc32(inner).to_bytes(4, "little"))


class Bodies(unittest.TestCase):
    """What `golden()` in src/segment/tests.rs says is in the golden bodies."""

    def test_a_loss(self) -> None:
        segment = decode(bodies()["loss"])
        self.assertEqual(segment.range, (8, 300))
        assert segment.loss is not None
        self.assertEqual((segment.loss.reason, segment.loss.readings), ("retention", 58_000))
        self.assertEqual(segment.loss.utc, (-(1 << 63), 1_795_365_945_159_000_000))

    def test_readings_of_every_kind(self) -> None:
        regular = [1_795_365_945_159_000_000 + i * SECOND for i in range(16)]
        moved = regular[1:] + [regular[15] + 1_004_000_000]
        wild = [5, 3, 3, (1 << 63) - 1, -(1 << 63)]
        single = [struct.unpack("f", struct.pack("f", 1.0 / (i + 3)))[0] for i in range(16)]
        odd = ["8000000000000000", "7ff8000000000000", "7ff800000000beef", bits(math.inf), bits(0.1)]
        expected = [
            (1, None, regular, [7] * 16),
            (2, None, regular, [127_765 + 97 * i + i * i % 7 for i in range(16)]),
            (4, None, moved, [bits((200 + i * i % 11) / 10) for i in range(16)]),
            (5, None, moved, [bits(i / 131) for i in range(16)]),
            (9, None, moved, [bits(v) for v in single]),
            (10, 2, wild, odd),
            (11, 2, wild, [-(1 << 63), (1 << 63) - 1, Missing.faulty, -1, 1]),
            (300, 2, wild, [True, False, False, True, True]),
            (301, 2, wild, ["pump on", "pump off", "pump on", Missing.absent, "größer"]),
            (301, None, regular, ["a"] * 16),
        ]
        for name, last in (("ids", 1_000_000), ("names", (1 << 64) - 1)):
            segment = decode(bodies()[name])
            self.assertEqual(segment.range[1], last)
            told = [(c.series, c.boot, c.stamps, [bits(v) if c.kind == "float" else v for v in c.values])
                    for c in segment.columns]
            self.assertEqual(told, expected)
        self.assertEqual(segment.names[300], ("weather/temp,station=300", "Cel", 1, -3))
        self.assertEqual(decode(bodies()["empty"]).columns, [])

    def test_what_is_learnt(self) -> None:
        """Columns that teach, stamps at an even pace that is no whole number, and more than one chunk."""
        state = 3

        def noise(most: int) -> int:
            nonlocal state
            state = (state * 1_103_515_245 + 12_345) & 0x7FFFFFFF
            return (state >> 12) % (2 * most + 1) - most

        at, pace, wave = 1_000, 0, []
        for step in [noise(90) for _ in range(120)]:
            pace = int((pace * 3 + step) / 4)
            at += pace
            wave.append(at + int(step / 8))
        near = [(int(v * 7 / 4) + noise(2)) / 100 for v in wave]
        long = [i // 2_000 for i in range(4_100)]
        columns = decode(bodies()["learnt"]).columns
        self.assertEqual([c.values for c in columns], [wave, near, long, long, [1] * 120])
        self.assertEqual(columns[1].stamps, [(5_000_000 + i * 1_000 // 360) * 1_000_000 for i in range(120)])
        self.assertEqual(columns[2].stamps, [i * SECOND for i in range(4_100)])

    def test_columns_without_a_value(self) -> None:
        columns = decode(bodies()["missing"]).columns
        self.assertEqual([c.kind for c in columns], ["int", "float", "bool", "text", "float"])
        self.assertEqual([c.values for c in columns], [[Missing.failed, Missing.power_up]] * 4 + [[0.5, 0.5]])

    def test_damaged_bodies_are_refused_and_nothing_else_happens(self) -> None:
        """With a CRC that was put right, too: what is behind it may say anything."""
        for name in ("loss", "ids", "names"):
            body = bodies()[name]
            for at in range(0, len(body) - 4, 7):
                bad = body[:at] + bytes([body[at] ^ 1 << at % 8]) + body[at + 1:-4]
                with self.assertRaises(Malformed):
                    decode(bad + body[-4:])
                try:
                    decode(bad + zlib.crc32(bad).to_bytes(4, "little"))
                except (Malformed, Newer):
                    pass


if __name__ == "__main__":
    unittest.main()
