"""What every change must hold: our inference service against the naive loop on the same records.

The floor lies below what is measured, so that it falls to a lost design and not to a busy machine.
"""

from load_tests import ours
from load_tests.bench import Candidate
from load_tests.scenarios.inference import naive

CANDIDATES: dict[str, Candidate] = {"tailrace": ours.scoring, "naive": naive}
FLOORS = {"naive": 1.5}
EVENTS = 40_000
SHORT = False
