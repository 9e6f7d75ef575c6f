"""What producers send, before and after faults have befallen it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tailrace.backends.recordings import Recording
from tailrace.testing.faults import Side
from tailrace.usecase.sources import Topic

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Stream:
    """What a producer sends to one topic.

    Attributes:
        topic: The topic.
        columns: One Arrow array of length n per field.
        arrival_ms: int64 (n,), when each record is sent, epoch milliseconds, in any order.
        malformed: Further records (arrival, key, value) that nobody can use.
        trailing_ms: How far the producer's watermark trails, because records may still be under way.
    """

    topic: Topic
    columns: dict[str, pa.Array]
    arrival_ms: Indices
    malformed: tuple[tuple[int, bytes, bytes | None], ...] = field(default=())
    trailing_ms: int = 0

    @property
    def times_ms(self) -> Indices:
        """int64 (n,), event times, epoch milliseconds."""
        return np.asarray(self.columns[self.topic.event_time].to_numpy(zero_copy_only=False), np.int64)

    def recording(self) -> Recording:
        """The well-formed records in the order in which they are sent."""
        order = np.argsort(self.arrival_ms, kind="stable")
        taken = pa.array(order)
        return Recording(
            self.topic, self.arrival_ms[order], {name: column.take(taken) for name, column in self.columns.items()}
        )

    def take(self, rows: Indices) -> Stream:
        """Records at some places."""
        columns = {name: column.take(pa.array(rows)) for name, column in self.columns.items()}
        return replace(self, columns=columns, arrival_ms=self.arrival_ms[rows])

    def with_column(self, name: str, values: Any) -> Stream:
        """The same with other values in a column."""
        kept = self.columns[name].type
        return replace(self, columns=self.columns | {name: pa.array(values).cast(kept, safe=False)})


@dataclass(frozen=True)
class Streams:
    """Events and outcomes of a use case."""

    events: Stream
    outcomes: Stream

    def of(self, side: Side) -> Stream:
        """One of the two."""
        return self.events if side == "events" else self.outcomes

    def with_stream(self, side: Side, stream: Stream) -> Streams:
        """The same with another stream on one side."""
        return replace(self, events=stream) if side == "events" else replace(self, outcomes=stream)


def stream_of(recording: Recording) -> Stream:
    """A recording as it was recorded: sent in order, at its event times."""
    return Stream(recording.topic, recording.columns, recording.times_ms.copy())


def streams_of(events: Recording, outcomes: Recording) -> Streams:
    """Both of a use case, each as `stream_of`."""
    return Streams(stream_of(events), stream_of(outcomes))
