"""The joins of feedback as a `Processor` of tasks: each worker owns some, and says of them what the monitor needs.

A task is the partitions of one number of predictions, shadows and outcomes. What it labels depends on its records
alone, so that it does not matter how many workers share the tasks, nor which owns which.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import groupby
from operator import attrgetter

from tailrace.backends.ports import Assigned, Message, Output
from tailrace.backends.telemetry import Metrics
from tailrace.contracts.topics import Topics
from tailrace.core.monitors import PSI
from tailrace.errors import Retryable
from tailrace.feedback.intake import Intake
from tailrace.feedback.label_publisher import LabelPublisher
from tailrace.feedback.observations import Vectors
from tailrace.feedback.predictions import PredictionReader, sampled
from tailrace.feedback.task_store import TaskStore
from tailrace.usecase.declaration import UseCase

_PARTITION_OF, _VALUE_OF = attrgetter("partition"), attrgetter("value")
VECTORS_BYTES = 500_000
"""Sampled inputs of so many bytes go into a record together."""
Read = Callable[[int], Iterable[tuple[bytes, bytes | None]]]


class TaskProcessor:
    """Joins the tasks that are assigned.

    Args:
        use_case: The use case.
        read_changelog: Gives a partition of the changelog from its beginning, as (key, value).
        metrics: Prometheus handles.
    """

    def __init__(self, use_case: UseCase, read_changelog: Read, metrics: Metrics) -> None:
        self._use_case, self._read, self._metrics = use_case, read_changelog, metrics
        topics = Topics(use_case.name)
        outcomes = [topic.name for topic in use_case.outcome_topics]
        self._topics = frozenset([topics.predictions, topics.shadow, *outcomes])
        self._assigned: dict[int, dict[str, Assigned]] = {}
        self._tasks: dict[int, _Task] = {}

    def assigned(self, partitions: Sequence[Assigned]) -> None:
        """Restores tasks all of whose partitions are there, as of the last commit."""
        for at in partitions:
            of_task = self._assigned.setdefault(at.partition, {})
            if at.topic in of_task:
                # Given again without having been taken: the session began anew, and what was not committed is void.
                of_task.clear()
                self._tasks.pop(at.partition, None)
            of_task[at.topic] = at
        for task, of_task in self._assigned.items():
            if task not in self._tasks and set(of_task) == self._topics:
                self._tasks[task] = self._started(task, list(of_task.values()))

    def revoked(self, partitions: Sequence[tuple[str, int]]) -> None:
        """Forgets tasks that lose a partition."""
        for topic, task in partitions:
            self._assigned.get(task, {}).pop(topic, None)
            self._tasks.pop(task, None)
        self._assigned = {task: of_task for task, of_task in self._assigned.items() if of_task}

    def ended(self, partitions: Collection[tuple[str, int]]) -> None:
        """Lets the time of a task go on without its partitions that are at their end, once they are idle."""
        for number, task in self._tasks.items():
            task.intake.ended([at for at in partitions if at[1] == number])

    def metadata(self, topic: str, partition: int) -> str:
        """A `Position` as JSON."""
        task = self._tasks.get(partition)
        return task.intake.metadata(topic, partition) if task is not None else ""

    def unsettled(self) -> bool:
        """Nothing but records moves what is committed."""
        return False

    def process(self, batch: Sequence[Message], now_ms: int) -> list[Output]:
        """Takes a micro-batch, task by task.

        Raises:
            Retryable: a task is not whole: another worker owns some of its partitions.
        """
        torn = sorted(set(self._assigned) - set(self._tasks))
        if torn:
            raise Retryable(f"some partitions of tasks {torn} are with another worker; waiting for the group to settle")
        by_task: dict[int, list[Message]] = {}
        for task, run in groupby(batch, _PARTITION_OF):
            by_task.setdefault(task, []).extend(run)
        outputs = [
            output
            for number, task in sorted(self._tasks.items())
            for output in task.process(by_task.get(number, []), now_ms)
        ]
        self._metrics.open_predictions.set(sum(task.open_events for task in self._tasks.values()))
        reached = [task.state.watermark_ms for task in self._tasks.values() if task.state.watermark_ms >= 0]
        if reached:
            self._metrics.watermark.set(min(reached) / 1000)
        return outputs

    def _started(self, task: int, partitions: list[Assigned]) -> _Task:
        started = _Task(self._use_case, task, lambda: self._read(task), self._metrics)
        started.intake.assigned(partitions)
        started.intake.restart(started.state.watermark_ms)
        return started


class _Task:
    def __init__(
        self, use_case: UseCase, task: int, read: Callable[[], Iterable[tuple[bytes, bytes | None]]], metrics: Metrics
    ) -> None:
        self._topics = Topics(use_case.name)
        self._reader = PredictionReader.of(use_case.plan)
        self._at_once = max(VECTORS_BYTES // (4 * len(use_case.plan.order) + 8), 1)
        self._wants_vectors = any(isinstance(detector, PSI) for detector in use_case.detectors)
        self._labels = LabelPublisher(use_case, metrics, task)
        self.intake = Intake(use_case, metrics)
        self._store = TaskStore(use_case, task, read)
        self.state = self._store.restore()

    @property
    def open_events(self) -> int:
        return sum(label.open_events for label in self.state.labels)

    def process(self, messages: list[Message], now_ms: int) -> list[Output]:
        by_topic = self.intake.by_topic(messages, now_ms)
        for topic in (self._topics.predictions, self._topics.shadow):
            self._predict(by_topic.get(topic, []), now_ms)
        outcomes, outputs = self.intake.outcomes(by_topic, now_ms)
        for at, reports in outcomes:
            self.state.observe(at, reports)
        watermark = self.intake.watermark_ms(now_ms)
        if watermark is not None and watermark > self.state.watermark_ms:
            self.state.advance(watermark)
        self.state.idle = self.intake.idle(now_ms)
        outputs += self._labels.changed(self.state.labels, self.state.changes())
        return outputs + self._store.write(self.state) + self._labels.side(self.state.labels, now_ms)

    def _predict(self, messages: list[Message], now_ms: int) -> None:  # hot path
        if not messages:
            return
        is_traffic = messages[0].topic == self._topics.predictions
        judged = is_traffic and self._wants_vectors
        batch = self._reader.read(list(map(_VALUE_OF, messages)), whole=judged and self.state.sample.shift == 0)
        arrivals = batch.arrivals
        if not is_traffic:
            self.state.predict(arrivals)
            return
        vectors = []
        versions = {cohort.model_version for cohort in arrivals.cohorts if cohort.variant == "champion"}
        for version in sorted(versions) if judged else ():
            chosen = sampled(arrivals, self.state.sample, version)
            for start in range(0, len(chosen), self._at_once):
                places = chosen[start : start + self._at_once]
                matrix, scores = batch.vectors(places), arrivals.score[places]
                vectors.append(Vectors(version, matrix.tobytes(), scores.tobytes()))
        self.state.predict(arrivals, vectors)
        self.intake.observe_times(messages, arrivals.event_time_ms, now_ms)
