"""The features service with its write to the online store, against itself without.

Same work as scenario `windows`; every fetch's newest rows are in Redis before its records go to FEATURES.
"""

from __future__ import annotations

from collections.abc import Callable

from load_tests.bench import Bench
from load_tests.payments import prefilled
from load_tests.scenarios.windows import measured
from load_tests.scenarios.windows import tailrace as without_store

EVENTS = 400_000


def tailrace(bench: Bench) -> float:
    """`tailrace run features`, as in production."""
    return measured(bench, prefilled(bench), ["-m", "tailrace", "run", "features", "--use-case", "{name}"])


CANDIDATES: dict[str, Callable[[Bench], float]] = {"tailrace": tailrace, "without_store": without_store}
FLOORS: dict[str, float] = {"without_store": 0.5}
