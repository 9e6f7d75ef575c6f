"""Outcomes that came before any prediction of their event."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from tailrace.core.join_records import Outcome


class HeldOutcomes:
    """Early outcomes by event id. They are few, and kept one by one.

    Args:
        hold_ms: How long after its own time an outcome waits.

    Attributes:
        touched: Event ids whose outcomes changed, since the caller last cleared it.
    """

    def __init__(self, hold_ms: int) -> None:
        self._hold_ms = hold_ms
        self._outcomes: dict[str, list[Outcome]] = {}
        self._due: list[tuple[int, str]] = []
        self.touched: set[str] = set()

    def __len__(self) -> int:
        return len(self._outcomes)

    def __contains__(self, event_id: str) -> bool:
        return event_id in self._outcomes

    def held(self, event_ids: Sequence[str]) -> NDArray[np.bool_]:
        """For which of some events outcomes are held: bool (n,)."""
        return np.fromiter(map(self._outcomes.__contains__, event_ids), np.bool_, len(event_ids))

    def get(self, event_id: str) -> list[Outcome] | None:
        """Outcomes of an event; None if none are held."""
        return self._outcomes.get(event_id)

    def restore(self, event_id: str, outcomes: list[Outcome]) -> None:
        """Takes back what was held for an event."""
        self._outcomes[event_id] = outcomes
        heapq.heappush(self._due, (self._until_ms(outcomes), event_id))

    def hold(self, event_id: str, outcome: Outcome) -> bool:
        """Holds an outcome; False if it is held already."""
        held = self._outcomes.setdefault(event_id, [])
        if outcome in held:
            return False
        held.append(outcome)
        self.touched.add(event_id)
        heapq.heappush(self._due, (self._until_ms(held), event_id))
        return True

    def take(self, event_id: str) -> list[Outcome] | None:
        """Hands over what was held for an event; None if that is nothing."""
        outcomes = self._outcomes.pop(event_id, None)
        if outcomes is not None:
            self.touched.add(event_id)
        return outcomes

    def take_due(self, until_ms: int) -> Iterator[tuple[str, list[Outcome]]]:
        """Hands over what has waited long enough, the longest first."""
        while (first := self.first_due()) is not None and first[0] <= until_ms:
            heapq.heappop(self._due)
            yield first[1], self.take(first[1]) or []

    def first_due(self) -> tuple[int, str] | None:
        """When the first is due, and the event it belongs to; None while nothing is held."""
        while self._due:
            due_ms, event_id = self._due[0]
            outcomes = self._outcomes.get(event_id)
            # A second outcome of the same event has put it off.
            if outcomes is not None and self._until_ms(outcomes) == due_ms:
                return due_ms, event_id
            heapq.heappop(self._due)
        return None

    def _until_ms(self, outcomes: list[Outcome]) -> int:
        return max(outcome.time_ms for outcome in outcomes) + self._hold_ms
