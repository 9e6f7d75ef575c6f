"""Feature drift: false alarms of a family of 100 features, power against small changes, and speed of counting.

Features are normal, lognormal, Poisson counts and mostly zero, in turns. A window is a look of a month, so that it
may spend all of its 5 % of false alarms at once; those are counted without asking whether a change matters, and
against few rows of training, power against many.
"""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from load_tests.studies.report import Figure, report
from tailrace.core.drift import MONTH_MS, PSIState
from tailrace.core.monitors import PSI
from tailrace.core.plan import Plan, RequestColumn
from tailrace.trainer.reference import reference_of

FEATURES = 100
FEW, MANY = 20_000, 100_000
"""Rows of the training data."""
SIZES = (200, 1_000, 5_000, 20_000)
WINDOWS = 25
"""Windows per seed and size, each against a reference of its own."""
NAMES = tuple(f"f{at}" for at in range(FEATURES))
SPEED_ROWS, SPEED_S = 4_000, 1.0

Rows = NDArray[np.float32]


def study(seeds: int) -> list[Figure]:
    """Shares of windows, and feature values a second on one core."""
    figures = []
    for size in SIZES:
        false = [bool(_found(PSI(alarm=0.0), seed, size, "")) for seed in range(seeds * WINDOWS)]
        figures.append(Figure(f"windows of {size} rows with a false alarm", float(np.mean(false)), 0.08))
    for change, size in (("mean + 0.1 sd", 5_000), ("sd x 1.1", 5_000), ("2 % missing", 1_000)):
        hits = ["f0" in _found(PSI(), seed, size, change) for seed in range(seeds * WINDOWS // 2)]
        figures.append(Figure(f"{change} of one feature found in {size} rows", float(np.mean(hits)), 0.9, ">="))
    figures.append(Figure("million feature values a second", _speed(), 10.0, ">="))
    return figures


def _found(spec: PSI, seed: int, size: int, change: str) -> set[str]:
    """Subjects that alarm in one window."""
    rng = np.random.default_rng([seed, size])
    state = PSIState(spec, NAMES, _reference(rng, FEW if not change else MANY))
    rows = _rows(rng, size)
    match change:
        case "mean + 0.1 sd":
            rows[:, 0] += 0.1
        case "sd x 1.1":
            rows[:, 0] *= 1.1
        case "2 % missing":
            rows[: size // 50, 0] = np.nan
    state.observe(rows, rng.random(size))
    return {f.subject for f in state.evaluate(0, MONTH_MS) if any(sign.drifted for sign in f.signs)}


def _rows(rng: np.random.Generator, size: int) -> Rows:
    rows = rng.normal(size=(size, FEATURES)).astype(np.float32)
    rows[:, 1::4] = np.exp(rows[:, 1::4])
    rows[:, 2::4] = rng.poisson(3.0, rows[:, 2::4].shape)
    rows[:, 3::4] *= rng.random(rows[:, 3::4].shape) < 0.2
    return rows


def _reference(rng: np.random.Generator, trained: int) -> dict[str, object]:
    plan = Plan(
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
    return reference_of(plan, _rows(rng, trained), rng.random(trained))


def _speed() -> float:
    rng = np.random.default_rng(0)
    state = PSIState(PSI(), NAMES, _reference(rng, FEW))
    rows, scores = _rows(rng, SPEED_ROWS), rng.random(SPEED_ROWS)
    rounds, began = 0, time.perf_counter()
    while time.perf_counter() - began < SPEED_S:
        state.observe(rows, scores)
        rounds += 1
    return rounds * SPEED_ROWS * FEATURES / (time.perf_counter() - began) / 1e6


if __name__ == "__main__":
    report(study)
