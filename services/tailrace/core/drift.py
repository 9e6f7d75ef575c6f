"""Drift of features and scores: the population stability index, judged by its own law."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtri

from tailrace.core.loss_detectors import LossDetector, start_loss_detector
from tailrace.core.monitors import PSI

__all__ = ["LossDetector", "PSIFinding", "PSIState", "start_loss_detector"]

MIN_ROWS = 200
"""Rows below which no index is judged: its law is asymptotic."""
SMOOTHING = 0.5
SCORE = "score"


class PSIFinding(NamedTuple):
    """How far a subject's distribution is from the reference; drift where `value` > `threshold`.

    `edges` cut the line into bins; `reference` and `current` count rows by bin, the last of which takes the
    missing values.
    """

    subject: str
    value: float
    threshold: float
    rows: int
    edges: list[float]
    reference: list[int]
    current: list[int]


class _Subject:
    """Bins of one feature, or of the score: `edges` cut the line, one more bin takes the missing values."""

    def __init__(self, reference: Mapping[str, Any]) -> None:
        self.edges = np.asarray(reference["edges"], dtype=np.float64)
        self.reference = np.append(np.asarray(reference["counts"], dtype=np.int64), int(reference["nulls"]))
        self.counts = np.zeros_like(self.reference)

    def observe(self, values: NDArray[np.floating]) -> None:
        missing = np.isnan(values)
        bins = np.searchsorted(self.edges, values[~missing], side="right")
        self.counts += np.bincount(bins, minlength=len(self.counts))
        self.counts[-1] += int(missing.sum())

    def index(self) -> tuple[float, int]:
        """Population stability index and the number of bins that hold anything at all."""
        used = (self.reference + self.counts) > 0
        was, is_now = self.reference[used] + SMOOTHING, self.counts[used] + SMOOTHING
        was, is_now = was / was.sum(), is_now / is_now.sum()
        return float(((is_now - was) * np.log(is_now / was)).sum()), int(used.sum())


class PSIState:
    """Counts of the present period against those of the champion's training data.

    Without change the index follows (1/n + 1/m) times chi-square with bins - 1 degrees of freedom
    (Yurdakul 2018, section 3), n and m the numbers of rows; a fixed bound means another thing at every n.

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
        self._subjects: dict[str, _Subject] = {}
        self._columns: dict[str, int] = {}
        if reference:
            known = reference["features"]
            self._columns = {name: at for at, name in enumerate(names) if name in known}
            self._subjects = {name: _Subject(known[name]) for name in self._columns}
            self._subjects[SCORE] = _Subject(reference["score"])
        for name, counts in (snapshot or {}).items():
            subject = self._subjects.get(name)
            if subject is not None and len(counts) == len(subject.counts):
                subject.counts = np.asarray(counts, dtype=np.int64)

    def observe(self, matrix: NDArray[np.float32], scores: NDArray[np.float64]) -> None:
        """Counts rows.

        Args:
            matrix: float32 (n, d), NaN = missing.
            scores: float64 (n,).
        """
        for name, at in self._columns.items():
            self._subjects[name].observe(matrix[:, at])
        if SCORE in self._subjects:
            self._subjects[SCORE].observe(scores)

    def evaluate(self) -> list[PSIFinding]:
        """Every subject with its index and the bound it has to pass, the larger of the two; none below `MIN_ROWS` rows."""
        rows = self._rows()
        if rows < MIN_ROWS:
            return []
        found = []
        for name, subject in self._subjects.items():
            value, bins = subject.index()
            spread = 1.0 / rows + 1.0 / max(int(subject.reference.sum()), 1)
            law = spread * float(chdtri(max(bins - 1, 1), self._spec.false_alarms / len(self._subjects)))
            threshold = max(self._spec.alarm, law)
            bins_of = (subject.edges, subject.reference, subject.counts)
            found.append(PSIFinding(name, value, threshold, rows, *(part.tolist() for part in bins_of)))
        return found

    def reset(self) -> None:
        """Begins a new period."""
        for subject in self._subjects.values():
            subject.counts[:] = 0

    def snapshot(self) -> dict[str, Any]:
        """Counts to store."""
        return {name: subject.counts.tolist() for name, subject in self._subjects.items()}

    def _rows(self) -> int:
        return int(self._subjects[SCORE].counts.sum()) if SCORE in self._subjects else 0
