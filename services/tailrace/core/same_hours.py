"""Which of the training data a look is compared with: those of the same hours of the week, or all of them.

Those of the same hours are few: a look of a day at 5,000 rows would be compared with the three such days of twenty,
which costs a fifth of the independent rows. So all are taken for a feature of which the training data show no
difference between these hours and the others. With more rows of these hours than the look has they see one sooner than
it could be misled by it; with fewer the same hours stay. A season too weak to be seen in one feature is seen in many
together, so that it cannot add up over them. Rows that go together look like a season too; that costs rows, not false
alarms.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc

from tailrace.core.reference import HOUR_MS, HOURS_OF_WEEK, Distribution, groups_of, hour_of_week
from tailrace.core.two_samples import ks, psi

DIFFERENT = 0.05
"""Probability without a season at which hours are held to be different; of one feature, and of all together."""

Counts = NDArray[np.int64]


def covered(since_ms: int, until_ms: int) -> NDArray[np.float64]:
    """What a span covers of each hour of the week, over what it covers of any most; float64 (168,)."""
    cuts = np.array([since_ms, *range(since_ms // HOUR_MS * HOUR_MS + HOUR_MS, until_ms, HOUR_MS), until_ms])
    parts = np.bincount(hour_of_week(cuts[:-1]), weights=np.diff(cuts), minlength=HOURS_OF_WEEK)
    return np.asarray(parts / max(parts.max(), 1.0))


def references(
    known: Sequence[Distribution], season: NDArray[np.float64], rows: int, least_rows: int
) -> list[tuple[Counts, bool]]:
    """Rows of the training data by bin and behind them the missing ones, and whether only those of some hours.

    Args:
        known: Training data of each feature.
        season: Parts of the hours of the week that a look covers, float64 (168,).
        rows: Of the look.
        least_rows: Of hours with fewer all training data are taken.
    """
    whole = [np.array([*one.counts, one.nulls], dtype=np.int64) for one in known]
    same = [np.rint(season @ np.array(one.hours)).astype(np.int64) if one.hours else None for one in known]
    told = [own if own is not None and int(own.sum()) >= least_rows else None for own in same]
    chances = [_chances(one, own, of - own) for one, own, of in zip(known, told, whole, strict=True) if own is not None]
    apart = iter(_apart(np.array(chances).reshape(-1, 2)))
    return [
        (own, True) if own is not None and (next(apart) or int(own.sum()) < rows) else (of, False)
        for own, of in zip(told, whole, strict=True)
    ]


def _chances(known: Distribution, own: Counts, others: Counts) -> tuple[float, float]:
    """Probabilities of so different hours without a season, by both tests of the distribution."""
    groups = groups_of(known)
    was, now = (np.bincount(groups, weights=rows).astype(np.int64) for rows in (others, own))
    index = psi(was, now).p_value
    return index, ks(others[:-1], own[:-1]).p_value if known.kind == "number" else 1.0


def _apart(chances: NDArray[np.float64]) -> list[bool]:
    """Whether hours are different, of each feature; `chances` float64 (k, 2)."""
    least = DIFFERENT / 2.0
    alone = chances.min(axis=1) <= least
    # Of those that do not show it alone, chances are even above that (Fisher 1932, section 21.1).
    others = (chances[~alone] - least) / (1.0 - least)
    together = others.size > 0 and chdtrc(2.0 * others.size, -2.0 * np.log(others).sum()) <= DIFFERENT
    return [bool(one or together) for one in alone]
