"""Scoring as a `Processor`: feature rows in, predictions out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from itertools import repeat
from operator import itemgetter
from typing import Any, TypeGuard

import msgspec
import numpy as np
from numpy.typing import NDArray

from tailrace.backends.codec import BatchDecoder, decode, encode
from tailrace.backends.ports import Assigned, Headers, Message, OnlineStore, Output
from tailrace.backends.telemetry import Metrics, observe_all
from tailrace.contracts.records import DeadLetter, FeatureRow, Variant
from tailrace.contracts.topics import Topics
from tailrace.core.plan import Plan
from tailrace.core.watermarks import watermark_of
from tailrace.errors import BadRecord, StateCorrupt
from tailrace.inference.inputs import CHUNK, Chunk, InputReader, Inputs
from tailrace.inference.models import ModelPool, Serving, scores_of
from tailrace.inference.predictions import PredictionEncoder, Scored, SharedTexts
from tailrace.runtime.dead_letters import Quarantine, dead_letter, dead_letter_of

NO_MODEL = Variant(name="default", role="champion", model_version="0", bundle_uri="", digest="", share=1.0)
"""Stands in before the first model: events are answered with the default score, and logged to learn from."""

_NO_HEADERS: Headers = []


class Position(msgspec.Struct):
    """Commit metadata of a partition: the routing epoch in force, and the last source offset handled."""

    epoch: int = 0
    source: int = -1


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
        self._encoder = PredictionEncoder(plan)
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

    def ended(self, partitions: Collection[tuple[str, int]]) -> None:
        """Of no account: nothing here waits for a partition."""

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
        outputs: list[Output] = []
        rows = letters = 0
        admitted = (self._admit(batch[begin : begin + CHUNK], now_ms) for begin in range(0, len(batch), CHUNK))
        for chunk, inputs in self._inputs.read_all(admitted, now_ms):
            outputs += _in_order(chunk.others, self._score(chunk, inputs, now_ms))
            rows += len(chunk.rows)
            letters += sum(output.topic == self._topics.dead_letters for _, output in chunk.others)
        self._quarantine.observe(rows, letters)
        return outputs

    def _admit(self, batch: Sequence[Message], now_ms: int) -> Chunk:  # hot path
        """Tells the rows to score from what is passed on, refused or known already."""
        partitions = [message.partition for message in batch]
        found = self._decode(batch)
        if self._all_fit(found) and self._all_new(found, partitions):
            return Chunk(found, partitions, range(len(batch)), [])
        rows: list[FeatureRow] = []
        places: list[int] = []
        others: list[tuple[int, Output]] = []
        for place, (message, row) in enumerate(zip(batch, found, strict=True)):
            if not isinstance(row, FeatureRow):
                made = self._refuse(message, row, now_ms) if row is not None else self._pass_on(message)
                others += zip(repeat(place), made)
            elif self._is_new(message.partition, row.source.offset):
                if self._all_fit([row]):
                    rows.append(row)
                    places.append(place)
                    continue
                # Filed under the event's own place, so that the event is accounted for.
                topic, partition, offset = msgspec.structs.astuple(row.source)
                event = message._replace(topic=topic, partition=partition, offset=offset)
                others += zip(repeat(place), self._refuse(event, self._misfit(row), now_ms))
        return Chunk(rows, [partitions[place] for place in places], places, others)

    def _all_fit(self, found: list[Any]) -> TypeGuard[list[FeatureRow]]:
        """Whether all are rows of this plan."""
        return (
            set(map(type, found)) == {FeatureRow}
            and {row.fingerprint for row in found} == {self._fingerprint}
            and {len(row.values) for row in found} == {self._width}
            and (not self._entities or all(self._entities <= row.entities.keys() for row in found))
        )

    def _all_new(self, rows: list[FeatureRow], partitions: list[int]) -> bool:
        """Whether none of them was seen before; then the last ones become the positions."""
        last = {number: position.source for number, position in self._positions.items()}
        for partition, row in zip(partitions, rows, strict=True):
            offset = row.source.offset
            if offset <= last[partition]:
                return False
            last[partition] = offset
        for number, position in self._positions.items():
            position.source = last[number]
        return True

    def _score(self, chunk: Chunk, inputs: Inputs, now_ms: int) -> list[tuple[Sequence[int], list[Output]]]:
        """What every variant makes of the rows, with the place in the chunk of each output."""
        if not chunk.rows:
            return []
        keys = [row.key.encode() for row in chunk.rows]
        shared = SharedTexts(inputs)
        said = []
        for scored in self._said(inputs):
            topic = self._topics.shadow if scored.variant.role == "shadow" else self._topics.predictions
            values = self._encoder.encode(inputs, shared, scored, now_ms)
            self._measure(inputs, scored, now_ms)
            made = zip(
                repeat(topic), scored.of(keys), values, scored.of(chunk.partitions), repeat(_NO_HEADERS), strict=False
            )
            # Half the cost of the constructor of a NamedTuple.
            outputs: list[Output] = list(map(tuple.__new__, repeat(Output), made))
            said.append((scored.of(chunk.places), outputs))
        return said

    def _decode(self, batch: Sequence[Message]) -> list[FeatureRow | BadRecord | None]:
        """Feature rows, what is wrong with them, or None for a record that is to be passed on."""
        special: dict[int, BadRecord | None] = {}
        # A feature row has a value and no headers, unless its producer gave it some.
        for place in [place for place, message in enumerate(batch) if message.headers]:
            message = batch[place]
            letter = _letter_of(message)
            if letter is not None or watermark_of(message.value, message.headers) is not None:
                special[place] = letter if isinstance(letter, BadRecord) else None
        if not special:
            return self._decoder.decode([message.value for message in batch])
        rows = iter(self._decoder.decode([m.value for place, m in enumerate(batch) if place not in special]))
        return [special[place] if place in special else next(rows) for place in range(len(batch))]

    def _misfit(self, row: FeatureRow) -> BadRecord:
        if row.fingerprint != self._fingerprint:
            return BadRecord("other_plan", f"made by plan {row.fingerprint}, this worker serves {self._fingerprint}")
        missing = sorted(self._entities - row.entities.keys())
        return BadRecord("wrong_shape", f"{len(row.values)} values of {self._width}, entities missing: {missing}")

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
        matrix = inputs.matrix if len(places) == len(inputs.rows) else inputs.matrix[places]
        scores = scores_of(serving.executor(variant), matrix)
        failed = int(np.isnan(scores).sum())
        if failed:
            self._metrics.model_failures.labels("run").inc(failed)
        return Scored(variant, serving.table.epoch, places, scores)

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
        variant = scored.variant
        self._metrics.predictions.labels(variant.name, variant.model_version).inc(len(scored.places))
        if variant.role == "shadow":
            return
        degraded = inputs.degraded
        places = scored.places.tolist() if degraded else []
        reasons = Counter(reason for place in places if place in degraded for reason in degraded[place])
        reasons[scored.failure] = int(np.isnan(scored.scores).sum())
        for reason, count in reasons.items():
            if count:
                self._metrics.degraded.labels(reason).inc(count)
        produced_ms = np.array(scored.of([row.produced_at_ms for row in inputs.rows]), dtype=np.int64)
        observe_all(self._metrics.end_to_end_seconds, np.maximum(now_ms - produced_ms, 0) / 1000)


def _in_order(others: list[tuple[int, Output]], said: list[tuple[Sequence[int], list[Output]]]) -> list[Output]:
    """All outputs in the order of the records they stem from; of one record, in the order of the variants."""
    if len(said) == 1 and not others:
        return said[0][1]
    made = others + [pair for places, outputs in said for pair in zip(places, outputs, strict=True)]
    made.sort(key=itemgetter(0))
    return [output for _, output in made]


def _letter_of(message: Message) -> DeadLetter | BadRecord | None:
    """What `features` says of a record that it could not use; None of any other record."""
    try:
        return dead_letter_of(message.headers)
    except BadRecord as error:
        return error
