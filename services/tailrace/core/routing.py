"""Which model scores which event: sticky per key, by shares that a rollout may move."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tailrace.contracts.records import RoutingTable, Variant

ROUNDING = 1e-9
"""How far shares may miss 1 in sum, and the narrowest stretch worth keeping: sums of decimal shares are inexact."""


class Router:
    """Assigns events to the variants that carry traffic.

    A key falls on the point of the unit interval that its salted hash names, and keeps it for as long
    as the salt stays. Every challenger has an anchor there, the champion has what is left. A
    challenger's stretch grows from its anchor to the right, so that raising or lowering its share
    moves keys between it and the champion and none between the others, until a stretch runs into
    another one's anchor: two challengers have half of the interval each before that happens.

    Args:
        table: The routing table.

    Raises:
        ValueError: the shares are no shares, two variants have one name, or there is not exactly one champion.
    """

    def __init__(self, table: RoutingTable) -> None:
        _check(table)
        challengers = tuple(v for v in table.variants if v.role == "canary")
        champion = next(v for v in table.variants if v.role == "champion")
        self.variants: tuple[Variant, ...] = (*challengers, champion)
        self.shadows: tuple[Variant, ...] = tuple(v for v in table.variants if v.role == "shadow")
        # Hashed, because blake2b takes no key longer than 64 bytes and cutting a salt would make two alike.
        self._salt = hashlib.blake2b(table.salt.encode(), digest_size=32).digest()
        stretches = _stretches([variant.share for variant in challengers])
        self._starts = np.array([start for start, _ in stretches])
        self._owners = np.array([owner for _, owner in stretches], dtype=np.intp)

    def route(self, keys: Sequence[str]) -> NDArray[np.intp]:
        """Positions in `variants`: intp (n,), one per key. # hot path."""
        if len(self.variants) == 1:
            return np.zeros(len(keys), dtype=np.intp)
        points = np.fromiter((_point(key, self._salt) for key in keys), np.float64, len(keys))
        return self._owners[np.searchsorted(self._starts, points, side="right") - 1]


def _check(table: RoutingTable) -> None:
    champions = sum(variant.role == "champion" for variant in table.variants)
    if champions != 1:
        raise ValueError(f"epoch {table.epoch}: {champions} champions; there must be exactly one")
    names = [variant.name for variant in table.variants]
    if len(set(names)) < len(names):
        raise ValueError(
            f"epoch {table.epoch}: two variants have one name, so their prediction ids would clash: {names}"
        )
    shares = [variant.share for variant in table.variants if variant.role != "shadow"]
    # Written so that NaN fails as well.
    if not all(0.0 <= share <= 1.0 for share in shares) or not abs(sum(shares) - 1.0) <= ROUNDING:
        raise ValueError(f"epoch {table.epoch}: the shares {shares} are not parts in [0, 1] that sum to 1")


def _stretches(shares: Sequence[float]) -> list[tuple[float, int]]:
    """Cuts [0, 1) into (start, owner), sorted; owner `len(shares)` is the champion."""
    free = [(0.0, 1.0)]
    taken: list[tuple[float, int]] = []
    for owner, share in enumerate(shares):
        anchor = _anchor(owner)
        pieces = [(lo, min(hi, anchor)) for lo, hi in free if lo < anchor]
        pieces += [(max(lo, anchor), hi) for lo, hi in free if hi > anchor]
        pieces.sort(key=lambda piece: (piece[0] < anchor, piece[0]))
        free = []
        missing = share
        for lo, hi in pieces:
            part = min(hi - lo, missing)
            if part > ROUNDING:
                taken.append((lo, owner))
                missing -= part
                lo += part
            if hi - lo > ROUNDING:
                free.append((lo, hi))
    return sorted(taken + [(lo, len(shares)) for lo, _ in free])


def _anchor(position: int) -> float:
    """0, 1/2, 1/4, 3/4, 1/8, …: each as far from the earlier ones as can be (van der Corput, 1935)."""
    return sum(int(bit) / 2.0**place for place, bit in enumerate(reversed(f"{position:b}"), 1))


def _point(key: str, salt: bytes) -> float:
    """A key's point in [0, 1): the same in every process."""
    digest = hashlib.blake2b(key.encode(), digest_size=8, key=salt).digest()
    return (int.from_bytes(digest, "big") >> 11) / float(1 << 53)
