"""Event produced to prediction readable beside stock Faust doing the same work, at a rate that Faust can keep.

Scenario `latency` sends 1,000 events per second, at which the agent with twelve windowed features falls behind, so that
its latency is the length of the run and no ratio of two systems at work. Here both get 100: features and inference as
deployed, exactly once, with the online store; stock Faust with windowed tables and per-event scoring, at least once. The
figure is the p99, for the report: at a rate so low an agent of one process that commits nothing before it answers is
ahead of two services with a transaction, and the requirement is of 1,000.
"""

from __future__ import annotations

import functools

from load_tests.bench import Candidate
from load_tests.scenarios import latency

RATE = 100.0
CANDIDATES: dict[str, Candidate] = {"tailrace": functools.partial(latency.tailrace, rate=RATE)}
PEERS: dict[str, Candidate] = {
    "faust": functools.partial(latency.faust, script="windows_faust", mode="score", rate=RATE)
}
FLOORS: dict[str, float] = {}
UNIT = "ms"
EVENTS = 2_000
SHORT = False
