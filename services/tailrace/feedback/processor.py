"""Feedback as a `Processor`: joins outcomes to predictions, keeps live quality, decides at ticks.

One worker serves a use case: predictions are keyed by entity and outcomes by event, so that only a
worker that reads all partitions of both can join them without a repartitioning topic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from tailrace.backends.codec import EventDecoder, decode, encode
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
from tailrace.core.joins import Changes, Unattributed
from tailrace.core.labels import REASONS
from tailrace.core.monitoring import HOUR_MS, Champion, Suspicion
from tailrace.core.watermarks import EventTimeBounds, PartitionTime, Watermarks, watermark_of
from tailrace.errors import BadRecord
from tailrace.feedback.changelog import Changelog, Clock
from tailrace.feedback.gauges import Gauges
from tailrace.feedback.label_writer import LabelWriter
from tailrace.feedback.predictions import PredictionReader
from tailrace.feedback.state import FeedbackState, horizon_ms, label_name, reports_of
from tailrace.runtime.dead_letters import Quarantine, dead_letter
from tailrace.usecase.declaration import UseCase

_RETRAINING: Any = RetrainingRecord
_TOPIC_OF, _VALUE_OF = attrgetter("topic"), attrgetter("value")
CLOCK_EVERY_MS = 1_000
"""How often the monitor's state is stored between ticks. A crash loses that much of the counts
that drift of features and broken joins are judged by, and nothing else."""
READ_EVERY_MS = 6 * HOUR_MS
"""How often windows that wait for labels are published though nothing in them changed but their age."""


class Position(msgspec.Struct, frozen=True):
    """Commit metadata of a partition: the epoch of the routing table that is followed, and how far its time has come.

    With the time of every partition a restart goes on as if there had been none: one that is read later than
    the others holds stream time back, and no window closes before the outcomes in it were read.
    """

    epoch: int = 0
    time: PartitionTime = PartitionTime()


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
        self._reader = PredictionReader(len(use_case.plan.order))
        self._outcome_decoder = EventDecoder(self._outcomes)
        self._quarantine = Quarantine()
        self._clock_due = False
        self._clock_at_ms = 0
        self._epoch = 0
        self._champion: Champion | None = None
        self._committed: dict[tuple[str, int], Position] = {}
        self._state = FeedbackState(use_case, None)
        self._marks = self._watermarks()
        self._bounds = self._event_time_bounds()

    def assigned(self, partitions: Sequence[Assigned]) -> None:
        """Restores everything from the changelog, as of the last commit."""
        for at in partitions:
            known = decode(Position, at.metadata.encode()) if at.metadata else Position()
            self._committed[at.topic, at.partition] = known
        self._changelog = self._new_changelog()
        self._state = FeedbackState(self._use_case, self._changelog.restore(self._read_changelog()))
        self._marks = self._watermarks()
        self._marks.restore(self._state.watermark_ms if self._state.watermark_ms >= 0 else None)
        for (topic, partition), known in self._committed.items():
            # Stream time follows shadows only where their records state it.
            if known.time.stated or topic in (self._topics.predictions, self._outcomes.name):
                self._marks.assign(topic, partition, known.time)
        self._bounds = self._event_time_bounds()
        if self._champion is not None:
            self._state.serve(self._champion)
        self._gauges.champion(self._epoch, self._state)

    def revoked(self, partitions: Sequence[tuple[str, int]]) -> None:
        """Forgets partitions."""
        for at in partitions:
            self._committed.pop(at, None)
            self._marks.revoke(*at)

    def metadata(self, topic: str, partition: int) -> str:
        """A `Position` as JSON."""
        position = self._committed[topic, partition] = Position(self._epoch, self._marks.known(topic, partition))
        return encode(position).decode()

    def unsettled(self) -> bool:
        """True until the followed epoch stands in the metadata of every partition."""
        return any(position.epoch != self._epoch for position in self._committed.values())

    def process(self, batch: Sequence[Message], now_ms: int) -> list[Output]:
        """Takes a micro-batch and, where stream time has come to a new hour, decides."""
        outputs: list[Output] = []
        followed = self._follow()
        if followed is not None:
            self._epoch, self._champion = followed
            outputs += self._alarms(self._state.serve(self._champion))
            self._gauges.champion(self._epoch, self._state)
        by_topic = self._by_topic(batch, now_ms)
        parts = [
            self._predictions(by_topic.get(self._topics.predictions, []), now_ms),
            self._predictions(by_topic.get(self._topics.shadow, []), now_ms),
            self._take_outcomes(by_topic.get(self._outcomes.name, []), now_ms, outputs),
        ]
        for message in by_topic.get(self._topics.retraining, []):
            self._take_retraining(message)
        outputs += self._advance(parts, now_ms)
        return outputs

    def _by_topic(self, batch: Sequence[Message], now_ms: int) -> dict[str, list[Message]]:  # hot path
        """Records in order; those that state a watermark are taken note of and left out."""
        found: dict[str, list[Message]] = {}
        for topic, run in groupby(batch, _TOPIC_OF):
            found.setdefault(topic, []).extend(run)
        for topic, messages in found.items():
            if None in map(_VALUE_OF, messages):
                found[topic] = [message for message in messages if not self._is_watermark(message, now_ms)]
        return found

    def _is_watermark(self, message: Message, now_ms: int) -> bool:
        mark = watermark_of(message.value, message.headers)
        if mark is not None:
            self._marks.punctuate(message.topic, message.partition, mark, now_ms)
        return mark is not None

    def _predictions(self, messages: list[Message], now_ms: int) -> Changes:  # hot path
        if not messages:
            return Changes.none()
        is_traffic = messages[0].topic == self._topics.predictions
        watched = is_traffic and self._champion is not None and self._state.monitor.wants_vectors
        arrivals = self._reader.read(list(map(_VALUE_OF, messages)), self._state.monitor if watched else None)
        changes = self._state.predict(arrivals)
        if is_traffic:
            self._observe_times(messages, arrivals.event_time_ms, now_ms)
        return changes

    def _observe_times(self, messages: list[Message], times_ms: NDArray[np.int64], now_ms: int) -> None:
        partitions = np.array([message.partition for message in messages])
        for partition in np.unique(partitions).tolist():
            newest_ms = int(times_ms[partitions == partition].max())
            self._marks.observe(messages[0].topic, partition, newest_ms, now_ms)

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
            broken = state.monitor.advance(watermark)
            outputs += self._alarms(broken)
            self._clock_due = self._clock_due or bool(broken)
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
        readings, since_ms = state.readings(), state.monitor.ticked_ms
        suspicions = [Suspicion.of_delay(readings.drift)] if readings.drift is not None else []
        for decided in state.monitor.tick(tick_ms, state.windows, suspicions):
            if isinstance(decided, Alarm):
                outputs += self._alarms([decided])
            elif isinstance(decided, Drift):
                self._gauges.drift(decided)
                outputs.append(Output(self._topics.drift, decided.subject.encode(), encode(decided)))
            else:
                outputs.append(Output(self._topics.retraining, decided.use_case.encode(), encode(decided)))
        for key in state.take_changed_windows(readings if tick_ms // READ_EVERY_MS > since_ms // READ_EVERY_MS else ()):
            record = state.windows.record(
                key,
                use_case=plan.use_case,
                label_name=label_name(self._use_case),
                threshold=plan.threshold,
                watermark_ms=tick_ms,
                provisional=readings.provisional(key),
                estimate=readings.estimate(key),
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
