"""The data set of a request: predictions as served, each with its label if that was final in time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tailrace.core.sampling import DataSet, final_labels
from tailrace.trainer.lake import DAY_MS, labels_of, newest_day_ms, predictions_of, read_days

EMPTY = DataSet(np.empty((0, 0), np.float32), np.empty(0, np.bool_), np.empty(0, np.int64))


def load(directory: Path, *, fingerprint: str, until_ms: int, span_ms: int, longest_wait_ms: int) -> DataSet:
    """Rows whose label was final at `until_ms`, of the span that ends with the newest of them.

    The result depends on what the topics hold up to that stream time, and on nothing else.

    Args:
        directory: The lake.
        fingerprint: Plan; rows of other plans mean something else.
        until_ms: Stream time of the request, epoch milliseconds.
        span_ms: Training window, milliseconds.
        longest_wait_ms: How long a label can take to become final, milliseconds.
    """
    newest_ms = newest_day_ms(predictions_of(directory, fingerprint))
    if newest_ms is None:
        return EMPTY
    first_ms = until_ms - span_ms - longest_wait_ms - DAY_MS
    served = read_days(predictions_of(directory, fingerprint), first_ms, min(until_ms, newest_ms))
    labels = read_days(labels_of(directory), first_ms, min(until_ms, newest_ms))
    if served is None or labels is None:
        return EMPTY
    codes = _codes(served["prediction_id"], labels["prediction_id"])
    of_served, of_labels = codes[: served.num_rows], codes[served.num_rows :]
    known, truth = final_labels(
        of_labels,
        _column(labels, "label_version"),
        labels["label"].to_numpy(),
        labels["final"].to_numpy(),
        _column(labels, "known_at_ms"),
        until_ms,
    )
    times = _column(served, "event_time_ms")
    _, first_of_each = np.unique(of_served, return_index=True)
    taken = first_of_each[np.isin(of_served[first_of_each], known)]
    if not taken.size:
        return EMPTY
    taken = taken[times[taken] > times[taken].max() - span_ms]
    ids = served["prediction_id"].to_numpy(zero_copy_only=False).astype(str)[taken]
    taken = taken[np.lexsort((ids, times[taken]))]
    matrix = _matrix(served.take(pa.array(taken)))
    return DataSet(matrix, truth[np.searchsorted(known, of_served[taken])], times[taken])


def _codes(first: pa.ChunkedArray, second: pa.ChunkedArray) -> NDArray[np.int64]:
    """Numbers for the ids of both columns, equal where the ids are."""
    both = pa.chunked_array([*first.chunks, *second.chunks], type=pa.string()).combine_chunks()
    return np.asarray(both.dictionary_encode().indices.to_numpy(), dtype=np.int64)


def _column(table: pa.Table, name: str) -> NDArray[np.int64]:
    return np.asarray(table[name].to_numpy(), dtype=np.int64)


def _matrix(table: pa.Table) -> NDArray[np.float32]:
    lists = table["features"].combine_chunks()
    width = lists.type.list_size
    # A copy of our own: Arrow's memory is read-only, which torch does not take.
    return np.array(lists.flatten().to_numpy(zero_copy_only=False), dtype=np.float32).reshape(-1, width)
