"""Several streams as one in steps of stream time, so that what is known at a step does not depend on who was faster.

Barriers as in Carbone et al., "Lightweight Asynchronous Snapshots for Distributed Dataflows" (2015, section 4.2), at
times that follow from the streams themselves: what has come before a barrier is taken once every stream has passed it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Generic, NamedTuple, TypeVar

import msgspec

Item = TypeVar("Item")

SILENT_AFTER_MS = 600_000
"""How long a stream that says nothing is waited for while others speak. Shorter, and a worker that takes over tasks,
for which the group's session and the transaction of the one before have to end, is not waited for."""
PAUSE_MS = 60_000
"""A pause in which nobody spoke counts as no longer than this: all were down, and come back one after the other."""
MOST_BYTES = 512_000_000
"""What is ahead of the slowest stream is kept up to this; then it is waited for no longer."""


class Said(NamedTuple):
    """What an item says of its stream.

    `watermark_ms` is stream time after it, `told_ms` the wall clock when it was told, epoch milliseconds; `idle`, that
    nothing is expected of the stream until its next item.
    """

    watermark_ms: int
    told_ms: int = 0
    size_bytes: int = 0
    idle: bool = False


class StreamState(msgspec.Struct):
    """`watermark_ms` after what was taken, `heard_ms` when it spoke last, and whether it is `left_out`."""

    watermark_ms: int = -1
    heard_ms: int = 0
    left_out: bool = False


class AlignmentState(msgspec.Struct):
    """Stream time reached, a clock that follows `Said.told_ms` but for pauses, and the streams by number."""

    reached_ms: int = -1
    clock_ms: int = 0
    told_ms: int = -1
    streams: dict[int, StreamState] = {}


class Aligned(NamedTuple, Generic[Item]):
    """Items that come before a barrier, stream by stream in order of their numbers, and stream time behind them."""

    items: list[Item]
    reached_ms: int


class _Waiting(Generic[Item]):
    def __init__(self, state: StreamState) -> None:
        self.state = state
        self.newest_ms = state.watermark_ms
        self.items: deque[tuple[Said, Item]] = deque()


class Alignment(Generic[Item]):
    """Items of several streams that state their watermark. Not thread-safe.

    A stream that is idle, silent or far behind is left out until it has come to the stream time of the others; what it
    says meanwhile is taken with the next barrier. All of it follows from the items and their order.

    Args:
        streams: Their numbers.
        step_ms: Between two barriers, milliseconds.
        state: Where to go on from; None to begin.
    """

    def __init__(self, streams: Iterable[int], step_ms: int, state: AlignmentState | None = None) -> None:
        self._step_ms = step_ms
        self.state = state or AlignmentState()
        known = self.state.streams
        self.state.streams = {stream: known.get(stream, StreamState()) for stream in sorted(streams)}
        self._streams: dict[int, _Waiting[Item]] = {
            number: _Waiting(stream) for number, stream in self.state.streams.items()
        }
        self._bytes = 0

    @property
    def waiting(self) -> int:
        """Items that are kept."""
        return sum(len(stream.items) for stream in self._streams.values())

    def wait(self, stream: int, item: Item, said: Said) -> None:
        """Takes an item again after a restart, of those that waited."""
        one = self._streams[stream]
        one.items.append((said, item))
        one.newest_ms = max(one.newest_ms, said.watermark_ms)
        self._bytes += said.size_bytes

    def put(self, stream: int, item: Item, said: Said) -> Iterator[Aligned[Item]]:
        """Takes an item; gives what can be taken now, barrier by barrier."""
        self.wait(stream, item, said)
        self._hear(stream, said)
        while self._has_passed():
            items = [item for one in self._streams.values() for item in self._before(one)]
            self.state.reached_ms = self._reached_ms()
            yield Aligned(items, self.state.reached_ms)

    @property
    def _barrier_ms(self) -> int:
        return (self.state.reached_ms // self._step_ms + 1) * self._step_ms

    def _hear(self, stream: int, said: Said) -> None:
        state, one = self.state, self._streams[stream]
        if state.told_ms >= 0:
            state.clock_ms += min(max(said.told_ms - state.told_ms, 0), PAUSE_MS)
        state.told_ms = max(state.told_ms, said.told_ms)
        one.state.heard_ms = state.clock_ms
        one.state.left_out = said.idle or (one.state.left_out and one.newest_ms < state.reached_ms)
        for other in self._streams.values():
            behind = self._bytes > MOST_BYTES and other.newest_ms < self._barrier_ms
            if behind or state.clock_ms - other.state.heard_ms > SILENT_AFTER_MS:
                other.state.left_out = True

    def _has_passed(self) -> bool:
        """Whether all that are waited for have come to the barrier, and at least one has."""
        barrier_ms, streams = self._barrier_ms, self._streams.values()
        if any(stream.newest_ms < barrier_ms and not stream.state.left_out for stream in streams):
            return False
        return max(stream.newest_ms for stream in streams) >= barrier_ms

    def _before(self, stream: _Waiting[Item]) -> Iterator[Item]:
        """Items of a stream up to the one that passes the barrier."""
        while stream.items and stream.state.watermark_ms < self._barrier_ms:
            said, item = stream.items.popleft()
            self._bytes -= said.size_bytes
            stream.state.watermark_ms = max(stream.state.watermark_ms, said.watermark_ms)
            yield item

    def _reached_ms(self) -> int:
        streams = self._streams.values()
        present = [one.state.watermark_ms for one in streams if one.items or not one.state.left_out]
        return min(present) if present else max(one.state.watermark_ms for one in streams)
