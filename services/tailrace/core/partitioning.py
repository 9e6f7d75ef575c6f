"""Which partition a key decides on, as Kafka's clients choose it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

_SEED = 0x9747B28C


def partitions_of(keys: Sequence[bytes], partitions: int) -> NDArray[np.int64]:
    """Partition of each key, int64 (n,): murmur2 as in Kafka's Java client (Appleby 2008), sign bit cleared."""
    bounds = np.zeros(len(keys) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, keys), np.int64, len(keys)), out=bounds[1:])
    hashes: NDArray[np.int64] = _murmur2(np.frombuffer(b"".join(keys), np.uint8), bounds)
    return (hashes & 0x7FFFFFFF) % partitions


@njit(cache=True)  # type: ignore[untyped-decorator,unused-ignore]  # numba ships no types
def _murmur2(raw: Any, bounds: Any) -> Any:
    out = np.empty(bounds.size - 1, np.int64)
    mask = np.uint64(0xFFFFFFFF)
    m = np.uint64(0x5BD1E995)
    for row in range(out.size):
        at, end = bounds[row], bounds[row + 1]
        h = np.uint64(_SEED) ^ np.uint64(end - at)
        while end - at >= 4:
            k = np.uint64(0)
            for byte in range(4):
                k |= np.uint64(raw[at + byte]) << np.uint64(8 * byte)
            k = (k * m) & mask
            k ^= k >> np.uint64(24)
            k = (k * m) & mask
            h = ((h * m) & mask) ^ k
            at += 4
        if end > at:
            for byte in range(end - at):
                h ^= np.uint64(raw[at + byte]) << np.uint64(8 * byte)
            h = (h * m) & mask
        h ^= h >> np.uint64(13)
        h = (h * m) & mask
        h ^= h >> np.uint64(15)
        out[row] = np.int64(h)
    return out
