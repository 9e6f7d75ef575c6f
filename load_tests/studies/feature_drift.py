"""Feature drift: false alarms of a family of 100 features, power against small changes, and speed of counting.

Features are normal, lognormal, Poisson counts and mostly zero, in turns. Training data cover twenty days, a window as
many of the days behind them as its rows take at the same rate; each may spend 5 % of false alarms. Those are counted
without asking whether a change matters. Rows are independent, but in the streams that have no change either: "moving",
in which each feature is a mean over an hour of one of forty keys; "clustered", in bursts of about ten rows alike in
every feature; "seasonal", by the hour and by the day of the week, in bursts, where the training data are enough to
tell the hours of the week apart.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from load_tests.studies.report import Figure, report
from tailrace.core.drift import MONTH_MS, PSIState
from tailrace.core.monitors import PSI
from tailrace.core.plan import Plan, RequestColumn
from tailrace.core.reference import HOUR_MS, MONDAY_MS
from tailrace.trainer.reference import reference_of

FEATURES = 100
FEW, MANY = 20_000, 100_000
"""Rows of the training data."""
SPAN_MS = 20 * 24 * HOUR_MS
SIZES = (200, 1_000, 5_000, 20_000)
REFERENCES, EACH = 4, 6
"""References per seed, and windows of each size that are compared with each."""
NAMES = tuple(f"f{at}" for at in range(FEATURES))
START_MS = MONDAY_MS + 52 * 7 * 24 * HOUR_MS
KEYS, BURST = 40, 10
SPEED_ROWS, SPEED_S = 4_000, 1.0

Rows = NDArray[np.float32]
Times = NDArray[np.int64]


def study(seeds: int) -> list[Figure]:
    """Shares of windows, and feature values a second on one core."""
    figures = []
    for kind in ("independent", "moving", "clustered", "seasonal"):
        trained = MANY if kind == "seasonal" else FEW
        false = _shares([_found(seed, kind, trained, SIZES) for seed in range(seeds * REFERENCES)], lambda found: found)
        names = [f"{kind} windows of {size} rows with a false alarm" for size in SIZES]
        figures += [Figure(name, share, 0.08) for name, share in zip(names, false, strict=True)]
    for change, size in (("mean + 0.1 sd", 5_000), ("sd x 1.1", 5_000), ("2 % missing", 1_000)):
        runs = [_found(seed, "independent", MANY, (size,), change) for seed in range(seeds * REFERENCES)]
        [power] = _shares(runs, lambda found: "f0" in found)
        figures.append(Figure(f"{change} of one feature found in {size} rows", power, 0.9, ">="))
    figures.append(Figure("million feature values a second", _speed(), 10.0, ">="))
    return figures


def _shares(runs: list[list[list[set[str]]]], counts: Callable[[set[str]], object]) -> list[float]:
    """Shares of the windows that count, by size."""
    return [float(np.mean([bool(counts(one)) for run in runs for one in run[at]])) for at in range(len(runs[0]))]


def _found(seed: int, kind: str, trained: int, sizes: tuple[int, ...], change: str = "") -> list[list[set[str]]]:
    """Subjects that alarm in each of the windows of each size behind the training data."""
    rng = np.random.default_rng([seed, trained])
    count = trained + EACH * (max(sizes) + trained * HOUR_MS // SPAN_MS + 1)
    times = START_MS + np.sort(rng.integers(0, SPAN_MS * count // trained, count))
    rows, scores = _rows(rng, kind, times), rng.random(count)
    reference = reference_of(PLAN, rows[:trained], scores[:trained], times[:trained])
    found: list[list[set[str]]] = []
    for size in sizes:
        found.append([])
        for since_ms, until_ms in _looks(
            size * SPAN_MS // trained, int(times[trained]), whole_hours=kind == "seasonal"
        ):
            now = slice(*np.searchsorted(times, [since_ms, until_ms]).tolist())
            _change(rows[now, 0], change)
            family = 0.05 / min((until_ms - since_ms) / MONTH_MS, 1.0)
            state = PSIState(PSI(alarm=0.02 if change else 0.0, false_alarms=family), NAMES, reference)
            state.observe(rows[now], scores[now])
            findings = state.evaluate(since_ms, until_ms)
            found[-1].append({finding.subject for finding in findings if any(sign.drifted for sign in finding.signs)})
    return found


def _looks(span_ms: int, first_ms: int, *, whole_hours: bool) -> list[tuple[int, int]]:
    """Begin and end of looks one after the other; of whole hours, as a service has them, they are a little longer."""
    if whole_hours:
        span_ms, first_ms = (-(-of_ms // HOUR_MS) * HOUR_MS for of_ms in (span_ms, first_ms))
    return [(first_ms + at * span_ms, first_ms + (at + 1) * span_ms) for at in range(EACH)]


def _change(values: Rows, change: str) -> None:
    match change:
        case "mean + 0.1 sd":
            values += 0.1
        case "sd x 1.1":
            values *= 1.1
        case "2 % missing":
            values[: len(values) // 50] = np.nan


def _rows(rng: np.random.Generator, kind: str, times_ms: Times) -> Rows:
    """Rows without a change: a latent normal for each feature, given its marginal law."""
    size = len(times_ms)
    match kind:
        case "moving":
            latent = _moving(rng, times_ms)
        case "clustered":
            latent = rng.normal(size=(size, FEATURES))[_bursts(rng, size)]
        case "seasonal":
            hour = times_ms // HOUR_MS % 24
            day = (times_ms - MONDAY_MS) // (24 * HOUR_MS) % 7
            season = 0.8 * np.sin(2.0 * np.pi * hour / 24.0) + 0.6 * (day >= 5)
            latent = rng.normal(size=(size, FEATURES))[_bursts(rng, size)] + season[:, None]
        case _:
            latent = rng.normal(size=(size, FEATURES))
    rows = latent.astype(np.float32)
    rows[:, 1::4] = np.exp(rows[:, 1::4])
    rows[:, 2::4] = np.floor(np.exp(1.0 + 0.6 * rows[:, 2::4]))
    rows[:, 3::4] = np.maximum(rows[:, 3::4] - 0.84, 0.0)
    return rows


def _moving(rng: np.random.Generator, times_ms: Times) -> NDArray[np.float64]:
    """Of one of the keys at each time: a sequence of minutes, correlated over an hour, around a level of its own."""
    minute = (times_ms - times_ms[0]) // 60_000
    steps, place = np.unique(minute // 10, return_inverse=True)
    kept = np.exp(-10.0 / 60.0)
    of = rng.integers(0, KEYS, len(times_ms))
    latent = np.empty((len(times_ms), FEATURES))
    length = int(steps[-1]) + 1
    for at in range(FEATURES):
        noise = rng.normal(size=(length, KEYS)) * np.sqrt(1.0 - kept * kept)
        noise[0] = rng.normal(size=KEYS)
        paths = lfilter([1.0], [1.0, -kept], noise, axis=0)
        latent[:, at] = 0.8 * paths[steps[place], of] + 0.6 * rng.normal(size=KEYS)[of]
    return latent


def _bursts(rng: np.random.Generator, size: int) -> NDArray[np.int64]:
    """Which burst each row belongs to."""
    return np.cumsum(rng.random(size) < 1.0 / BURST)


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
