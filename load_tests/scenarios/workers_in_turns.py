"""Four inference workers beside one, by the clock, each given a quarter of the time.

A machine of four processors has none to spare for four workers, a broker and a measurement. Here every worker runs for one
of four slices of 20 ms, in turns, so that four of them find the machine as one alone does: what is left of the comparison
is what they cost each other through the broker, the group and the transactions. Four times one would be perfect.
"""

from __future__ import annotations

import functools

from load_tests.bench import Bench, Candidate
from load_tests.scenarios.workers import scoring

TURNS = 4


def by_clock(bench: Bench, *, count: int) -> float:
    """Events per second."""
    return scoring(bench, count=count, turns=TURNS).by_clock


CANDIDATES: dict[str, Candidate] = {
    "tailrace": functools.partial(by_clock, count=4),
    "one worker": functools.partial(by_clock, count=1),
}
FLOORS = {"one worker": 0.8 * TURNS}
EVENTS = 200_000
SHORT = False
