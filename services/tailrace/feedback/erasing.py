"""Erasing what is kept of an entity, once stream time has come to the request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tailrace.backends.codec import decode, encode
from tailrace.backends.ports import Message, Output
from tailrace.contracts.retraining import EraseRequested, OperatorAction, RetrainingRecord
from tailrace.contracts.topics import Topics
from tailrace.core.erasure import asked_by, digest_of
from tailrace.core.monitoring import Monitor
from tailrace.feedback.label_join import LabelJoin

_RETRAINING: Any = RetrainingRecord


class Erasing:
    """Entities that are to be erased, until they are.

    A request waits until stream time has come to the time up to which it speaks: predictions that were made by then are
    there, in whatever order topics were read. A replay erases the same.

    Attributes:
        pending: Requests that wait, in order of arrival.
    """

    def __init__(self, topics: Topics, pending: Sequence[EraseRequested] = ()) -> None:
        self._topics = topics
        self.pending = list(pending)

    def take(self, message: Message) -> None:
        """Takes a record of RETRAINING; all but requests for erasure pass."""
        record = decode(_RETRAINING, message.value or b"")
        if isinstance(record, EraseRequested):
            self.pending.append(record)

    def erase(self, joins: Sequence[LabelJoin], monitor: Monitor, watermark_ms: int) -> list[Output]:
        """Erases what stream time has come to, before the joins are stored.

        Labels that wait to be fed to detectors go too: a restart would not find them. Every prediction is deleted from
        LABELS, and each request is answered by a record for the audit trail.
        """
        due = [request for request in self.pending if request.before_ms <= watermark_ms]
        if not due:
            return []
        self.pending = [request for request in self.pending if request.before_ms > watermark_ms]
        erased: dict[str, int] = {}

        def asked(texts: Sequence[bytes], times_ms: NDArray[np.int64]) -> NDArray[np.bool_]:
            return asked_by(due, texts, times_ms) >= 0

        monitor.waiting = [labels.without(asked) for labels in monitor.waiting]
        for join in joins:
            rows = join.erase(asked)
            texts = join.table.read(rows)
            places = asked_by(due, join.table.texts[rows].tolist(), join.table.event_time_ms[rows])
            erased |= {text.prediction_id: place for text, place in zip(texts, places.tolist(), strict=True)}
        counts = np.bincount(list(erased.values()), minlength=len(due)).tolist() if erased else [0] * len(due)
        outputs = [Output(self._topics.labels, name.encode(), None) for name in sorted(erased)]
        return outputs + [self._answer(*one, watermark_ms) for one in zip(due, counts, strict=True)]

    def _answer(self, request: EraseRequested, predictions: int, watermark_ms: int) -> Output:
        record = OperatorAction(
            use_case=request.use_case,
            action="erased",
            by="feedback",
            reason=f"asked for by {request.by}: {request.reason}",
            at_ms=watermark_ms,
            evidence={
                "entity": request.entity,
                "digest": digest_of(request.entity, request.value),
                "before_ms": str(request.before_ms),
                "predictions": str(predictions),
            },
        )
        return Output(self._topics.retraining, self._topics.use_case.encode(), encode(record))
