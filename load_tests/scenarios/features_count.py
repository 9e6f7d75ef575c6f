"""What an event costs inference as its features grow: 10, 30, 100 and 500 columns, events per second of processor time.

One worker as deployed, exactly once, a network of two hidden layers of 32 whatever its width; `tailrace` has 30 columns. The
row lies on FEATURES and every value is repeated in the prediction, so most of the cost is decoding and encoding numbers.
"""

from __future__ import annotations

import functools

from load_tests import feature_rows, streams, workers, workload
from load_tests.bench import Bench, Candidate
from tailrace.contracts.topics import Topics


def scoring(bench: Bench, *, width: int) -> float:
    """Events per second of processor time with `width` columns."""
    with workload.declared(bench, fields=width, windows=False) as (settings, case):
        workload.promote(settings, case)
        topics = Topics(case.name)
        rows = feature_rows.rows(
            bench.events, seed=bench.seed, fingerprint=case.plan.fingerprint, topic=case.requests.name, width=width
        )
        streams.fill(settings, topics.features, rows)
        with workers.running(settings, "inference", case.name, 1, topics.group("inference")) as (alive, processes):
            found = workers.rates(settings, topics.predictions, bench.events, alive, processes)
        streams.check_each_once(settings, topics.predictions, bench.events)
    bench.notes |= found.notes()
    bench.notes |= {
        "feature_row_bytes": sum(len(value) for _, value, _ in rows) / len(rows),
        "us_per_feature": found.cpu_us / width,
    }
    return found.by_core


CANDIDATES: dict[str, Candidate] = {
    "10 features": functools.partial(scoring, width=10),
    "tailrace": functools.partial(scoring, width=feature_rows.WIDTH),
    "100 features": functools.partial(scoring, width=100),
    "500 features": functools.partial(scoring, width=500),
}
FLOORS: dict[str, float] = {}
UNIT = "events/s per core"
EVENTS = 100_000
SHORT = False
