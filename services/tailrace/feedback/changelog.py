"""The changelog of feedback: what is kept, as a log of batches, so that a restart goes on where the last commit was.

A record tells what one batch did: rows that came, rows that changed, rows that are gone. What is written
per commit follows the batch, however many predictions wait. A record is deleted when stream time has
passed the horizon of everything it can speak of, so that the log follows what is kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec
import numpy as np

from tailrace.backends.codec import encode
from tailrace.backends.ports import Output
from tailrace.core.join_records import Outcome
from tailrace.core.join_table import JoinTable, Rows
from tailrace.core.monitoring import MonitorSnapshot
from tailrace.core.quality import WindowCounts, WindowKey
from tailrace.errors import StateCorrupt
from tailrace.feedback.batches import Batch, batches, read_batches

FORMAT = 2
_BATCH = b"batch:"
_HELD = b"held:"
_WINDOW = b"window:"
_MONITOR = b"monitor"


class Clock(msgspec.Struct):
    """Stream time reached, beside the monitor's state."""

    watermark_ms: int
    monitor: MonitorSnapshot
    format: int = FORMAT


class Restored(NamedTuple):
    """Everything a restart needs; `heads` are the first rows of the events in `table`, int64 (n,)."""

    table: JoinTable
    heads: Rows
    held: dict[str, list[Outcome]]
    windows: dict[WindowKey, WindowCounts]
    clock: Clock | None


class Changelog:
    """Writes and reads the changelog topic.

    Args:
        topic: Its name.
        horizon_ms: Longest time from a prediction's event to the end of its corrections.
    """

    def __init__(self, topic: str, horizon_ms: int) -> None:
        self._topic = topic
        self._horizon_ms = horizon_ms
        self._newest_ms = -1
        self._next = 0
        self._expiring: deque[tuple[int, bytes]] = deque()
        self._encoder = msgspec.msgpack.Encoder()
        self._outcomes = msgspec.msgpack.Decoder(list[Outcome])

    def batch(self, table: JoinTable, added: Rows, touched: Rows, gone: Rows) -> Iterator[Output]:
        """What a batch did, before the rows that are gone are freed: int64 each, distinct."""
        if added.size:
            self._newest_ms = max(self._newest_ms, int(table.event_time_ms[added].max()))
        # No row there is outlives this, nor does a record that it is spoken of in: records die in order.
        expires_ms = self._newest_ms + self._horizon_ms
        for batch in batches(table, added, touched, gone, expires_ms):
            key = _BATCH + b"%020d" % self._next
            self._next += 1
            self._expiring.append((expires_ms, key))
            yield Output(self._topic, key, self._encoder.encode(batch), 0)

    def expired(self, watermark_ms: int) -> Iterator[Output]:
        """Deletes batches that speak only of what is forgotten at this time."""
        while self._expiring and self._expiring[0][0] <= watermark_ms:
            yield Output(self._topic, self._expiring.popleft()[1], None, 0)

    def held(self, event_id: str, outcomes: list[Outcome] | None) -> Output:
        """Outcomes held for an event; None once there are none."""
        value = self._encoder.encode(outcomes) if outcomes is not None else None
        return Output(self._topic, _HELD + event_id.encode(), value, 0)

    def window(self, key: WindowKey, counts: WindowCounts | None) -> Output:
        """Counts that forgotten events left in a window; None once the window is forgotten."""
        value = encode(counts) if counts is not None else None
        return Output(self._topic, _WINDOW + encode(key), value, 0)

    def clock(self, clock: Clock) -> Output:
        """Stream time and the monitor's state."""
        return Output(self._topic, _MONITOR, encode(clock), 0)

    def restore(self, records: Iterable[tuple[bytes, bytes | None]]) -> Restored:
        """Folds the topic.

        Raises:
            StateCorrupt: a record cannot be read.
        """
        newest: dict[bytes, bytes] = {}
        for key, value in records:
            if value is None:
                newest.pop(key, None)
            else:
                newest[key] = value
        try:
            return self._fold(newest)
        except (msgspec.MsgspecError, ValueError) as error:
            raise StateCorrupt(
                f"{self._topic} holds a record this release cannot read ({error}); delete the topic and rewind the "
                "group of feedback to the beginning, so that its state is made anew from predictions and outcomes"
            ) from error

    def _fold(self, newest: dict[bytes, bytes]) -> Restored:
        held: dict[str, list[Outcome]] = {}
        windows: dict[WindowKey, WindowCounts] = {}
        clock = None
        for key, value in newest.items():
            if key.startswith(_HELD):
                held[key[len(_HELD) :].decode()] = self._outcomes.decode(value)
            elif key.startswith(_WINDOW):
                window = msgspec.json.decode(key[len(_WINDOW) :], type=WindowKey)
                windows[window] = msgspec.json.decode(value, type=WindowCounts)
            elif key == _MONITOR:
                clock = msgspec.json.decode(value, type=Clock)
            elif not key.startswith(_BATCH):
                raise ValueError(f"key {key!r} is of another format than {FORMAT}")
        numbers = sorted(key for key in newest if key.startswith(_BATCH))
        decoder = msgspec.msgpack.Decoder(Batch)
        found = [decoder.decode(newest[key]) for key in numbers]
        self._expiring = deque(zip([batch.expires_ms for batch in found], numbers, strict=True))
        self._next = int(numbers[-1][len(_BATCH) :]) + 1 if numbers else 0
        table, heads = read_batches(found)
        live = table.live()
        self._newest_ms = max(
            int(table.event_time_ms[live].max()) if live.size else -1,
            found[-1].expires_ms - self._horizon_ms if found else -1,
        )
        return Restored(table, np.asarray(heads), held, windows, clock)
