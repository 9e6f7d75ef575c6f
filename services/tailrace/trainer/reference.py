"""What the training data looked like, for telling later whether it still does."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tailrace.core.plan import Plan

BINS = 20
CALENDAR = frozenset({"hour_of_day", "day_of_week", "is_weekend", "is_night"})
"""Kinds of columns that follow from the clock: every Saturday would be drift."""


def reference_of(plan: Plan, rows: NDArray[np.float32], scores: NDArray[np.float64]) -> dict[str, Any]:
    """Histograms of every feature but the calendar's, and of the scores, over quantiles of their own.

    Args:
        plan: Plan of the rows.
        rows: float32 (n, d) in plan order, NaN = missing.
        scores: float64 (n,), as they would be published.
    """
    calendar = {column.name for column in plan.request if column.kind in CALENDAR}
    features = {name: _histogram(rows[:, at]) for at, name in enumerate(plan.order) if name not in calendar}
    return {"rows": len(rows), "features": features, "score": _histogram(scores)}


def _histogram(values: NDArray[np.floating]) -> dict[str, Any]:
    present = values[~np.isnan(values)].astype(np.float64)
    edges = np.unique(np.quantile(present, np.linspace(0.0, 1.0, BINS + 1)[1:-1])) if present.size else np.empty(0)
    counts = np.bincount(np.searchsorted(edges, present, side="right"), minlength=len(edges) + 1)
    return {"edges": edges.tolist(), "counts": counts.tolist(), "nulls": int(len(values) - len(present))}
