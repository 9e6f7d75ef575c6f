"""Changes of labels as records of the LABELS topic."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import repeat
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from tailrace.backends.ports import Output
from tailrace.core.join_table import DECIDED, Cohort, JoinTable, Text
from tailrace.core.labels import NO_TIME, REASONS, STATUSES, Changes
from tailrace.feedback.label_kernels import MOST_DIGITS, write_records

_DECIDED = 7
_SAID = _DECIDED + 2
_COHORTS = _SAID + len(STATUSES) * len(REASONS)
"""Where pieces of JSON begin that are chosen for each record; those before are the same in all."""


class LabelRecord(msgspec.Struct, gc=False):
    """A `LabelledPrediction`, field by field, with JSON that is handed on as it came."""

    prediction_id: str
    event_id: str
    use_case: str
    label_name: str
    label_version: int
    label: float | None
    status: str
    reason: str
    event_time_ms: int
    known_at_ms: int
    outcome_time_ms: int | None
    variant: str
    model_version: str
    score: float
    decision: bool
    key: msgspec.Raw
    entities: msgspec.Raw
    slices: msgspec.Raw
    weight: float = 1.0
    auxiliary: bool = False


class LabelWriter:
    """Makes the records of changed labels.

    Args:
        topic: LABELS.
        use_case: Its name.
        label_name: Name of the label.
        auxiliary: Whether another label judges the model.
    """

    def __init__(self, topic: str, use_case: str, label_name: str, *, auxiliary: bool = False) -> None:
        self._topic = topic
        self._use_case = use_case
        self._label_name = label_name
        self._auxiliary = auxiliary
        self._encoder = msgspec.json.Encoder()
        self._pieces = self._always()

    def records(self, table: JoinTable, changes: Changes) -> list[Output]:  # hot path
        """One record for each change, in order."""
        if not changes.rows.size:
            return []
        texts = table.texts[changes.rows].tolist()
        joined = b"".join(texts)
        return self._parsed(table, changes) if b"\\" in joined else self._written(table, changes, texts, joined)

    def _written(self, table: JoinTable, changes: Changes, texts: list[bytes], joined: bytes) -> list[Output]:
        """Records put together from texts without escapes, as the encoder would write them."""
        rows, count = changes.rows, len(texts)
        distinct, cohort = np.unique(table.cohort[rows], return_inverse=True)
        pieces = [*self._pieces, *self._of_cohorts([table.cohorts[number] for number in distinct.tolist()])]
        decided = (table.flags[rows] & DECIDED).astype(np.bool_)
        said = _SAID + changes.status.astype(np.int64) * len(REASONS) + changes.reason
        chosen = np.stack([said, _COHORTS + 2 * cohort, _DECIDED + decided, _COHORTS + 2 * cohort + 1], axis=1)
        numbers = np.stack(
            [changes.version, table.event_time_ms[rows], changes.known_at_ms, changes.outcome_time_ms], axis=1
        )
        # NaN is written as null.
        floats = np.stack([changes.label, table.score[rows]], axis=1)
        floats_text = self._encoder.encode(floats.reshape(-1).tolist())[1:-1] + b","
        lengths = np.fromiter(map(len, pieces), np.int64, len(pieces))
        room = len(joined) + len(floats_text) + count * (int(lengths[:_DECIDED].sum()) + 4 * MOST_DIGITS)
        out = np.empty(room + int(lengths[chosen].sum()), np.uint8)
        ends, keys = np.empty(count, np.int64), np.empty((count, 2), np.int64)
        text_ends = np.cumsum(np.fromiter(map(len, texts), np.int64, count))
        given = (_bytes(joined), text_ends, numbers, _bytes(floats_text), chosen, _bytes(b"".join(pieces)))
        size = write_records(*given, np.cumsum(lengths), out, ends, keys)
        written, topic, new = out[:size].tobytes(), self._topic, tuple.__new__
        starts = [0, *ends[:-1].tolist()]
        return [
            new(Output, (topic, joined[first:last], written[start:end], None, []))
            for (first, last), start, end in zip(keys.tolist(), starts, ends.tolist(), strict=True)
        ]

    def _always(self) -> list[bytes]:
        """Pieces of JSON that do not depend on what changed, in the order that `write_records` and `_SAID` expect."""
        names = [self._encoder.encode(name) for name in (self._use_case, self._label_name)]
        return [
            b'{"prediction_id":',
            b',"event_id":',
            b',"use_case":%b,"label_name":%b,"label_version":' % (names[0], names[1]),
            b',"label":',
            b',"known_at_ms":',
            b',"outcome_time_ms":',
            b',"entities":',
            *(b',"decision":%b,"key":' % word for word in (b"false", b"true")),
            *(
                b',"status":"%b","reason":"%b","event_time_ms":' % (status.encode(), reason.encode())
                for status in STATUSES
                for reason in REASONS
            ),
        ]

    def _of_cohorts(self, cohorts: list[Cohort]) -> Iterator[bytes]:
        """Two pieces for each cohort: before the score, and behind the entities."""
        for cohort in cohorts:
            variant, version = self._encoder.encode(cohort.variant), self._encoder.encode(cohort.model_version)
            yield b',"variant":%b,"model_version":%b,"score":' % (variant, version)
            auxiliary = b"true" if self._auxiliary else b"false"
            yield b',"slices":%b,"weight":1.0,"auxiliary":%b}' % (cohort.slices, auxiliary)

    def _parsed(self, table: JoinTable, changes: Changes) -> list[Output]:
        """Records by the encoder."""
        texts = table.read(changes.rows)
        encode, topic = self._encoder.encode, self._topic
        return [
            Output(topic, text.prediction_id.encode(), encode(record))
            for text, record in zip(texts, map(LabelRecord, *self._columns(table, changes, texts)), strict=True)
        ]

    def _columns(self, table: JoinTable, changes: Changes, texts: list[Text]) -> list[Iterable[Any]]:
        """The fields of `LabelRecord`, in their order."""
        rows = changes.rows
        cohorts = [table.cohorts[number] for number in table.cohort[rows].tolist()]
        slices = {cohort: msgspec.Raw(cohort.slices) for cohort in set(cohorts)}
        return [
            [text.prediction_id for text in texts],
            [text.event_id for text in texts],
            repeat(self._use_case),
            repeat(self._label_name),
            changes.version.tolist(),
            _or_none(changes.label, np.isnan(changes.label)),
            [STATUSES[status] for status in changes.status.tolist()],
            [REASONS[reason] for reason in changes.reason.tolist()],
            table.event_time_ms[rows].tolist(),
            changes.known_at_ms.tolist(),
            _or_none(changes.outcome_time_ms, changes.outcome_time_ms == NO_TIME),
            [cohort.variant for cohort in cohorts],
            [cohort.model_version for cohort in cohorts],
            table.score[rows].tolist(),
            (table.flags[rows] & DECIDED).astype(np.bool_).tolist(),
            [text.key for text in texts],
            [text.entities for text in texts],
            [slices[cohort] for cohort in cohorts],
            repeat(1.0),
            repeat(self._auxiliary),
        ]


def _bytes(data: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(data, np.uint8)


def _or_none(column: Any, missing: Any) -> list[Any]:
    values: list[Any] = column.tolist()
    for at in np.flatnonzero(missing).tolist():
        values[at] = None
    return values
