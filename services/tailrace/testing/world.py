"""What the services of a simulated use case share, and when they lose their memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import structlog

from tailrace.backends.codec import decode
from tailrace.backends.memory import MemoryOnlineStore, MemoryRegistry
from tailrace.backends.settings import Settings
from tailrace.backends.topics import specs_of
from tailrace.contracts.records import RoutingTable
from tailrace.contracts.topics import AUDIT, Topics
from tailrace.testing.memory_log import MemoryLog
from tailrace.usecase.declaration import UseCase


class World:
    """What the services of one use case share.

    Args:
        use_case: What runs.
        settings: State directory, threads and partitions.
    """

    def __init__(self, use_case: UseCase, settings: Settings) -> None:
        self.use_case = use_case
        self.settings = settings
        self.topics = topics = Topics(use_case.name)
        self.log = MemoryLog(specs_of(use_case), settings.partitions, (topics.retraining, topics.control, AUDIT))
        self.store = MemoryOnlineStore()
        self.registry = MemoryRegistry(settings.state_dir / "bundles")
        # What services log says the time of this machine, and the decisions say the rest.
        self.logger: Any = structlog.wrap_logger(structlog.ReturnLogger(), processors=[])

    def table(self) -> RoutingTable | None:
        """The newest routing table."""
        control = self.log.partitions(self.topics.control)[0]
        value = control.values[-1] if control.values else None
        return None if value is None else decode(RoutingTable, value)


class Crashes:
    """When a service is to lose its memory: at the first batch with records at or after each time.

    Args:
        at_ms: Stream times, epoch milliseconds.
    """

    def __init__(self, at_ms: Sequence[int] = ()) -> None:
        self._left = sorted(at_ms)

    @property
    def ahead(self) -> bool:
        """Whether one is still to come."""
        return bool(self._left)

    def due(self, now_ms: int) -> bool:
        """True once for each that has come due."""
        if not self._left or now_ms < self._left[0]:
            return False
        self._left.pop(0)
        return True
