"""Models fitted to a share of the negatives: as good as those fitted to all, and calibrated on all events."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit, logit

from tailrace.core import negative_sampling
from tailrace.core.metrics import metrics_of
from tailrace.core.negative_sampling import NegativeSampling
from tailrace.core.plan import Plan
from tailrace.core.sampling import DataSet, split_by_time
from tailrace.trainer.fitting import EVEN, Choice, Fitted, Recipe, candidate, take
from tailrace.trainer.models import Calibration, TrainedModel
from tailrace.trainer.tasks import Probabilities, task_of
from tailrace.usecase.load import load_trainer, load_use_case

sys.path.insert(0, str(Path(__file__).parents[1] / "testing"))
from loops import use_case  # a use case with a trainer that takes milliseconds

ROWS, RATE = 450_000, 0.1
PLAN = load_use_case(Path(__file__).parents[2] / "feature_repo", "elec2").plan
"""Only its threshold is looked at."""


def drawn(seed: int, n: int = ROWS) -> tuple[DataSet, NDArray[np.float64]]:
    """Rows of which one in ten is positive, and the probabilities that they were drawn with."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, 4)).astype(np.float32)
    share = expit(1.2 * features[:, 0].astype(np.float64) - 0.8 * features[:, 1] - 2.8)
    return DataSet(features, rng.random(n) < share, np.arange(n) * 1_000, None, None, rng.random(n)), share


def trained(folder: Path, data: DataSet, rate: float) -> tuple[Fitted, dict[str, str]]:
    declared, settings = use_case(folder)
    declared.retrain = dataclasses.replace(declared.retrain, negative_sampling_rate=rate)
    return candidate(settings, declared, task_of(declared.plan), data, split_by_time(data))


@pytest.mark.parametrize("labels", ["final", "immature"])
def test_what_is_served_is_calibrated_on_all_rows_and_ranks_as_the_full_fit_does(
    tmp_path: Path, labels: Literal["final", "immature"]
) -> None:
    data, _ = drawn(1)
    if labels == "immature":
        # Of the positives of the newest rows a share has come; each of those stands for more.
        share = np.linspace(1.0, 0.5, ROWS)
        come = data.labels & (np.random.default_rng(2).random(ROWS) < share)
        data = data._replace(labels=come, targets=come / share)
    sampled, said = trained(tmp_path / "sampled", data, RATE)
    full, nothing = trained(tmp_path / "full", data, 1.0)
    later, truth = drawn(3)
    found, peer = (metrics_of(model.executor.run(later.rows), later.labels, 0.5) for model in (sampled, full))
    assert sampled.parity.passed
    assert sampled.executor.run(later.rows).mean() / truth.mean() == pytest.approx(1.0, abs=0.03)
    assert sampled.executor.run(later.rows).mean() == pytest.approx(full.executor.run(later.rows).mean(), rel=0.005)
    assert (found["roc_auc"] or 0.0) > (peer["roc_auc"] or 1.0) - 0.002
    assert (found["pr_auc"] or 0.0) > (peer["pr_auc"] or 1.0) - 0.005
    assert (found["log_loss"] or 1.0) < (peer["log_loss"] or 0.0) + 0.0005
    fitted_to = int((~split_by_time(data).fit.labels).sum())
    assert {"negative_sampling_rate": "0.1", "log_r": "-2.302585"}.items() <= said.items()
    assert int(said["negatives_left_out"]) == pytest.approx(0.9 * fitted_to, rel=0.01)
    assert {} == nothing


def test_log_r_alone_brings_a_model_of_the_sample_to_the_rate_of_all_rows(tmp_path: Path) -> None:
    data, share = drawn(4)
    declared, settings = use_case(tmp_path)
    fit = load_trainer(settings.use_cases, declared.model.train)
    sampling = NegativeSampling.of(data, RATE)
    fitted_to = sampling.sample(data)
    model = fit(fitted_to.rows, fitted_to.labels, data.rows, data.labels, plan=declared.plan, seed=0)
    raw = model.predict(data.rows)
    assert raw.mean() / share.mean() > 3.0
    assert expit(logit(raw) + sampling.log_r).mean() / share.mean() == pytest.approx(1.0, abs=0.03)


def test_calibration_with_log_r_is_that_of_scores_which_were_moved_by_it_before() -> None:
    rng = np.random.default_rng(5)
    scores = rng.beta(1.0, 4.0, 20_000)
    moved = expit(logit(scores) - 2.0)
    labels = rng.random(20_000) < moved
    one, other = Calibration(scores, labels, log_r=-2.0), Calibration(moved, labels)
    np.testing.assert_allclose(one(scores), other(moved), rtol=1e-9)
    assert one.offset == pytest.approx(-2.0, abs=0.2)


def test_folds_and_the_model_that_serves_see_the_same_share_of_the_negatives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(negative_sampling, "LEAST_NEGATIVES", 1_000)
    data, _ = drawn(6, 18_000)
    watched, split = Watched(tmp_path), split_by_time(data)
    recipe = Recipe(watched.fit, False, PLAN, 0, RATE)
    taken = take(recipe, Probabilities(PLAN), [Choice("concept", data, EVEN)], split)
    assert 5 == len(watched.fitted_to)
    odds = float((~data.labels).sum() / data.labels.sum())
    assert [float((~labels).sum() / labels.sum()) for labels in watched.fitted_to] == pytest.approx(
        [RATE * odds] * 5, rel=0.1
    )
    assert len(taken.held.labels) == len(split.fit.labels) + len(split.calibration.labels)
    assert taken.shares.mean() == pytest.approx(taken.held.labels.mean(), rel=0.01)


def test_validation_rows_of_a_trainer_that_stops_early_are_sampled_and_those_of_the_calibration_are_not(
    tmp_path: Path,
) -> None:
    data, _ = drawn(7)
    watched, split = Watched(tmp_path), split_by_time(data)
    recipe = Recipe(watched.fit, True, PLAN, 0, RATE)
    taken = take(recipe, Probabilities(PLAN), [Choice("concept", data, EVEN)], split)
    assert taken.held is split.calibration
    labels = split.calibration.labels
    assert int(labels.sum()) == int(watched.validated_on[0].sum())
    assert int((~watched.validated_on[0]).sum()) == pytest.approx(RATE * int((~labels).sum()), rel=0.1)


class Watched:
    """The trainer of the small use case, and the labels that it was given."""

    def __init__(self, folder: Path) -> None:
        declared, settings = use_case(folder)
        self._fit = load_trainer(settings.use_cases, declared.model.train)
        self.fitted_to: list[NDArray[np.bool_]] = []
        self.validated_on: list[NDArray[np.bool_]] = []

    def fit(
        self,
        rows: NDArray[np.float32],
        labels: NDArray[np.bool_],
        held: NDArray[np.float32],
        answers: NDArray[np.bool_],
        *,
        plan: Plan,
        seed: int,
    ) -> TrainedModel:
        self.fitted_to.append(labels)
        self.validated_on.append(answers)
        return self._fit(rows, labels, held, answers, plan=plan, seed=seed)
