"""Tasks that join apart and are looked at together say what one worker says that joins all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import msgspec
import numpy as np
import pytest
from disordered import batches, use_case

from tailrace.backends.ports import Message, Output
from tailrace.backends.telemetry import Metrics
from tailrace.contracts.records import WATERMARK_HEADER
from tailrace.contracts.topics import Topics
from tailrace.core.joins import Scored
from tailrace.core.monitor_state import Champion
from tailrace.core.monitoring import HOUR_MS
from tailrace.feedback.changelog import Changelog
from tailrace.feedback.merged import MergedState
from tailrace.feedback.observations import Vectors
from tailrace.feedback.outcomes import reports_of
from tailrace.feedback.predictions import PredictionReader, sampled
from tailrace.feedback.publisher import Publisher
from tailrace.feedback.state import FeedbackState
from tailrace.feedback.task import TaskState
from tailrace.usecase.declaration import UseCase

REFERENCE = {
    "features": {"amount": {"edges": [-1.0, 0.0, 1.0], "counts": [10, 40, 40, 10], "nulls": 3}},
    "score": {"edges": [0.1, 0.3], "counts": [30, 30, 40], "nulls": 0},
}
CHAMPION = Champion("1", {"log_loss": 0.3, "roc_auc": 0.6}, REFERENCE)
HORIZON_MS = 10 * 86_400_000


class Step(NamedTuple):
    """Records of a batch, predictions by topic, and the watermark behind them, if any."""

    predictions: list[list[bytes]]
    outcomes: list[Any]
    watermark_ms: int | None


def steps(declared: UseCase, seed: int) -> Iterator[Step]:
    topics, label = Topics(declared.name), declared.label
    for batch in batches(declared, seed, events=600):
        by_topic: dict[str, list[bytes]] = {}
        for message in batch:
            if message.value is not None:
                by_topic.setdefault(message.topic, []).append(message.value)
        outcomes = [o for o in map(_outcome(label.topic.schema), by_topic.get(label.topic.name, [])) if o is not None]
        predictions = [by_topic.get(topic, []) for topic in (topics.predictions, topics.shadow)]
        yield Step(predictions, outcomes, _mark(batch))


def _outcome(schema: Any) -> Any:
    def read(value: bytes) -> Any:
        try:
            return msgspec.json.decode(value, type=schema)
        except msgspec.ValidationError:
            return None

    return read


def _mark(batch: list[Message]) -> int | None:
    marks = [int(text) for message in batch for name, text in message.headers if name == WATERMARK_HEADER]
    return max(marks, default=None)


def alone(declared: UseCase, seed: int) -> list[Output]:
    """Everything that one worker says that joins all."""
    state, changelog, reader = FeedbackState(declared), Changelog("c", HORIZON_MS), PredictionReader(2)
    publisher = Publisher(declared, Metrics(declared.name))
    found = publisher.alarms(state.serve(CHAMPION))
    for step in steps(declared, seed):
        for at, values in enumerate(step.predictions):
            if values:
                batch = reader.read(values)
                arrivals = batch.arrivals
                state.predict(arrivals)
                places = sampled(arrivals, state.monitor.sample, "1") if at == 0 else []
                if places:
                    state.monitor.vectors(batch.vectors(places), arrivals.score[places])
        if step.outcomes:
            state.observe(0, reports_of(declared.label, step.outcomes))
        if step.watermark_ms is not None and step.watermark_ms > state.watermark_ms:
            state.advance(step.watermark_ms)
            found += publisher.alarms(state.monitor.advance(step.watermark_ms))
            tick_ms, since_ms = state.watermark_ms // HOUR_MS * HOUR_MS, state.monitor.ticked_ms
            if tick_ms > since_ms:
                state.forget(tick_ms)
                counts = [label.counts for label in state.labels]
                found += publisher.tick(state.overview, counts, tick_ms, since_ms, state.tick(tick_ms))
        for label in state.labels:
            label.store(changelog)
    return found


def observed(declared: UseCase, seed: int, tasks: int) -> list[list[bytes]]:
    """What each task says, of a stream whose events are dealt out by their id."""
    states = [TaskState(declared, task) for task in range(tasks)]
    changelogs, reader = [Changelog("c", HORIZON_MS) for _ in states], PredictionReader(2)
    found: list[list[bytes]] = [[] for _ in states]
    for step in steps(declared, seed):
        for state, changelog in zip(states, changelogs, strict=True):
            for at, values in enumerate(step.predictions):
                _predict(state, reader, [value for value in values if _task_of(_event(value), tasks) == state.task], at)
            outcomes = [one for one in step.outcomes if _task_of(one.payment_id, tasks) == state.task]
            if outcomes:
                state.observe(0, reports_of(declared.label, outcomes))
            if step.watermark_ms is not None and step.watermark_ms > state.watermark_ms:
                state.advance(step.watermark_ms)
            found[state.task] += _stored(state, changelog)
    return found


def _predict(state: TaskState, reader: PredictionReader, values: list[bytes], at: int) -> None:
    if not values:
        return
    batch = reader.read(values)
    arrivals = batch.arrivals
    places = sampled(arrivals, state.sample, "1") if at == 0 else []
    vectors = [Vectors("1", batch.vectors(places).tobytes(), arrivals.score[places].tobytes())]
    state.predict(arrivals, vectors if places else [])


def _stored(state: TaskState, changelog: Changelog) -> list[bytes]:
    return [msgspec.msgpack.encode(one) for one in state.store([changelog])[1]]


def _event(value: bytes) -> str:
    return msgspec.json.decode(value, type=Scored).event_id


def _task_of(event_id: str, tasks: int) -> int:
    return crc32(event_id.encode()) % tasks


def together(declared: UseCase, parts: list[list[bytes]], order: list[int]) -> list[Output]:
    """Everything that is said of all tasks, whose observations come in some order."""
    state, threads = MergedState(declared, range(len(parts))), [iter(part) for part in parts]
    publisher = Publisher(declared, Metrics(declared.name))
    found = publisher.alarms(state.serve(CHAMPION))
    for task in order:
        for step in state.take(next(threads[task]), 0):
            found += publisher.alarms(step.alarms)
            if step.ticked is not None:
                found += publisher.tick(state.overview, state.counts, step.tick_ms, step.since_ms, step.ticked)
    return found


@pytest.mark.parametrize(
    ("tasks", "closes", "if_absent"), [(1, "window", None), (3, "outcome", False), (4, "window", False)]
)
def test_any_split_over_tasks_and_any_interleaving_give_the_windows_and_decisions_of_one_worker(
    tmp_path: Path, tasks: int, closes: str, if_absent: bool | None
) -> None:
    declared = use_case(tmp_path, closes=closes, if_absent=if_absent)
    expected = alone(declared, tasks)
    decisions = [one for one in expected if one.topic != Topics(declared.name).quality]
    assert decisions
    assert len(expected) > len(decisions) + 50
    parts = observed(declared, tasks, tasks)
    one_by_one = np.repeat(np.arange(tasks), [len(part) for part in parts])
    for order in (one_by_one, np.random.default_rng(tasks).permutation(one_by_one)):
        assert together(declared, parts, order.tolist()) == expected
