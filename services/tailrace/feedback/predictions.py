"""Predictions as feedback reads them: what labels need of all, and the features of those that drift is judged by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tailrace.backends.codec import BatchDecoder
from tailrace.core.joins import Arrivals, Scored
from tailrace.core.plan import Plan
from tailrace.core.vector_sample import VectorSample
from tailrace.errors import BadRecord


class Vector(Scored, frozen=True, gc=False):
    """The part of a `Prediction` that feature drift and the money at stake need too; decoded from the same bytes."""

    features: tuple[float | None, ...] = ()


class PredictionBatch:
    """Predictions of one batch.

    Attributes:
        arrivals: What labels need of all.
    """

    def __init__(self, arrivals: Arrivals, read: Callable[[Sequence[int]], Sequence[Vector]], width: int) -> None:
        self.arrivals = arrivals
        self._read = read
        self._width = width

    def vectors(self, places: Sequence[int]) -> NDArray[np.float32]:
        """Features of some of the predictions, by position: float32 (k, d).

        Raises:
            BadRecord: one cannot be read.
        """
        vectors = [vector.features for vector in self._read(places)]
        return np.array(vectors, dtype=np.float32).reshape(len(places), self._width)


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

    @classmethod
    def of(cls, plan: Plan) -> PredictionReader:
        """The reader of predictions that a plan's features made."""
        return cls(len(plan.order), plan.order.index(plan.amount) if plan.amount else None)

    def read(self, values: Sequence[bytes | None], *, whole: bool = False) -> PredictionBatch:  # hot path
        """Reads at least one prediction.

        Features are half of a record: they are read with the rest where `whole` says that those of all will be asked
        for, or where they carry the money at stake, and otherwise in a second pass, of those that are asked for.

        Raises:
            BadRecord: one cannot be read. Written by inference alone, it is a fault of the deploy, not of the data.
        """
        if not whole and self._amount_at is None:
            arrivals = Arrivals.of(_decoded(self._scored, values))
            return PredictionBatch(
                arrivals, lambda places: _decoded(self._vectors, [values[place] for place in places]), self._width
            )
        vectors = _decoded(self._vectors, values)
        amounts = None
        if self._amount_at is not None:
            amounts = [vector.features[self._amount_at] or 0.0 for vector in vectors]
        return PredictionBatch(
            Arrivals.of(vectors, amounts), lambda places: [vectors[place] for place in places], self._width
        )


def sampled(arrivals: Arrivals, sample: VectorSample, version: str) -> list[int]:
    """Places of a champion's predictions that drift is judged by."""
    champions = [cohort.variant == "champion" and cohort.model_version == version for cohort in arrivals.cohorts]
    mine = np.flatnonzero(np.array(champions)[arrivals.cohort]).tolist()
    return [mine[at] for at in sample.take([arrivals.event_ids[at] for at in mine]).tolist()]


def _decoded(decoder: BatchDecoder, values: Sequence[bytes | None]) -> list[Any]:
    records = decoder.decode(values)
    if BadRecord in set(map(type, records)):
        raise next(record for record in records if isinstance(record, BadRecord))
    return records
