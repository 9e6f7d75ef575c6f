"""Trainers on targets: labels of 0 and 1 give the model that labels give, and late positives are made up for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tailrace.trainer import boosting
from tailrace.trainer.models import Calibration
from tailrace.usecase.load import load_use_case

PLAN = load_use_case(Path("feature_repo"), "elec2").plan


def drawn(count: int) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.float64]]:
    """Rows, final labels, and the share of the positives that have come by now: least of the newest."""
    rng = np.random.default_rng(4)
    rows = rng.normal(0.0, 1.0, (count, 4)).astype(np.float32)
    labels = rng.random(count) < 1.0 / (1.0 + np.exp(-(rows[:, 0] - 2.0)))
    return rows, labels, np.linspace(1.0, 0.4, count)


def test_targets_of_0_and_1_give_the_calibration_that_labels_give() -> None:
    rows, labels, _ = drawn(20_000)
    scores = 1.0 / (1.0 + np.exp(-0.5 * rows[:, 0].astype(np.float64)))
    one, other = Calibration(scores, labels), Calibration(scores, labels.astype(np.float64))
    assert one.slope == pytest.approx(other.slope, rel=1e-2)
    assert one.offset == pytest.approx(other.offset, rel=1e-2)


def test_trees_on_targets_predict_the_rate_that_will_be_and_on_labels_as_they_are_too_little() -> None:
    rows, labels, share = drawn(40_000)
    come = labels & (np.random.default_rng(6).random(len(labels)) < share)
    targets = come / share
    found = {}
    for name, answers in (("targets", targets), ("as it is", come)):
        model = boosting.fit(rows[:30_000], answers[:30_000], rows[:0], answers[:0], plan=PLAN, seed=0)
        calibration = Calibration(model.predict(rows[30_000:]), answers[30_000:])
        found[name] = float(calibration(model.predict(rows[30_000:])).mean() / labels[30_000:].mean())
    assert found["targets"] == pytest.approx(1.0, abs=0.04)
    assert found["as it is"] < 0.6


def test_calibration_that_only_moves_the_mean_moves_it_to_the_rate() -> None:
    rng = np.random.default_rng(0)
    scores = rng.beta(0.5, 5.0, 200)
    labels = rng.random(200) < 0.1 * (1.0 - scores)  # the lower the score, the likelier: no slope above 0 fits
    calibration = Calibration(scores, labels)
    assert calibration.slope == 1.0
    assert calibration(scores).mean() == pytest.approx(labels.mean(), abs=1e-9)
