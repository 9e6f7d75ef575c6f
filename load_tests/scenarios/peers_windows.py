"""Twelve windowed features of every event: peers and a hand-written reference, count, sum and mean over four spans.

Every candidate reads the same events (JSON, about 270 bytes, four partitions, 10,000 cards) and writes a row per
event; state is kept in a changelog where the candidate has one. The windows of Faust and Quix are tumbling, the
cheapest they have; those of Bytewax and of the reference slide, as ours do.
"""

from load_tests.peers import WINDOWS

CANDIDATES = WINDOWS
FLOORS: dict[str, float] = {}
EVENTS = 200_000
