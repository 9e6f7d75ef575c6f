"""The features service: Faust shell around `FeatureProcessor`."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from typing import Any

import faust
from confluent_kafka import KafkaError, Producer
from confluent_kafka import Message as Record
from faust.types import TP

from tailrace.backends.feature_store import RedisOnlineStore
from tailrace.backends.kafka import MAX_MESSAGE_BYTES, admin, partitions_of, producer, read_topic
from tailrace.backends.ports import Headers, OnlineStore
from tailrace.backends.settings import Settings
from tailrace.contracts.topics import Topics
from tailrace.errors import BrokerUnavailable, StoreUnavailable
from tailrace.features.processor import FeatureProcessor, RowWrite
from tailrace.features.runs import OutputRun, Run
from tailrace.features.transport import Fetch, FetchApp, FetchConsumer
from tailrace.runtime.service import Lifecycle
from tailrace.usecase.declaration import UseCase

MAX_FETCH = 4_000
COMMIT_EVERY_S = 1.0
"""Under load: a key's state is written once per commit, so rarer commits mean less changelog and longer replays."""
COMMIT_IDLE_S = 0.1
FLUSH_S = 30.0
MAX_BACKOFF_S = 5.0
WRITE_ROWS = 2_000
"""Rows per write to the online store, so that one write fits its time-out."""


def run(settings: Settings, use_case: UseCase, lifecycle: Lifecycle, store: OnlineStore | None = None) -> None:
    """Computes features until the service is asked to stop.

    How a fetch becomes durable (at least once, state exactly once):
      1. records are decoded and windows updated, in order within each partition;
      2. rows are written to the online store, acknowledged, tried again until they are;
      3. FEATURES records are produced to the partition of their event;
      4. at a commit, the state of every changed key is produced to the changelog, once;
      5. everything produced is flushed and acknowledged;
      6. offsets are committed, transaction markers included.
    A crash before 6 brings the same records again: state that already holds an offset does not change,
    and the FEATURES records come out as before; inference drops them by their source offset.

    Args:
        settings: Places and sizes.
        use_case: What is computed.
        lifecycle: What the process is told, and tells.
        store: Where rows are written; None: the online store of the settings.

    Raises:
        Fatal: going on would break a guarantee.
    """
    asyncio.run(_serve(settings, use_case, lifecycle, store or RedisOnlineStore(settings)))


async def _serve(settings: Settings, use_case: UseCase, lifecycle: Lifecycle, store: OnlineStore) -> None:
    shell = Shell(settings, use_case, lifecycle, store)
    client = admin(settings)
    for topic in shell.processor.subscriptions:
        # Faust would wait for a topic that it may not see, and not end when asked to.
        partitions_of(client, topic)
    app = _app(settings, use_case, shell)
    await app.start()
    try:
        while not lifecycle.stopping.is_set() and shell.failure is None and not app.should_stop:
            await asyncio.sleep(0.05)
    finally:
        await shell.checkpoint()
        await app.stop()
        shell.close()
    if shell.failure is not None:
        raise shell.failure
    if not lifecycle.stopping.is_set():
        raise BrokerUnavailable("Faust has stopped by itself; its log says why, and the service starts anew")


class Shell:
    """Moves bytes between Faust, the processor, the online store and Kafka.

    All blocking work runs on one thread of its own, in order; Faust's event loop stays free.
    """

    def __init__(self, settings: Settings, use_case: UseCase, lifecycle: Lifecycle, store: OnlineStore) -> None:
        self.failure: BaseException | None = None
        self.app: FetchApp | None = None
        self.processor = FeatureProcessor(use_case)
        self._settings = settings
        self._topics = Topics(use_case.name)
        self._lifecycle = lifecycle
        self._store = store
        # Called back for failures alone: a call per record delivered would cost as much as to produce it.
        options = {"on_delivery": self._delivered, "delivery.report.only.error": True}
        self._producer: Producer = producer(settings, **options)
        self._undelivered: KafkaError | None = None
        self._worker = ThreadPoolExecutor(1, "features")
        self._committed: dict[TP, int] = {}
        self._committed_at = 0.0
        self._processed_at = 0.0

    async def take(self, fetch: Fetch) -> None:
        """Processes a fetch; a failure ends the service."""
        try:
            await self._blocking(lambda: self._process(fetch.runs))
        finally:
            fetch.done.set()

    async def idle(self) -> None:
        """Commits when it is due."""
        now = time.monotonic()
        quiet = now - self._processed_at > COMMIT_IDLE_S
        if now - self._committed_at > (COMMIT_IDLE_S if quiet else COMMIT_EVERY_S):
            await self.checkpoint()

    async def assigned(self, partitions: set[TP]) -> None:
        """Restores the state of partitions from the changelog."""
        self._committed = {}
        await self._blocking(lambda: self._restore([(at.topic, at.partition) for at in partitions]))
        self._lifecycle.ready(True)
        self._lifecycle.log.info("partitions_assigned", partitions=len(partitions))

    async def revoked(self, partitions: set[TP]) -> None:
        """Checkpoints, then forgets partitions."""
        await self.checkpoint()
        await self._blocking(lambda: self.processor.revoked([(at.topic, at.partition) for at in partitions]))

    async def checkpoint(self) -> None:
        """Steps 4 to 6 of `run`."""
        consumer = self._consumer()
        if consumer is None or self.failure is not None:
            return
        offsets = {at: offset for at, offset in consumer.positions().items() if self._committed.get(at) != offset}
        self._committed_at = time.monotonic()
        if not offsets:
            return
        await self._blocking(self._flush)
        if self.failure is None and await consumer.commit_offsets(offsets):
            self._committed |= offsets

    def close(self) -> None:
        """Ends the worker thread."""
        self._worker.shutdown()

    def _consumer(self) -> FetchConsumer | None:
        found = None if self.app is None else self.app.consumer
        return found if isinstance(found, FetchConsumer) and found._thread._consumer is not None else None

    async def _blocking(self, work: Callable[[], None]) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(self._worker, work)
        except Exception as error:  # noqa: BLE001  # crosses threads: `run` raises it
            self.failure = self.failure or error

    def _restore(self, partitions: Sequence[tuple[str, int]]) -> None:
        changelog = self._topics.features_changelog
        self.processor.assigned(partitions, lambda: read_topic(self._settings, changelog, committed_only=False))
        self._write(self.processor.label_rows())

    def _process(self, runs: list[Run]) -> None:
        if self.failure is not None:
            return
        began = time.perf_counter()
        step = self.processor.process(runs, time.time_ns() // 1_000_000)
        self._write(step.rows)
        self._produce(step.outputs)
        metrics = self._lifecycle.metrics
        for run in runs:
            metrics.records.labels(run.topic).inc(len(run.offsets))
        for reason, count in Counter(step.bad).items():
            metrics.dead_letters.labels(reason).inc(count)
        metrics.events.inc(step.events)
        metrics.duplicates.labels(runs[0].topic).inc(step.duplicates)
        metrics.produced.labels(self._topics.features).inc(sum(len(run.keys) for run in step.outputs))
        metrics.batch_seconds.observe(time.perf_counter() - began)
        self._processed_at = time.monotonic()

    def _write(self, rows: Iterable[RowWrite]) -> None:
        for row in rows:
            for begin in range(0, len(row.keys), WRITE_ROWS):
                self._write_part(row, slice(begin, begin + WRITE_ROWS))

    def _write_part(self, row: RowWrite, part: slice) -> None:
        """Writes until it is done: order and lag show the wait, nothing is skipped."""
        names = [column.name for column in row.view.columns]
        state = None if row.state is None else row.state[part]
        wait_s = 0.05
        while not self._lifecycle.stopping.is_set():
            try:
                self._store.write(
                    row.view.name,
                    row.view.entity,
                    names,
                    row.keys[part],
                    row.values[part],
                    row.timestamps_ms[part],
                    state,
                )
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

    def _produce(self, runs: Iterable[OutputRun]) -> None:  # hot path
        for run in runs:
            none: Iterable[Headers] = repeat([])
            partition = -1 if run.partition is None else run.partition
            for key, value, headers in zip(run.keys, run.values, run.headers or none, strict=False):
                while True:
                    try:
                        if headers:
                            self._producer.produce(run.topic, value, key, partition, headers=headers)
                        else:
                            self._producer.produce(run.topic, value, key, partition)
                        break
                    except BufferError:
                        self._producer.poll(0.05)
            self._producer.poll(0)

    def _delivered(self, error: KafkaError | None, _: Record) -> None:
        if error is not None:
            self._undelivered = error

    def _flush(self) -> None:
        began = time.perf_counter()
        self._produce(self.processor.changelog())
        left = self._producer.flush(FLUSH_S)
        if left or self._undelivered is not None:
            why = "no answer" if self._undelivered is None else self._undelivered.str()
            raise BrokerUnavailable(f"{left} records are not acknowledged ({why}); check it with `tailrace doctor`")
        self._lifecycle.metrics.commit_seconds.observe(time.perf_counter() - began)


def _app(settings: Settings, use_case: UseCase, shell: Shell) -> FetchApp:
    group = Topics(use_case.name).group("features")
    data = settings.state_dir / "faust" / group
    data.mkdir(parents=True, exist_ok=True)
    app = FetchApp(
        group,
        broker=";".join(f"kafka://{address.strip()}" for address in settings.kafka_bootstrap.split(",")),
        broker_credentials=_credentials(settings),
        broker_max_poll_records=MAX_FETCH,
        consumer_group_instance_id=f"{group}.{settings.instance}",
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=MAX_MESSAGE_BYTES,
        processing_guarantee="at_least_once",
        datadir=str(data),
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        stream_wait_empty=False,
        autodiscover=False,
        origin="tailrace.features",
    )
    app.fetch_sink = shell
    shell.app = app
    fetches = app.topic(*shell.processor.subscriptions, value_serializer="raw", key_serializer="raw")

    @app.agent(fetches, name="features")
    async def features(stream: Any) -> None:
        async for fetch in stream:
            await shell.take(fetch)

    return app


def _credentials(settings: Settings) -> Any:
    tls = settings.kafka_security.endswith("SSL")
    context = ssl.create_default_context(cafile=settings.kafka_ca or None) if tls else None
    if settings.kafka_security.startswith("SASL_"):
        # With a context Faust speaks SASL_SSL, without one SASL_PLAINTEXT.
        return faust.SASLCredentials(
            mechanism="SCRAM-SHA-512",
            username=settings.kafka_username,
            password=settings.kafka_password.get_secret_value(),
            ssl_context=context,
        )
    return faust.SSLCredentials(context) if context else None
