"""Feedback as a `Processor`: joins outcomes to predictions, keeps live quality, decides at ticks.

One worker serves a use case: predictions are keyed by entity and outcomes by event, so that only a
worker that reads all partitions of both can join them without a repartitioning topic.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Executor
from operator import attrgetter

from tailrace.backends.ports import Assigned, Message, Output
from tailrace.backends.telemetry import Metrics
from tailrace.contracts.topics import Topics
from tailrace.core.monitor_state import Champion
from tailrace.core.monitoring import HOUR_MS
from tailrace.feedback.intake import Intake
from tailrace.feedback.label_publisher import LabelPublisher
from tailrace.feedback.predictions import PredictionReader, sampled
from tailrace.feedback.publisher import Publisher
from tailrace.feedback.state import FeedbackState
from tailrace.feedback.store import StateStore
from tailrace.usecase.declaration import UseCase

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
        beside: Reads the changelog beside the worker, where something was erased; None: in between.
    """

    def __init__(
        self,
        use_case: UseCase,
        read_changelog: Callable[[], Iterable[tuple[bytes, bytes | None]]],
        follow: Callable[[], tuple[int, Champion] | None],
        metrics: Metrics,
        beside: Executor | None = None,
    ) -> None:
        self._use_case = use_case
        self._topics = Topics(use_case.name)
        self._store = StateStore(use_case, read_changelog, beside)
        self._follow = follow
        self._metrics = metrics
        self._publisher = Publisher(use_case, metrics)
        self._gauges = self._publisher.gauges
        self._labels = LabelPublisher(use_case, metrics)
        self._reader = PredictionReader.of(use_case.plan)
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
        for at, reports in outcomes:
            self._state.observe(at, reports)
        for message in by_topic.get(self._topics.retraining, []):
            self._state.erasing.take(message)
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
        outputs += self._labels.changed(state.labels, state.take_changes())
        tick_ms = state.watermark_ms - state.watermark_ms % HOUR_MS
        if watermark is not None and tick_ms > state.monitor.ticked_ms:
            outputs += self._tick(tick_ms)
            self._clock_due = True
        # Behind the tick: what it counts is still in the table.
        outputs += state.erasing.erase(state.labels, state.monitor, state.watermark_ms)
        outputs += self._store.write(state)
        outputs += self._store.sweep()
        outputs += self._labels.side(state.labels, now_ms)
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
