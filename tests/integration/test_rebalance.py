"""A worker that gives a partition back while it gathers records: each record is still copied once, by whoever owns it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import pytest
from confluent_kafka import Consumer, Message
from confluent_kafka.admin import NewTopic

from tailrace.backends import ports
from tailrace.backends.kafka import admin, consumer, producer, read_topic
from tailrace.backends.ports import Assigned, Output
from tailrace.backends.settings import Settings
from tailrace.runtime import loop
from tailrace.runtime.loop import run_transactional
from tailrace.runtime.service import Lifecycle

COUNT, PARTITIONS = 300, 2
DEADLINE_S = 60.0


class Echo:
    """Copies every record, whichever partition it is of."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.owns = threading.Event()
        self.copied = 0

    def assigned(self, partitions: Sequence[Assigned]) -> None:
        if partitions:
            self.owns.set()

    def revoked(self, partitions: Sequence[tuple[str, int]]) -> None:
        pass

    def process(self, batch: Sequence[ports.Message], now_ms: int) -> list[Output]:
        self.copied += len(batch)
        return [Output(self.target, message.key, message.value, message.partition) for message in batch]

    def ended(self, partitions: Collection[tuple[str, int]]) -> None:
        pass

    def metadata(self, topic: str, partition: int) -> str:
        return ""

    def unsettled(self) -> bool:
        return False


class Slow:
    """A real consumer whose first gathering of records lasts until another worker owns one of its partitions.

    Records that came before are kept, as they are where `consume` returns before the client's own purge.
    """

    def __init__(self, client: Consumer, begun: threading.Event, until: threading.Event) -> None:
        self._client, self._begun, self._until = client, begun, until

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def consume(self, count: int, timeout: float) -> list[Message]:
        found: list[Message] = []
        self._begun.set()
        deadline = time.monotonic() + DEADLINE_S
        while not self._until.is_set() and time.monotonic() < deadline:
            found += self._client.consume(count, timeout=0.1)
        return found + self._client.consume(count, timeout=timeout)


def written(settings: Settings, topics: Sequence[str]) -> None:
    client = admin(settings)  # its futures die with it
    for future in client.create_topics([NewTopic(name, PARTITIONS, 1) for name in topics]).values():
        future.result(30)
    writer = producer(settings)
    for number in range(COUNT):
        writer.produce(topics[0], str(number), partition=number % PARTITIONS)
    assert writer.flush(30) == 0


def test_records_gathered_before_a_partition_is_given_back_are_copied_by_its_new_owner_alone(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = "given-back.source", "given-back.target"
    written(settings, (source, target))
    begun = threading.Event()
    copies = [Echo(target), Echo(target)]
    made: list[Any] = []

    def first_is_slow(settings: Settings, group: str, **options: Any) -> Any:
        client = consumer(settings, group, **options)
        made.append(client if made else Slow(client, begun, copies[1].owns))
        return made[-1]

    monkeypatch.setattr(loop, "consumer", first_is_slow)
    lifecycles = [Lifecycle("copy", "test") for _ in range(2)]

    def work(number: int) -> None:
        own, name = settings.model_copy(update={"instance": f"worker-{number}"}), f"{source}.copy.{number}"
        run_transactional(own, f"{source}.copy", [source], name, copies[number], lifecycles[number])

    workers = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    workers[0].start()
    assert begun.wait(DEADLINE_S)
    workers[1].start()
    deadline = time.monotonic() + DEADLINE_S
    while not (copies[1].copied and len(list(read_topic(settings, target))) >= COUNT) and time.monotonic() < deadline:
        lifecycles[0].stopping.wait(0.2)
    for lifecycle, worker in zip(lifecycles, workers, strict=True):
        lifecycle.stopping.set()
        worker.join()
    copied = Counter(int(message.value or b"-1") for message in read_topic(settings, target))
    assert Counter(range(COUNT)) == copied
