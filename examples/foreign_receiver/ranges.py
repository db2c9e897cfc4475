"""Sets of numbers as ascending lists of ranges (first, last), both inclusive."""

from typing import Iterable

from .postcard import Range


def union(ranges: Iterable[Range]) -> list[Range]:
    """Neighbours are joined."""
    joined: list[Range] = []
    for first, last in sorted(ranges):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return joined


def without(ranges: Iterable[Range], taken: Iterable[Range]) -> list[Range]:
    """What of `ranges` is not in `taken`."""
    left = union(ranges)
    for first, last in union(taken):
        pieces = [((a, min(b, first - 1)), (max(a, last + 1), b)) for a, b in left]
        left = [piece for pair in pieces for piece in pair if piece[0] <= piece[1]]
    return left
