"""Rows of FEATURES from columns, by the batch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from tailrace.contracts.records import FeatureRow, Source
from tailrace.core.plan import Plan
from tailrace.features.runs import Run


def _twin(kind: type[msgspec.Struct]) -> Any:
    """A type that encodes as `kind` does, made from positional arguments and not followed by the garbage collector."""
    return msgspec.defstruct(kind.__name__, [(name, Any) for name in kind.__struct_fields__], gc=False)


_Row, _Source = _twin(FeatureRow), _twin(Source)


class RowEncoder:
    """Encodes `FeatureRow`s, to the byte as the encoder does that is given one after the other."""

    def __init__(self, plan: Plan) -> None:
        self._event_id = attrgetter(plan.event_id)
        self._entities = _Group(plan.entities)
        self._slices = _Group(plan.slices)
        self._fingerprint = plan.fingerprint
        self._encoder = msgspec.json.Encoder()

    def encode(
        self,
        run: Run,
        events: Sequence[Any],
        keys: Sequence[str],
        times_ms: NDArray[np.int64],
        values: NDArray[np.float64],
    ) -> list[bytes]:
        """Encodes the rows of a run. # hot path

        Args:
            run: n records, where the rows come from.
            events: n decoded events.
            keys: n event keys.
            times_ms: int64 (n,), event times, epoch milliseconds.
            values: float64 (n, d) in the order of `Plan.own_order`; NaN travels as null.

        Returns:
            n JSON objects.
        """
        columns = {
            "event_id": map(str, map(self._event_id, events)),
            "event_time_ms": times_ms.tolist(),
            "key": keys,
            "entities": self._entities.of(events),
            "slices": self._slices.of(events),
            "values": values.tolist(),
            "fingerprint": repeat(self._fingerprint),
            "source": map(_Source, repeat(run.topic), repeat(run.partition), run.offsets),
            "produced_at_ms": run.timestamps_ms,
        }
        rows = list(map(_Row, *(columns[name] for name in FeatureRow.__struct_fields__)))
        # No JSON text holds a line feed.
        return self._encoder.encode_lines(rows).split(b"\n")[:-1]


class _Group:
    """Some fields of events as one JSON object of strings."""

    def __init__(self, names: Sequence[str]) -> None:
        self._getters = [attrgetter(name) for name in names]
        self._kind: Any = msgspec.defstruct("Group", [(name, str) for name in names], gc=False)

    def of(self, events: Sequence[Any]) -> Any:
        if not self._getters:
            return repeat({})
        return map(self._kind, *(map(str, map(getter, events)) for getter in self._getters))
