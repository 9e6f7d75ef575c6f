"""The features service with its write to the online store, against itself without.

Same work as scenario `windows`; every fetch's newest rows are in Redis before its records go to FEATURES.
"""

from load_tests import ours
from load_tests.bench import Candidate
from load_tests.scenarios.windows import without_store

CANDIDATES: dict[str, Candidate] = {"tailrace": ours.windows, "without_store": without_store}
FLOORS = {"without_store": 0.5}
EVENTS = 300_000
