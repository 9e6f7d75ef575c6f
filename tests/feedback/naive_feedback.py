"""Feedback record by record, with counters and structs: what the fast one must put out, byte for byte."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
from naive_join import Change, Event, NaiveJoin

from tailrace.backends.codec import decode, encode
from tailrace.backends.ports import Message
from tailrace.contracts.quality import Alarm, Drift, Quality
from tailrace.contracts.records import LabelledPrediction, Prediction
from tailrace.contracts.retraining import EraseRequested, OperatorAction
from tailrace.contracts.topics import Topics
from tailrace.core.joins import Outcome, Scored
from tailrace.core.judged import Judged as Judgements
from tailrace.core.metrics import metrics_of_counts
from tailrace.core.monitor_state import Champion
from tailrace.core.monitoring import HOUR_MS, Monitor
from tailrace.core.quality import DAY_MS
from tailrace.core.scoring import bin_of_score
from tailrace.core.watermarks import Watermarks, watermark_of
from tailrace.core.window_counts import WindowKey
from tailrace.errors import BadRecord
from tailrace.feedback.publisher import READ_EVERY_MS
from tailrace.feedback.specs import join_spec, kept_ms, monitor_spec
from tailrace.usecase.declaration import UseCase

Record = tuple[str, bytes | None, bytes | None]


class NaiveWindows:
    """Counts of every window in counters; what `Monitor` asks of `QualityWindows`."""

    def __init__(self) -> None:
        self.predictions: Counter[WindowKey] = Counter()
        self.pairs: Counter[tuple[WindowKey, bool]] = Counter()
        self.cells: dict[WindowKey, dict[tuple[int, bool], int]] = {}
        self.changed: set[WindowKey] = set()

    def __iter__(self) -> Iterator[WindowKey]:
        return iter(self.cells)

    def predicted(self, prediction: Scored) -> None:
        for key in self._keys(prediction):
            self.predictions[key] += 1

    def paired(self, shadow: Scored, traffic: Scored) -> None:
        for key in self._keys(shadow):
            self.pairs[key, shadow.decision == traffic.decision] += 1

    def labelled(self, prediction: Scored, label: float, times: int) -> None:
        for key in self._keys(prediction):
            cell = (bin_of_score(prediction.score), label > 0.0)
            self.cells[key][cell] = self.cells[key].get(cell, 0) + times

    def final(self, key: WindowKey) -> int:
        return sum(self.cells[key].values())

    def maturity(self, key: WindowKey) -> float:
        return self.final(key) / self.predictions[key] if self.predictions[key] else 0.0

    def metrics(self, keys: Iterable[WindowKey], threshold: float) -> dict[str, float | None]:
        return metrics_of_counts(*(np.array(c, dtype=np.int64) for c in self._sparse(keys)), threshold=threshold)

    def drop_before(self, start_ms: int) -> list[WindowKey]:
        old = sorted(key for key in self.cells if key.start_ms < start_ms)
        for key in old:
            del self.cells[key]
            self.changed.discard(key)
        return old

    def record(self, key: WindowKey, use_case: UseCase, tick_ms: int) -> Quality:
        bins, n, positives = self._sparse([key])
        threshold = use_case.plan.threshold
        return Quality(
            use_case=use_case.name,
            label_name=use_case.label.value,
            window_start_ms=key.start_ms,
            window_end_ms=key.start_ms + DAY_MS,
            variant=key.variant,
            model_version=key.model_version,
            slice=key.slice,
            predictions=self.predictions[key],
            labelled=self.final(key),
            final=self.final(key),
            maturity=self.maturity(key),
            bins=bins,
            n=n,
            positives=positives,
            metrics=self.metrics([key], threshold) | {"threshold": threshold},
            watermark_ms=tick_ms,
            paired=self.pairs[key, True] + self.pairs[key, False],
            disagreements=self.pairs[key, False],
        )

    def _sparse(self, keys: Iterable[WindowKey]) -> tuple[list[int], list[int], list[int]]:
        n: Counter[int] = Counter()
        hits: Counter[int] = Counter()
        for key in keys:
            for (place, positive), count in self.cells[key].items():
                n[place] += count
                hits[place] += count * positive
        bins = sorted(place for place in n if n[place])
        return bins, [n[place] for place in bins], [hits[place] for place in bins]

    def keys_of(self, prediction: Scored) -> list[WindowKey]:
        day = prediction.event_time_ms // DAY_MS * DAY_MS
        slices = msgspec.json.decode(prediction.slices, type=dict[str, str])
        parts = ["", *(f"{column}={value}" for column, value in slices.items())]
        return [WindowKey(day, prediction.variant, prediction.model_version, part) for part in parts]

    def _keys(self, prediction: Scored) -> list[WindowKey]:
        keys = self.keys_of(prediction)
        for key in keys:
            self.cells.setdefault(key, {})
        self.changed.update(keys)
        return keys


class NaiveFeedback:
    """The labels, quality, drift, alarms, requests and dead letters that a stream must give.

    Args:
        use_case: The use case.
        champion: Serves from the beginning.
    """

    def __init__(self, use_case: UseCase, champion: Champion) -> None:
        self._use_case, self._topics = use_case, Topics(use_case.name)
        self._join, self._windows = NaiveJoin(join_spec(use_case.label)), NaiveWindows()
        self._monitor = Monitor(monitor_spec(use_case))
        self._monitor.serve(champion)
        outcomes = use_case.label.topic.name
        self._marks = Watermarks(dict.fromkeys((self._topics.predictions, self._topics.shadow, outcomes), 5_000))
        self._reached = -1
        self._erasing: list[EraseRequested] = []

    def process(self, batch: Sequence[Message], now_ms: int) -> list[Record]:
        """Takes a batch: predictions, then shadows, then outcomes, then time."""
        changes: list[Change] = []
        letters: list[Record] = []
        for topic in (self._topics.predictions, self._topics.shadow, self._use_case.label.topic.name):
            for message in [m for m in batch if m.topic == topic]:
                mark = watermark_of(message.value, message.headers)
                if mark is not None:
                    self._marks.punctuate(topic, message.partition, mark, now_ms)
        for topic in (self._topics.predictions, self._topics.shadow):
            for message in [m for m in batch if m.topic == topic and m.value is not None]:
                changes += self._predict(message, now_ms)
        for message in batch:
            if message.topic == self._use_case.label.topic.name and message.value is not None:
                try:
                    changes += self._observe(message, now_ms)
                except BadRecord:
                    letters.append((self._topics.dead_letters, message.key, message.value))
        watermark = self._marks.current(now_ms)
        if watermark is not None and watermark > self._reached:
            self._reached = watermark
            changes += self._count(self._join.advance(watermark))
            outputs = [(self._topics.alarms, a.subject.encode(), encode(a)) for a in self._monitor.advance(watermark)]
        else:
            outputs = []
        outputs += [*letters, *(self._label(change) for change in changes)]
        tick_ms = self._reached // HOUR_MS * HOUR_MS
        if tick_ms > self._monitor.ticked_ms:
            outputs += self._tick(tick_ms)
        for message in [m for m in batch if m.topic == self._topics.retraining]:
            self._erasing.append(decode(EraseRequested, message.value or b""))
        due = [request for request in self._erasing if request.before_ms <= self._reached]
        self._erasing = [request for request in self._erasing if request not in due]
        outputs += self._erase(due)
        side, self._join.side = self._join.side, []
        return outputs + [(self._topics.dead_letters, one.event_id.encode(), encode(one)) for one in side]

    def _erase(self, due: list[EraseRequested]) -> list[Record]:
        names: list[str] = []
        answers: list[Record] = []
        for request in due:
            self._monitor.waiting = [
                labels.taken(
                    np.array([at for at in range(len(labels.texts)) if not _is_asked(request, labels, at)], int)
                )
                for labels in self._monitor.waiting
            ]
            gone = [of.prediction_id for of in self._join.erase(request.entity, request.value, request.before_ms)]
            evidence = {
                "entity": request.entity,
                "digest": hashlib.sha256(f"{request.entity}={request.value}".encode()).hexdigest(),
                "before_ms": str(request.before_ms),
                "predictions": str(len(gone)),
            }
            reason = f"asked for by {request.by}: {request.reason}"
            said = {"use_case": request.use_case, "action": "erased", "by": "feedback", "reason": reason}
            answer = OperatorAction(**said, at_ms=self._reached, evidence=evidence)
            answers.append((self._topics.retraining, request.use_case.encode(), encode(answer)))
            names += gone
        return [*((self._topics.labels, name.encode(), None) for name in sorted(names)), *answers]

    def _predict(self, message: Message, now_ms: int) -> list[Change]:
        value = message.value or b""
        scored, whole = decode(Scored, value), decode(Prediction, value)
        state = self._join.events.get(scored.event_id, Event())
        known = len(state.judged)
        changes = self._join.predict(scored)
        judged = self._join.events[scored.event_id].judged
        if len(judged) > known:
            self._windows.predicted(scored)
            if scored.variant != "shadow":
                self._monitor.predicted(np.array([scored.event_time_ms]))
            for other in [j.prediction for j in judged[:known]]:
                if scored.variant == "shadow" and other.variant != "shadow":
                    self._windows.paired(scored, other)
                if scored.variant != "shadow" and other.variant == "shadow":
                    self._windows.paired(other, scored)
        if message.topic == self._topics.predictions:
            self._marks.observe(message.topic, message.partition, scored.event_time_ms, now_ms)
            mine = scored.variant == "champion" and scored.model_version == self._monitor.version
            if mine and self._monitor.sample.take([scored.event_id]).size:
                self._monitor.vectors(np.array([whole.features], dtype=np.float32), np.array([scored.score]))
        return self._count(changes)

    def _observe(self, message: Message, now_ms: int) -> list[Change]:
        label = self._use_case.label
        record: Any = decode(label.topic.schema, message.value or b"")
        self._marks.observe(message.topic, message.partition, record.at_ms, now_ms)
        outcome = Outcome(record.revision, record.withdrawn, float(getattr(record, label.value)), record.at_ms)
        return self._count(self._join.observe(record.payment_id, outcome))

    def _count(self, changes: list[Change]) -> list[Change]:
        for change in changes:
            came = change.reason == "outcome" and change.label is not None and change.prediction.variant != "shadow"
            if came and change.outcome_time_ms is not None:
                self._monitor.joined(np.array([change.outcome_time_ms]), np.array([(change.label or 0.0) > 0.0]))
            if change.previous is not None:
                self._windows.labelled(change.prediction, change.previous, -1)
            if change.status == "final" and change.label is not None:
                self._windows.labelled(change.prediction, change.label, 1)
                mine = ("champion", self._monitor.version)
                if change.previous is None and mine == (change.prediction.variant, change.prediction.model_version):
                    self._monitor.judged(_judgement(change, change.label))
        return changes

    def _tick(self, tick_ms: int) -> list[Record]:
        topics = self._topics
        outputs: list[Record] = []
        since_ms = self._monitor.ticked_ms
        self._join.forget()
        forgotten = self._windows.drop_before(tick_ms - kept_ms(self._use_case, self._use_case.label))
        for decided in self._monitor.tick(tick_ms, self._windows):  # type: ignore[arg-type]  # its twin
            if isinstance(decided, Alarm):
                outputs.append((topics.alarms, decided.subject.encode(), encode(decided)))
            elif isinstance(decided, Drift):
                outputs.append((topics.drift, decided.subject.encode(), encode(decided)))
            else:
                outputs.append((topics.retraining, decided.use_case.encode(), encode(decided)))
        outputs += [(topics.quality, key.text().encode(), None) for key in forgotten]
        whole = [key for key in self._windows if key.slice == "" and key.variant != "shadow"]
        waiting = self._waiting() if tick_ms // READ_EVERY_MS > since_ms // READ_EVERY_MS else set()
        for key in sorted(self._windows.changed | set(whole and [max(whole)]) | waiting):
            record = self._windows.record(key, self._use_case, tick_ms)
            outputs.append((topics.quality, key.text().encode(), encode(record)))
        self._windows.changed.clear()
        return outputs

    def _waiting(self) -> set[WindowKey]:
        """Windows of predictions that wait for their label."""
        return {
            key
            for event in self._join.events.values()
            for judged in event.judged
            if not event.closed
            and judged.prediction.activated
            and not judged.prediction.blocked
            and judged.prediction.event_time_ms <= self._reached
            for key in self._windows.keys_of(judged.prediction)
        }

    def _label(self, change: Change) -> Record:
        of = change.prediction
        record = LabelledPrediction(
            prediction_id=of.prediction_id,
            event_id=of.event_id,
            use_case=self._use_case.name,
            label_name=self._use_case.label.value,
            label_version=change.version,
            label=change.label,
            status=change.status,  # type: ignore[arg-type]  # one of them
            reason=change.reason,  # type: ignore[arg-type]  # one of them
            event_time_ms=of.event_time_ms,
            known_at_ms=change.known_at_ms,
            outcome_time_ms=change.outcome_time_ms,
            variant=of.variant,
            model_version=of.model_version,
            score=of.score,
            decision=of.decision,
            key=of.key,
            entities=msgspec.json.decode(of.entities, type=dict[str, str]),
            slices=msgspec.json.decode(of.slices, type=dict[str, str]),
        )
        return self._topics.labels, of.prediction_id.encode(), encode(record)


def _is_asked(request: EraseRequested, labels: Judgements, at: int) -> bool:
    entities = msgspec.json.decode(labels.texts[at])[3]
    return entities[request.entity] == request.value and int(labels.event_time_ms[at]) <= request.before_ms


def _judgement(change: Change, label: float) -> Judgements:
    of = change.prediction
    text = encode([of.prediction_id, of.event_id, of.key, of.entities])
    times = np.array([change.known_at_ms]), np.array([of.event_time_ms])
    return Judgements(
        *times, [text], np.array([of.score]), np.array([label > 0.0]), [bytes(of.slices)], np.zeros(1, np.uint8)
    )
