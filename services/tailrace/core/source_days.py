"""How much a source reports, and how soon, held against its own days before: what hours are too short to tell.

A source speaks too much where both its outcomes per prediction and its share of all outcomes are beyond twice the
greatest of its last days: a source that goes silent makes the shares of the others rise, and a day with more to
report makes the counts of all rise. It reports sooner, or later, where its delays leave their usual range and those of
others do not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from tailrace.core.source_bets import Bets, log_e_values, pairs

MORE = 2.0
"""By so much a source may report more than on any day of the last week."""
NEW_SHARE = 0.05
"""Share of the outcomes, before that, which a source may have had that nobody knew."""
RATIOS = (1.5, 3.0)
LEAST_DAYS, MOST_DAYS = 3, 7
TAIL = 0.1
"""Part of a source's own delays that counts as soon, and as late."""
ALLOWED = 0.35
"""Part of a day's outcomes beyond others' that may come soon, or late."""
MOVED = np.array([0.15, 0.4])
LEAST_DELAYS = 200
DAY_MS = 86_400_000

Tail = Literal["sooner", "later"]
TAILS: Final[tuple[Tail, Tail]] = ("sooner", "later")


class OfDay(msgspec.Struct):
    """A source on one day: its outcomes, and for each tail the log e-values, and differences with their number."""

    outcomes: int = 0
    logs: list[list[float]] = []
    moved: list[float] = msgspec.field(default_factory=lambda: [0.0, 0.0])
    of: list[float] = msgspec.field(default_factory=lambda: [0.0, 0.0])


class Day(msgspec.Struct):
    """Counts of a day."""

    predictions: int = 0
    outcomes: int = 0
    sources: dict[str, OfDay] = {}


class History(msgspec.Struct):
    """A source on the days before: greatest shares are taken of `rates` and `shares`; `delays` counts by step."""

    rates: list[float] = []
    shares: list[float] = []
    delays: dict[int, int] = {}
    bets: dict[str, Bets] = {}


class DaysData(msgspec.Struct):
    """State as it is stored."""

    today: Day = msgspec.field(default_factory=Day)
    known: int = 0
    history: dict[str, History] = {}

    def take(self, name: str, delay: NDArray[np.int64], held: Sequence[_Held]) -> None:
        """Takes a source's outcomes of an hour, int64 (n,) steps of delay, and how they compare with others'."""
        of_day = self.today.sources.setdefault(name, OfDay())
        of_day.outcomes += len(delay)
        history = self.history.setdefault(name, History())
        of_day.logs = of_day.logs or [[0.0] * len(MOVED) for _ in TAILS]
        for at, one in enumerate(held):
            of_day.logs[at] = [before + now for before, now in zip(of_day.logs[at], one.logs, strict=True)]
            of_day.moved[at] += one.moved
            of_day.of[at] += one.of
        for step, count in zip(*(part.tolist() for part in np.unique(delay, return_counts=True)), strict=True):
            history.delays[step] = history.delays.get(step, 0) + count


class _Held(NamedTuple):
    logs: list[float]
    moved: float
    of: float


class TimingMarks(NamedTuple):
    """Outcomes in one tail of their own source's delays: bool (n,), and of which the range is known."""

    marks: NDArray[np.bool_]
    known: NDArray[np.bool_]

    def held(self, own: NDArray[np.bool_], other: NDArray[np.bool_]) -> _Held:
        """Those of a source, bool (n,), held against those of others."""
        own, other = own & self.known, other & self.known
        if not (own.any() and other.any()):
            return _Held([0.0] * len(MOVED), 0.0, 0.0)
        one, none = np.zeros(len(own), np.int64), np.array([TAIL])
        found = pairs(self.marks[own], one[own], self.marks[other], one[other], none)
        logs = log_e_values(found, ALLOWED, MOVED)
        return _Held(logs.tolist(), float(found.differences.sum()), float(len(found.differences)))


class Verdict(NamedTuple):
    """A source left what was usual, or came back."""

    source: str
    subject: Literal["volume", "sooner", "later"]
    since_ms: int
    value: float
    limit: float
    resolved: bool = False


def timing_marks(
    data: DaysData, delay: NDArray[np.int64], source: NDArray[np.uint8], names: Sequence[str]
) -> list[TimingMarks]:
    """Which outcomes are in the tails of their source's delays so far, for each of `TAILS`."""
    soon, late, known = (np.zeros(len(delay), np.bool_) for _ in range(3))
    for code in np.unique(source).tolist():
        history = data.history.get(names[code])
        if history is None or sum(history.delays.values()) < LEAST_DELAYS:
            continue
        mine = source == code
        steps = sorted(history.delays)
        share = np.cumsum([history.delays[step] for step in steps]) / sum(history.delays.values())
        before = np.append(0.0, share)
        place = np.searchsorted(steps, delay[mine])
        there = np.array([step in history.delays for step in delay[mine].tolist()])
        known[mine] = True
        soon[mine] = before[np.minimum(place + there, len(steps))] <= TAIL
        late[mine] = 1.0 - before[place] <= TAIL
    return [TimingMarks(soon, known), TimingMarks(late, known)]


def close_day(data: DaysData, start_ms: int, standing: Mapping[str, set[str]], alarm_at: float) -> Iterator[Verdict]:
    """Judges a day that is over.

    Args:
        data: What is known; the day is taken into it.
        start_ms: When the day began, epoch milliseconds.
        standing: By source, what is held against it already.
        alarm_at: Mean of the statistics from which a source is suspected.
    """
    today = data.today
    data.known += 1
    for name, of_day in sorted(today.sources.items()):
        history = data.history[name]
        held = standing.get(name, set())
        yield from _volume(data, name, of_day, start_ms, "volume" in held, alarm_at)
        for at, tail in enumerate(TAILS):
            level = of_day.moved[at] / of_day.of[at] if of_day.of[at] else 0.0
            if tail in held:
                if of_day.of[at] and level < ALLOWED:
                    yield Verdict(name, tail, start_ms, level, ALLOWED, resolved=True)
            elif of_day.of[at]:
                bets = history.bets.setdefault(tail, Bets())
                bets.step(start_ms, np.array(of_day.logs[at]), of_day.moved[at], of_day.of[at])
                if bets.total >= alarm_at * len(MOVED):
                    _, since_ms, level = bets.likeliest()
                    del history.bets[tail]
                    yield Verdict(name, tail, since_ms, level, ALLOWED)


def _volume(
    data: DaysData, name: str, of_day: OfDay, start_ms: int, stands: bool, alarm_at: float
) -> Iterator[Verdict]:
    today, history, seen = data.today, data.history[name], of_day.outcomes
    rate, share = seen / max(today.predictions, 1), seen / max(today.outcomes, 1)
    usual = max([NEW_SHARE, *history.shares])
    odds = MORE * usual / max(1.0 - usual, 1e-3)
    most_share = odds / (1.0 + odds)
    most_rate = MORE * max(max(history.rates, default=0.0), NEW_SHARE * today.outcomes / max(today.predictions, 1))
    if stands:
        if rate <= most_rate or share <= most_share:
            yield Verdict(name, "volume", start_ms, rate, most_rate, resolved=True)
        return
    if data.known > LEAST_DAYS and most_rate < 1.0:
        logs = np.minimum(
            [_binomial(most_share, ratio, seen, today.outcomes) for ratio in RATIOS],
            [_binomial(most_rate, ratio, seen, today.predictions) for ratio in RATIOS],
        )
        bets = history.bets.setdefault("volume", Bets())
        bets.step(start_ms, logs, float(seen), float(today.predictions))
        if bets.total >= alarm_at * len(RATIOS):
            _, since_ms, value = bets.likeliest()
            del history.bets["volume"]
            yield Verdict(name, "volume", since_ms, value, most_rate)
            return
    history.rates = [*history.rates, rate][-MOST_DAYS:]
    history.shares = [*history.shares, share][-MOST_DAYS:]


def _binomial(bound: float, ratio: float, hits: int, n: int) -> float:
    """Log likelihood ratio of a share `ratio` times the bound, in odds, to the bound."""
    odds = ratio * bound / (1.0 - bound)
    other = odds / (1.0 + odds)
    return hits * math.log(other / bound) + (n - hits) * math.log((1.0 - other) / (1.0 - bound))
