"""Bets that the labels of one source differ from those of others of the same hours by more than they may.

Labels of a source are paired with those of others of the same hour and score; D is the difference of a pair, in
[-1, 1]. Whatever befalls the events befalls both of a pair, so that honest drift moves the mean of D no further than
the sources differ anyway. While the mean is at most `limit`, 1 + b (D - limit) is an e-value (Waudby-Smith and Ramdas
2024, section 4), and so is the product over pairs; the sum over all beginnings is the Shiryaev-Roberts e-detector of
Shin, Ramdas and Rinaldo (2023, section 4), as in `core.e_detector`.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy import stats

SHARES = np.array([0.05, 0.15, 0.4])
"""Shares of labels that are not true, beyond what is usual, on which equal parts are betted."""
MOST_BET = 0.9
RECOVERED_AT = 1_000.0
"""A source that still flips labels as it did is cleared once in so many hours at most."""
LEAST_ACCUSING = 30
"""Pairs below which the normal law is not to be trusted."""
MOST_WEALTH = 1e12
"""Where statistics stop: far beyond every threshold, and far from overflow."""


class Bets(msgspec.Struct):
    """Statistics of one source, an entry for each of the alternatives.

    `since_ms` is when CUSUM left 1; `moved` and `room` sum the differences, and how far they can move, since then.
    """

    shiryaev_roberts: list[float] = []
    cusum: list[float] = []
    since_ms: list[int] = []
    moved: list[float] = []
    room: list[float] = []

    @property
    def total(self) -> float:
        """Statistic of a sudden change: at most `length` times the alternatives comes once in `length` steps."""
        return sum(self.shiryaev_roberts)

    def step(self, at_ms: int, logs: NDArray[np.float64], moved: float, room: float) -> None:
        """Takes the pairs of a span that begins at `at_ms`: float64 (k,), log of the e-value of each alternative."""
        if not self.cusum:
            self.shiryaev_roberts, self.cusum = [0.0] * len(logs), [1.0] * len(logs)
            self.since_ms, self.moved, self.room = [at_ms] * len(logs), [0.0] * len(logs), [0.0] * len(logs)
        for at, e_value in enumerate(np.exp(np.minimum(logs, np.log(MOST_WEALTH))).tolist()):
            self.shiryaev_roberts[at] = min((self.shiryaev_roberts[at] + 1.0) * e_value, MOST_WEALTH)
            if self.cusum[at] <= 1.0:
                self.cusum[at], self.since_ms[at], self.moved[at], self.room[at] = 1.0, at_ms, 0.0, 0.0
            self.cusum[at] = min(self.cusum[at] * e_value, MOST_WEALTH)
            self.moved[at] += moved
            self.room[at] += room

    def likeliest(self) -> tuple[float, int, float]:
        """The greatest CUSUM, since when, and the mean difference since then."""
        at = int(np.argmax(self.cusum)) if self.cusum else -1
        return (self.cusum[at], self.since_ms[at], self.moved[at] / max(self.room[at], 1e-9)) if at >= 0 else (0, 0, 0)


class Pairs(msgspec.Struct):
    """Differences of n pairs, float64 (n,), and for each the usual share of the mark, below 1/2, and labels per mean."""

    differences: NDArray[np.float64]
    usual: NDArray[np.float64]
    own: NDArray[np.float64]
    other: NDArray[np.float64]

    @property
    def room(self) -> float:
        """How far the differences would move were every label of the source false."""
        return float((1.0 - 2.0 * self.usual).sum())


def pairs(
    own: NDArray[np.bool_],
    own_cell: NDArray[np.int64],
    other: NDArray[np.bool_],
    other_cell: NDArray[np.int64],
    usual: NDArray[np.float64],
) -> Pairs:
    """Pairs marks of a source with those of others, cell by cell, in their order.

    The fewer of a cell stand one by one; the more numerous are taken together in as many groups, and their means.

    Args:
        own: bool (n,), marks of the source.
        own_cell: int64 (n,), cell of each.
        other: bool (m,).
        other_cell: int64 (m,).
        usual: float64 (cells,), share of marks that is usual in each cell.
    """
    (mine, many), (theirs, others) = (_by_cell(*one, len(usual)) for one in ((own, own_cell), (other, other_cell)))
    count = np.minimum(many, others)
    cell = np.repeat(np.arange(len(usual)), count)
    place = np.arange(len(cell)) - (np.cumsum(count) - count)[cell]
    mean, of = _means(mine, many, cell, place, count[cell])
    other_mean, other_of = _means(theirs, others, cell, place, count[cell])
    return Pairs(mean - other_mean, usual[cell], of, other_of)


def log_e_values(found: Pairs, limit: float, shares: NDArray[np.float64] = SHARES) -> NDArray[np.float64]:
    """Logarithm of the e-value of each alternative: float64 (k,).

    Args:
        found: The pairs.
        limit: Mean difference that is allowed.
        shares: float64 (k,), by how much more than the limit a source moves its marks.
    """
    usual, over = found.usual, (limit + shares)[:, np.newaxis]
    moved = over * (1.0 - 2.0 * usual)
    own = usual + moved
    variance = own * (1.0 - own) / found.own + usual * (1.0 - usual) / found.other
    gain = moved - limit
    # The bet of greatest growth to second order; none where even the alternative moves less than is allowed.
    bet = np.clip(gain / (variance + gain * gain), 0.0, MOST_BET / (1.0 + limit))
    return np.asarray(np.log1p(bet * (found.differences - limit)).sum(axis=1))


def recovered(statistic: float, found: Pairs, limit: float, level: float) -> float:
    """Statistic of the end of a change to `level`, over its pairs; from `RECOVERED_AT` on the source is back."""
    usual, room = found.usual, 1.0 - 2.0 * found.usual
    half, gain = (limit + level) / 2.0 * room, (level - limit) / 2.0 * room
    variance = usual * (1.0 - usual) * (1.0 / found.own + 1.0 / found.other)
    bet = np.minimum(gain / (variance + gain * gain), MOST_BET)
    e_value = np.exp(min(float(np.log1p(bet * (half - found.differences)).sum()), np.log(MOST_WEALTH)))
    return float(min((statistic + 1.0) * e_value, MOST_WEALTH))


def excess(compared: Pairs, usual: float) -> tuple[float, float]:
    """Share of labels that is flipped, and how seldom chance alone shows as much over what is `usual`."""
    room = 1.0 - 2.0 * compared.usual
    # By their variance, as it is if a twentieth is flipped: what contradicts a score that is sure tells most.
    weight = room / (0.05 + compared.usual * (1.0 - compared.usual))
    total = float(weight @ room)
    if len(room) < LEAST_ACCUSING or total == 0.0:
        return 0.0, 1.0
    value = float(weight @ compared.differences) / total
    error = float(np.sqrt((weight * weight) @ (compared.differences - value * room) ** 2)) / total
    return value, float(stats.norm.sf((value - usual) / error)) if error > 0.0 else 1.0


def _by_cell(
    marks: NDArray[np.bool_], cell: NDArray[np.int64], cells: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sums of marks before each place, in the order of their cells, int64 (n + 1,); and how many each cell holds."""
    ordered = marks[np.argsort(cell, kind="stable")]
    return np.append(0, np.cumsum(ordered)), np.bincount(cell, minlength=cells)


def _means(
    sums: NDArray[np.int64],
    held: NDArray[np.int64],
    cell: NDArray[np.int64],
    place: NDArray[np.int64],
    count: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean of each run of about the same length, and its length: the one at `place` of the `count` in its cell."""
    first = (np.cumsum(held) - held)[cell]
    begin, end = first + place * held[cell] // count, first + (place + 1) * held[cell] // count
    of = (end - begin).astype(np.float64)
    return (sums[end] - sums[begin]) / of, of
