"""Rows for the online store: of all that a fetch leads to, the newest by key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from tailrace.core.plan import WindowView

Update = tuple[list[str], NDArray[np.float64], NDArray[np.int64]]
"""Keys of n events, float64 (n, d) rows as of each, int64 (n,) event times."""


@dataclass
class RowWrite:
    """Rows of one view for the online store; arguments of `ports.OnlineStore.write`."""

    view: WindowView
    keys: list[str]
    values: NDArray[np.float64]
    timestamps_ms: NDArray[np.int64]
    state: list[bytes] | None = None


def newest(view: WindowView, updates: Sequence[Update]) -> RowWrite:
    """By key the row of the newest event, of the last one where times are equal, however a stream is cut into batches.

    One write for all partitions of a fetch: of few rows each, the round trips are what takes time.
    """
    keys = list(chain.from_iterable(update[0] for update in updates))
    values, times_ms = (np.concatenate([update[at] for update in updates]) for at in (1, 2))
    order = np.argsort(times_ms, kind="stable").tolist()
    last = {keys[at]: at for at in order}
    rows = np.fromiter(last.values(), np.int64, len(last))
    return RowWrite(view, list(last), values[rows], times_ms[rows])
