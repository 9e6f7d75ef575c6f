"""Drift of features and scores: what came since the last look against the champion's training data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tailrace.core.drift_findings import PSIFinding, find
from tailrace.core.drift_kernels import count_values
from tailrace.core.monitors import PSI
from tailrace.core.reference import Distribution, Reference

SCORE = "score"

Counts = NDArray[np.int64]


class PSIState:
    """Counts of the present look against those of the champion's training data.

    Args:
        spec: Bounds.
        names: Columns of the matrix, in order.
        reference: A bundle's `reference.json`; None: nothing is judged.
        snapshot: Counts to go on from.
    """

    def __init__(
        self,
        spec: PSI,
        names: Sequence[str],
        reference: Mapping[str, Any] | None,
        snapshot: Mapping[str, Any] | None = None,
    ) -> None:
        self._spec = spec
        known = Reference.read(reference or {})
        places = {name: at for at, name in enumerate(names) if name in known.features}
        self._names = list(places)
        self._features = _Counters([known.features[name] for name in places], list(places.values()))
        self._score = _Counters([known.score] if known.score is not None else [], [0])
        # Loads the compiled loop now and not amid the traffic.
        self.observe(np.empty((0, len(names)), np.float32), np.empty(0))
        for name, counts in (snapshot or {}).items():
            own = self._own(name)
            # Up to format 1 values that are not known were not counted.
            if own is not None and len(counts) in (len(own), len(own) - 1):
                own[: len(counts)] = counts

    def observe(self, matrix: NDArray[np.float32], scores: NDArray[np.float64]) -> None:  # hot path
        """Counts rows.

        Args:
            matrix: float32 (n, d), NaN = missing.
            scores: float64 (n,).
        """
        self._features.observe(matrix)
        self._score.observe(scores.reshape(-1, 1))

    def evaluate(self, since_ms: int, until_ms: int) -> list[PSIFinding]:
        """Every subject with how far it is from the reference; none below `MIN_ROWS` rows.

        Args:
            since_ms: Event time of the beginning of the look, epoch milliseconds.
            until_ms: Its end. The longer it is, the more of the false alarms it may make.
        """
        subjects = [(name, *part) for name, part in zip(self._names, self._features.parts(), strict=True)]
        subjects += [(SCORE, *part) for part in self._score.parts()]
        return find(self._spec, subjects, since_ms, until_ms)

    def reset(self) -> None:
        """Begins a new look."""
        self._features.counts[:] = 0
        self._score.counts[:] = 0

    def snapshot(self) -> dict[str, Any]:
        """Counts to store: of each bin, of missing values, and of those that are not known."""
        own = {name: self._own(name) for name in [*self._names, SCORE]}
        return {name: counts.tolist() for name, counts in own.items() if counts is not None}

    def _own(self, name: str) -> Counts | None:
        if name == SCORE:
            return next((counts for _, counts in self._score.parts()), None)
        parts = dict(zip(self._names, self._features.parts(), strict=True))
        return parts[name][1] if name in parts else None


class _Counters:
    """Counts of several columns, as one array for the compiled loop."""

    def __init__(self, known: list[Distribution], columns: list[int]) -> None:
        self._known = known
        self._columns = np.array(columns[: len(known)], dtype=np.int64)
        self._edges = np.array([edge for one in known for edge in one.edges], dtype=np.float64)
        self._first_edge = np.cumsum([0, *(len(one.edges) for one in known)])
        # What is not known to be the smallest or the largest is bounded by nothing.
        self._low = np.array([_low(one) for one in known], dtype=np.float64)
        self._high = np.array([np.inf if one.high is None else one.high for one in known], dtype=np.float64)
        self.counts: Counts = np.zeros(len(self._edges) + 3 * len(known), np.int64)

    def observe(self, matrix: NDArray[np.floating]) -> None:  # hot path
        count_values(matrix, self._columns, self._edges, self._first_edge, self._low, self._high, self.counts)

    def parts(self) -> list[tuple[Distribution, Counts]]:
        """Of each column what is known of it, and its counts: a view."""
        starts = self._first_edge + 3 * np.arange(len(self._first_edge))
        return [
            (known, self.counts[start:end])
            for known, start, end in zip(self._known, starts[:-1], starts[1:], strict=True)
        ]


def _low(known: Distribution) -> float:
    if known.kind == "category":
        return np.nan
    return -np.inf if known.low is None else known.low
