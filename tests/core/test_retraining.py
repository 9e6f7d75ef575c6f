"""The retraining policy, trigger by trigger."""

from __future__ import annotations

import msgspec
import pytest

from tailrace.core.retraining import Evidence, RetrainSpec, RetrainState

SPEC = RetrainSpec(
    on=frozenset({"drift", "metric_drop"}),
    at_most_every_ms=10,
    at_least_every_ms=100,
    min_labels=5,
)
CALM = Evidence(now_ms=1_000, has_champion=True, labels=5)


@pytest.mark.parametrize(
    ("changes", "asked_at_ms", "expected"),
    [
        ({"has_champion": False}, None, "initial"),
        ({"has_champion": False, "labels": 4}, None, None),
        ({}, 901, None),
        ({}, 900, "schedule"),
        ({"drift": "shift"}, 900, "drift"),
        ({"metric_drop": "worse"}, 990, "metric_drop"),
        ({"drift": "shift"}, 991, None),
    ],
)
def test_trigger_asks_for_a_model_when_its_condition_holds(
    changes: dict[str, object], asked_at_ms: int | None, expected: str | None
) -> None:
    decided = RetrainState(asked_at_ms).decide(SPEC, msgspec.structs.replace(CALM, **changes))
    assert expected == (decided[0] if decided else None)


def test_trigger_left_out_of_the_policy_asks_for_nothing() -> None:
    spec = msgspec.structs.replace(SPEC, on=frozenset())
    evidence = msgspec.structs.replace(CALM, drift="shift", metric_drop="worse")
    assert RetrainState(950).decide(spec, evidence) is None


def test_pending_run_latches_until_that_run_ends() -> None:
    state = RetrainState()
    state.requested("r1", 0)
    state.ended("r0")
    assert state.decide(SPEC, CALM) is None
    state.ended("r1")
    assert state.decide(SPEC, CALM) == ("schedule", "1s since the last request")
