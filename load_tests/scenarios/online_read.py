"""Reading 12 features of 256 entities at a time from Redis: our reader beside Feast's `get_online_features`.

Both read the same bytes, one batch after the other, from a table of 10,000 entities. Before its run ours is compared
with what Feast's client answers for the same entities, value by value.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from load_tests.bench import Bench, Candidate
from load_tests.feast_store import ENTITY, VIEW, feast_store
from tailrace.backends.feature_store import RedisOnlineStore
from tailrace.backends.ports import ReadRequest

UNIT = "rows/s"
EVENTS = 100_000
BATCH = 256
KEYS = 10_000
COLUMNS = tuple(f"f{number:02}" for number in range(12))


def tailrace(bench: Bench) -> float:
    """Our reader."""
    store = _filled(bench)
    keys = next(_batches(bench.seed, BATCH))
    np.testing.assert_array_equal(_read_by_feast(_client(bench), keys), _read(store, keys))
    return _rate(lambda keys: _read(store, keys), bench.seed, bench.events)


def feast(bench: Bench) -> float:
    """Feast's client, features asked for by name, answer taken as columns."""
    _filled(bench)
    client = _client(bench)
    # A rate is a rate: a tenth of the rows keeps the run as short as ours.
    return _rate(lambda keys: _read_by_feast(client, keys), bench.seed, bench.events // 10)


def _rate(read: Callable[[list[str]], Any], seed: int, rows: int) -> float:
    batches = list(_batches(seed, rows))
    read(batches[0])
    began = time.perf_counter()
    for keys in batches:
        read(keys)
    return len(batches) * BATCH / (time.perf_counter() - began)


def _batches(seed: int, rows: int) -> Iterator[list[str]]:
    generator = np.random.default_rng(seed)
    for _ in range(max(rows // BATCH, 1)):
        yield [f"card-{number}" for number in generator.choice(KEYS, BATCH, replace=False)]


def _filled(bench: Bench) -> RedisOnlineStore:
    store = RedisOnlineStore(bench.settings.model_copy(update={"redis_timeout_ms": 10_000}))
    generator = np.random.default_rng(bench.seed)
    for begin in range(0, KEYS, 1_000):
        keys = [f"card-{number}" for number in range(begin, begin + 1_000)]
        values = generator.normal(size=(len(keys), len(COLUMNS)))
        values[generator.random(values.shape) < 0.01] = np.nan
        store.write(VIEW, ENTITY, COLUMNS, keys, values, np.full(len(keys), time.time_ns() // 1_000_000))
    return store


def _read(store: RedisOnlineStore, keys: list[str]) -> NDArray[np.float64]:
    return store.read([ReadRequest(VIEW, ENTITY, COLUMNS, keys)])[0].values


def _client(bench: Bench) -> Any:
    return feast_store(bench, COLUMNS, project="tailrace")


def _read_by_feast(client: Any, keys: list[str]) -> NDArray[np.float64]:
    names = [f"{VIEW}:{column}" for column in COLUMNS]
    answer = client.get_online_features(names, [{ENTITY: key} for key in keys]).to_dict()
    return np.array([answer[column] for column in COLUMNS], dtype=np.float64).T


CANDIDATES: dict[str, Candidate] = {"tailrace": tailrace, "feast": feast}
FLOORS = {"feast": 10.0}
