"""When events arrive: timetables that are fixed before the first event is sent."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Law = Literal["constant", "poisson"]


def arrivals(rate: float, duration_s: float, *, law: Law, seed: int) -> NDArray[np.float64]:
    """Intended send times of an open loop: they do not wait for what the system under test makes of them.

    Args:
        rate: Events per second, above 0.
        duration_s: Length, seconds.
        law: "constant": evenly spaced; "poisson": independent gaps, exponentially distributed.
        seed: Same seed, same timetable; without effect where the law is constant.

    Returns:
        float64 (n,), seconds since the start, in [0, duration_s), ascending.
    """
    if law == "constant":
        return np.arange(int(rate * duration_s), dtype=np.float64) / rate
    rng = np.random.default_rng(seed)
    expected = rate * duration_s
    # Ten standard deviations above the mean: the gaps reach past the end in any case that will ever be seen.
    gaps = rng.exponential(1.0 / rate, int(expected + 10 * np.sqrt(expected) + 10))
    times = np.cumsum(gaps)
    return times[times < duration_s]


def share_of(count: int, part: int, parts: int) -> range:
    """Places in the timetable that one of several processes serves: every `parts`-th, beginning at `part`."""
    return range(part, count, parts)
