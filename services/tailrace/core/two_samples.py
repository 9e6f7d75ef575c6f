"""Two histograms of one variable: how far apart they are, and how seldom chance alone would do that."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, chdtrc, kolmogorov

SMOOTHING = 0.5
Counts = NDArray[np.int64]


class Distance(NamedTuple):
    """A distance and the probability of one as large without a change, in [0, 1]."""

    value: float
    p_value: float


def psi(reference: Counts, current: Counts) -> Distance:
    """Population stability index.

    Without a change it follows (1/n + 1/m) times chi-square with bins - 1 degrees of freedom (Yurdakul
    2018, section 3), n and m the numbers of rows; a fixed bound means another thing at every n.

    Args:
        reference: int64 (bins,), rows by bin.
        current: int64 (bins,).

    Example:
        >>> psi(np.array([50, 50]), np.array([50, 50]))
        Distance(value=0.0, p_value=1.0)
    """
    used = (reference + current) > 0
    m, n = int(reference.sum()), int(current.sum())
    if not (m and n) or used.sum() < 2:
        return Distance(0.0, 1.0)
    p, q = reference[used] + SMOOTHING, current[used] + SMOOTHING
    p, q = p / p.sum(), q / q.sum()
    index = float(((q - p) * np.log(q / p)).sum())
    return Distance(index, float(chdtrc(used.sum() - 1, index / (1.0 / n + 1.0 / m))))


def ks(reference: Counts, current: Counts) -> Distance:
    """Kolmogorov-Smirnov distance at the edges of bins in their order; its law on whole values is an upper bound."""
    m, n = int(reference.sum()), int(current.sum())
    if not (m and n):
        return Distance(0.0, 1.0)
    gap = float(np.abs(np.cumsum(reference) / m - np.cumsum(current) / n).max())
    return Distance(gap, float(kolmogorov(np.sqrt(n * m / (n + m)) * gap)))


def wasserstein(reference: Counts, current: Counts, edges: NDArray[np.float64], low: float, high: float) -> float:
    """First Wasserstein distance, as far as bins can tell: the area between the two distribution functions.

    Args:
        reference: int64 (bins,), rows by bin.
        current: int64 (bins,).
        edges: float64 (bins - 1,), ascending.
        low: Where the first bin begins.
        high: Where the last one ends.
    """
    m, n = max(int(reference.sum()), 1), max(int(current.sum()), 1)
    gaps = np.abs(np.cumsum(reference) / m - np.cumsum(current) / n)
    places = np.concatenate([[low], np.clip(edges, low, high), [high]])
    return float(np.trapezoid(np.concatenate([[0.0], gaps]), places))


def rise(reference: int, reference_rows: int, current: int, current_rows: int) -> Distance:
    """Rise of the share of a rare event, by an exact binomial test (Przyborowski and Wilenski 1940).

    Of all such events, each would be one of the current rows with probability n / (n + m). That is exact for
    rare events, and an upper bound for others.
    """
    n, m = current_rows, reference_rows
    if not (n and m):
        return Distance(0.0, 1.0)
    share = current / n - reference / m
    return Distance(share, float(bdtr(reference, reference + current, m / (n + m))) if current else 1.0)
