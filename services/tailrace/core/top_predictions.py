"""The predictions with the highest scores of a window, by name: those that people who act on scores get to see.

A bounded list that is exact however the predictions come, and however they are split over workers: what is not among
the first k of its part is not among the first k of the whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tailrace.contracts.quality import TopPrediction

LATEST = 2
"""The list is cut when it has grown to this many times its size, so that cutting costs O(1) per prediction."""


class TopPredictions:
    """The k predictions with the highest scores; of equal scores those whose names come first. Not thread-safe.

    Args:
        size: k.
        distinct: Whether of each key only the prediction with the highest score takes part.
    """

    __slots__ = ("_distinct", "_entries", "_floor", "_size")

    def __init__(self, size: int, *, distinct: bool) -> None:
        self._size = size
        self._distinct = distinct
        # By key where they are distinct, else by name.
        self._entries: dict[str, TopPrediction] = {}
        self._floor = -1

    @property
    def floor(self) -> int:
        """Grid position below which no prediction is among them, nor will be."""
        return self._floor

    def offer(self, entries: Iterable[TopPrediction]) -> None:
        """Takes predictions, in any order."""
        mine = self._entries
        for entry in entries:
            place = entry.key if self._distinct else entry.prediction_id
            known = mine.get(place)
            if known is None or _rank(entry) < _rank(known):
                mine[place] = entry
        if len(mine) > LATEST * self._size:
            self._cut()

    def label(self, labels: Mapping[str, bool | None]) -> None:
        """Notes labels by name, None where one was taken back; those of predictions not among them are no matter."""
        for place, entry in self._entries.items():
            if entry.prediction_id in labels:
                self._entries[place] = TopPrediction(
                    position=entry.position,
                    prediction_id=entry.prediction_id,
                    key=entry.key,
                    positive=labels[entry.prediction_id],
                )

    def entries(self) -> list[TopPrediction]:
        """The highest first; k at most."""
        return first_of(self._entries.values(), self._size)

    def _cut(self) -> None:
        kept = self.entries()
        self._entries = {entry.key if self._distinct else entry.prediction_id: entry for entry in kept}
        self._floor = kept[-1].position


def first_of(entries: Iterable[TopPrediction], size: int) -> list[TopPrediction]:
    """The first `size` entries, the highest score first."""
    return sorted(entries, key=_rank)[:size]


def merged(parts: Iterable[Sequence[TopPrediction]], size: int, *, distinct: bool) -> list[TopPrediction]:
    """The list of several workers' windows together: that of one worker that saw all."""
    total = TopPredictions(size, distinct=distinct)
    for part in parts:
        total.offer(part)
    return total.entries()


def precision(entries: Sequence[TopPrediction]) -> float | None:
    """Share of positive labels among those that have one; None where none has."""
    known = [entry.positive for entry in entries if entry.positive is not None]
    return sum(known) / len(known) if known else None


def mean_precision(lists: Iterable[tuple[int, Sequence[TopPrediction]]], size: int, *, distinct: bool) -> float | None:
    """Mean over days of the precision among the first of each, of lists with their day; None without a label."""
    days: dict[int, list[Sequence[TopPrediction]]] = {}
    for day, entries in lists:
        days.setdefault(day, []).append(entries)
    found = [precision(merged(parts, size, distinct=distinct)) for _, parts in sorted(days.items())]
    known = [value for value in found if value is not None]
    return sum(known) / len(known) if known else None


def _rank(entry: TopPrediction) -> tuple[int, str]:
    return -entry.position, entry.prediction_id
