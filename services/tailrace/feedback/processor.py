"""Feedback as a `Processor`: joins outcomes to predictions, keeps live quality, decides at ticks.

One worker serves a use case: predictions are keyed by entity and outcomes by event, so that only a
worker that reads all partitions of both can join them without a repartitioning topic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from tailrace.backends.codec import BatchDecoder, EventDecoder, decode, encode
from tailrace.backends.ports import Assigned, Message, Output
from tailrace.backends.telemetry import Metrics
from tailrace.contracts.records import (
    Alarm,
    CandidateRefused,
    CandidateRegistered,
    Drift,
    RetrainingRecord,
    RetrainRequested,
)
from tailrace.contracts.topics import Topics
from tailrace.core.durations import milliseconds
from tailrace.core.joins import Arrivals, Changes, Scored, Unattributed
from tailrace.core.labels import REASONS
from tailrace.core.monitoring import HOUR_MS, Champion
from tailrace.core.watermarks import EventTimeBounds, Watermarks, watermark_of
from tailrace.errors import BadRecord
from tailrace.feedback.changelog import Changelog, Clock
from tailrace.feedback.gauges import Gauges
from tailrace.feedback.label_writer import LabelWriter
from tailrace.feedback.state import FeedbackState, horizon_ms, label_name, reports_of
from tailrace.runtime.dead_letters import Quarantine, dead_letter
from tailrace.usecase.declaration import UseCase

_RETRAINING: Any = RetrainingRecord
CLOCK_EVERY_MS = 1_000
"""How often the monitor's state is stored between ticks. A crash loses that much of the feature counts
that drift is judged by, and nothing else."""


class Vector(Scored, frozen=True, gc=False):
    """The part of a `Prediction` that feature drift needs too; decoded from the same bytes."""

    features: tuple[float | None, ...] = ()


class FollowedEpoch(msgspec.Struct):
    """Commit metadata: epoch of the routing table that is followed."""

    epoch: int = 0


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
        self._outcomes = use_case.label.topic
        self._read_changelog = read_changelog
        self._follow = follow
        self._metrics = metrics
        self._gauges = Gauges(metrics)
        self._changelog = self._new_changelog()
        self._label_writer = LabelWriter(self._topics.labels, use_case.name, label_name(use_case))
        self._scored = BatchDecoder(Scored)
        self._vectors = BatchDecoder(Vector)
        self._outcome_decoder = EventDecoder(self._outcomes)
        self._quarantine = Quarantine()
        self._clock_due = False
        self._clock_at_ms = 0
        self._epoch = 0
        self._champion: Champion | None = None
        self._committed: dict[tuple[str, int], int] = {}
        self._state = FeedbackState(use_case, None)
        self._marks = self._watermarks()
        self._bounds = self._event_time_bounds()

    def assigned(self, partitions: Sequence[Assigned]) -> None:
        """Restores everything from the changelog, as of the last commit."""
        for at in partitions:
            known = decode(FollowedEpoch, at.metadata.encode()) if at.metadata else FollowedEpoch()
            self._committed[at.topic, at.partition] = known.epoch
        self._changelog = self._new_changelog()
        self._state = FeedbackState(self._use_case, self._changelog.restore(self._read_changelog()))
        self._marks = self._watermarks()
        # RETRAINING has no part in stream time.
        read = [(at.topic, at.partition) for at in partitions if at.offset > 0 and at.topic != self._topics.retraining]
        self._marks.restore(self._state.watermark_ms if self._state.watermark_ms >= 0 else None, read)
        self._bounds = self._event_time_bounds()
        if self._champion is not None:
            self._state.serve(self._champion)
        self._gauges.champion(self._epoch, self._state)

    def revoked(self, partitions: Sequence[tuple[str, int]]) -> None:
        """Forgets partitions."""
        for at in partitions:
            self._committed.pop(at, None)

    def metadata(self, topic: str, partition: int) -> str:
        """Epoch of the routing table that is followed, as JSON."""
        self._committed[topic, partition] = self._epoch
        return encode(FollowedEpoch(self._epoch)).decode()

    def unsettled(self) -> bool:
        """True until the followed epoch stands in the metadata of every partition."""
        return any(epoch != self._epoch for epoch in self._committed.values())

    def process(self, batch: Sequence[Message], now_ms: int) -> list[Output]:
        """Takes a micro-batch and, where stream time has come to a new hour, decides."""
        outputs: list[Output] = []
        followed = self._follow()
        if followed is not None:
            self._epoch, self._champion = followed
            outputs += self._alarms(self._state.serve(self._champion))
            self._gauges.champion(self._epoch, self._state)
        by_topic: dict[str, list[Message]] = {}
        for message in batch:
            mark = watermark_of(message.value, message.headers)
            if mark is not None:
                self._marks.punctuate(message.topic, message.partition, mark, now_ms)
            else:
                by_topic.setdefault(message.topic, []).append(message)
        parts = [
            self._predictions(by_topic.get(self._topics.predictions, []), now_ms),
            self._predictions(by_topic.get(self._topics.shadow, []), now_ms),
            self._take_outcomes(by_topic.get(self._outcomes.name, []), now_ms, outputs),
        ]
        for message in by_topic.get(self._topics.retraining, []):
            self._take_retraining(message)
        outputs += self._advance(parts, now_ms)
        return outputs

    def _predictions(self, messages: list[Message], now_ms: int) -> Changes:  # hot path
        if not messages:
            return Changes.none()
        is_traffic = messages[0].topic == self._topics.predictions
        watched = is_traffic and self._champion is not None and self._state.monitor.wants_vectors
        decoder = self._vectors if watched else self._scored
        scored = decoder.decode([message.value for message in messages])
        bad = next((record for record in scored if isinstance(record, BadRecord)), None)
        if bad is not None:
            # Written by inference alone: an unreadable one is a fault of the deploy, not of the data.
            raise bad
        arrivals = Arrivals.of(scored)
        changes = self._state.predict(arrivals)
        if is_traffic:
            self._observe_times(messages, arrivals.event_time_ms, now_ms)
        if watched:
            self._observe_vectors(scored)
        return changes

    def _observe_times(self, messages: list[Message], times_ms: NDArray[np.int64], now_ms: int) -> None:
        partitions = np.array([message.partition for message in messages])
        for partition in np.unique(partitions).tolist():
            newest_ms = int(times_ms[partitions == partition].max())
            self._marks.observe(messages[0].topic, partition, newest_ms, now_ms)

    def _observe_vectors(self, scored: list[Vector]) -> None:
        version = self._state.monitor.version
        taken = [v for v in scored if v.variant == "champion" and v.model_version == version]
        if taken:
            width = len(self._use_case.plan.order)
            matrix = np.array([v.features for v in taken], dtype=np.float32).reshape(len(taken), width)
            self._state.monitor.vectors(matrix, np.array([v.score for v in taken]))

    def _take_outcomes(self, messages: list[Message], now_ms: int, outputs: list[Output]) -> Changes:
        if not messages:
            return Changes.none()
        records: list[Any] = self._outcome_decoder.decode([message.value for message in messages])
        self._check_times(messages, records, now_ms)
        good: list[Any] = []
        carriers: list[Message] = []
        for message, record in zip(messages, records, strict=True):
            if isinstance(record, BadRecord):
                self._metrics.dead_letters.labels(record.reason).inc()
                outputs.append(dead_letter(self._topics, "feedback", message, record, now_ms))
            else:
                good.append(record)
                carriers.append(message)
        changes = Changes.none()
        if good:
            reports = reports_of(self._use_case, good)
            self._observe_times(carriers, reports.time_ms, now_ms)
            changes = self._state.observe(reports)
        self._quarantine.observe(len(good), len(messages) - len(good))
        return changes

    def _check_times(self, messages: list[Message], records: list[Any], now_ms: int) -> None:
        """Replaces outcomes whose event time cannot be believed by their `BadRecord`."""
        name = self._outcomes.event_time
        places: dict[int, list[int]] = {}
        for place, (message, record) in enumerate(zip(messages, records, strict=True)):
            if not isinstance(record, BadRecord):
                places.setdefault(message.partition, []).append(place)
        for partition, of_partition in places.items():
            times_ms = np.array([getattr(records[place], name) for place in of_partition], dtype=np.int64)
            ahead, behind = self._bounds.check(partition, times_ms, now_ms)
            for at in np.flatnonzero(ahead).tolist():
                records[of_partition[at]] = BadRecord("future", f"{name} is ahead of the wall clock")
            for at in np.flatnonzero(behind).tolist():
                records[of_partition[at]] = BadRecord("too_old", f"{name} is far behind its partition")

    def _take_retraining(self, message: Message) -> None:
        record = decode(_RETRAINING, message.value or b"")
        if isinstance(record, RetrainRequested):
            self._metrics.retrain_requests.labels(record.trigger).inc()
        elif isinstance(record, CandidateRegistered):
            self._state.monitor.retrain.ended(record.run_id, record.model_version, record.registered_at_ms)
            self._clock_due = True
        elif isinstance(record, CandidateRefused):
            self._state.monitor.retrain.ended(record.run_id)
            self._clock_due = True

    def _advance(self, parts: list[Changes], now_ms: int) -> list[Output]:
        state = self._state
        watermark = self._marks.current(now_ms)
        outputs: list[Output] = []
        if watermark is not None and watermark > state.watermark_ms:
            parts.append(state.advance(watermark))
            self._metrics.watermark.set(watermark / 1000)
        outputs += self._labels(Changes.joined(parts))
        tick_ms = state.watermark_ms - state.watermark_ms % HOUR_MS
        if watermark is not None and tick_ms > state.monitor.ticked_ms:
            outputs += self._tick(tick_ms)
            self._clock_due = True
        outputs += state.store(self._changelog)
        outputs += [self._unattributed(side, now_ms) for side in state.take_side()]
        if self._clock_due or (outputs and now_ms - self._clock_at_ms >= CLOCK_EVERY_MS):
            self._clock_due, self._clock_at_ms = False, now_ms
            outputs.append(self._changelog.clock(Clock(state.watermark_ms, state.monitor.snapshot())))
        self._metrics.open_predictions.set(state.open_events)
        return outputs

    def _tick(self, tick_ms: int) -> list[Output]:
        state, plan = self._state, self._use_case.plan
        outputs: list[Output] = []
        state.forget(tick_ms)
        outputs += self._changelog.expired(state.watermark_ms)
        for decided in state.monitor.tick(tick_ms, state.windows):
            if isinstance(decided, Alarm):
                outputs += self._alarms([decided])
            elif isinstance(decided, Drift):
                self._gauges.drift(decided)
                outputs.append(Output(self._topics.drift, decided.subject.encode(), encode(decided)))
            else:
                outputs.append(Output(self._topics.retraining, decided.use_case.encode(), encode(decided)))
        for key in state.take_changed_windows():
            record = state.windows.record(
                key,
                use_case=plan.use_case,
                label_name=label_name(self._use_case),
                threshold=plan.threshold,
                watermark_ms=tick_ms,
            )
            outputs.append(Output(self._topics.quality, key.text().encode(), encode(record)))
        self._gauges.tick(state, plan.threshold)
        return outputs

    def _alarms(self, alarms: list[Alarm]) -> list[Output]:
        for alarm in alarms:
            if not alarm.resolved:
                self._metrics.alarms.labels(alarm.kind).inc()
        return [Output(self._topics.alarms, alarm.subject.encode(), encode(alarm)) for alarm in alarms]

    def _labels(self, changes: Changes) -> list[Output]:
        for reason, count in enumerate(np.bincount(changes.reason).tolist()):
            if count:
                self._metrics.labels.labels(REASONS[reason]).inc(count)
        return self._label_writer.records(self._state.table, changes)

    def _unattributed(self, side: Unattributed, now_ms: int) -> Output:
        """An outcome that judges nothing is kept as a dead letter: its own bytes are gone, its content is not."""
        self._metrics.dead_letters.labels(side.reason).inc()
        message = Message(self._outcomes.name, -1, -1, now_ms, side.event_id.encode(), encode(side), [])
        error = BadRecord(side.reason, f"outcome of event {side.event_id!r} judges no prediction")
        return dead_letter(self._topics, "feedback", message, error, now_ms)

    def _new_changelog(self) -> Changelog:
        return Changelog(self._topics.feedback_changelog, horizon_ms(self._use_case))

    def _watermarks(self) -> Watermarks:
        topics, lateness = self._topics, milliseconds(self._use_case.requests.lateness)
        return Watermarks(
            {
                topics.predictions: lateness,
                topics.shadow: lateness,
                self._outcomes.name: milliseconds(self._outcomes.lateness),
            }
        )

    def _event_time_bounds(self) -> EventTimeBounds:
        return EventTimeBounds(
            max_ahead_ms=milliseconds(self._outcomes.max_ahead), max_behind_ms=milliseconds(self._outcomes.max_behind)
        )
