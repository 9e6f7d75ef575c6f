"""Feast's SDK on the Redis of a run: one view of twelve features, with a push source."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from load_tests.bench import Bench
from load_tests.streams import fresh

VIEW = "card_windows"
ENTITY = "card"
PUSHED = "payments"


def feast_store(bench: Bench, columns: Sequence[str], *, project: str) -> Any:
    """A `feast.FeatureStore` with a registry of its own; rows of a project lie under its name."""
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, PushSource, RepoConfig
    from feast.types import Float64
    from feast.value_type import ValueType

    # Feast asks for shared metrics files, of this process and of every service it starts from here on.
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
    address = bench.settings.redis_url.removeprefix("redis://").replace("/", ",db=")
    config = RepoConfig(
        project=project,
        registry=str(bench.directory / f"{fresh('registry')}.db"),
        provider="local",
        online_store={"type": "redis", "connection_string": address},
        entity_key_serialization_version=3,
    )
    store = FeatureStore(config=config)
    card = Entity(name=ENTITY, join_keys=[ENTITY], value_type=ValueType.STRING)
    batch = FileSource(path=str(bench.directory / "none.parquet"), timestamp_field="event_timestamp")
    source = PushSource(name=PUSHED, batch_source=batch)
    schema = [Field(name=column, dtype=Float64) for column in columns]
    store.apply([card, FeatureView(name=VIEW, entities=[card], schema=schema, source=source, ttl=timedelta(days=30))])
    return store
