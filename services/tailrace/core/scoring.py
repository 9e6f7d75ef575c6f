"""The score grid: published scores lie on it, so that every live metric is exact.

A score is rounded to the nearest multiple of 1/128 in log-odds, between -16 and 16 (4,097 values,
relative error of the odds at most 0.4 %). Two things follow: a histogram over the grid holds all
that any metric of the published scores can know, as integers that add, subtract and merge exactly;
and the public topic gives away less of the model (docs/adr/0002).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tailrace.errors import ArtifactInvalid

STEPS_PER_UNIT = 128
LIMIT = 16
BINS = 2 * LIMIT * STEPS_PER_UNIT + 1

_BITS_OF_ONE = np.float64(1.0).view(np.uint64)
_SCORES: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-(np.arange(BINS) / STEPS_PER_UNIT - LIMIT)))


def bin_of(scores: NDArray[np.floating]) -> NDArray[np.int32]:
    """Grid positions of probabilities.

    Args:
        scores: float (n,), in [0, 1]; 0 and 1 fall on the ends of the grid.

    Returns:
        int32 (n,), in [0, BINS).

    Raises:
        ValueError: a score is NaN or outside [0, 1].
    """
    p = np.asarray(scores, dtype=np.float64)
    if not bool(np.all((p >= 0.0) & (p <= 1.0))):
        raise ValueError("scores must be probabilities in [0, 1] without NaN")
    with np.errstate(divide="ignore"):
        logits = np.log(p) - np.log1p(-p)
    steps = np.rint(np.clip(logits, -LIMIT, LIMIT) * STEPS_PER_UNIT)
    return np.asarray(steps + LIMIT * STEPS_PER_UNIT, dtype=np.int32)


def bin_of_score(score: float) -> int:
    """Grid position of one score that lies on the grid; `bin_of` for a single float."""
    return round((math.log(score) - math.log1p(-score)) * STEPS_PER_UNIT) + LIMIT * STEPS_PER_UNIT


def score_of(bins: NDArray[np.integer]) -> NDArray[np.float64]:
    """Probabilities of grid positions: float64 (n,), each in (0, 1)."""
    return np.asarray(_SCORES[bins])


def on_grid(scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """Rounds probabilities to the grid.

    Example:
        >>> float(on_grid(np.array([0.5]))[0])
        0.5
    """
    return score_of(bin_of(scores))


def checked_probabilities(scores: NDArray[np.floating], count: int) -> NDArray[np.float64]:
    """Checks what a model gave: float64 (count,).

    Raises:
        ArtifactInvalid: not `count` numbers in [0, 1].
    """
    flat = np.asarray(scores, dtype=np.float64).reshape(-1)
    # Read as integers, the bits of 0.0 to 1.0 are the smallest: one pass instead of four, each of which costs 5 µs
    # when a model has just emptied the caches. -0.0 alone needs the second look.
    if flat.shape != (count,) or (
        flat.view(np.uint64).max(initial=0) > _BITS_OF_ONE and not bool(np.all((flat >= 0.0) & (flat <= 1.0)))
    ):
        raise ArtifactInvalid(f"the model gave no {count} probabilities in [0, 1] (shape {np.shape(scores)})")
    return flat
