"""Ending a process that hangs where nothing can wake it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

DEADMAN_S = 90.0
"""Longest time one call inside a transaction may take. librdkafka ignores its time-outs in some broker
faults; past the transaction's own time-out the broker has aborted it, so that nothing is lost by dying."""


class Deadman:
    """Ends the process when a guarded call does not return."""

    def __init__(self, limit_s: float = DEADMAN_S) -> None:
        self._limit_s = limit_s
        self._since: float | None = None

    def age_s(self) -> float:
        """How long the guarded call under way has taken, seconds; 0 while there is none."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Guards what is called inside; one guard may stand inside another."""
        outer, self._since = self._since, time.monotonic()
        timer = threading.Timer(self._limit_s, os._exit, (70,))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            self._since = outer
