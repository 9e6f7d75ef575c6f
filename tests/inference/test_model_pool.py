"""Hot swap of models."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from tailrace.backends.artifacts import Bundle
from tailrace.backends.ports import Executor
from tailrace.contracts.records import RoutingTable, Variant
from tailrace.core.plan import Plan
from tailrace.errors import ArtifactInvalid, PlanMismatch
from tailrace.inference.models import LONGEST_PAUSE_MS, ModelPool, executor_of, scores_of

Tables = Callable[..., RoutingTable]
Bundles = Callable[..., Variant]
ROWS = np.zeros((4, 3), np.float32)


class Bench:
    """A pool, the tables that wait for it, and what it said."""

    def __init__(self, plan: Plan, log: Any) -> None:
        self.queue: list[RoutingTable] = []
        self.opened: list[str] = []
        self.failures: list[str] = []
        self.log = log
        self.now_ms = 0
        self.pool = ModelPool(plan, self._make, self._poll, log, self.failures.append)

    def _make(self, bundle: Bundle) -> Executor:
        self.opened.append(bundle.digest)
        return executor_of(bundle, 1)

    def _poll(self) -> RoutingTable | None:
        return self.queue.pop(0) if self.queue else None

    def until(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 10
        while not done():
            assert time.monotonic() < deadline, self.log.events
            self.pool.refresh(self.now_ms)
            time.sleep(0.002)

    def refused(self) -> int:
        return len(self.log.of("routing_refused"))


@pytest.fixture
def bench(plan: Plan, log: Any) -> Bench:
    return Bench(plan, log)


def test_without_a_table_there_is_no_model(bench: Bench) -> None:
    bench.pool.refresh(0)
    assert (None, 0) == (bench.pool.serving, bench.pool.epoch)


def test_new_table_comes_into_force_between_batches(bench: Bench, bundle: Bundles, table: Tables) -> None:
    bench.pool.load(table(1, bundle("1", bias=-2)))
    bench.queue.append(table(2, bundle("2", bias=2)))
    bench.pool.refresh(0)
    assert 1 == bench.pool.epoch
    bench.until(lambda: bench.pool.epoch == 2)
    assert bench.pool.serving is not None
    assert bench.pool.serving.executor(bench.pool.serving.router.variants[0]).run(ROWS)[0] > 0.8


def test_models_that_are_loaded_are_not_loaded_again(bench: Bench, bundle: Bundles, table: Tables) -> None:
    first, second = bundle("1"), bundle("2", bias=1)
    bench.pool.load(table(1, first))
    bench.pool.load(table(2, second, warm=[first]))
    bench.pool.load(table(3, first, warm=[second]))
    assert [first.digest, second.digest] == bench.opened


def test_older_table_changes_nothing(bench: Bench, bundle: Bundles, table: Tables) -> None:
    bench.pool.load(table(5, bundle("5")))
    bench.queue += [table(4, bundle("4", bias=1)), table(5, bundle("x", bias=2)), table(6, bundle("6", bias=3))]
    bench.until(lambda: bench.pool.epoch == 6)
    assert 2 == len(bench.opened)


def test_newest_of_several_tables_wins(bench: Bench, bundle: Bundles, table: Tables) -> None:
    bench.queue += [table(number, bundle(str(number), bias=number)) for number in (1, 2, 3)]
    bench.until(lambda: bench.pool.epoch == 3)


def test_damaged_bundle_leaves_the_table_in_force_and_says_why(bench: Bench, bundle: Bundles, table: Tables) -> None:
    bench.pool.load(table(1, bundle("1")))
    damaged = bundle("2", bias=1)
    damage(damaged)
    bench.queue.append(table(2, damaged))
    bench.until(lambda: bench.refused() == 1)
    assert 1 == bench.pool.epoch
    assert ["ArtifactInvalid"] == bench.failures
    [facts] = bench.log.of("routing_refused")
    assert (2, 1) == (facts["epoch"], facts["still_serving"])
    assert "model.onnx" in facts["why"]


def test_damaged_bundle_is_tried_again_and_taken_up_once_restored(bench: Bench, bundle: Bundles, table: Tables) -> None:
    bench.pool.load(table(1, bundle("1")))
    second = bundle("2", bias=1)
    whole = damage(second)
    bench.queue.append(table(2, second))
    bench.until(lambda: bench.refused() == 1)
    for _ in range(20):
        bench.pool.refresh(bench.now_ms)
    assert 1 == bench.refused(), "it must be left alone for a while"
    path_of(second).write_bytes(whole)
    bench.now_ms += LONGEST_PAUSE_MS
    bench.until(lambda: bench.pool.epoch == 2)


def test_newer_table_does_not_wait_for_a_refused_one(bench: Bench, bundle: Bundles, table: Tables) -> None:
    damaged = bundle("1")
    damage(damaged)
    bench.queue.append(table(1, damaged))
    bench.until(lambda: bench.refused() == 1)
    bench.queue.append(table(2, bundle("2", bias=1)))
    bench.until(lambda: bench.pool.epoch == 2)


def test_model_of_another_plan_is_refused_for_good(bench: Bench, bundle: Bundles, table: Tables) -> None:
    bench.pool.load(table(1, bundle("1")))
    bench.queue.append(table(2, bundle("2", key="terminal")))
    bench.until(lambda: bench.refused() == 1)
    bench.now_ms += LONGEST_PAUSE_MS
    bench.pool.refresh(bench.now_ms)
    assert (1, ["PlanMismatch"]) == (bench.pool.epoch, bench.failures)
    with pytest.raises(PlanMismatch, match="retrain"):
        bench.pool.load(table(3, bundle("3", key="terminal")))


def test_former_model_that_cannot_be_kept_warm_does_not_keep_its_successor_out(
    bench: Bench, bundle: Bundles, table: Tables
) -> None:
    bench.pool.load(table(1, bundle("2", bias=1), warm=[bundle("1", key="terminal")]))
    assert (1, ["PlanMismatch"]) == (bench.pool.epoch, bench.failures)
    assert ["1"] == [facts["version"] for facts in bench.log.of("model_not_kept_warm")]


def test_table_that_contradicts_itself_is_refused(bench: Bench, bundle: Bundles, table: Tables) -> None:
    bench.queue.append(table(1, bundle("1", share=0.5)))
    bench.until(lambda: bench.refused() == 1)
    assert ["ValueError"] == bench.failures


def test_at_the_start_a_damaged_champion_is_an_error(bench: Bench, bundle: Bundles, table: Tables) -> None:
    damaged = bundle("1")
    damage(damaged)
    with pytest.raises(ArtifactInvalid, match="promote another version"):
        bench.pool.load(table(1, damaged))


def test_failure_that_nobody_foresaw_reaches_the_scoring_thread(
    bench: Bench, bundle: Bundles, table: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.pool, "_make_executor", lambda _: 1 / 0)
    bench.queue.append(table(7, bundle("1")))
    with pytest.raises(RuntimeError, match="epoch 7"):
        bench.until(lambda: False)


class Picky:
    """Fails on every batch that holds a NaN."""

    def __init__(self) -> None:
        self.runs = 0

    def warm(self, rows: int) -> None: ...

    def run(self, matrix: Any) -> Any:
        self.runs += 1
        if np.isnan(matrix).any():
            raise ArtifactInvalid("planted")
        return matrix[:, 0].astype(np.float64)


@pytest.mark.parametrize("bad", [[], [0], [3, 4], [16], list(range(17))])
def test_bad_row_spoils_itself_alone(bad: list[int]) -> None:
    matrix = np.linspace(0, 1, 17, dtype=np.float32).reshape(-1, 1)
    wanted = matrix[:, 0].astype(np.float64)
    matrix[bad] = np.nan
    wanted[bad] = np.nan
    np.testing.assert_array_equal(wanted, scores_of(Picky(), matrix))


def test_one_bad_row_costs_a_logarithm_of_runs() -> None:
    matrix = np.zeros((1_024, 1), np.float32)
    matrix[700] = np.nan
    picky = Picky()
    scores_of(picky, matrix)
    assert 1 + 2 * 10 == picky.runs


def path_of(variant: Variant) -> Path:
    return Path(variant.bundle_uri.removeprefix("file://")) / "model.onnx"


def damage(variant: Variant) -> bytes:
    whole = path_of(variant).read_bytes()
    path_of(variant).write_bytes(whole[:-1] + b"?")
    return whole


def test_plans_of_the_tests_differ_in_their_fingerprints(plan: Plan) -> None:
    assert plan.fingerprint != msgspec.structs.replace(plan, key="terminal").fingerprint
