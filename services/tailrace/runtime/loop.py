"""The exactly-once loop: consume, process, produce and commit as one Kafka transaction.

Any doubt about a transaction ends the session: the producer is dropped, a new one fences it, and
the processor is rebuilt from what is committed. The Kafka protocol without KIP-890 allows nothing
weaker (docs/adr/0003).
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from operator import itemgetter
from types import TracebackType

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka import Message as Record

from tailrace.backends.kafka import consumer, is_waiting, produce, producer, to_messages
from tailrace.backends.ports import Assigned, Message, Processor
from tailrace.backends.settings import Settings
from tailrace.errors import BrokerUnavailable, Retryable
from tailrace.runtime.deadman import Deadman
from tailrace.runtime.ends import Ends
from tailrace.runtime.service import Lifecycle

MAX_BATCH = 4_000
POLL_S = 0.02
GATHER_S = 0.002
"""How long a batch that is not full is waited for: a batch of ten costs little more than a batch of one."""
BUSY_CUT_S = 0.1
"""Least time between two commits while records come faster than they are processed: what waits has waited longer."""
TRANSACTION_TIMEOUT_MS = 60_000
MAX_BACKOFF_S = 10.0


def run_transactional(
    settings: Settings,
    group: str,
    subscriptions: Sequence[str],
    transactional_id: str,
    processor: Processor,
    lifecycle: Lifecycle,
    *,
    cut_ms: int = 50,
    together: bool = False,
) -> None:
    """Drives a processor until the service is asked to stop; `together` keeps partitions of one number with one worker.

    While a transaction is being committed, one batch more is consumed and processed; its outputs wait.

    How a batch becomes durable:
      1. records are consumed, committed ones only, and processed;
      2. outputs are produced inside the open transaction;
      3. every `cut_ms`, more seldom under a backlog, the offsets behind the processed records go into the
         same transaction, with the processor's metadata of that moment;
      4. the transaction is committed: outputs and offsets become visible together; nothing is produced
         before that is known;
      5. at the end of all partitions the offset behind the transaction markers is committed too: no lag is left.
    A crash before 4 leaves nothing visible; the same records come again.

    Raises:
        Fatal: going on would break a guarantee.
    """
    failures = 0
    while not lifecycle.stopping.is_set():
        session = _Session(
            settings, group, subscriptions, transactional_id, processor, lifecycle, cut_ms, together=together
        )
        try:
            with session:
                session.run()
        except (Retryable, KafkaException) as error:
            failures = 1 if session.committed else failures + 1
            wait_s = min(MAX_BACKOFF_S, 0.1 * 2**failures) * (0.5 + random.random())  # jitter, no secret
            lifecycle.ready(False, str(error))
            lifecycle.metrics.restarts.labels(type(error).__name__).inc()
            lifecycle.log.warning("session_given_up", error=str(error), retry_in_s=round(wait_s, 1))
            lifecycle.stopping.wait(wait_s)


class _Session:
    """One producer, one consumer, and the transaction that is open between them."""

    def __init__(
        self,
        settings: Settings,
        group: str,
        subscriptions: Sequence[str],
        transactional_id: str,
        processor: Processor,
        lifecycle: Lifecycle,
        cut_ms: int,
        *,
        together: bool,
    ) -> None:
        self.committed = False
        self._subscriptions = list(subscriptions)
        self._processor = processor
        self._lifecycle = lifecycle
        self._cut_s = cut_ms / 1000
        self._busy = False
        self._open_since: float | None = None
        self._offsets: dict[tuple[str, int], int] = {}
        self._positions: dict[tuple[str, int], int] = {}
        self._given_back: set[tuple[str, int]] = set()
        self._failure: BaseException | None = None
        self._committer = ThreadPoolExecutor(1, "committer")
        self._committing: Future[None] | None = None
        self._producer: Producer = producer(
            settings,
            **{"transactional.id": transactional_id, "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS},
        )
        # The group's own choice balances partitions one by one, whichever topic they are of.
        assignor = {"group.remote.assignor": "range"} if together else {}
        self._consumer: Consumer = consumer(settings, group, **assignor)
        self._ends = Ends(self._consumer)
        self._deadman = Deadman()
        lifecycle.guarded(self._deadman.age_s)

    def __enter__(self) -> _Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is not None:
                self._await_commit()  # what came of it must not hide what ended the session
            else:
                self._commit_now()
        finally:
            # What is left after a failure must not be committed when the partitions are given back.
            self._offsets.clear()
            with self._deadman.guard():
                if self._open_since is not None:
                    self._abort()
                self._consumer.close()
            self._committer.shutdown()

    def run(self) -> None:
        with self._deadman.guard():
            self._producer.init_transactions(60)
        self._consumer.subscribe(
            self._subscriptions, on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost
        )
        idle_since = time.monotonic()
        while not self._lifecycle.stopping.is_set():
            batch = self._receive()
            now = time.monotonic()
            if batch or now - idle_since > 0.1:
                self._process(batch)
                idle_since = now
            if self._committing is not None and self._committing.done():
                self._settle()
            if self._due():
                self._cut()

    def _receive(self) -> list[Message]:
        # `consume` waits for all it was asked for; a single record that has come must not wait for others that long.
        first = self._consumer.poll(POLL_S)
        self._given_back.clear()
        records = [] if first is None else [first, *self._consumer.consume(MAX_BATCH - 1, timeout=GATHER_S)]
        if self._failure is not None:
            raise self._failure
        if self._given_back:
            # Their new owner reads them again. The client purges what it gathers only once it learns that the partition
            # has gone, which may be after it returned, and of what `poll` returned it knows nothing.
            if self._given_back & self._positions.keys():
                raise BrokerUnavailable("partitions went and came back at once; starting over from what is committed")
            records = [r for r in records if (r.topic(), r.partition()) not in self._given_back]
        self._busy = len(records) == MAX_BATCH
        return to_messages([r for r in records if (error := r.error()) is None or self._is_data(r, error)])

    def _is_data(self, record: Record, error: KafkaError) -> bool:
        if error.code() == KafkaError._PARTITION_EOF:
            self._advance(record.topic(), record.partition(), record.offset())
            self._ends.reached(record.topic(), record.partition(), record.offset())
            return False
        if error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise BrokerUnavailable(f"topic {record.topic()!r} is missing; create it with `tailrace topics apply`")
        if error.fatal() or not error.retriable():
            raise KafkaException(error)
        return False

    def _process(self, batch: Sequence[Message]) -> None:
        began = time.perf_counter()
        outputs = self._processor.process(batch, time.time_ns() // 1_000_000)
        if outputs:
            self._begin()
            produce(self._producer, outputs)
        # In the order of the offsets: the last of a partition is what stays.
        for (topic, partition), offset in {(m.topic, m.partition): m.offset for m in batch}.items():
            self._advance(topic, partition, offset + 1)
        self._processor.ended(self._ends.current(self._positions))
        metrics = self._lifecycle.metrics
        if batch:
            metrics.batch_seconds.observe(time.perf_counter() - began)
        for counter, records in ((metrics.records, batch), (metrics.produced, outputs)):
            for topic, count in Counter(map(itemgetter(0), records)).items():
                counter.labels(topic).inc(count)

    def _advance(self, topic: str, partition: int, offset: int) -> None:
        if offset > self._positions.get((topic, partition), -1):
            self._positions[topic, partition] = self._offsets[topic, partition] = offset
            self._begin()

    def _begin(self) -> None:
        if self._open_since is None:
            self._settle()
            self._producer.begin_transaction()
            self._open_since = time.monotonic()

    def _due(self) -> bool:
        if self._processor.unsettled() and self._positions:
            self._begin()
            # Offsets that did not move are committed again for the metadata that goes with them.
            self._offsets |= self._positions
        wait_s = max(self._cut_s, BUSY_CUT_S) if self._busy else self._cut_s
        return self._open_since is not None and time.monotonic() - self._open_since >= wait_s

    def _cut(self) -> None:
        """Closes the open transaction to further records, and has it committed beside the next batch.

        Offsets that did not move go with outputs that came of no record: they fence who has lost the partitions.
        """
        offsets = [
            TopicPartition(topic, partition, offset, self._processor.metadata(topic, partition))
            for (topic, partition), offset in (self._offsets or self._positions).items()
        ]
        self._open_since = None
        self._offsets.clear()
        self._committing = self._committer.submit(self._commit, offsets, self._consumer.consumer_group_metadata())

    def _commit(self, offsets: list[TopicPartition], group: object) -> None:
        began = time.perf_counter()
        with self._deadman.guard():
            if offsets:
                self._producer.send_offsets_to_transaction(offsets, group, 30)
            self._producer.commit_transaction(60)
        self._lifecycle.metrics.commit_seconds.observe(time.perf_counter() - began)

    def _settle(self) -> None:
        """Waits for the commit under way, if there is one, and raises what went wrong with it."""
        if self._committing is None:
            return
        error = self._await_commit()
        if error is not None:
            raise error
        self.committed = True
        self._lifecycle.ready(True)

    def _await_commit(self) -> BaseException | None:
        committing, self._committing = self._committing, None
        error = None if committing is None else committing.exception()
        if error is not None:
            self._open_since = time.monotonic()  # open still, as far as anybody can say
        return error

    def _commit_now(self) -> None:
        """Commits all that was processed, and waits for it."""
        self._settle()
        if self._open_since is not None:
            self._cut()
            self._settle()

    def _abort(self) -> None:
        self._open_since = None
        try:
            self._producer.abort_transaction(10)
        except KafkaException as error:
            # The next session's init_transactions fences this producer, which aborts as surely.
            self._lifecycle.log.info("abort_left_to_fencing", error=str(error))

    def _assigned(self, client: Consumer, partitions: list[TopicPartition]) -> None:
        try:
            self._settle()
            known = client.committed(partitions, timeout=30)
            self._processor.assigned(
                [
                    Assigned(at.topic, at.partition, max(at.offset, -1), at.metadata or "", is_waiting(client, at))
                    for at in known
                ]
            )
            for at in known:
                self._positions[at.topic, at.partition] = max(at.offset, 0)
            self._lifecycle.ready(True)
        except BaseException as error:  # noqa: BLE001  # callbacks run inside the client: hand over to the loop
            self._failure = error

    def _revoked(self, client: Consumer, partitions: list[TopicPartition]) -> None:
        try:
            self._commit_now()
            self._forget(partitions)
        except BaseException as error:  # noqa: BLE001  # as above
            self._failure = error

    def _lost(self, client: Consumer, partitions: list[TopicPartition]) -> None:
        self._forget(partitions)
        self._failure = BrokerUnavailable("partitions were taken away; starting over from what is committed")

    def _forget(self, partitions: Sequence[TopicPartition]) -> None:
        self._processor.revoked([(at.topic, at.partition) for at in partitions])
        for at in partitions:
            self._positions.pop((at.topic, at.partition), None)
            self._offsets.pop((at.topic, at.partition), None)
            self._ends.forget(at.topic, at.partition)
            self._given_back.add((at.topic, at.partition))
