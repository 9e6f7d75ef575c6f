"""Scoring as a `Processor`: feature rows in, predictions out."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from tailrace.backends.codec import BatchDecoder, decode, encode
from tailrace.backends.ports import Assigned, Message, OnlineStore, Output, ReadRequest
from tailrace.backends.telemetry import Metrics
from tailrace.contracts.records import DEAD_LETTER_HEADER, DeadLetter, FeatureRow, Prediction, Variant
from tailrace.contracts.topics import Topics
from tailrace.core.freshness import judge
from tailrace.core.plan import Plan
from tailrace.core.scoring import on_grid
from tailrace.core.watermarks import watermark_of
from tailrace.core.windows import evaluate
from tailrace.errors import ArtifactInvalid, BadRecord, StoreUnavailable
from tailrace.inference.models import ModelPool, Serving
from tailrace.runtime.dead_letters import Quarantine, dead_letter

STORE_PAUSE_MS = 1_000
"""How long an online store that failed is left alone: a dead store costs one time-out a second, not one a batch."""


class Position(msgspec.Struct):
    """Commit metadata of a partition: the routing epoch in force, and the last source offset handled."""

    epoch: int = 0
    source: int = -1


class Inputs(msgspec.Struct, frozen=True):
    """A micro-batch ready to score.

    `matrix` float32 (n, d) in plan order; `ages_ms` maps each online view to int64 (n,), -1 without a row;
    `degraded` holds, per row, the views that were replaced by defaults.
    """

    rows: list[FeatureRow]
    matrix: NDArray[np.float32]
    ages_ms: dict[str, NDArray[np.int64]]
    degraded: list[list[str]]


class ScoringProcessor:
    """Scores every event once.

    What makes it once: the loop commits predictions and offsets together; FEATURES itself may hold an
    event twice after a crash of `features`, but in source order, so that everything at or below the
    last source offset of its partition has been seen. That offset travels in the commit metadata.

    Args:
        plan: Serving plan.
        pool: Models in service.
        store: Online store with the rows that FEATURES does not carry.
        metrics: Prometheus handles.
    """

    def __init__(self, plan: Plan, pool: ModelPool, store: OnlineStore, metrics: Metrics) -> None:
        self._plan = plan
        self._topics = Topics(plan.use_case)
        self._pool = pool
        self._store = store
        self._metrics = metrics
        self._decoder = BatchDecoder(FeatureRow)
        self._fingerprint = plan.fingerprint
        self._positions: dict[int, Position] = {}
        self._store_paused_until_ms = 0
        self._quarantine = Quarantine()

    def assigned(self, partitions: Sequence[Assigned]) -> None:
        """Takes over partitions with the last source offset of each."""
        for at in partitions:
            self._positions[at.partition] = decode(Position, at.metadata.encode()) if at.metadata else Position()

    def revoked(self, partitions: Sequence[tuple[str, int]]) -> None:
        """Forgets partitions."""
        for _, partition in partitions:
            self._positions.pop(partition, None)

    def metadata(self, topic: str, partition: int) -> str:
        """Epoch in force and last source offset, as JSON."""
        position = self._positions[partition]
        position.epoch = self._pool.epoch
        return encode(position).decode()

    def unsettled(self) -> bool:
        """True until the epoch in force stands in the metadata of every partition."""
        return any(position.epoch != self._pool.epoch for position in self._positions.values())

    def process(self, batch: Sequence[Message], now_ms: int) -> list[Output]:
        """Scores a micro-batch; dead letters and watermarks are passed on in their place."""
        self._pool.refresh()
        if not batch:
            return []
        outputs: list[list[Output]] = [[] for _ in batch]
        rows: list[FeatureRow] = []
        places: list[int] = []
        bad = 0
        for place, (message, row) in enumerate(zip(batch, self._decode(batch), strict=True)):
            if isinstance(row, FeatureRow):
                if self._is_new(message.partition, row.source.offset):
                    rows.append(row)
                    places.append(place)
            elif isinstance(row, BadRecord):
                outputs[place].append(dead_letter(self._topics, "inference", message, row, now_ms))
                bad += 1
            else:
                passed_on = self._pass_on(message)
                bad += sum(output.topic == self._topics.dead_letters for output in passed_on)
                outputs[place].extend(passed_on)
        self._quarantine.observe(len(rows), bad)
        if rows:
            for place, predictions in zip(places, self._score(rows, now_ms), strict=True):
                outputs[place] = [output._replace(partition=batch[place].partition) for output in predictions]
        return [output for at_place in outputs for output in at_place]

    def _decode(self, batch: Sequence[Message]) -> list[FeatureRow | BadRecord | None]:
        plain = [place for place, message in enumerate(batch) if message.value is not None and not _is_letter(message)]
        found: list[FeatureRow | BadRecord | None] = [None] * len(batch)
        for place, row in zip(plain, self._decoder.decode([batch[place].value for place in plain]), strict=True):
            if isinstance(row, FeatureRow) and row.fingerprint != self._fingerprint:
                row = BadRecord("other_plan", f"made by plan {row.fingerprint}, this worker serves {self._fingerprint}")
            found[place] = row
        return found

    def _pass_on(self, message: Message) -> list[Output]:
        """What becomes of a record that is no feature row: a dead letter of `features`, or a watermark."""
        if watermark_of(message.value, message.headers) is not None:
            return [
                Output(topic, message.key, None, message.partition, message.headers)
                for topic in (self._topics.predictions, self._topics.shadow)
            ]
        for name, value in message.headers:
            if name == DEAD_LETTER_HEADER:
                letter = decode(DeadLetter, value)
                if not self._is_new(message.partition, letter.source.offset):
                    return []
                self._metrics.dead_letters.labels(letter.reason).inc()
                return [Output(self._topics.dead_letters, message.key, message.value, None, message.headers)]
        return []

    def _is_new(self, partition: int, source_offset: int) -> bool:
        position = self._positions[partition]
        if source_offset <= position.source:
            self._metrics.duplicates.labels(self._topics.features).inc()
            return False
        position.source = source_offset
        return True

    def _score(self, rows: list[FeatureRow], now_ms: int) -> list[list[Output]]:
        inputs = self._inputs(rows, now_ms)
        serving = self._pool.serving
        if serving is None:
            scores = np.full(len(rows), self._plan.default_score)
            none = Variant(name="default", role="champion", model_version="0", bundle_uri="", digest="", share=1.0)
            for flags in inputs.degraded:
                flags.append("no_model")
            return self._outputs(inputs, np.arange(len(rows)), none, scores, 0, now_ms)
        outputs: list[list[Output]] = [[] for _ in rows]
        chosen = serving.router.route([row.key for row in rows])
        for number, variant in enumerate(serving.router.variants):
            self._run(serving, variant, inputs, np.flatnonzero(chosen == number), outputs, now_ms)
        for shadow in serving.router.shadows:
            self._run(serving, shadow, inputs, np.arange(len(rows)), outputs, now_ms)
        return outputs

    def _run(
        self,
        serving: Serving,
        variant: Variant,
        inputs: Inputs,
        taken: NDArray[np.intp],
        outputs: list[list[Output]],
        now_ms: int,
    ) -> None:
        if not taken.size:
            return
        try:
            scores = serving.executor(variant).run(inputs.matrix[taken])
        except ArtifactInvalid:
            self._metrics.model_failures.labels("run").inc()
            if variant.role == "shadow":
                return
            scores = np.full(taken.size, self._plan.default_score)
            for place in taken:
                inputs.degraded[place].append("model_failed")
        made = self._outputs(inputs, taken, variant, scores, serving.table.epoch, now_ms)
        for place, output in zip(taken, made, strict=True):
            outputs[place].extend(output)

    def _inputs(self, rows: list[FeatureRow], now_ms: int) -> Inputs:
        matrix = np.empty((len(rows), len(self._plan.order)), dtype=np.float32)
        own = len(self._plan.own_order)
        matrix[:, :own] = np.array([row.values for row in rows], dtype=np.float64).reshape(len(rows), own)
        degraded: list[list[str]] = [[] for _ in rows]
        ages: dict[str, NDArray[np.int64]] = {}
        views = self._plan.online_views
        if views:
            as_of = np.array([row.event_time_ms for row in rows], dtype=np.int64)
            at = own
            for view, (states, timestamps) in zip(views, self._read(rows, now_ms), strict=True):
                judged = judge(view, states, timestamps, as_of)
                matrix[:, at : at + len(view.columns)] = evaluate(view, judged.states, as_of)
                ages[view.name] = judged.ages_ms
                for place in np.flatnonzero(judged.stale | (timestamps == _UNREAD)):
                    degraded[place].append(view.name)
                at += len(view.columns)
        return Inputs(rows, matrix, ages, degraded)

    def _read(self, rows: list[FeatureRow], now_ms: int) -> list[tuple[Sequence[bytes | None], NDArray[np.int64]]]:
        views = self._plan.online_views
        if now_ms >= self._store_paused_until_ms:
            requests = [
                ReadRequest(
                    view.name, view.entity, [c.name for c in view.columns], [r.entities[view.entity] for r in rows]
                )
                for view in views
            ]
            try:
                return [(found.state, found.timestamps_ms) for found in self._store.read(requests)]
            except StoreUnavailable:
                self._store_paused_until_ms = now_ms + STORE_PAUSE_MS
                self._metrics.model_failures.labels("online_store").inc()
        unread = np.full(len(rows), _UNREAD, dtype=np.int64)
        return [([None] * len(rows), unread) for _ in views]

    def _outputs(
        self,
        inputs: Inputs,
        taken: NDArray[np.intp],
        variant: Variant,
        scores: NDArray[np.float64],
        epoch: int,
        now_ms: int,
    ) -> list[list[Output]]:
        topic = self._topics.shadow if variant.role == "shadow" else self._topics.predictions
        published = on_grid(scores).tolist()
        features = inputs.matrix[taken].tolist()
        self._metrics.predictions.labels(variant.name, variant.model_version).inc(len(published))
        made = []
        for place, score, vector in zip(taken.tolist(), published, features, strict=True):
            row = inputs.rows[place]
            prediction = Prediction(
                prediction_id=f"{row.event_id}:{variant.name}",
                event_id=row.event_id,
                use_case=self._plan.use_case,
                key=row.key,
                entities=row.entities,
                slices=row.slices,
                event_time_ms=row.event_time_ms,
                predicted_at_ms=now_ms,
                variant=variant.name,
                model_version=variant.model_version,
                model_digest=variant.digest,
                epoch=epoch,
                score=score,
                decision=score >= self._plan.threshold,
                threshold=self._plan.threshold,
                propensity=variant.share if variant.role != "shadow" else 1.0,
                features=vector,
                ages_ms={view: _age(ages[place]) for view, ages in inputs.ages_ms.items()},
                fingerprint=self._fingerprint,
                degraded=inputs.degraded[place],
                source=row.source,
                produced_at_ms=row.produced_at_ms,
            )
            self._metrics.end_to_end_seconds.observe(max(now_ms - row.produced_at_ms, 0) / 1000)
            made.append([Output(topic, row.key.encode(), encode(prediction))])
        return made


_UNREAD = -2
"""Timestamp of a row that could not be asked for; it counts as absent, and degrades the prediction."""


def _age(age_ms: np.int64) -> int | None:
    return int(age_ms) if age_ms >= 0 else None


def _is_letter(message: Message) -> bool:
    return any(name == DEAD_LETTER_HEADER for name, _ in message.headers)
