"""What a load needs, computed from what was measured: cores, workers, memory, bandwidth, Redis shards.

All costs come out of `load_tests/results`; nothing here is a constant of a machine. The model is linear: cost per event times
events, bytes per key times keys. Scenarios `workers` and `workers_in_turns` measure how far that holds for workers,
`features_count` and `models` for what it leaves out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from load_tests.bench import OURS, Figures
from load_tests.results import FOLDER, Result
from tailrace.errors import ConfigError

SERVICES = ("features", "inference", "feedback")
RATES = {"features": "windows_stored", "inference": "inference", "feedback": "feedback"}
"""Scenario that measures what one worker of a service does in a second."""
READ_BY = {"payments": 1, "features": 1, "predictions": 2, "outcomes": 1, "labels": 1}
"""Consumers of a topic: the service behind it, and one app for predictions; the data sets' sink for labels."""


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured.

    Attributes:
        cpu_us: Processor microseconds per event, by service.
        broker_us: The same of the broker, all services together, one replica.
        redis_us: The same of Redis, one row written per event at most.
        worker_rate: Events per second of one worker, by service.
        topic_bytes: Bytes per event on the broker's disk, by topic, compressed, one replica.
        key_bytes: Bytes of memory of a key with twelve features over four spans.
        open_bytes: Bytes of memory of a prediction that waits for its label.
        redis_key_bytes: Bytes of a key's row in Redis.
        feature_us: Processor microseconds that a further feature of a row costs inference.
        model_mb: Megabytes of memory of a further small model.
        workers_share: Events per processor second of four workers over those of one.
    """

    cpu_us: dict[str, float]
    broker_us: float
    redis_us: float
    worker_rate: dict[str, float]
    topic_bytes: dict[str, float]
    key_bytes: float
    open_bytes: float
    redis_key_bytes: float
    feature_us: float
    model_mb: float
    workers_share: float


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of the system.

    Attributes:
        events_per_second: Events.
        keys: Keys with windows.
        open_days: How long a prediction waits for its label and corrections.
        kept_days: How long topics are kept.
        replicas: Of each topic.
        busy: Share of a core, worker or shard that is planned with, in (0, 1]: peaks, hand-overs and catching up need
            the rest.
    """

    events_per_second: float
    keys: float
    open_days: float = 1.0
    kept_days: float = 3.0
    replicas: int = 3
    busy: float = 0.6


class Need(NamedTuple):
    """One line of a plan: what, how much, in which unit, and how it follows."""

    what: str
    amount: float
    unit: str
    how: str


def costs(folder: Path = FOLDER) -> Costs:
    """Reads what was measured.

    Raises:
        ConfigError: a scenario was not measured, or lacks a figure.
    """
    try:
        return _costs(folder)
    except KeyError as error:
        raise ConfigError(
            f"{error} is missing in {folder.name}: a scenario has changed since it was measured"
        ) from error


def plan(cost: Costs, load: Load) -> list[Need]:
    """What a load needs."""
    rate = load.events_per_second
    needs = [
        Need(f"{name} cores", _cores(rate * us, load), "", f"{us:.1f} µs of processor per event")
        for name, us in cost.cpu_us.items()
    ]
    needs += [
        Need(f"{name} workers", math.ceil(rate / per_s / load.busy), "", f"{per_s:,.0f} events/s each")
        for name, per_s in cost.worker_rate.items()
    ]
    slowest = min(cost.worker_rate.values())
    needs.append(
        Need(
            "partitions",
            math.ceil(rate / slowest / load.busy),
            "at least",
            "one for each worker of the slowest service",
        )
    )
    written = sum(cost.topic_bytes.values())
    read = sum(cost.topic_bytes.get(name, 0.0) * readers for name, readers in READ_BY.items())
    gb_s, copies = rate / 1e9, load.replicas
    return [
        *needs,
        Need(
            "broker cores",
            _cores(copies * rate * cost.broker_us, load),
            "",
            f"{cost.broker_us:.1f} µs × {copies} replicas",
        ),
        Need("brokers write", copies * written * gb_s, "GB/s", f"{written:.0f} bytes per event × {copies} replicas"),
        Need(
            "brokers send",
            (read + (copies - 1) * written) * gb_s,
            "GB/s",
            f"{read:.0f} bytes to consumers, the rest to replicas",
        ),
        Need("disk", copies * written * rate * 86_400 * load.kept_days / 1e12, "TB", f"{load.kept_days:g} days"),
        Need("Redis shards", _cores(rate * cost.redis_us, load), "", f"{cost.redis_us:.1f} µs of processor per event"),
        Need("Redis memory", load.keys * cost.redis_key_bytes / 1e9, "GB", f"{cost.redis_key_bytes:.0f} bytes per key"),
        Need("features memory", load.keys * cost.key_bytes / 1e9, "GB", f"{cost.key_bytes:.0f} bytes per key"),
        Need(
            "feedback memory",
            rate * 86_400 * load.open_days * cost.open_bytes / 1e9,
            "GB",
            f"{cost.open_bytes:.0f} bytes per open prediction, {24 * load.open_days:g} hours",
        ),
    ]


def measured(cost: Costs) -> list[tuple[str, str, str]]:
    """Every cost: what, how much, and the command that measures it."""
    run = "python -m load_tests run"
    rows = [(f"{name}, processor per event", f"{us:.1f} µs", f"{run} event_cost") for name, us in cost.cpu_us.items()]
    rows += [
        (f"{name}, one worker", f"{per_s:,.0f} events/s", f"{run} {RATES[name]}")
        for name, per_s in cost.worker_rate.items()
    ]
    rows += [
        ("broker, processor per event, all topics", f"{cost.broker_us:.1f} µs", f"{run} event_cost"),
        ("Redis, processor per event", f"{cost.redis_us:.1f} µs", f"{run} event_cost"),
    ]
    rows += [
        (f"Kafka, {name}", f"{size:,.1f} bytes/event", f"{run} event_cost") for name, size in cost.topic_bytes.items()
    ]
    return [
        *rows,
        ("features, memory of a key", f"{cost.key_bytes:,.0f} bytes", f"{run} window_memory"),
        ("feedback, memory of an open prediction", f"{cost.open_bytes:,.0f} bytes", f"{run} feedback"),
        ("Redis, memory of a key", f"{cost.redis_key_bytes:,.0f} bytes", f"{run} event_cost"),
        ("inference, a further feature", f"{cost.feature_us:.3f} µs", f"{run} features_count"),
        ("inference, a further small model", f"{cost.model_mb:.2f} MB", f"{run} models"),
        ("four workers, per core, over one", f"{cost.workers_share:.2f} ×", f"{run} workers"),
    ]


def _costs(folder: Path) -> Costs:
    cost = _notes(folder, "event_cost")
    widths = {width: _notes(folder, "features_count", f"{width} features")["cpu_us"] for width in (10, 500)}
    return Costs(
        cpu_us={service: cost[f"{service}_us"] for service in SERVICES},
        broker_us=sum(cost[f"{service}_broker_us"] for service in SERVICES),
        redis_us=cost["features_redis_us"],
        worker_rate={service: _median(folder, scenario) for service, scenario in RATES.items()},
        topic_bytes={
            name.removeprefix("kafka_"): size
            for name, size in sorted(cost.items())
            if name.startswith("kafka_") and size >= 0.5
        },
        key_bytes=_notes(folder, "window_memory")["bytes_per_key"],
        open_bytes=_notes(folder, "feedback")["bytes_per_open_prediction"],
        redis_key_bytes=cost["redis_bytes_per_key"],
        feature_us=(widths[500] - widths[10]) / 490,
        model_mb=_notes(folder, "models", "50 models")["mb_per_model"],
        workers_share=_median(folder, "workers") / _median(folder, "workers", "one worker"),
    )


def _cores(us_per_s: float, load: Load) -> int:
    return math.ceil(us_per_s / 1e6 / load.busy)


def _median(folder: Path, scenario: str, candidate: str = OURS) -> float:
    median = _figures(folder, scenario, candidate).median
    if median is None:
        raise ConfigError(f"{scenario} has no figure of {candidate}; measure it: python -m load_tests run {scenario}")
    return median


def _notes(folder: Path, scenario: str, candidate: str = OURS) -> Mapping[str, float]:
    return _figures(folder, scenario, candidate).notes


def _figures(folder: Path, scenario: str, candidate: str) -> Figures:
    path = folder / f"{scenario}.json"
    if not path.exists():
        raise ConfigError(f"{scenario} was not measured; run: python -m load_tests run {scenario}")
    return msgspec.json.decode(path.read_bytes(), type=Result).candidates[candidate]
