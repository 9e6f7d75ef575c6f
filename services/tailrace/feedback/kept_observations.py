"""Which observations of a task are still needed: those that speak of predictions that are there."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

EVERY = 256
"""Observations between two places that are remembered: they are deleted in runs of so many."""


class _Place(NamedTuple):
    """After the observation `number`, the next serial numbers in the tables of the labels."""

    number: int
    serials: tuple[int, ...]


class KeptObservations:
    """Numbers of a task's observations that are kept. They die in order: none speaks of rows that came after it.

    Args:
        first: The first that is kept.
    """

    def __init__(self, first: int = 0) -> None:
        self.first = first
        self._dead = first
        self._places: deque[_Place] = deque()

    def taken(self, number: int, serials: Sequence[int]) -> None:
        """Takes note of an observation, after which these are the next serial numbers by label."""
        if number % EVERY == EVERY - 1:
            self._places.append(_Place(number, tuple(serials)))

    def delete(self, lowest: Sequence[int]) -> range:
        """Numbers that are kept no longer.

        What has died since the last call is kept until the next: labels of rows that are gone may wait for a tick.

        Args:
            lowest: The lowest serial number by label of the rows that are there.
        """
        deleted = range(self.first, self._dead)
        self.first = self._dead
        while self._places and all(end <= low for end, low in zip(self._places[0].serials, lowest, strict=True)):
            self._dead = self._places.popleft().number + 1
        return deleted
