"""Twelve windowed features over four spans, event by event, with state, changelog and output on.

Payments wait on a topic of four partitions: 250 bytes each, 10,000 cards with a skew. One process reads
them, keeps counts, sums and means over 10 minutes, an hour, a day and a week, writes the row as of each
event to FEATURES and the state of every changed card to the changelog once a second. `tailrace` is the
features service without its write to the online store; `hand_written` is a loop for this one job.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from load_tests.bench import Bench
from load_tests.payments import declare, environment, prefilled, rate_of
from tailrace.contracts.topics import Topics
from tailrace.local.processes import spawn

EVENTS = 400_000


def tailrace(bench: Bench) -> float:
    """The features service, its online store replaced by one that keeps nothing."""
    topic = prefilled(bench)
    return measured(bench, topic, ["-m", "load_tests.features_process", "{name}"])


def hand_written(bench: Bench) -> float:
    """The loop by hand."""
    topic = prefilled(bench)
    return measured(bench, topic, ["-m", "load_tests.hand_written_windows", "{name}", topic])


def measured(bench: Bench, topic: str, arguments: list[str]) -> float:
    """Runs a process over the whole topic, with a use case of its own; gives events per second."""
    name, settings = declare(bench, topic)
    command = [sys.executable, *(argument.format(name=name) for argument in arguments)]
    child = spawn(name, command, bench.directory / "windows.log", environment(settings))
    try:
        return rate_of(settings, Topics(name).features, bench.events)
    finally:
        child.stop(20)


CANDIDATES: dict[str, Callable[[Bench], float]] = {"tailrace": tailrace, "hand_written": hand_written}
FLOORS: dict[str, float] = {"hand_written": 0.5}
