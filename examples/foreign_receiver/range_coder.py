"""The range coder of docs/segment.md §2 and the three shapes that everything in a segment is written in.

A context is the list [p, seen]: the probability of a 0 in 65536ths, and how many bits it has seen.
"""

Context = list[int]

_SHIFT = [131072 // (2 * n + 3) >> 1 for n in range(65)]


def fresh() -> Context:
    return [32768, 0]


def likely(bit: int) -> Context:
    return [1536, 6] if bit else [64000, 6]


def tree(size: int, usual: int | None = None) -> list[Context]:
    """The contexts of a `tree size`; the way to `usual` is likely."""
    contexts = [fresh() for _ in range(size)]
    return contexts if usual is None else lean(contexts, usual)


def lean(contexts: list[Context], usual: int) -> list[Context]:
    node = 1
    for shift in reversed(range(len(contexts).bit_length() - 1)):
        bit = usual >> shift & 1
        contexts[node] = likely(bit)
        node = node << 1 | bit
    return contexts


class Number:
    """The contexts of a `number`; with `usual`, those on the way to that length are likely."""

    def __init__(self, usual: int | None = None) -> None:
        self.length = tree(128)
        for node in (1, 2, 4):
            self.length[node] = likely(0)
        if usual is not None:
            lean(self.length, usual)
        self.second = [fresh() for _ in range(66)]


class Stream:
    """One stream of the coder. Past its end every byte is 0."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at, self.range = data, 4, 0xFFFFFFFF
        self.code = int.from_bytes(data[:4].ljust(4, b"\0"), "big")

    def bit(self, context: Context) -> int:
        p, seen = context
        bound = (self.range >> 16) * p
        if self.code < bound:
            bit, self.range = 0, bound
            context[0] = p + ((65488 - p) * _SHIFT[seen] >> 15)
        else:
            bit, self.range = 1, self.range - bound
            self.code -= bound
            context[0] = p + ((48 - p) * _SHIFT[seen] >> 15)
        if seen < 64:
            context[1] = seen + 1
        if self.range < 1 << 24:
            self._normalise()
        return bit

    def raw(self, count: int) -> int:
        """`count` bits without context."""
        result = 0
        while count > 0:
            step = min(count, 16)
            count -= step
            self.range >>= step
            value = min(self.code // self.range, (1 << step) - 1)
            self.code -= value * self.range
            self._normalise()
            result = result << step | value
        return result

    def tree(self, contexts: list[Context]) -> int:
        node, size = 1, len(contexts)
        while node < size:
            node = node << 1 | self.bit(contexts[node])
        return node - size

    def number(self, n: Number) -> int:
        length = min(self.tree(n.length), 64)
        if length < 2:
            return length
        return (2 | self.bit(n.second[length])) << length - 2 | self.raw(length - 2)

    def signed(self, n: Number) -> int:
        value = self.number(n)
        return value >> 1 ^ -(value & 1)

    def _normalise(self) -> None:
        while self.range < 1 << 24:
            byte = self.data[self.at] if self.at < len(self.data) else 0
            self.at += 1
            self.range <<= 8
            self.code = (self.code << 8 | byte) & 0xFFFFFFFF
