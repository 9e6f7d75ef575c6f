"""Inference end to end: FEATURES to readable PREDICTIONS, one process, 30 columns, a small MLP, exactly once.

FEATURES is filled before; the rate is what becomes readable under `read_committed` between the first fifth and 95 % of
the events, so that no start-up counts. `tailrace` is `tailrace run inference` as deployed; afterwards every event is
counted once. `online` reads four of the columns from Redis. `speed_of_light` is the fastest hand-written transactional
loop we know of that writes the same predictions, `speed_of_light_bare` writes event id and score alone, `naive` is the
loop most people write first.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

from load_tests import inference_loops
from load_tests.bench import Bench
from load_tests.scored_stream import PARTITIONS, ScoredStream, worker

UNIT = "events/s"
EVENTS = 200_000


def tailrace(bench: Bench) -> float:
    """Our service, exactly once."""
    return _service(ScoredStream(bench), bench)


def online(bench: Bench) -> float:
    """The same, where four of the thirty columns are label windows read from the online store."""
    return _service(ScoredStream(bench, online=True), bench)


def _service(stream: ScoredStream, bench: Bench) -> float:
    stream.decide()
    stream.prefill(bench.events)
    with worker(stream):
        rate = stream.rate(bench.events)
        stream.check_each_once(bench.events)
    stream.close()
    return rate


def speed_of_light(bench: Bench) -> float:
    """The fastest hand-written loop, transactional."""
    return _loop(bench, inference_loops.speed_of_light)


def speed_of_light_bare(bench: Bench) -> float:
    """The same loop where it writes no more than event id and score."""
    return _loop(bench, inference_loops.speed_of_light, whole=False)


def naive(bench: Bench) -> float:
    """One event at a time, at least once."""
    return _loop(bench, inference_loops.naive)


def _loop(bench: Bench, target: Callable[..., None], **options: Any) -> float:
    stream = ScoredStream(bench)
    stream.prefill(bench.events)
    topics = stream.topics
    arguments = (stream.settings.kafka_bootstrap, topics.features, topics.predictions, PARTITIONS, stream.model)
    process = multiprocessing.get_context("spawn").Process(target=target, args=arguments, kwargs=options, daemon=True)
    process.start()
    try:
        return stream.rate(bench.events)
    finally:
        process.kill()
        process.join()
        stream.close()


CANDIDATES: dict[str, Callable[[Bench], float]] = {
    "tailrace": tailrace,
    "online": online,
    "speed_of_light": speed_of_light,
    "speed_of_light_bare": speed_of_light_bare,
    "naive": naive,
}
FLOORS: dict[str, float] = {"speed_of_light": 0.5, "naive": 2.6}
