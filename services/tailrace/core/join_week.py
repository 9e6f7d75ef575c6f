"""What the outcomes of an hour are held against: the last seven days at the same hour of the day, and the last hours."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

WEEK_HOURS = 168
LEAST_OUTCOMES = 100
"""Outcomes of the week, at an hour of the day or in all, from which they can be held against."""
LEAST_HOURS = 24
RECENT_HOURS = 3
Z = 1.645
BLOCKS_H = (1, 6, 24)
CLUSTERED = 0.01
"""Blocks of so many hours tell whether positives come in runs, as those of a price that is up all day do: where shares
differ by more than chance, at this level, counts tell by so much less."""


class Week(NamedTuple):
    """What the last seven days were like at an hour of the day.

    `level` are outcomes a minute in the hour before, this hour and the hour after; `today` is by how much more
    there were in the last hours than those of the week would have had. The rest are counts of the week at this hour,
    and `runs`, by how much more than by chance the shares of positives differed from one part of the week to another.
    """

    level: tuple[float, float, float]
    today: float
    predictions: int
    outcomes: int
    positives: int
    runs: float = 1.0


def last_week(known: dict[int, list[int]], hour: int, today: float | None) -> Week | None:
    """What an hour is held against; None while too little is known.

    Args:
        known: Predictions, outcomes that found theirs, and positive ones among them, by hour since the epoch.
        hour: The hour.
        today: What `Week.today` was when outcomes became fewer, while they are: a break would hide itself. None if not.
    """
    before = [at for at in known if at < hour]
    if not before or hour - min(before) < LEAST_HOURS:
        return None
    first = min(before)

    def usual(of: int) -> NDArray[np.float64]:
        """Mean counts of an hour of the day."""
        days = [at for at in range(of - WEEK_HOURS, hour) if at >= first and (of - at) % 24 == 0]
        total = np.sum([known.get(at, [0, 0, 0]) for at in days], axis=0)
        return np.asarray([*total, len(days)], dtype=np.float64)

    around = [usual(hour + shift) for shift in (-1, 0, 1)]
    predictions, outcomes, positives, _ = np.sum(around, axis=0).tolist()
    level = [float(counts[1] / counts[3] / 60.0) for counts in around]
    if outcomes < LEAST_OUTCOMES:
        every = np.sum([known[at] for at in before], axis=0).tolist()
        predictions, outcomes, positives = every
        level = [outcomes / (hour - first) / 60.0] * 3
    if outcomes < LEAST_OUTCOMES or not predictions:
        return None
    recent = range(hour - RECENT_HOURS, hour)
    expected = sum(float(counts[1] / counts[3]) for counts in map(usual, recent))
    came = sum(known.get(at, [0, 0, 0])[1] for at in recent)
    # What the day was like so far tells more than other days do, where it tells anything.
    if today is None:
        today = _lower(came) / expected if expected >= LEAST_OUTCOMES else _lower(outcomes) / outcomes
    older = [at for at in before if at < hour - 24]  # a break would hide itself
    runs = _runs({at: known[at] for at in (older if len(older) >= 2 * LEAST_HOURS else before)})
    return Week((level[0], level[1], level[2]), today, int(predictions), int(outcomes), int(positives), runs)


def _lower(count: float) -> float:
    """Lower bound of the mean of a Poisson count."""
    return count + Z * Z / 2.0 - Z * math.sqrt(count + Z * Z / 4.0)


def _runs(hours: dict[int, list[int]]) -> float:
    """By how much more than independent outcomes the shares of positives differ between blocks of hours."""
    at, counts = np.array(list(hours)), np.array(list(hours.values()), dtype=np.float64)
    share, worst = counts[:, 2].sum() / max(counts[:, 1].sum(), 1.0), 1.0
    for width in BLOCKS_H if 0.0 < share < 1.0 else ():
        block = at // width - at.min() // width
        n, hits = (np.bincount(block, weights=counts[:, place]) for place in (1, 2))
        n, hits = n[n > 0.0], hits[n > 0.0]
        freedom = len(n) - 1
        statistic = float(((hits - share * n) ** 2 / (share * (1.0 - share) * n)).sum())
        if freedom > 0 and special.chdtrc(freedom, statistic) < CLUSTERED:
            worst = max(worst, statistic / freedom)
    return worst
