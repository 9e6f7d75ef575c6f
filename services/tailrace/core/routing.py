"""Which model scores which event: sticky per key, by shares that a rollout may move."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tailrace.contracts.records import RoutingTable, Variant


class Router:
    """Assigns events to the variants that carry traffic.

    The unit interval is cut into one stretch per variant, challengers from the left in the order of
    the table, the champion last. A key falls on the point that its salted hash names. Raising a
    challenger's share therefore moves keys from the champion to it and no others, and a key keeps
    its variant for as long as the shares and the salt stay.

    Args:
        table: The routing table.

    Raises:
        ValueError: the shares do not sum to 1, or there is not exactly one champion.
    """

    def __init__(self, table: RoutingTable) -> None:
        carrying = [variant for variant in table.variants if variant.role != "shadow"]
        champions = [variant for variant in carrying if variant.role == "champion"]
        if len(champions) != 1:
            raise ValueError(f"epoch {table.epoch}: {len(champions)} champions; there must be exactly one")
        if abs(sum(variant.share for variant in carrying) - 1.0) > 1e-9:
            raise ValueError(f"epoch {table.epoch}: the shares sum to {sum(v.share for v in carrying)}, not to 1")
        self.variants: tuple[Variant, ...] = tuple(v for v in carrying if v.role != "champion") + tuple(champions)
        self.shadows: tuple[Variant, ...] = tuple(v for v in table.variants if v.role == "shadow")
        self._salt = table.salt.encode()[:16]
        self._bounds = np.cumsum([variant.share for variant in self.variants])[:-1]

    def route(self, keys: Sequence[str]) -> NDArray[np.intp]:
        """Positions in `variants`: intp (n,), one per key."""
        if not self._bounds.size:
            return np.zeros(len(keys), dtype=np.intp)
        points = np.array([_point(key, self._salt) for key in keys], dtype=np.float64)
        return np.searchsorted(self._bounds, points, side="right")


def _point(key: str, salt: bytes) -> float:
    """A key's point in [0, 1): the same in every process."""
    digest = hashlib.blake2b(key.encode(), digest_size=8, key=salt).digest()
    return (int.from_bytes(digest, "big") >> 11) / float(1 << 53)
