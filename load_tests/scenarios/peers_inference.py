"""Consume, score, produce beside peers and hand-written references: FEATURES, 30 features, a small network.

Every candidate reads the same records (JSON, about 400 bytes, four partitions), runs the same ONNX file with one
thread, and writes identity and score; ours writes its whole prediction record. Each is one worker, as its
documentation says; only ours and `fastest by hand` are exactly-once. MLServer gets the rows in its own protocol.
"""

from load_tests import ours
from load_tests.peers import SCORING, SCORING_LOOPS

CANDIDATES = {"tailrace": ours.scoring} | SCORING_LOOPS | SCORING
FLOORS = {"fastest by hand": 0.5, "quix": 4.0, "faust": 30.0, "mlserver": 30.0}
EVENTS = 300_000
SHORT = False
