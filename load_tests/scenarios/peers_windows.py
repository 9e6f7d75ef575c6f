"""Twelve windowed features of every event beside peers and a hand-written loop: count, sum, mean over four spans.

Every candidate reads the same events (JSON, about 270 bytes, four partitions, 10,000 cards) and writes a row per
event; state is kept in a changelog where the candidate has one, and ours writes the online store too. The
windows of Faust and Quix are tumbling, the cheapest they have; those of Bytewax and of the loop slide, as ours do.
"""

from load_tests import ours
from load_tests.peers import WINDOWS, WINDOWS_LOOPS

CANDIDATES = {"tailrace": ours.windows} | WINDOWS_LOOPS | WINDOWS
FLOORS = {"by hand": 0.5, "quix": 2.0, "faust": 40.0}
EVENTS = 200_000
SHORT = False
