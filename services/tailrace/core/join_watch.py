"""Broken joins: outcomes that stop coming, or say something else than before, told within minutes of stream time.

Per minute the outcomes that found their prediction, and the positive ones among them, are held against the last seven
days at the same hour of the day, and against the last hours (`core.join_week`), as soon as they usually have come
(`core.lateness`). The bets are those of the e-detector (`core.e_detector`), on counts: for Poisson counts of mean at
least mu, a**x exp(mu (1 - a)) with a < 1 is an e-value, and for shares the likelihood ratio of two binomial laws. As
long as the week's lower or upper bounds hold, times `FEWER`, `MORE` or `LESS`, a false alarm comes once in `RUN_LENGTH`
minutes at most.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from tailrace.core.join_week import WEEK_HOURS, Week, Z, last_week
from tailrace.core.lateness import Lateness, LatenessData

MINUTE_MS = 60_000
HOUR_MS = 3_600_000
RUN_LENGTH = 10_000.0
"""A week of minutes, if there were never more than `FEWER` of the usual; if there are, far longer."""
RECOVERED_AT = 100.0
FEWER = 0.8
"""Outcomes may be fewer than ever before in the week by a fifth: days of traffic and delays differ."""
MORE, LESS = 2.0, 0.5
"""The share of positives may double or halve: what drifts honestly does not do so within minutes."""
FALLS = (0.05, 0.35, 0.625, 0.8)
RISES = (1.25, 2.0)

Subject = Literal["join_rate", "positive_rate"]
_KINDS: tuple[Subject, Subject] = ("join_rate", "positive_rate")


class JoinFinding(NamedTuple):
    """A rate left what it was in the last seven days, or came back.

    `value` and `limit` are outcomes per prediction, or positives per outcome; `usual` is the rate of the week.
    """

    subject: Subject
    since_ms: int
    found_ms: int
    value: float
    limit: float
    usual: float
    resolved: bool


class _Run(msgspec.Struct):
    """What is betted on one alternative: both statistics, and time and counts since CUSUM left 1."""

    shiryaev_roberts: float = 0.0
    cusum: float = 1.0
    since: int = 0
    hits: int = 0
    of: int = 0


class _Standing(msgspec.Struct):
    """A finding that stands: since when, what the day was like before, the statistic of its end, and on which side."""

    since: int
    today: float
    statistic: float = 0.0
    high: bool = False


class JoinWatchData(msgspec.Struct):
    """State as it is stored; counts are [predictions, outcomes joined, positive ones].

    `judged` is the next minute to judge; `week` is what those of `hour` are held against.
    """

    judged: int = -1
    hour: int = -1
    week: Week | None = None
    minutes: dict[int, list[int]] = {}
    hours: dict[int, list[int]] = {}
    runs: dict[str, list[_Run]] = {}
    standing: dict[str, _Standing] = {}
    lateness: LatenessData = msgspec.field(default_factory=LatenessData)


class JoinWatch:
    """State of the watch; minutes are judged in order once the watermark has passed them and their outcomes have come.

    Args:
        data: Where to begin.
    """

    def __init__(self, data: JoinWatchData | None = None) -> None:
        self._data = data or JoinWatchData()
        self._lateness = Lateness(self._data.lateness)

    @property
    def standing(self) -> dict[str, int]:
        """Rates that are out of bounds, and since when, epoch milliseconds."""
        return {subject: standing.since * MINUTE_MS for subject, standing in self._data.standing.items()}

    def predicted(self, times_ms: NDArray[np.int64]) -> None:
        """Counts predictions by event time, int64 (n,) in epoch milliseconds."""
        self._count(times_ms, 0)

    def joined(self, times_ms: NDArray[np.int64], positive: NDArray[np.bool_]) -> None:
        """Counts outcomes that found their prediction.

        Args:
            times_ms: int64 (n,), event times of the outcomes in epoch milliseconds.
            positive: bool (n,), what they say.
        """
        self._count(times_ms, 1)
        self._count(times_ms[positive], 2)

    def advance(self, watermark_ms: int) -> list[JoinFinding]:
        """Judges the minutes that are over, and of which the outcomes usually have come."""
        self._lateness.advance(watermark_ms // MINUTE_MS)
        data, end = self._data, watermark_ms // MINUTE_MS - self._lateness.wait
        if data.judged < 0:
            data.judged = min(data.minutes, default=end)
        found: list[JoinFinding] = []
        # Of a leap over more than a week only the last is judged: the rest is no longer held against anything.
        for minute in range(max(data.judged, end - 60 * WEEK_HOURS), end):
            found += self._judge(minute)
        if end - data.judged > 60 * WEEK_HOURS:
            data.minutes = {minute: counts for minute, counts in data.minutes.items() if minute >= end}
        data.judged = max(end, data.judged)
        return found

    def snapshot(self) -> JoinWatchData:
        """State to store."""
        self._data.lateness = self._lateness.snapshot()
        return self._data

    def _count(self, times_ms: NDArray[np.int64], place: int) -> None:
        minutes, counts = np.unique(times_ms // MINUTE_MS, return_counts=True)
        if place == 1:
            self._lateness.observe(minutes, counts)
        # What is later than was waited for does not count: minutes are held against others as those were judged.
        waited = minutes >= self._data.judged
        for minute, count in zip(minutes[waited].tolist(), counts[waited].tolist(), strict=True):
            self._data.minutes.setdefault(minute, [0, 0, 0])[place] += count

    def _judge(self, minute: int) -> Iterator[JoinFinding]:
        data = self._data
        now = data.minutes.pop(minute, None)
        if minute // 60 != data.hour:
            data.hour = minute // 60
            standing = data.standing.get("join_rate")
            today = standing.today if standing is not None else None
            data.hours = {at: counts for at, counts in data.hours.items() if at >= data.hour - WEEK_HOURS}
            data.week = last_week(data.hours, data.hour, today)
        week = data.week
        if week is not None:
            yield from self._outcomes(minute, now or [0, 0, 0], week)
            if now is not None and now[1] and 0 < week.positives < week.outcomes:
                yield from self._positives(minute, now[1], now[2], week)
        if now is not None:
            hour = data.hours.setdefault(minute // 60, [0, 0, 0])
            for place, count in enumerate(now):
                hour[place] += count

    def _outcomes(self, minute: int, now: list[int], week: Week) -> Iterator[JoinFinding]:
        # By the traffic of this minute too: neither a surge, whose outcomes come later, nor a lull makes them few.
        before, here, after = week.level
        off = (minute % 60 + 0.5) / 60.0 - 0.5  # from the middle of the hour, in hours
        level = (here + off * ((after - here) if off > 0.0 else (here - before))) * week.today
        usual = week.outcomes / week.predictions
        least, seen = FEWER * min(level, now[0] * usual), now[1]
        if least == 0.0 and not seen:
            return
        fall = [a**seen * math.exp(least * (1.0 - a)) for a in FALLS]
        back = FEWER**-seen * math.exp(-least * (1.0 / FEWER - 1.0))
        yield from self._step("join_rate", minute, fall, back, (now[1], now[0]), FEWER * usual, usual)

    def _positives(self, minute: int, n: int, hits: int, week: Week) -> Iterator[JoinFinding]:
        share = week.positives / week.outcomes
        reach = Z * math.sqrt(share * (1.0 - share) / week.outcomes)
        most, least = min(MORE * (share + reach), 0.95), LESS * max(share - reach, 0.0)
        sides = [(most, min(ratio * most, 0.99)) for ratio in RISES] + [(least, ratio * least) for ratio in FALLS]
        told = hits / week.runs, n / week.runs
        e_values = [_binomial(bound, other, *told) for bound, other in sides]
        high = (standing := self._data.standing.get("positive_rate")) is not None and standing.high
        back = _binomial(most if high else least, share, *told)
        limit = most if hits > share * n else least
        yield from self._step("positive_rate", minute, e_values, back, (hits, n), limit, share)

    def _step(
        self,
        subject: Subject,
        minute: int,
        e_values: list[float],
        back: float,
        counts: tuple[int, int],
        limit: float,
        usual: float,
    ) -> Iterator[JoinFinding]:
        """One step of the statistics of a rate, `counts` being its numerator and denominator."""
        data, found_ms = self._data, (minute + 1) * MINUTE_MS
        standing = data.standing.get(subject)
        if standing is not None:
            standing.statistic = (standing.statistic + 1.0) * back
            if standing.statistic >= RECOVERED_AT:
                del data.standing[subject]
                value, since_ms = counts[0] / max(counts[1], 1), standing.since * MINUTE_MS
                yield JoinFinding(subject, since_ms, found_ms, value, limit, usual, resolved=True)
            return
        runs = data.runs.setdefault(subject, [_Run() for _ in e_values])
        for run, e_value in zip(runs, e_values, strict=True):
            run.shiryaev_roberts = (run.shiryaev_roberts + 1.0) * e_value
            if run.cusum <= 1.0:
                run.cusum, run.since, run.hits, run.of = 1.0, minute, 0, 0
            run.cusum, run.hits, run.of = run.cusum * e_value, run.hits + counts[0], run.of + counts[1]
        if sum(run.shiryaev_roberts for run in runs) >= RUN_LENGTH * len(runs):
            likeliest = max(runs, key=lambda run: run.cusum)
            del data.runs[subject]
            value, since_ms = likeliest.hits / max(likeliest.of, 1), likeliest.since * MINUTE_MS
            data.standing[subject] = _Standing(
                likeliest.since, data.week.today if data.week else 1.0, high=value > usual
            )
            yield JoinFinding(subject, since_ms, found_ms, value, limit, usual, resolved=False)


def _binomial(bound: float, other: float, hits: float, n: float) -> float:
    """Likelihood ratio of a share to a bound of it; 1 where the bound leaves no room."""
    return (other / bound) ** hits * ((1.0 - other) / (1.0 - bound)) ** (n - hits) if 0.0 < bound < 1.0 else 1.0
