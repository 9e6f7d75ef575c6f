"""Events whose outcomes may have been lost while a join was broken, by the times at which outcomes come.

An outcome that is lost belongs to an event of any age below the attribution window. Where the absence of an outcome
means a negative label, such events end as negatives that are none; where it means nothing, the labels that are left may
be of a kind. Of an event at t, the share F(until - t) - F(since - t) of its positive outcomes comes while a join is
broken from `since` to `until`, F being how late outcomes come (`core.label_delay`). Events of which more than `MATERIAL`
would have come then are left out, whatever their label: it is known before any label is, so that those left are a fair
sample, which leaving out negatives alone would not be. docs/join.md says more.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from tailrace.core.join_watch import JoinFinding
from tailrace.core.label_delay import EDGES_MS, DelayCurve

MATERIAL = 0.02
"""Share of an event's outcomes that may be lost and the event still count. Of all events that count, no more than this
share of the positives is missing, and on average far less; lower, long windows would be left out for short breaks."""
STANDS = 2**62
"""End of a break that is not over."""
MOST = 100
"""Breaks, and spans of events, that are remembered. Events of spans that are forgotten count again."""

Span = tuple[int, int]
"""[start, end), epoch milliseconds."""


class LostOutcomesData(msgspec.Struct):
    """State as it is stored: breaks by the time of outcomes, `suspect` by that of events, both ascending.

    `told_ms` is the time up to which the breaks stand in `suspect`.
    """

    breaks: list[Span] = []
    suspect: list[Span] = []
    told_ms: int = -1


class LostOutcomes:
    """Which events are left out.

    Args:
        data: Where to begin.
    """

    def __init__(self, data: LostOutcomesData | None = None) -> None:
        self._data = data or LostOutcomesData()

    @property
    def spans(self) -> list[Span]:
        """Events that are left out for good, by event time: disjoint and ascending."""
        return self._data.suspect

    def take(self, finding: JoinFinding) -> None:
        """Takes what has become known of a join; a shift of what outcomes say loses none of them."""
        if finding.subject != "join_rate":
            return
        data, since_ms = self._data, finding.since_ms
        if not finding.resolved:
            # A beginning is dated no more exactly than it is told soon.
            data.breaks.append((since_ms - (finding.found_ms - since_ms), STANDS))
        elif data.breaks and data.breaks[-1][1] == STANDS:
            data.breaks[-1] = data.breaks[-1][0], finding.found_ms
        else:
            data.breaks.append((since_ms, finding.found_ms))
        del data.breaks[:-MOST]

    def tell(self, now_ms: int, curves: Collection[DelayCurve]) -> bool:
        """Works out which events a break has befallen by now, once it is known how late outcomes come.

        Spans only grow, while a break stands: what was left out stays so, though the curves go on learning.

        Args:
            now_ms: Stream time, epoch milliseconds.
            curves: Delays of the outcomes of each class; none while they are not known.

        Returns:
            Whether there are others now.
        """
        data = self._data
        if not curves or not self._untold():
            return False
        breaks = [(since_ms, min(until_ms, now_ms)) for since_ms, until_ms in data.breaks if since_ms < now_ms]
        before = data.suspect
        data.suspect = united([*before, *exposed(curves, breaks)])[-MOST:]
        data.told_ms = now_ms
        # No event of a later break could have been befallen by one that was over an attribution window ago.
        oldest_ms = now_ms - max(curve.window_ms for curve in curves)
        data.breaks = [span for span in data.breaks if span[1] > oldest_ms]
        return data.suspect != before

    def doubtful(self, now_ms: int, window_ms: int) -> list[Span]:
        """Events of breaks that no curve has told of by now: all that they could have befallen.

        Args:
            now_ms: Stream time, epoch milliseconds.
            window_ms: The attribution window.
        """
        untold = self._untold() if self._data.told_ms < now_ms else []
        return united([(since_ms - window_ms, until_ms) for since_ms, until_ms in untold])

    def snapshot(self) -> LostOutcomesData:
        """State to store."""
        return self._data

    def _untold(self) -> list[Span]:
        return [span for span in self._data.breaks if span[1] > self._data.told_ms]


def exposed(curves: Collection[DelayCurve], breaks: Sequence[Span]) -> list[Span]:
    """Spans of event time of which more than `MATERIAL` of the outcomes would have come during breaks.

    All that should have come is taken for lost: the share that did come speaks of the whole and not of each kind. Every
    score stratum tells, and where the delays have changed both laws: whatever the score, no more is missing. But the
    score itself decides nothing, or events of some scores would be rarer. Shares are linear between the edges of the
    grid, and so is their sum over the breaks between its corners.
    """
    if not breaks:
        return []
    since_ms, until_ms = (np.array(column, dtype=np.float64) for column in zip(*breaks, strict=True))
    found: list[Span] = []
    for ages, shares in (law for curve in curves for law in _laws(curve)):
        corner = np.unique(np.concatenate([end - ages for end in (*since_ms, *until_ms)]))
        lost = np.zeros(len(corner))
        for since, until in zip(since_ms, until_ms, strict=True):
            lost += np.interp(until - corner, ages, shares) - np.interp(since - corner, ages, shares)
        found += _above(corner, lost)
    return united(found)


def united(spans: Sequence[Span]) -> list[Span]:
    """The same moments as disjoint spans, ascending."""
    found: list[Span] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(end, found[-1][1])
        else:
            found.append((start, end))
    return found


def within(spans: Sequence[Span], times_ms: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which times, int64 (n,) epoch milliseconds, lie in one of some disjoint ascending spans: bool (n,)."""
    if not spans:
        return np.zeros(len(times_ms), np.bool_)
    start, end = np.array(spans, dtype=np.int64).T
    at = np.searchsorted(start, times_ms, side="right") - 1
    return np.asarray((at >= 0) & (times_ms < end[at]))


def _laws(curve: DelayCurve) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Shares of the outcomes of each stratum by age: float64 (k,) ascending ages in milliseconds, float64 (k,)."""
    used = int(np.searchsorted(EDGES_MS, curve.window_ms)) + 1
    ages = np.minimum(EDGES_MS, curve.window_ms).astype(np.float64)[:used]
    for shares in curve.shares:
        yield ages, shares[:used]


def _above(corner: NDArray[np.float64], lost: NDArray[np.float64]) -> list[Span]:
    """Where a line from corner to corner lies above `MATERIAL`; it ends below on both sides."""
    above = lost > MATERIAL
    up, down = np.flatnonzero(~above[:-1] & above[1:]), np.flatnonzero(above[:-1] & ~above[1:])
    start, end = (
        corner[at] + (MATERIAL - lost[at]) / (lost[at + 1] - lost[at]) * (corner[at + 1] - corner[at])
        for at in (up, down)
    )
    return [(int(one), int(other)) for one, other in zip(np.floor(start), np.ceil(end), strict=True)]
