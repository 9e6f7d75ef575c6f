"""Which feature vectors drift is judged by: all of few, an even sample of many."""

from __future__ import annotations

from collections.abc import Sequence
from zlib import crc32

import msgspec
import numpy as np
from numpy.typing import NDArray

ENOUGH = 20_000
"""Vectors per period that are enough. The law of the population stability index lets it pass 0.003 without a change
once in 100,000 (20 bins, a large reference); a change that matters is far above. More rows cost much and show no more."""
_MIX = np.uint32(0x9E3779B1)
"""Odd number near 2**32 over the golden ratio (Knuth, The Art of Computer Programming 3, section 6.4): its product
carries, so that the ids of a sequence, whose checksums differ by fixed patterns of bits, fall evenly."""


class VectorSample(msgspec.Struct):
    """One of `2**shift` events, chosen by its id: the same in every replay, in whatever order events come.

    The share follows from the period before and holds for a whole period, so that every hour of it counts alike.

    Attributes:
        rows: Events of this period so far, sampled or not.
        shift: Binary logarithm of how many events there are to each that is sampled.
    """

    rows: int = 0
    shift: int = 0

    def take(self, event_ids: Sequence[str]) -> NDArray[np.intp]:  # hot path
        """Takes note of events; gives the places of those that are sampled, intp (k,), ascending."""
        self.rows += len(event_ids)
        if self.shift == 0:
            return np.arange(len(event_ids))
        sums = np.fromiter(map(crc32, map(str.encode, event_ids)), np.uint32, len(event_ids))
        return np.flatnonzero((sums * _MIX) >> np.uint32(32 - self.shift) == 0)

    def next_period(self) -> None:
        """Begins a period: as many events as in the last one would give at least `ENOUGH` vectors."""
        self.shift = max((self.rows // ENOUGH).bit_length() - 1, 0)
        self.rows = 0
