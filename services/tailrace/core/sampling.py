"""Choosing the rows a model is trained, calibrated and judged on: mature, each once, in time order."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
COMPLETE = 0.98
"""Share of an hour's predictions with labels from which it counts as complete before its windows have closed."""
MISSING = 0.05
"""Share of closed predictions that may lack a label, as those do that were evicted."""
HELD_ROWS = 2_000
HELD_SHARES = (0.05, 0.1)
"""How much is held back, once to calibrate and once for the gates: `HELD_ROWS` and a whole day of events, but within
these shares. Less, and the gates judge noise, or the afternoon only; more, and the model does not know the newest
days (docs/adr/0007)."""


class DataSet(NamedTuple):
    """Rows in time order.

    `rows` float32 (n, d) in plan order, NaN = missing; `labels` bool (n,); `times_ms` int64 (n,). `targets`
    float64 (n,), None where every label is final: 0 or 1 for those that are, and else how many positive labels
    one that has come stands for, 1 or more, or 0 while none has. Where numbers are predicted, `targets` are those.
    `distrusted` bool (n,), None for none: labels of sources in quarantine. `draws` float64 (n,) in [0, 1) follow from the
    prediction ids; None where negatives are not sampled.
    """

    rows: NDArray[np.float32]
    labels: NDArray[np.bool_]
    times_ms: NDArray[np.int64]
    targets: NDArray[np.float64] | None = None
    distrusted: NDArray[np.bool_] | None = None
    draws: NDArray[np.float64] | None = None

    @property
    def answers(self) -> NDArray[np.bool_] | NDArray[np.float64]:
        """What a model is fitted to: the targets where there are any, else the labels."""
        return self.labels if self.targets is None else self.targets

    def since(self, time_ms: int) -> DataSet:
        """Rows from a time on."""
        return self.where(slice(int(np.searchsorted(self.times_ms, time_ms)), None))

    @property
    def trusted(self) -> DataSet:
        """Rows whose labels are trusted."""
        return self if self.distrusted is None else self.where(~self.distrusted)

    def where(self, which: NDArray[np.bool_] | NDArray[np.int64] | slice) -> DataSet:
        """Some of the rows, by a mask, places or a span."""
        return DataSet._make(None if column is None else column[which] for column in self)

    @staticmethod
    def joined(older: DataSet, newer: DataSet) -> DataSet:
        """Rows of both, which have the same columns."""
        pairs = zip(older, newer, strict=True)
        return DataSet._make(None if a is None or b is None else np.concatenate((a, b)) for a, b in pairs)

    def newest(self, count: int) -> DataSet:
        """So many rows, or all there are."""
        return self.where(slice(max(len(self.labels) - count, 0), None))


class Split(NamedTuple):
    """The parts of a data set, the oldest first. The gates see rows that nothing was fitted to."""

    fit: DataSet
    calibration: DataSet
    gates: DataSet


def newest_labels(
    codes: NDArray[np.int64], versions: NDArray[np.int64], known_at_ms: NDArray[np.int64], until_ms: int
) -> NDArray[np.int64]:
    """The label version of each prediction that held at a time, from all there are.

    Args:
        codes: int64 (m,), number of the prediction each version speaks of.
        versions: int64 (m,); the highest that was known holds.
        known_at_ms: int64 (m,), epoch milliseconds of stream time.
        until_ms: Later versions are not looked at.

    Returns:
        Positions int64 (k,), by ascending code.
    """
    known = np.flatnonzero(known_at_ms <= until_ms)
    order = known[np.lexsort((versions[known], codes[known]))]
    newest = np.ones(len(order), dtype=np.bool_)
    newest[:-1] = codes[order][1:] != codes[order][:-1]
    return order[newest]


class Maturity(NamedTuple):
    """How far the labels of predictions have come; masks bool (n,) of the predictions.

    `mature` are those that can be trained on: their windows have closed, or all their hour has its labels. `early`
    have a final label while others of their hour still wait: labels of those reported first. `missing` should have
    a label, since their windows have closed, and have none.
    """

    mature: NDArray[np.bool_]
    early: NDArray[np.bool_]
    missing: NDArray[np.bool_]


def maturity(
    times_ms: NDArray[np.int64],
    final: NDArray[np.bool_],
    censored: NDArray[np.bool_],
    *,
    until_ms: int,
    wait_ms: int,
) -> Maturity:
    """Which predictions have the labels that they will have, so that no class of them is there before the other.

    Args:
        times_ms: int64 (n,), when the predictions were made.
        final: bool (n,), whether their labels are final.
        censored: bool (n,), whether it is known that they will never have one.
        until_ms: Stream time.
        wait_ms: How long a label can take to become final.
    """
    closed = times_ms + wait_ms <= until_ms
    answered = final | censored
    _, hour = np.unique(times_ms // HOUR_MS, return_inverse=True)
    served, known = np.bincount(hour), np.bincount(hour, weights=answered)
    complete = (known >= COMPLETE * served)[hour]
    mature = final & (closed | complete)
    return Maturity(mature, final & ~mature, closed & ~answered)


def biased(found: Maturity, positive: NDArray[np.bool_]) -> str:
    """Why labels are no sample of what they will be, "" if they are.

    Args:
        found: How far they have come.
        positive: bool (n,), whether a label is positive; False where there is none.
    """
    expected = int(found.mature.sum() + found.missing.sum())
    missing = int(found.missing.sum())
    if missing > MISSING * expected:
        return (
            f"{missing} of {expected} predictions whose attribution window has closed have no label: those that have "
            "one are no sample of them; let feedback catch up with its topics, or see what it evicted"
        )
    if not found.mature.any() and found.early.any():
        share = float(positive[found.early].mean())
        return (
            f"all {int(found.early.sum())} final labels ({share:.0%} positive) are of hours in which other predictions "
            "still wait for theirs: a model would learn who is reported first; wait until their windows have closed"
        )
    return ""


def split_by_time(data: DataSet) -> Split:
    """Cuts a data set in time order: the newest rows for the gates, as many before them to calibrate, the rest to fit."""
    count = len(data.labels)
    least, most = (int(count * share) for share in HELD_SHARES)
    newest_day = int((data.times_ms > data.times_ms[-1] - DAY_MS).sum()) if count else 0
    held = min(max(HELD_ROWS, newest_day, least), most)
    first, second = count - 2 * held, count - held
    return Split(*(data.where(slice(*span)) for span in ((0, first), (first, second), (second, count))))
