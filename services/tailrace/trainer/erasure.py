"""Rows of entities that were erased: out of the lake, and kept out of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tailrace.contracts.retraining import EraseRequested
from tailrace.core.erasure import asked_by_entities


def spared(rows: Sequence[Any], requests: Sequence[EraseRequested]) -> list[Any]:
    """Rows, with `entities` and `event_time_ms` each, that no request asks for."""
    if not requests:
        return list(rows)
    times_ms = np.array([row.event_time_ms for row in rows], np.int64)
    asked = asked_by_entities(requests, [bytes(row.entities) for row in rows], times_ms) >= 0
    return [rows[at] for at in np.flatnonzero(~asked).tolist()]


def erase_files(predictions: Path, labels: Path, requests: Sequence[EraseRequested]) -> int:
    """Writes files again without the predictions that requests ask for, and without their labels.

    A crash leaves each file as it was or as it will be. Labels go first: predictions tell whose they are.

    Args:
        predictions: Folder of predictions, of all plans.
        labels: Folder of labels.
        requests: What is to be erased.

    Returns:
        How many predictions there were.
    """
    found = [(path, _asked(path, requests)) for path in sorted(predictions.glob("plan=*/date=*/*.parquet"))]
    found = [(path, asked) for path, asked in found if asked.any()]
    ids: set[str] = set()
    for path, asked in found:
        ids.update(pq.read_table(path, columns=["prediction_id"]).filter(pa.array(asked))["prediction_id"].to_pylist())
    if ids:
        value_set = pa.array(sorted(ids))
        for path in sorted(labels.glob("date=*/*.parquet")):
            named = pq.read_table(path, columns=["prediction_id"], partitioning=None)["prediction_id"]
            _rewrite(path, np.asarray(pc.is_in(named, value_set)))
    for path, asked in found:
        _rewrite(path, asked)
    return len(ids)


def _asked(path: Path, requests: Sequence[EraseRequested]) -> NDArray[np.bool_]:
    table = pq.read_table(path, partitioning=None)
    if "entities" not in table.column_names:
        # Files of older releases do not say whose predictions they hold.
        return np.zeros(table.num_rows, np.bool_)
    entities = [text.encode() for text in table["entities"].to_pylist()]
    return asked_by_entities(requests, entities, table["event_time_ms"].to_numpy()) >= 0


def _rewrite(path: Path, asked: NDArray[np.bool_]) -> None:
    if not asked.any():
        return
    part = path.with_name(f".{path.name}.part")
    pq.write_table(pq.read_table(path, partitioning=None).filter(pa.array(~asked)), part, compression="lz4")
    part.rename(path)
