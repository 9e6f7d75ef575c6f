"""Several loops of one service, in one process: they begin and end together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

from tailrace.runtime.service import Lifecycle

Loop = Callable[[Lifecycle], None]


def run_loops(lifecycle: Lifecycle, loops: Mapping[str, Loop]) -> None:
    """Runs loops by name, each in a thread of its own, until the service is asked to stop.

    When one ends, for whatever reason, the others are asked to end too: half a service helps nobody.

    Raises:
        Exception: what the first loop that failed raised.
    """
    views = lifecycle.loops(list(loops))
    with ThreadPoolExecutor(len(loops), "loop") as threads:
        running = [threads.submit(run, views[name]) for name, run in loops.items()]
        first, _ = wait(running, return_when=FIRST_COMPLETED)
        lifecycle.stopping.set()
    for loop in (*first, *running):
        loop.result()
