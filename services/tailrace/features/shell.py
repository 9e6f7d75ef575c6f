"""Moves bytes between Faust, the processor, the online store and Kafka."""

from __future__ import annotations

import asyncio
import functools
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from faust.types import TP

from tailrace.backends.kafka import read_topic
from tailrace.backends.ports import OnlineStore
from tailrace.backends.settings import Settings
from tailrace.contracts.topics import Topics
from tailrace.features.delivery import Delivery
from tailrace.features.paging import PagedRoom, resident_bytes
from tailrace.features.processor import FeatureProcessor, Step
from tailrace.features.runs import OutputRun, Run
from tailrace.features.transport import Fetch, FetchApp, FetchConsumer
from tailrace.runtime.service import Lifecycle
from tailrace.usecase.declaration import UseCase

COMMIT_EVERY_S = 1.0
"""Under load: a key's state is written once per commit, so rarer commits mean less changelog and longer replays."""
COMMIT_IDLE_S = 0.1


def linger_ms_of(latency_budget_ms: int) -> float:
    """How long a record waits for others to travel with it, milliseconds, so that little of the budget goes into that.

    At a high rate records wait for none: requests are full before.
    """
    return min(latency_budget_ms / 40, 5.0)


class Shell:
    """Takes fetches through the steps of `service.run`, in order; Faust's event loop stays free.

    One thread computes, another delivers what came out, at most one fetch behind. Methods are called on
    the event loop.

    Args:
        settings: Places and sizes.
        use_case: What is computed.
        lifecycle: What the process is told, and tells.
        store: Where rows are written.
        partitions: Of the events topic; this worker may come to own all of them, and its memory is shared among them.
    """

    def __init__(
        self, settings: Settings, use_case: UseCase, lifecycle: Lifecycle, store: OnlineStore, *, partitions: int
    ) -> None:
        self.failure: BaseException | None = None
        self.app: FetchApp | None = None
        share = resident_bytes() // max(partitions * len(use_case.plan.event_views), 1)
        self.processor = FeatureProcessor(use_case, lambda: PagedRoom(settings.state_dir / "pages", share))
        self._settings = settings
        self._topics = Topics(use_case.name)
        self._lifecycle = lifecycle
        self._delivery = Delivery(settings, lifecycle, store, linger_ms_of(use_case.plan.latency_budget_ms))
        self._compute = ThreadPoolExecutor(1, "compute")
        self._deliver = ThreadPoolExecutor(1, "deliver")
        self._behind: Future[None] | None = None
        self._settling: asyncio.Task[None] | None = None
        self._committed: dict[TP, int] = {}
        self._committed_at = 0.0
        self._processed_at = 0.0

    async def take(self, fetch: Fetch) -> None:
        """Processes a fetch; a failure ends the service."""
        try:
            await self._on(self._compute, lambda: self._hand_over(self._process(fetch.runs)))
        finally:
            fetch.done.set()

    async def idle(self) -> None:
        """Commits when it is due; processing goes on meanwhile."""
        now = time.monotonic()
        quiet = now - self._processed_at > COMMIT_IDLE_S
        due = now - self._committed_at > (COMMIT_IDLE_S if quiet else COMMIT_EVERY_S)
        if due and (self._settling is None or self._settling.done()):
            await self._checkpoint()

    async def assigned(self, partitions: set[TP]) -> None:
        """Restores the state of partitions from the changelog."""
        self._committed = {}
        await self._on(self._compute, lambda: self._restore([(at.topic, at.partition) for at in partitions]))
        await self._on(self._deliver, lambda: self._delivery.write(self.processor.label_rows()))
        self._lifecycle.ready(True)
        self._lifecycle.log.info("partitions_assigned", partitions=len(partitions))

    async def revoked(self, partitions: set[TP]) -> None:
        """Checkpoints, then forgets partitions."""
        await self.settle()
        await self._on(self._compute, lambda: self.processor.revoked([(at.topic, at.partition) for at in partitions]))

    async def settle(self) -> None:
        """Commits all that is processed, and returns when it is."""
        if self._settling is not None:
            await self._settling
        await self._checkpoint()
        if self._settling is not None:
            await self._settling

    def close(self) -> None:
        """Ends the threads."""
        self._compute.shutdown()
        self._deliver.shutdown()

    async def _checkpoint(self) -> None:
        """Begins steps 4 to 6 of `run` for all that is processed."""
        consumer = self._consumer()
        if consumer is None or self.failure is not None:
            return
        offsets = {at: offset for at, offset in consumer.positions().items() if self._committed.get(at) != offset}
        self._committed_at = time.monotonic()
        if not offsets:
            return
        states: list[OutputRun] = []
        await self._on(self._compute, lambda: states.extend(self.processor.changelog()))
        self._settling = asyncio.ensure_future(self._settle(consumer, offsets, states))

    async def _settle(self, consumer: FetchConsumer, offsets: dict[TP, int], states: list[OutputRun]) -> None:
        await self._on(self._deliver, lambda: self._flush(states))
        if self.failure is None and await consumer.commit_offsets(offsets):
            self._committed |= offsets

    def _consumer(self) -> FetchConsumer | None:
        found = None if self.app is None else self.app.consumer
        return found if isinstance(found, FetchConsumer) and found._thread._consumer is not None else None

    def _on(self, thread: ThreadPoolExecutor, work: Callable[[], None]) -> Awaitable[None]:
        """Runs work on a thread, behind all that it was given before."""
        return asyncio.get_running_loop().run_in_executor(thread, self._guarded, work)

    def _guarded(self, work: Callable[[], None]) -> None:
        """Runs work; after a failure nothing more is done."""
        if self.failure is None:
            try:
                work()
            except Exception as error:  # noqa: BLE001  # crosses threads: `run` raises it
                self.failure = error

    def _restore(self, partitions: Sequence[tuple[str, int]]) -> None:
        read = functools.partial(read_topic, self._settings, self._topics.features_changelog, committed_only=False)
        self.processor.assigned(partitions, lambda numbers: read(partitions=numbers))

    def _process(self, runs: list[Run]) -> Step:
        began = time.perf_counter()
        step = self.processor.process(runs, time.time_ns() // 1_000_000)
        metrics = self._lifecycle.metrics
        for run in runs:
            metrics.records.labels(run.topic).inc(len(run.offsets))
        for reason, count in Counter(step.bad).items():
            metrics.dead_letters.labels(reason).inc(count)
        metrics.events.inc(step.events)
        metrics.duplicates.labels(runs[0].topic).inc(step.duplicates)
        metrics.batch_seconds.observe(time.perf_counter() - began)
        self._processed_at = time.monotonic()
        return step

    def _hand_over(self, step: Step) -> None:
        """Has a step delivered, when the one before it is; not by way of the event loop, which would be one wait more."""
        if self._behind is not None:
            self._behind.result()
        self._behind = self._deliver.submit(self._guarded, lambda: self._send(step))

    def _send(self, step: Step) -> None:
        self._delivery.write(step.rows)
        self._delivery.produce(step.outputs)
        self._lifecycle.metrics.produced.labels(self._topics.features).inc(sum(len(run.keys) for run in step.outputs))

    def _flush(self, states: list[OutputRun]) -> None:
        self._delivery.produce(states)
        self._delivery.flush()
