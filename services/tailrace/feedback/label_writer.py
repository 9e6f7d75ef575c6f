"""Changes of labels as records of the LABELS topic."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import repeat
from typing import Any

import msgspec
import numpy as np

from tailrace.backends.ports import Output
from tailrace.core.join_table import DECIDED, JoinTable
from tailrace.core.labels import NO_TIME, REASONS, STATUSES, Changes
from tailrace.core.outcome_sources import SourceBook
from tailrace.core.prediction_texts import Text


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
    source: str = ""


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

    def records(self, table: JoinTable, changes: Changes, book: SourceBook | None) -> list[Output]:  # hot path
        """One record for each change, in order; `book` names the sources by code."""
        if not changes.rows.size:
            return []
        texts = table.read(changes.rows)
        encode, topic = self._encoder.encode, self._topic
        return [
            Output(topic, text.prediction_id.encode(), encode(record))
            for text, record in zip(texts, map(LabelRecord, *self._columns(table, changes, texts, book)), strict=True)
        ]

    def _columns(
        self, table: JoinTable, changes: Changes, texts: list[Text], book: SourceBook | None
    ) -> list[Iterable[Any]]:
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
            repeat("") if book is None else [book.names[code] for code in changes.source.tolist()],
        ]


def _or_none(column: Any, missing: Any) -> list[Any]:
    values: list[Any] = column.tolist()
    for at in np.flatnonzero(missing).tolist():
        values[at] = None
    return values
