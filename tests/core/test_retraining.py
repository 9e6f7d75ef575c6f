"""The retraining policy, trigger by trigger."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from tailrace.core.retraining import LEAST_SINCE, Evidence, RetrainSpec, RetrainState

SPEC = RetrainSpec(
    on=frozenset({"drift", "metric_drop"}),
    at_most_every_ms=10,
    at_least_every_ms=100,
    min_labels=5,
    window_ms=500,
)
CALM = Evidence(now_ms=1_000, has_champion=True, labels=5)


def at(now_ms: int) -> Evidence:
    return msgspec.structs.replace(CALM, now_ms=now_ms)


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
    state.requested(SPEC, at(0), "r1")
    state.ended("r0")
    assert state.decide(SPEC, CALM) is None
    state.ended("r1")
    assert state.decide(SPEC, CALM) == ("schedule", "1s since the last request")


def test_candidate_in_rollout_latches_until_a_table_no_longer_tries_it_out() -> None:
    state = RetrainState()
    state.requested(SPEC, at(0), "r1")
    state.ended("r1", "7", at_ms=50)
    for champion, shadow, decided_at_ms in (("6", "", 20), ("6", "", 50), ("6", "7", 50), ("6", "7", 60)):
        state.routed(champion, shadow, decided_at_ms)
        assert state.decide(SPEC, CALM) is None
    state.routed("6", "", 70)
    assert state.decide(SPEC, CALM) is not None


def test_candidate_that_serves_is_under_way_no_more() -> None:
    state = RetrainState()
    state.requested(SPEC, at(0), "r1")
    state.ended("r1", "7", at_ms=50)
    state.routed("7", "", 50)
    assert state.decide(SPEC, CALM) is not None


def test_refits_are_asked_for_each_time_the_labels_of_a_concept_have_doubled() -> None:
    spec = msgspec.structs.replace(SPEC, at_least_every_ms=None)
    state = RetrainState()
    state.changed(SPEC, 990, 100)
    asked = []
    for now_ms in range(1_000, 1_400, 10):
        state.observe(np.full(100, now_ms))
        evidence = msgspec.structs.replace(CALM, now_ms=now_ms, drift="shift" if now_ms == 1_000 else "")
        decided = state.decide(spec, evidence)
        if decided:
            state.requested(spec, evidence, f"r{now_ms}")
            state.ended(f"r{now_ms}")
            asked.append((decided[0], state.fitted))
    assert asked == [("drift", 200), ("refit", 400), ("refit", 800), ("refit", 1600), ("refit", 3200)]


def test_no_model_of_a_new_concept_is_asked_for_before_there_are_rows_to_train_it_on() -> None:
    state = RetrainState(950)
    state.changed(SPEC, 980, LEAST_SINCE - 1)
    drifted = msgspec.structs.replace(CALM, drift="shift")
    assert state.decide(SPEC, drifted) is None
    state.observe(np.array([990]))
    assert state.decide(SPEC, drifted) == ("drift", "shift")


def test_an_alarm_that_is_raised_again_moves_no_change_which_nobody_was_asked_for_yet() -> None:
    state = RetrainState()
    state.changed(SPEC, 980, LEAST_SINCE)
    state.changed(SPEC, 990, 40)
    assert (state.change_ms, state.since_change) == (980, LEAST_SINCE)
    state.changed(SPEC, 970, LEAST_SINCE + 10)
    assert (state.change_ms, state.since_change) == (970, LEAST_SINCE + 10)
    state.requested(SPEC, at(1_000), "r1")
    state.changed(SPEC, 1_010, 20)
    assert (state.change_ms, state.since_change) == (1_010, 20)


def test_a_concept_met_on_schedule_is_refitted_once_there_are_rows_to_train_on() -> None:
    state = RetrainState()
    state.changed(SPEC, 990, 12)
    state.requested(SPEC, at(1_000), "r1")
    state.ended("r1")
    state.observe(np.full(LEAST_SINCE - 13, 1_010))
    assert state.decide(SPEC, at(1_020)) is None
    state.observe(np.array([1_015]))
    assert state.decide(SPEC, at(1_020)) is not None


@pytest.mark.parametrize(("champion", "expected"), [("2", None), ("7", "refit")])
def test_former_champion_that_is_back_is_not_refitted_to_a_few_labels(champion: str, expected: str | None) -> None:
    spec = msgspec.structs.replace(SPEC, at_least_every_ms=None)
    state = RetrainState()
    state.changed(spec, 990, LEAST_SINCE)
    state.requested(spec, at(1_000), "r1")
    state.ended("r1", "2", 1_000, recalled=True)
    state.routed("7", "2", 1_000)
    state.routed(champion, "", 1_010)
    state.observe(np.full(LEAST_SINCE, 1_010))
    decided = state.decide(spec, at(1_020))
    assert expected == (decided[0] if decided else None)


def test_first_model_is_refitted_each_time_its_labels_have_doubled_until_they_fill_the_window() -> None:
    spec = msgspec.structs.replace(SPEC, at_least_every_ms=None)
    state = RetrainState()
    asked = []
    for now_ms in range(1_000, 2_000, 10):
        state.observe(np.full(100 if asked else 0, now_ms))
        evidence = msgspec.structs.replace(CALM, now_ms=now_ms, has_champion=bool(asked), labels=200)
        decided = state.decide(spec, evidence)
        if decided:
            state.requested(spec, evidence, f"r{now_ms}")
            state.ended(f"r{now_ms}")
            asked.append((decided[0], state.fitted))
    assert asked == [("initial", 200), ("refit", 400), ("refit", 800), ("refit", 1600), ("refit", 3200)]


def test_nothing_is_refitted_where_drift_is_no_trigger() -> None:
    spec = msgspec.structs.replace(SPEC, at_least_every_ms=None, on=frozenset({"metric_drop"}))
    state = RetrainState()
    state.changed(spec, 990, 10)
    state.requested(spec, at(1_000), "r")
    state.ended("r")
    state.observe(np.full(100, 1_010))
    assert state.decide(spec, at(1_100)) is None


def test_refits_end_where_the_concept_fills_the_training_window() -> None:
    spec = msgspec.structs.replace(SPEC, at_least_every_ms=None)
    state = RetrainState()
    state.changed(spec, 500, 10)
    state.requested(spec, at(600), "r")
    state.ended("r")
    state.observe(np.full(100, 700))
    assert state.decide(spec, CALM) is None
    assert state.change_ms is None


def test_labels_of_events_before_the_change_do_not_count_for_a_refit() -> None:
    state = RetrainState()
    state.changed(SPEC, 990, 10)
    state.observe(np.array([989, 990, 991]))
    assert (state.since_change, state.labels) == (12, 3)


def test_volume_trigger_counts_from_the_last_request() -> None:
    spec = msgspec.structs.replace(SPEC, at_least_every_ms=None, every_labels=30)
    state = RetrainState()
    state.observe(np.zeros(30, np.int64))
    assert state.decide(spec, CALM) == ("volume", "30 labels since the last request")
    state.requested(spec, at(900), "r")
    state.ended("r")
    state.observe(np.zeros(29, np.int64))
    assert state.decide(spec, CALM) is None


def test_budget_bounds_requests_within_any_span() -> None:
    spec = msgspec.structs.replace(SPEC, at_most_every_ms=0, budget=2, budget_ms=100)
    state = RetrainState()
    granted = []
    for now_ms in range(1_000, 1_300, 10):
        if state.decide(spec, msgspec.structs.replace(CALM, now_ms=now_ms, drift="shift")):
            state.requested(spec, at(now_ms), str(now_ms))
            state.ended(str(now_ms))
            granted.append(now_ms)
    assert granted == [1_000, 1_010, 1_100, 1_110, 1_200, 1_210]


def test_state_goes_on_exactly_from_its_snapshot() -> None:
    state = RetrainState()
    state.changed(SPEC, 990, 10)
    state.requested(SPEC, at(995), "r")
    state.ended("r", "3", at_ms=999)
    assert msgspec.json.decode(msgspec.json.encode(state), type=RetrainState) == state
