"""Replay, barrier and audit against a real broker, with stand-ins for the services."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from confluent_kafka import KafkaError, TopicPartition
from confluent_kafka.admin import NewTopic

import tailrace as tr
from tailrace.backends.kafka import admin, consumer, producer, read_topic, to_message
from tailrace.backends.ports import Message
from tailrace.backends.recordings import to_recording
from tailrace.backends.settings import Settings
from tailrace.contracts.records import WATERMARK_HEADER
from tailrace.contracts.topics import Topics
from tailrace.core.watermarks import watermark_of
from tailrace.local.audit import audit
from tailrace.local.barrier import NotSettled
from tailrace.local.replay import Replay
from tailrace.usecase.declaration import UseCase

HOUR_MS = 3_600_000
BEGIN_MS = 1_736_121_600_000


class Payment(tr.Event):
    payment_id: str
    card_id: str
    at_ms: int


class Chargeback(tr.Event):
    payment_id: str
    fraud: bool
    reported_at_ms: int


def _use_case(name: str) -> UseCase:
    payments = tr.Topic(f"{name}.payments", Payment, key="card_id", event_time="at_ms")
    chargebacks = tr.Topic(f"{name}.chargebacks", Chargeback, key="payment_id", event_time="reported_at_ms")
    label = tr.Label(chargebacks, on="payment_id", value="fraud", matures_after="1d")
    refunds = tr.Topic(f"{name}.refunds", Refund, key="payment_id", event_time="paid_at_ms")
    refunded = tr.Label(refunds, on="payment_id", value="refunded", matures_after="1d")
    counts = tr.GroupBy(payments, by="card_id", windows=["1h"]).aggregate(tr.Count())
    return UseCase(
        name=name,
        requests=payments,
        prediction_id="payment_id",
        features=[tr.HourOfDay(), *counts],
        label=label,
        auxiliary_labels=[refunded],
        model=tr.Binary(),
    )


class Refund(tr.Event):
    payment_id: str
    refunded: bool
    paid_at_ms: int


class StandIn(threading.Thread):
    """Consumes what a service would, puts out what it is told, and commits behind it."""

    def __init__(
        self, settings: Settings, group: str, topics: list[str], react: Callable[[Message], list[tuple[str, bytes]]]
    ) -> None:
        super().__init__(daemon=True)
        self.stopping = threading.Event()
        self._settings, self._group, self._topics = settings, group, topics
        self._react = react

    def run(self) -> None:
        # A consumer that subscribes and is never polled hangs when it is destroyed.
        self._producer = producer(self._settings)
        self._consumer = consumer(self._settings, self._group)
        self._consumer.subscribe(self._topics)
        while not self.stopping.is_set():
            records = self._consumer.consume(1_000, timeout=0.05)
            offsets: dict[tuple[str, int], int] = {}
            for record in records:
                error = record.error()
                if error is not None:
                    if error.code() == KafkaError._PARTITION_EOF:
                        offsets[str(record.topic()), int(record.partition() or 0)] = int(record.offset() or 0)
                    continue
                message = to_message(record)
                for topic, value in self._react(message):
                    self._producer.produce(topic, value, message.key, message.partition)
                offsets[message.topic, message.partition] = message.offset + 1
            self._producer.flush(10)
            if offsets:
                self._consumer.commit(
                    offsets=[TopicPartition(*at, offset) for at, offset in offsets.items()], asynchronous=False
                )
        self._consumer.close()


def _source(message: Message) -> dict[str, Any]:
    return {"topic": message.topic, "partition": message.partition, "offset": message.offset}


class World:
    """A use case whose services are stand-ins; `double` and `lose` name payments to fail on."""

    def __init__(self, settings: Settings, name: str) -> None:
        self.settings = settings
        self.use_case = _use_case(name)
        self.double: set[str] = set()
        self.lose: set[str] = set()
        self.watermarks: list[int] = []
        self._seen: dict[str, list[int]] = {}
        topics = self._topics = Topics(name)
        owned = [NewTopic(spec.name, spec.partitions or 2, 1) for spec in topics.owned()]
        mine = [NewTopic(topic.name, 2, 1) for topic in (self.use_case.requests, *self.use_case.outcome_topics)]
        client = admin(settings)
        for future in client.create_topics([*owned, *mine]).values():
            assert future.exception(30) is None or "EXISTS" in str(future.exception())
        outcomes = [topic.name for topic in self.use_case.outcome_topics]
        reads = {
            "features": ([self.use_case.requests.name], self._features),
            "inference": ([topics.features], self._inference),
            "feedback": ([topics.predictions, topics.shadow, *outcomes], lambda _: []),
            "trainer": ([topics.retraining], lambda _: []),
            "rollout": ([topics.retraining, topics.quality], lambda _: []),
        }
        self.services = {
            name: StandIn(settings, topics.group(name), names, react) for name, (names, react) in reads.items()
        }

    def recordings(self, n: int) -> tuple[Any, Any]:
        payments = pa.table(
            {
                "payment_id": [f"p{at}" for at in range(n)],
                "card_id": [f"c{at % 7}" for at in range(n)],
                "at_ms": [BEGIN_MS + at * 60_000 for at in range(n)],
            }
        )
        chargebacks = pa.table(
            {"payment_id": ["p1"], "fraud": [True], "reported_at_ms": [BEGIN_MS + 2 * HOUR_MS]},
        )
        return (
            to_recording(payments, self.use_case.requests),
            to_recording(chargebacks, self.use_case.label.topic),
        )

    def _features(self, message: Message) -> list[tuple[str, bytes]]:
        mark = watermark_of(message.value, message.headers)
        if mark is not None or message.value is None:
            self.watermarks += [mark] if mark is not None else []
            return []
        event = msgspec.json.decode(message.value, type=Payment)
        times = self._seen.setdefault(event.card_id, [])
        for _ in range(2 if event.payment_id in self.double else 1):
            times.append(event.at_ms)
        count = sum(event.at_ms - HOUR_MS < t <= event.at_ms for t in times)
        hour = float(event.at_ms // HOUR_MS % 24)
        row = {"values": [hour, count], "source": _source(message), "event_id": event.payment_id}
        return [(self._topics.features, msgspec.json.encode(row))]

    def _inference(self, message: Message) -> list[tuple[str, bytes]]:
        row = msgspec.json.decode(message.value or b"")
        if row["event_id"] in self.lose:
            return []
        value = {"prediction_id": f"{row['event_id']}:champion", "event_id": row["event_id"], "source": row["source"]}
        times = 2 if row["event_id"] in self.double else 1
        return [(self._topics.predictions, msgspec.json.encode(value))] * times


@pytest.fixture
def world(settings: Settings) -> Iterator[World]:
    world = World(settings, f"uc{time.time_ns()}")
    yield world
    for service in world.services.values():
        service.stopping.set()
    for service in world.services.values():
        if service.is_alive():
            service.join(10)


@pytest.mark.parametrize("until_ms", [None, BEGIN_MS + 10**13], ids=["to the end", "until long after the end"])
def test_a_replay_is_digested_slice_by_slice_and_audits_clean(world: World, until_ms: int | None) -> None:
    for service in world.services.values():
        service.start()
    replay = Replay(world.settings, world.use_case, *world.recordings(300), stall_s=30)
    slices: list[int] = []
    done = replay.play(HOUR_MS, until_ms=until_ms, on_progress=lambda now: slices.append(now.stream_ms))
    replay.close()
    assert (300, 1) == (done.events, done.outcomes)
    assert [BEGIN_MS + hour * HOUR_MS for hour in range(1, 6)] == slices
    # One per partition at the beginning and after each slice, and never out of order: nothing of a slice was sent before the last was digested.
    assert sorted([BEGIN_MS, *slices] * 2) == world.watermarks
    report = audit(world.settings, world.use_case)
    assert [] == report.findings
    assert (300, 300, 300) == (report.events, report.predictions, report.windows_recounted)


def test_every_topic_of_outcomes_is_played_in_the_order_of_time(world: World) -> None:
    for service in world.services.values():
        service.start()
    [_, refunds] = world.use_case.outcome_topics
    paid_ms = [BEGIN_MS + minutes * 60_000 for minutes in (150, 10, 59, 60, 200)]
    names = [f"p{at}" for at in range(5)]
    table = pa.table({"payment_id": names, "refunded": [True] * 5, "paid_at_ms": paid_ms})
    replay = Replay(world.settings, world.use_case, *world.recordings(60), to_recording(table, refunds), stall_s=30)
    done = replay.play(HOUR_MS)
    replay.close()
    assert (60, 6) == (done.events, done.outcomes)
    begun_ms: dict[int, int] = {}
    found = []
    for message in read_topic(world.settings, refunds.name):
        mark = watermark_of(message.value, message.headers)
        if mark is not None:
            begun_ms[message.partition] = mark
            continue
        refund = msgspec.json.decode(message.value or b"", type=Refund)
        found.append(refund.payment_id)
        assert begun_ms[message.partition] <= refund.paid_at_ms < begun_ms[message.partition] + HOUR_MS
    assert sorted(found) == names
    assert set(begun_ms.values()) == {BEGIN_MS + 4 * HOUR_MS}


def test_the_audit_names_lost_and_doubled_events_and_windows(world: World) -> None:
    world.lose, world.double = {"p5"}, {"p9"}
    for service in world.services.values():
        service.start()
    replay = Replay(world.settings, world.use_case, *world.recordings(60), stall_s=30)
    replay.play(HOUR_MS)
    replay.close()
    found = {finding.check: finding for finding in audit(world.settings, world.use_case).findings}
    assert 1 == found["events without prediction or dead letter"].count
    assert 1 == found["events with more than one prediction or dead letter"].count
    # p9 itself and the payments of its card within the hour after it.
    windows = next(finding for check, finding in found.items() if check.startswith("windows of"))
    assert 8 == windows.count


def test_a_service_that_stands_still_is_named(world: World) -> None:
    for name, service in world.services.items():
        if name != "inference":
            service.start()
    replay = Replay(world.settings, world.use_case, *world.recordings(60), stall_s=1.5)
    with pytest.raises(NotSettled, match=r"inference is at 0 of \d+ in .*features"):
        replay.play(HOUR_MS)
    replay.close()


def test_a_timed_replay_sends_everything_and_no_watermarks(world: World) -> None:
    replay = Replay(world.settings, world.use_case, *world.recordings(60))
    done = replay.play_timed(HOUR_MS / 1_000 / 0.5)
    replay.close()
    assert (60, 1) == (done.events, done.outcomes)
    sent = list(read_topic(world.settings, world.use_case.requests.name))
    assert 60 == len(sent)
    assert not any(name == WATERMARK_HEADER for message in sent for name, _ in message.headers)
