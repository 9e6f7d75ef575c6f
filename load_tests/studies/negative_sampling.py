"""What fitting to a share of the negatives costs, and what it saves.

    python -m load_tests.studies.negative_sampling [--seeds 3] [--json]

Of clicks (4 % of the rows) and frauds (0.7 %) the trainer's own gradient boosting is fitted to all positives and ever
fewer negatives, corrected by log r, calibrated on rows of which all are kept, and judged by rows that came later.
Fits are timed by their own CPU seconds.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # it ships none

from load_tests.studies.report import Figure, report
from tailrace.core.metrics import metrics_of
from tailrace.core.negative_sampling import NegativeSampling
from tailrace.core.sampling import DataSet
from tailrace.core.scoring import on_grid
from tailrace.trainer.boosting import fit
from tailrace.trainer.models import Calibration
from tailrace.usecase.load import load_use_case

WIDTH, FITTED, HELD, LATER = 8, 300_000, 200_000, 200_000
KINDS = {"clicks": -4.2, "frauds": -6.3}
"""Log-odds of an average row."""
RATES = (1.0, 0.3, 0.1, 0.03, 0.01)
PLAN = load_use_case(Path("feature_repo"), "card_fraud").plan
"""Trees look at no plan; any will do."""


def study(seeds: int) -> list[Figure]:
    figures = []
    for kind, logit in KINDS.items():
        with threadpool_limits(limits=1, user_api="openmp"):
            runs = np.array([_run(seed, logit) for seed in range(seeds)])
        full = runs[:, 0].mean(axis=0)
        for at, rate in enumerate(RATES):
            kept, area, precision, ratio, seconds = runs[:, at].mean(axis=0)
            # About as many negatives as are always kept, and the rate that most will declare.
            judged = rate == 0.1
            place = f"{kind}, r = {rate:g}"
            figures += [
                Figure(f"{place}: negatives fitted to", kept),
                Figure(f"{place}: AUC lost", full[1] - area, 0.003 if judged else None),
                Figure(
                    f"{place}: average precision lost, relative", 1.0 - precision / full[2], 0.03 if judged else None
                ),
                Figure(f"{place}: mean prediction over rate, from 1", abs(ratio - 1.0), 0.03 if judged else None),
                Figure(f"{place}: times faster", full[4] / seconds),
            ]
    return figures


def _run(seed: int, logit: float) -> list[list[float]]:
    """By rate: negatives, AUC, average precision, mean prediction over the rate that rows were drawn with, seconds."""
    rng = np.random.default_rng(seed)
    data, _ = _drawn(rng, FITTED, logit)
    held, _ = _drawn(rng, HELD, logit)
    later, truth = _drawn(rng, LATER, logit)
    found = []
    for rate in RATES:
        sampling = NegativeSampling(rate)
        taken = sampling.sample(data)
        began = time.process_time()
        model = fit(taken.rows, taken.answers, held.rows, held.answers, plan=PLAN, seed=seed)
        seconds = time.process_time() - began
        calibration = Calibration(model.predict(held.rows), held.answers, log_r=sampling.log_r)
        scores = calibration(model.predict(later.rows))
        figures = metrics_of(on_grid(scores), later.labels, 0.5)
        areas = [figures["roc_auc"] or 0.0, figures["pr_auc"] or 0.0]
        found.append([float((~taken.labels).sum()), *areas, float(scores.mean() / truth.mean()), seconds])
    return found


def _drawn(rng: np.random.Generator, n: int, logit: float) -> tuple[DataSet, NDArray[np.float64]]:
    """Rows in which two features matter alone, two together and one past a threshold; and their probabilities."""
    rows = rng.normal(size=(n, WIDTH)).astype(np.float32)
    x = rows.astype(np.float64).T
    share = expit(logit + 0.9 * x[0] - 0.6 * x[1] + 0.8 * x[2] * x[3] + 1.5 * (x[4] > 1.0))
    return DataSet(rows, rng.random(n) < share, np.arange(n), None, None, rng.random(n)), share


if __name__ == "__main__":
    report(study)
