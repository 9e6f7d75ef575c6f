"""Which rows a candidate is fitted to: of the concept or the window, with labels that are not trusted or without."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # it ships none

from tailrace.core.sampling import DataSet, Split, split_by_time
from tailrace.trainer.boosting import fit
from tailrace.trainer.fitting import EVEN, FOLDS, Choice, Recipe, candidate, take
from tailrace.trainer.tasks import Probabilities, task_of
from tailrace.usecase.load import load_use_case

sys.path.insert(0, str(Path(__file__).parents[1] / "testing"))
from loops import use_case  # a use case with a trainer that takes milliseconds

PLAN = load_use_case(Path(__file__).parents[2] / "feature_repo", "elec2").plan
"""Only its threshold is looked at."""


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
    assert "concept" == said["fitted_to"]
    assert str(int(data.distrusted.sum()) if data.distrusted is not None else 0) == said["distrusted_rows"]
    assert float(said["loss_concept"]) < float(said["loss_distrusted"])
    assert fitted.parity.passed


def test_in_doubt_the_model_without_is_taken_and_where_few_rows_are_trusted_the_better_one(tmp_path: Path) -> None:
    declared, settings = use_case(tmp_path)
    taken = []
    for seed in range(20):
        data = rows(10 + seed, trusted=0.9, flipped=0.0)
        taken.append(
            candidate(settings, declared, task_of(declared.plan), data, split_by_time(data.trusted))[1]["fitted_to"]
        )
    assert taken.count("distrusted") <= 4
    few = rows(3, trusted=0.9, flipped=0.0)
    few = few._replace(distrusted=(np.arange(2_000) >= 16) & (np.arange(2_000) < 1_200))
    split = Split(*(few.where(slice(*span)) for span in ((0, 16), (1_200, 1_600), (1_600, 2_000))))
    assert "distrusted" == candidate(settings, declared, task_of(declared.plan), few, split)[1]["fitted_to"]


def test_without_labels_in_doubt_one_model_is_fitted(tmp_path: Path) -> None:
    declared, settings = use_case(tmp_path)
    data = rows(4, trusted=1.1, flipped=0.0)._replace(distrusted=None)
    assert {} == candidate(settings, declared, task_of(declared.plan), data, split_by_time(data))[1]


def concepts(seed: int, *, turned: bool, newest: int = 150) -> DataSet:
    """Two thousand rows; of the newest the label says the contrary of before, or the same.

    Both features together say it: a few hundred rows are too few to learn that from.
    """
    rng = np.random.default_rng(seed)
    n = 2_000
    features = rng.normal(size=(n, 4)).astype(np.float32)
    sign = np.where(turned & (np.arange(n) >= n - newest), -1.0, 1.0)
    labels = rng.random(n) < 1.0 / (1.0 + np.exp(-3.0 * sign * features[:, 0] * features[:, 1]))
    return DataSet(features, labels, np.arange(n) * 1_000)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Fits of a few rows gain nothing by more, and wait for one another on a busy machine."""
    with threadpool_limits(limits=1, user_api="openmp"):
        yield


def recipe() -> Recipe:
    return Recipe(fit, False, PLAN, 0)


@pytest.mark.parametrize(("turned", "expected"), [(True, "concept"), (False, "window")])
def test_the_window_is_fitted_to_unless_the_concept_has_changed(turned: bool, expected: str) -> None:
    taken = []
    for seed in range(2):
        window = concepts(seed, turned=turned)
        own = window.newest(150)
        choices = [Choice("concept", own, EVEN), Choice("window", window, EVEN)]
        taken.append(take(recipe(), Probabilities(PLAN), choices, split_by_time(own)).lineage["fitted_to"])
    assert [expected] * 2 == taken


def test_few_rows_are_calibrated_on_all_of_them_by_models_that_did_not_see_them() -> None:
    data = concepts(1, turned=False).newest(400)
    split, task = split_by_time(data), Probabilities(PLAN)
    seen: list[tuple[int, bool]] = []

    def watched(rows: Any, labels: Any, held: Any, answers: Any, **rest: Any) -> Any:
        alone = not (rows[:, None] == held[None]).all(axis=2).any()
        seen.append((len(rows), alone))
        return fit(rows, labels, held, answers, **rest)

    found = take(Recipe(watched, False, PLAN, 0), task, [Choice("concept", data, EVEN)], split)
    assert [(270, True)] * FOLDS + [(360, False)] == seen
    assert 360 == len(found.held.labels) == len(found.shares)
    assert float(found.shares.mean()) == pytest.approx(float(found.held.labels.mean()), rel=0.01)
    fitted = found.model.predict(found.held.rows)
    assert task.losses(found.shares, found.held).mean() > task.losses(found.ending(fitted), found.held).mean()


def test_a_trainer_that_stops_early_keeps_its_validation_rows() -> None:
    data = concepts(2, turned=False).newest(400)
    split = split_by_time(data)
    found = take(Recipe(fit, True, PLAN, 0), Probabilities(PLAN), [Choice("concept", data, EVEN)], split)
    assert split.calibration.times_ms.tolist() == found.held.times_ms.tolist()
