"""Candidates where some labels are not trusted: trained with and without them, and which is taken."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from tailrace.core.sampling import DataSet, Split, split_by_time
from tailrace.trainer.fitting import candidate
from tailrace.trainer.tasks import task_of

sys.path.insert(0, str(Path(__file__).parents[1] / "testing"))
from loops import use_case  # a use case with a trainer that takes milliseconds


def rows(seed: int, *, trusted: float, flipped: float) -> DataSet:
    """Two thousand rows of which a share is trusted; of the others a share says what another feature would."""
    rng = np.random.default_rng(seed)
    n, d = 2_000, 4
    features = rng.normal(size=(n, d)).astype(np.float32)
    labels = rng.random(n) < 1.0 / (1.0 + np.exp(-2.0 * features[:, 0]))
    distrusted = rng.random(n) >= trusted
    labels = np.where(distrusted & (rng.random(n) < flipped), features[:, 1] > 0.0, labels)
    return DataSet(features, labels, np.arange(n) * 1_000, None, distrusted)


def test_a_model_that_saw_false_labels_is_not_taken(tmp_path: Path) -> None:
    declared, settings = use_case(tmp_path)
    data = rows(1, trusted=0.6, flipped=1.0)
    fitted, said = candidate(settings, declared, task_of(declared.plan), data, split_by_time(data.trusted))
    assert "without" == said["distrusted_taken"]
    assert str(int(data.distrusted.sum()) if data.distrusted is not None else 0) == said["distrusted_rows"]
    assert float(said["loss_without"]) < float(said["loss_with"])
    assert fitted.parity.passed


def test_in_doubt_the_model_without_is_taken_and_where_few_rows_are_trusted_the_better_one(tmp_path: Path) -> None:
    declared, settings = use_case(tmp_path)
    taken = []
    for seed in range(20):
        data = rows(10 + seed, trusted=0.9, flipped=0.0)
        taken.append(
            candidate(settings, declared, task_of(declared.plan), data, split_by_time(data.trusted))[1][
                "distrusted_taken"
            ]
        )
    assert taken.count("with") <= 4
    few = rows(3, trusted=0.9, flipped=0.0)
    few = few._replace(distrusted=(np.arange(2_000) >= 16) & (np.arange(2_000) < 1_200))
    split = Split(*(few.where(slice(*span)) for span in ((0, 16), (1_200, 1_600), (1_600, 2_000))))
    assert "with" == candidate(settings, declared, task_of(declared.plan), few, split)[1]["distrusted_taken"]


def test_without_labels_in_doubt_one_model_is_fitted(tmp_path: Path) -> None:
    declared, settings = use_case(tmp_path)
    data = rows(4, trusted=1.1, flipped=0.0)._replace(distrusted=None)
    assert {} == candidate(settings, declared, task_of(declared.plan), data, split_by_time(data))[1]
