"""One inference worker that keeps 1, 10 or 50 models, each with an equal share of the traffic.

The worker begins with one model. While events come, a routing table with new models is written to CONTROL: `swap_s` is how
long it took from there until a prediction said the new epoch, `longest_gap_ms` how long at most no prediction was made
meanwhile. `mb_per_model` is the resident memory that the models added. Then FEATURES is filled, and the figure is taken:
events per second of processor time. Every micro-batch is split among the models, so many models make small batches.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Sequence

import msgspec
import psutil
from confluent_kafka import Consumer

from load_tests import feature_rows, streams, workers, workload
from load_tests.bench import Bench, Candidate
from load_tests.services import Alive
from load_tests.streams import Keyed
from tailrace.backends.kafka import producer
from tailrace.backends.settings import Settings
from tailrace.contracts.topics import Topics
from tailrace.usecase.declaration import UseCase

SLOW = 20_000
"""Rows at most that are sent while models are swapped."""
TURN_S = 0.01
SWAP_S = 60.0


class _Epoch(msgspec.Struct, frozen=True):
    epoch: int
    predicted_at_ms: int


def scoring(bench: Bench, *, models: int) -> float:
    """Events per second of processor time with so many models."""
    with workload.declared(bench) as (settings, case):
        workload.promote(settings, case)
        topics = Topics(case.name)
        rows = feature_rows.rows(
            SLOW + bench.events, seed=bench.seed, fingerprint=case.plan.fingerprint, topic=case.requests.name
        )
        with workers.running(settings, "inference", case.name, 1, topics.group("inference")) as (alive, processes):
            sent = _swap(bench, settings, case, rows[:SLOW], models, alive, *processes.values())
            rest = rows[sent:]
            streams.fill(settings, topics.features, rest)
            found = workers.rates(settings, topics.predictions, len(rows), alive, processes)
        streams.check_each_once(settings, topics.predictions, len(rows))
    bench.notes |= found.notes()
    return found.by_core


def _swap(
    bench: Bench,
    settings: Settings,
    case: UseCase,
    rows: Sequence[Keyed],
    models: int,
    alive: Alive,
    worker: psutil.Process,
) -> int:
    """Exchanges the one model for others under a slow stream of events; gives how many were sent."""
    topics = Topics(case.name)
    table = msgspec.json.encode(workload.routing(settings, case, models=models, epoch=2))
    writer = producer(settings, **{"linger.ms": 0})
    reader = streams.tail(settings, topics.predictions, 0, 1)
    made_ms: list[int] = []
    before_bytes = asked_s = 0.0
    deadline = time.monotonic() + SWAP_S
    for sent, (key, value, partition) in enumerate(rows, start=1):
        writer.produce(topics.features, value, key, partition=partition)
        writer.poll(0)
        alive()
        if sent == 500:
            before_bytes = worker.memory_info().rss
            writer.produce(topics.control, table, case.name)
            asked_s = time.time()
        found = _made(reader)
        made_ms += [made.predicted_at_ms for made in found if asked_s]
        swapped = [made.predicted_at_ms for made in found if made.epoch == 2]
        if swapped:
            bench.notes["swap_s"] = min(swapped) / 1e3 - asked_s
            bench.notes["longest_gap_ms"] = max((b - a for a, b in itertools.pairwise(made_ms)), default=0)
            bench.notes["mb_per_model"] = (worker.memory_info().rss - before_bytes) / 1e6 / models
            break
        if time.monotonic() > deadline:
            raise TimeoutError(f"the new models did not serve within {SWAP_S:.0f} s")
        time.sleep(TURN_S)
    writer.flush(10)
    reader.close()
    return sent


def _made(reader: Consumer) -> list[_Epoch]:
    records = [record for record in reader.consume(1_000, timeout=0) if record.error() is None]
    return [msgspec.json.decode(record.value(), type=_Epoch) for record in records if record.value() is not None]


CANDIDATES: dict[str, Candidate] = {
    "tailrace": functools.partial(scoring, models=1),
    "10 models": functools.partial(scoring, models=10),
    "50 models": functools.partial(scoring, models=50),
}
FLOORS: dict[str, float] = {}
UNIT = "events/s per core"
EVENTS = 100_000
SHORT = False
