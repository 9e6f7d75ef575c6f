"""A row gets the same score in whatever batch it comes: else decisions would depend on how fast a worker was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tailrace.backends.runtime_onnx import OnnxExecutor
from tailrace.core.regression import ValueGrid
from tailrace.trainer import boosting, torch_tabular
from tailrace.trainer.models import Calibration
from tailrace.trainer.scaling import Scaling
from tailrace.usecase.load import load_use_case

PLAN = load_use_case(Path(__file__).parents[2] / "feature_repo", "card_fraud").plan
ROWS, NEWEST = 3_000, 600
BATCHES = (1, 2, 5, 16, 40, 60, 129)
THREADS = (1, 2, 4)


def rows() -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Amounts with long tails and missing values, and a rare label: the scores lie at the far end of the grid."""
    rng = np.random.default_rng(5)
    features = np.exp(rng.normal(1.0, 2.0, (ROWS, len(PLAN.order)))).astype(np.float32)
    labels = np.log(features[:, 0]) + np.log(features[:, 3]) + rng.normal(0.0, 0.5, ROWS) > 8.0
    features[rng.random(features.shape) < 0.02] = np.nan
    return features, labels


def furthest_apart(exported: bytes, taken: NDArray[np.float32]) -> float:
    """How far the log-odds of a row are apart between batches and numbers of threads."""
    said = []
    for threads in THREADS:
        executor = OnnxExecutor(exported, width=taken.shape[1], threads=threads)
        for size in (*BATCHES, len(taken)):
            parts = [executor.run(taken[start : start + size]) for start in range(0, len(taken), size)]
            said.append(np.concatenate(parts))
    shares = np.clip(np.array(said), 1e-9, 1.0 - 1e-9)
    return float(np.ptp(np.log(shares) - np.log1p(-shares), axis=0).max())


@pytest.mark.parametrize("trainer", [boosting, torch_tabular])
def test_probability_does_not_depend_on_the_batch(trainer: object) -> None:
    features, labels = rows()
    model = trainer.fit(  # type: ignore[attr-defined]  # a module of trainers
        features, labels, features[-NEWEST:], labels[-NEWEST:], plan=PLAN, seed=1
    )
    calibration = Calibration(model.predict(features), labels)
    assert furthest_apart(calibration.append_to(model.to_onnx()), features[:NEWEST]) < 1e-9


def test_number_does_not_depend_on_the_batch() -> None:
    features, _ = rows()
    numbers = np.clip(10.0 * np.nan_to_num(np.log(features[:, 0])), 0.0, 50.0).astype(np.float64)
    model = boosting.fit_numbers(features, numbers, features[-NEWEST:], numbers[-NEWEST:], plan=PLAN, seed=1)
    exported = Scaling(ValueGrid(0.0, 50.0)).append_to(model.to_onnx())
    assert furthest_apart(exported, features[:NEWEST]) < 1e-9
