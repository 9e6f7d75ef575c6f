"""Recall of former champions: only one that is better than the champion and as good as ever comes back."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tailrace.core.recall import LEAST_ROWS, Past, pool, recall


def stream(slope: float, n: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Inputs and labels of a concept: the log-odds of a positive are `slope` times the input."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=n)
    return inputs, rng.random(n) < 1.0 / (1.0 + np.exp(-slope * inputs))


def model(slope: float, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1.0 / (1.0 + np.exp(-slope * inputs)))


def past(slope: float) -> Past:
    """How good a model was on its own concept."""
    inputs, labels = stream(slope, 100_000, seed=99)
    scores = model(slope, inputs)
    return Past(float(-np.log(np.where(labels, scores, 1.0 - scores)).mean()), 100_000)


@pytest.mark.parametrize("seed", range(5))
def test_champion_of_a_concept_that_returns_is_recalled(seed: int) -> None:
    inputs, labels = stream(2.0, 1_000, seed)
    scores = {"1": model(2.0, inputs), "2": model(0.5, inputs)}
    found = recall(scores, {"1": past(2.0), "2": past(0.5)}, model(-2.0, inputs), labels)
    assert found is not None
    assert found.name == "1"
    assert all(gate.passed for gate in found.gates)


@pytest.mark.parametrize("seed", range(5))
def test_former_champion_that_is_better_but_not_as_good_as_it_was_stays_away(seed: int) -> None:
    inputs, labels = stream(0.7, 2_000, seed)
    assert recall({"1": model(2.0, inputs)}, {"1": past(2.0)}, model(-2.0, inputs), labels) is None


def test_nobody_is_recalled_by_chance() -> None:
    recalled = 0
    for seed in range(400):
        inputs, labels = stream(2.0, 500, seed)
        same = model(2.0, inputs)
        rng = np.random.default_rng(1_000 + seed)
        blurred = np.clip(same + rng.normal(scale=0.02, size=500), 0.01, 0.99)
        recalled += recall({"1": blurred}, {"1": past(2.0)}, same, labels) is not None
    assert recalled <= 10


def test_few_rows_prove_nothing() -> None:
    inputs, labels = stream(2.0, LEAST_ROWS - 1, 0)
    assert recall({"1": model(2.0, inputs)}, {"1": Past(0.7, 1_000)}, model(-2.0, inputs), labels) is None


def test_pool_holds_those_that_served_when_a_concept_ended_the_newest_first() -> None:
    served = [("", False), ("1", True), ("2", False), ("3", True), ("1", True), ("4", False)]
    assert pool(served, 8) == ["1", "3"]
    assert pool(served, 1) == ["1"]
