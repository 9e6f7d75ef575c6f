"""What one event leaves behind and costs everywhere: bytes by topic, processor time by service and server.

`events` payments of 10,000 cards lie on their topic, with an outcome for a
tenth of them, then features, inference and feedback work through them one after the other, as deployed. Notes: `kafka_…`,
bytes on the broker's disk per event and topic, as compressed by the producers, one replica; `…_us`, processor
microseconds per event of the service, and of `broker` and `redis` meanwhile; `redis_bytes_per_key`. The figure is
bytes per event of all topics. Memory per key is scenario `window_memory`, per open prediction scenario `feedback`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import redis

from load_tests import events, services, streams, workload
from load_tests.bench import Bench, Candidate
from load_tests.feature_rows import WIDTH
from load_tests.streams import PARTITIONS
from tailrace.backends.kafka import admin, committed_offsets, end_offsets
from tailrace.backends.settings import Settings
from tailrace.contracts.topics import Topics
from tailrace.trainer.reference import reference_of
from tailrace.usecase.declaration import UseCase

UNIT = "bytes/event"
EVENTS = 200_000
SHORT = False
OUTCOME_SHARE = 0.1
WARM_UP = 0.1
"""Share of a service's records that is not counted: its start."""
POLL_S = 0.2


def tailrace(bench: Bench) -> float:
    """The three services, one after the other."""
    with workload.declared(bench) as (settings, case):
        rng = np.random.default_rng(bench.seed)
        reference = reference_of(case.plan, rng.normal(size=(2_000, WIDTH)).astype(np.float32), rng.beta(1, 8, 2_000))
        workload.promote(settings, case, reference=reference, metrics={"log_loss": 0.3})
        _fill(bench, settings, case)
        topics, count = Topics(case.name), bench.events
        store = redis.Redis.from_url(settings.redis_url)
        before = _used(store)
        _measured(bench, settings, case, "features", lambda: _there(settings, topics.features), count)
        cards = len(set(events.cards_of(np.random.default_rng(bench.seed), count)))
        bench.notes["redis_bytes_per_key"] = (_used(store) - before) / cards
        store.close()
        _measured(bench, settings, case, "inference", lambda: _there(settings, topics.predictions), count)
        streams.check_each_once(settings, topics.predictions, count)
        group = topics.group("feedback")
        _measured(bench, settings, case, "feedback", lambda: _done(settings, group, topics.predictions), count)
        sizes = _sizes(bench, settings, case)
    bench.notes |= {f"kafka_{name}": size / count for name, size in sizes.items()}
    return sum(sizes.values()) / count


def _used(store: redis.Redis) -> int:
    """Bytes that the online store holds."""
    return int(store.info("memory")["used_memory"])  # type: ignore[index]  # the client is typed for both modes


def _fill(bench: Bench, settings: Settings, case: UseCase) -> None:
    at_ms = events.times_ms(bench.events, seed=bench.seed)
    streams.fill(settings, case.requests.name, events.payments(bench.events, seed=bench.seed, at_ms=at_ms))
    rng = np.random.default_rng(bench.seed)
    judged = np.flatnonzero(rng.random(bench.events) < OUTCOME_SHARE)
    reported = at_ms[judged] + rng.integers(1, 86_400_000, len(judged))
    order = np.argsort(reported, kind="stable")
    outcomes = (
        (b"%d" % number, b'{"payment_id":"%d","fraud":true,"at_ms":%d}' % (number, reported_ms), number % PARTITIONS)
        for number, reported_ms in zip(judged[order].tolist(), reported[order].tolist(), strict=True)
    )
    streams.fill(settings, case.label.topic.name, outcomes)


def _there(settings: Settings, topic: str) -> int:
    return sum(end_offsets(admin(settings), topic).values())


def _done(settings: Settings, group: str, topic: str) -> int:
    return sum(offset for offset, _ in committed_offsets(settings, group, topic).values())


def _measured(
    bench: Bench, settings: Settings, case: UseCase, service: str, done: Callable[[], int], count: int
) -> None:
    """Runs a service until `count` records are done, and notes what it and the servers needed for one of them."""
    with services.measured(settings, {service: services.service(service, case.name)}) as (alive, processes):
        watched = services.servers() | {"service": processes[service]}
        deadline = time.monotonic() + services.TIMEOUT_S
        first, at = None, 0
        while at < count:
            alive()
            if time.monotonic() > deadline:
                raise TimeoutError(f"{service}: {at:,} of {count:,} records after {services.TIMEOUT_S:.0f} s")
            time.sleep(POLL_S)
            at = done()
            if first is None and at >= WARM_UP * count:
                first = at, _spent(watched)
        last = at, _spent(watched)
    if first is None or first[0] >= last[0]:
        raise ValueError(f"too few events: {service} was done at once")
    for name in watched:
        label = f"{service}_us" if name == "service" else f"{service}_{name}_us"
        bench.notes[label] = 1e6 * (last[1][name] - first[1][name]) / (last[0] - first[0])


def _spent(watched: dict[str, psutil.Process]) -> dict[str, float]:
    """Processor seconds by name."""
    return {name: services.spent_s(process) for name, process in watched.items()}


def _sizes(bench: Bench, settings: Settings, case: UseCase) -> dict[str, int]:
    """Bytes of each topic of the use case on the broker's disk."""
    broker = bench.directory.parent / "kafka" / "kafka"
    found: dict[str, int] = {}
    for log in broker.glob(f"{case.name}.*/*.log"):
        topic = log.parent.name.rpartition("-")[0].removeprefix(f"{case.name}.").replace("-", "_")
        found[topic] = found.get(topic, 0) + Path(log).stat().st_size
    return found


CANDIDATES: dict[str, Candidate] = {"tailrace": tailrace}
FLOORS: dict[str, float] = {}
