"""Metrics of windows, of whatever they count."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tailrace.core.amounts import metrics_of_amounts
from tailrace.core.influence import sampling_intervals
from tailrace.core.metrics import ScoreHistogram
from tailrace.core.provisional import Histogram
from tailrace.core.regression import error_intervals, metrics_of_errors
from tailrace.core.top_predictions import mean_precision
from tailrace.core.window_extras import Extras
from tailrace.core.window_spec import WindowSpec


def histogram_of(counted: ScoreHistogram) -> Histogram:
    """Counts as columns."""
    return Histogram(*(np.array(column, dtype=np.int64) for column in counted.sparse()))


def metrics_of_window(spec: WindowSpec, counted: ScoreHistogram, threshold: float) -> dict[str, float | None]:
    """Metrics of what windows together have counted, scores or errors."""
    grid = spec.grid
    if grid is None:
        return counted.metrics(threshold=threshold)
    found = metrics_of_errors(*histogram_of(counted), step=grid.step, quantile=grid.quantile)
    return found | {"error_step": grid.step, "quantile": grid.quantile}


def intervals_of_window(spec: WindowSpec, counted: ScoreHistogram, threshold: float) -> dict[str, list[float]]:
    """95 % intervals of what the metrics of as many other labels would be."""
    grid = spec.grid
    if grid is None:
        return sampling_intervals(*histogram_of(counted), threshold=threshold)
    return error_intervals(*histogram_of(counted), step=grid.step, quantile=grid.quantile)


def metrics_of_extras(
    spec: WindowSpec, windows: Sequence[tuple[int, Extras]], threshold: float
) -> dict[str, float | None]:
    """Metrics of amounts and first names over windows together, each with the day it begins on."""
    found: dict[str, float | None] = {}
    if spec.weighted:
        total = ScoreHistogram()
        for _, extras in windows:
            if extras.amounts is not None:
                total.add_histogram(extras.amounts)
        found |= metrics_of_amounts(*histogram_of(total), threshold=threshold)
    lists = [(start_ms, extras.top.entries()) for start_ms, extras in windows if extras.top is not None]
    if lists:
        found["top_precision"] = mean_precision(lists, spec.top, distinct=spec.distinct)
    return found


def fields_of_extras(spec: WindowSpec, counted: ScoreHistogram, extras: Extras) -> dict[str, Any]:
    """What a `Quality` record says of amounts and first names."""
    found: dict[str, Any] = {}
    if extras.amounts is not None:
        bins, n, positives = extras.amounts.sparse()
        at_stake = dict(zip(bins, zip(n, positives, strict=True), strict=True))
        # Where all amounts are nothing, the histogram of amounts has no entry.
        pairs = [at_stake.get(place, (0, 0)) for place in counted.sparse()[0]]
        found |= {"amounts": [pair[0] for pair in pairs], "positive_amounts": [pair[1] for pair in pairs]}
    if extras.top is not None:
        found |= {"top": extras.top.entries(), "top_size": spec.top, "top_distinct": spec.distinct}
    return found
