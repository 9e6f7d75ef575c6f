"""Feature drift: false alarms of a family of 100 features, power against small changes, and speed of counting.

    python -m load_tests.studies.feature_drift [--seeds 8] [--json]

Features are normal, lognormal, Poisson counts and mostly zero, in turns. Training data cover twenty days, a window as
many of the days behind them as its rows take at the same rate; each may spend 5 % of false alarms. Those are counted
without asking whether a change matters. Rows are independent, but in the streams that have no change either: "moving",
in which each feature follows one of forty keys and is correlated over an hour; "clustered", in bursts of about ten rows
alike in every feature; "seasonal", by the hour and by the day of the week, in bursts, where the training data are enough
to tell the hours of the week apart, and windows are of whole hours. Eight seeds make 192 windows of a size, whose share
of false alarms has a standard error of 1.6 % where it is 5 %. What is done is told on standard error.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import product
from multiprocessing import get_context
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from load_tests.studies.report import Figure, report
from tailrace.core.drift import PSIState
from tailrace.core.drift_findings import MIN_ROWS, MONTH_MS
from tailrace.core.monitors import PSI
from tailrace.core.plan import Plan, RequestColumn
from tailrace.core.reference import HOUR_MS, MONDAY_MS
from tailrace.trainer.reference import reference_of

FEATURES = 100
FEW, MANY = 20_000, 100_000
"""Rows of the training data."""
SPAN_MS = 20 * 24 * HOUR_MS
KINDS = ("independent", "moving", "clustered", "seasonal")
SIZES = (200, 1_000, 5_000, 20_000)
CHANGES = {"mean + 0.1 sd": 5_000, "sd x 1.1": 5_000, "2 % missing": 1_000}
"""Changes of one feature, and the rows in which they are to be found."""
REFERENCES, EACH = 4, 6
"""References per seed, and windows of each size that are compared with each."""
PROCESSES = 2
NAMES = tuple(f"f{at}" for at in range(FEATURES))
START_MS = MONDAY_MS + 52 * 7 * 24 * HOUR_MS
KEYS, BURST = 40, 10
SPEED_ROWS, SPEED_S = 4_000, 1.0

Rows = NDArray[np.float32]
Times = NDArray[np.int64]
Window = tuple[slice, int, int]
"""Its rows, begin and end."""
Told = dict[str, tuple[int, int]]
"""Of each size or change, windows with an alarm and all windows."""


class Stream(NamedTuple):
    """Rows, scores and times, of which the first `trained` make the reference."""

    rows: Rows
    scores: NDArray[np.float64]
    times_ms: Times
    trained: int

    def reference(self) -> Mapping[str, Any]:
        """What a bundle would hold."""
        known = slice(self.trained)
        return reference_of(PLAN, self.rows[known], self.scores[known], self.times_ms[known])

    def windows(self, size: int, *, whole_hours: bool) -> Iterator[Window]:
        """Rows, begin and end of windows one after the other; of whole hours only those of enough rows to be judged."""
        if not whole_hours:
            for begin in range(self.trained, self.trained + EACH * size, size):
                yield slice(begin, begin + size), int(self.times_ms[begin]), int(self.times_ms[begin + size])
            return
        span_ms = -(-size * SPAN_MS // self.trained // HOUR_MS) * HOUR_MS
        first_ms = -(-int(self.times_ms[self.trained]) // HOUR_MS) * HOUR_MS
        for begin_ms in range(first_ms, first_ms + EACH * span_ms, span_ms):
            begin, end = np.searchsorted(self.times_ms, [begin_ms, begin_ms + span_ms]).tolist()
            if end - begin >= MIN_ROWS:
                yield slice(begin, end), begin_ms, begin_ms + span_ms


def study(seeds: int) -> list[Figure]:
    """Shares of windows, and feature values a second on one core."""
    alarms: dict[str, Told] = {}
    for kind, told in _progress([*product(range(seeds * REFERENCES), (*KINDS, ""))]):
        sums = alarms.setdefault(kind, {})
        for what, (found, windows) in told.items():
            before = sums.get(what, (0, 0))
            sums[what] = before[0] + found, before[1] + windows
    figures = [
        Figure(f"{kind} windows of {what} rows with a false alarm", found / windows, 0.08)
        for kind in KINDS
        for what, (found, windows) in alarms[kind].items()
    ]
    for change, (found, windows) in alarms[""].items():
        figures.append(Figure(f"{change} of one feature found in {CHANGES[change]} rows", found / windows, 0.9, ">="))
    figures.append(Figure("million feature values a second", _speed(), 10.0, ">="))
    return figures


def _progress(tasks: list[tuple[int, str]]) -> Iterator[tuple[str, Told]]:
    """Results in the order in which they are there; tells how many."""
    with ProcessPoolExecutor(PROCESSES, get_context("spawn")) as pool:
        running = {pool.submit(_false if kind else _power, seed, kind): kind for seed, kind in tasks}
        for done, future in enumerate(as_completed(running), 1):
            told = future.result()
            said = ", ".join(f"{what}: {found} of {windows}" for what, (found, windows) in told.items())
            print(f"{done}/{len(tasks)} {running[future] or 'power'} {said}", file=sys.stderr, flush=True)  # noqa: T201  # progress
            yield running[future], told


def _false(seed: int, kind: str) -> Told:
    """Windows with an alarm where nothing changed, by size."""
    seasonal = kind == "seasonal"
    stream = _stream(seed, kind, MANY if seasonal else FEW, max(SIZES))
    reference, told = stream.reference(), {}
    for size in SIZES:
        found = [bool(of) for of in _found(stream, reference, stream.windows(size, whole_hours=seasonal), 0.0)]
        told[str(size)] = sum(found), len(found)
    return told


def _power(seed: int, kind: str) -> Told:
    """Windows in which the changed feature alarms, by change."""
    stream = _stream(seed, kind, MANY, max(CHANGES.values()))
    reference, told = stream.reference(), {}
    for change, size in CHANGES.items():
        changed, windows = stream._replace(rows=stream.rows.copy()), [*stream.windows(size, whole_hours=False)]
        for rows, _, _ in windows:
            _change(changed.rows[rows, 0], change)
        found = ["f0" in of for of in _found(changed, reference, windows, PSI().alarm)]
        told[change] = sum(found), len(found)
    return told


def _found(
    stream: Stream, reference: Mapping[str, Any], windows: Iterable[Window], matters_from: float
) -> Iterator[set[str]]:
    """Subjects that alarm in each of some windows of the same length."""
    state = None
    for rows, since_ms, until_ms in windows:
        family = 0.05 / min((until_ms - since_ms) / MONTH_MS, 1.0)
        state = state or PSIState(PSI(alarm=matters_from, false_alarms=family), NAMES, reference)
        state.observe(stream.rows[rows], stream.scores[rows])
        findings = state.evaluate(since_ms, until_ms)
        state.reset()
        yield {finding.subject for finding in findings if any(sign.drifted for sign in finding.signs)}


def _change(values: Rows, change: str) -> None:
    match change:
        case "mean + 0.1 sd":
            values += 0.1
        case "sd x 1.1":
            values *= 1.1
        case "2 % missing":
            values[: len(values) // 50] = np.nan


def _stream(seed: int, kind: str, trained: int, longest: int) -> Stream:
    """A stream without a change, long enough for the windows."""
    rng = np.random.default_rng([seed, trained])
    count = trained + EACH * (longest + trained * HOUR_MS // SPAN_MS + 1)
    times = START_MS + np.sort(rng.integers(0, SPAN_MS * count // trained, count))
    return Stream(_rows(rng, kind, times), rng.random(count), times, trained)


def _rows(rng: np.random.Generator, kind: str, times_ms: Times) -> Rows:
    """Rows without a change: a latent normal for each feature, given its marginal law."""
    match kind:
        case "moving":
            rows = _moving(rng, times_ms)
        case "clustered":
            rows = _bursts(rng, len(times_ms))
        case "seasonal":
            hour = times_ms // HOUR_MS % 24
            day = (times_ms - MONDAY_MS) // (24 * HOUR_MS) % 7
            season = 0.8 * np.sin(2.0 * np.pi * hour / 24.0) + 0.6 * (day >= 5)
            rows = _bursts(rng, len(times_ms)) + season[:, None].astype(np.float32)
        case _:
            rows = rng.standard_normal((len(times_ms), FEATURES), np.float32)
    rows[:, 1::4] = np.exp(rows[:, 1::4])
    rows[:, 2::4] = np.floor(np.exp(1.0 + 0.6 * rows[:, 2::4]))
    rows[:, 3::4] = np.maximum(rows[:, 3::4] - 0.84, 0.0)
    return rows


def _moving(rng: np.random.Generator, times_ms: Times) -> Rows:
    """Of one of the keys at each time: an Ornstein-Uhlenbeck process that is correlated over an hour, around a level."""
    of = rng.integers(0, KEYS, len(times_ms))
    order = np.argsort(of, kind="stable")
    first = np.searchsorted(of[order], np.arange(KEYS))
    turn = np.arange(len(of)) - first[of[order]]
    latent = rng.standard_normal((len(times_ms), FEATURES), np.float32)
    for at in range(1, int(turn.max()) + 1):
        places = np.flatnonzero(turn == at)
        before, now = order[places - 1], order[places]
        kept = np.exp((times_ms[before] - times_ms[now]) / HOUR_MS).astype(np.float32)[:, None]
        latent[now] = kept * latent[before] + np.sqrt(1.0 - kept * kept) * latent[now]
    return 0.8 * latent + 0.6 * rng.standard_normal((KEYS, FEATURES), np.float32)[of]


def _bursts(rng: np.random.Generator, size: int) -> Rows:
    """Rows of which about ten, one after the other, are equal."""
    of = np.cumsum(rng.random(size) < 1.0 / BURST)
    return rng.standard_normal((int(of[-1]) + 1, FEATURES), np.float32)[of]


PLAN = Plan(
    use_case="study",
    version=1,
    key="key",
    event_time="at",
    event_id="id",
    entities=("key",),
    slices=(),
    request=tuple(RequestColumn(name=name, kind="field", field=name) for name in NAMES),
    views=(),
    field_types={},
    threshold=0.5,
    default_score=0.5,
    latency_budget_ms=10,
)


def _speed() -> float:
    rng = np.random.default_rng(0)
    times = np.full(FEW, START_MS)
    rows, scores = _rows(rng, "independent", times), rng.random(FEW)
    state = PSIState(PSI(), NAMES, reference_of(PLAN, rows, scores))
    rounds, began = 0, time.perf_counter()
    while time.perf_counter() - began < SPEED_S:
        state.observe(rows[:SPEED_ROWS], scores[:SPEED_ROWS])
        rounds += 1
    return rounds * SPEED_ROWS * FEATURES / (time.perf_counter() - began) / 1e6


if __name__ == "__main__":
    report(study)
