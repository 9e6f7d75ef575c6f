"""Partitions that are given back while records are gathered: what came of them before is another worker's by then."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import pytest
from confluent_kafka import KafkaError, Message, TopicPartition

from tailrace.backends import ports
from tailrace.backends.ports import Assigned, Output
from tailrace.backends.settings import Settings
from tailrace.errors import BrokerUnavailable
from tailrace.runtime import loop
from tailrace.runtime.loop import run_transactional
from tailrace.runtime.service import Lifecycle

Rebalance = Callable[["FakeConsumer"], None]


def record(partition: int, offset: int) -> Message:
    return Message(topic="t", partition=partition, offset=offset, value=str(offset).encode())


class FakeConsumer:
    """What librdkafka does in `consume`: it calls back between records, and purges what it has of a partition given
    back only once a barrier behind that has reached it; what `poll` returned before is out of its hands.
    """

    def __init__(self, steps: Sequence[Message | Rebalance]) -> None:
        self.steps = list(steps)

    def subscribe(self, topics: list[str], *, on_assign: Any, on_revoke: Any, on_lost: Any) -> None:
        self.on_assign, self.on_revoke = on_assign, on_revoke

    def poll(self, timeout: float) -> Message | None:
        while self.steps:
            step = self.steps.pop(0)
            if isinstance(step, Message):
                return step
            step(self)
        return None

    def consume(self, count: int, timeout: float) -> list[Message]:
        records = []
        while self.steps:
            step = self.steps.pop(0)
            if isinstance(step, Message):
                records.append(step)
            else:
                step(self)
        return records

    def committed(self, partitions: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        return [TopicPartition(at.topic, at.partition, 0) for at in partitions]

    def get_watermark_offsets(self, at: TopicPartition, timeout: float) -> tuple[int, int]:
        return 0, 10

    def consumer_group_metadata(self) -> object:
        return object()

    def close(self) -> None:
        pass


class FakeProducer:
    """Keeps what was committed."""

    def __init__(self) -> None:
        self.offsets: list[tuple[int, int]] = []

    def send_offsets_to_transaction(self, offsets: list[TopicPartition], group: object, timeout: float) -> None:
        self.offsets += [(at.partition, at.offset) for at in offsets]

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


class Seen:
    """Remembers what it was given, and ends the loop when nothing more comes."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        self.lifecycle = lifecycle
        self.given: list[tuple[int, int]] = []

    def assigned(self, partitions: Sequence[Assigned]) -> None:
        pass

    def revoked(self, partitions: Sequence[tuple[str, int]]) -> None:
        pass

    def process(self, batch: Sequence[ports.Message], now_ms: int) -> list[Output]:
        self.given += [(message.partition, message.offset) for message in batch]
        if not batch:
            self.lifecycle.stopping.set()
        return []

    def ended(self, partitions: Collection[tuple[str, int]]) -> None:
        pass

    def metadata(self, topic: str, partition: int) -> str:
        return ""

    def unsettled(self) -> bool:
        return False


def given(*partitions: int) -> Rebalance:
    return lambda client: client.on_assign(client, [TopicPartition("t", number) for number in partitions])


def given_back(*partitions: int) -> Rebalance:
    return lambda client: client.on_revoke(client, [TopicPartition("t", number) for number in partitions])


def run(monkeypatch: pytest.MonkeyPatch, *sessions: Sequence[Message | Rebalance]) -> tuple[Seen, FakeProducer]:
    """Runs the loop, a session for each list of steps."""
    writer, consumers = FakeProducer(), iter([FakeConsumer(steps) for steps in sessions])
    monkeypatch.setattr(loop, "producer", lambda settings, **options: writer)
    monkeypatch.setattr(loop, "consumer", lambda settings, group, **options: next(consumers))
    lifecycle = Lifecycle("copy", "test")
    seen = Seen(lifecycle)
    run_transactional(Settings(), "g", ["t"], "id", seen, lifecycle, cut_ms=0)
    return seen, writer


def test_records_of_a_partition_that_is_given_back_while_more_are_gathered_are_left_to_its_new_owner(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps = [given(0, 1), record(0, 5), record(1, 7), record(0, 6), given_back(0), record(1, 8)]
    seen, writer = run(monkeypatch, steps)
    assert [(1, 7), (1, 8)] == seen.given
    assert (1, 9) in writer.offsets
    assert {1} == {partition for partition, offset in writer.offsets if offset > 0}


def test_an_end_of_a_partition_that_is_given_back_is_not_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    end = Message(topic="t", partition=0, offset=6, error=KafkaError(KafkaError._PARTITION_EOF))
    seen, writer = run(monkeypatch, [given(0, 1), end, given_back(0), record(1, 7)])
    assert [(1, 7)] == seen.given
    assert {1} == {partition for partition, offset in writer.offsets if offset > 0}


def test_a_partition_that_comes_back_at_once_is_read_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [given(0), record(0, 5), given_back(0), given(0), record(0, 5), record(0, 6)]
    told: list[str] = []
    monkeypatch.setattr(Lifecycle, "ready", lambda self, is_ready, reason="": told.append(reason))
    seen, _ = run(monkeypatch, steps, [given(0), record(0, 5), record(0, 6)])
    assert [(0, 5), (0, 6)] == seen.given
    assert [str(BrokerUnavailable("partitions went and came back at once; starting over from what is committed"))] == [
        reason for reason in told if reason
    ]


def test_a_partition_given_back_before_is_read_when_it_is_given_again(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [given(0), given_back(0), given(0), record(0, 5), record(0, 6)]
    assert [(0, 5), (0, 6)] == run(monkeypatch, steps)[0].given
