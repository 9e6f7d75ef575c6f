"""Batches of any size as batches of few sizes, because a captured GPU program replays one shape only."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

SHAPES = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
"""Rows of the captured batches. Powers of two: at most half of a batch above 16 rows is padding, and few captures.

Up to a few thousand rows make a micro-batch; what is larger goes through in pieces.
"""


class Slot(ABC):
    """Buffers and a program for one fixed number of rows. Not thread-safe.

    `finish` must follow every `start` before the next one, as `FixedShapes` sees to.
    """

    @abstractmethod
    def start(self, rows: NDArray[np.float32]) -> None:
        """Takes float32 (n, d), n up to the rows of the slot, and begins to score them; may return before the end."""

    @abstractmethod
    def finish(self, scores: NDArray[np.float64]) -> None:
        """Waits for the end and writes the scores of the n rows into float64 (n,)."""


class FixedShapes:
    """Scores batches of any size by slots of fixed sizes.

    The largest size has two slots: while one computes, the next piece is copied to the other.

    Args:
        make: Makes the slot of a number of rows.
        shapes: Rows of the slots, rising.
    """

    def __init__(self, make: Callable[[int], Slot], shapes: Sequence[int] = SHAPES) -> None:
        self._shapes = tuple(shapes)
        self._slots = {rows: [make(rows)] for rows in self._shapes}
        self._slots[self._shapes[-1]].append(make(self._shapes[-1]))

    def warm(self, width: int) -> None:
        """Runs every slot, so that nothing is captured or tuned while events wait."""
        largest = self._shapes[-1]
        for rows in (*self._shapes, 2 * largest):
            self.run(np.zeros((rows, width), dtype=np.float32))

    def run(self, matrix: NDArray[np.float32]) -> NDArray[np.float64]:  # hot path
        """Scores float32 (n, d); returns float64 (n,), unchecked."""
        scores = np.empty(len(matrix))
        under_way: deque[tuple[Slot, NDArray[np.float64]]] = deque()
        for turn, (start, stop, shape) in enumerate(pieces(len(matrix), self._shapes)):
            if len(under_way) == 2:
                slot, into = under_way.popleft()
                slot.finish(into)
            slots = self._slots[shape]
            slot = slots[turn % len(slots)]
            slot.start(matrix[start:stop])
            under_way.append((slot, scores[start:stop]))
        for slot, into in under_way:
            slot.finish(into)
        return scores


def pieces(count: int, shapes: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Cuts a batch: as many of the largest shape as fit, the rest in the smallest that holds it.

    Args:
        count: Rows of the batch.
        shapes: Rising numbers of rows.

    Returns:
        First row, row after the last, and shape of each piece.

    Example:
        >>> list(pieces(70, (16, 32)))
        [(0, 32, 32), (32, 64, 32), (64, 70, 16)]
    """
    for start in range(0, count, shapes[-1]):
        size = min(count - start, shapes[-1])
        yield start, start + size, next(shape for shape in shapes if shape >= size)
