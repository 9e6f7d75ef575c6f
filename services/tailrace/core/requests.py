"""Columns computed from the event alone."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tailrace.core.event_windows import stable_hash
from tailrace.core.plan import Plan, RequestColumn

_HOUR_MS = 3_600_000
_DAY_MS = 86_400_000
_EPOCH_WEEKDAY = 3
"""1970-01-01 was a Thursday; Monday is 0."""


class RequestColumns:
    """Computes the request columns of a plan for a batch of events."""

    def __init__(self, plan: Plan) -> None:
        self._columns = plan.request
        self._codes = {
            column.name: {value: float(code) for code, value in enumerate(column.categories)}
            for column in plan.request
            if column.kind == "category"
        }

    def compute(self, events: Sequence[Any], times_ms: NDArray[np.int64]) -> NDArray[np.float64]:
        """Request columns of a batch. # hot path

        Args:
            events: n decoded events.
            times_ms: int64 (n,), event times, epoch milliseconds, UTC.

        Returns:
            float64 (n, len(plan.request)); NaN where an optional field is None.
        """
        out = np.empty((len(events), len(self._columns)))
        for at, column in enumerate(self._columns):
            out[:, at] = self._column(column, events, times_ms)
        return out

    def _column(self, column: RequestColumn, events: Sequence[Any], times_ms: NDArray[np.int64]) -> Any:
        match column.kind:
            case "hour_of_day":
                return times_ms % _DAY_MS // _HOUR_MS
            case "day_of_week":
                return _weekday(times_ms)
            case "is_weekend":
                return _weekday(times_ms) >= 5
            case "is_night":
                return times_ms % _DAY_MS // _HOUR_MS <= column.until_hour
            case "field":
                return numbers(events, column.field)
            case "one_hot":
                value = column.categories[0]
                return [getattr(event, column.field) == value for event in events]
            case "category":
                codes = self._codes[column.name]
                texts = [getattr(event, column.field) for event in events]
                return [_code(text, codes, column.buckets) for text in texts]


def numbers(events: Sequence[Any], field: str) -> NDArray[np.float64]:
    """A payload field as float64 (n,): booleans 0/1, strings by `stable_hash`, None NaN."""
    values = list(map(attrgetter(field), events))
    if str in set(map(type, values)):
        values = [stable_hash(value) if isinstance(value, str) else value for value in values]
    # NumPy makes NaN of None.
    return np.array(values, np.float64)


def _weekday(times_ms: NDArray[np.int64]) -> NDArray[np.int64]:
    return (times_ms // _DAY_MS + _EPOCH_WEEKDAY) % 7


def _code(text: str | None, codes: dict[str, float], buckets: int) -> float:
    if text is None:
        return np.nan
    return codes.get(text, np.nan) if codes else float(stable_hash(text) % buckets)
