"""The services in one process: their processors, each in a shell over the in-memory log, stepped in a fixed order.

A step is what a service does between two commits. It either happens whole, or, where a crash is due,
leaves behind what a killed process would: nothing for a transaction; for `features`, which is at least
once, rows and FEATURES without the commit behind them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tailrace.backends.artifacts import Bundle
from tailrace.backends.ports import Assigned, Executor, Message, Processor
from tailrace.backends.telemetry import Metrics
from tailrace.contracts.topics import AUDIT
from tailrace.core.monitor_state import Champion
from tailrace.core.rollouts import RolloutState
from tailrace.features.processor import FeatureProcessor
from tailrace.features.rows import RowWrite
from tailrace.features.runs import OutputRun, Run
from tailrace.feedback.processor import FeedbackProcessor
from tailrace.feedback.service import champion_of
from tailrace.inference.models import ModelPool, executor_of
from tailrace.inference.processor import ScoringProcessor
from tailrace.rollout.processor import RolloutProcessor, audit_hash
from tailrace.rollout.service import spec_of
from tailrace.testing.world import Crashes, World

BATCH = 16_000
"""Records of a step. Decisions do not depend on it; fewer cost more calls, more cost memory."""


class Transactional:
    """Twin of `runtime.loop`: outputs and offsets of a batch become visible together.

    Args:
        world: What the services share.
        service: Name of the service.
        subscriptions: Topics it reads.
        make: Makes its processor, as a process does at its start.
        crashes: When it is to be made anew.
        unread: Topics it writes for itself alone, and that need not be kept while no crash is ahead.
        before: Called before each batch.
    """

    def __init__(
        self,
        world: World,
        service: str,
        subscriptions: Sequence[str],
        make: Callable[[], Processor],
        crashes: Crashes,
        *,
        unread: Sequence[str] = (),
        before: Callable[[], None] = lambda: None,
    ) -> None:
        self._log = world.log
        self._group = world.topics.group(service)
        self._subscriptions = subscriptions
        self._make = make
        self._crashes = crashes
        self._unread = frozenset(unread)
        self._before = before
        self._log.subscribe(self._group, subscriptions)
        self._processor = self._started()

    def step(self, now_ms: int) -> bool:
        """Processes a batch; False when there was nothing to do."""
        self._before()
        batch: list[Message] = []
        ends: dict[tuple[str, int], int] = {}
        for at in self._assigned():
            found = self._log.read(at.topic, at.partition, at.offset, BATCH - len(batch))
            if found:
                batch += found
                ends[at.topic, at.partition] = at.offset + len(found)
        outputs = self._processor.process(batch, now_ms)
        if batch and self._crashes.due(now_ms):
            self._processor = self._started()
            return True
        if self._unread and not self._crashes.ahead:
            outputs = [output for output in outputs if output.topic not in self._unread]
        self._log.append(outputs, now_ms)
        if batch or self._processor.unsettled():
            for at in self._assigned():
                end = ends.get((at.topic, at.partition), at.offset)
                metadata = self._processor.metadata(at.topic, at.partition)
                self._log.commit(self._group, at.topic, at.partition, end, metadata)
        self._processor.ended([(at.topic, at.partition) for at in self._assigned() if not at.waiting])
        return bool(batch or outputs)

    def _started(self) -> Processor:
        processor = self._make()
        processor.assigned(self._assigned())
        return processor

    def _assigned(self) -> list[Assigned]:
        return [
            self._assigned_one(topic, number)
            for topic in self._subscriptions
            for number in range(len(self._log.partitions(topic)))
        ]

    def _assigned_one(self, topic: str, number: int) -> Assigned:
        offset, metadata = self._log.committed(self._group, topic, number)
        return Assigned(topic, number, offset, metadata, self._log.partitions(topic)[number].end > max(offset, 0))


class Features:
    """Twin of the shell of `features`: rows, FEATURES, changelog and offsets, in this order.

    Args:
        world: What the services share.
        crashes: When it is to lose its memory, in the middle of a step.
    """

    def __init__(self, world: World, crashes: Crashes) -> None:
        self._world = world
        self._log = world.log
        self._crashes = crashes
        self._group = world.topics.group("features")
        self._processor = FeatureProcessor(world.use_case)
        self._places = [
            (topic, number)
            for topic in self._processor.subscriptions
            for number in range(len(self._log.partitions(topic)))
        ]
        self._log.subscribe(self._group, self._processor.subscriptions)
        self._assign()

    def step(self, now_ms: int) -> bool:
        """Processes a fetch; False when there was nothing to do."""
        runs, room = [], BATCH
        for topic, number in self._places:
            offset, _ = self._log.committed(self._group, topic, number)
            run = self._run(topic, number, offset, room)
            if run.offsets:
                runs.append(run)
                room -= len(run.offsets)
        if not runs:
            return False
        step = self._processor.process(runs, now_ms)
        self._write(step.rows)
        self._produce(step.outputs, now_ms)
        if self._crashes.due(now_ms):
            self._processor = FeatureProcessor(self._world.use_case)
            self._assign()
            return True
        if self._crashes.ahead:
            # Read by nobody but this service after a crash, and dear where windows are long.
            self._produce(self._processor.changelog(), now_ms)
        for run in runs:
            self._log.commit(self._group, run.topic, run.partition, run.offsets[-1] + 1, "")
        return True

    def _run(self, topic: str, number: int, offset: int, most: int) -> Run:
        part = self._log.partitions(topic)[number]
        begin = offset - part.begin
        rows = slice(begin, begin + most)
        columns = (part.timestamps_ms[rows], part.keys[rows], part.values[rows], part.headers[rows])
        return Run(topic, number, range(offset, offset + len(columns[0])), *columns)

    def _assign(self) -> None:
        self._processor.assigned(self._places, self._changelog)
        self._write(self._processor.label_rows())

    def _changelog(self, partitions: set[int] | None) -> list[Message]:
        records = self._log.records(self._world.topics.features_changelog)
        return [message for message in records if partitions is None or message.partition in partitions]

    def _write(self, rows: Sequence[RowWrite]) -> None:
        for row in rows:
            names = [column.name for column in row.view.columns]
            self._world.store.write(
                row.view.name, row.view.entity, names, row.keys, row.values, row.timestamps_ms, row.state
            )

    def _produce(self, runs: Sequence[OutputRun], now_ms: int) -> None:
        for run in runs:
            if run.partition is None:
                self._log.append(run.records, now_ms)
            else:
                self._log.partitions(run.topic)[run.partition].extend(run.keys, run.values, now_ms, run.headers)


def inference(world: World, crashes: Crashes) -> Transactional:
    """The inference service; a new routing table is in force before the next batch."""
    plan = world.use_case.plan
    pools: list[ModelPool] = []

    def make_executor(bundle: Bundle) -> Executor:
        return executor_of(bundle, world.settings.threads)

    def take_up() -> None:
        table = world.table()
        if table is not None and table.epoch > pools[-1].epoch:
            pools[-1].load(table)

    def make() -> Processor:
        # The pool would load beside the running models, in a thread: here it is told what to serve, and when.
        pools[:] = [ModelPool(plan, make_executor, lambda: None, world.logger, lambda _: None)]
        take_up()
        return ScoringProcessor(plan, pools[-1], world.store, Metrics(plan.use_case, "inference"), world.logger)

    return Transactional(world, "inference", [world.topics.features], make, crashes, before=take_up)


def feedback(world: World, crashes: Crashes) -> Transactional:
    """The feedback service."""
    topics = world.topics

    def changelog() -> list[tuple[bytes, bytes | None]]:
        records = world.log.records(topics.feedback_changelog)
        return [(message.key, message.value) for message in records if message.key is not None]

    def make() -> Processor:
        followed = -1

        def follow() -> tuple[int, Champion] | None:
            nonlocal followed
            table = world.table()
            if table is None or table.epoch <= followed:
                return None
            followed = table.epoch
            return table.epoch, champion_of(table)

        return FeedbackProcessor(world.use_case, changelog, follow, Metrics(topics.use_case, "feedback"))

    outcomes = [topic.name for topic in world.use_case.outcome_topics]
    read = [topics.predictions, topics.shadow, *outcomes, topics.retraining]
    return Transactional(world, "feedback", read, make, crashes, unread=[topics.feedback_changelog])


def rollout(world: World, crashes: Crashes) -> Transactional:
    """The rollout service."""
    spec = spec_of(world.use_case)

    def restore() -> tuple[RolloutState, str]:
        entries = [message.value for message in world.log.records(AUDIT) if message.value is not None]
        return spec.start(world.table()), audit_hash(entries[-1]) if entries else ""

    def history(at: Assigned) -> list[Message]:
        return [m for m in world.log.records(at.topic) if m.partition == at.partition and m.offset < at.offset]

    def make() -> Processor:
        return RolloutProcessor(world.topics, restore, history, lambda _: None)

    return Transactional(world, "rollout", [world.topics.retraining, world.topics.quality], make, crashes)
