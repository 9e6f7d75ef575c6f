"""The same streams through the services on Kafka and Redis, and through the simulator: one decision like the other."""

from __future__ import annotations

from pathlib import Path

import loops
import pytest

from tailrace.backends.recordings import Recording, to_recording
from tailrace.backends.settings import Settings
from tailrace.core.durations import milliseconds
from tailrace.local.observer import Observer
from tailrace.local.replay import Replay
from tailrace.local.supervisor import Embedded
from tailrace.testing.decisions import DecisionLog
from tailrace.testing.faults import AnyFault, ConceptShift, Duplicate, LabelDelay
from tailrace.testing.injection import inject
from tailrace.testing.sent_streams import streams_of
from tailrace.testing.simulator import simulate
from tailrace.usecase.declaration import UseCase

STEP = "3h"
FAULTS: list[AnyFault] = [
    ConceptShift(at="42h", share=0.8),
    LabelDelay(times=2.0, at="30h", until="36h"),
    Duplicate(share=0.02),
    Duplicate("outcomes", share=0.02),
]


@pytest.mark.timeout(280)
def test_every_decision_of_a_replay_on_the_broker_is_that_of_the_simulator(tmp_path: Path) -> None:
    use_case, given = loops.use_case(tmp_path / "use_cases", at_least_every="12h", with_repairs=True)
    events, outcomes = loops.tables(days=4, per_day=400)
    repairs = to_recording(loops.repairs(outcomes), use_case.outcome_topics[1])
    recorded = to_recording(events, use_case.requests), to_recording(outcomes, use_case.label.topic)
    begin_ms = int(recorded[0].times_ms[0]) // milliseconds(STEP) * milliseconds(STEP)
    streams = inject(streams_of(*recorded), FAULTS, use_case, begin_ms, seed=3)
    played = streams.events.recording(), streams.outcomes.recording()
    simulated = simulate(use_case, *played, auxiliary=[repairs], step=STEP, settings=given)
    assert simulated.retrains(at_least=4)
    assert len(simulated.champions()) >= 2
    assert any(decision.what == "refused" for decision in simulated.log())
    on_broker = _replayed(tmp_path / "state", given, use_case, (*played, repairs))
    for expected, found in zip(simulated.log(), on_broker.log(), strict=False):
        assert expected == found
    assert len(simulated.log()) == len(on_broker.log())
    assert simulated.log_hash() == on_broker.log_hash()
    assert simulated.decisions_hash() == on_broker.decisions_hash()
    # Histograms of all scores by window, version and label: as good as comparing every prediction and label.
    assert simulated.quality_records == on_broker.quality_records
    assert sum(record.final for record in simulated.auxiliary_records.values()) > 1_000
    assert simulated.auxiliary_records == on_broker.auxiliary_records


def _replayed(state: Path, settings: Settings, use_case: UseCase, played: tuple[Recording, ...]) -> DecisionLog:
    embedded = Embedded(state, settings=settings)
    try:
        embedded.start([use_case.name])
        seen = Observer(embedded.settings, use_case.name)
        replay = Replay(embedded.settings, use_case, *played, keep_going=embedded.check)
        replay.play(milliseconds(STEP))
        replay.settle()
        replay.close()
        seen.poll(2.0)
        seen.close()
        return seen
    finally:
        embedded.stop()
