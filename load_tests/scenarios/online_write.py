"""Rows of twelve features into the online store, written by the batch, in rows per second.

`tailrace` writes as the features service does, in Feast's byte format and never an older row over a newer
one; `feast_push` and `feast_write` are the SDK's calls with a data frame of the same thousand rows on the
same Redis. The note `wrong_of_100000` counts the rows that are not the newest after eight writers wrote
100,000 rows at once, each key eight times in another order.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import numpy as np

from load_tests.bench import Bench, Candidate
from load_tests.feast_store import ENTITY, PUSHED, VIEW, feast_store
from tailrace.backends.feature_store import RedisOnlineStore
from tailrace.backends.ports import ReadRequest
from tailrace.backends.settings import Settings

UNIT = "rows/s"
EVENTS = 50_000
BATCH = 1_000
COLUMNS = tuple(f"{kind}_{span}" for kind in ("count", "sum", "mean") for span in ("10m", "1h", "1d", "7d"))
KEYS = 10_000
WRITERS = 8
CONTESTED = 12_500
START_MS = 1_700_000_000_000


def tailrace(bench: Bench) -> float:
    """Our writer, which is refused no row here: timestamps rise."""
    store = RedisOnlineStore(bench.settings)
    # An entity of its own, as Feast's rows have a project: else each round would write to longer hashes.
    view = entity = f"online{uuid.uuid4().hex[:8]}"
    keys, values = _rows(bench)
    began = time.perf_counter()
    for at in range(0, bench.events, BATCH):
        part = slice(at, at + BATCH)
        stamps = np.arange(at, at + len(keys[part])) + START_MS
        store.write(view, entity, COLUMNS, keys[part], values[part], stamps)
    rate = bench.events / (time.perf_counter() - began)
    store.close()
    bench.notes["wrong_of_100000"] = contested(bench.settings, bench.seed)
    return rate


def feast_push(bench: Bench) -> float:
    """`FeatureStore.push` to the online store."""
    return _feast(bench, lambda store, frame: store.push(PUSHED, frame))


def feast_write(bench: Bench) -> float:
    """`FeatureStore.write_to_online_store`."""
    return _feast(bench, lambda store, frame: store.write_to_online_store(VIEW, frame))


def contested(settings: Settings, seed: int) -> int:
    """Eight writers at once; how many rows are not the newest afterwards."""
    view = entity = f"contested{uuid.uuid4().hex[:8]}"
    keys = [f"card-{at:05d}" for at in range(CONTESTED)]
    versions = np.random.default_rng(seed).permuted(np.tile(np.arange(WRITERS), (CONTESTED, 1)), axis=1)
    start = threading.Barrier(WRITERS)

    def write(writer: int) -> None:
        store = RedisOnlineStore(settings.model_copy(update={"redis_timeout_ms": 10_000}))
        start.wait()
        for at in range(0, CONTESTED, 50):
            mine = versions[at : at + 50, writer]
            values = np.repeat(mine[:, None].astype(np.float64), len(COLUMNS), axis=1)
            store.write(view, entity, COLUMNS, keys[at : at + 50], values, START_MS + mine)
        store.close()

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    reader = RedisOnlineStore(settings.model_copy(update={"redis_timeout_ms": 10_000}))
    (rows,) = reader.read([ReadRequest(view, entity, COLUMNS, keys)])
    reader.close()
    newest = (rows.values == WRITERS - 1).all(axis=1) & (rows.timestamps_ms == START_MS + WRITERS - 1)
    return int((~newest).sum())


def _rows(bench: Bench) -> tuple[list[str], Any]:
    rng = np.random.default_rng(bench.seed)
    keys = [f"card-{at:05d}" for at in rng.integers(0, KEYS, bench.events)]
    return keys, rng.random((bench.events, len(COLUMNS)))


def _feast(bench: Bench, write: Callable[[Any, Any], None]) -> float:
    import pandas as pd

    store = feast_store(bench, COLUMNS, project=f"bench{uuid.uuid4().hex[:8]}")
    events = min(bench.events, 5 * BATCH)
    keys, values = _rows(bench)
    frames = []
    for at in range(0, events, BATCH):
        frame = pd.DataFrame(values[at : at + BATCH], columns=list(COLUMNS))
        frame[ENTITY] = keys[at : at + BATCH]
        stamps = pd.to_datetime(np.arange(at, at + len(frame)) + START_MS, unit="ms", utc=True)
        frames.append(frame.assign(event_timestamp=stamps))
    write(store, frames[0])
    began = time.perf_counter()
    for frame in frames:
        write(store, frame)
    return events / (time.perf_counter() - began)


CANDIDATES: dict[str, Candidate] = {
    "tailrace": tailrace,
    "feast_push": feast_push,
    "feast_write": feast_write,
}
FLOORS = {"feast_push": 5.0}
