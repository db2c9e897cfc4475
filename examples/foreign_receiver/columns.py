"""Columns of a segment (docs/segment.md §4 and §6): a stream of the range coder to integers or doubles."""

import ctypes
import math
import struct
from collections import deque
from typing import Optional

from .range_coder import Number, Stream, fresh, likely, tree

STAMPS, INTEGERS, COUNTS, LAST_PLACE, BITS, TEXTS, BOOLEANS = range(7)


def wrap(value: int) -> int:
    """Signed, 64 bits."""
    return (value + (1 << 63) & (1 << 64) - 1) - (1 << 63)


class Role:
    """The contexts of a column's parameters, once per role."""

    def __init__(self, role: int) -> None:
        self.tens = Number(4 if role == STAMPS else 0)
        self.base, self.step, self.slope, self.center = Number(), Number(1), Number(), Number(0)
        self.predictor, self.zeros, self.usual, self.signs = tree(16), tree(8), Number(), fresh()


class Contexts:
    """All contexts of a directory or of a chunk, and the columns that it remembers."""

    def __init__(self) -> None:
        self.roles: dict[int, Role] = {}
        self.zero = [[fresh() for _ in range(8)] for _ in range(4)]
        self.reach = [fresh() for _ in range(9)]
        self.above = [[fresh() for _ in range(16)] for _ in range(9)]
        self.below = [[fresh() for _ in range(16)] for _ in range(9)]
        self.sign = [fresh() for _ in range(3)]
        self.first = [fresh() for _ in range(16)]
        self.second = [[fresh(), fresh()] for _ in range(16)]
        self.neighbours: deque[list[int]] = deque(maxlen=7)
        self.single, self.form, self.exact = likely(0), tree(8, 0), likely(1)
        self.decimals, self.significant = Number(), Number()

    def role(self, role: int) -> Role:
        if role not in self.roles:
            self.roles[role] = Role(role)
        return self.roles[role]


class Residuals:
    """What the guess of a column's next value lacks."""

    def __init__(self, stream: Stream, contexts: Contexts, zeros: int, usual: int, signs: bool) -> None:
        self.stream, self.contexts, self.zeros, self.usual, self.signs = stream, contexts, zeros, usual, signs
        self.mean, self.past_zeros, self.past_sign = 64 * usual, 0, 0

    def next(self) -> int:
        if self.zeros == 4:
            return 0
        bit, c, u = self.stream.bit, self.contexts, self.usual
        if self.zeros > 0:
            zero = bit(c.zero[self.zeros][self.past_zeros])
            self.past_zeros = (self.past_zeros << 1 & 7) | zero
            if zero:
                self.mean -= self.mean >> 3
                return 0
        length = self._length(min(max((self.mean - 64 * u) * 2 + 288 >> 6, 0), 8))
        self.mean += 64 * length - self.mean >> 3
        negative = 0
        if self.signs:
            negative = bit(c.sign[self.past_sign])
            self.past_sign = 1 + negative
        size = self._size(length, min(max(length - u + 8, 0), 15))
        return -size if negative else size

    def _length(self, level: int) -> int:
        """How many bits the size has, beginning from the usual number of them."""
        bit, c, u = self.stream.bit, self.contexts, self.usual
        if u == 1 or bit(c.reach[level]):
            length = u
            while length < 64 and bit(c.above[level][min(length - u, 15)]):
                length += 1
        else:
            length = u - 1
            while length > 1 and bit(c.below[level][min(u - length, 15)]):
                length -= 1
        return length

    def _size(self, length: int, near: int) -> int:
        if length == 1:
            return 1
        a = self.stream.bit(self.contexts.first[near])
        if length == 2:
            return 2 | a
        b = self.stream.bit(self.contexts.second[near][a])
        return ((2 | a) << 1 | b) << length - 3 | self.stream.raw(length - 3)


class Learnt:
    """Recursive least squares over the last values, and those of a neighbour. Every operation is rounded by itself."""

    def __init__(self, usual: int, neighbour: Optional[list[int]]) -> None:
        self.neighbour, self.n = neighbour, 5 if neighbour is None else 7
        self.w = [0.0] * self.n
        self.p = [[0.25 ** usual if i == j else 0.0 for j in range(self.n)] for i in range(self.n)]
        self.x, self.s = [0.0] * self.n, 0.0

    def guess(self, i: int, past: list[int]) -> int:
        y1, y2, y3, y4, y5 = past
        x = [y1 - y2, y2 - y3, y3 - y4, y4 - y5, y1]
        if self.neighbour is not None:
            z = self.neighbour
            x += [z[i] - z[i - 1], z[i - 1]]
        self.x = [float(wrap(v)) for v in x]
        self.s = 0.0
        for w, v in zip(self.w, self.x):
            self.s = self.s + w * v
        v = self.s + 0.5
        return y1 if math.isnan(v) else y1 + math.floor(min(max(v, -(2.0 ** 52)), 2.0 ** 52))

    def learn(self, y: int, y1: int) -> None:
        n, x, p, w = self.n, self.x, self.p, self.w
        miss = float(wrap(y - y1)) - self.s
        k = [0.0] * n
        for j in range(n):
            for i in range(n):
                k[i] = k[i] + p[j][i] * x[j]
        d = 0.998
        for i in range(n):
            d = d + k[i] * x[i]
        h = 1 / d if d else math.copysign(math.inf, d)
        for i in range(n):
            b = k[i] * h
            w[i] = w[i] + b * miss
            for j in range(i + 1):
                p[i][j] = p[j][i] = (p[i][j] - b * k[j]) * (1 / 0.998)


def integers(stream: Stream, contexts: Contexts, n: int, role: int) -> list[int]:
    """A column of `n` integers; of none, nothing is coded."""
    if n == 0:
        return []
    c = contexts.role(role)
    tens = min(stream.number(c.tens), 18) if role == STAMPS else 0
    base = wrap(stream.signed(c.base) * 10 ** tens)
    if n == 1:
        return [base]
    step = stream.number(c.step)
    if step == 0:
        return [base] * n
    step = wrap(step * 10 ** min(stream.number(c.tens), 19))
    predictor = stream.tree(c.predictor)
    slope = stream.signed(c.slope) if predictor == 7 else 0
    center = stream.signed(c.center) if predictor < 8 else 0
    zeros = min(stream.tree(c.zeros), 4)
    usual = min(max(stream.number(c.usual), 1), 64) if zeros < 4 else 0
    signs = zeros < 4 and stream.bit(c.signs) == 1
    residuals = Residuals(stream, contexts, zeros, usual, signs)

    learnt = None
    if predictor >= 8:
        places = predictor - 8
        found = contexts.neighbours[-places] if 0 < places <= len(contexts.neighbours) else None
        learnt = Learnt(usual, found if found is not None and len(found) == n else None)
    ys, past = [0], [0, 0, 0, 0, 0]
    for i in range(1, n):
        guess = learnt.guess(i, past) if learnt else _guess(predictor, past, slope, i) + center
        y = wrap(guess + residuals.next())
        if learnt:
            learnt.learn(y, past[0])
        ys.append(y)
        past = [y, *past[:4]]
    if role in (INTEGERS, COUNTS, BITS) and n <= 4096:
        contexts.neighbours.append(ys)
    return [wrap(base + y * step) for y in ys]


def _guess(predictor: int, past: list[int], slope: int, i: int) -> int:
    y1, y2, y3, y4, _ = past
    match predictor:
        case 0: return 0
        case 1: return y1
        case 2: return 2 * y1 - y2
        case 3: return wrap(3 * y1 - y2) >> 1
        case 4: return wrap(y1 + y2) >> 1
        case 5: return 3 * y1 - 3 * y2 + y3
        case 6: return wrap(y1 + y2 + y3 + y4) >> 2
        case _: return wrap(slope * i) >> 16


def doubles(stream: Stream, contexts: Contexts, n: int) -> list[float]:
    """A column of `n` doubles; also of none, what they are like is coded."""
    single = stream.bit(contexts.single) == 1
    form = stream.tree(contexts.form)
    if form not in (0, 1, 3, 4):
        return [_unordered(o, single) for o in integers(stream, contexts, n, BITS)]
    if form < 2:
        ten = float(10 ** min(stream.number(contexts.decimals), 22))
        digits = min(max(stream.number(contexts.significant), 1), 17) if form == 1 else 0
    else:
        factor = struct.unpack(">d", stream.raw(64).to_bytes(8, "big"))[0]
    near = []
    for q in integers(stream, contexts, n, COUNTS):
        match form:
            case 0: value = float(q) / ten
            case 1: value = float(_unrank(q, digits)) / ten
            case 3: value = float(q) * factor
            case _: value = _quotient(float(q), factor)
        near.append(_single(value) if single else value)
    if stream.bit(contexts.exact):
        return [_unordered(_ordered(v, single), single) for v in near]
    last_places = integers(stream, contexts, n, LAST_PLACE)
    return [_unordered(_ordered(v, single) + u, single) for v, u in zip(near, last_places)]


def _unrank(q: int, digits: int) -> int:
    """The integer of that rank among those of at most `digits` significant digits."""
    w, r = 10 ** digits, abs(q)
    if r < w:
        return q
    j, i = divmod(r - w, w // 10 * 9)
    size = (i + w // 10) * (10 ** (j + 1) if j < 18 else 0)
    return wrap(-size if q < 0 else size)


def _quotient(a: float, b: float) -> float:
    if b:
        return a / b
    return math.nan if a == 0 or math.isnan(a) else math.copysign(math.inf, a) * math.copysign(1.0, b)


def _single(value: float) -> float:
    """Rounded to single precision."""
    return ctypes.c_float(value).value


def _ordered(value: float, single: bool) -> int:
    """Its bits as a signed integer that is greater where the value is."""
    form, mask = ("<f", 0x7FFFFFFF) if single else ("<d", (1 << 63) - 1)
    bits = int.from_bytes(struct.pack(form, value), "little", signed=True)
    return bits ^ mask if bits < 0 else bits


def _unordered(ordered: int, single: bool) -> float:
    form, size, mask = ("<f", 4, 0x7FFFFFFF) if single else ("<d", 8, (1 << 63) - 1)
    low = ordered & (1 << 8 * size) - 1
    bits = low ^ mask if low >> 8 * size - 1 else low
    return struct.unpack(form, bits.to_bytes(size, "little"))[0]
