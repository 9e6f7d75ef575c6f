"""Which partitions were read to their end, and still are."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaException, TopicPartition

CHECK_S = 10.0
"""How long an end is believed. The client tells it once, and what is written later may wait in its queue behind a
minute of other partitions' records. Shorter, and silent partitions cost a round trip each more often; longer, and
stream time leaves behind so much more of what is waiting in a partition that begins again."""
ASK_S = 1.0


class _End(NamedTuple):
    offset: int
    known_at_s: float
    believed: bool = True


class Ends:
    """Ends of the partitions of a consumer.

    Args:
        client: The consumer that reads them.
    """

    def __init__(self, client: Consumer) -> None:
        self._client = client
        self._ends: dict[tuple[str, int], _End] = {}

    def reached(self, topic: str, partition: int, offset: int) -> None:
        """Takes note that the client told the end of a partition."""
        self._ends[topic, partition] = _End(offset, time.monotonic())

    def forget(self, topic: str, partition: int) -> None:
        """Forgets a partition."""
        self._ends.pop((topic, partition), None)

    def current(self, positions: Mapping[tuple[str, int], int]) -> list[tuple[str, int]]:
        """Partitions whose position is their end; what was known for `CHECK_S` is asked for again, which may block.

        Where the broker does not answer within `ASK_S`, no partition that was due is at its end until it is due again.
        """
        # Behind a position that moved on, the client tells the new end.
        self._ends = {at: end for at, end in self._ends.items() if positions.get(at) == end.offset}
        now_s = time.monotonic()
        answers = True
        for at, end in list(self._ends.items()):
            if now_s - end.known_at_s < CHECK_S:
                continue
            found = self._end_of(*at) if answers else None
            answers = found is not None
            if found is None:
                self._ends[at] = _End(end.offset, now_s, believed=False)
            elif found > end.offset:
                del self._ends[at]  # records are on their way, and the end behind them
            else:
                self._ends[at] = _End(end.offset, now_s)
        return [at for at, end in self._ends.items() if end.believed]

    def _end_of(self, topic: str, partition: int) -> int | None:
        try:
            offsets = self._client.get_watermark_offsets(TopicPartition(topic, partition), timeout=ASK_S)
        except KafkaException:
            return None
        return None if offsets is None else int(offsets[1])
