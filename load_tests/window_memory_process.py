"""Memory of window state, in a process of its own: `python -m load_tests.window_memory_process <candidate> <keys>`.

Prints a JSON object: bytes of resident memory per key, and events per second while they came.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable

import numpy as np
import psutil

from load_tests.events import DAYS, START_MS
from load_tests.peers.sliding import SPANS_MS, Card
from load_tests.streams import PARTITIONS
from tailrace.core.plan import WindowColumn, WindowView
from tailrace.core.windows import WindowState

EVENTS_PER_KEY = 16
BATCH = 10_000


def tailrace() -> Callable[[list[str], np.ndarray, np.ndarray], object]:
    """Our state, one per partition."""
    columns = [
        WindowColumn(name=f"{kind}_{span}", kind=kind, field="" if kind == "count" else "amount", span_ms=span)
        for kind in ("count", "sum", "mean")
        for span in SPANS_MS
    ]
    view = WindowView(name="card", source="events", entity="card", columns=tuple(columns))
    states = [WindowState(view) for _ in range(PARTITIONS)]
    offset = 0

    def add(names: list[str], times: np.ndarray, amounts: np.ndarray) -> object:
        nonlocal offset
        offset += len(names)
        offsets = np.arange(offset - len(names), offset)
        # A batch of keys always meets the same partition, as it does on a topic.
        return states[hash(names[0]) % PARTITIONS].update(names, times, amounts[:, None], offsets)

    return add


def hand_written() -> Callable[[list[str], np.ndarray, np.ndarray], object]:
    """The dictionary of the hand-written loop."""
    cards: dict[str, Card] = {}

    def add(names: list[str], times: np.ndarray, amounts: np.ndarray) -> object:
        for name, at_ms, amount in zip(names, times.tolist(), amounts.tolist(), strict=True):
            card = cards.get(name)
            if card is None:
                card = cards[name] = Card()
            card.add(at_ms, amount)
        return cards

    return add


def main() -> None:
    keys = int(sys.argv[2])
    process = psutil.Process()
    add = {"tailrace": tailrace, "hand_written": hand_written}[sys.argv[1]]()
    rng = np.random.default_rng(1)
    add(["warm"] * 2, np.zeros(2, np.int64), np.zeros(2))
    gc.collect()
    before = process.memory_info().rss
    began = time.perf_counter()
    step_ms = DAYS // 2 * 86_400_000 // EVENTS_PER_KEY
    for turn in range(EVENTS_PER_KEY):
        for at in range(0, keys, BATCH):
            names = [f"card-{number:08d}" for number in range(at, min(at + BATCH, keys))]
            times = START_MS + turn * step_ms + rng.integers(0, step_ms, len(names))
            add(names, times, rng.random(len(names)))
    took_s = time.perf_counter() - began
    gc.collect()
    used = process.memory_info().rss - before
    print(json.dumps({"bytes_per_key": used / keys, "rate": keys * EVENTS_PER_KEY / took_s}))  # noqa: T201  # the answer


if __name__ == "__main__":
    main()
