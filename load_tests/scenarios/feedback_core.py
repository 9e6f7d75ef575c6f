"""Feedback without Kafka: records in memory in, records out, in predictions per second.

The same stream as in `feedback`: `events` predictions are open, half as many more come while as many mature,
a tenth has an outcome. Measured is the second part, from bytes to bytes, in batches as the loop hands them over.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np

from load_tests.bench import Bench, Candidate
from load_tests.feedback_naive import NaiveJoin
from load_tests.predictions import START_MS, Predictions, Stream, load_offline, outcome, timetable
from load_tests.streams import PARTITIONS
from tailrace.backends.ports import Assigned, Message
from tailrace.backends.telemetry import Metrics
from tailrace.contracts.topics import Topics
from tailrace.core.monitor_state import Champion
from tailrace.feedback.processor import FeedbackProcessor
from tailrace.usecase.declaration import UseCase

UNIT = "predictions/s"
SHORT = False
BATCH = 4_000
NOW_MS = START_MS + 30 * 86_400_000
"""Wall clock: behind all events, or outcomes would be refused for coming from the future."""


def tailrace(bench: Bench) -> float:
    """The processor of the feedback service."""
    use_case, reference = load_offline(bench.directory)
    first = [(1, Champion("1", {"log_loss": 0.3}, reference))]
    processor = FeedbackProcessor(use_case, lambda: [], lambda: first.pop() if first else None, Metrics(use_case.name))
    topics = Topics(use_case.name)
    processor.assigned(
        [
            Assigned(name, at, -1, "")
            for name in (topics.predictions, use_case.label.topic.name)
            for at in range(PARTITIONS)
        ]
    )
    return _measured(bench, use_case, lambda batch: processor.process(batch, NOW_MS))


def naive(bench: Bench) -> float:
    """A loop as one writes it: a dict of predictions, one record after the other."""
    use_case, _ = load_offline(bench.directory)
    topics, out = Topics(use_case.name), []
    join = NaiveJoin(topics, lambda topic, key, value: out.append((topic, key, value)))

    def take(batch: list[Message]) -> object:
        for message in batch:
            take_one = join.predict if message.topic == topics.predictions else join.observe
            take_one(message.partition, message.value or b"")
        join.advance(2 * PARTITIONS)
        out.clear()
        return None

    return _measured(bench, use_case, take)


CANDIDATES: dict[str, Candidate] = {"tailrace": tailrace, "naive": naive}
FLOORS = {"naive": 1.2}


def _measured(bench: Bench, use_case: UseCase, take: Callable[[list[Message]], object]) -> float:
    live = bench.events // 2
    stream = timetable(bench.events, live, bench.seed)

    def rate(first: int, end: int) -> float:
        taken = 0.0
        for batch in _batches(use_case, stream, first, end):
            since = time.perf_counter()
            take(batch)
            taken += time.perf_counter() - since
        return (end - first) / taken

    bench.notes["opening"] = rate(0, bench.events)
    return rate(bench.events, bench.events + live)


def _batches(use_case: UseCase, stream: Stream, first: int, end: int) -> Iterator[list[Message]]:
    """Predictions in order, each batch followed by the outcomes that were reported meanwhile."""
    predictions, topics = Predictions(use_case, stream), Topics(use_case.name)
    outcomes = use_case.label.topic.name
    for start in range(first, end, BATCH):
        stop = min(start + BATCH, end)
        batch = [
            Message(topics.predictions, at % PARTITIONS, at, 0, b"k", predictions.record(at), [])
            for at in range(start, stop)
        ]
        low, high = np.searchsorted(stream.reported_ms, stream.times_ms[[start, stop - 1]])
        for at in range(low, high):
            _, value, partition = outcome(stream, at)
            batch.append(Message(outcomes, partition, int(stream.judged[at]), 0, b"k", value, []))
        yield batch
