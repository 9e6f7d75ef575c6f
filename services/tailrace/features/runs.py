"""Records by the column: what was fetched of a partition, and what goes out to one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tailrace.backends.ports import Headers, Message, Output


class Run(NamedTuple):
    """Consumed records of one partition, in order; n entries in every column.

    `timestamps_ms` is the Kafka timestamp, wall clock.
    """

    topic: str
    partition: int
    offsets: Sequence[int]
    timestamps_ms: Sequence[int]
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    headers: Sequence[Headers]

    @classmethod
    def of(
        cls, topic: str, partition: int, records: Sequence[tuple[int, int, bytes | None, bytes | None, Headers]]
    ) -> Run:
        """Makes columns of records, each `(offset, timestamp, key, value, headers)`; at least one."""
        return cls(topic, partition, *zip(*records, strict=True))

    def part(self, begin: int, end: int) -> Run:
        """Records `[begin, end)`."""
        if (begin, end) == (0, len(self.offsets)):
            return self
        return Run(
            self.topic,
            self.partition,
            self.offsets[begin:end],
            self.timestamps_ms[begin:end],
            self.keys[begin:end],
            self.values[begin:end],
            self.headers[begin:end],
        )

    def take(self, places: Sequence[int]) -> Run:
        """Records at some places; at least one."""
        rows = list(zip(*self[2:], strict=True))
        return Run.of(self.topic, self.partition, [rows[at] for at in places])

    def message(self, at: int) -> Message:
        """One record."""
        return Message(
            self.topic,
            self.partition,
            self.offsets[at],
            self.timestamps_ms[at],
            self.keys[at],
            self.values[at],
            list(self.headers[at]),
        )


class OutputRun(NamedTuple):
    """Records to produce, in order; n keys and values. `partition` None lets the key decide."""

    topic: str
    partition: int | None
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    headers: Sequence[Headers] | None = None

    @property
    def records(self) -> list[Output]:
        """The same, record by record."""
        headers = self.headers or [[]] * len(self.keys)
        rows = zip(self.keys, self.values, headers, strict=True)
        return [Output(self.topic, key, value, self.partition, head) for key, value, head in rows]
