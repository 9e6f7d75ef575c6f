"""How much more the shares of bins differ from span to span without a change than those of independent rows would.

Rows are not independent: a mean over an hour moves slowly, one card pays several times in a row, Mondays are not
Sundays. The tests of drift would take that for a change, so the training data themselves say how far spans of them
are apart: the overdispersion of quasi-likelihood (McCullagh and Nelder 1989, section 4.5), by which Rao and Scott
(1981) correct chi-square tests of clustered samples. It is taken from differences of spans that are next to each other
(von Neumann, Kent, Bellinson and Hart 1941), of shorter ones up to a day apart: a change amid the training data touches
few of them, and the course of a day all. What few spans say of one feature is moderated by what they say of all
(Smyth 2004, section 6), so that where rows are independent next to nothing of the power is lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import digamma, polygamma

from tailrace.core.reference import HOUR_MS, HOURS_OF_WEEK, Dispersion

SPANS_H = (1, 2, 4, 8, 12, 24, 48, 168)
"""Spans in hours: what correlates within hours and what within days shows at different ones."""
MOST_PAIRS, MOST_APART = 5_000, 256
"""Pairs of spans, and pairs that share no span, of which more would take minutes for two years and say the same."""
LEAST_SPANS = 14
"""Below, one change amid the training data would still make most of the difference, and the t laws tell nothing."""
LEAST_ROWS = 20
"""Mean number of rows of a span below which its shares are too coarse."""
LEAST_SHARE = 0.01
"""Share of the rows below which a bin is left out: one row too many in it would outweigh all others."""
MOST_FREEDOM = 1e6
NEAR_H = 24
"""Hours up to which spans are compared with one another. Next to each other alone, night and day are never compared, nor
are spans independent of which each goes on as the last one ended."""

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


class _Spans(NamedTuple):
    """Of spans of one length: at which of the hours with rows each begins, int64 (s,), and its rows, float64 (s,).

    `free` is the part of the variance of a span's shares that is left once they are compared with shares of which
    the span itself is a part. `one` and `other`, int64 (p,), are the pairs that are compared.
    """

    hours: int
    begin: Counts
    rows: Floats
    free: Floats
    one: Counts
    other: Counts


def dispersions(columns: Sequence[Counts], hours: Counts, seasons: Sequence[bool]) -> list[list[Dispersion]]:
    """Dispersions of each column at every length of span of which there are enough.

    Args:
        columns: Rows by hour and group of the values, int64 (h, g), for each column.
        hours: The hours, since a Monday 00:00 UTC, int64 (h,), ascending; those without rows may be left out.
        seasons: Whether spans are compared with the whole (False), with the same hours of the week (True), or both.
    """
    found: list[list[Dispersion]] = [[] for _ in columns]
    if not columns or not len(hours):
        return found
    hourly = [counts.astype(np.float64) for counts in columns]
    for seasonal in seasons:
        season = hours % HOURS_OF_WEEK if seasonal else np.zeros(len(hours), np.int64)
        expected = [_expected(counts, season) for counts in hourly]
        for spans in _spans(hours, season, hourly[0].sum(axis=1)):
            ratios = [_ratios(seen, due, spans) for seen, due in zip(hourly, expected, strict=True)]
            for own, dispersion in zip(found, _moderated(ratios, spans, seasonal=seasonal), strict=True):
                own.append(dispersion)
    return found


def squeezed(ratios: Floats, freedom: Floats) -> tuple[Floats, float]:
    """Variance ratios moderated by one another, float64 (k,), and how many degrees of freedom their kinship is worth.

    Smyth (2004, sections 6.1 and 6.2): ratios follow a scaled F law; its two parameters by the moments of the
    logarithm of the ratios. Two ratios or fewer are left as they are.

    Args:
        ratios: float64 (k,), > 0.
        freedom: float64 (k,), degrees of freedom of each.

    Example:
        >>> squeezed(np.array([1.1, 0.9, 1.05, 0.95]), np.full(4, 20.0))[0].round(2)
        array([1., 1., 1., 1.])
    """
    if len(ratios) < 3:
        return ratios, 0.0
    logs = np.log(ratios) - digamma(freedom / 2.0) + np.log(freedom / 2.0)
    beyond = float(np.var(logs, ddof=1) - polygamma(1, freedom / 2.0).mean())
    middle = float(logs.mean())
    if beyond <= polygamma(1, MOST_FREEDOM):
        return np.full(len(ratios), ratios.mean()), MOST_FREEDOM
    half = float(brentq(lambda x: float(polygamma(1, x)) - beyond, 1e-8, MOST_FREEDOM))
    prior = np.exp(middle + float(digamma(half)) - np.log(half))
    return np.asarray((2.0 * half * prior + freedom * ratios) / (2.0 * half + freedom)), 2.0 * half


def _spans(known: Counts, season: Counts, rows: Floats) -> Iterator[_Spans]:
    """Spans of each length of which there are enough, with enough rows that are not all of their season."""
    whole = np.bincount(season, weights=rows)
    free_of_hour = rows * (1.0 - rows / whole[season])
    for hours in SPANS_H:
        begin = np.unique(known // hours, return_index=True)[1]
        of_span = np.add.reduceat(rows, begin)
        # What all spans are compared with falls out of their differences, but not what each has of its own.
        free = np.add.reduceat(free_of_hour, begin) / of_span if len(whole) > 1 else np.ones(len(begin))
        spans = _Spans(hours, begin, of_span, free, *_near(known[begin] // hours, _lags(hours), free > 0.0))
        if len(begin) >= LEAST_SPANS <= 2.0 * free.sum() and of_span.mean() >= LEAST_ROWS:
            yield spans


def _lags(hours: int) -> int:
    return max(NEAR_H // hours, 1)


def _near(numbers: Counts, lags: int, used: NDArray[np.bool_]) -> tuple[Counts, Counts]:
    """Pairs of places of used spans, int64 (p,) each: those next to each other, and those at most so many apart."""
    places = np.flatnonzero(used)
    one, other = [], []
    for lag in range(1, min(lags, len(places) - 1) + 1):
        near = (lag == 1) | (numbers[places[lag:]] - numbers[places[:-lag]] <= lags)
        one.append(places[:-lag][near])
        other.append(places[lag:][near])
    if not one:
        return places[:0], places[:0]
    count = sum(map(len, one))
    kept = np.arange(0, count, -(-count // MOST_PAIRS))
    return np.concatenate(one)[kept], np.concatenate(other)[kept]


def _expected(counts: Floats, season: Counts) -> Floats:
    """Rows by hour and group that the shares of its season lead to expect."""
    whole = np.zeros((int(season.max()) + 1, counts.shape[1]))
    np.add.at(whole, season, counts)
    shares = whole / np.maximum(whole.sum(axis=1, keepdims=True), 1.0)
    return np.asarray(counts.sum(axis=1, keepdims=True) * shares[season])


class _Ratios(NamedTuple):
    """Of one column: mean squared differences of bins and of the distribution function, over those of independent rows.

    `freedom` is that of one span's bins, `directions` that of its distribution function; `square` and `along` are estimates of the square of what the bins have in excess,
    over all directions, and of the sum of the squares of that in each.
    """

    bins: float
    steps: float
    freedom: float
    directions: float
    square: float
    along: float


def _ratios(counts: Floats, expected: Floats, spans: _Spans) -> _Ratios:
    seen, due = (np.add.reduceat(of, spans.begin, axis=0) for of in (counts, expected))
    step, share, chance = _steps(seen, due, spans, spans.one, spans.other)
    enough = share >= LEAST_SHARE
    freedom = np.where(enough, 1.0 - share, 0.0).sum(axis=1)
    bins = np.where(enough, step**2 / np.maximum(share, 1e-12), 0.0).sum(axis=1)
    below = np.cumsum(share, axis=1)[:, :-1]
    gaps = (np.cumsum(step, axis=1)[:, :-1] ** 2).sum(axis=1)
    steps = _over(gaps, chance * (below * (1.0 - below)).sum(axis=1))
    of_one = float(freedom.mean()) if len(freedom) else 0.0
    of_cdf = _cdf_freedom(due.sum(axis=0) / due.sum())
    return _Ratios(_over(bins, chance * freedom), steps, of_one, of_cdf, *_directions(seen, due, spans, of_one))


def _cdf_freedom(shares: Floats) -> float:
    """Degrees of freedom of the mean squared distance of distribution functions of so many bins (Satterthwaite 1946)."""
    below = np.cumsum(shares)[:-1]
    covariance = np.minimum.outer(below, below) - np.outer(below, below)
    return float(np.trace(covariance) ** 2 / max((covariance**2).sum(), 1e-12)) or 1.0


def _steps(seen: Floats, due: Floats, spans: _Spans, one: Counts, other: Counts) -> tuple[Floats, Floats, Floats]:
    """Differences of shares, float64 (p, g), the shares, and by how much the latter let the former vary, float64 (p,)."""
    rows, chance = spans.rows, spans.free / spans.rows
    share = (due[one] + due[other]) / (rows[one] + rows[other])[:, None]
    apart = (seen - due) / rows[:, None]
    return apart[one] - apart[other], share, chance[one] + chance[other]


def _directions(seen: Floats, due: Floats, spans: _Spans, freedom: float) -> tuple[float, float]:
    """`square` and `along` of `_Ratios`, by products of differences that share no span (Chen and Qin 2010, section 2)."""
    places = np.flatnonzero(spans.free > 0.0)
    kept = np.linspace(0, len(places) // 2 - 1, min(len(places) // 2, MOST_APART)).astype(np.int64)
    step, share, chance = _steps(seen, due, spans, places[2 * kept], places[2 * kept + 1])
    of = np.where(share >= LEAST_SHARE, step / np.sqrt(np.maximum(share * chance[:, None], 1e-12)), 0.0)
    sizes = (of**2).sum(axis=1)
    pairs = max(len(of) * (len(of) - 1.0), 1.0)
    both = float(sizes.sum() ** 2 - (sizes**2).sum()) / pairs
    same = float(((of @ of.T) ** 2).sum() - (sizes**2).sum()) / pairs
    excess = float(sizes.mean()) - freedom
    return both - 2.0 * freedom * excess - freedom**2, same - 2.0 * excess - freedom


def _over(found: Floats, chance: Floats) -> float:
    """Mean ratio; 1 where there is nothing to vary."""
    some = chance > 1e-9
    return max(float(np.mean(found[some] / chance[some])), 1e-6) if some.any() else 1.0


def _moderated(ratios: Sequence[_Ratios], spans: _Spans, *, seasonal: bool) -> Iterator[Dispersion]:
    # Of independent values the mean square of differences up to k apart has variance 2/n + 1/(n k): von Neumann's for k = 1.
    count = float(spans.free.sum()) / (1.0 + 0.5 / _lags(spans.hours))
    one, other = spans.rows[spans.one], spans.rows[spans.other]
    rows = float(np.mean(2.0 * one * other / (one + other)))
    found_bins, found_steps, freedoms, directions, squares, along = np.array(ratios).T
    bins, of_bins = squeezed(found_bins, count * np.maximum(freedoms, 1.0))
    steps, of_steps = squeezed(found_steps, count * directions)
    # Together they are worth no more than all of their spans.
    freedom = min(of_bins, of_steps) + count
    # What a feature hides among few spans, its kin may show.
    top = np.maximum(_part(along, squares, freedoms), _part(along.sum(), squares.sum(), freedoms))
    for bin_ratio, step_ratio, own_top in zip(bins.tolist(), steps.tolist(), top.tolist(), strict=True):
        yield Dispersion(
            span_ms=spans.hours * HOUR_MS,
            seasonal=seasonal,
            spans=len(spans.rows),
            freedom=min(freedom, count * len(ratios)),
            bins=max(bin_ratio - 1.0, 0.0) / rows,
            steps=max(step_ratio - 1.0, 0.0) / rows,
            top=own_top,
        )


def _part(along: Floats, squares: Floats, freedom: Floats) -> Floats:
    """The largest part that may lie in one direction, given the sum of squares over directions; 1 where nothing is known."""
    part = np.where(squares > 0.0, along / np.maximum(squares, 1e-12), 1.0)
    return np.asarray(np.sqrt(np.clip(part, 1.0 / np.maximum(freedom, 1.0), 1.0)))
