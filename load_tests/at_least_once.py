"""The inference service as it would be without transactions; `python -m load_tests.at_least_once <use case>`.

The same loop, processor and cuts; in place of a transaction's commit the producer is flushed and the offsets are
committed after. A crash in between would predict events twice.
"""

from __future__ import annotations

import sys
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition

from tailrace.backends import kafka
from tailrace.backends.settings import Settings, load_settings
from tailrace.runtime import loop
from tailrace.runtime.service import run_service


class PlainProducer(Producer):
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


def main(use_case: str) -> None:
    """Runs the service until it is asked to stop."""
    made = loop.consumer

    def producer(settings: Settings, **options: Any) -> Producer:
        return PlainProducer(kafka.producer_options(settings))

    def consumer(settings: Settings, group: str, **options: Any) -> Consumer:
        PlainProducer.reader = made(settings, group, **options)
        return PlainProducer.reader

    loop.producer = producer
    loop.consumer = consumer
    run_service("inference", use_case, load_settings())


if __name__ == "__main__":
    main(sys.argv[1])
