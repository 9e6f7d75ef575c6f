"""Consume, score, produce: peers and hand-written references on FEATURES, 30 features, a small network.

Every candidate reads the same records (JSON, about 400 bytes, four partitions), runs the same ONNX file, and
writes identity and score. Each runs in one process of its own as its documentation says; only the
reference `fastest by hand` is exactly-once.
"""

from load_tests.peers import SCORING

CANDIDATES = SCORING
FLOORS: dict[str, float] = {}
EVENTS = 400_000
