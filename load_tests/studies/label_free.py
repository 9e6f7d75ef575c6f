"""Label-free estimates of accuracy and AUC under shifts of the inputs, and their end under a shift of the concept.

    python -m load_tests.studies.label_free [--seeds 8] [--json]

A gradient-boosted model is trained once and serves 5,000 predictions a day through feedback itself; labels come a
day later. On day 8 the inputs shift by so many standard deviations, or the concept turns.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier

from load_tests.studies.conversions import DAY_MS, HOUR_MS, START_MS, Stream, World, use_case
from load_tests.studies.report import Figure, report
from tailrace.core.metrics import metrics_of
from tailrace.core.readings import Readings
from tailrace.core.scoring import on_grid
from tailrace.core.window_counts import WindowKey

BEFORE, AFTER, PER_DAY, WIDTH = 8, 4, 5_000, 6
DELAY_MS = 20 * HOUR_MS


def study(seeds: int) -> list[Figure]:
    figures = []
    for shift in (0.0, 0.5, 1.0):
        errors = np.array([row for seed in range(seeds) for row in _shifted(seed, shift)])
        for at, name in enumerate(("accuracy", "roc_auc")):
            mean = float(np.abs(errors[:, at]).mean())
            figures.append(Figure(f"inputs shifted by {shift} sd: {name}, mean absolute error", mean, 0.012))
        figures.append(Figure(f"inputs shifted by {shift} sd: share of days withheld", float(errors[:, 2].mean())))
    found = np.array([_turned(seed) for seed in range(seeds)])
    figures.append(Figure("concept turned: error of accuracy before it is known", float(found[:, 0].mean())))
    figures.append(
        Figure("concept turned: share withdrawn at the first matured window", float(found[:, 1].mean()), 1.0, ">=")
    )
    return figures


def _shifted(seed: int, shift: float) -> list[tuple[float, float, bool]]:
    """For each day after the shift: error of accuracy and AUC as estimated when it ended, and whether withheld."""
    stream, score, label = _stream(seed, shift, turned=False)
    world, found = World(use_case(window="1d"), stream, negatives_too=True), []
    for day in range(1, BEFORE + AFTER + 1):
        world.advance(START_MS + day * DAY_MS)
        if day > BEFORE:
            readings, key = world.state.readings(), _key(day - 1)
            assert isinstance(readings, Readings)
            # The error is that of the estimate itself, be it published or withheld.
            guess, mine = readings.guess(key), slice((day - 1) * PER_DAY, day * PER_DAY)
            truth = metrics_of(score[mine], label[mine], 0.5)
            withheld = bool(readings.estimate(key).withheld)
            errors = [(guess.metrics[name] or 0.0) - (truth[name] or 0.0) for name in ("accuracy", "roc_auc")]
            found.append((errors[0], errors[1], withheld))
    return found


def _turned(seed: int) -> tuple[float, bool]:
    """Error of accuracy on the first day of another concept, and whether its labels end the estimate at once."""
    stream, score, label = _stream(seed, 0.0, turned=True)
    world = World(use_case(window="1d"), stream, negatives_too=True)
    for day in range(1, BEFORE + 3):
        world.advance(START_MS + day * DAY_MS)
        if day == BEFORE + 1:
            said = world.state.readings().estimate(_key(BEFORE)).metrics["accuracy"] or 0.0
    mine = slice(BEFORE * PER_DAY, (BEFORE + 1) * PER_DAY)
    truth = metrics_of(score[mine], label[mine], 0.5)["accuracy"] or 0.0
    # The day after has its end: the labels of the first day of the new concept are all there, its own are not.
    return said - truth, bool(world.state.readings().estimate(_key(BEFORE + 1)).withheld)


def _stream(seed: int, shift: float, *, turned: bool) -> tuple[Stream, NDArray[np.float64], NDArray[np.bool_]]:
    rng = np.random.default_rng(seed)
    weights = rng.choice([-1.0, 1.0], WIDTH) * np.linspace(1.2, 0.4, WIDTH)
    known = rng.normal(0.0, 1.0, (20_000, WIDTH))
    model = HistGradientBoostingClassifier(max_iter=80, max_leaf_nodes=15, learning_rate=0.08, random_state=seed)
    model.fit(known, rng.random(len(known)) < _truth(known, weights))
    days = BEFORE + AFTER
    rows = rng.normal(0.0, 1.0, (days * PER_DAY, WIDTH))
    after = np.arange(len(rows)) >= BEFORE * PER_DAY
    rows[after, 0] += shift
    rate = _truth(rows, weights)
    if turned:
        other = weights.copy()
        other[1:3] = -other[1:3]
        rate = np.where(after, _truth(rows, other), rate)
    score, label = on_grid(model.predict_proba(rows)[:, 1]), rng.random(len(rows)) < rate
    time_ms = START_MS + (np.arange(len(rows)) + 0.5) / PER_DAY * DAY_MS
    delay_ms = rng.integers(1, DELAY_MS, len(rows))
    return Stream(time_ms.astype(np.int64), score, label, delay_ms), score, label


def _truth(rows: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    logit = rows @ weights + 0.6 * rows[:, 0] * rows[:, 1] - 0.4 * np.abs(rows[:, 2]) - 0.3
    return np.asarray(1.0 / (1.0 + np.exp(-logit)))


def _key(day: int) -> WindowKey:
    return WindowKey(START_MS + day * DAY_MS, "champion", "1", "")


if __name__ == "__main__":
    report(study)
