"""Cutting batches, and slots in turn."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tailrace.backends.fixed_shapes import SHAPES, FixedShapes, Slot, pieces

shapes_of_any_kind = st.lists(st.integers(1, 50), min_size=1, unique=True).map(sorted)


class LastRowOnly(Slot):
    """Scores rows by their last column; refuses to start before the last batch was fetched."""

    def __init__(self, rows: int, made: list[LastRowOnly]) -> None:
        self.rows, self.busy, self.starts = rows, False, 0
        made.append(self)

    def start(self, rows: NDArray[np.float32]) -> None:
        assert not self.busy
        assert len(rows) <= self.rows
        self.busy, self.kept = True, rows[:, -1].copy()
        self.starts += 1

    def finish(self, scores: NDArray[np.float64]) -> None:
        assert self.busy
        self.busy = False
        scores[:] = self.kept


@given(count=st.integers(0, 500), shapes=shapes_of_any_kind)
def test_pieces_cover_every_row_once_each_in_the_smallest_shape_that_holds_it(count: int, shapes: list[int]) -> None:
    found = list(pieces(count, shapes))
    covered = [row for start, stop, _ in found for row in range(start, stop)]
    assert list(range(count)) == covered
    for start, stop, shape in found:
        assert min(each for each in shapes if each >= stop - start) == shape


@given(count=st.integers(0, 500), shapes=shapes_of_any_kind)
def test_scores_come_in_the_order_of_the_rows(count: int, shapes: list[int]) -> None:
    made: list[LastRowOnly] = []
    rows = np.arange(2 * count, dtype=np.float32).reshape(count, 2)
    scores = FixedShapes(lambda size: LastRowOnly(size, made), shapes).run(rows)
    np.testing.assert_array_equal(rows[:, 1], scores)
    assert not any(slot.busy for slot in made)


def test_largest_shape_has_two_slots_that_take_turns() -> None:
    made: list[LastRowOnly] = []
    FixedShapes(lambda size: LastRowOnly(size, made), (2, 4)).run(np.zeros((16, 1), np.float32))
    assert [(2, 0), (4, 2), (4, 2)] == sorted((slot.rows, slot.starts) for slot in made)


def test_warming_runs_every_slot() -> None:
    made: list[LastRowOnly] = []
    FixedShapes(lambda size: LastRowOnly(size, made)).warm(3)
    assert len(SHAPES) + 1 == len(made)
    assert all(slot.starts for slot in made)
