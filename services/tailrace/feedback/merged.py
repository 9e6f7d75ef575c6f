"""What all tasks come to together, by what they say of themselves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from tailrace.contracts.records import Alarm
from tailrace.core.alignment import Alignment
from tailrace.core.join_watch import MINUTE_MS
from tailrace.core.monitor_state import Champion, MonitorSnapshot
from tailrace.core.monitoring import HOUR_MS, Monitor
from tailrace.feedback.label_counts import LabelCounts
from tailrace.feedback.observations import Observation, Vectors
from tailrace.feedback.overview import Overview, Ticked
from tailrace.feedback.replica import Replica
from tailrace.feedback.specs import counted_of, join_spec, kept_ms
from tailrace.usecase.declaration import UseCase


class Step(NamedTuple):
    """What came of stream time that went on: alarms, and where it came to a new hour, the tick and what it gave."""

    alarms: list[Alarm]
    tick_ms: int = -1
    ticked: Ticked | None = None


class MergedState:
    """Counts and monitor of a use case whose predictions are joined task by task.

    Any interleaving of the same observations gives the same decisions: a task that is ahead by a minute waits for the
    others, since that is how often joins are judged.

    Args:
        use_case: The use case.
        tasks: Numbers of the tasks.
        snapshot: Where the monitor goes on from; None to begin.
    """

    def __init__(self, use_case: UseCase, tasks: Iterable[int], snapshot: MonitorSnapshot | None = None) -> None:
        self._names = use_case.plan.order
        self._replicas = tuple(
            Replica(join_spec(label), kept_ms(use_case, label), counted_of(use_case, label))
            for label in use_case.labels
        )
        self.overview = Overview(use_case, self.counts, snapshot)
        self._alignment: Alignment[Observation] = Alignment(tasks, MINUTE_MS)
        self.watermark_ms = -1

    @property
    def counts(self) -> tuple[LabelCounts, ...]:
        """Counts of each label; the first judges the model."""
        return tuple(replica.counts for replica in self._replicas)

    @property
    def monitor(self) -> Monitor:
        """What decides at ticks."""
        return self.overview.monitor

    def serve(self, champion: Champion) -> list[Alarm]:
        """Takes up a champion; gives the alarms that this resolves."""
        return self.overview.serve(champion)

    def take(self, observation: Observation) -> Iterator[Step]:
        """Takes what a task says; gives what comes of it, which is to be taken note of before the next is asked for."""
        for aligned in self._alignment.put(observation.task, observation.watermark_ms, observation):
            for one in aligned.items:
                self._apply(one)
            if aligned.reached_ms is not None:
                yield self._advance(aligned.reached_ms)

    def _apply(self, observation: Observation) -> None:
        for at, (replica, observed) in enumerate(zip(self._replicas, observation.labels, strict=True)):
            rows, changes = replica.take(observation.task, observed)
            if at == 0:
                self.overview.predicted(rows)
                self.overview.changed(changes)
        for vectors in observation.vectors:
            self._see(vectors)

    def _see(self, vectors: Vectors) -> None:
        if self.monitor.wants_vectors and vectors.version == self.monitor.version:
            matrix = np.frombuffer(vectors.matrix, np.float32).reshape(-1, len(self._names))
            self.monitor.vectors(matrix, np.frombuffer(vectors.scores, np.float64))

    def _advance(self, watermark_ms: int) -> Step:
        self.watermark_ms = watermark_ms
        alarms = self.monitor.advance(watermark_ms)
        tick_ms = watermark_ms // HOUR_MS * HOUR_MS
        step = Step(alarms)
        if tick_ms > self.monitor.ticked_ms:
            for replica in self._replicas:
                replica.forget(tick_ms)
            step = Step(alarms, tick_ms, self.overview.tick(tick_ms, watermark_ms))
        # What left a task's table at the hour was looked at by the tick of the hour.
        for replica in self._replicas:
            replica.free()
        return step
