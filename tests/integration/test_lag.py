"""Lag in seconds and in records, against a real broker."""

from __future__ import annotations

import time
import uuid

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import NewTopic

from tailrace.backends.kafka import admin, end_offsets, group_reader, producer
from tailrace.backends.settings import Settings
from tailrace.ops.lag import Lag, lag_of

AGE_S = 100


@pytest.fixture
def topic(settings: Settings) -> str:
    """Three records of 100 seconds ago, then three of now, on each of two partitions."""
    name = f"lag-{uuid.uuid4().hex[:8]}"
    client = admin(settings)
    for future in client.create_topics([NewTopic(name, 2, 1)]).values():
        future.result(30)
    writer = producer(settings)
    now_ms = time.time_ns() // 1_000_000
    for at_ms in [now_ms - AGE_S * 1_000] * 3 + [now_ms] * 3:
        for partition in (0, 1):
            writer.produce(name, b"x", partition=partition, timestamp=at_ms)
    assert 0 == writer.flush(30)
    return name


def measured(settings: Settings, topic: str, committed: dict[int, int]) -> Lag:
    reader = group_reader(settings, f"{topic}.group")
    try:
        if committed:
            at = [TopicPartition(topic, partition, offset) for partition, offset in committed.items()]
            reader.commit(offsets=at, asynchronous=False)
        ends = {(topic, partition): end for partition, end in end_offsets(admin(settings), topic).items()}
        return lag_of(reader, ends)
    finally:
        reader.close()


def test_a_group_at_the_end_has_no_lag(settings: Settings, topic: str) -> None:
    assert Lag(0, 0.0) == measured(settings, topic, {0: 6, 1: 6})


def test_lag_in_seconds_is_the_age_of_the_oldest_record_that_is_not_committed(settings: Settings, topic: str) -> None:
    lag = measured(settings, topic, {0: 4, 1: 2})
    assert 6 == lag.records
    assert AGE_S <= lag.seconds < AGE_S + 60
    lag = measured(settings, topic, {0: 4, 1: 3})
    assert 5 == lag.records
    assert lag.seconds < AGE_S


@pytest.mark.parametrize("committed", [{}, {0: 6}])
def test_where_a_group_has_committed_nothing_it_is_behind_by_everything(
    settings: Settings, topic: str, committed: dict[int, int]
) -> None:
    lag = measured(settings, topic, committed)
    assert 12 - sum(committed.values()) == lag.records
    assert AGE_S <= lag.seconds < AGE_S + 60


def test_markers_of_transactions_have_no_age(settings: Settings, topic: str) -> None:
    writer = producer(settings, **{"transactional.id": topic})
    writer.init_transactions(30)
    writer.begin_transaction()
    writer.produce(topic, b"x", partition=0)
    writer.commit_transaction(30)
    assert Lag(1, 0.0) == measured(settings, topic, {0: 7, 1: 6})
