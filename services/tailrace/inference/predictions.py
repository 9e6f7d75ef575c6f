"""Predictions as JSON, written by the column.

A `Prediction` per event as a Struct, filled and encoded one by one, costs more than everything else
that is done for the event. Here msgspec writes one prediction per batch and variant, with holes where
events differ, and whole columns of texts, which are then put into the holes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import repeat
from typing import Any, TypeVar

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray

from tailrace.contracts.records import Prediction, Variant
from tailrace.core.plan import Plan
from tailrace.core.regression import STEPS
from tailrace.core.scoring import BINS, bin_of, score_of
from tailrace.core.window_spec import grid_of
from tailrace.inference.inputs import Inputs

_HOLE = b"\x00"
"""Stands for what differs between events; no JSON text holds this byte, strings write it as an escape."""

_ENCODER = msgspec.json.Encoder()

T = TypeVar("T")

Column = Sequence[bytes]


class Scored(msgspec.Struct, frozen=True):
    """What one variant says of some rows of a micro-batch.

    `places` intp (m,) are the rows; `scores` float64 (m,) in [0, 1], NaN where there is none, which is
    published as the default and flagged as `failure`. Of predicted numbers they are shares of the way from the
    plan's `low` to its `high`.
    """

    variant: Variant
    epoch: int
    places: NDArray[np.intp]
    scores: NDArray[np.float64]
    failure: str = "model_failed"

    def of(self, column: Sequence[T]) -> Sequence[T]:
        """What a column of the micro-batch holds at `places`."""
        if len(self.places) == len(column):
            return column
        return [column[place] for place in self.places.tolist()]


class PredictionEncoder:
    """Writes the predictions of micro-batches.

    Args:
        plan: Serving plan.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._fingerprint = plan.fingerprint
        # Published scores lie on a grid: every text there is, is written once.
        self._grid = grid = grid_of(plan)
        scores = (score_of(np.arange(BINS)) if grid is None else grid.values(np.arange(STEPS + 1))).tolist()
        default = plan.default_score
        self._default = default if grid is None else (default - plan.low) / (plan.high - plan.low)
        self._scores = _texts(scores)
        self._decisions = [b"true" if score >= plan.threshold else b"false" for score in scores]

    def encode(self, inputs: Inputs, shared: SharedTexts, scored: Scored, now_ms: int) -> list[bytes]:  # hot path
        """A prediction for each place of `scored`, in their order, as `msgspec` writes a `Prediction`.

        The one difference: a feature has as many digits as tell its float32 from its neighbours, so that reading it
        as float32 gives the very number the model saw. (Through a double, as most readers go, one of all float32
        becomes its neighbour: 7.038531e-26 and its negative.)

        Args:
            inputs: The micro-batch.
            shared: Texts of the same micro-batch.
            scored: What the variant says.
            now_ms: Time of the prediction, epoch milliseconds.
        """
        failed = np.isnan(scored.scores)
        shares = np.where(failed, self._default, scored.scores)
        bins = (bin_of(shares) if self._grid is None else np.rint(shares * STEPS).astype(np.int64)).tolist()
        ages = shared.ages
        degraded = _degraded(inputs, scored, failed)
        columns = [scored.of(column) for column in shared.before_score]
        columns.append([self._scores[number] for number in bins])
        columns.append([self._decisions[number] for number in bins])
        columns.append(scored.of(shared.features))
        if ages is not None:
            columns.append(scored.of(ages))
        if degraded is not None:
            columns.append(degraded)
        columns += [scored.of(column) for column in shared.behind_degraded]
        return _filled(self._template(scored, now_ms, ages=ages is not None, degraded=degraded is not None), columns)

    def _template(self, scored: Scored, now_ms: int, *, ages: bool, degraded: bool) -> bytes:
        """A prediction with holes; none for ages and reasons where no row has any."""
        variant: Any = scored.variant
        hole: Any = msgspec.Raw(_HOLE)
        open_name: Any = msgspec.Raw(_HOLE + b":" + _ENCODER.encode(variant.name)[1:])
        open_id: Any = msgspec.Raw(_HOLE + b'"')
        features: Any = msgspec.Raw(b"[" + _HOLE + b"]")
        return _ENCODER.encode(
            Prediction(
                prediction_id=open_name,
                event_id=open_id,
                use_case=self._plan.use_case,
                key=hole,
                entities=hole,
                slices=hole,
                event_time_ms=hole,
                predicted_at_ms=now_ms,
                variant=variant.name,
                model_version=variant.model_version,
                model_digest=variant.digest,
                epoch=scored.epoch,
                score=hole,
                decision=hole,
                threshold=self._plan.threshold,
                propensity=1.0 if variant.role == "shadow" else variant.share,
                features=features,
                ages_ms=hole if ages else {},
                fingerprint=self._fingerprint,
                degraded=hole if degraded else [],
                source=hole,
                produced_at_ms=hole,
            )
        )


class SharedTexts:
    """What all variants write alike of a micro-batch, made once.

    Args:
        inputs: The micro-batch.
    """

    def __init__(self, inputs: Inputs) -> None:
        self._inputs = inputs

    @cached_property
    def before_score(self) -> list[Sequence[bytes]]:
        """Event id (twice, without its last quote), key, entities, slices and event time."""
        rows = self._inputs.rows
        # A line break inside a string is written as an escape, so that this one ends a line.
        ids = _ENCODER.encode_lines([row.event_id for row in rows]).split(b'"\n')[:-1]
        return [
            ids,
            ids,
            _texts([row.key for row in rows]),
            _texts([row.entities for row in rows]),
            _texts([row.slices for row in rows]),
            _texts([row.event_time_ms for row in rows]),
        ]

    @cached_property
    def features(self) -> list[bytes]:
        """The numbers the models saw, between the brackets of the list; NaN is null."""
        matrix = np.ascontiguousarray(self._inputs.matrix)
        texts = orjson.dumps(matrix, option=orjson.OPT_SERIALIZE_NUMPY).split(b"],[")
        texts[0] = texts[0][2:]
        texts[-1] = texts[-1][:-2]
        return texts

    @cached_property
    def ages(self) -> list[bytes] | None:
        """Age of each online view's row, null without one; None where nothing is read online."""
        ages = self._inputs.ages_ms
        if not ages:
            return None
        holes: Any = dict.fromkeys(ages, msgspec.Raw(_HOLE))
        columns = [_texts([age if age >= 0 else None for age in column.tolist()]) for column in ages.values()]
        return _filled(_ENCODER.encode(holes), columns)

    @cached_property
    def behind_degraded(self) -> list[Sequence[bytes]]:
        """Source and time of production."""
        rows = self._inputs.rows
        return [_texts([row.source for row in rows]), _texts([row.produced_at_ms for row in rows])]


def _degraded(inputs: Inputs, scored: Scored, failed: NDArray[np.bool_]) -> Column | None:
    """Why rows are degraded; None where none is."""
    if not inputs.degraded and not failed.any():
        return None
    reasons = [inputs.degraded.get(place, []) for place in scored.places.tolist()]
    return _texts(
        [[*names, scored.failure] if unscored else names for names, unscored in zip(reasons, failed, strict=True)]
    )


def _texts(values: Sequence[Any]) -> list[bytes]:
    """JSON of each value."""
    return _ENCODER.encode_lines(values).split(b"\n")[:-1]


def _filled(template: bytes, columns: Sequence[Column]) -> list[bytes]:
    """Puts the columns into the holes of a template, one text for each row."""
    first, *others = template.split(_HOLE)
    parts: list[Iterable[bytes]] = [repeat(first)]
    for column, piece in zip(columns, others, strict=True):
        parts += (column, repeat(piece))
    return list(map(b"".join, zip(*parts, strict=False)))
