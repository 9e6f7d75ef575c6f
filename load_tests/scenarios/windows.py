"""Twelve windowed features over four spans, event by event, with state, changelog and output on.

Payments wait on a topic of four partitions: 300 bytes each, 10,000 cards with a skew. One process reads
them, keeps counts, sums and means over 10 minutes, an hour, a day and a week, writes the row as of each
event to FEATURES and the state of every changed card to the changelog once a second. `tailrace` is the
features service without its write to the online store; `hand_written` is a loop for this one job. Peers keep
their state as their documentation says; the windows of Faust and Quix are tumbling, the cheapest they have, those
of Bytewax slide, as ours do.
"""

from __future__ import annotations

import functools

from load_tests import events, ours, services, workload
from load_tests.bench import Bench, Candidate
from load_tests.peers import WINDOWS
from tailrace.contracts.topics import Topics


def hand_written(bench: Bench) -> float:
    """The loop by hand, on the topics of a use case."""
    source = events.filled(bench)
    with workload.declared(bench, events=source, fields=0) as (settings, case):
        loop = ["-m", "load_tests.hand_written_windows", case.name, source]
        return services.rate(settings, loop, Topics(case.name).features, bench.events)


without_store: Candidate = functools.partial(ours.windows, twin="without_store")

CANDIDATES: dict[str, Candidate] = {"tailrace": without_store, "hand_written": hand_written}
PEERS = WINDOWS
FLOORS = {"hand_written": 0.5, "faust": 40.0, "quix": 2.0}
EVENTS = 300_000
