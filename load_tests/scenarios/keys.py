"""Cost per event as keys grow from ten thousand to ten million, the state in files past a share of memory.

The window state of the features service without Kafka and without a store: four partitions, twelve features over
four spans, sixteen payments per key, in files where the service would put them. Payments of keys drawn alike come by
fetches of 16,000, which is the worst there is: no key is warm. Notes: `restored_keys_per_s` of the fill, which is a
recovery without reading; resident memory per key, `anonymous` (keys, tables, rings in memory) and `paged` (what the
system keeps of the files, and gives back when memory is short); `disk_mb` of the files. `EVENTS` are payments. Ten
million keys take some nine gigabytes of disk and three of memory.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys

from load_tests.bench import Bench, Candidate
from load_tests.services import environment

SHORT = False
EVENTS = 800_000


def keys(bench: Bench, *, count: int) -> float:
    """Payments per second with so many keys, in a process of its own."""
    command = [sys.executable, "-m", "load_tests.many_keys_process", str(count), str(bench.events), str(bench.seed)]
    directory = str(bench.directory / f"pages-{count}-{bench.seed}")
    done = subprocess.run(
        [*command, directory], env=os.environ | environment(bench.settings), capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    bench.notes |= {name: figure for name, figure in found.items() if name != "rate"}
    return float(found["rate"])


CANDIDATES: dict[str, Candidate] = {
    name: functools.partial(keys, count=count)
    for name, count in (
        ("tailrace", 10_000),
        ("100 k keys", 100_000),
        ("1 M keys", 1_000_000),
        ("10 M keys", 10_000_000),
    )
}
FLOORS: dict[str, float] = {}
