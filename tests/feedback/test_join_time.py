"""Rows of the join's truth table (docs/join.md) that are about the wall clock, replay and bounds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
import pytest
from disordered import START_MS, WALL_MS, batches, use_case
from join_streams import use_case as shop

from tailrace.backends.codec import encode
from tailrace.backends.ports import Assigned, Message, Output
from tailrace.backends.telemetry import Metrics
from tailrace.contracts.records import LabelledPrediction, Prediction
from tailrace.contracts.topics import Topics
from tailrace.core.joins import Arrivals, JoinSpec, JoinState, Scored
from tailrace.core.watermarks import IDLE_AFTER_MS
from tailrace.errors import StateCorrupt
from tailrace.feedback.processor import FeedbackProcessor
from tailrace.usecase.declaration import UseCase

TOPICS = Topics("disordered")
NOTHING = msgspec.Raw(b"{}")


def processor(declared: UseCase, changelog: Iterable[tuple[bytes, bytes | None]] = ()) -> FeedbackProcessor:
    made = FeedbackProcessor(declared, lambda: changelog, lambda: None, Metrics(declared.name))
    topics = Topics(declared.name)
    names = (topics.predictions, topics.shadow, *(topic.name for topic in declared.outcome_topics))
    made.assigned([Assigned(name, at, -1, "") for name in names for at in range(2)])
    return made


def first_prediction(declared: UseCase, now_ms: int, partition: int = 0) -> Message:
    """A prediction of the disordered stream, moved to a time."""
    found = next(m for batch in batches(declared, 0) for m in batch if m.topic == TOPICS.predictions and m.value)
    record = msgspec.json.decode(found.value or b"", type=Prediction)
    moved = msgspec.structs.replace(record, event_time_ms=now_ms, activated=True, blocked=False)
    return found._replace(value=encode(moved), partition=partition)


def final(outputs: Iterable[Output]) -> list[float | None]:
    found = [msgspec.json.decode(o.value or b"", type=LabelledPrediction) for o in outputs if o.topic == TOPICS.labels]
    return [label.label for label in found if label.status == "final"]


def test_rows_22_and_23_negatives_come_out_when_a_partition_is_silent_and_when_all_traffic_stops(
    tmp_path: Path,
) -> None:
    declared = use_case(tmp_path)
    made = processor(declared)
    outputs = made.process([first_prediction(declared, WALL_MS)], WALL_MS)
    made.ended([(name, at) for name in (TOPICS.predictions, TOPICS.shadow, "disordered.reports") for at in range(2)])
    window_ms, lateness_ms = 86_400_000, 5_000
    # Wall time goes on in steps while nothing comes, on this partition or any other.
    at_ms = WALL_MS
    while not final(outputs):
        at_ms += 600_000
        assert at_ms <= WALL_MS + window_ms + lateness_ms + IDLE_AFTER_MS + 600_000
        outputs += made.process([], at_ms)
    assert [0.0] == final(outputs)


def test_row_27_replay_from_the_beginning_gives_the_same_bytes(tmp_path: Path) -> None:
    declared = use_case(tmp_path)

    def played() -> str:
        made, told = processor(declared), hashlib.sha256()
        for at, batch in enumerate(batches(declared, 5)):
            for output in made.process(batch, WALL_MS + at):
                told.update(b"%s|%r|%r" % (output.topic.encode(), output.key, output.value))
        return told.hexdigest()

    assert played() == played()


def test_row_28_state_stays_below_its_cap_and_evictions_are_counted() -> None:
    cap, batch = 1_000, 250
    state = JoinState(JoinSpec(window_ms=10**9, lateness_ms=0, correction_ms=0, hold_ms=1, max_events=cap))
    for start in range(0, 2 * cap, batch):
        state.predict(Arrivals.of([_scored(at) for at in range(start, start + batch)]))
        assert len(state) <= cap
        state.table.remove(state.take_gone())
    assert {"evicted_unresolved": cap} == dict(state.counts)
    assert [f"e{at}" for at in range(cap)] == [side.event_id for side in state.side]
    assert len(state.table) == cap
    assert len(state.table.serial) <= 4_096


def _scored(at: int) -> Scored:
    return Scored(f"e{at}:c", f"e{at}", "k", NOTHING, NOTHING, at, "champion", "1", 0.5, True)


def changelog_of(outputs: Sequence[Output], topic: str) -> list[tuple[bytes, bytes | None]]:
    return [(o.key or b"", o.value) for o in outputs if o.topic == topic]


@pytest.fixture
def written(tmp_path: Path) -> tuple[UseCase, list[tuple[bytes, bytes | None]]]:
    """A use case and a changelog that its feedback has written."""
    declared = use_case(tmp_path)
    made = processor(declared)
    outputs = [o for at, batch in enumerate(batches(declared, 1, 50)) for o in made.process(batch, WALL_MS + at)]
    return declared, changelog_of(outputs, TOPICS.feedback_changelog)


def test_changelog_of_a_later_format_is_refused(written: tuple[UseCase, list[tuple[bytes, bytes | None]]]) -> None:
    declared, changelog = written
    clock = next(value for key, value in reversed(changelog) if key == b"monitor")
    later = (clock or b"").replace(b'"format":4', b'"format":5')
    with pytest.raises(StateCorrupt, match="format 5, this release writes 4"):
        processor(declared, [*changelog, (b"monitor", later)])


def test_changelog_of_the_format_before_is_read(written: tuple[UseCase, list[tuple[bytes, bytes | None]]]) -> None:
    declared, changelog = written
    clock = msgspec.json.decode(next(value for key, value in reversed(changelog) if key == b"monitor") or b"")
    before = {name: value for name, value in clock.items() if name != "label"} | {"format": 2}
    old = [(key, value) for key, value in changelog if key != b"watermark"]
    assert processor(declared, [*old, (b"monitor", msgspec.json.encode(before))])._state.watermark_ms > START_MS


def test_changelog_that_was_kept_for_another_label_is_refused(
    written: tuple[UseCase, list[tuple[bytes, bytes | None]]],
) -> None:
    declared, changelog = written
    clock = next(value for key, value in reversed(changelog) if key == b"monitor")
    other = (clock or b"").replace(b'"label":"loss"', b'"label":"gain"')
    with pytest.raises(StateCorrupt, match="kept for the label 'gain', the use case is judged by 'loss'"):
        processor(declared, [*changelog, (b"monitor", other)])


def test_what_was_kept_of_a_label_that_is_declared_no_more_is_deleted(tmp_path: Path) -> None:
    declared = shop(tmp_path, "shop")
    kept = [(b"label:gone:held:x", b"?")]
    outputs = processor(declared, kept).process([_retraining(declared)], WALL_MS)
    deleted = [o.key for o in outputs if o.topic == Topics("shop").feedback_changelog and o.value is None]
    assert [b"label:gone:held:x"] == deleted


def _retraining(declared: UseCase) -> Message:
    """A record after which the clock is stored at once."""
    ended = b'{"type":"refused","run_id":"r","use_case":"shop","refused_at_ms":0,"reason":"","gates":[]}'
    return Message(Topics(declared.name).retraining, 0, 0, WALL_MS, b"", ended, [])


def test_outcomes_that_are_read_before_the_predictions_that_wait_for_them_do_not_lead_time(tmp_path: Path) -> None:
    declared = use_case(tmp_path)
    names = (TOPICS.predictions, TOPICS.shadow, declared.label.topic.name)
    early_ms = WALL_MS - 9 * 86_400_000
    prediction = first_prediction(declared, early_ms)
    judged = msgspec.json.decode(prediction.value or b"", type=Prediction).event_id
    times = [early_ms + 1_000, WALL_MS - 86_400_000]
    said = [{"payment_id": judged, "loss": 2.5, "at_ms": at_ms, "revision": 0, "withdrawn": False} for at_ms in times]
    said[1]["payment_id"] = "another"
    outcomes = [Message(names[2], 0, at, WALL_MS, b"", encode(one), []) for at, one in enumerate(said)]

    def reasons(waiting: bool) -> list[str]:
        made = processor(declared)
        made.assigned([Assigned(name, 0, -1, "", waiting and name != TOPICS.shadow) for name in names])
        outputs = [o for batch in (outcomes, [prediction], []) for o in made.process(batch, WALL_MS)]
        labels = [
            msgspec.json.decode(o.value or b"", type=LabelledPrediction) for o in outputs if o.topic == TOPICS.labels
        ]
        return [f"{label.status} {label.label}" for label in labels]

    assert [] == reasons(waiting=False), "the outcome was given up for an orphan"
    assert ["provisional 2.5"] == reasons(waiting=True)
