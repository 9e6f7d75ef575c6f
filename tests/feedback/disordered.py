"""Streams of everything that can befall a join: disorder, doubles, revisions, retractions, shadows, early and late ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from declared import payments, prediction

from tailrace.backends.codec import encode
from tailrace.backends.ports import Message
from tailrace.contracts.records import WATERMARK_HEADER, Prediction, Source
from tailrace.contracts.topics import Topics
from tailrace.usecase.declaration import UseCase

DAY_MS = 86_400_000
START_MS = 20_000 * DAY_MS
WALL_MS = START_MS + 400 * DAY_MS

_LABEL = """
corrected_within="2d", if_absent={if_absent}, closes="{closes}", revision="revision", retract="withdrawn"
"""
_POLICIES = """
monitor=[
    tr.metrics.LogLoss("1d", drop=0.01),
    tr.metrics.ROCAUC("3d", drop=0.01),
    tr.drift.PSI(every="1d", alarm=0.01),
    tr.drift.ADWIN("log_loss"),
    tr.drift.PageHinkley("brier", threshold=5.0),
],
retrain=tr.Retrain(on=["drift", "metric_drop"], at_most_every="1d", min_labels=50, window="7d"),
"""


def use_case(folder: Path, *, closes: str = "window", if_absent: bool | None = False) -> UseCase:
    """A use case whose outcomes may be revised and withdrawn."""
    label = _LABEL.format(closes=closes, if_absent=if_absent)
    return payments(folder, "disordered", label=label, policies=_POLICIES)


def batches(use_case: UseCase, seed: int, events: int = 1_500) -> Iterator[list[Message]]:
    """Micro-batches of records in some order, with watermarks between them."""
    rng = np.random.default_rng(seed)
    topics = Topics(use_case.name)
    records: list[tuple[int, str, bytes]] = []
    for number in range(events):
        # A coarse clock, so that many events share their time.
        time_ms = START_MS + int(rng.integers(0, 5 * 24 * 4)) * 900_000
        records += [(time_ms, *record) for record in _predictions(use_case, rng, number, time_ms)]
        records += list(_outcomes(use_case, rng, number, time_ms))
    records.sort(key=lambda record: record[0] + int(rng.exponential(3_600_000)))
    batch: list[Message] = []
    reached = START_MS
    for offset, (time_ms, topic, value) in enumerate(records):
        batch.append(Message(topic, int(rng.integers(2)), offset, WALL_MS, b"k", value, []))
        reached = max(reached, time_ms)
        if rng.random() < 0.01:
            yield batch
            batch = _watermarks(topics, use_case, reached - int(rng.integers(0, 2 * 3_600_000)))
    yield batch
    for days in (6, 7, 9, 12):
        yield _watermarks(topics, use_case, START_MS + days * DAY_MS)


def _predictions(use_case: UseCase, rng: Any, number: int, time_ms: int) -> Iterator[tuple[str, bytes]]:
    topics = Topics(use_case.name)
    variants = ["champion"] if rng.random() < 0.8 else ["canary"]
    variants += ["shadow"] * bool(rng.random() < 0.4)
    for variant in variants:
        made = _prediction(use_case, rng, number, time_ms, variant)
        topic = topics.shadow if variant == "shadow" else topics.predictions
        yield topic, encode(made)
        if rng.random() < 0.05:
            yield topic, encode(made)
        if rng.random() < 0.03:
            yield topic, encode(msgspec.structs.replace(made, decision=not made.decision))


def _prediction(use_case: UseCase, rng: Any, number: int, time_ms: int, variant: str) -> Prediction:
    return prediction(
        use_case,
        f'p"{number}',
        time_ms,
        float(np.clip(rng.beta(1, 3), 0.001, 0.999)),
        variant=variant,
        key=f"é{number % 7}",
        entities={"card": f"é{number % 7}"},
        slices={"channel": ("web", "pos")[number % 2]},
        predicted_at_ms=WALL_MS,
        produced_at_ms=WALL_MS,
        model_version="1" if variant == "champion" else "2",
        features=[None if rng.random() < 0.1 else float(np.float32(rng.normal())), 0.5],
        source=Source("payments", 0, number),
        activated=bool(rng.random() < 0.95),
        blocked=bool(rng.random() < 0.05),
    )


def _outcomes(use_case: UseCase, rng: Any, number: int, time_ms: int) -> Iterator[tuple[int, str, bytes]]:
    topic = use_case.label.topic.name
    for revision in range(int(rng.choice([0, 0, 1, 1, 2, 3]))):
        at_ms = time_ms + int(rng.choice([-10_000, -5_000, 1_000, 40_000_000, DAY_MS - 1, DAY_MS, 2 * DAY_MS]))
        record = {
            "payment_id": f'p"{number}' if rng.random() < 0.97 else f"unknown{number}",
            "loss": float(rng.choice([0.0, 1.0, 2.5])),
            "at_ms": at_ms,
            "revision": revision if rng.random() < 0.8 else 0,
            "withdrawn": bool(rng.random() < 0.2),
        }
        # Some are reported in time to be early, some long after they happened.
        seen_ms = at_ms + int(rng.choice([-2 * 3_600_000, 0, 0, DAY_MS, 4 * DAY_MS]))
        yield seen_ms, topic, encode(record)
        if rng.random() < 0.1:
            yield seen_ms, topic, encode(record)
        if rng.random() < 0.02:
            yield seen_ms, topic, b'{"payment_id": 7}'


def _watermarks(topics: Topics, use_case: UseCase, at_ms: int) -> list[Message]:
    header = [(WATERMARK_HEADER, str(at_ms).encode())]
    names = (topics.predictions, topics.shadow, use_case.label.topic.name)
    return [Message(name, partition, 0, WALL_MS, b"", None, header) for name in names for partition in range(2)]
