"""A source that lies, in the whole loop: named, kept from the model, and honest drift let be."""

from __future__ import annotations

from pathlib import Path

import pytest
from loops import tables, use_case

from tailrace.contracts.retraining import RetrainRequested
from tailrace.testing.faults import AnyFault
from tailrace.testing.simulator import ConceptShift, Poison, Simulation, simulate

PERFORMANCE = ("drift", "metric_drop", "refit")


def play(folder: Path, faults: list[AnyFault], *, names_source: bool = True) -> Simulation:
    declared, settings = use_case(folder, source="reporter" if names_source else None)
    return simulate(declared, *tables(days=4, per_day=1_000), faults=faults, settings=settings)


def asked(loop: Simulation) -> list[str]:
    requests = [one for one in loop.retraining if isinstance(one, RetrainRequested)]
    since_ms = loop.begin_ms + 2 * 86_400_000
    return [one.trigger for one in requests if one.requested_at_ms >= since_ms and one.trigger in PERFORMANCE]


@pytest.mark.parametrize("names_source", [True, False])
def test_a_poisoned_source_is_named_and_no_model_is_asked_for_because_of_it(tmp_path: Path, names_source: bool) -> None:
    loop = play(tmp_path, [Poison(source="reporter=night", share=0.6, at="2d")], names_source=names_source)
    suspected = {alarm.subject for alarm in loop.alarms if alarm.kind == "label_source"}
    assert ({"night"} if names_source else set()) == suspected
    assert names_source == (asked(loop) == [])


def test_honest_drift_is_decided_on_as_if_nobody_named_a_source(tmp_path: Path) -> None:
    shift = ConceptShift(share=0.5, at="2d")
    watched = play(tmp_path / "watched", [shift])
    alone = play(tmp_path / "alone", [shift], names_source=False)
    assert [] == [alarm for alarm in watched.alarms if alarm.kind == "label_source"]
    assert asked(watched)
    assert alone.log() == watched.log()
