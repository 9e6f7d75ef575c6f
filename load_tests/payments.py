"""The stream of the windows scenarios: payments of 10,000 cards, and the use case with twelve windowed features."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import NewTopic

from load_tests.bench import Bench
from tailrace.backends.kafka import admin, group_reader, producer
from tailrace.backends.settings import Settings
from tailrace.contracts.topics import READERS, Topics

PARTITIONS = 4
CARDS = 10_000
SKEW = 0.8
"""Exponent of the Zipf law of the cards: the busiest of them sends 3.5 % of all payments."""
DAYS = 14
SPANS = ("10m", "1h", "1d", "7d")
RECORD_BYTES = 250
START_MS = 1_700_000_000_000
PATIENCE_S = 120.0

_USE_CASE = '''"""Payments with twelve windowed features over four spans."""

import tailrace as tr


class Payment(tr.Event):
    payment_id: str
    card: str
    merchant: str
    channel: str
    amount_eur: float
    at_ms: int


class Outcome(tr.Event):
    payment_id: str
    fraud: bool
    at_ms: int


payments = tr.Topic("{topic}", Payment, key="card", event_time="at_ms")
outcomes = tr.Topic("{name}.outcomes", Outcome, key="payment_id", event_time="at_ms")

usecase = tr.UseCase(
    name="{name}",
    requests=payments,
    prediction_id="payment_id",
    features=tr.GroupBy(payments, by="card", windows={spans}).aggregate(
        tr.Count(), tr.Sum("amount_eur"), tr.Mean("amount_eur")
    ),
    label=tr.Label(outcomes, on="payment_id", value="fraud", matures_after="7d"),
    model=tr.Binary(train="{name}.train:fit"),
)
'''


def declare(bench: Bench, topic: str) -> tuple[str, Settings]:
    """Writes a use case of a new name over an events topic, and creates its topics.

    Returns:
        Its name, and settings that find it.
    """
    name = f"windows{uuid.uuid4().hex[:8]}"
    folder = bench.directory / "use_cases" / name
    folder.mkdir(parents=True)
    (folder / "usecase.py").write_text(_USE_CASE.format(name=name, topic=topic, spans=list(SPANS)))
    topics = Topics(name)
    create(bench.settings, topics.features, topics.features_changelog, topics.heartbeats)
    update = {"use_cases": bench.directory / "use_cases", "state_dir": bench.directory / "state" / name}
    return name, bench.settings.model_copy(update=update)


def create(settings: Settings, *names: str) -> None:
    """Creates topics."""
    client = admin(settings)
    for done in client.create_topics([NewTopic(name, PARTITIONS, 1) for name in names]).values():
        done.result()


def prefilled(bench: Bench) -> str:
    """Name of the topic that holds the payments of this seed; filled when first asked for."""
    topic = f"payments.{bench.seed}.{bench.events}"
    if topic in admin(bench.settings).list_topics(timeout=10).topics:
        return topic
    create(bench.settings, topic)
    client = producer(bench.settings)
    for partition, key, value in payments(bench.seed, bench.events):
        while True:
            try:
                client.produce(topic, value, key, partition=partition)
                break
            except BufferError:
                client.poll(0.1)
    if client.flush(60):
        raise TimeoutError(f"{topic} could not be filled within 60 s")
    return topic


def payments(seed: int, events: int) -> Iterator[tuple[int, bytes, bytes]]:
    """Partition, key and value of every payment, in rising order of time but for a few seconds."""
    rng = np.random.default_rng(seed)
    weights = 1.0 / np.arange(1, CARDS + 1) ** SKEW
    cards = rng.choice(CARDS, events, p=weights / weights.sum())
    step_ms = DAYS * 86_400_000 // events
    times = START_MS + np.arange(events) * step_ms - rng.integers(0, 2 * step_ms, events)
    cents = rng.integers(100, 100_000, events)
    merchants = rng.integers(0, 2_000, events)
    pad = "x" * RECORD_BYTES
    for at in range(events):
        card = f"card-{cards[at]:05d}"
        record = {
            "payment_id": f"payment-{at:09d}",
            "card": card,
            "merchant": f"merchant-{merchants[at]:04d}",
            "channel": "web",
            "amount_eur": int(cents[at]) / 100,
            "at_ms": int(times[at]),
            "reference": "",
        }
        short = RECORD_BYTES - len(msgspec.json.encode(record))
        record["reference"] = pad[: max(short, 0)]
        yield int(cards[at]) % PARTITIONS, card.encode(), msgspec.json.encode(record)


def rate_of(settings: Settings, topic: str, events: int) -> float:
    """Events per second that arrive in an output topic, between the first tenth and the last.

    The first tenth is the warm-up: imports, membership and the loading of compiled code.
    """
    reader = group_reader(settings, READERS)
    try:
        began = _when(reader, topic, events // 10)
        ended = _when(reader, topic, events)
        return (ended[1] - began[1]) / (ended[0] - began[0])
    finally:
        reader.close()


def _when(reader: Consumer, topic: str, records: int) -> tuple[float, int]:
    """Time at which a topic was first seen to hold as many records, and how many it held."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        held = sum(_end(reader, topic, number) for number in range(PARTITIONS))
        if held >= records:
            return time.monotonic(), held
        time.sleep(0.02)
    raise TimeoutError(f"{topic} does not hold {records} records after {PATIENCE_S:.0f} s")


def _end(reader: Consumer, topic: str, partition: int) -> int:
    try:
        return int(reader.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)[1])
    except KafkaException:  # a topic that has just been created
        return 0


def environment(settings: Settings) -> dict[str, str]:
    """Variables with which a child finds the same servers."""
    return {
        "TAILRACE_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
        "TAILRACE_REDIS_URL": settings.redis_url,
        "TAILRACE_USE_CASES": str(settings.use_cases),
        "TAILRACE_STATE_DIR": str(settings.state_dir),
        "PYTHONPATH": f"{Path(__file__).parents[1] / 'services'}:{Path(__file__).parents[1]}",
    }
