"""Judging the age of online rows: what is used, what is replaced by defaults, and what is said of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tailrace.core.plan import WindowView


class Judged(NamedTuple):
    """Rows of one view as they may be used.

    `states` are the packed states, None where the row must not be used; `ages_ms` int64 (n,), -1
    where there is no row; `stale` bool (n,) marks rows that were replaced.
    """

    states: list[bytes | None]
    ages_ms: NDArray[np.int64]
    stale: NDArray[np.bool_]


def judge(
    view: WindowView,
    states: Sequence[bytes | None],
    timestamps_ms: NDArray[np.int64],
    as_of_ms: NDArray[np.int64],
) -> Judged:
    """Applies a view's freshness rule.

    A row written for a later moment than the event has age 0: labels may run ahead of events.
    Without a rule any age is good, and no row means that nothing has happened yet.

    Args:
        view: The view; `fresh_within_ms` is its rule.
        states: Packed state per event, None where the key has no row.
        timestamps_ms: int64 (n,), time of the rows, -1 where there is none.
        as_of_ms: int64 (n,), time of the events.
    """
    absent = timestamps_ms < 0
    ages = np.where(absent, -1, np.maximum(as_of_ms - timestamps_ms, 0))
    if view.fresh_within_ms is None:
        return Judged(list(states), ages, np.zeros(len(ages), dtype=np.bool_))
    stale = absent | (ages > view.fresh_within_ms)
    return Judged([None if bad else state for bad, state in zip(stale, states, strict=True)], ages, stale)
