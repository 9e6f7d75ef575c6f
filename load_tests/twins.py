"""Our services with one part exchanged: `python -m load_tests.twins at_least_once|without_store <use case>`.

`at_least_once` is inference without transactions: the same loop, processor and cuts; in place of a transaction's
commit the producer is flushed and the offsets are committed after, so that a crash in between would predict
events twice. `without_store` is features that write no rows to the online store.
"""

from __future__ import annotations

import signal
import sys
from typing import Any
from unittest.mock import patch

from confluent_kafka import Consumer, Producer, TopicPartition

from tailrace.backends import kafka
from tailrace.backends.settings import Settings, load_settings
from tailrace.features.service import run
from tailrace.runtime import loop
from tailrace.runtime.service import Lifecycle, run_service
from tailrace.usecase.load import load_use_case


class PlainProducer(Producer):  # type: ignore[misc]  # the library's types are not looked at: see pyproject
    """A producer whose transactions are none."""

    reader: Consumer
    offsets: list[TopicPartition]

    def init_transactions(self, *_: Any) -> None:
        """Nothing to fence."""

    def begin_transaction(self, *_: Any) -> None:
        """Nothing to begin."""

    def abort_transaction(self, *_: Any) -> None:
        """What was produced stays."""

    def send_offsets_to_transaction(self, offsets: list[TopicPartition], *_: Any) -> None:
        """Remembers what to commit."""
        self.offsets = offsets

    def commit_transaction(self, *_: Any) -> None:
        """Makes outputs durable, then offsets."""
        self.flush()
        self.reader.commit(offsets=self.offsets, asynchronous=False)


class NoStore:
    """An online store that keeps nothing."""

    def write(self, *rows: object) -> None:
        """Drops rows."""

    def read(self, requests: object) -> list[object]:
        """Has nothing."""
        return []


def at_least_once(use_case: str) -> None:
    """Runs inference until it is asked to stop."""

    def producer(settings: Settings, **options: Any) -> Producer:
        return PlainProducer(kafka.producer_options(settings))

    def consumer(settings: Settings, group: str, **options: Any) -> Consumer:
        PlainProducer.reader = kafka.consumer(settings, group, **options)
        return PlainProducer.reader

    with patch.multiple(loop, producer=producer, consumer=consumer):
        run_service("inference", use_case, load_settings())


def without_store(use_case: str) -> None:
    """Runs features until it is asked to stop."""
    settings = load_settings()
    lifecycle = Lifecycle("features", use_case)
    signal.signal(signal.SIGTERM, lambda *_: lifecycle.stopping.set())
    run(settings, load_use_case(settings.use_cases, use_case), lifecycle, NoStore())  # type: ignore[arg-type]


if __name__ == "__main__":
    {"at_least_once": at_least_once, "without_store": without_store}[sys.argv[1]](sys.argv[2])
