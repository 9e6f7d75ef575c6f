"""The features service on a real broker and store."""

from __future__ import annotations

import functools
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
from confluent_kafka.admin import AdminClient, NewTopic

import tailrace.usecase.features as f
from tailrace.backends.feature_store import RedisOnlineStore
from tailrace.backends.kafka import admin, committed_offsets, end_offsets, producer, read_topic
from tailrace.backends.ports import Message, ReadRequest
from tailrace.backends.settings import Settings
from tailrace.contracts.records import DEAD_LETTER_HEADER, WATERMARK_HEADER, FeatureRow, LabelledPrediction
from tailrace.contracts.topics import Topics
from tailrace.features import service
from tailrace.features.service import run
from tailrace.features.shell import Shell
from tailrace.runtime.service import Lifecycle
from tailrace.usecase.declaration import UseCase
from tailrace.usecase.policies import Binary
from tailrace.usecase.sources import Event, Label, Topic

DAY = 86_400_000
T0 = 17_000 * DAY
pytestmark = pytest.mark.timeout(120)


class Payment(Event, frozen=True):
    payment_id: int
    card: str
    terminal: str
    amount: float
    at_ms: int


class Outcome(Event, frozen=True):
    payment_id: int
    fraud: bool
    at_ms: int


def declare(name: str) -> UseCase:
    payments = Topic(f"{name}.payments", Payment, key="card", event_time="at_ms")
    outcomes = Topic(f"{name}.outcomes", Outcome, key="payment_id", event_time="at_ms")
    label = Label(outcomes, on="payment_id", value="fraud", matures_after="7d")
    return UseCase(
        name=name,
        requests=payments,
        prediction_id="payment_id",
        features=[
            f.Field("amount"),
            *f.GroupBy(payments, by="card", windows=["30d"]).aggregate(f.Count(), f.Sum("amount")),
            *f.GroupBy(label, by="terminal", windows=["30d"]).aggregate(f.Count(), f.Mean("fraud")),
        ],
        label=label,
        model=Binary(train="pay.train:fit"),
    )


@pytest.fixture
def use_case(settings: Settings) -> UseCase:
    """A use case with topics of its own, two partitions each."""
    made = declare(f"u{uuid.uuid4().hex[:8]}")
    topics = Topics(made.name)
    names = [made.requests.name, topics.labels, topics.features, topics.features_changelog]
    client = client_of(settings.kafka_bootstrap)
    for done in client.create_topics([NewTopic(name, 2, 1) for name in names]).values():
        done.result()
    return made


@contextmanager
def running(settings: Settings, use_case: UseCase) -> Iterator[None]:
    lifecycle = Lifecycle("features", use_case.name)
    failures: list[BaseException] = []

    def target() -> None:
        try:
            run(settings, use_case, lifecycle)
        except BaseException as error:  # noqa: BLE001  # raised again below
            failures.append(error)

    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    try:
        # Asked for a group that no coordinator has yet, confluent-kafka's admin client can crash the process.
        eventually(lambda: lifecycle.not_ready() == "", "assignment")
        yield
    finally:
        lifecycle.stopping.set()
        thread.join(30)
    assert not thread.is_alive()
    assert not failures, failures


def eventually(check: Callable[[], bool], what: str, limit_s: float = 15) -> None:
    deadline = time.monotonic() + limit_s
    while not check():
        assert time.monotonic() < deadline, f"not within {limit_s} s: {what}"
        time.sleep(0.1)


@functools.cache
def client_of(bootstrap: str) -> AdminClient:
    # One for all: a client that is destroyed right after a failed answer takes the process with it.
    return admin(Settings(kafka_bootstrap=bootstrap))


def drained(settings: Settings, use_case: UseCase) -> bool:
    client = client_of(settings.kafka_bootstrap)
    topics = Topics(use_case.name)
    for topic in (use_case.requests.name, topics.labels):
        found = committed_offsets(settings, topics.group("features"), topic)
        if any(found.get(number, (0, ""))[0] != end for number, end in end_offsets(client, topic).items()):
            return False
    return True


def send_payments(settings: Settings, use_case: UseCase, begin: int, end: int) -> None:
    client = producer(settings)
    for at in range(begin, end):
        value = msgspec.json.encode(
            Payment(payment_id=at, card=f"c{at % 10}", terminal=f"t{at % 3}", amount=1.0, at_ms=T0 + at)
        )
        client.produce(use_case.requests.name, value, f"c{at % 10}")
    client.flush()


def send_labels(settings: Settings, use_case: UseCase, count: int) -> None:
    client = producer(settings, **{"transactional.id": use_case.name})
    client.init_transactions()
    client.begin_transaction()
    for at in range(count):
        record = LabelledPrediction(
            prediction_id=f"{at}:champion", event_id=str(at), use_case=use_case.name, label_name="fraud",
            label_version=1, label=float(at % 2), status="final", reason="outcome", event_time_ms=T0,
            known_at_ms=T0 + at, outcome_time_ms=T0 + at, variant="champion", model_version="1", score=0.5,
            decision=False, key="c", entities={"terminal": f"t{at % 3}"}, slices={},
        )  # fmt: skip
        client.produce(Topics(use_case.name).labels, msgspec.json.encode(record), record.prediction_id)
    client.commit_transaction()


def features(settings: Settings, use_case: UseCase) -> list[Message]:
    return list(read_topic(settings, Topics(use_case.name).features))


def test_events_and_labels_flow_and_the_group_ends_without_lag(settings: Settings, use_case: UseCase) -> None:
    send_payments(settings, use_case, 0, 500)
    extra = producer(settings)
    extra.produce(use_case.requests.name, b"{broken", "c0", partition=0)
    extra.produce(use_case.requests.name, None, None, partition=1, headers=[(WATERMARK_HEADER, b"123")])
    extra.flush()
    send_labels(settings, use_case, 300)
    with running(settings, use_case):
        eventually(lambda: drained(settings, use_case), "lag 0")
    out = features(settings, use_case)
    rows = [
        msgspec.json.decode(m.value, type=FeatureRow)
        for m in out
        if m.value is not None and DEAD_LETTER_HEADER not in dict(m.headers)
    ]
    assert 500 == len({row.event_id for row in rows})
    assert all([1.0, int(row.event_id) // 10 + 1, int(row.event_id) // 10 + 1] == row.values for row in rows)
    good = [m.partition for m in out if m.value is not None and DEAD_LETTER_HEADER not in dict(m.headers)]
    assert good == [row.source.partition for row in rows]
    assert [b"{broken"] == [m.value for m in out if DEAD_LETTER_HEADER in dict(m.headers)]
    assert [1] == [m.partition for m in out if m.value is None]
    view = use_case.plan.online_views[0]
    names = [column.name for column in view.columns]
    stored = RedisOnlineStore(settings).read([ReadRequest(view.name, view.entity, names, ["t0", "t1"])])[0]
    assert [[100.0, 0.5], [100.0, 0.5]] == stored.values.tolist()


def test_nothing_is_kept_of_a_fetch_that_is_done(
    settings: Settings, use_case: UseCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    shells: list[Shell] = []

    class Watched(Shell):
        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named)
            shells.append(self)

    monkeypatch.setattr(service, "Shell", Watched)
    with running(settings, use_case):
        for number in range(5):
            send_payments(settings, use_case, 10 * number, 10 * number + 10)
            eventually(lambda: drained(settings, use_case), "lag 0")
        [shell] = shells
        assert shell.app is not None
        consumer: Any = shell.app.consumer
        kept = (consumer._acked, consumer._acked_index, consumer._gap)
        assert 0 == sum(len(offsets) for column in kept for offsets in column.values())
        # The stream holds the one it had last.
        assert len(consumer._unacked_messages) <= 1
