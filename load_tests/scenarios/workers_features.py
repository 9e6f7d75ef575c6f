"""Features workers over the four partitions of one topic: events per second of their processor time.

`tailrace` are four workers, compared with one and two; twelve windows over four spans, changelog and online store on.
Workers first get their partitions and do `WARM_UP` events, so that no start, no compiling and no rebalance is
measured. Then the backlog appears to all of them at once, committed by one transaction, so that nobody waits for
events and no producer runs beside them; the same events for every candidate of a round. The notes say the rate by the
clock and how many processors were busy and idle, as in scenario `workers`, and what `broker` and `redis` needed.
"""

from __future__ import annotations

import functools
import time

from load_tests import events, services, streams, workers, workload
from load_tests.bench import Bench, Candidate
from load_tests.services import Alive
from tailrace.backends.settings import Settings
from tailrace.contracts.topics import Topics

WARM_UP = 40_000
POLL_S = 0.1


def by_core(bench: Bench, *, count: int) -> float:
    """Events per second of processor time."""
    total = WARM_UP + bench.events
    payments = events.payments(total, seed=bench.seed, at_ms=events.times_ms(total, seed=bench.seed))
    with workload.declared(bench, fields=0) as (settings, case):
        topics = Topics(case.name)
        with workers.running(settings, "features", case.name, count, topics.group("features")) as (alive, processes):
            streams.fill(settings, case.requests.name, payments[:WARM_UP])
            before = _done(settings, topics.features, WARM_UP, alive)
            streams.fill_at_once(settings, case.requests.name, payments[WARM_UP:])
            found = workers.rates(settings, topics.features, bench.events, alive, processes, before=before)
            _done(settings, topics.features, total, alive)
    bench.notes |= found.notes()
    return found.by_core


def _done(settings: Settings, topic: str, wanted: int, alive: Alive) -> int:
    """Waits until a topic holds so many different events; gives how many records that are.

    Where a partition changed hands at the start, a fetch may be there twice: FEATURES is at least once.

    Raises:
        TimeoutError: it does not.
    """
    deadline = time.monotonic() + services.TIMEOUT_S
    while True:
        records = list(map(streams.source_of, streams.committed(settings, topic)))
        if len(set(records)) >= wanted:
            return len(records)
        alive()
        if time.monotonic() > deadline:
            raise TimeoutError(f"{len(set(records)):,} of {wanted:,} events in FEATURES")
        time.sleep(POLL_S)


CANDIDATES: dict[str, Candidate] = {
    "tailrace": functools.partial(by_core, count=4),
    "two workers": functools.partial(by_core, count=2),
    "one worker": functools.partial(by_core, count=1),
}
FLOORS = {"one worker": 0.8, "two workers": 0.8}
UNIT = "events/s per core"
EVENTS = 400_000
SHORT = False
