"""Features workers over the four partitions of one topic: events per second of their processor time.

`tailrace` are two workers, compared with one; twelve windows over four spans, changelog and online store on. The notes
say the rate by the clock and how many processors were busy and idle, as in scenario `workers`.
"""

from __future__ import annotations

import functools
import time

from load_tests import events, services, streams, workers, workload
from load_tests.bench import Bench, Candidate
from tailrace.backends.settings import Settings
from tailrace.contracts.topics import Topics


def by_core(bench: Bench, *, count: int) -> float:
    """Events per second of processor time."""
    with workload.declared(bench, events=events.filled(bench), fields=0) as (settings, case):
        topics = Topics(case.name)
        group = topics.group("features")
        with workers.running(settings, "features", case.name, count, group) as (alive, processes):
            found = workers.rates(settings, topics.features, bench.events, alive, processes)
            # Where a partition changed hands at the start, a fetch may be there twice: FEATURES is at least once.
            deadline = time.monotonic() + services.TIMEOUT_S
            while (there := _events(settings, topics.features)) < bench.events:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{there:,} of {bench.events:,} events in FEATURES")
    bench.notes |= found.notes()
    return found.by_core


def _events(settings: Settings, topic: str) -> int:
    """Different events in a topic."""
    return len(set(map(streams.source_of, streams.committed(settings, topic))))


CANDIDATES: dict[str, Candidate] = {
    "tailrace": functools.partial(by_core, count=2),
    "one worker": functools.partial(by_core, count=1),
}
FLOORS = {"one worker": 0.8}
UNIT = "events/s per core"
EVENTS = 400_000
SHORT = False
