"""Which labels are in quarantine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tailrace.contracts.retraining import Quarantined

FOREVER_MS = 2**62


def distrusted(
    spans: Sequence[Quarantined], names: Sequence[str], source: NDArray[np.integer], times_ms: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Which labels fall into quarantines, bool (n,).

    Args:
        spans: The quarantines.
        names: Sources by code.
        source: int (n,), codes of who reported the labels.
        times_ms: int64 (n,), times of their events, epoch milliseconds.
    """
    found = np.zeros(len(source), np.bool_)
    for span in spans:
        if span.source in names:
            until_ms = span.until_ms if span.until_ms is not None else FOREVER_MS
            found |= (source == names.index(span.source)) & (span.since_ms <= times_ms) & (times_ms < until_ms)
    return found
