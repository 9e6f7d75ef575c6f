"""Feedback after a restart, while it has read one partition and not yet another: stream time waits for all."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from declared import prediction
from disordered import DAY_MS, use_case

from tailrace.backends.codec import encode
from tailrace.backends.ports import Assigned, Message, Output
from tailrace.backends.telemetry import Metrics
from tailrace.contracts.records import LabelledPrediction, Source
from tailrace.contracts.topics import Topics
from tailrace.core.watermarks import IDLE_AFTER_MS
from tailrace.feedback.processor import FeedbackProcessor

TOPICS = Topics("disordered")
REPORTS = "disordered.reports"
HOUR_MS = 3_600_000
NOW_MS = 20_000 * DAY_MS
PLACES = [(topic, partition) for topic in (TOPICS.predictions, TOPICS.shadow, REPORTS) for partition in range(2)]


class Worker:
    """Feedback in memory, with the metadata that was committed beside its changelog."""

    def __init__(self, folder: Path, *, waiting: bool = False) -> None:
        self._waiting = waiting
        self.use_case = use_case(folder)
        self.outputs: list[Output] = []
        self.metadata: dict[tuple[str, int], str] = {}
        self.restart()

    def restart(self) -> None:
        changelog = [(o.key or b"", o.value) for o in self.outputs if o.topic == TOPICS.feedback_changelog]
        self.processor = FeedbackProcessor(self.use_case, lambda: changelog, lambda: None, Metrics("disordered"))
        self.processor.assigned([Assigned(*at, -1, self.metadata.get(at, ""), self._waiting) for at in PLACES])

    def predicted(self, event: str, partition: int, at_ms: int) -> Message:
        made = prediction(self.use_case, event, at_ms, source=Source("payments", partition, 0))
        return Message(TOPICS.predictions, partition, 0, at_ms, b"k", encode(made), [])

    def take(self, *messages: Message, now_ms: int = NOW_MS) -> dict[str, str]:
        """Takes a batch and commits it; gives the labels it makes, by event, with the reason."""
        outputs = self.processor.process(messages, now_ms)
        self.outputs += outputs
        self.metadata |= {at: self.processor.metadata(*at) for at in PLACES}
        return {label.event_id: label.reason for label in labels(outputs)}


def labels(outputs: list[Output]) -> list[LabelledPrediction]:
    return [msgspec.json.decode(o.value or b"", type=LabelledPrediction) for o in outputs if o.topic == TOPICS.labels]


def reported(event: str, partition: int, at_ms: int) -> Message:
    record = {"payment_id": event, "loss": 1.0, "at_ms": at_ms, "revision": 0, "withdrawn": False}
    return Message(REPORTS, partition, 0, at_ms, b"k", encode(record), [])


THEN_MS = NOW_MS - DAY_MS - HOUR_MS


def begin(worker: Worker, *, now_ms: int) -> None:
    """All partitions have come to the same hour: the events a and b wait for their outcomes."""
    predictions = (worker.predicted("a", 0, THEN_MS), worker.predicted("b", 1, THEN_MS))
    worker.take(*predictions, reported("x", 0, THEN_MS), reported("y", 1, THEN_MS), now_ms=now_ms)


@pytest.mark.parametrize("restart", [False, True])
def test_window_stays_open_until_the_outcomes_of_a_partition_that_lags_are_read(tmp_path: Path, restart: bool) -> None:
    # predictions 0, 1   a b |            c d                      stream time may pass the end of a's window
    # reports 0          x   |            z                        only when reports 1 has come there too
    # reports 1          y   |                  a (in its window)
    worker = Worker(tmp_path)
    begin(worker, now_ms=NOW_MS)
    if restart:
        worker.restart()
    assert (
        worker.take(worker.predicted("c", 0, NOW_MS), worker.predicted("d", 1, NOW_MS), reported("z", 0, NOW_MS)) == {}
    )
    assert worker.take(reported("a", 1, NOW_MS - DAY_MS)) == {"a": "outcome"}
    assert worker.take(reported("z", 1, NOW_MS)) == {"a": "window_closed", "b": "timeout"}


def test_partition_that_is_silent_after_a_restart_is_left_out_once_it_is_idle(tmp_path: Path) -> None:
    worker = Worker(tmp_path)
    begin(worker, now_ms=THEN_MS)
    worker.restart()
    read = (worker.predicted("c", 0, NOW_MS), worker.predicted("d", 1, NOW_MS), reported("z", 0, NOW_MS))
    worker.processor.ended(PLACES)
    assert worker.take(*read) == {}
    assert worker.take(now_ms=NOW_MS + IDLE_AFTER_MS - 1) == {}
    assert worker.take(worker.predicted("e", 0, NOW_MS + IDLE_AFTER_MS), now_ms=NOW_MS + IDLE_AFTER_MS) == {
        "a": "timeout",
        "b": "timeout",
    }


def test_time_goes_on_by_the_wall_clock_after_a_restart_when_all_traffic_has_stopped(tmp_path: Path) -> None:
    worker = Worker(tmp_path)
    begin(worker, now_ms=THEN_MS)
    worker.restart()
    assert worker.take(now_ms=NOW_MS - IDLE_AFTER_MS) == {}
    worker.processor.ended(PLACES)
    assert worker.take(now_ms=NOW_MS) == {}
    assert worker.take(now_ms=NOW_MS + IDLE_AFTER_MS) == {"a": "timeout", "b": "timeout"}


def test_partition_whose_records_were_never_read_holds_stream_time_back_until_it_is_idle(tmp_path: Path) -> None:
    worker = Worker(tmp_path, waiting=True)
    assert (
        worker.take(worker.predicted("a", 0, THEN_MS), worker.predicted("b", 0, NOW_MS), reported("x", 0, NOW_MS)) == {}
    )
    worker.processor.ended(PLACES)
    assert worker.take(now_ms=NOW_MS) == {}
    last = worker.predicted("c", 0, NOW_MS + IDLE_AFTER_MS)
    assert worker.take(last, now_ms=NOW_MS + IDLE_AFTER_MS) == {"a": "timeout"}


def test_labels_are_as_if_outcomes_that_wait_for_an_hour_had_been_read_in_time(tmp_path: Path) -> None:
    # predictions  one an hour, for three days: read in an hour of wall clock
    # outcomes     of every third, an hour behind it: read beside them, or all after that hour
    hours = range(-71, 1)

    def played(*, in_time: bool) -> list[tuple[str, int, str, str, float | None]]:
        worker = Worker(tmp_path / str(in_time), waiting=True)
        outcomes = []
        for at, hour in enumerate(hours):
            told = [reported(f"e{hour - 1}", at % 2, NOW_MS + hour * HOUR_MS)] if at % 3 == 1 else []
            outcomes += [] if in_time else told
            predicted = worker.predicted(f"e{hour}", at % 2, NOW_MS + hour * HOUR_MS)
            worker.take(predicted, *(told if in_time else []), now_ms=NOW_MS + at * HOUR_MS // len(hours))
            worker.processor.ended(PLACES if in_time else PLACES[:4])
        for outcome in outcomes:
            worker.take(outcome, now_ms=NOW_MS + HOUR_MS)
        last_ms = NOW_MS + HOUR_MS
        last = [worker.predicted(f"z{part}", part, last_ms) for part in range(2)]
        worker.take(*last, *(reported(f"y{part}", part, last_ms) for part in range(2)), now_ms=last_ms)
        made = labels(worker.outputs)
        return sorted((label.event_id, label.label_version, label.status, label.reason, label.label) for label in made)

    late = played(in_time=False)
    assert late == played(in_time=True)
    assert sum(reason == "timeout" for _, _, _, reason, _ in late) > 20


def test_partition_without_any_record_holds_nothing_back(tmp_path: Path) -> None:
    worker = Worker(tmp_path, waiting=False)
    read = (worker.predicted("a", 0, THEN_MS), worker.predicted("b", 0, NOW_MS), reported("x", 0, NOW_MS))
    assert worker.take(*read) == {"a": "timeout"}
