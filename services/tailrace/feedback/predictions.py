"""Predictions as feedback reads them: what labels need of all, and the features of those that drift is judged by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tailrace.backends.codec import BatchDecoder
from tailrace.core.joins import Arrivals, Scored
from tailrace.core.monitoring import Monitor
from tailrace.errors import BadRecord


class Vector(Scored, frozen=True, gc=False):
    """The part of a `Prediction` that feature drift and the money at stake need too; decoded from the same bytes."""

    features: tuple[float | None, ...] = ()


class PredictionReader:
    """Reads batches of predictions.

    Args:
        width: Features of a prediction.
        amount_at: Which of them is the money at stake; None where nobody asks.
    """

    def __init__(self, width: int, amount_at: int | None = None) -> None:
        self._width = width
        self._amount_at = amount_at
        self._scored = BatchDecoder(Scored)
        self._vectors = BatchDecoder(Vector)

    def read(self, values: Sequence[bytes | None], monitor: Monitor | None) -> Arrivals:  # hot path
        """Reads at least one prediction, and gives the monitor, where there is one, the champion's vectors.

        Features are half of a record: those of a sample are read in a second pass, those of all in the first.

        Raises:
            BadRecord: one cannot be read. Written by inference alone, it is a fault of the deploy, not of the data.
        """
        whole = self._amount_at is not None or (monitor is not None and monitor.sample.shift == 0)
        scored = _decoded(self._vectors if whole else self._scored, values)
        amounts = None
        if self._amount_at is not None:
            amounts = [prediction.features[self._amount_at] or 0.0 for prediction in scored]
        arrivals = Arrivals.of(scored, amounts)
        places = _sampled(arrivals, monitor) if monitor is not None else []
        if monitor is not None and places:
            sample = [scored[at] for at in places] if whole else _decoded(self._vectors, [values[at] for at in places])
            matrix = np.array([vector.features for vector in sample], dtype=np.float32)
            monitor.vectors(matrix.reshape(len(places), self._width), arrivals.score[places])
        return arrivals


def _sampled(arrivals: Arrivals, monitor: Monitor) -> list[int]:
    """Places of the champion's predictions that drift is judged by."""
    champions = [
        cohort.variant == "champion" and cohort.model_version == monitor.version for cohort in arrivals.cohorts
    ]
    mine = np.flatnonzero(np.array(champions)[arrivals.cohort]).tolist()
    return [mine[at] for at in monitor.sample.take([arrivals.event_ids[at] for at in mine]).tolist()]


def _decoded(decoder: BatchDecoder, values: Sequence[bytes | None]) -> list[Any]:
    records = decoder.decode(values)
    if BadRecord in set(map(type, records)):
        raise next(record for record in records if isinstance(record, BadRecord))
    return records
