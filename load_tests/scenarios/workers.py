"""Inference workers over the four partitions of one topic, exactly once: events per second of their processor time.

`tailrace` are four workers of one group, compared with one and two. A worker needs more than one processor where it has
them, and broker and measurement need theirs: on a machine of four, four workers get no four processors. So the figure is
what they do with the processor time they get, and the notes say the rate by the clock, how many processors the workers
kept busy, and how many were idle. Scenario `workers_in_turns` compares by the clock. FEATURES is filled before; it is
measured from when every worker has its partitions until the first tenth from the end. Every event is counted afterwards.
"""

from __future__ import annotations

import functools

from load_tests import feature_rows, streams, workers, workload
from load_tests.bench import Bench, Candidate
from tailrace.contracts.topics import Topics


def scoring(bench: Bench, *, count: int, turns: int = 0) -> workers.Rates:
    """What `count` workers come to; `turns`: each runs for one of so many slices of time; 0: as they like."""
    with workload.declared(bench) as (settings, case):
        workload.promote(settings, case)
        topics = Topics(case.name)
        rows = feature_rows.rows(
            bench.events, seed=bench.seed, fingerprint=case.plan.fingerprint, topic=case.requests.name
        )
        streams.fill(settings, topics.features, rows)
        group = topics.group("inference")
        with (
            workers.running(settings, "inference", case.name, count, group) as (alive, processes),
            workers.in_turns(processes, turns),
        ):
            found = workers.rates(settings, topics.predictions, bench.events, alive, processes)
        streams.check_each_once(settings, topics.predictions, bench.events)
    bench.notes |= found.notes()
    return found


def by_core(bench: Bench, *, count: int) -> float:
    """Events per second of processor time."""
    return scoring(bench, count=count).by_core


CANDIDATES: dict[str, Candidate] = {
    "tailrace": functools.partial(by_core, count=4),
    "two workers": functools.partial(by_core, count=2),
    "one worker": functools.partial(by_core, count=1),
}
FLOORS = {"one worker": 0.8, "two workers": 0.8}
UNIT = "events/s per core"
EVENTS = 300_000
SHORT = False
