"""The Feast SDK on the online store: rows of twelve features read and pushed, batches of 256, for the report."""

from load_tests.peers import STORE_READ, STORE_WRITE

CANDIDATES = STORE_READ | STORE_WRITE
FLOORS: dict[str, float] = {}
UNIT = "rows/s"
EVENTS = 10_000
SHORT = False
