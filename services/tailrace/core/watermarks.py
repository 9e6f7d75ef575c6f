"""Stream time: how far event time has come on every partition a service reads.

After Akidau et al., "The Dataflow Model" (VLDB 2015, section 2.3): a watermark promises that nothing
older follows. Here it has two sources. Without punctuation it trails the newest event time of a
partition by the declared lateness. A record with the watermark header states it outright; from then
on only such records move the watermark of that partition, which is what makes a replay decide alike
every time.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from tailrace.contracts.records import WATERMARK_HEADER

IDLE_AFTER_MS = 60_000
"""Wall time at its end, without a record, after which a partition no longer holds the watermark back.

Shorter, and a consumer that is busy elsewhere loses late records; longer, and a quiet partition
delays every time-out by as much.
"""


def watermark_of(value: bytes | None, headers: Sequence[tuple[str, bytes]]) -> int | None:
    """The watermark a record states, in epoch milliseconds; None if it is an ordinary record."""
    if value is not None:
        return None
    for name, text in headers:
        if name == WATERMARK_HEADER:
            return int(text)
    return None


class PartitionTime(msgspec.Struct, frozen=True):
    """What is known of a partition's time, to be kept beside its offset.

    Attributes:
        watermark_ms: Its watermark, epoch milliseconds; None before the first record.
        stated: Whether records state it.
        seen_ms: Wall clock at its newest record; -1 before the first.
    """

    watermark_ms: int | None = None
    stated: bool = False
    seen_ms: int = -1


_UNKNOWN = PartitionTime()


class Watermarks:
    """Watermark of a set of partitions: the smallest of theirs.

    Args:
        lateness_ms: Per topic, how far the watermark trails the newest event time, milliseconds.
    """

    def __init__(self, lateness_ms: Mapping[str, int]) -> None:
        self._lateness_ms = dict(lateness_ms)
        self._watermarks: dict[tuple[str, int], int | None] = {}
        self._punctuated: set[tuple[str, int]] = set()
        self._ended_at_ms: dict[tuple[str, int], int | None] = {}
        self._seen_at_ms: dict[tuple[str, int], int] = {}
        self._reached: int | None = None

    def assign(self, topic: str, partition: int, known: PartitionTime = _UNKNOWN) -> None:
        """Adds a partition as it was `known`; it holds the watermark back until it has a record or is idle."""
        at = (topic, partition)
        self._watermarks[at] = known.watermark_ms
        self._seen_at_ms[at] = known.seen_ms
        if known.stated:
            self._punctuated.add(at)

    def known(self, topic: str, partition: int) -> PartitionTime:
        """What `assign` has to be given to go on with a partition."""
        at = (topic, partition)
        return PartitionTime(self._watermarks.get(at), at in self._punctuated, self._seen_at_ms.get(at, -1))

    def revoke(self, topic: str, partition: int) -> None:
        """Forgets a partition."""
        at = (topic, partition)
        self._watermarks.pop(at, None)
        self._ended_at_ms.pop(at, None)
        self._seen_at_ms.pop(at, None)
        self._punctuated.discard(at)

    def ended(self, partitions: Collection[tuple[str, int]]) -> None:
        """Takes note of which partitions are at their end, all others being not: only there is silence known.

        One is idle that has been there for `IDLE_AFTER_MS`, counted from the next call of `current`. Whoever has
        records that were not read yet, however long ago it had the last one, holds the watermark back.
        """
        self._ended_at_ms = {at: self._ended_at_ms.get(at) for at in partitions}

    def observe(self, topic: str, partition: int, max_event_time_ms: int, now_ms: int) -> None:
        """Takes note of the newest event time of a batch of a partition."""
        at = self._heard(topic, partition, now_ms)
        if at not in self._punctuated:
            self._raise(at, max_event_time_ms - self._lateness_ms[topic])

    def punctuate(self, topic: str, partition: int, watermark_ms: int, now_ms: int) -> None:
        """Takes note of a stated watermark."""
        at = self._heard(topic, partition, now_ms)
        if at not in self._punctuated:
            self._punctuated.add(at)
            self._watermarks[at] = watermark_ms
        self._raise(at, watermark_ms)

    def current(self, now_ms: int) -> int | None:
        """Stream time in epoch milliseconds; never falls. None before every active partition has one."""
        active = self._active(now_ms)
        if active and all(mark is not None for mark in active):
            lowest = min(mark for mark in active if mark is not None)
            if self._reached is None or lowest > self._reached:
                self._reached = lowest
        elif not active:
            self._reached = self._when_all_idle(now_ms)
        return self._reached

    def idle(self, now_ms: int) -> bool:
        """Whether no partition holds the watermark back: none has records, or all are idle."""
        return not self._active(now_ms)

    def restore(self, reached_ms: int | None) -> None:
        """Continues from a watermark that was reached before a restart."""
        self._reached = reached_ms

    def _active(self, now_ms: int) -> list[int | None]:
        return [mark for at, mark in self._watermarks.items() if not self._is_idle(at, now_ms)]

    def _is_idle(self, at: tuple[str, int], now_ms: int) -> bool:
        if at in self._punctuated or at not in self._ended_at_ms:
            return False
        ended_at_ms = self._ended_at_ms[at]
        if ended_at_ms is None:
            ended_at_ms = self._ended_at_ms[at] = now_ms
        return now_ms - ended_at_ms >= IDLE_AFTER_MS

    def _heard(self, topic: str, partition: int, now_ms: int) -> tuple[str, int]:
        at = (topic, partition)
        self._seen_at_ms[at] = now_ms
        self._ended_at_ms.pop(at, None)
        return at

    def _when_all_idle(self, now_ms: int) -> int | None:
        # Time-outs must fire when all traffic stops. Stream time then goes on with the wall clock,
        # but only where the two were together: in a replay of old events it would leap by years.
        newest = max((mark for mark in self._watermarks.values() if mark is not None), default=None)
        if newest is None or self._reached is None:
            return self._reached
        # Since the newest record, and not since a restart: nothing comes of a stream that stopped before.
        idle_since_ms = max(self._seen_at_ms.values(), default=now_ms)
        if idle_since_ms - newest > IDLE_AFTER_MS + max(self._lateness_ms.values(), default=0):
            return self._reached
        return max(self._reached, now_ms - IDLE_AFTER_MS)

    def _raise(self, at: tuple[str, int], watermark_ms: int) -> None:
        mark = self._watermarks.get(at)
        self._watermarks[at] = watermark_ms if mark is None else max(mark, watermark_ms)


class EventTimeBounds:
    """Which event times can be believed.

    Args:
        max_ahead_ms: Furthest ahead of the wall clock.
        max_behind_ms: Furthest behind the newest event time of the partition.
    """

    def __init__(self, *, max_ahead_ms: int, max_behind_ms: int) -> None:
        self._max_ahead_ms = max_ahead_ms
        self._max_behind_ms = max_behind_ms
        self._newest_ms: dict[int, int] = {}

    def check(
        self, partition: int, times_ms: NDArray[np.int64], now_ms: int
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Judges the event times of a batch of one partition, in order.

        Returns:
            Two masks, bool (n,): too far ahead of the wall clock, too far behind the partition.
        """
        ahead = times_ms > now_ms + self._max_ahead_ms
        floor = self._newest_ms.get(partition, np.iinfo(np.int64).min)
        newest = np.maximum.accumulate(np.where(ahead, np.iinfo(np.int64).min, np.maximum(times_ms, floor)))
        newest = np.maximum(newest, floor)
        behind = ~ahead & (newest - self._max_behind_ms > times_ms) & (newest > np.iinfo(np.int64).min // 2)
        if times_ms.size:
            self._newest_ms[partition] = int(newest[-1])
        return ahead, behind

    def revoke(self, partition: int) -> None:
        """Forgets a partition."""
        self._newest_ms.pop(partition, None)
