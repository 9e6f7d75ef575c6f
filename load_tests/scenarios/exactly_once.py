"""What exactly once costs: the inference service as deployed, beside itself without transactions.

Both score the same prefilled FEATURES as scenario `inference` does, which has the same twin among its candidates. Without
transactions the loop flushes and commits offsets where it would commit a transaction, so that a crash doubles
predictions; everything else is the same.
"""

import functools

from load_tests import ours
from load_tests.bench import Candidate

CANDIDATES: dict[str, Candidate] = {
    "tailrace": ours.scoring,
    "at_least_once": functools.partial(ours.scoring, twin="at_least_once"),
}
FLOORS = {"at_least_once": 0.95}
EVENTS = 150_000
SHORT = False
