"""What the training data looked like, for telling later whether it still does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 20


def reference_of(names: Sequence[str], rows: NDArray[np.float32], scores: NDArray[np.float64]) -> dict[str, Any]:
    """Histograms of every feature and of the scores, over quantiles of their own.

    Args:
        names: Columns of `rows`, in order.
        rows: float32 (n, d), NaN = missing.
        scores: float64 (n,), as they would be published.
    """
    features = {name: _histogram(rows[:, at]) for at, name in enumerate(names)}
    return {"rows": len(rows), "features": features, "score": _histogram(scores)}


def _histogram(values: NDArray[np.floating]) -> dict[str, Any]:
    present = values[~np.isnan(values)].astype(np.float64)
    edges = np.unique(np.quantile(present, np.linspace(0.0, 1.0, BINS + 1)[1:-1])) if present.size else np.empty(0)
    counts = np.bincount(np.searchsorted(edges, present, side="right"), minlength=len(edges) + 1)
    return {"edges": edges.tolist(), "counts": counts.tolist(), "nulls": int(len(values) - len(present))}
