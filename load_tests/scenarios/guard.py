"""What every change must hold: our inference service against the naive loop on the same records.

The floor lies far below what is measured, so that it falls to a lost design and not to a busy machine.
"""

from load_tests import ours
from load_tests.peers import SCORING_LOOPS

CANDIDATES = {"tailrace": ours.scoring, "naive": SCORING_LOOPS["naive"]}
FLOORS = {"naive": 0.5}
EVENTS = 20_000
