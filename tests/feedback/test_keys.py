"""Requests and outcomes that do not lie together are found out before anything is joined."""

from __future__ import annotations

import zlib

import pytest

import tailrace as tr
from tailrace.backends.codec import encode
from tailrace.backends.ports import Message
from tailrace.core.partitioning import partitions_of
from tailrace.errors import ConfigError
from tailrace.feedback.keys import check_samples


class Payment(tr.Event):
    payment_id: str
    card: str
    at_ms: int


class Report(tr.Event):
    payment_id: str
    card: str
    fraud: bool
    at_ms: int


USE_CASE = tr.UseCase(
    name="payments_fraud",
    requests=tr.Topic("payments", Payment, key="card", event_time="at_ms"),
    prediction_id="payment_id",
    features=[tr.Field("at_ms")],
    label=tr.Label(
        tr.Topic("reports", Report, key="card", event_time="at_ms"), on="payment_id", value="fraud", matures_after="1d"
    ),
    model=tr.Binary(on_failure=tr.Default(0.02)),
    parallel_feedback=True,
)
PARTITIONS = 6


def payments(*, key: str = "card", crc32: bool = False) -> list[Message]:
    return [_message("payments", Payment(f"p{at}", f"c{at % 7}", at), key, crc32=crc32) for at in range(50)]


def reports(*, key: str = "card", crc32: bool = False) -> list[Message]:
    return [_message("reports", Report(f"p{at}", f"c{at % 7}", True, at), key, crc32=crc32) for at in range(50)]


def _message(topic: str, event: tr.Event, field: str, *, crc32: bool) -> Message:
    key = str(getattr(event, field)).encode()
    place = zlib.crc32(key) % PARTITIONS if crc32 else int(partitions_of([key], PARTITIONS)[0])
    return Message(topic, place, 0, 0, key, encode(event), [])


def check(requests: list[Message], outcomes: list[Message]) -> None:
    check_samples(USE_CASE, {"payments": requests, "reports": outcomes}, PARTITIONS)


@pytest.mark.parametrize("crc32", [False, True])
def test_records_keyed_as_declared_are_taken_whichever_partitioner_all_producers_have(crc32: bool) -> None:
    check(payments(crc32=crc32), reports(crc32=crc32))


def test_topics_that_are_empty_say_nothing() -> None:
    check([], [])
    check([], reports())
    check(payments(), [])


def test_outcomes_that_are_keyed_by_the_event_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"records of 'reports' are not keyed by 'card'.*key of one is b'p0'"):
        check(payments(), reports(key="payment_id"))


def test_requests_that_are_keyed_otherwise_than_declared_are_refused() -> None:
    with pytest.raises(ConfigError, match="records of 'payments' are not keyed by 'card'"):
        check(payments(key="payment_id"), reports())


def test_producers_with_different_partitioners_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"'reports' are chosen by CRC32.*'payments' by murmur2"):
        check(payments(), reports(crc32=True))


def test_a_few_records_of_a_stray_producer_stop_nobody() -> None:
    check(payments(), reports()[:40] + reports(key="payment_id")[40:])
