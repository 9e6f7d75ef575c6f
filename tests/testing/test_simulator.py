"""The loop in one process: what it decides, that it decides alike, and what faults do to it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import loops
import pytest
from loops import DAY_MS

import tailrace as tr
from tailrace.backends.recordings import to_recording
from tailrace.contracts.retraining import CandidateRegistered
from tailrace.errors import ConfigError
from tailrace.testing.models import logistic_model
from tailrace.testing.simulator import (
    Candidate,
    ConceptShift,
    CovariateShift,
    Crash,
    Disorder,
    Drop,
    Duplicate,
    LabelDelay,
    Malformed,
    Silence,
    Simulation,
    simulate,
)


@pytest.fixture(scope="module")
def pumps(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return loops.use_case(tmp_path_factory.mktemp("use_cases"))


@pytest.fixture(scope="module")
def calm(pumps: Any) -> Simulation:
    return run(pumps)


def run(pumps: Any, *faults: Any, seed: int = 0, **stream: float) -> Simulation:
    use_case, settings = pumps
    return simulate(use_case, *loops.tables(**stream), faults=faults, seed=seed, settings=settings)


def model(pumps: Any, path: Path, weight: float, bias: float) -> Candidate:
    path.write_bytes(logistic_model(pumps[0].plan, {"heat": weight}, bias))
    return Candidate(str(path), at="40h")


def test_a_calm_loop_trains_promotes_and_says_nothing(calm: Simulation) -> None:
    assert calm.retrains(at_least=1, at_most=1, trigger="initial")
    for trigger in ("drift", "metric_drop"):
        assert calm.retrains(at_least=0, at_most=0, trigger=trigger)
    assert calm.promotes(within="3d")
    assert calm.stays_quiet()
    assert (1500, 1500, 1500, 0) == (
        calm.counts.events,
        calm.counts.outcomes,
        calm.counts.predictions,
        calm.counts.dead_letters,
    )
    assert [point.version for point in calm.quality("log_loss")][-1] == calm.champions()[-1][1]


def test_the_same_seed_gives_the_same_decisions_and_another_seed_others(pumps: Any) -> None:
    faults = [ConceptShift(at="1d", column="heat"), Disorder(by="1m"), Duplicate(share=0.1)]
    one, two, other = (run(pumps, *faults, seed=seed) for seed in (4, 4, 5))
    assert one.log() == two.log()
    assert one.log_hash() == two.log_hash() != other.log_hash()
    assert one.counts == two.counts


def test_a_concept_shift_is_detected_retrained_and_recovered_from(pumps: Any) -> None:
    drift = ConceptShift(at="2d", share=0.9)
    loop = run(pumps, drift, days=6)
    assert loop.stays_quiet(until=drift)
    assert loop.detects(drift, within="1d")
    assert loop.retrains(after=drift)
    assert not loop.detects(drift, within="1m")
    assert "first alarm" in repr(loop.detects(drift, within="1m"))


def test_a_covariate_shift_shows_in_the_column_that_moved(pumps: Any) -> None:
    drift = CovariateShift("heat", at="2d", by=2.0)
    loop = run(pumps, drift, days=4)
    assert loop.detects(drift, within="2d")
    assert {"heat"} <= {alarm.subject for alarm in loop.alarms}


def test_a_bad_candidate_is_never_promoted_and_a_good_one_is(pumps: Any, tmp_path: Path) -> None:
    bad = model(pumps, tmp_path / "bad.onnx", -0.3, 16.0)
    loop = run(pumps, bad)
    assert loop.never_promotes(bad)
    assert not loop.promotes(bad)
    good = model(pumps, tmp_path / "good.onnx", 0.333, -18.3)
    loop = run(pumps, good)
    assert loop.promotes(good, within="3d")
    verdict = loop.never_promotes(good)
    assert not verdict
    assert "promoted at 2025-01-07" in repr(verdict)


@pytest.mark.parametrize("service", ["features", "inference", "feedback", "trainer", "rollout"])
def test_a_crash_changes_no_decision(pumps: Any, calm: Simulation, service: Any) -> None:
    first_training_ms = calm.log()[0].at_ms - calm.begin_ms
    at = ["20h", "50h"] if service != "trainer" else [f"{first_training_ms}ms"]
    crashed = run(pumps, *(Crash(service, at=one) for one in at))
    assert calm.log() == crashed.log()
    assert calm.counts == crashed.counts
    assert calm.quality("log_loss") == crashed.quality("log_loss")


def test_bad_records_end_as_dead_letters_and_change_no_decision(pumps: Any, calm: Simulation) -> None:
    spoiled = run(pumps, Malformed(share=0.05, until="66h"))
    assert 40 < spoiled.counts.dead_letters < 120
    assert calm.counts.predictions == spoiled.counts.predictions
    assert calm.log() == spoiled.log()


def test_disorder_within_the_declared_lateness_loses_no_label(pumps: Any, calm: Simulation) -> None:
    disordered = run(pumps, Disorder(by="1m"), Disorder("outcomes", by="1m"))
    assert calm.counts.predictions == disordered.counts.predictions
    assert disordered.counts.dead_letters == 0
    assert disordered.counts.labels >= calm.counts.predictions


def test_labels_that_come_late_are_waited_for(pumps: Any, calm: Simulation) -> None:
    delayed = run(pumps, LabelDelay(times=3.0))
    assert delayed.champions()[0][0] > calm.champions()[0][0]


def test_lost_outcomes_alarm_within_minutes_and_cause_nothing(pumps: Any) -> None:
    lost = Drop(share=0.5, at="26h", until="27h")
    loop = run(pumps, lost, days=28 / 24, per_day=16_000)
    assert loop.stays_quiet(until=lost)
    assert loop.detects(lost, within="45m")
    assert loop.retrains(at_least=0, at_most=0, after=lost)
    assert not loop.promotes(after=lost)
    assert not loop.rolls_back(after=lost)


def test_an_alarm_of_lost_outcomes_does_not_pass_for_one_of_drift(pumps: Any) -> None:
    drift, lost = ConceptShift(at="26h", share=0.0), Drop(share=0.9, at="26h", until="27h")
    loop = run(pumps, drift, lost, days=28 / 24, per_day=6_000)
    assert loop.detects(lost, within="1h")
    assert not loop.detects(drift, within="1h")
    assert "no drift or metric_drop alarm" in repr(loop.detects(drift, within="1h"))


def test_negatives_come_out_in_time_though_every_partition_is_silent(tmp_path: Path) -> None:
    use_case, settings = loops.use_case(tmp_path, matures_after="1h")
    events, outcomes = loops.tables(days=5 / 24, per_day=12_000)
    faults = [Drop(share=0.3), Silence(at="2h")]
    loop = simulate(use_case, events, outcomes, faults=faults, settings=settings, step="1m")
    assert loop.counts.labels == loop.counts.predictions == loop.counts.events
    assert loop.timed_out > 300
    # Stream time trails the newest event by the lateness of two minutes, in the silence the clock by one; and a step.
    assert loop.labels_in_time(within="4m")
    assert not loop.labels_in_time(within="59s")


def test_the_champion_of_a_concept_that_comes_back_comes_back_within_a_day(pumps: Any) -> None:
    use_case = copy.copy(pumps[0])
    use_case.monitor = (tr.metrics.LogLoss("1d"), tr.drift.EDetector("accuracy"))
    other = ConceptShift(at="4d", until="7d", name="other")
    events, outcomes = loops.tables(days=9, per_day=2_000)
    loop = simulate(use_case, events, outcomes, faults=[other], settings=pumps[1], step="3h")
    assert loop.detects(other, within="6h")
    assert loop.promotes(after=other, within="1d")
    assert loop.rolls_back(after="7d", within="1d")
    (recalled,) = [r for r in loop.retraining if isinstance(r, CandidateRegistered) and r.recalled]
    assert recalled.model_version in {
        version for at_ms, version in loop.champions() if at_ms < loop.begin_ms + 4 * DAY_MS
    }
    assert recalled.model_version == loop.champion


def test_trainings_are_counted_within_a_span(calm: Simulation) -> None:
    assert calm.retrains(at_least=1, within="3d")
    assert calm.retrains(at_least=0, at_most=0, within="1h")


def test_events_that_are_dropped_are_not_scored(pumps: Any, calm: Simulation) -> None:
    dropped = run(pumps, Drop("events", at="1d", until="2d"))
    assert 450 < calm.counts.predictions - dropped.counts.predictions < 550


def test_outcomes_of_an_auxiliary_label_are_joined_as_they_were_recorded(tmp_path: Path, calm: Simulation) -> None:
    use_case, settings = loops.use_case(tmp_path, with_repairs=True)
    events, outcomes = loops.tables()
    repairs = loops.repairs(outcomes)
    recorded = to_recording(repairs, use_case.outcome_topics[1])
    loop = simulate(use_case, events, outcomes, auxiliary=[recorded], settings=settings)
    silent = simulate(use_case, events, outcomes, settings=settings)
    labels = loop.auxiliary_records.values()
    assert {record.label_name for record in labels} == {"repaired"}
    assert sum(sum(record.positives) for record in labels if record.variant != "shadow") == repairs.num_rows
    assert sum(sum(record.positives) for record in silent.auxiliary_records.values()) == 0
    assert loop.counts.outcomes == outcomes.num_rows + repairs.num_rows
    assert calm.log() == loop.log() == silent.log()


def test_wrong_faults_are_refused_all_at_once(pumps: Any) -> None:
    with pytest.raises(ConfigError) as refused:
        run(pumps, ConceptShift(share=3.0), Drop(at="soon"), Disorder(at="3d", until="2d"))
    for part in ("ConceptShift: ", "'soon' is no moment", "until='2d'"):
        assert part in str(refused.value)
    with pytest.raises(ConfigError, match="did you mean 'heat'"):
        run(pumps, CovariateShift("haet"))
