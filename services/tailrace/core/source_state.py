"""What is known of the sources of labels, as it is stored: how each differs from others, and what is held against it."""

from __future__ import annotations

import msgspec

from tailrace.contracts.retraining import Quarantined
from tailrace.core.source_bets import Bets, Pairs
from tailrace.core.source_days import DaysData

MATERIAL = 0.02
"""Share of a source's labels, beyond what is usual, that nobody is called for."""
MOST_USUAL = 0.1
"""A source that contradicts more than this from its first label on is not usual but wrong."""
LEAST_PAIRS = 200
"""Pairs from which it is known how a source differs from others; before, nothing is betted."""
LOOK, Z = 1.5, 1.645


class Standing(msgspec.Struct):
    """A finding that stands, and the statistic of its end."""

    since_ms: int
    value: float
    limit: float
    statistic: float = 0.0


class SourceState(msgspec.Struct):
    """What is known of a source: the moments of its differences, the bound of those, and the bets."""

    pairs: int = 0
    moved: float = 0.0
    squares: float = 0.0
    room: float = 0.0
    look_at: int = LEAST_PAIRS
    bound: float = MOST_USUAL
    flips: Bets = msgspec.field(default_factory=Bets)
    standing: dict[str, Standing] = {}

    @property
    def usual(self) -> float:
        """Share of its labels by which it contradicts more than others; where it contradicts less, it need not."""
        return max(self.moved / self.room, 0.0) if self.pairs >= LEAST_PAIRS else MOST_USUAL

    @property
    def limit(self) -> float:
        """Mean difference that is allowed."""
        return self.bound + MATERIAL

    def learn(self, found: Pairs) -> None:
        """Takes differences in; the bound is taken anew when they have grown by half, and kept where it is lower."""
        self.pairs += len(found.differences)
        self.moved += float(found.differences.sum())
        self.squares += float(found.differences @ found.differences)
        self.room += found.room
        if self.pairs >= self.look_at:
            self.look_at = int(LOOK * self.pairs)
            upper = (self.moved + Z * self.squares**0.5) / max(self.room, 1.0)
            self.bound = min(self.bound, max(upper, 0.0))


class LabelSourcesData(msgspec.Struct):
    """State as it is stored; `judged_ms` is the first hour that is still to be judged, by event time.

    `labels` and `positives` count final labels by cell of the score; `spans` are the quarantines.
    """

    judged_ms: int = -1
    labels: list[float] = []
    positives: list[float] = []
    sources: dict[str, SourceState] = {}
    days: DaysData = msgspec.field(default_factory=DaysData)
    spans: list[Quarantined] = []
