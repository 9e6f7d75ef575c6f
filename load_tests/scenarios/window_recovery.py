"""Window state read back from the changelog, in keys per second.

100,000 keys with four payments each are written to the changelog of a use case as the features service
does; then a new processor takes over all partitions. `records_only` reads the same topic and keeps the
newest record of each key, which is the least any recovery has to do. `EVENTS` are payments.
"""

from __future__ import annotations

import time

import msgspec

from load_tests import streams, workload
from load_tests.bench import Bench, Candidate
from load_tests.events import START_MS, Payment
from load_tests.streams import PARTITIONS
from tailrace.backends.kafka import read_topic
from tailrace.backends.settings import Settings
from tailrace.contracts.topics import Topics
from tailrace.features.processor import FeatureProcessor
from tailrace.features.runs import Run
from tailrace.usecase.declaration import UseCase

UNIT = "keys/s"
SHORT = False
EVENTS = 400_000
PER_KEY = 4
BATCH = 10_000
DAY_MS = 86_400_000


def tailrace(bench: Bench) -> float:
    """A processor that takes over four partitions."""
    with workload.declared(bench, fields=0) as (settings, use_case):
        changelog = _written(bench, settings, use_case)
        processor = FeatureProcessor(use_case)
        began = time.perf_counter()
        processor.assigned(_partitions(use_case), lambda _: read_topic(settings, changelog, committed_only=False))
        return bench.events / PER_KEY / (time.perf_counter() - began)


def records_only(bench: Bench) -> float:
    """The newest record of each key."""
    with workload.declared(bench, fields=0) as (settings, use_case):
        changelog = _written(bench, settings, use_case)
        began = time.perf_counter()
        newest = {message.key: message.value for message in read_topic(settings, changelog, committed_only=False)}
        return len(newest) / (time.perf_counter() - began)


def _partitions(use_case: UseCase) -> list[tuple[str, int]]:
    return [(use_case.requests.name, number) for number in range(PARTITIONS)]


def _written(bench: Bench, settings: Settings, use_case: UseCase) -> str:
    """Fills the changelog; gives its name."""
    processor = FeatureProcessor(use_case)
    processor.assigned(_partitions(use_case), lambda _: [])
    keys = bench.events // PER_KEY
    for turn in range(PER_KEY):
        for begin in range(0, keys, BATCH):
            run = _run(use_case.requests.name, turn, range(begin, min(begin + BATCH, keys)))
            processor.process([run], START_MS + 30 * DAY_MS)
    changelog = Topics(use_case.name).features_changelog
    records = (
        (r.key or b"", r.value, r.partition)
        for out in processor.changelog()
        for r in out.records
        if r.partition is not None
    )
    streams.fill(settings, changelog, records)
    return changelog


def _run(topic: str, turn: int, cards: range) -> Run:
    rows: list[tuple[int, int, bytes | None, bytes | None, list[tuple[str, bytes]]]] = []
    for card in cards:
        payment = Payment(
            payment_id=f"{card}-{turn}",
            card=f"card-{card:08d}",
            terminal="t",
            channel="web",
            amount=card / 100,
            at_ms=START_MS + turn * DAY_MS,
        )
        value = msgspec.json.encode(payment)
        rows.append((turn * 10_000_000 + card, START_MS, payment.card.encode(), value, []))
    return Run.of(topic, cards.start // BATCH % PARTITIONS, rows)


CANDIDATES: dict[str, Candidate] = {"tailrace": tailrace, "records_only": records_only}
FLOORS: dict[str, float] = {}
