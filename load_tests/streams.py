"""Topics of a run: made, filled before it, and timed by the broker's clock behind it."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import msgspec
import numpy as np
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import NewTopic
from numpy.typing import NDArray

from tailrace.backends.kafka import admin, consumer, end_offsets, producer
from tailrace.backends.settings import Settings
from tailrace.contracts.records import Source
from tailrace.contracts.topics import READERS
from tailrace.errors import BrokerUnavailable

Keyed = tuple[bytes, bytes, int]
"""Key, value and partition of a record."""
PARTITIONS = 4
WARM_UP = 0.1
"""Share of the outputs that is not counted: connecting, first compilation, first fetches."""
LEADERS_S = 30.0
"""Longest wait for the partitions of a new topic to have leaders, seconds."""


def fresh(stem: str) -> str:
    """A name that was never used before."""
    return f"{stem}.{uuid.uuid4().hex[:8]}"


def create(settings: Settings, names: Sequence[str], *, partitions: int = PARTITIONS) -> None:
    """Makes topics whose records the broker stamps with the time at which it got them."""
    config = {"message.timestamp.type": "LogAppendTime"}
    wanted = [NewTopic(name, partitions, 1, config=config) for name in names]
    client = admin(settings)  # held: the answers die with it
    for done in client.create_topics(wanted, operation_timeout=30).values():
        done.result(30)
    deadline = time.monotonic() + LEADERS_S
    for name in names:
        while True:
            try:
                end_offsets(client, name, list(range(partitions)))
                break
            except BrokerUnavailable:  # made, and without a leader yet
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)


@contextmanager
def made(settings: Settings, names: Sequence[str]) -> Iterator[None]:
    """Topics as `create` makes them, for the length of the block: the next run finds the disk as this one did."""
    create(settings, names)
    try:
        yield
    finally:
        delete(settings, names)


def delete(settings: Settings, names: Sequence[str]) -> None:
    """Deletes topics."""
    client = admin(settings)
    for done in client.delete_topics(list(names), operation_timeout=30).values() if names else ():
        done.result(30)


def filled(settings: Settings, name: str, records: Callable[[], Iterable[Keyed]]) -> str:
    """Gives the name back once there is such a topic with these records; filled when first asked for."""
    if name not in admin(settings).list_topics(timeout=10).topics:
        create(settings, [name])
        fill(settings, name, records())
    return name


def fill(
    settings: Settings,
    topic: str,
    records: Iterable[tuple[bytes, bytes | None, int]],
    *,
    headers: list[tuple[str, bytes]] | None = None,
) -> None:
    """Writes records (key, value, partition), acknowledged when this returns; without a value, headers alone."""
    writer = producer(settings, **{"linger.ms": 50})
    _write(writer, topic, records, headers)
    left = writer.flush(60)
    if left:
        raise TimeoutError(f"{left} records of {topic} were not acknowledged within 60 s")


def fill_at_once(settings: Settings, topic: str, records: Iterable[Keyed]) -> None:
    """Writes records as one transaction: readers of committed records see none of them, then all together.

    So workers that are up and wait find a backlog that no producer beside them is still writing.
    """
    options = {"linger.ms": 50, "transactional.id": fresh("backlog"), "transaction.timeout.ms": 300_000}
    writer = producer(settings, **options)
    writer.init_transactions(30)
    writer.begin_transaction()
    _write(writer, topic, records, None)
    writer.commit_transaction(120)


def _write(
    writer: Producer,
    topic: str,
    records: Iterable[tuple[bytes, bytes | None, int]],
    headers: list[tuple[str, bytes]] | None,
) -> None:
    for key, value, partition in records:
        while True:
            try:
                writer.produce(topic, value, key, partition=partition, headers=headers)
                break
            except BufferError:
                writer.poll(0.05)


def output_rate(
    settings: Settings,
    topic: str,
    events: int,
    *,
    timeout_s: float,
    alive: Callable[[], None] = lambda: None,
    each_once: bool = False,
) -> float:
    """Waits until a topic holds `events` committed records, and says how fast they came.

    Nothing is read while the candidate is at work: only end offsets are asked for, so that this costs it nothing.

    Args:
        settings: The broker.
        topic: Topic of outputs, made by `create`.
        events: Number of records to wait for.
        timeout_s: Longest wait, seconds.
        alive: Called now and then; raises when the candidate has ended before its time.
        each_once: Whether to count the sources of the records as well; see `check_each_once`.

    Returns:
        Records per second between the end of the warm-up and the last record, by the broker's clock.

    Raises:
        TimeoutError: fewer records came.
        RuntimeError: an event is there twice or not at all.
    """
    client = admin(settings)
    deadline = time.monotonic() + timeout_s
    while True:
        # Markers of transactions take up offsets too, so enough offsets may still be too few records.
        if sum(end_offsets(client, topic).values()) >= events:
            stamps, named = [], []
            for record in committed(settings, topic):
                stamps.append(record.timestamp()[1])
                if each_once:
                    named.append(source_of(record))
            if len(stamps) >= events:
                if each_once:
                    _check_each_once(named, topic, events)
                return rate_of(np.array(stamps, np.int64))
        alive()
        if time.monotonic() > deadline:
            count = len(append_times_ms(settings, topic))
            raise TimeoutError(f"{count:,} of {events:,} outputs after {timeout_s:.0f} s")
        time.sleep(0.1)


def rate_of(stamps_ms: NDArray[np.int64]) -> float:
    """Records per second behind the warm-up.

    Args:
        stamps_ms: int64 (n,), times of arrival in milliseconds, in any order.

    Raises:
        ValueError: everything came within one millisecond, so that there is no rate.
    """
    ordered = np.sort(stamps_ms)
    begin = ordered[int(WARM_UP * len(ordered))]
    took_ms = int(ordered[-1] - begin)
    if took_ms <= 0:
        raise ValueError("too few events to time: all outputs came at once")
    return float((ordered > begin).sum() * 1000 / took_ms)


def append_times_ms(settings: Settings, topic: str) -> NDArray[np.int64]:
    """Broker times of all committed records of a topic, int64 (n,), epoch milliseconds."""
    return np.array([record.timestamp()[1] for record in committed(settings, topic)], np.int64)


def check_each_once(settings: Settings, topic: str, events: int) -> None:
    """Counts the sources of all committed records.

    Raises:
        RuntimeError: an event is there twice or not at all.
    """
    _check_each_once(map(source_of, committed(settings, topic)), topic, events)


def source_of(record: Message) -> Source:
    """The event that a record names as its source."""
    return _SOURCED.decode(record.value()).source


def _check_each_once(named: Iterable[Source], topic: str, events: int) -> None:
    counts = Counter(named)
    doubled = sum(count > 1 for count in counts.values())
    if len(counts) != events or doubled:
        raise RuntimeError(f"{len(counts)} of {events} events in {topic}, {doubled} of them more than once")


class _Sourced(msgspec.Struct, gc=False):
    source: Source


_SOURCED = msgspec.json.Decoder(_Sourced)


def committed(settings: Settings, topic: str) -> Iterator[Message]:
    """All committed records of a topic."""
    ends = end_offsets(admin(settings), topic)
    reader = unsubscribed(settings)
    waiting = {number for number, end in ends.items() if end > 0}
    try:
        reader.assign([TopicPartition(topic, number, 0) for number in waiting])
        while waiting:
            for record in reader.consume(1_000, timeout=0.05):
                error = record.error()
                if error is None:
                    yield record
                elif error.code() == KafkaError._PARTITION_EOF:
                    waiting.discard(record.partition())
    finally:
        reader.close()


def unsubscribed(settings: Settings, **overrides: object) -> Consumer:
    """A reader of committed records that joins no group."""
    return consumer(settings, READERS, **({"group.protocol": "classic", "group.instance.id": ""} | overrides))


def tail(settings: Settings, topic: str, part: int, parts: int) -> Consumer:
    """A reader of every `parts`-th partition of a topic, from its end on, that hands over records as they come."""
    reader = unsubscribed(settings, **{"enable.partition.eof": False})
    ends = end_offsets(admin(settings), topic)
    reader.assign([TopicPartition(topic, number, end) for number, end in ends.items() if number % parts == part])
    return reader
