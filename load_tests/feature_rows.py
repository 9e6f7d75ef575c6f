"""Rows of FEATURES with thirty columns, about 500 bytes, as `features` writes them; and the labels behind the online columns."""

from __future__ import annotations

import time

import msgspec
import numpy as np

from load_tests import streams
from load_tests.bench import Bench
from load_tests.events import TERMINALS, cards_of, terminal_of
from load_tests.streams import PARTITIONS, Keyed
from tailrace.backends.feature_store import RedisOnlineStore
from tailrace.backends.settings import Settings
from tailrace.contracts.records import FeatureRow, Source
from tailrace.core.windows import LabelState
from tailrace.usecase.declaration import UseCase

WIDTH = 30
LABELS = 5
"""Known labels of each terminal, where the online store is read."""


def filled(bench: Bench) -> str:
    """Name of the topic that holds the rows of this seed, for candidates that need no plan; filled when first asked for."""
    return streams.filled(
        bench.settings,
        f"rows.{bench.seed}.{bench.events}",
        lambda: rows(bench.events, seed=bench.seed, fingerprint="-", topic="payments"),
    )


def rows(count: int, *, seed: int, fingerprint: str, topic: str, width: int = WIDTH) -> list[Keyed]:
    """Records of FEATURES.

    Args:
        count: How many.
        seed: Same seed, same rows.
        fingerprint: Of the plan they are made for.
        topic: Name of the events topic they are said to come from.
        width: Values of a row: its columns without those that are read online.
    """
    rng = np.random.default_rng(seed)
    matrix = np.round(rng.normal(0, 1, (min(count, 10_000), width)), 3).tolist()
    now_ms = time.time_ns() // 1_000_000
    offsets = [0] * PARTITIONS
    made = []
    for place, card in enumerate(cards_of(rng, count)):
        partition = card % PARTITIONS
        row = FeatureRow(
            event_id=str(place),
            event_time_ms=now_ms,
            key=f"c{card}",
            entities={"card": f"c{card}", "terminal": f"t{terminal_of(place)}"},
            slices={"channel": "web" if place % 3 else "pos"},
            values=matrix[place % len(matrix)],
            fingerprint=fingerprint,
            source=Source(topic, partition, offsets[partition]),
            produced_at_ms=now_ms,
        )
        offsets[partition] += 1
        made.append((b"c%d" % card, msgspec.json.encode(row), partition))
    return made


def store_labels(settings: Settings, use_case: UseCase) -> None:
    """Writes label windows of all terminals into the online store."""
    view = use_case.plan.online_views[0]
    known = LabelState(view)
    now_ms = time.time_ns() // 1_000_000
    names = [f"t{number}" for number in range(TERMINALS)]
    for at, name in enumerate(names):
        for label in range(LABELS):
            known.apply(name, at * LABELS + label, 1, now_ms - label * 86_400_000, float(label % 2), fresh=True)
    values, times, packed = known.rows(names)
    store = RedisOnlineStore(settings.model_copy(update={"redis_timeout_ms": 10_000}))
    store.write(view.name, view.entity, [column.name for column in view.columns], names, values, times, packed)
    store.close()
