"""Peer: the Feast SDK on the same Redis; reads or pushes rows of twelve features and prints rows per second.

python store_feast.py --bootstrap REDIS_HOST:PORT --source read|push --sink PROJECT --events ROWS --directory FOLDER
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
from arguments import parsed
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, PushSource, RepoConfig
from feast.types import Float64, String

BATCH = 256
CARDS = 10_000
NAMES = [f"f{number:02d}" for number in range(12)]


def rows(begin: int, count: int) -> pd.DataFrame:
    """Rows of `count` cards."""
    columns = {name: [float(begin + place) for place in range(count)] for name in NAMES}
    now = datetime.now(UTC)
    return pd.DataFrame({"card": [f"c{(begin + n) % CARDS}" for n in range(count)], "at": now, "made": now} | columns)


def store_of(folder: Path, redis: str, project: str) -> FeatureStore:
    """A feature store with one view, and a push source for it."""
    rows(0, 1).to_parquet(folder / "rows.parquet")
    config = RepoConfig(
        project=project,
        provider="local",
        registry=str(folder / "registry.db"),
        online_store={"type": "redis", "connection_string": redis},
        entity_key_serialization_version=3,
    )
    store = FeatureStore(config=config)
    batch = FileSource(path=str(folder / "rows.parquet"), timestamp_field="at", created_timestamp_column="made")
    source = PushSource(name="pushed", batch_source=batch)
    view = FeatureView(
        name="card_windows",
        entities=[Entity(name="card", join_keys=["card"])],
        ttl=timedelta(days=7),
        schema=[Field(name="card", dtype=String), *(Field(name=name, dtype=Float64) for name in NAMES)],
        source=source,
    )
    store.apply([*[Entity(name="card", join_keys=["card"])], source, view])
    return store


if __name__ == "__main__":
    given = parsed()
    store = store_of(Path(given.directory), given.bootstrap, given.sink)
    names = [f"card_windows:{name}" for name in NAMES]
    store.write_to_online_store("card_windows", rows(0, min(given.events, CARDS)))
    done, began = 0, time.perf_counter()
    while done < given.events:
        if given.source == "push":
            store.push("pushed", rows(done, BATCH))
        else:
            asked = [{"card": f"c{(done + n) % CARDS}"} for n in range(BATCH)]
            store.get_online_features(features=names, entity_rows=asked).to_dict()
        done += BATCH
    print(done / (time.perf_counter() - began))  # noqa: T201  # the script's answer
