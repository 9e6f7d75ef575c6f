"""Who reported an outcome: names as small numbers, and how far each is trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tailrace.core.trust import ANYBODY, Trust, tier_of

NOBODY, OTHERS = 0, 1
"""Codes of an outcome, or of its absence, that names no source, and of all sources past the cap."""
OTHERS_NAME: Final = "(others)"
MOST_SOURCES = 64
"""Sources told apart; those that come later go by one name, so that state stays bounded."""


class SourceBook:
    """Sources of one label by code. Not thread-safe; codes are never given again.

    Args:
        trust: Tier by name; `ANYBODY` speaks for the rest. The sources it names are always told apart.
        names: Names by code, as `names` gave them; empty to begin.

    Attributes:
        names: Names by code.
        tiers: int8 (n,), place in `TIERS` by code.
        order: int64 (n,), place of each code among all in the order of their names.
    """

    tiers: NDArray[np.int8]
    order: NDArray[np.int64]

    def __init__(self, trust: Mapping[str, Trust], names: Sequence[str] = ()) -> None:
        self._trust = dict(trust)
        declared = sorted(name for name in trust if name != ANYBODY)
        self.names: list[str] = []
        self._codes: dict[str, int] = {}
        self._most = MOST_SOURCES + len(declared)
        self.restore(names or ["", OTHERS_NAME, *declared])

    def restore(self, names: Sequence[str]) -> None:
        """Takes back names by code, as `names` gave them."""
        self.names, self._codes = [], {}
        for name in names:
            self._add(name)
        self._refresh()

    def codes(self, names: Sequence[str]) -> NDArray[np.uint8]:
        """Codes of names, uint8 (n,); new ones are entered while there is room."""
        known = self._codes
        try:
            return np.fromiter(map(known.__getitem__, names), np.uint8, len(names))
        except KeyError:
            for name in names:
                if name not in known and len(self.names) < self._most:
                    self._add(name)
            self._refresh()
        return np.array([known.get(name, OTHERS) for name in names], dtype=np.uint8)

    def _add(self, name: str) -> None:
        self._codes[name] = len(self.names)
        self.names.append(name)

    def _refresh(self) -> None:
        self.tiers = np.array([tier_of(self._trust, name) for name in self.names], dtype=np.int8)
        self.order = np.argsort(np.argsort(np.array(self.names)))
