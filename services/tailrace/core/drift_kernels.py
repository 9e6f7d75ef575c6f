"""The compiled loop of feature drift: counts values by bin, missing and unheard-of ones apart."""

from __future__ import annotations

from numba import njit


@njit(cache=True)  # type: ignore[untyped-decorator,unused-ignore]  # numba ships no types
def count_values(matrix, columns, edges, first_edge, low, high, counts):  # type: ignore[no-untyped-def]  # compiled  # hot path
    """Counts the values of some columns.

    Args:
        matrix: float32 or float64 (n, d), NaN = missing.
        columns: int64 (k,), which of the d are counted.
        edges: float64, of all k one after the other, ascending in each; a value on an edge counts above it.
        first_edge: int64 (k + 1,), where the edges of each begin.
        low: float64 (k,), smallest value that is known; NaN: the known ones are the edges themselves.
        high: float64 (k,), largest value that is known.
        counts: int64, of all k one after the other: a count for each bin, of which there is one more than
            edges, then missing values, then values that are not known; written.
    """
    for k in range(columns.size):
        column, begin, bins = columns[k], first_edge[k], first_edge[k + 1] - first_edge[k]
        own = counts[begin + 3 * k : begin + 3 * k + bins + 3]
        cuts = edges[begin : begin + bins]
        only_edges, lowest, highest = low[k] != low[k], low[k], high[k]
        for row in range(matrix.shape[0]):
            value = matrix[row, column]
            if value != value:
                own[bins + 1] += 1
                continue
            place, length = 0, bins
            while length > 0:
                half = (length + 1) >> 1
                # Without a branch that the processor would guess wrong half of the time.
                place += half * (cuts[place + half - 1] <= value)
                length -= half
            own[place] += 1
            if only_edges:
                own[bins + 2] += place == 0 or cuts[place - 1] != value
            else:
                own[bins + 2] += (value < lowest) | (value > highest)
