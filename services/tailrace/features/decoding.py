"""Events of a run to columns."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import numpy as np

from tailrace.backends.codec import BatchDecoder, EventDecoder
from tailrace.errors import BadRecord
from tailrace.usecase.sources import Topic, fields_of


class RunDecoder:
    """Decodes records of the events topic, and checks by the column what their type cannot say.

    Where a check fails, `EventDecoder` says of which record and why: it alone decides what is bad.
    """

    def __init__(self, topic: Topic) -> None:
        self._batch = BatchDecoder(topic.schema)
        self._careful = EventDecoder(topic)
        fields = fields_of(topic.schema)
        self._floats = [attrgetter(name) for name, kind in fields.items() if kind is float]
        self._integers = [attrgetter(name) for name, kind in fields.items() if kind is int]
        self._ids = [attrgetter(topic.key)] if fields.get(topic.key) is str else []

    def decode(self, values: Sequence[bytes | None]) -> tuple[list[Any], bool]:
        """Decodes values in order; one that cannot be used comes back as its `BadRecord`. # hot path

        Returns:
            Events, and whether all of them are good.
        """
        events = self._batch.decode(values)
        if BadRecord not in set(map(type, events)) and self._plausible(events):
            return events, True
        return self._careful.decode(values), False

    def _plausible(self, events: list[Any]) -> bool:
        n = len(events)
        try:
            for integer in self._integers:
                np.fromiter(map(integer, events), np.int64, n)
        except OverflowError:
            return False
        finite = all(np.isfinite(np.fromiter(map(number, events), np.float64, n)).all() for number in self._floats)
        return finite and all(all(map(name, events)) for name in self._ids)
