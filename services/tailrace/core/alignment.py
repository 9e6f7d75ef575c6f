"""Several streams as one in steps of stream time, so that what is known at a step does not depend on who was faster.

Barriers as in Carbone et al., "Lightweight Asynchronous Snapshots for Distributed Dataflows" (2015, section 4.2), at
times that follow from the streams themselves: a stream that has passed the barrier waits until all have.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Generic, NamedTuple, TypeVar

Item = TypeVar("Item")


class Aligned(NamedTuple, Generic[Item]):
    """Items that come before the next barrier, in order of their streams, and stream time once all have passed it."""

    items: list[Item]
    reached_ms: int | None


class _Stream(Generic[Item]):
    def __init__(self, watermark_ms: int) -> None:
        self.watermark_ms = watermark_ms
        self.waiting: deque[tuple[int, Item]] = deque()


class Alignment(Generic[Item]):
    """Items of several streams that state their watermark. Not thread-safe.

    What is ahead of the slowest stream is kept.

    Args:
        streams: Their numbers.
        step_ms: Between two barriers, milliseconds.
        reached_ms: Stream time reached; -1 to begin.
    """

    def __init__(self, streams: Iterable[int], step_ms: int, reached_ms: int = -1) -> None:
        self._step_ms = step_ms
        self._reached_ms = reached_ms
        self._streams: dict[int, _Stream[Item]] = {stream: _Stream(reached_ms) for stream in streams}

    @property
    def waiting(self) -> int:
        """Items that are kept."""
        return sum(len(stream.waiting) for stream in self._streams.values())

    def put(self, stream: int, watermark_ms: int, item: Item) -> Iterator[Aligned[Item]]:
        """Takes an item that brings its stream to a watermark, epoch milliseconds; gives what can be taken now."""
        self._streams[stream].waiting.append((watermark_ms, item))
        while True:
            items = [item for stream in self._streams.values() for item in self._before(stream)]
            reached_ms = min(stream.watermark_ms for stream in self._streams.values())
            if reached_ms < self._barrier_ms:
                yield Aligned(items, None)
                return
            self._reached_ms = reached_ms
            yield Aligned(items, reached_ms)

    @property
    def _barrier_ms(self) -> int:
        return (self._reached_ms // self._step_ms + 1) * self._step_ms

    def _before(self, stream: _Stream[Item]) -> Iterator[Item]:
        """Items of a stream up to the one that passes the barrier."""
        while stream.waiting and stream.watermark_ms < self._barrier_ms:
            watermark_ms, item = stream.waiting.popleft()
            stream.watermark_ms = max(stream.watermark_ms, watermark_ms)
            yield item
