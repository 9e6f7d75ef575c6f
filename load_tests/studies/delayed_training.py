"""Retraining every day on labels that are still coming, judged by the day after.

    python -m load_tests.studies.delayed_training [--seeds 4] [--json]

The concept turns by degrees, so that the newest days are worth most, and conversions come within a week. Every day
a model is trained by the trainer's own gradient boosting and calibration on the last seven days: on the final labels
of an oracle; on labels as they are ("naive": none yet means negative); on matured labels alone ("wait"); and on those
that have come, weighted by the delay curve. The gap between waiting and the oracle is what there is to be won.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from load_tests.studies.conversions import DAY_MS, FAST_MS, SLOW_MS, START_MS
from load_tests.studies.report import Figure, report
from tailrace.core.label_delay import LEAST_SHARE, Delays, cell_of, learn
from tailrace.core.metrics import metrics_of
from tailrace.core.scoring import on_grid
from tailrace.trainer.boosting import fit
from tailrace.trainer.models import Calibration
from tailrace.usecase.load import load_use_case

WIDTH, SPAN, DAYS, FIRST = 6, 7, 20, 16
PER_DAY = 12_000
WINDOW_MS = SPAN * DAY_MS
METHODS = ("oracle", "wait", "naive", "weighted")
PLAN = load_use_case(Path("feature_repo"), "card_fraud").plan
"""Trees look at no plan; any will do."""


def study(seeds: int) -> list[Figure]:
    runs = [_run(seed) for seed in range(seeds)]
    mean = {method: np.mean([run[method] for run in runs], axis=0) for method in METHODS}
    figures = []
    for method in METHODS:
        loss, area, ratio = mean[method]
        figures.append(Figure(f"{method}: log loss of the next day", float(loss)))
        figures.append(Figure(f"{method}: AUC", float(area)))
        figures.append(Figure(f"{method}: mean prediction over observed rate", float(ratio)))
    gap = mean["wait"][0] - mean["oracle"][0]
    for method in ("naive", "weighted"):
        closed = float((mean["wait"][0] - mean[method][0]) / gap)
        bar = 0.95 if method == "weighted" else None
        figures.append(Figure(f"{method}: share of the gap between waiting and the oracle", closed, bar, ">="))
    ratio = float(mean["weighted"][2])
    figures.append(Figure("weighted: mean prediction over observed rate, distance from 1", abs(ratio - 1.0), 0.03))
    return figures


def _run(seed: int) -> dict[str, NDArray[np.float64]]:
    """Log loss, AUC and mean prediction over rate by method, means over the days judged."""
    rows, label, time_ms, delay_ms, score = _stream(np.random.default_rng(seed))
    final = label & (delay_ms < WINDOW_MS)
    found: dict[str, list[list[float]]] = {method: [] for method in METHODS}
    for day in range(FIRST, DAYS):
        now_ms = START_MS + day * DAY_MS
        come = final & (time_ms + delay_ms <= now_ms)
        recent = (time_ms >= now_ms - SPAN * DAY_MS) & (time_ms < now_ms)
        matured = (time_ms >= now_ms - 2 * SPAN * DAY_MS) & (time_ms < now_ms - WINDOW_MS)
        share = _share(time_ms, score, delay_ms, come, now_ms)
        told = recent & (share >= LEAST_SHARE)
        answers: dict[str, tuple[NDArray[np.bool_], NDArray[Any]]] = {
            "oracle": (recent, final[recent]),
            "wait": (matured, final[matured]),
            "naive": (recent, come[recent]),
            "weighted": (told, come[told] / share[told]),
        }
        after = (time_ms >= now_ms) & (time_ms < now_ms + DAY_MS)
        for method, (taken, answer) in answers.items():
            figures = _judged(rows[taken], answer, rows[after], final[after])
            found[method].append(figures)
    return {method: np.mean(figures, axis=0) for method, figures in found.items()}


def _share(
    time_ms: NDArray[np.int64],
    score: NDArray[np.float64],
    delay_ms: NDArray[np.int64],
    come: NDArray[np.bool_],
    now_ms: int,
) -> NDArray[np.float64]:
    """Share of the conversions that have come by the age of each prediction, learnt from those that have."""
    closed = time_ms + WINDOW_MS <= now_ms
    curve = learn(Delays.of(time_ms[come], score[come], delay_ms[come], closed[come], now_ms), WINDOW_MS)
    if curve is None:
        raise RuntimeError("no window has closed yet")
    return curve.at(cell_of(score), time_ms, now_ms).share


def _judged(
    rows: NDArray[np.float32], answers: NDArray[Any], later: NDArray[np.float32], truth: NDArray[np.bool_]
) -> list[float]:
    cut = int(len(rows) * 0.85)
    model = fit(rows[:cut], answers[:cut], rows[cut:], answers[cut:], plan=PLAN, seed=0)
    calibration = Calibration(model.predict(rows[cut:]), answers[cut:])
    found = metrics_of(on_grid(calibration(model.predict(later))), truth, 0.5)
    return [found["log_loss"] or 0.0, found["roc_auc"] or 0.0, found["calibration"] or 0.0]


def _stream(
    rng: np.random.Generator,
) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Rows, labels, times, delays, and the scores of a model that was trained once, before the concept turned."""
    n = DAYS * PER_DAY + PER_DAY
    time_ms = START_MS + np.sort(rng.integers(0, (DAYS + 1) * DAY_MS, n))
    rows = rng.normal(0.0, 1.0, (n, WIDTH)).astype(np.float32)
    angle = (time_ms - START_MS) / DAY_MS * 0.12
    logit = 1.3 * (np.cos(angle) * rows[:, 0] + np.sin(angle) * rows[:, 1]) + 0.5 * rows[:, 2] * rows[:, 3] - 1.7
    label = rng.random(n) < 1.0 / (1.0 + np.exp(-logit))
    slow = rng.random(n) < 1.0 / (1.0 + np.exp(0.5 * (logit + 1.7)))
    delay_ms = np.maximum(rng.exponential(np.where(slow, SLOW_MS, FAST_MS)), 1.0).astype(np.int64)
    served = 1.3 * (0.3 * rows[:, 0] + 0.9 * rows[:, 1]) - 1.5
    return rows, label, time_ms, delay_ms, on_grid(1.0 / (1.0 + np.exp(-served.astype(np.float64))))


if __name__ == "__main__":
    report(study)
