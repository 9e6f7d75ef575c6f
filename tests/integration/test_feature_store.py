"""The online store against a real Redis, and against Feast itself."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from tailrace.backends.feast_bytes import entity_keys, hash_fields
from tailrace.backends.feature_store import RedisOnlineStore
from tailrace.backends.ports import OnlineStore, ReadRequest
from tailrace.backends.settings import Settings
from tailrace.errors import StoreUnavailable
from tailrace.local.online_store import OnlineStoreServer

COLUMNS = ("count_1h", "mean_1h")


class _Prefixed:
    """Gives every test views of its own on the shared Redis."""

    def __init__(self, store: RedisOnlineStore) -> None:
        self._store = store
        self._prefix = uuid.uuid4().hex[:8]

    def write(self, view: str, *args: Any) -> None:
        self._store.write(self._prefix + view, *args)

    def read(self, requests: list[ReadRequest]) -> Any:
        return self.ask(requests)()

    def ask(self, requests: list[ReadRequest]) -> Any:
        return self._store.ask([request._replace(view=self._prefix + request.view) for request in requests])


def _contract() -> type[Any]:
    # Imported by path: the unit suite's module is no package.
    import importlib.util

    path = Path(__file__).parents[1] / "contract" / "test_online_store.py"
    spec = importlib.util.spec_from_file_location("online_store_contract", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    contract: type[Any] = module.OnlineStoreContract
    return contract


class TestRedisOnlineStore(_contract()):  # type: ignore[misc]  # the base is loaded by path
    @pytest.fixture
    def store(self, redis_url: str) -> Iterator[OnlineStore]:
        store = RedisOnlineStore(Settings(redis_url=redis_url, redis_timeout_ms=5_000))
        yield _Prefixed(store)  # type: ignore[misc]  # the same calls, passed on
        store.close()


@pytest.fixture
def settings(redis_url: str) -> Settings:
    return Settings(redis_url=redis_url, redis_timeout_ms=5_000)


def test_writes_go_on_after_the_store_forgot_its_scripts(settings: Settings) -> None:
    store = RedisOnlineStore(settings)
    redis.Redis.from_url(settings.redis_url).script_flush()
    view = uuid.uuid4().hex
    store.write(view, "card_id", COLUMNS, ["a"], np.ones((1, 2)), np.array([1]))
    assert [1] == store.read([ReadRequest(view, "card_id", COLUMNS, ["a"])])[0].timestamps_ms.tolist()


def test_a_store_that_is_not_there_is_unavailable() -> None:
    store = RedisOnlineStore(Settings(redis_url="redis://127.0.0.1:1/0", redis_timeout_ms=50))
    with pytest.raises(StoreUnavailable, match="tailrace doctor"):
        store.read([ReadRequest("view", "card_id", COLUMNS, ["a"])])
    with pytest.raises(StoreUnavailable):
        store.write("view", "card_id", COLUMNS, ["a"], np.ones((1, 2)), np.array([1]))


def test_reads_go_on_after_the_store_was_away(tmp_path: Path) -> None:
    server = OnlineStoreServer(tmp_path)
    server.start()
    store = RedisOnlineStore(Settings(redis_url=server.url, redis_timeout_ms=1_000))
    request = ReadRequest("view", "card_id", COLUMNS, ["a"])
    store.write("view", "card_id", COLUMNS, ["a"], np.ones((1, 2)), np.array([1]))
    answer = store.ask([request])
    server.stop()
    for read in (answer, lambda: store.read([request])):
        try:
            assert [1] == read()[0].timestamps_ms.tolist(), "asked before the store went, it may have answered"
        except StoreUnavailable:
            continue
    server.start()
    assert [1] == store.read([request])[0].timestamps_ms.tolist()
    server.stop()


def test_rows_stand_byte_for_byte_as_feast_would_write_them(settings: Settings) -> None:
    from feast.infra.online_stores.helpers import _mmh3, _redis_key
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value
    from google.protobuf.timestamp_pb2 import Timestamp

    view, key, at_ms = uuid.uuid4().hex, "käse-7", 1_700_000_000_123
    RedisOnlineStore(settings).write(
        view, "card_id", COLUMNS, [key], np.array([[0.0, np.nan]]), np.array([at_ms]), [b"ring"]
    )
    feast_key = _redis_key("tailrace", EntityKey(join_keys=["card_id"], entity_values=[Value(string_val=key)]))
    assert [feast_key] == entity_keys("card_id", [key])
    stamp = Timestamp()
    stamp.FromMilliseconds(at_ms)
    expected = {
        _mmh3(f"{view}:count_1h"): Value(double_val=0.0).SerializeToString(),
        _mmh3(f"{view}:mean_1h"): Value().SerializeToString(),
        f"_ts:{view}".encode(): stamp.SerializeToString(),
        f"_state:{view}".encode(): b"ring",
    }
    stored = redis.Redis.from_url(settings.redis_url).hgetall(feast_key)
    assert expected == {name: stored[name] for name in hash_fields(view, COLUMNS)}


def test_feast_reads_what_we_write_and_we_read_what_feast_writes(settings: Settings, tmp_path: Path) -> None:
    import pandas as pd
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig
    from feast.types import Float64
    from feast.value_type import ValueType

    view = f"v{uuid.uuid4().hex}"
    address = settings.redis_url.removeprefix("redis://")
    config = RepoConfig(
        project="tailrace",
        registry=str(tmp_path / "registry.db"),
        provider="local",
        online_store={"type": "redis", "connection_string": address.replace("/", ",db=")},
        entity_key_serialization_version=3,
    )
    feast = FeatureStore(config=config)
    card = Entity(name="card_id", join_keys=["card_id"], value_type=ValueType.STRING)
    source = FileSource(path=str(tmp_path / "none.parquet"), timestamp_field="event_timestamp")
    schema = [Field(name=column, dtype=Float64) for column in COLUMNS]
    feast.apply([card, FeatureView(name=view, entities=[card], schema=schema, source=source, ttl=timedelta(days=1))])

    ours = RedisOnlineStore(settings)
    at_ms = 1_700_000_000_123
    ours.write(view, "card_id", COLUMNS, ["ours"], np.array([[2.5, np.nan]]), np.array([at_ms]))
    names = [f"{view}:{column}" for column in COLUMNS]
    read = feast.get_online_features(names, [{"card_id": "ours"}]).to_dict()
    assert [2.5] == read["count_1h"]
    assert [None] == read["mean_1h"]

    written = datetime(2023, 11, 14, tzinfo=UTC)
    frame = pd.DataFrame({"card_id": ["theirs"], "count_1h": [4.0], "mean_1h": [0.5], "event_timestamp": [written]})
    feast.write_to_online_store(view, frame)
    (rows,) = ours.read([ReadRequest(view, "card_id", COLUMNS, ["theirs"])])
    assert [[4.0, 0.5]] == rows.values.tolist()
    assert [int(written.timestamp() * 1_000)] == rows.timestamps_ms.tolist()


def test_of_eight_writers_at_once_the_newest_row_stays(settings: Settings) -> None:
    view, keys, writers = uuid.uuid4().hex, [f"card-{at}" for at in range(12_500)], 8
    versions = np.random.default_rng(1).permuted(np.tile(np.arange(writers), (len(keys), 1)), axis=1)
    start = threading.Barrier(writers)

    def write(writer: int) -> None:
        store = RedisOnlineStore(settings)
        start.wait()
        for at in range(0, len(keys), 50):
            mine = versions[at : at + 50, writer]
            values = np.repeat(mine[:, None].astype(np.float64), 2, axis=1)
            store.write(view, "card_id", COLUMNS, keys[at : at + 50], values, 1_700_000_000_000 + mine)

    with ThreadPoolExecutor(writers) as pool:
        list(pool.map(write, range(writers)))
    (rows,) = RedisOnlineStore(settings).read([ReadRequest(view, "card_id", COLUMNS, keys)])
    assert [[7.0, 7.0]] * len(keys) == rows.values.tolist()
    assert {1_700_000_000_007} == set(rows.timestamps_ms.tolist())
