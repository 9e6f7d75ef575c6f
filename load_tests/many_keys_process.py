"""Window state of many keys, in a process of its own: `python -m load_tests.many_keys_process <keys> <events> <seed> <folder>`.

Prints a JSON object, as `scenarios/keys.py` names its figures.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray

from load_tests.events import DAYS, START_MS
from load_tests.peers.sliding import SPANS_MS
from load_tests.streams import PARTITIONS
from tailrace.core import window_kernels as kernels
from tailrace.core.event_windows import FORMAT
from tailrace.core.plan import WindowColumn, WindowView
from tailrace.core.windows import WindowState
from tailrace.features.paging import PagedRoom, resident_bytes

PER_KEY = 16
FETCH = 16_000
RESTORED_AT_ONCE = 20_000
LONGEST_S = 60.0
"""Of a measurement; keys that lie on disk need many times as long as keys in memory."""
COLUMNS = tuple(
    WindowColumn(name=f"{kind}_{span}", kind=kind, field="" if kind == "count" else "amount", span_ms=span)
    for kind in ("count", "sum", "mean")
    for span in SPANS_MS
)
VIEW = WindowView(name="card", source="events", entity="card", columns=COLUMNS)
END_MS = START_MS + DAYS // 2 * 86_400_000


def names(numbers: NDArray[np.int64]) -> list[str]:
    """Keys, new objects as those of decoded events are."""
    return [f"card-{number:08d}" for number in numbers.tolist()]


def packed(rng: np.random.Generator, keys: int) -> list[bytes]:
    """Snapshots of so many keys, `PER_KEY` payments each in the longest span."""
    words = np.empty((keys, kernels.HEADER_WORDS + 4 * PER_KEY), "<i8")
    words[:, 0] = FORMAT | 1 << 16 | PER_KEY << 32
    words[:, 1] = PER_KEY
    times, offsets, weights, amounts = np.split(words[:, kernels.HEADER_WORDS :], 4, axis=1)
    times[:] = END_MS - np.sort(rng.integers(0, SPANS_MS[-1], (keys, PER_KEY)), axis=1)[:, ::-1]
    offsets[:] = np.arange(PER_KEY)
    weights[:] = np.ones(PER_KEY).view(np.int64)
    amounts[:] = rng.random((keys, PER_KEY)).view(np.int64)
    return [row.tobytes() for row in words]


def fill(states: list[WindowState], keys: int, rng: np.random.Generator) -> float:
    """Restores all keys, key k in state `k % PARTITIONS`; the seconds that took, without making them."""
    took_s = 0.0
    for begin in range(0, keys, RESTORED_AT_ONCE):
        numbers = np.arange(begin, min(begin + RESTORED_AT_ONCE, keys))
        for number, state in enumerate(states):
            mine = names(numbers[numbers % PARTITIONS == number])
            snapshots = dict(zip(mine, packed(rng, len(mine)), strict=True))
            began = time.perf_counter()
            state.restore(snapshots)
            took_s += time.perf_counter() - began
    return took_s


def measure(states: list[WindowState], keys: int, events: int, rng: np.random.Generator) -> float:
    """Payments per second, of so many, or of as many as come in the longest time."""
    took_s, done = 0.0, 0
    while done < events and took_s < LONGEST_S:
        partition = done // FETCH % PARTITIONS
        drawn = names(rng.integers(0, keys // PARTITIONS, FETCH) * PARTITIONS + partition)
        times = END_MS + done + np.arange(FETCH)
        amounts, offsets = rng.random((FETCH, 1)), PER_KEY + 1 + done + np.arange(FETCH)
        began = time.perf_counter()
        states[partition].update(drawn, times, amounts, offsets)
        took_s += time.perf_counter() - began
        done += FETCH
    return done / took_s


def main() -> None:
    keys, events, seed, folder = *map(int, sys.argv[1:4]), Path(sys.argv[4])
    rng, process = np.random.default_rng(seed), psutil.Process()
    warm = WindowState(VIEW)
    warm.restore(dict(zip(["warm"], packed(rng, 1), strict=True)))
    warm.update(["warm"], np.array([END_MS]), np.ones((1, 1)), np.array([PER_KEY + 1]))
    before = process.memory_info()
    states = [WindowState(VIEW, room=PagedRoom(folder, resident_bytes() // PARTITIONS)) for _ in range(PARTITIONS)]
    filled_s = fill(states, keys, rng)
    measure(states, keys, min(events, keys), rng)
    rate = measure(states, keys, events, rng)
    gc.collect()
    after = process.memory_info()
    paged = after.shared - before.shared
    found = {
        "rate": rate,
        "restored_keys_per_s": keys / filled_s,
        "anonymous_bytes_per_key": (after.rss - before.rss - paged) / keys,
        "paged_bytes_per_key": paged / keys,
        "disk_mb": sum(state.size_bytes for state in states) / 1e6 if folder.exists() else 0.0,
    }
    print(json.dumps(found))  # noqa: T201  # the answer


if __name__ == "__main__":
    main()
