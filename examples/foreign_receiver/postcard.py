"""Postcard, as far as docs/wire.md uses it: bytes to values and back.

Every length is checked against what is there before anything is reserved by it.
"""

from typing import Callable, Optional, TypeVar
from uuid import UUID

T = TypeVar("T")
Range = tuple[int, int]  # first and last, inclusive

MAX_RANGES = 256


class Malformed(ValueError):
    """Bytes that break a rule of their format: damage, or a bug of who wrote them."""


class Newer(ValueError):
    """Bytes under a right checksum that a later version of the format explains. Not damage: keep them."""


class Reader:
    """Reads values from front to back."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, length: int) -> bytes:
        if length > len(self.data) - self.at:
            raise Malformed(f"{length} bytes at {self.at} of {len(self.data)}")
        self.at += length
        return self.data[self.at - length:self.at]

    def u8(self) -> int:
        return self.take(1)[0]

    def i8(self) -> int:
        return int.from_bytes(self.take(1), "little", signed=True)

    def unsigned(self, bits: int = 64) -> int:
        """A varint of 7 bits a byte, lowest first, that fits in `bits`."""
        value = shift = 0
        while True:
            byte = self.u8()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
            if shift >= bits:
                raise Malformed(f"a varint longer than {bits} bits")
        if value >> bits:
            raise Malformed(f"{value} does not fit in {bits} bits")
        return value

    def signed(self) -> int:
        value = self.unsigned()
        return value >> 1 ^ -(value & 1)

    def flag(self) -> bool:
        byte = self.u8()
        if byte > 1:
            raise Malformed(f"{byte} where 0 or 1 must be")
        return byte == 1

    def blob(self, limit: int) -> bytes:
        length = self.unsigned(32)
        if length > limit:
            raise Malformed(f"{length} bytes where {limit} are allowed")
        return self.take(length)

    def text(self, limit: int) -> str:
        try:
            return self.blob(limit).decode("utf-8")
        except UnicodeDecodeError as error:
            raise Malformed("a text that is not UTF-8") from error

    def uuid(self) -> UUID:
        octets = self.blob(16)
        if len(octets) != 16:
            raise Malformed(f"a uuid of {len(octets)} bytes")
        return UUID(bytes=octets)

    def option(self, read: Callable[[], T]) -> Optional[T]:
        return read() if self.flag() else None

    def many(self, limit: int, read: Callable[[], T]) -> list[T]:
        count = self.unsigned(32)
        if count > limit:
            raise Malformed(f"{count} elements where {limit} are allowed")
        return [read() for _ in range(count)]

    def range(self) -> Range:
        first, last = self.unsigned(), self.unsigned()
        if not 1 <= first <= last:
            raise Malformed(f"the range {first}..={last}")
        return first, last

    def ranges(self) -> list[Range]:
        """Ascending and disjoint."""
        ranges = self.many(MAX_RANGES, self.range)
        if any(later[0] <= earlier[1] for earlier, later in zip(ranges, ranges[1:])):
            raise Malformed("ranges that are not ascending and disjoint")
        return ranges

    def end(self) -> None:
        if self.at != len(self.data):
            raise Malformed(f"{len(self.data) - self.at} bytes follow the message")


class Writer:
    """Collects values into `data`; each verb returns the writer."""

    def __init__(self) -> None:
        self.data = bytearray()

    def unsigned(self, value: int) -> "Writer":
        while value > 127:
            self.data.append(value & 127 | 128)
            value >>= 7
        self.data.append(value)
        return self

    def uuid(self, value: UUID) -> "Writer":
        self.data += b"\x10" + value.bytes
        return self

    def ranges(self, ranges: list[Range]) -> "Writer":
        self.unsigned(len(ranges))
        for first, last in ranges:
            self.unsigned(first).unsigned(last)
        return self
