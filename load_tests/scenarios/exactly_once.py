"""What exactly once costs: the inference service as deployed, beside itself without transactions.

Both score the same prefilled FEATURES as scenario `inference` does. Without transactions the loop flushes and commits
offsets where it would commit a transaction, so that a crash doubles predictions; everything else is the same.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from load_tests.bench import Bench
from load_tests.scored_stream import ScoredStream, worker

UNIT = "events/s"
EVENTS = 200_000


def tailrace(bench: Bench) -> float:
    """The service as deployed."""
    stream = ScoredStream(bench)
    stream.decide()
    stream.prefill(bench.events)
    with worker(stream):
        rate = stream.rate(bench.events)
        stream.check_each_once(bench.events)
    stream.close()
    return rate


def at_least_once(bench: Bench) -> float:
    """The same without transactions."""
    stream = ScoredStream(bench)
    stream.decide()
    stream.prefill(bench.events)
    with worker(stream, [sys.executable, "-m", "load_tests.at_least_once", stream.name]):
        rate = stream.rate(bench.events)
    stream.close()
    return rate


CANDIDATES: dict[str, Callable[[Bench], float]] = {"tailrace": tailrace, "at_least_once": at_least_once}
FLOORS: dict[str, float] = {"at_least_once": 0.95}
