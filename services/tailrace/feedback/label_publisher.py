"""What joins say, as records: changed labels on LABELS, outcomes that judge nothing as dead letters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tailrace.backends.codec import encode
from tailrace.backends.ports import Message, Output
from tailrace.backends.telemetry import Metrics
from tailrace.contracts.metrics import METRICS
from tailrace.contracts.topics import Topics
from tailrace.core.joins import Changes, Unattributed
from tailrace.core.labels import REASONS
from tailrace.errors import BadRecord
from tailrace.feedback.label_join import LabelJoin
from tailrace.feedback.label_writer import LabelWriter
from tailrace.runtime.dead_letters import dead_letter
from tailrace.usecase.declaration import UseCase
from tailrace.usecase.sources import Label

_REPEATS = METRICS["join_repeats"].labels[0].values
_EVICTIONS = METRICS["evictions"].labels[0].values


class LabelPublisher:
    """Publishes what the joins of a use case's labels say, and counts it.

    Args:
        use_case: The use case.
        metrics: Prometheus handles.
        partition: Where the outcomes that are joined stand; -1 where they stand on any.
    """

    def __init__(self, use_case: UseCase, metrics: Metrics, partition: int = -1) -> None:
        self._labels = use_case.labels
        self._topics = Topics(use_case.name)
        self._metrics = metrics
        self._partition = partition
        self._writers = [
            LabelWriter(self._topics.labels, use_case.name, label.name, auxiliary=label is not use_case.label)
            for label in use_case.labels
        ]

    def changed(self, joins: Sequence[LabelJoin], changes: Sequence[Changes]) -> list[Output]:
        """Labels that have changed, of each join; the first judges the model."""
        outputs: list[Output] = []
        for reason, count in enumerate(np.bincount(changes[0].reason).tolist()):
            if count:
                self._metrics.labels.labels(REASONS[reason]).inc(count)
        for writer, join, changed in zip(self._writers, joins, changes, strict=True):
            outputs += writer.records(join.table, changed, join.sources)
        return outputs

    def side(self, joins: Sequence[LabelJoin], now_ms: int) -> list[Output]:
        """Outcomes that judge nothing, of each join, since the last call."""
        outputs: list[Output] = []
        for declared, join in zip(self._labels, joins, strict=True):
            outputs += [self._unattributed(declared, side, now_ms) for side in join.take_side()]
            self._count(join.take_counts())
        return outputs

    def _unattributed(self, label: Label, side: Unattributed, now_ms: int) -> Output:
        """An outcome that judges nothing is kept as a dead letter: its own bytes are gone, its content is not."""
        self._metrics.dead_letters.labels(side.reason).inc()
        message = Message(label.topic.name, self._partition, -1, now_ms, side.event_id.encode(), encode(side), [])
        error = BadRecord(side.reason, f"outcome of {side.event_id!r} gives no prediction its {label.name!r}")
        return dead_letter(self._topics, "feedback", message, error, now_ms)

    def _count(self, counts: Mapping[str, int]) -> None:
        """Counts what a join has found, by the names it gives."""
        for kind in _REPEATS:
            if kind in counts:
                self._metrics.join_repeats.labels(kind).inc(counts[kind])
        for kind in _EVICTIONS:
            if f"evicted_{kind}" in counts:
                self._metrics.evictions.labels(kind).inc(counts[f"evicted_{kind}"])
