"""Erasure: what is kept of an entity goes, everything else stays as if nothing had been asked for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from disordered import DAY_MS, START_MS, WALL_MS, batches
from erasures import asked
from hypothesis import given
from hypothesis import strategies as st
from join_streams import START_MS as BEGIN_MS
from join_streams import MemoryFeedback, Step, play, unattributed
from join_streams import use_case as several_labels
from naive_feedback import NaiveFeedback, Record
from test_equal_to_naive import CHAMPION, TOPICS, Worker, digests

from tailrace.backends.codec import decode, encode
from tailrace.backends.ports import Assigned, Message
from tailrace.backends.telemetry import Metrics
from tailrace.contracts.records import LabelledPrediction
from tailrace.contracts.retraining import EraseRequested, OperatorAction
from tailrace.contracts.topics import Topics
from tailrace.core import closed_events, join_table
from tailrace.core.erasure import asked_by
from tailrace.core.outcome_table import OutcomeTable, Said
from tailrace.feedback.batches import batches as told
from tailrace.feedback.batches import read_batches, read_outcomes
from tailrace.feedback.changelog import newest_of
from tailrace.feedback.processor import FeedbackProcessor
from tailrace.feedback.sweeping import without
from tailrace.usecase.declaration import UseCase


def message(request: EraseRequested) -> Message:
    return Message(Topics(request.use_case).retraining, 0, 0, WALL_MS, b"k", encode(request), [])


def with_erasures(declared: UseCase, seed: int) -> Iterator[list[Message]]:
    """A stream in which four of seven cards are erased: before stream time has come so far, and long after."""
    rng = np.random.default_rng(seed + 100)
    for batch in batches(declared, seed, events=800):
        if rng.random() < 0.4:
            before_ms = START_MS + int(rng.integers(0, 6 * DAY_MS))
            batch = [*batch, message(asked(f"é{rng.integers(4)}", before_ms))]
        yield batch


@pytest.mark.parametrize(("closes", "if_absent"), [("window", False), ("outcome", False), ("window", None)])
def test_feedback_that_erases_puts_out_what_the_naive_feedback_puts_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closes: str, if_absent: bool | None
) -> None:
    monkeypatch.setattr(closed_events, "BLOCK", 4)
    monkeypatch.setattr(closed_events, "AT_ONCE", 32)
    monkeypatch.setattr(join_table, "LEAST_RENUMBERED", 64)
    worker = Worker(tmp_path, closes, if_absent)
    naive = NaiveFeedback(worker.use_case, CHAMPION)
    expected: list[Record] = []
    for at, batch in enumerate(with_erasures(worker.use_case, 1)):
        expected += naive.process(batch, WALL_MS + at)
        worker.outputs += worker.processor.process(batch, WALL_MS + at)
    assert sum(topic == TOPICS.labels and value is None for topic, _, value in expected) > 100
    assert digests(expected) == digests(worker.said())


@pytest.mark.parametrize("seed", range(2))
def test_worker_killed_between_any_two_batches_erases_and_labels_as_if_nothing_had_happened(
    tmp_path: Path, seed: int
) -> None:
    calm, killed = Worker(tmp_path / "calm", "window", False), Worker(tmp_path / "killed", "window", False)
    rng = np.random.default_rng(seed)
    for at, batch in enumerate(with_erasures(calm.use_case, seed)):
        for worker in (calm, killed):
            worker.outputs += worker.processor.process(batch, WALL_MS + at)
        if rng.random() < 0.3:
            killed.restart()
    said = [sorted((r for r in world.said() if r[0] == TOPICS.labels), key=str) for world in (calm, killed)]
    assert said[0] == said[1]
    assert answers(calm) == answers(killed)
    assert sum(answer.evidence["predictions"] != "0" for answer in answers(calm)) >= 3


def answers(worker: Worker) -> list[OperatorAction]:
    found = [decode(dict, value) for topic, _, value in worker.said() if topic == TOPICS.retraining and value]
    return [decode(OperatorAction, encode(record)) for record in found if record["type"] == "action"]


def test_nothing_of_what_was_erased_is_left_on_the_changelog_and_everything_else_is(tmp_path: Path) -> None:
    worker, spared = Worker(tmp_path / "erased", "window", False), Worker(tmp_path / "spared", "window", False)
    stream = list(batches(worker.use_case, 3))
    for at, batch in enumerate(stream[: len(stream) // 2]):
        for one in (worker, spared):
            one.outputs += one.processor.process(batch, WALL_MS + at)
    request = asked("é3", worker.processor._state.watermark_ms)
    worker.outputs += worker.processor.process([message(request)], WALL_MS)
    gone = [key.decode() for topic, key, value in worker.said() if topic == TOPICS.labels and value is None and key]
    names = [encode(name) for name in gone]
    assert len(gone) > 50
    assert all(any(name in value for value in changelog(worker).values()) for name in names)
    waiting = [text for labels in worker.processor._state.monitor.waiting for text in labels.texts]
    assert waiting
    assert not [name for name in names if any(name in text for text in waiting)]
    worker.outputs += worker.processor.process([], WALL_MS)
    left = changelog(worker)
    assert not [name for name in names if any(name in value for value in left.values())]
    assert not {b"erased", b"erasing"} & set(left)
    # What is left is what a worker holds that never heard of the entity.
    for one in (worker, spared):
        one.restart()
    table, other = (one.processor._state.labels[0].table for one in (worker, spared))
    rows = other.live()
    rows = rows[asked_by([request], other.texts[rows].tolist(), other.event_time_ms[rows]) < 0]
    assert len(rows) > 300
    for column in ("texts", "serial", "version", "label", "status", "outcome_time_ms"):
        np.testing.assert_array_equal(getattr(table, column)[table.live()], getattr(other, column)[rows])


def test_worker_that_dies_before_it_has_swept_its_changelog_sweeps_it_when_it_is_back(tmp_path: Path) -> None:
    worker = Worker(tmp_path, "window", False)
    stream = list(batches(worker.use_case, 3))
    for at, batch in enumerate(stream[: len(stream) // 2]):
        worker.outputs += worker.processor.process(batch, WALL_MS + at)
    request = asked("é3", worker.processor._state.watermark_ms)
    worker.outputs += worker.processor.process([message(request)], WALL_MS)
    assert b"erased" in changelog(worker)
    names = [
        encode(key.decode()) for topic, key, value in worker.said() if topic == TOPICS.labels and not value and key
    ]
    worker.restart()
    worker.outputs += worker.processor.process([], WALL_MS)
    left = changelog(worker)
    assert b"erased" not in left
    assert not [name for name in names if any(name in value for value in left.values())]


def test_changelog_is_swept_beside_the_worker(tmp_path: Path) -> None:
    worker = Worker(tmp_path, "window", False)
    with ThreadPoolExecutor(1) as beside:
        worker.processor = FeedbackProcessor(
            worker.use_case, lambda: list(worker._changelog()), lambda: None, Metrics("disordered"), beside
        )
        names = (TOPICS.predictions, TOPICS.shadow, worker.use_case.label.topic.name)
        worker.processor.assigned([Assigned(name, at, -1, "") for name in names for at in range(2)])
        for at, batch in enumerate(batches(worker.use_case, 3, events=200)):
            worker.outputs += worker.processor.process(batch, WALL_MS + at)
            if worker.processor._state.watermark_ms > START_MS + 2 * DAY_MS:
                break
        requests = [message(asked("é3", START_MS + days * DAY_MS)) for days in (1, 20)]
        worker.outputs += worker.processor.process(requests, WALL_MS)
        assert b"erased" in changelog(worker)
        deadline = time.monotonic() + 30
        while b"erased" in changelog(worker):
            assert time.monotonic() < deadline
            worker.outputs += worker.processor.process([], WALL_MS)
    pending = decode(list[EraseRequested], changelog(worker)[b"erasing"])
    assert [START_MS + 20 * DAY_MS] == [request.before_ms for request in pending]


def changelog(worker: Worker) -> dict[bytes, bytes]:
    return newest_of((o.key or b"", o.value) for o in worker.outputs if o.topic == TOPICS.feedback_changelog)


def test_outcome_of_an_erased_prediction_is_an_orphan_and_windows_count_on(tmp_path: Path) -> None:
    driver = MemoryFeedback(several_labels(tmp_path, "shop"))
    before_ms = BEGIN_MS + 10_000
    ask = asked("r/c", before_ms, entity="customer", of="shop")
    steps = [
        Step("predictions", 0, {"event": "a"}),
        Step("predictions", 1, {"event": "b", "customer": "d"}),
        Step("orders", 5, {"order_id": "o1", "offer_id": "a", "customer": "c", "amount": 2.0}),
        Step("orders", 5, {"order_id": "o2", "offer_id": "b", "customer": "d", "amount": 3.0}),
    ]
    play(driver, 0, "r", steps)
    driver.send([(Topics("shop").retraining, encode(ask), [])])
    play(driver, 0, "r", [Step("", 9)])
    assert [] == [key for key, value in driver.read(Topics("shop").labels) if value is None]
    play(driver, 0, "r", [Step("", 10)])
    assert [b"r/a"] == [key for key, value in driver.read(Topics("shop").labels) if value is None]
    late = [
        Step("reports", 20, {"offer_id": "a", "value": 1.0}),
        Step("orders", 21, {"order_id": "o1", "offer_id": "a", "customer": "c", "amount": 0.0, "revision": 1}),
        Step("", 30),
        Step("", 200_000),
    ]
    play(driver, 0, "r", late)
    assert {("a", "orphan"), ("c", "orphan")} == set(unattributed(driver, "r"))
    said = [decode(LabelledPrediction, value) for _, value in driver.read(Topics("shop").labels) if value is not None]
    assert {"r/b"} == {label.prediction_id for label in said if label.status == "final"}
    assert (3.0, "final") in {(label.label, label.status) for label in said if label.label_name == "revenue"}


def test_entities_of_requests_that_are_not_meant_stay() -> None:
    texts = [encode([str(at), str(at), "k", {"card": card, "shop": "s"}]) for at, card in enumerate("abca")]
    times = np.array([5, 5, 5, 6])
    requests = [asked("a", 5), asked("s", 9), asked("b", 4), asked("c", 5), asked("a", 2)]
    assert [0, -1, 3, -1] == asked_by(requests, texts, times).tolist()


@given(st.lists(st.integers(0, 7), min_size=1, max_size=12), st.sets(st.integers(0, 11)))
def test_batches_without_some_predictions_restore_all_others(sizes: list[int], chosen: set[int]) -> None:
    table, outcomes = join_table.JoinTable(), OutcomeTable()
    written: list[Any] = []
    for number, size in enumerate(sizes):
        names = [f"{number}-{at}" for at in range(size)]
        texts = [encode([name, name, "k", {}]) for name in names]
        cohorts = table.cohort_numbers([("champion", str(number % 2), b"{}")] * size)
        rows = table.add(texts, [number] * size, [0.5] * size, cohorts, [0] * size)
        table.label[rows] = number
        if size:
            said = outcomes_of(len(rows), number)
            outcomes.put(rows, names, said)
        written += told(table, outcomes, rows, rows, np.empty(0, np.int64), 100)
    serials = np.array(sorted(chosen), np.int64)
    swept = [without(batch, serials) or batch for batch in written]
    found, heads = read_batches(swept)
    again = OutcomeTable()
    read_outcomes(swept, found, again)
    rows = table.live()
    rows = rows[~np.isin(table.serial[rows], serials)]
    for column in ("texts", "serial", "label", "event_time_ms"):
        np.testing.assert_array_equal(getattr(found, column)[found.live()], getattr(table, column)[rows])
    ids = [text.event_id for text in table.read(rows)]
    assert (again.find(heads, ids) >= 0).all()
    assert len(again) == len(ids)


def outcomes_of(count: int, value: float) -> Said:
    zeros = np.zeros(count, np.int64)
    return Said(zeros, np.ones(count, np.int8), np.full(count, value), zeros, np.zeros(count, np.uint8))
