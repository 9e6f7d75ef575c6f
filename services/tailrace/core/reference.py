"""What a champion's training data looked like: its bundle's `reference.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from tailrace.core.e_detector import Baseline

HOURS_OF_WEEK = 168
HOUR_MS = 3_600_000
GROUPS = 20
MONDAY_MS = 4 * 24 * HOUR_MS
"""The first Monday of 1970, 00:00 UTC."""


class Dispersion(msgspec.Struct, frozen=True, kw_only=True):
    """How far spans of the training data are from one another beyond what independent rows would be.

    `bins` is the excess of the mean square of how shares of bins differ from one span to the next, where `seasonal`
    once those of the same hours of the week are taken off, in the unit in which it is 1/rows for independent rows;
    `steps` that of the distribution function. `spans` says how many there are, `freedom` to how many degrees the excess
    is known in one direction of the bins. At most a part `top` in (0, 1] of `bins` lies in the same direction.
    """

    span_ms: int
    seasonal: bool
    spans: int
    freedom: float
    bins: float
    steps: float
    top: float = 1.0


class Distribution(msgspec.Struct, frozen=True, kw_only=True):
    """Values of one feature, or of the score.

    `edges` cut the line into bins, a value on an edge counting above it; those of a category are its known
    codes. `counts` has one entry more than `edges`; `nulls` counts missing values. `low` and `high` are the
    smallest and the largest value, `scale` the range between the quartiles (the standard deviation where
    that is 0); None where an older release did not say. `rare` counts codes that were seen once only. `hours`
    holds by hour of the week, Monday 00:00 UTC first, `counts` and behind them `nulls`; [] where the training
    data are too few to tell, as `dispersions` is.
    """

    edges: list[float]
    counts: list[int]
    nulls: int
    kind: Literal["number", "category"] = "number"
    low: float | None = None
    high: float | None = None
    scale: float | None = None
    rare: int = 0
    hours: list[list[int]] = []
    dispersions: list[Dispersion] = []


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """Format 2. Format 1 had neither a number nor what has a default here.

    `losses` are those of the champion on the rows of its gates, by metric.
    """

    format: int = 1
    rows: int = 0
    features: dict[str, Distribution] = {}
    score: Distribution | None = None
    losses: dict[str, Baseline] = {}

    @staticmethod
    def read(reference: Mapping[str, Any]) -> Reference:
        """Reads what a bundle holds; empty: nothing is known."""
        return msgspec.convert(reference, Reference)


def hour_of_week(time_ms: NDArray[np.int64]) -> NDArray[np.int64]:
    """Hours of the week, int64 (n,) in [0, 168), of times in epoch milliseconds; 0 is Monday 00:00 to 01:00 UTC."""
    return (time_ms - MONDAY_MS) // HOUR_MS % HOURS_OF_WEEK


def groups_of(known: Distribution) -> NDArray[np.int64]:
    """To which of at most twenty groups of about as many training rows each bin belongs; the missing to one more."""
    counts = np.array(known.counts, dtype=np.int64)
    middles = np.cumsum(counts) - counts / 2.0
    groups = np.unique(
        np.minimum(middles * GROUPS / max(int(counts.sum()), 1), GROUPS - 1).astype(np.int64), return_inverse=True
    )[1]
    return np.append(groups, groups.max() + 1)
