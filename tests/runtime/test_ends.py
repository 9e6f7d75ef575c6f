"""Ends of partitions: told once by the client, and believed only as long as nobody can have written behind them."""

from __future__ import annotations

from typing import Any, cast

import pytest
from confluent_kafka import Consumer, KafkaException, TopicPartition

from tailrace.runtime import ends
from tailrace.runtime.ends import CHECK_S, Ends


class Broker:
    """Says where partitions end, and how often it was asked."""

    def __init__(self) -> None:
        self.end: int | None = 5
        self.asked = 0

    def get_watermark_offsets(self, at: TopicPartition, timeout: float) -> tuple[int, int]:
        self.asked += 1
        if self.end is None:
            raise KafkaException("away")
        return 0, self.end


@pytest.fixture
def now_s(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(ends.time, "monotonic", lambda: now[0])
    return now


AT, OTHER = ("t", 0), ("t", 1)


def reached(broker: Broker) -> Ends:
    made = Ends(cast(Consumer, cast(Any, broker)))
    made.reached(*AT, 5)
    made.reached(*OTHER, 5)
    return made


def test_partition_is_at_its_end_until_its_position_moves_on_or_it_is_forgotten(now_s: list[float]) -> None:
    broker = Broker()
    made = reached(broker)
    assert made.current({AT: 5, OTHER: 5}) == [AT, OTHER]
    assert made.current({AT: 6, OTHER: 5}) == [OTHER]
    assert made.current({AT: 5, OTHER: 5}) == [OTHER]
    made.forget(*OTHER)
    assert made.current({AT: 5, OTHER: 5}) == []
    assert broker.asked == 0


def test_end_behind_which_records_wait_is_told_no_more(now_s: list[float]) -> None:
    broker = Broker()
    made = reached(broker)
    now_s[0] = CHECK_S
    assert made.current({AT: 5, OTHER: 5}) == [AT, OTHER]
    assert made.current({AT: 5, OTHER: 5}) == [AT, OTHER]
    assert broker.asked == 2
    broker.end, now_s[0] = 6, 2 * CHECK_S
    assert made.current({AT: 5, OTHER: 5}) == []
    made.reached(*AT, 6)
    assert made.current({AT: 6, OTHER: 5}) == [AT]


def test_ends_are_not_believed_while_the_broker_does_not_answer(now_s: list[float]) -> None:
    broker = Broker()
    made = reached(broker)
    broker.end, now_s[0] = None, CHECK_S
    assert made.current({AT: 5, OTHER: 5}) == []
    assert broker.asked == 1
    broker.end, now_s[0] = 5, 2 * CHECK_S
    assert made.current({AT: 5, OTHER: 5}) == [AT, OTHER]
