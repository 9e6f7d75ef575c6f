"""The loop of `make demo` closes; and whichever stage is taken away, the demo names it."""

from __future__ import annotations

import copy
from collections.abc import Callable

import demo_loop
import msgspec
import pytest

from tailrace.contracts.retraining import CandidateRefused, CandidateRegistered, RetrainRequested
from tailrace.testing.simulator import Simulation
from tailrace.testing.streams import CardFraudStream

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def loop() -> Simulation:
    return demo_loop.simulated()


def test_the_loop_of_the_demo_closes_stage_by_stage(loop: Simulation) -> None:
    closed = demo_loop.judged(loop)
    assert closed.missing == []
    assert [stage.name for stage in closed.stages] == [
        "a champion before the drift",
        "an alarm after it",
        "retraining because of it",
        "a candidate past its gates",
        "the candidate in shadow",
        "the candidate as champion",
    ]
    at_ms = [stage.at_ms or 0 for stage in closed.stages]
    assert at_ms == sorted(at_ms)
    assert at_ms[0] < CardFraudStream().drift_ms < at_ms[1]
    assert (at_ms[-1], closed.stages[-1].model) in loop.champions()
    assert {phase.name for phase in closed.phases} == {"before", "during", "after"}


def _without_alarms(loop: Simulation) -> None:
    loop.alarms = []


def _without_requests(loop: Simulation) -> None:
    loop.retraining = [r for r in loop.retraining if not (isinstance(r, RetrainRequested) and r.trigger != "initial")]


def _with_another_trigger(loop: Simulation) -> None:
    loop.retraining = [
        msgspec.structs.replace(r, trigger="schedule") if isinstance(r, RetrainRequested) else r
        for r in loop.retraining
    ]


def _without_candidates(loop: Simulation) -> None:
    loop.retraining = [r for r in loop.retraining if not isinstance(r, CandidateRegistered)]


def _with_refused_candidates(loop: Simulation) -> None:
    loop.retraining = [
        CandidateRefused(run_id=r.run_id, use_case=r.use_case, refused_at_ms=0, reason="worse", gates=[])
        if isinstance(r, CandidateRegistered)
        else r
        for r in loop.retraining
    ]


def _with_a_late_promotion(loop: Simulation) -> None:
    end_ms = demo_loop.last_day_ms(CardFraudStream())
    loop.tables = [msgspec.structs.replace(t, decided_at_ms=max(t.decided_at_ms, end_ms)) for t in loop.tables[1:]]
    loop.tables.insert(0, msgspec.structs.replace(loop.tables[0], decided_at_ms=0))


def _without_role(role: str) -> Callable[[Simulation], None]:
    def remove(loop: Simulation) -> None:
        loop.tables = [
            msgspec.structs.replace(table, variants=[v for v in table.variants if v.role != role])
            for table in loop.tables
        ]

    return remove


def _without_recovery(loop: Simulation) -> None:
    drift_ms = CardFraudStream().drift_ms
    for key, record in loop.quality_records.items():
        if record.window_start_ms >= drift_ms:
            loop.quality_records[key] = msgspec.structs.replace(record, bins=[0], n=[100], positives=[50])


@pytest.mark.parametrize(
    ("remove", "named"),
    [
        (_without_alarms, "an alarm after it: never"),
        (_without_requests, "retraining because of it: never"),
        (_with_another_trigger, "retraining because of it: never"),
        (_without_candidates, "a candidate past its gates: never"),
        (_with_refused_candidates, "candidates refused because of it: 2, the last: worse"),
        (_with_a_late_promotion, "the candidate became champion so late"),
        (_without_role("shadow"), "the candidate in shadow: never"),
        (_without_role("champion"), "the candidate as champion: never"),
        (_without_recovery, "log loss did not recover"),
    ],
)
def test_what_keeps_the_loop_open_is_named(loop: Simulation, remove: Callable[[Simulation], None], named: str) -> None:
    broken = copy.copy(loop)
    broken.quality_records = dict(loop.quality_records)
    remove(broken)
    assert any(reason.startswith(named) for reason in demo_loop.judged(broken).missing)
