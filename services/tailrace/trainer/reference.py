"""What the training data looked like, for telling later whether it still does."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from tailrace.core.dispersion import dispersions
from tailrace.core.e_detector import Baseline
from tailrace.core.plan import Plan
from tailrace.core.reference import HOUR_MS, HOURS_OF_WEEK, MONDAY_MS, Distribution, Reference, groups_of

FORMAT = 2
BINS = 80
"""Bins of a number: enough to see with a Kolmogorov-Smirnov test what one on the values would see. Four of
them make one of the twenty that the population stability index is taken over."""
SEASON_MS = 14 * 24 * HOUR_MS
"""Span from which hours of the week are told apart: each was there twice, so that one odd Monday is no rule."""
SEASON_ROWS = 50
"""Rows of an hour of the week, on average, from which they are told apart."""
CALENDAR = frozenset({"hour_of_day", "day_of_week", "is_weekend", "is_night"})
"""Kinds of columns that follow from the clock: every Saturday would be drift."""
CATEGORIES = frozenset({"one_hot", "category"})


def reference_of(
    plan: Plan,
    rows: NDArray[np.float32],
    scores: NDArray[np.float64],
    times_ms: NDArray[np.int64] | None = None,
    losses: dict[str, Baseline] | None = None,
) -> dict[str, Any]:
    """Histograms of every feature but the calendar's, and of the scores, over quantiles of their own.

    Args:
        plan: Plan of the rows.
        rows: float32 (n, d) in plan order, NaN = missing.
        scores: float64 (n,), as they would be published.
        times_ms: int64 (n,), event times in epoch milliseconds; None: nothing is told of hours of the week, and rows
            are taken to be independent.
        losses: The model's losses on rows it was not fitted to, by metric.
    """
    kinds = {column.name: column.kind for column in plan.request}
    columns = {name: rows[:, at] for at, name in enumerate(plan.order) if kinds.get(name) not in CALENDAR}
    hours = _Hours.of(times_ms) if times_ms is not None else None
    found = [
        _distribution(values, hours, "category" if kinds.get(name) in CATEGORIES else "number")
        for name, values in columns.items()
    ]
    found.append(_distribution(scores, hours, "number"))
    known = [one for one, _ in found]
    if hours is not None:
        spread = dispersions([of for _, of in found], hours.known, [False, True] if hours.tell else [False])
        known = [msgspec.structs.replace(one, dispersions=of) for one, of in zip(known, spread, strict=True)]
    *described, score = known
    features = dict(zip(columns, described, strict=True))
    made = Reference(format=FORMAT, rows=len(rows), features=features, score=score, losses=losses or {})
    return dict(msgspec.to_builtins(made))


class _Hours(NamedTuple):
    """Hours with rows since a Monday 00:00 UTC, int64 (h,), and which of them each row is in, int64 (n,).

    `tell` says whether hours of the week are told apart.
    """

    known: NDArray[np.int64]
    place: NDArray[np.int64]
    tell: bool

    @staticmethod
    def of(times_ms: NDArray[np.int64]) -> _Hours:
        known, place = np.unique((times_ms - MONDAY_MS) // HOUR_MS, return_inverse=True)
        tell = len(times_ms) >= SEASON_ROWS * HOURS_OF_WEEK and bool(np.ptp(times_ms) >= SEASON_MS)
        return _Hours(known, place, tell)

    def counts(self, bins: NDArray[np.int64], width: int) -> NDArray[np.int64]:
        """Rows by hour and bin, int64 (h, width)."""
        cells = np.bincount(self.place * width + bins, minlength=len(self.known) * width)
        return cells.reshape(len(self.known), width)


def _distribution(
    values: NDArray[np.floating], hours: _Hours | None, kind: Literal["number", "category"]
) -> tuple[Distribution, NDArray[np.int64]]:
    """What is known of one column, and its rows by hour and group, int64 (h, g)."""
    missing = np.isnan(values)
    present = values[~missing].astype(np.float64)
    if kind == "category":
        edges, seen = np.unique(present, return_counts=True)
    else:
        edges, seen = _quantiles(present, np.linspace(0.0, 1.0, BINS + 1)[1:-1]), np.empty(0, np.int64)
    width = len(edges) + 2
    bins = np.where(missing, width - 1, np.searchsorted(edges, values, side="right"))
    counts = np.bincount(bins, minlength=width)
    by_hour: list[list[int]] = []
    if hours is not None and hours.tell:
        season = np.zeros((HOURS_OF_WEEK, width), np.int64)
        np.add.at(season, hours.known % HOURS_OF_WEEK, hours.counts(bins, width))
        by_hour = season.tolist()
    found = Distribution(
        edges=edges.tolist(),
        counts=counts[:-1].tolist(),
        nulls=int(counts[-1]),
        kind=kind,
        low=float(present.min()) if present.size else None,
        high=float(present.max()) if present.size else None,
        scale=_scale(present),
        rare=int((seen == 1).sum()),
        hours=by_hour,
    )
    groups = groups_of(found)
    return found, hours.counts(groups[bins], int(groups[-1]) + 1) if hours is not None else np.empty(0, np.int64)


def _quantiles(present: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.unique(np.quantile(present, at)) if present.size else np.empty(0)


def _scale(present: NDArray[np.float64]) -> float | None:
    if not present.size:
        return None
    low, high = np.quantile(present, (0.25, 0.75))
    return float(high - low) or float(present.std()) or None
