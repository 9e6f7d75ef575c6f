"""Feedback as a `Processor`: joins outcomes to predictions, keeps live quality, decides at ticks.

One worker serves a use case: predictions are keyed by entity and outcomes by event, so that only a
worker that reads all partitions of both can join them without a repartitioning topic.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from operator import attrgetter

import numpy as np

from tailrace.backends.codec import encode
from tailrace.backends.ports import Assigned, Message, Output
from tailrace.backends.telemetry import Metrics
from tailrace.contracts.topics import Topics
from tailrace.core.joins import Changes, Unattributed
from tailrace.core.labels import REASONS
from tailrace.core.monitor_state import Champion
from tailrace.core.monitoring import HOUR_MS
from tailrace.errors import BadRecord
from tailrace.feedback.intake import Intake
from tailrace.feedback.label_writer import LabelWriter
from tailrace.feedback.outcomes import reports_of
from tailrace.feedback.predictions import PredictionReader, sampled
from tailrace.feedback.publisher import Publisher
from tailrace.feedback.state import FeedbackState
from tailrace.feedback.store import StateStore
from tailrace.runtime.dead_letters import dead_letter
from tailrace.usecase.declaration import UseCase
from tailrace.usecase.sources import Label

_VALUE_OF = attrgetter("value")
CLOCK_EVERY_MS = 1_000
"""How often the monitor's state is stored between ticks. A crash loses that much of the counts
that drift of features and broken joins are judged by, and nothing else."""


class FeedbackProcessor:
    """Joins, counts and decides.

    Args:
        use_case: The use case.
        read_changelog: Gives the changelog from its beginning, as (key, value).
        follow: Gives (epoch, champion) when a newer routing table is in force, else None.
        metrics: Prometheus handles.
    """

    def __init__(
        self,
        use_case: UseCase,
        read_changelog: Callable[[], Iterable[tuple[bytes, bytes | None]]],
        follow: Callable[[], tuple[int, Champion] | None],
        metrics: Metrics,
    ) -> None:
        self._use_case = use_case
        self._topics = Topics(use_case.name)
        self._store = StateStore(use_case, read_changelog)
        self._follow = follow
        self._metrics = metrics
        self._publisher = Publisher(use_case, metrics)
        self._gauges = self._publisher.gauges
        self._label_writers = [
            LabelWriter(self._topics.labels, use_case.name, label.name, auxiliary=label is not use_case.label)
            for label in use_case.labels
        ]
        order, amount = use_case.plan.order, use_case.plan.amount
        self._reader = PredictionReader(len(order), order.index(amount) if amount else None)
        self._clock_due = False
        self._clock_at_ms = 0
        self._epoch = 0
        self._champion: Champion | None = None
        self._intake = Intake(use_case, metrics)
        self._state = FeedbackState(use_case)

    def assigned(self, partitions: Sequence[Assigned]) -> None:
        """Restores everything from the changelog, as of the last commit."""
        self._intake.assigned(partitions)
        self._state = self._store.restore()
        self._intake.restart(self._state.watermark_ms)
        if self._champion is not None:
            self._state.serve(self._champion)
        self._gauges.champion(self._epoch, self._state.monitor)

    def revoked(self, partitions: Sequence[tuple[str, int]]) -> None:
        """Forgets partitions."""
        self._intake.revoked(partitions)

    def ended(self, partitions: Collection[tuple[str, int]]) -> None:
        """Lets time go on without the partitions that are at their end, once they are idle."""
        self._intake.ended(partitions)

    def metadata(self, topic: str, partition: int) -> str:
        """A `Position` as JSON."""
        return self._intake.metadata(topic, partition, self._epoch)

    def unsettled(self) -> bool:
        """True until the followed epoch stands in the metadata of every partition."""
        return any(position.epoch != self._epoch for position in self._intake.committed.values())

    def process(self, batch: Sequence[Message], now_ms: int) -> list[Output]:
        """Takes a micro-batch and, where stream time has come to a new hour, decides."""
        outputs: list[Output] = []
        followed = self._follow()
        if followed is not None:
            self._epoch, self._champion = followed
            outputs += self._publisher.alarms(self._state.serve(self._champion))
            self._gauges.champion(self._epoch, self._state.monitor)
        by_topic = self._intake.by_topic(batch, now_ms)
        self._predictions(by_topic.get(self._topics.predictions, []), now_ms)
        self._predictions(by_topic.get(self._topics.shadow, []), now_ms)
        outcomes, letters = self._intake.outcomes(by_topic, now_ms)
        outputs += letters
        for topic, records in outcomes:
            for at, label in enumerate(self._use_case.labels):
                if label.topic.name == topic:
                    self._state.observe(at, reports_of(label, records))
        for message in by_topic.get(self._topics.retraining, []):
            self._clock_due |= self._publisher.take_retraining(self._state.monitor, message)
        return outputs + self._advance(now_ms)

    def _predictions(self, messages: list[Message], now_ms: int) -> None:  # hot path
        if not messages:
            return
        is_traffic = messages[0].topic == self._topics.predictions
        monitor = self._state.monitor
        judged = is_traffic and self._champion is not None and monitor.wants_vectors
        batch = self._reader.read(list(map(_VALUE_OF, messages)), whole=judged and monitor.sample.shift == 0)
        arrivals = batch.arrivals
        places = sampled(arrivals, monitor.sample, monitor.version) if judged else []
        if places:
            monitor.vectors(batch.vectors(places), arrivals.score[places])
        self._state.predict(arrivals)
        if is_traffic:
            self._intake.observe_times(messages, arrivals.event_time_ms, now_ms)

    def _advance(self, now_ms: int) -> list[Output]:
        state = self._state
        watermark = self._intake.watermark_ms(now_ms)
        outputs: list[Output] = []
        if watermark is not None and watermark > state.watermark_ms:
            state.advance(watermark)
            broken = state.monitor.advance(watermark)
            outputs += self._publisher.alarms(broken)
            if broken:
                self._clock_due = True
                self._gauges.alarms(state.monitor)
            self._metrics.watermark.set(watermark / 1000)
        outputs += self._labels(state.take_changes())
        tick_ms = state.watermark_ms - state.watermark_ms % HOUR_MS
        if watermark is not None and tick_ms > state.monitor.ticked_ms:
            outputs += self._tick(tick_ms)
            self._clock_due = True
        outputs += self._store.write(state)
        for declared, label in zip(self._use_case.labels, state.labels, strict=True):
            outputs += [self._unattributed(declared, side, now_ms) for side in label.take_side()]
            self._gauges.counted(label.take_counts())
        if self._clock_due or (outputs and now_ms - self._clock_at_ms >= CLOCK_EVERY_MS):
            self._clock_due, self._clock_at_ms = False, now_ms
            outputs += self._store.write_clock(state)
        self._metrics.open_predictions.set(state.open_events)
        return outputs

    def _tick(self, tick_ms: int) -> list[Output]:
        state = self._state
        state.forget(tick_ms)
        expired = self._store.expired(state.watermark_ms)
        since_ms = state.monitor.ticked_ms
        ticked = state.tick(tick_ms)
        counts = [label.counts for label in state.labels]
        return expired + self._publisher.tick(state.overview, counts, tick_ms, since_ms, ticked)

    def _labels(self, changes: list[Changes]) -> list[Output]:
        outputs: list[Output] = []
        for reason, count in enumerate(np.bincount(changes[0].reason).tolist()):
            if count:
                self._metrics.labels.labels(REASONS[reason]).inc(count)
        for writer, label, changed in zip(self._label_writers, self._state.labels, changes, strict=True):
            outputs += writer.records(label.table, changed, label.sources)
        return outputs

    def _unattributed(self, label: Label, side: Unattributed, now_ms: int) -> Output:
        """An outcome that judges nothing is kept as a dead letter: its own bytes are gone, its content is not."""
        self._metrics.dead_letters.labels(side.reason).inc()
        message = Message(label.topic.name, -1, -1, now_ms, side.event_id.encode(), encode(side), [])
        error = BadRecord(side.reason, f"outcome of {side.event_id!r} gives no prediction its {label.name!r}")
        return dead_letter(self._topics, "feedback", message, error, now_ms)
