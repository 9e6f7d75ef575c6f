"""Memory of the window state: keys that fit into a gigabyte.

Every key keeps sixteen payments of the longest of four spans, and twelve features are computed of them.
`hand_written` is the dictionary of states of scenario `windows`. Notes: `bytes_per_key` of resident memory,
`gb_per_million_keys`, and `updates_per_s` while the state was filled, without Kafka. `EVENTS` are keys.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

from load_tests.bench import Bench, Candidate
from load_tests.services import environment

UNIT = "keys/GB"
EVENTS = 100_000


def tailrace(bench: Bench) -> float:
    """Our state, rings in an arena by size."""
    return _measured(bench, "tailrace")


def hand_written(bench: Bench) -> float:
    """A Python object and two arrays per key."""
    return _measured(bench, "hand_written")


def _measured(bench: Bench, name: str) -> float:
    command = [sys.executable, "-m", "load_tests.window_memory_process", name, str(bench.events)]
    done = subprocess.run(
        command, env=os.environ | environment(bench.settings), capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    bench.notes["bytes_per_key"] = found["bytes_per_key"]
    bench.notes["gb_per_million_keys"] = found["bytes_per_key"] / 1_000
    bench.notes["updates_per_s"] = found["rate"]
    return float(1e9 / found["bytes_per_key"])


CANDIDATES: dict[str, Candidate] = {"tailrace": tailrace, "hand_written": hand_written}
FLOORS: dict[str, float] = {}
LIMITS = {"gb_per_million_keys": 2.0}
