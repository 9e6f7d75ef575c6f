"""Window state read back from the changelog, in keys per second.

100,000 keys with four payments each are written to the changelog of a use case as the features service
does; then a new processor takes over all partitions. `records_only` reads the same topic and keeps the
newest record of each key, which is the least any recovery has to do. `EVENTS` are payments.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from load_tests.bench import Bench
from load_tests.payments import PARTITIONS, START_MS, declare
from tailrace.backends.kafka import producer, read_topic
from tailrace.backends.settings import Settings
from tailrace.contracts.topics import Topics
from tailrace.features.processor import FeatureProcessor
from tailrace.features.runs import Run
from tailrace.usecase.declaration import UseCase
from tailrace.usecase.load import load_use_case

UNIT = "keys/s"
EVENTS = 400_000
PER_KEY = 4
DAY_MS = 86_400_000


def tailrace(bench: Bench) -> float:
    """A processor that takes over four partitions."""
    settings, use_case, changelog = _written(bench)
    processor = FeatureProcessor(use_case)
    partitions = [(use_case.requests.name, number) for number in range(PARTITIONS)]
    began = time.perf_counter()
    processor.assigned(partitions, lambda: read_topic(settings, changelog, committed_only=False))
    return bench.events / PER_KEY / (time.perf_counter() - began)


def records_only(bench: Bench) -> float:
    """The newest record of each key."""
    settings, _, changelog = _written(bench)
    began = time.perf_counter()
    newest = {message.key: message.value for message in read_topic(settings, changelog, committed_only=False)}
    return len(newest) / (time.perf_counter() - began)


def _written(bench: Bench) -> tuple[Settings, UseCase, str]:
    name, settings = declare(bench, f"recovery.{bench.seed}")
    use_case = load_use_case(settings.use_cases, name)
    processor = FeatureProcessor(use_case)
    partitions = [(use_case.requests.name, number) for number in range(PARTITIONS)]
    processor.assigned(partitions, lambda: [])
    keys = bench.events // PER_KEY
    for turn in range(PER_KEY):
        for begin in range(0, keys, 10_000):
            run = _run(use_case.requests.name, turn, range(begin, begin + 10_000))
            processor.process([run], START_MS + 30 * DAY_MS)
    client = producer(settings)
    for out in processor.changelog():
        for record in out.records:
            client.produce(record.topic, record.value, record.key, partition=record.partition)
            client.poll(0)
    if client.flush(60):
        raise TimeoutError("the changelog could not be written within 60 s")
    return settings, use_case, Topics(name).features_changelog


def _run(topic: str, turn: int, cards: range) -> Run:
    rows = []
    for card in cards:
        name = f"card-{card:08d}"
        payment = {
            "payment_id": f"{card}-{turn}",
            "card": name,
            "merchant": "m",
            "channel": "web",
            "amount_eur": card / 100,
            "at_ms": START_MS + turn * DAY_MS,
        }
        rows.append((turn * 10_000_000 + card, START_MS, name.encode(), msgspec.json.encode(payment), []))
    return Run.of(topic, cards.start // 10_000 % PARTITIONS, rows)


CANDIDATES: dict[str, Callable[[Bench], float]] = {"tailrace": tailrace, "records_only": records_only}
FLOORS: dict[str, float] = {"records_only": 0.0}
