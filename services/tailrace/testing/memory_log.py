"""Topics in memory: partitions, offsets, consumer groups and what each has committed."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any

from tailrace.backends.ports import Headers, Message, Output
from tailrace.contracts.records import WATERMARK_HEADER
from tailrace.contracts.topics import TopicSpec
from tailrace.core.partitioning import partitions_of

_NO_HEADERS: Headers = []
_NEW = tuple.__new__  # half the cost of the constructor of a NamedTuple


class Partition:
    """Records of one partition, oldest first, by the column; entry i has offset `begin` + i.

    Records that every group has passed are trimmed: a compacted topic keeps the newest of each key,
    any other keeps nothing.
    """

    def __init__(self) -> None:
        self.begin = 0
        self.timestamps_ms: list[int] = []
        self.keys: list[bytes | None] = []
        self.values: list[bytes | None] = []
        self.headers: list[Headers] = []
        self.newest: dict[bytes, bytes] = {}

    @property
    def end(self) -> int:
        """Offset behind the last record."""
        return self.begin + len(self.keys)

    def extend(
        self,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        now_ms: int,
        headers: Sequence[Headers] | None = None,
    ) -> None:
        """Appends n records."""
        self.timestamps_ms += [now_ms] * len(keys)
        self.keys += keys
        self.values += values
        self.headers += headers if headers is not None else [_NO_HEADERS] * len(keys)

    def trim(self, offset: int, *, compacted: bool) -> None:
        """Takes note that nobody reads below an offset any more."""
        count = offset - self.begin
        if count <= 0:
            return
        if compacted:
            for key, value in zip(self.keys[:count], self.values[:count], strict=True):
                if key is not None and value is not None:
                    # In the order of the last write, as a log that was compacted reads.
                    self.newest.pop(key, None)
                    self.newest[key] = value
                elif key is not None:
                    self.newest.pop(key, None)
        for column in (self.timestamps_ms, self.keys, self.values, self.headers):
            del column[:count]
        self.begin = offset


class MemoryLog:
    """Topics and consumer groups. One thread; nothing is visible before `append`, as in a committed transaction.

    Args:
        topics: What there is; each topic is read by groups that subscribe to it before the first record.
        partitions: Partitions of topics whose spec leaves their number open.
        kept: Topics of which every record is kept, whoever has passed it.

    Attributes:
        written: Records with a value that were appended, by topic.
    """

    def __init__(self, topics: Iterable[TopicSpec], partitions: int, kept: Collection[str] = ()) -> None:
        self.written: Counter[str] = Counter()
        self._kept = frozenset(kept)
        self._specs = {spec.name: spec for spec in topics}
        self._partitions = {
            name: [Partition() for _ in range(spec.partitions or partitions)] for name, spec in self._specs.items()
        }
        self._readers: dict[str, list[str]] = {name: [] for name in self._specs}
        self._committed: dict[tuple[str, str, int], tuple[int, str]] = {}

    def subscribe(self, group: str, topics: Iterable[str]) -> None:
        """Lets a group read topics; their records are kept until it has committed behind them."""
        for topic in topics:
            self._readers[topic].append(group)
            for number in range(len(self._partitions[topic])):
                self._committed[group, topic, number] = (0, "")

    def partitions(self, topic: str) -> list[Partition]:
        """Partitions of a topic."""
        return self._partitions[topic]

    def append(self, outputs: Iterable[Output], now_ms: int) -> None:
        """Appends records in order; what a transaction wrote becomes visible with this call.

        Args:
            outputs: Records; a partition of None goes by the key.
            now_ms: Their Kafka timestamp.
        """
        records = list(outputs)
        waiting: dict[tuple[str, int], tuple[list[bytes | None], list[bytes | None], list[Headers]]] = {}
        for (topic, key, value, _, headers), number in zip(records, self._numbers(records), strict=True):
            at = waiting.get((topic, number))
            if at is None:
                at = waiting[topic, number] = ([], [], [])
            at[0].append(key)
            at[1].append(value)
            at[2].append(headers)
        for (topic, number), (keys, values, all_headers) in waiting.items():
            self._partitions[topic][number].extend(keys, values, now_ms, all_headers)
            self.written[topic] += len(values) - values.count(None)

    def punctuate(self, topic: str, watermark_ms: int, now_ms: int) -> None:
        """States a watermark on every partition of a topic."""
        headers = [(WATERMARK_HEADER, str(watermark_ms).encode())]
        numbers = range(len(self._partitions[topic]))
        self.append([Output(topic, None, None, number, headers) for number in numbers], now_ms)

    def _numbers(self, records: Sequence[Output]) -> list[int]:
        """Partition of each record; keyless ones go to the first."""
        numbers = [record.partition or 0 for record in records]
        keyed: dict[str, list[int]] = defaultdict(list)
        for at, (topic, key, _, partition, _) in enumerate(records):
            if partition is None and key is not None and len(self._partitions[topic]) > 1:
                keyed[topic].append(at)
        for topic, places in keyed.items():
            found = partitions_of([records[at].key or b"" for at in places], len(self._partitions[topic]))
            for at, number in zip(places, found.tolist(), strict=True):
                numbers[at] = number
        return numbers

    def committed(self, group: str, topic: str, partition: int) -> tuple[int, str]:
        """Offset and metadata a group has committed."""
        return self._committed[group, topic, partition]

    def commit(self, group: str, topic: str, partition: int, offset: int, metadata: str) -> None:
        """Commits an offset with its metadata."""
        self._committed[group, topic, partition] = (offset, metadata)

    def read(self, topic: str, partition: int, offset: int, most: int) -> list[Message]:
        """Records from an offset on, at most so many."""
        part = self._partitions[topic][partition]
        begin = offset - part.begin
        rows = slice(begin, begin + most)
        columns = (part.timestamps_ms[rows], part.keys[rows], part.values[rows], part.headers[rows])
        numbers = range(offset, offset + len(columns[0]))
        fields: Any = zip(repeat(topic), repeat(partition), numbers, *columns, strict=False)
        return [_NEW(Message, row) for row in fields]

    def records(self, topic: str) -> Iterator[Message]:
        """All that a topic holds, in order within each partition; offsets are -1 where a log was compacted."""
        for number, part in enumerate(self._partitions[topic]):
            for key, value in part.newest.items():
                yield Message(topic, number, -1, 0, key, value, [])
            yield from self.read(topic, number, part.begin, len(part.keys))

    def trim(self) -> None:
        """Forgets what every group has passed."""
        for topic, parts in self._partitions.items():
            if topic in self._kept:
                continue
            for number, part in enumerate(parts):
                passed = [self._committed[group, topic, number][0] for group in self._readers[topic]]
                part.trim(min(passed, default=part.end), compacted=self._specs[topic].compacted)
