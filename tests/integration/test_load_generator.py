"""The open-loop generator and the timing of outputs against a real broker, with a stand-in for the system under test."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest

from load_tests import streams
from load_tests.events import Payment
from load_tests.generator import Load, await_flow, run_load
from tailrace.backends.kafka import admin, producer
from tailrace.backends.settings import Settings
from tailrace.contracts.records import Source

pytestmark = pytest.mark.timeout(120)
RATE = 200.0


def nothing() -> None:
    """The stand-in is a thread of the test."""


@contextmanager
def answering(settings: Settings, source: str, sink: str, *, forget: str = "", repeat: str = "") -> Iterator[None]:
    """Answers each event with its identity; forgets one, answers another twice."""
    stopping = threading.Event()

    def work() -> None:
        reader = streams.tail(settings, source, 0, 1)
        writer = producer(settings, **{"linger.ms": 0})
        while not stopping.is_set():
            record = reader.poll(0.05)
            if record is None or record.error() is not None:
                continue
            name = msgspec.json.decode(record.value(), type=Payment).payment_id
            for _ in range((name != forget) + (name == repeat)):
                writer.produce(sink, msgspec.json.encode({"event_id": name}), record.key(), record.partition())
            writer.poll(0)
        writer.flush(10)
        reader.close()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join(20)


@pytest.fixture
def load(settings: Settings) -> Load:
    source, sink = streams.fresh("events"), streams.fresh("answers")
    streams.create(settings, [source, sink])
    return Load(source=source, sink=sink, rate=RATE, duration_s=3.0, warm_up_s=1.0, law="constant")


def test_every_event_behind_the_warm_up_is_sent_and_measured_once(settings: Settings, load: Load) -> None:
    with answering(settings, load.source, load.sink):
        await_flow(settings, load.source, load.sink, timeout_s=30, alive=nothing)
        outcome = run_load(settings, load, alive=nothing)
    assert (400, 0, 0) == (outcome.sent, outcome.missing, outcome.twice)
    assert 400 == outcome.latencies.count == outcome.lateness.count
    assert outcome.latencies.quantile_ms(0.5) >= outcome.lateness.quantile_ms(0.0)


def test_an_event_that_is_lost_and_one_that_is_answered_twice_are_reported(settings: Settings, load: Load) -> None:
    with answering(settings, load.source, load.sink, forget="500", repeat="550"):
        outcome = run_load(settings, load, alive=nothing)
    assert (400, 1, 1) == (outcome.sent, outcome.missing, outcome.twice)


def test_a_system_that_ends_stops_the_load(settings: Settings, load: Load) -> None:
    def ended() -> None:
        raise RuntimeError("it ended")

    with pytest.raises(RuntimeError, match="it ended"):
        run_load(settings, load, alive=ended)


def test_outputs_are_counted_and_timed_by_the_broker(settings: Settings) -> None:
    sink = streams.fresh("outputs")
    streams.create(settings, [sink])
    for part in range(2):
        # Two writings, each acknowledged: their times differ.
        streams.fill(settings, sink, [(b"k", b"v", place % streams.PARTITIONS) for place in range(500)])
        assert 500 * (part + 1) == len(streams.append_times_ms(settings, sink))
    assert streams.output_rate(settings, sink, 1_000, timeout_s=10) > 0
    with pytest.raises(TimeoutError, match="1,000 of 1,001 outputs"):
        streams.output_rate(settings, sink, 1_001, timeout_s=0)


def test_a_topic_is_filled_once_and_gone_behind_its_block(settings: Settings) -> None:
    name = streams.fresh("filled")
    with streams.made(settings, [name]):
        assert name == streams.filled(settings, name, lambda: pytest.fail("filled again"))
    assert name not in admin(settings).list_topics(timeout=10).topics
    streams.filled(settings, name, lambda: [(b"k", b"v", 0)])
    assert 1 == len(list(streams.committed(settings, name)))


@pytest.mark.parametrize(("offsets", "told"), [([0, 1, 1], "1 of them more than once"), ([0], "1 of 2 events")])
def test_an_event_predicted_twice_or_never_is_found(settings: Settings, offsets: list[int], told: str) -> None:
    name = streams.fresh("predicted")
    records = [(b"k", msgspec.json.encode({"source": Source("events", 0, offset)}), 0) for offset in offsets]
    streams.filled(settings, name, lambda: records)
    with pytest.raises(RuntimeError, match=told):
        streams.check_each_once(settings, name, 2)


def test_a_backlog_filled_at_once_is_there_whole_or_not_at_all(settings: Settings) -> None:
    topic, seen = streams.fresh("backlog"), []
    streams.create(settings, [topic])

    def records() -> Iterator[streams.Keyed]:
        for number in range(2_000):
            if number % 500 == 499:
                seen.append(sum(1 for _ in streams.committed(settings, topic)))
            yield b"k", b"%d" % number, number % streams.PARTITIONS

    streams.fill_at_once(settings, topic, records())
    found = sorted(int(record.value()) for record in streams.committed(settings, topic))
    assert ([0] * 4, list(range(2_000))) == (seen, found)
