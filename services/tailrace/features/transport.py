"""Faust with one event per fetch, carrying what was fetched.

Stock Faust makes one event per record, which costs more than our whole processing. This module is
the only one that touches private names of Faust and aiokafka; `tests/features/test_transport.py`
fails when one of them is gone, and the versions are pinned in pyproject.toml.

What is ours: the drain loop (one fetch at a time, so that nothing fetched is unprocessed when
offsets are committed) and the commit (at a consumer's position, which lies behind transaction markers).
What stays Faust's: membership, assignment, rebalancing, seeking, agents.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol, cast

import aiokafka
import faust
from aiokafka.consumer import consumer, fetcher
from faust.transport.consumer import TopicPartitionGroup  # noqa: F401  # proves the module is the one we know
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from tailrace.features.runs import Run

FETCH_WAIT_MS = 100
"""How long a broker may hold a fetch back; Faust's 1,500 ms would delay every shutdown by as much."""

AHEAD_FROM = 1_000
"""Records of a fetch from which on the next one is asked for before they are processed: the time to fetch is then
long enough to be worth saving."""


class Fetch:
    """Records of one fetch, and the sign that they are done."""

    def __init__(self, runs: list[Run]) -> None:
        self.runs = runs
        self.done = asyncio.Event()


class Sink(Protocol):
    """What the shell does at the turns of a partition's life; called on the event loop."""

    async def idle(self) -> None:
        """Called after every fetch, also an empty one, when everything fetched is processed."""

    async def assigned(self, partitions: set[TP]) -> None:
        """Partitions were added; nothing of them is delivered before this returns."""

    async def revoked(self, partitions: set[TP]) -> None:
        """Partitions are about to go; offsets can still be committed."""


class LeanRecords(fetcher.PartitionRecords):  # type: ignore[misc]  # aiokafka ships no types
    """Stock unpacking, which knows of aborted transactions, that makes tuples: its record type costs twice as much."""

    def _consumer_record(self, tp: Any, record: Any) -> Any:
        return record.offset, record.timestamp, record.key, record.value, record.headers


class LateFetcher(fetcher.Fetcher):  # type: ignore[misc]  # as above
    """Stock fetcher that asks the broker ahead of us only while a lot comes at once.

    What is fetched ahead is one event that came as the request did: it waits until the records before it are
    processed, and those behind it until it is processed too. A request made when somebody waits brings all of them.
    """

    _ahead = False

    async def fetched_records(self, partitions: Any, timeout: float = 0, max_records: int | None = None) -> Any:
        """Stock, and notes how much it was."""
        found = await super().fetched_records(partitions, timeout, max_records)
        self._ahead = sum(map(len, found.values())) >= AHEAD_FROM
        return found

    def _create_fetch_waiter(self) -> Any:
        self._notify(self._wait_consume_future)
        return super()._create_fetch_waiter()

    def _get_actions_per_node(self, assignment: Any) -> Any:
        requests, *others = super()._get_actions_per_node(assignment)
        return (requests if self._ahead or self._fetch_waiters else [], *others)


# The client has no seam of its own; in this process nobody else reads through aiokafka.
fetcher.PartitionRecords = LeanRecords
consumer.Fetcher = LateFetcher


class FetchThread(driver.AIOKafkaConsumerThread):
    """Stock consumer thread that reads committed records only, because LABELS is transactional."""

    def _create_worker_consumer(self, transport: driver.Transport) -> aiokafka.AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        consumer._isolation_level = "read_committed"
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS
        return consumer


class FetchConsumer(driver.Consumer):
    """Stock consumer with the drain loop and the commit replaced."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._epoch = 0
        self._positions: dict[TP, int] = {}

    def _new_consumer_thread(self) -> driver.AIOKafkaConsumerThread:
        return FetchThread(self, loop=self.loop, beacon=self.beacon)

    @property
    def sink(self) -> Sink:
        """The shell; set on the app."""
        found: Sink = cast(Any, self.app).fetch_sink
        return found

    async def _drain_messages(self, service: Any) -> None:
        while not (self.should_stop or service.should_stop):
            epoch = self._epoch
            records, _ = await self._wait_next_records(0.1)
            positions = self._fetched()
            await asyncio.sleep(0)
            if not self.flow_active:
                await self.wait_first(self.can_resume_flow.wait())
            if self.should_stop or epoch != self._epoch:
                # A rebalance came between: what was fetched before it is fetched again.
                continue
            fetch = Fetch([Run.of(at.topic, at.partition, run) for at, run in (records or {}).items()])
            if fetch.runs:
                await self.callback(self._carrier(fetch))
                # A rebalance waits for `revoked`, which comes after the processing thread is free.
                await fetch.done.wait()
            if epoch == self._epoch:
                self._positions = positions
            await self.sink.idle()

    def _carrier(self, fetch: Fetch) -> Any:
        first = fetch.runs[0]
        at = TP(first.topic, first.partition)
        began_s = first.timestamps_ms[0] / 1000
        message = cast(Any, driver).ConsumerMessage(
            first.topic, first.partition, first.offsets[0], began_s, 0, [], None, fetch, None, 0, 0, at,
            generation_id=self.app.consumer_generation_id,
        )  # fmt: skip
        # Offsets are committed at positions. Faust would keep the offset of every acknowledged message for its own
        # commit, which is off, and its compiled streams do that without asking `ack`.
        message.acked = True
        return message

    def positions(self) -> dict[TP, int]:
        """Offset behind everything processed and behind transaction markers, by partition."""
        return dict(self._positions)

    def _fetched(self) -> dict[TP, int]:
        client = self._thread._ensure_consumer()
        out: dict[TP, int] = {}
        subscription = client._subscription.subscription
        assignment = None if subscription is None else subscription.assignment
        if assignment is None:
            return out
        for at in assignment.tps:
            state = assignment.state_value(at)
            if state is not None and state.has_valid_position:
                out[TP(at.topic, at.partition)] = state.position
        return out

    async def commit_offsets(self, offsets: Mapping[TP, int]) -> bool:
        """Commits offsets; False when the group has moved on."""
        return bool(await self._commit(offsets))

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Stock commits are off."""
        return False

    async def wait_empty(self) -> None:
        """Nothing is open between fetches."""

    async def verify_all_partitions_active(self) -> None:
        """Stock check goes by messages and acks, which do not exist here."""

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Restores before delivery starts."""
        self._turn()
        await self.sink.assigned(set(assigned))
        await super().on_partitions_assigned(assigned, generation_id)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Checkpoints while the partitions are still ours."""
        await self.sink.revoked(set(revoked))
        self._turn()
        await super().on_partitions_revoked(revoked)

    def _turn(self) -> None:
        """What was fetched before a rebalance is fetched again after it, from the committed offsets on."""
        self._epoch += 1
        self._positions = {}


class FetchTransport(driver.Transport):
    """Stock transport with our consumer."""

    Consumer = FetchConsumer


class FetchApp(faust.App):
    """Faust app whose streams carry `Fetch` values; `fetch_sink` must be set before it starts."""

    fetch_sink: Sink

    def _new_transport(self) -> FetchTransport:
        return FetchTransport(self.conf.broker_consumer, self)
