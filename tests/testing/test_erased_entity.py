"""An entity is erased while the loop runs: everything but what it was asked to forget goes on."""

from __future__ import annotations

from typing import Any

import loops
import pytest

from tailrace.contracts.retraining import CandidateRegistered, OperatorAction
from tailrace.testing.simulator import Crash, Erasure, Simulation, simulate

ERASURE = Erasure(entity="pump", value="p1", at="40h")


@pytest.fixture(scope="module")
def pumps(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return loops.use_case(tmp_path_factory.mktemp("use_cases"), at_least_every="24h")


def run(pumps: Any, *faults: Any) -> Simulation:
    use_case, settings = pumps
    return simulate(use_case, *loops.tables(), faults=faults, settings=settings)


def test_loop_erases_and_trains_on_without_the_entity_and_a_crash_changes_nothing(pumps: Any) -> None:
    calm, erased = run(pumps), run(pumps, ERASURE)
    crashed = run(pumps, ERASURE, *(Crash(service, at="40h") for service in ("feedback", "trainer")))
    (answer,) = answers(erased)
    assert int(answer.evidence["predictions"]) > 20
    assert answers(erased) == answers(crashed)
    assert erased.log() == crashed.log()
    before, after = models(calm), models(erased)
    assert before[0] == after[0]
    assert before[1] != after[1]
    assert calm.counts.predictions == erased.counts.predictions


def answers(loop: Simulation) -> list[OperatorAction]:
    return [record for record in loop.retraining if isinstance(record, OperatorAction)]


def models(loop: Simulation) -> list[str]:
    return [record.digest for record in loop.retraining if isinstance(record, CandidateRegistered)]
