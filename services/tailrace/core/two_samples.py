"""Two histograms of one variable: how far apart they are, and how seldom chance alone would do that."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import bdtr, chdtrc, chdtri, kolmogorov, stdtr

SMOOTHING = 0.5
NODES = 65
Counts = NDArray[np.int64]


class Distance(NamedTuple):
    """A distance and the probability of one as large without a change, in [0, 1]."""

    value: float
    p_value: float


class DesignEffect(NamedTuple):
    """How many rows are worth one independent row, >= 1, and to how many degrees of freedom that is known.

    `bins` is that of the squared distance of shares, on average over the bins, `steps` that of the distribution
    function (Kish 1965, section 8.2).
    """

    bins: float = 1.0
    steps: float = 1.0
    freedom: float = 1e6


INDEPENDENT = DesignEffect()


def psi(reference: Counts, current: Counts, effect: DesignEffect = INDEPENDENT) -> Distance:
    """Population stability index.

    Without a change it follows (1/n + 1/m) times chi-square with bins - 1 degrees of freedom (Yurdakul
    2018, section 3), n and m the numbers of rows; a fixed bound means another thing at every n. For rows that are
    not independent see `index_tail`.

    Args:
        reference: int64 (bins,), rows by bin.
        current: int64 (bins,).
        effect: Of both together.

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
    return Distance(index, index_tail(index / (1.0 / n + 1.0 / m), int(used.sum()) - 1, effect))


def index_tail(statistic: float, freedom: int, effect: DesignEffect) -> float:
    """Probability of a sum of squares as large without a change.

    Of independent rows it is chi-square. What those of clusters have beyond that is taken to lie in one direction, the
    worst case, since then its tail is the heaviest; as a t law, since it is estimated.

    Args:
        statistic: Index over (1/n + 1/m).
        freedom: Used bins - 1.
        effect: Its `bins` times `freedom` is the mean of the statistic.

    Example:
        >>> index_tail(40.0, 19, INDEPENDENT) < 0.01 < index_tail(40.0, 19, DesignEffect(bins=1.5, freedom=20.0))
        True
    """
    if effect.bins <= 1.0:
        return float(chdtrc(freedom, statistic))
    worst = 1.0 + freedom * (effect.bins - 1.0)
    most = np.sqrt(statistic / worst)
    alone = 2.0 * float(stdtr(effect.freedom, -most))
    if freedom == 1:
        return alone
    nodes = np.linspace(0.0, most, NODES)
    mass = 2.0 * np.diff(stdtr(effect.freedom, nodes))
    rest = statistic - worst * (nodes[1:] * nodes[:-1])
    return alone + float(mass @ chdtrc(freedom - 1, np.maximum(rest, 0.0)))


def index_law(chance: float, freedom: int, effect: DesignEffect) -> float:
    """The statistic of `index_tail` that chance alone passes with a probability in [0, 1)."""
    least = float(chdtri(freedom, chance))
    if effect.bins <= 1.0 or chance <= 0.0:
        return least
    most = least
    while index_tail(most, freedom, effect) > chance:
        most *= 2.0
    return float(brentq(lambda x: index_tail(x, freedom, effect) - chance, 0.0, most, rtol=1e-3))


def ks(reference: Counts, current: Counts, effect: DesignEffect = INDEPENDENT) -> Distance:
    """Kolmogorov-Smirnov distance at the edges of bins in their order; its law on whole values is an upper bound.

    Where rows are not independent, the mean of its tail over what is known of the design effect, a scaled chi-square.
    """
    m, n = int(reference.sum()), int(current.sum())
    if not (m and n):
        return Distance(0.0, 1.0)
    gap = float(np.abs(np.cumsum(reference) / m - np.cumsum(current) / n).max())
    scaled = float(np.sqrt(n * m / (n + m) / effect.steps)) * gap
    if effect.steps <= 1.0:
        return Distance(gap, float(kolmogorov(scaled)))
    tail = 2.0 * (1.0 + 4.0 * scaled * scaled / effect.freedom) ** (-effect.freedom / 2.0)
    return Distance(gap, min(max(tail, float(kolmogorov(scaled))), 1.0))


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


def rise(reference: int, reference_rows: int, current: int, current_rows: int, effect: float = 1.0) -> Distance:
    """Rise of the share of a rare event, by an exact binomial test (Przyborowski and Wilenski 1940).

    Of all such events, each would be one of the current rows with probability n / (n + m). That is exact for
    rare events, and an upper bound for others. Of `effect` rows that go together one counts.
    """
    n, m = current_rows, reference_rows
    if not (n and m):
        return Distance(0.0, 1.0)
    share = current / n - reference / m
    before, now = math.ceil(reference / effect), math.floor(current / effect)
    return Distance(share, float(bdtr(before, before + now, m / (n + m))) if now else 1.0)
