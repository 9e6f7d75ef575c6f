"""What a fetch leads to, made durable: rows in the online store, records in Kafka."""

from __future__ import annotations

import time
from collections.abc import Iterable
from itertools import repeat

from confluent_kafka import KafkaError, Producer
from confluent_kafka import Message as Record

from tailrace.backends.kafka import producer
from tailrace.backends.ports import Headers, OnlineStore
from tailrace.backends.settings import Settings
from tailrace.errors import BrokerUnavailable, StoreUnavailable
from tailrace.features.rows import RowWrite
from tailrace.features.runs import OutputRun
from tailrace.runtime.service import Lifecycle

FLUSH_S = 30.0
MAX_BACKOFF_S = 5.0
WRITE_ROWS = 2_000
"""Rows per write to the online store, so that one write fits its time-out."""


class Delivery:
    """Writes rows and produces records, in the order of the calls. Blocks; used by one thread.

    Args:
        settings: Address of the broker.
        lifecycle: Is told when the online store is away, and says when to stop waiting for it.
        store: Where rows go.
        linger_ms: How long a record may wait for others before it is sent.
    """

    def __init__(self, settings: Settings, lifecycle: Lifecycle, store: OnlineStore, linger_ms: float) -> None:
        self._lifecycle = lifecycle
        self._store = store
        # Called back for failures alone: a call per record delivered would cost as much as to produce it.
        options = {"on_delivery": self._delivered, "delivery.report.only.error": True, "linger.ms": linger_ms}
        self._producer: Producer = producer(settings, **options)
        self._undelivered: KafkaError | None = None

    def write(self, rows: Iterable[RowWrite]) -> None:
        """Writes rows, acknowledged on return; tries again until they are.

        Raises:
            StoreUnavailable: the service was asked to stop meanwhile.
        """
        for row in rows:
            for begin in range(0, len(row.keys), WRITE_ROWS):
                self._write_part(row, slice(begin, begin + WRITE_ROWS))

    def produce(self, runs: Iterable[OutputRun]) -> None:  # hot path
        """Hands records over to the client; `flush` says whether they arrived."""
        send = self._producer.produce
        for run in runs:
            partition = -1 if run.partition is None else run.partition
            all_headers: Iterable[Headers] = run.headers or repeat([], len(run.keys))
            for key, value, headers in zip(run.keys, run.values, all_headers, strict=True):
                while True:
                    try:
                        if headers:
                            send(run.topic, value, key, partition, headers=headers)
                        else:
                            send(run.topic, value, key, partition)
                        break
                    except BufferError:
                        self._producer.poll(0.05)
            self._producer.poll(0)

    def flush(self) -> None:
        """Returns when everything produced so far is acknowledged.

        Raises:
            BrokerUnavailable: something was not; nothing of it may be committed.
        """
        began = time.perf_counter()
        left = self._producer.flush(FLUSH_S)
        if left or self._undelivered is not None:
            why = "no answer" if self._undelivered is None else self._undelivered.str()
            raise BrokerUnavailable(f"{left} records are not acknowledged ({why}); check it with `tailrace doctor`")
        self._lifecycle.metrics.commit_seconds.observe(time.perf_counter() - began)

    def _write_part(self, row: RowWrite, part: slice) -> None:
        """Writes until it is done: order and lag show the wait, nothing is skipped."""
        names = [column.name for column in row.view.columns]
        state = None if row.state is None else row.state[part]
        columns = (row.keys[part], row.values[part], row.timestamps_ms[part], state)
        wait_s = 0.05
        while not self._lifecycle.stopping.is_set():
            try:
                self._store.write(row.view.name, row.view.entity, names, *columns)
            except StoreUnavailable as error:
                self._lifecycle.metrics.store_errors.labels("write").inc()
                self._lifecycle.ready(False, str(error))
                self._lifecycle.log.warning("store_unavailable", error=str(error), retry_in_s=wait_s)
                self._lifecycle.stopping.wait(wait_s)
                wait_s = min(2 * wait_s, MAX_BACKOFF_S)
            else:
                if wait_s > 0.05:
                    self._lifecycle.ready(True)
                return
        raise StoreUnavailable("asked to stop while the online store was away; what was not committed comes again")

    def _delivered(self, error: KafkaError | None, _: Record) -> None:
        if error is not None:
            self._undelivered = error
