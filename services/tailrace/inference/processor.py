"""Scoring as a `Processor`: feature rows in, predictions out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from tailrace.backends.codec import BatchDecoder, decode, encode
from tailrace.backends.ports import Assigned, Message, OnlineStore, Output
from tailrace.backends.telemetry import Metrics
from tailrace.contracts.records import DeadLetter, FeatureRow, Prediction, Variant
from tailrace.contracts.topics import Topics
from tailrace.core.plan import Plan
from tailrace.core.scoring import on_grid
from tailrace.core.watermarks import watermark_of
from tailrace.errors import BadRecord, StateCorrupt
from tailrace.inference.inputs import InputReader, Inputs
from tailrace.inference.models import ModelPool, Serving, scores_of
from tailrace.runtime.dead_letters import Quarantine, dead_letter, dead_letter_of

NO_MODEL = Variant(name="default", role="champion", model_version="0", bundle_uri="", digest="", share=1.0)
"""Stands in before the first model: events are answered with the default score, and logged to learn from."""


class Position(msgspec.Struct):
    """Commit metadata of a partition: the routing epoch in force, and the last source offset handled."""

    epoch: int = 0
    source: int = -1


class Scored(msgspec.Struct, frozen=True):
    """What one variant says of some rows of a micro-batch.

    `places` intp (m,) are the rows; `scores` float64 (m,) in [0, 1], NaN where there is none, which is
    published as the default and flagged as `failure`.
    """

    variant: Variant
    epoch: int
    places: NDArray[np.intp]
    scores: NDArray[np.float64]
    failure: str = "model_failed"


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
        log: Structured logger.
    """

    def __init__(self, plan: Plan, pool: ModelPool, store: OnlineStore, metrics: Metrics, log: Any) -> None:
        self._plan = plan
        self._topics = Topics(plan.use_case)
        self._pool = pool
        self._inputs = InputReader(plan, store, metrics, log)
        self._metrics = metrics
        self._told: Serving | None = None
        for reason in ("no_model", "model_failed", *(view.name for view in plan.online_views)):
            metrics.degraded.labels(reason)
        metrics.model_info.labels(NO_MODEL.name, NO_MODEL.model_version).set(1)
        self._decoder = BatchDecoder(FeatureRow)
        self._fingerprint = plan.fingerprint
        self._width = len(plan.own_order)
        self._entities = frozenset(view.entity for view in plan.online_views)
        self._positions: dict[int, Position] = {}
        self._quarantine = Quarantine()

    def assigned(self, partitions: Sequence[Assigned]) -> None:
        """Takes over partitions with the last source offset of each.

        Raises:
            StateCorrupt: someone else committed for this group, so that nothing says what was predicted.
        """
        for at in partitions:
            try:
                self._positions[at.partition] = decode(Position, at.metadata.encode()) if at.metadata else Position()
            except BadRecord as error:
                raise StateCorrupt(
                    f"commit metadata of {at.topic}/{at.partition} is not ours ({at.metadata!r}): another program "
                    f"commits to this consumer group. Stop it, then reset the group to an offset of your choice"
                ) from error

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
        self._pool.refresh(now_ms)
        self._tell()
        if not batch:
            return []
        outputs: list[list[Output]] = [[] for _ in batch]
        rows: list[FeatureRow] = []
        places: list[int] = []
        letters = 0
        for place, (message, row) in enumerate(zip(batch, self._decode(batch), strict=True)):
            if not isinstance(row, FeatureRow):
                outputs[place] = self._refuse(message, row, now_ms) if row is not None else self._pass_on(message)
                letters += any(output.topic == self._topics.dead_letters for output in outputs[place])
            elif self._is_new(message.partition, row.source.offset):
                misfit = self._misfit(row)
                if misfit is None:
                    rows.append(row)
                    places.append(place)
                    continue
                # Filed under the event's own place, so that the event is accounted for.
                event = message._replace(
                    topic=row.source.topic, partition=row.source.partition, offset=row.source.offset
                )
                outputs[place] = self._refuse(event, misfit, now_ms)
                letters += 1
        self._quarantine.observe(len(rows), letters)
        if rows:
            inputs = self._inputs.read(rows, now_ms)
            for scored in self._said(inputs):
                for at, output in self._made(inputs, scored, [batch[place].partition for place in places], now_ms):
                    outputs[places[at]].append(output)
        return [output for at_place in outputs for output in at_place]

    def _decode(self, batch: Sequence[Message]) -> list[FeatureRow | BadRecord | None]:
        """Feature rows, what is wrong with them, or None for a record that is to be passed on."""
        found: list[FeatureRow | BadRecord | None] = [None] * len(batch)
        plain = []
        for place, message in enumerate(batch):
            letter = _letter_of(message)
            if isinstance(letter, BadRecord):
                found[place] = letter
            elif letter is None and watermark_of(message.value, message.headers) is None:
                plain.append(place)
        for place, row in zip(plain, self._decoder.decode([batch[place].value for place in plain]), strict=True):
            found[place] = row
        return found

    def _misfit(self, row: FeatureRow) -> BadRecord | None:
        if row.fingerprint != self._fingerprint:
            return BadRecord("other_plan", f"made by plan {row.fingerprint}, this worker serves {self._fingerprint}")
        if len(row.values) != self._width or not self._entities <= row.entities.keys():
            missing = sorted(self._entities - row.entities.keys())
            return BadRecord("wrong_shape", f"{len(row.values)} values of {self._width}, entities missing: {missing}")
        return None

    def _refuse(self, message: Message, error: BadRecord, now_ms: int) -> list[Output]:
        self._metrics.dead_letters.labels(error.reason).inc()
        return [dead_letter(self._topics, "inference", message, error, now_ms)]

    def _pass_on(self, message: Message) -> list[Output]:
        """What becomes of a record that is no feature row: a dead letter of `features`, or a watermark."""
        letter = _letter_of(message)
        if isinstance(letter, DeadLetter):
            if not self._is_new(message.partition, letter.source.offset):
                return []
            # `features` has counted it.
            return [Output(self._topics.dead_letters, message.key, message.value, None, message.headers)]
        return [
            Output(topic, message.key, None, message.partition, message.headers)
            for topic in (self._topics.predictions, self._topics.shadow)
        ]

    def _is_new(self, partition: int, source_offset: int) -> bool:
        position = self._positions[partition]
        if source_offset <= position.source:
            self._metrics.duplicates.labels(self._topics.features).inc()
            return False
        position.source = source_offset
        return True

    def _said(self, inputs: Inputs) -> Iterator[Scored]:
        """What each variant says: those with traffic of their rows, shadows of all."""
        serving = self._pool.serving
        everything = np.arange(len(inputs.rows))
        if serving is None:
            yield Scored(NO_MODEL, 0, everything, np.full(len(everything), np.nan), "no_model")
            return
        chosen = serving.router.route([row.key for row in inputs.rows])
        taken = [np.flatnonzero(chosen == number) for number in range(len(serving.router.variants))]
        for variant, places in zip(serving.router.variants, taken, strict=True):
            if places.size:
                yield self._run(serving, variant, inputs, places)
        for shadow in serving.router.shadows:
            scored = self._run(serving, shadow, inputs, everything)
            there = ~np.isnan(scored.scores)
            # A shadow owes nobody an answer, and a default would be taken for its opinion.
            yield msgspec.structs.replace(scored, places=scored.places[there], scores=scored.scores[there])

    def _run(self, serving: Serving, variant: Variant, inputs: Inputs, places: NDArray[np.intp]) -> Scored:
        scores = scores_of(serving.executor(variant), inputs.matrix[places])
        failed = int(np.isnan(scores).sum())
        if failed:
            self._metrics.model_failures.labels("run").inc(failed)
        return Scored(variant, serving.table.epoch, places, scores)

    def _made(
        self, inputs: Inputs, scored: Scored, partitions: Sequence[int], now_ms: int
    ) -> Iterator[tuple[int, Output]]:  # hot path
        """A variant's predictions, each with the position of its row."""
        variant = scored.variant
        shadow = variant.role == "shadow"
        topic = self._topics.shadow if shadow else self._topics.predictions
        failed = np.isnan(scored.scores)
        published = on_grid(np.where(failed, self._plan.default_score, scored.scores)).tolist()
        for place, score, unscored in zip(scored.places.tolist(), published, failed.tolist(), strict=True):
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
                epoch=scored.epoch,
                score=score,
                decision=score >= self._plan.threshold,
                threshold=self._plan.threshold,
                propensity=1.0 if shadow else variant.share,
                features=inputs.vectors[place],
                ages_ms=inputs.ages[place],
                fingerprint=self._fingerprint,
                degraded=[*inputs.degraded[place], scored.failure] if unscored else inputs.degraded[place],
                source=row.source,
                produced_at_ms=row.produced_at_ms,
            )
            yield place, Output(topic, row.key.encode(), encode(prediction), partitions[place])
        self._metrics.predictions.labels(variant.name, variant.model_version).inc(len(published))
        if not shadow:
            self._measure(inputs, scored, now_ms)

    def _tell(self) -> None:
        """Exports what serves, where that has changed."""
        self._metrics.epoch.set(self._pool.epoch)
        serving = self._pool.serving
        if serving is self._told:
            return
        self._told = serving
        self._metrics.model_info.clear()
        for variant in serving.table.variants if serving is not None else (NO_MODEL,):
            self._metrics.model_info.labels(variant.name, variant.model_version).set(1)

    def _measure(self, inputs: Inputs, scored: Scored, now_ms: int) -> None:
        places = scored.places.tolist()
        reasons = Counter(reason for place in places for reason in inputs.degraded[place])
        reasons[scored.failure] = int(np.isnan(scored.scores).sum())
        for reason, count in reasons.items():
            if count:
                self._metrics.degraded.labels(reason).inc(count)
        for place in places:
            self._metrics.end_to_end_seconds.observe(max(now_ms - inputs.rows[place].produced_at_ms, 0) / 1000)


def _letter_of(message: Message) -> DeadLetter | BadRecord | None:
    """What `features` says of a record that it could not use; None of any other record."""
    try:
        return dead_letter_of(message.headers)
    except BadRecord as error:
        return error
