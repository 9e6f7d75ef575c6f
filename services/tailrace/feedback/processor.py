"""Feedback as a `Processor`: joins outcomes to predictions, keeps live quality, decides at ticks.

One worker serves a use case: predictions are keyed by entity and outcomes by event, so that only a
worker that reads all partitions of both can join them without a repartitioning topic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
import numpy as np

from tailrace.backends.codec import BatchDecoder, EventDecoder, decode, encode
from tailrace.backends.ports import Assigned, Message, Output
from tailrace.backends.telemetry import Metrics
from tailrace.contracts.records import (
    Alarm,
    CandidateRefused,
    CandidateRegistered,
    Drift,
    LabelledPrediction,
    RetrainingRecord,
)
from tailrace.contracts.topics import Topics
from tailrace.core.durations import milliseconds
from tailrace.core.joins import Change, Scored, Unattributed
from tailrace.core.monitoring import HOUR_MS, Champion
from tailrace.core.quality import WindowKey
from tailrace.core.watermarks import EventTimeBounds, Watermarks, watermark_of
from tailrace.errors import BadRecord
from tailrace.feedback.changelog import Changelog, Clock
from tailrace.feedback.state import FeedbackState, label_name, label_of, outcome_of
from tailrace.runtime.dead_letters import Quarantine, dead_letter
from tailrace.usecase.declaration import UseCase

_RETRAINING: Any = RetrainingRecord
CLOCK_EVERY_MS = 1_000
"""How often the monitor's state is stored between ticks. A crash loses that much of the feature counts
that drift is judged by, and nothing else."""


class Vector(msgspec.Struct, frozen=True, gc=False):
    """The part of a `Prediction` that feature drift needs; decoded from the same bytes."""

    variant: str
    model_version: str
    score: float
    features: list[float | None]


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
        self._changelog = Changelog(self._topics.feedback_changelog)
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
        self._state = FeedbackState(self._use_case, self._changelog.restore(self._read_changelog()))
        self._marks = self._watermarks()
        self._marks.restore(self._state.watermark_ms if self._state.watermark_ms >= 0 else None)
        self._bounds = self._event_time_bounds()
        if self._champion is not None:
            self._state.serve(self._champion)

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
        by_topic: dict[str, list[Message]] = {}
        for message in batch:
            mark = watermark_of(message.value, message.headers)
            if mark is not None:
                self._marks.punctuate(message.topic, message.partition, mark, now_ms)
            else:
                by_topic.setdefault(message.topic, []).append(message)
        changes: list[Change] = []
        for topic in (self._topics.predictions, self._topics.shadow):
            changes += self._predictions(by_topic.get(topic, []), now_ms)
        changes += self._take_outcomes(by_topic.get(self._outcomes.name, []), now_ms, outputs)
        for message in by_topic.get(self._topics.retraining, []):
            self._take_retraining(message)
        outputs += self._advance(changes, now_ms)
        return outputs

    def _predictions(self, messages: list[Message], now_ms: int) -> list[Change]:
        if not messages:
            return []
        values = [message.value for message in messages]
        changes: list[Change] = []
        newest: dict[int, int] = {}
        for message, scored in zip(messages, self._scored.decode(values), strict=True):
            if isinstance(scored, BadRecord):
                # Written by inference alone: an unreadable one is a fault of the deploy, not of the data.
                raise scored
            newest[message.partition] = max(newest.get(message.partition, 0), scored.event_time_ms)
            changes += self._state.predict(scored)
        if messages[0].topic == self._topics.predictions:
            for partition, time_ms in newest.items():
                self._marks.observe(messages[0].topic, partition, time_ms, now_ms)
            self._observe_vectors(values)
        return changes

    def _observe_vectors(self, values: list[bytes | None]) -> None:
        champion = self._champion
        if champion is None or not self._state.monitor.wants_vectors:
            return
        taken = [
            v for v in self._vectors.decode(values) if v.variant == "champion" and v.model_version == champion.version
        ]
        if taken:
            width = len(self._use_case.plan.order)
            matrix = np.array([v.features for v in taken], dtype=np.float32).reshape(len(taken), width)
            self._state.monitor.vectors(matrix, np.array([v.score for v in taken]))

    def _take_outcomes(self, messages: list[Message], now_ms: int, outputs: list[Output]) -> list[Change]:
        if not messages:
            return []
        records: list[Any] = self._outcome_decoder.decode([message.value for message in messages])
        self._check_times(messages, records, now_ms)
        changes: list[Change] = []
        good = 0
        for message, record in zip(messages, records, strict=True):
            if isinstance(record, BadRecord):
                self._metrics.dead_letters.labels(record.reason).inc()
                outputs.append(dead_letter(self._topics, "feedback", message, record, now_ms))
                continue
            good += 1
            time_ms = int(getattr(record, self._outcomes.event_time))
            self._marks.observe(message.topic, message.partition, time_ms, now_ms)
            changes += self._state.observe(label_of(self._use_case, record), outcome_of(self._use_case, record))
        self._quarantine.observe(good, len(messages) - good)
        return changes

    def _check_times(self, messages: list[Message], records: list[Any], now_ms: int) -> None:
        """Replaces outcomes whose event time cannot be believed by their `BadRecord`."""
        for place, (message, record) in enumerate(zip(messages, records, strict=True)):
            if isinstance(record, BadRecord):
                continue
            time_ms = np.array([getattr(record, self._outcomes.event_time)], dtype=np.int64)
            ahead, behind = self._bounds.check(message.partition, time_ms, now_ms)
            if ahead[0]:
                records[place] = BadRecord("future", f"{self._outcomes.event_time} is ahead of the wall clock")
            elif behind[0]:
                records[place] = BadRecord("too_old", f"{self._outcomes.event_time} is far behind its partition")

    def _take_retraining(self, message: Message) -> None:
        record = decode(_RETRAINING, message.value or b"")
        if isinstance(record, CandidateRegistered | CandidateRefused):
            self._state.monitor.retrain.ended(record.run_id)
            self._clock_due = True

    def _advance(self, changes: list[Change], now_ms: int) -> list[Output]:
        state = self._state
        watermark = self._marks.current(now_ms)
        outputs: list[Output] = []
        if watermark is not None and watermark > state.watermark_ms:
            changes = changes + state.advance(watermark)
            self._metrics.watermark.set(watermark / 1000)
        outputs += [self._label(change) for change in changes]
        tick_ms = state.watermark_ms - state.watermark_ms % HOUR_MS
        if watermark is not None and tick_ms > state.monitor.ticked_ms:
            outputs += self._tick(tick_ms)
            self._clock_due = True
        outputs += [self._changelog.event(event_id, state.event(event_id)) for event_id in sorted(state.take_touched())]
        outputs += [self._unattributed(side, now_ms) for side in state.take_side()]
        if self._clock_due or (outputs and now_ms - self._clock_at_ms >= CLOCK_EVERY_MS):
            self._clock_due, self._clock_at_ms = False, now_ms
            outputs.append(self._changelog.clock(Clock(state.watermark_ms, state.monitor.snapshot())))
        self._metrics.open_predictions.set(state.open_events)
        return outputs

    def _tick(self, tick_ms: int) -> list[Output]:
        state, plan = self._state, self._use_case.plan
        outputs: list[Output] = []
        for key, counts in state.forget(tick_ms):
            outputs.append(self._changelog.window(key, counts))
        for decided in state.monitor.tick(tick_ms, state.windows):
            if isinstance(decided, Alarm):
                outputs += self._alarms([decided])
            elif isinstance(decided, Drift):
                outputs.append(Output(self._topics.drift, decided.subject.encode(), encode(decided)))
            else:
                self._metrics.retrain_requests.labels(decided.trigger).inc()
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
            self._publish(key, record.metrics)
        return outputs

    def _alarms(self, alarms: list[Alarm]) -> list[Output]:
        for alarm in alarms:
            self._metrics.alarms.labels(alarm.kind).inc()
        return [Output(self._topics.alarms, alarm.subject.encode(), encode(alarm)) for alarm in alarms]

    def _publish(self, key: WindowKey, metrics: dict[str, float | None]) -> None:
        if key.slice == "" and key.variant == "champion" and self._state.windows.maturity(key) > 0.0:
            for name, value in metrics.items():
                if value is not None:
                    self._metrics.quality.labels(name, key.model_version).set(value)

    def _label(self, change: Change) -> Output:
        prediction = change.prediction
        self._metrics.labels.labels(change.reason).inc()
        record = LabelledPrediction(
            prediction_id=prediction.prediction_id,
            event_id=prediction.event_id,
            use_case=self._topics.use_case,
            label_name=label_name(self._use_case),
            label_version=change.version,
            label=change.label,
            status=change.status,
            reason=change.reason,
            event_time_ms=prediction.event_time_ms,
            known_at_ms=change.known_at_ms,
            outcome_time_ms=change.outcome_time_ms,
            variant=prediction.variant,
            model_version=prediction.model_version,
            score=prediction.score,
            decision=prediction.decision,
            key=prediction.key,
            entities=prediction.entities,
            slices=prediction.slices,
        )
        return Output(self._topics.labels, prediction.prediction_id.encode(), encode(record))

    def _unattributed(self, side: Unattributed, now_ms: int) -> Output:
        """An outcome that judges nothing is kept as a dead letter: its own bytes are gone, its content is not."""
        self._metrics.dead_letters.labels(side.reason).inc()
        message = Message(self._outcomes.name, -1, -1, now_ms, side.event_id.encode(), encode(side), [])
        error = BadRecord(side.reason, f"outcome of event {side.event_id!r} judges no prediction")
        return dead_letter(self._topics, "feedback", message, error, now_ms)

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
