"""Simulated conversions with a known delay law, through the real join: predictions, outcomes, stream time.

Half of the positive outcomes come within hours and half within days, the more likely ones sooner; one counts if it
comes within the attribution window. Nothing that is measured on these streams was fitted to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

import tailrace as tr
from tailrace.core.join_table import ACTIVATED, DECIDED, Cohort
from tailrace.core.joins import Arrivals, Reports
from tailrace.core.scoring import on_grid
from tailrace.feedback.changelog import Changelog
from tailrace.feedback.specs import horizon_ms
from tailrace.feedback.state import FeedbackState
from tailrace.usecase.declaration import UseCase

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
START_MS = 20_000 * DAY_MS
FAST_MS = 2 * HOUR_MS
SLOW_MS = 1.7 * DAY_MS


class Visit(tr.Event):
    """A prediction is made of each."""

    visit_id: str
    user_id: str
    bid: float
    at_ms: int


class Conversion(tr.Event):
    """An outcome."""

    visit_id: str
    bought: bool
    at_ms: int


def use_case(
    *, window: str = "7d", if_absent: bool | None = False, monitor: Sequence[tr.drift.EDetector] = ()
) -> UseCase:
    """The use case of the studies."""
    visits = tr.Topic("visits", Visit, key="user_id", event_time="at_ms")
    bought = tr.Topic("conversions", Conversion, key="visit_id", event_time="at_ms", lateness="0s")
    return tr.UseCase(
        name="conversions",
        requests=visits,
        prediction_id="visit_id",
        features=[tr.Field("bid")],
        label=tr.Label(
            bought, on="visit_id", value="bought", matures_after=window, if_absent=if_absent, corrected_within="1d"
        ),
        model=tr.Binary(train="boosting"),
        monitor=monitor,
    )


class Stream(NamedTuple):
    """Predictions in order of time, n each: `score` as published; `delay_ms` of the outcome; `label`, what it says."""

    time_ms: NDArray[np.int64]
    score: NDArray[np.float64]
    label: NDArray[np.bool_]
    delay_ms: NDArray[np.int64]

    def final(self, window_ms: int) -> NDArray[np.bool_]:
        """Labels once all is known, where no outcome within the window means negative: bool (n,)."""
        return self.label & (self.delay_ms < window_ms)


def simulate(
    rng: np.random.Generator,
    *,
    days: int,
    per_day: int,
    base: float = -2.2,
    slower_from: int | None = None,
    factor: float = 2.5,
) -> Stream:
    """Draws a stream.

    Args:
        rng: Source of everything random.
        days: How many.
        per_day: Predictions a day.
        base: Mean log-odds of a conversion.
        slower_from: Day from which the slow delays are `factor` times longer; None: they stay.
        factor: See above.
    """
    n = days * per_day
    time_ms = START_MS + np.sort(rng.integers(0, days * DAY_MS, n))
    logit = base + rng.normal(0.0, 1.2, n)
    score = on_grid(1.0 / (1.0 + np.exp(-logit)))
    label = rng.random(n) < score
    slow = rng.random(n) < 1.0 / (1.0 + np.exp(0.6 * (logit - base)))
    mean_ms = np.where(slow, SLOW_MS, FAST_MS)
    if slower_from is not None:
        mean_ms = np.where(slow & (time_ms >= START_MS + slower_from * DAY_MS), factor * SLOW_MS, mean_ms)
    return Stream(time_ms, score, label, np.maximum(rng.exponential(mean_ms), 1.0).astype(np.int64))


class World:
    """Feedback that a stream is fed to."""

    def __init__(self, declared: UseCase, stream: Stream, *, negatives_too: bool = False) -> None:
        self.state = FeedbackState(declared)
        self._stream, self.changelog = stream, Changelog("", horizon_ms(declared.label))
        told = np.flatnonzero(stream.label | negatives_too)
        self._outcomes = told[np.argsort((stream.time_ms + stream.delay_ms)[told], kind="stable")]
        self._fed = self._told = 0

    def advance(self, now_ms: int) -> None:
        """Feeds everything up to a time, as hourly batches would come to it."""
        stream, state = self._stream, self.state
        upto = int(np.searchsorted(stream.time_ms, now_ms, side="right"))
        state.predict(_arrivals(stream, np.arange(self._fed, upto)))
        self._fed = upto
        times = (stream.time_ms + stream.delay_ms)[self._outcomes]
        end = int(np.searchsorted(times, now_ms, side="right"))
        told = self._outcomes[self._told : end]
        self._told = end
        if told.size:
            state.observe(
                0,
                Reports(
                    [f"v{at}" for at in told.tolist()],
                    times[end - len(told) : end],
                    np.zeros(len(told), np.bool_),
                    stream.label[told].astype(np.float64),
                    times[end - len(told) : end],
                ),
            )
        state.advance(now_ms)
        state.forget(now_ms)
        self._store()

    def _store(self) -> None:
        self.state.labels[0].store(self.changelog)


def _arrivals(stream: Stream, which: NDArray[np.int64]) -> Arrivals:
    names = [f"v{at}" for at in which.tolist()]
    return Arrivals(
        names,
        [b'["%b:c","%b","u",{}]' % (name.encode(), name.encode()) for name in names],
        stream.time_ms[which],
        stream.score[which],
        np.where(stream.score[which] >= 0.5, ACTIVATED | DECIDED, ACTIVATED).astype(np.uint8),
        [Cohort("champion", "1", b"{}")],
        np.zeros(len(names), np.int64),
    )
