"""Live metrics of four workers against those of one, and against scikit-learn on the same joined rows.

    python -m load_tests.studies.live_metrics [--seeds 8] [--json]

Predictions of three days, split over workers at random; a tenth of the labels is said wrong at first and revised.
scikit-learn is given the joined rows, whose scores are those published; then the scores before they were rounded to the
grid; and outcomes of numbers as they are.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from sklearn import metrics as sk

from load_tests.studies.report import Figure, report
from tailrace.contracts.quality import Quality
from tailrace.core.join_table import ACTIVATED, JoinTable
from tailrace.core.metrics import merge
from tailrace.core.quality import DAY_MS, QualityWindows
from tailrace.core.regression import ValueGrid
from tailrace.core.scoring import on_grid
from tailrace.core.window_counts import WindowCounts
from tailrace.core.window_spec import WindowSpec

ROWS, DAYS, WORKERS, TOP, CARDS = 120_000, 3, 4, 100, 5_000
THRESHOLD, QUANTILE, BOUND = 0.5, 0.9, 0.001
RATES = {"balanced": 0.5, "2 %": 0.02, "0.2 %": 0.002}
GRID = ValueGrid(0.0, 120.0, QUANTILE)

Floats = NDArray[np.float64]


class Rows(NamedTuple):
    """Joined rows, n each: `raw` are the model's scores, `said` the published ones, `label` what came of them."""

    raw: Floats
    said: Floats
    label: Floats
    amount: Floats
    card: NDArray[np.int64]
    time_ms: NDArray[np.int64]


def study(seeds: int) -> list[Figure]:
    figures = []
    differing = 0
    for name, rate in RATES.items():
        gaps: dict[str, float] = {}
        exact = 0.0
        for seed in range(seeds):
            rows = _scored(seed, rate)
            spec = WindowSpec(weighted=True, top=TOP, distinct=True)
            found, differs = _merged(rows, spec, seed)
            differing += differs
            exact = max(
                exact, *(abs((found[key] or 0.0) - value) for key, value in _of_scores(rows, rows.said).items())
            )
            for metric, value in _of_scores(rows, rows.raw).items():
                gaps[metric] = max(gaps.get(metric, 0.0), abs((found[metric] or 0.0) - value))
        figures.append(Figure(f"{name} positive: any metric of the joined rows, largest gap", exact, BOUND))
        figures += [
            Figure(f"{name} positive, before rounding: {key}, largest gap", gap, BOUND) for key, gap in gaps.items()
        ]
    gaps = {}
    for seed in range(seeds):
        rows = _numbers(seed)
        found, differs = _merged(rows, WindowSpec(grid=GRID), seed)
        differing += differs
        for metric, value in _of_numbers(rows).items():
            unit = 1.0 if metric == "coverage" else GRID.high - GRID.low
            gaps[metric] = max(gaps.get(metric, 0.0), abs((found[metric] or 0.0) - value) / unit)
    figures += [
        Figure(f"numbers: {metric}, largest gap as a share of the range", gap, BOUND) for metric, gap in gaps.items()
    ]
    return [Figure(f"records of {WORKERS} workers that differ from those of one", float(differing), 0.0), *figures]


def _merged(rows: Rows, spec: WindowSpec, seed: int) -> tuple[dict[str, float | None], int]:
    """Metrics over all days from records of several workers, and how much they differ from those of one."""
    worker = np.random.default_rng(seed + 1_000).integers(0, WORKERS, len(rows.raw))
    one = _counted(rows, spec, np.arange(len(worker)))
    parts = [_counted(rows, spec, np.flatnonzero(worker == number)) for number in range(WORKERS)]
    together = QualityWindows(spec)
    for part in parts:
        for key in part:
            stored = msgspec.json.encode(part.counts(key))
            together.restore(key, msgspec.json.decode(stored, type=WindowCounts))
    expected, found = _records(one), _records(together)
    differs = sum(a != b for a, b in zip(expected, found, strict=True))
    read = merge([record for part in parts for record in _records(part)])
    return read, differs + (read != merge(expected))


def _counted(rows: Rows, spec: WindowSpec, mine: NDArray[np.int64]) -> QualityWindows:
    """A worker's windows: predictions, then labels of which some are wrong, then the right ones in their place."""
    windows, table = QualityWindows(spec), JoinTable()
    texts = [
        msgspec.json.encode((f"p{at:06d}", f"e{at}", f"c{card}", {}, amount))
        for at, card, amount in zip(mine.tolist(), rows.card[mine].tolist(), rows.amount[mine].tolist(), strict=True)
    ]
    cohort = table.cohort_numbers([("champion", "1", b"{}")]) * len(mine)
    taken = table.add(texts, rows.time_ms[mine], rows.said[mine], cohort, np.full(len(mine), ACTIVATED))
    windows.predicted(table, taken)
    first = rows.label[mine].copy()
    wrong = mine % 10 == 0
    first[wrong] = np.where(first[wrong] > 0.0, 0.0, 1.0)
    windows.labelled(table, taken, first)
    windows.labelled(table, taken[wrong], first[wrong], -1)
    windows.labelled(table, taken[wrong], rows.label[mine][wrong])
    return windows


def _records(windows: QualityWindows) -> list[Quality]:
    said: dict[str, Any] = {"use_case": "u", "label_name": "l", "threshold": THRESHOLD, "watermark_ms": 0}
    return [windows.record(key, **said) for key in sorted(windows)]


def _of_scores(rows: Rows, raw: Floats) -> dict[str, float]:
    """scikit-learn's metrics of scores, float64 (n,), and of the decisions that were published."""
    label, amount = rows.label > 0.0, rows.amount
    # Decisions are made on what is published, and acted upon.
    decided = rows.said >= THRESHOLD
    cells = np.minimum((raw * 10).astype(int), 9)
    gaps = [abs(raw[cells == c].sum() - label[cells == c].sum()) for c in range(10)]
    return {
        "log_loss": sk.log_loss(label, raw),
        "roc_auc": sk.roc_auc_score(label, raw),
        "pr_auc": sk.average_precision_score(label, raw),
        "brier": sk.brier_score_loss(label, raw),
        "calibration_error": float(sum(gaps)) / len(raw),
        "accuracy": sk.accuracy_score(label, decided),
        "kappa": sk.cohen_kappa_score(label, decided),
        "amount_roc_auc": sk.roc_auc_score(label, raw, sample_weight=amount),
        "amount_recall": sk.recall_score(label, decided, sample_weight=amount),
        "top_precision": _card_precision(rows, label),
    }


def _card_precision(rows: Rows, label: NDArray[np.bool_]) -> float:
    """Of each day the cards with the highest published scores, by their highest-scored payment, sorted the plain way."""
    found = []
    for day in range(DAYS):
        mine = np.flatnonzero(rows.time_ms // DAY_MS == day)
        best: dict[int, int] = {}
        for at in mine[np.lexsort((mine, -rows.said[mine]))].tolist():
            best.setdefault(int(rows.card[at]), at)
        found.append(float(label[list(best.values())[:TOP]].mean()))
    return float(np.mean(found))


def _of_numbers(rows: Rows) -> dict[str, float]:
    return {
        "mae": sk.mean_absolute_error(rows.label, rows.raw),
        "rmse": sk.root_mean_squared_error(rows.label, rows.raw),
        "pinball": sk.mean_pinball_loss(rows.label, rows.raw, alpha=QUANTILE),
        "coverage": float((rows.label <= rows.raw).mean()),
    }


def _scored(seed: int, rate: float) -> Rows:
    rng = np.random.default_rng(seed)
    label = rng.random(ROWS) < rate
    logit = rng.normal(0.0, 1.3, ROWS) + 2.4 * label + np.log(rate / (1.0 - rate)) - 1.0 + 2.0 * (rate < 0.1) * label
    raw = 1.0 / (1.0 + np.exp(-logit))
    return Rows(raw, on_grid(raw), label.astype(float), np.round(rng.lognormal(3.5, 1.0, ROWS), 2), *_where(rng))


def _numbers(seed: int) -> Rows:
    rng = np.random.default_rng(seed)
    raw = rng.uniform(10.0, 90.0, ROWS)
    label = np.clip(raw - 6.0 + rng.gamma(2.0, 3.0, ROWS) * rng.choice([-1.0, 1.0], ROWS, p=[0.8, 0.2]), 0.0, 120.0)
    return Rows(raw, GRID.values(GRID.positions(raw)), label, np.zeros(ROWS), *_where(rng))


def _where(rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return rng.integers(0, CARDS, ROWS), np.sort(rng.integers(0, DAYS * DAY_MS, ROWS))


if __name__ == "__main__":
    report(study)
