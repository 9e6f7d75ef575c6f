"""Changes of labels as records of the LABELS topic."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from tailrace.backends.ports import Output
from tailrace.core.join_table import DECIDED, JoinTable
from tailrace.core.labels import NO_TIME, REASONS, STATUSES, Changes


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


class LabelWriter:
    """Makes the records of changed labels.

    Args:
        topic: LABELS.
        use_case: Its name.
        label_name: Field of the outcome that holds the label.
    """

    def __init__(self, topic: str, use_case: str, label_name: str) -> None:
        self._topic = topic
        self._use_case = use_case
        self._label_name = label_name
        self._encoder = msgspec.json.Encoder()

    def records(self, table: JoinTable, changes: Changes) -> list[Output]:  # hot path
        """One record for each change, in order."""
        rows = changes.rows
        if not rows.size:
            return []
        texts = table.read(rows)
        columns: list[list[Any]] = [
            changes.version.tolist(),
            _or_none(changes.label, np.isnan(changes.label)),
            [STATUSES[status] for status in changes.status.tolist()],
            [REASONS[reason] for reason in changes.reason.tolist()],
            table.event_time_ms[rows].tolist(),
            changes.known_at_ms.tolist(),
            _or_none(changes.outcome_time_ms, changes.outcome_time_ms == NO_TIME),
            table.cohort[rows].tolist(),
            table.score[rows].tolist(),
            (table.flags[rows] & DECIDED).astype(np.bool_).tolist(),
        ]
        slices = [msgspec.Raw(cohort.slices) for cohort in table.cohorts]
        use_case, name = self._use_case, self._label_name
        records = [
            LabelRecord(
                text.prediction_id,
                text.event_id,
                use_case,
                name,
                version,
                label,
                status,
                reason,
                time_ms,
                known_ms,
                outcome_ms,
                table.cohorts[cohort].variant,
                table.cohorts[cohort].model_version,
                score,
                decision,
                text.key,
                text.entities,
                slices[cohort],
            )
            for text, version, label, status, reason, time_ms, known_ms, outcome_ms, cohort, score, decision in zip(
                texts, *columns, strict=True
            )
        ]
        topic, encode = self._topic, self._encoder.encode
        return [
            Output(topic, text.prediction_id.encode(), encode(record))
            for text, record in zip(texts, records, strict=True)
        ]


def _or_none(column: Any, missing: Any) -> list[Any]:
    values: list[Any] = column.tolist()
    for at in np.flatnonzero(missing).tolist():
        values[at] = None
    return values
