"""The changelog of feedback: what is kept, as a log of batches, so that a restart goes on where the last commit was.

A record tells what one batch did: rows that came, rows that changed, rows that are gone. What is written
per commit follows the batch, however many predictions wait. A record is deleted when stream time has
passed the horizon of everything it can speak of, so that the log follows what is kept. Each label has a
log of its own in the topic: keys of auxiliary labels begin with their name.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import msgspec
import numpy as np

from tailrace.backends.codec import encode
from tailrace.backends.ports import Output
from tailrace.contracts.retraining import EraseRequested
from tailrace.core.join_records import Outcome
from tailrace.core.join_table import JoinTable, Rows
from tailrace.core.monitor_state import MonitorSnapshot
from tailrace.core.outcome_table import OutcomeTable
from tailrace.core.window_counts import WindowCounts, WindowKey
from tailrace.errors import StateCorrupt
from tailrace.feedback.batches import Batch, batches, read_batches, read_outcomes
from tailrace.feedback.sweeping import Sweep

FORMAT = 4
_LABEL = b"label:"
_BATCH = b"batch:"
_HELD = b"held:"
_SOURCES = b"sources"
_WINDOW = b"window:"
_MONITOR = b"monitor"
_WATERMARK = b"watermark"
_ERASED = b"erased"
_ERASING = b"erasing"
TASK = b"task"


class Clock(msgspec.Struct):
    """Stream time reached, beside the monitor's state; `label` is the name of the label that judges the model.

    Format 2 had no name of a label, and neither several labels nor outcomes with ids; format 3
    had no sources of outcomes. Both are read as they are.
    """

    watermark_ms: int
    monitor: MonitorSnapshot
    label: str = ""
    format: int = FORMAT


class Restored(NamedTuple):
    """Everything a restart needs of a label; `heads` are the first rows of the events in `table`, int64 (n,)."""

    table: JoinTable
    heads: Rows
    outcomes: OutcomeTable
    held: dict[str, list[Outcome]]
    windows: dict[WindowKey, WindowCounts]
    sources: list[str]


class Changelog:
    """Writes and reads what the changelog topic keeps of one label.

    Args:
        topic: Its name.
        horizon_ms: Longest time from a prediction's event to the end of its corrections.
        label: Name of an auxiliary label; "" for the one that judges the model.
        partition: Partition of the topic.
    """

    def __init__(self, topic: str, horizon_ms: int, label: str = "", partition: int = 0) -> None:
        self._topic = topic
        self._partition = partition
        self._horizon_ms = horizon_ms
        self._prefix = _LABEL + label.encode() + b":" if label else b""
        self._batch = self._prefix + _BATCH
        self._newest_ms = -1
        self._next = 0
        self._sources = 0
        self._erased = np.empty(0, np.int64)
        self._expiring: deque[tuple[int, bytes]] = deque()
        self._encoder = msgspec.msgpack.Encoder()
        self._outcomes = msgspec.msgpack.Decoder(list[Outcome])

    def batch(
        self, table: JoinTable, outcomes: OutcomeTable | None, added: Rows, touched: Rows, gone: Rows
    ) -> Iterator[Output]:
        """What a batch did, before the rows that are gone are freed: int64 each, distinct."""
        if added.size:
            self._newest_ms = max(self._newest_ms, int(table.event_time_ms[added].max()))
        # No row there is outlives this, nor does a record that it is spoken of in: records die in order.
        expires_ms = self._newest_ms + self._horizon_ms
        for batch in batches(table, outcomes, added, touched, gone, expires_ms):
            key = self._batch + b"%020d" % self._next
            self._next += 1
            self._expiring.append((expires_ms, key))
            yield Output(self._topic, key, self._encoder.encode(batch), self._partition)

    def expired(self, watermark_ms: int) -> Iterator[Output]:
        """Deletes batches that speak only of what is forgotten at this time."""
        while self._expiring and self._expiring[0][0] <= watermark_ms:
            yield Output(self._topic, self._expiring.popleft()[1], None, self._partition)

    def erased(self, serials: Rows) -> Iterator[Output]:
        """Notes predictions that were erased, by serial number, int64 (n,), until a sweep has gone over their records."""
        if serials.size:
            self._erased = np.union1d(self._erased, serials)
            yield Output(self._topic, self._prefix + _ERASED, self._erased.tobytes(), self._partition)

    def sweep(self) -> Sweep | None:
        """What takes erased predictions out of their records; None where there are none."""
        return Sweep(self._batch, self._prefix + _ERASED, self._erased) if self._erased.size else None

    def swept(self, sweep: Sweep) -> Iterator[Output]:
        """What a sweep has found, unless more was erased meanwhile, or what was had not been committed."""
        if not sweep.is_whole or not np.array_equal(sweep.serials, self._erased):
            return
        self._erased = np.empty(0, np.int64)
        kept = {key for _, key in self._expiring}
        for key, value in sweep.rewritten.items():
            if key in kept:
                yield Output(self._topic, key, value, self._partition)
        yield Output(self._topic, self._prefix + _ERASED, None, self._partition)

    def held(self, event_id: str, outcomes: list[Outcome] | None) -> Output:
        """Outcomes held for an event; None once there are none."""
        value = self._encoder.encode(outcomes) if outcomes is not None else None
        return Output(self._topic, self._prefix + _HELD + event_id.encode(), value, self._partition)

    def sources(self, names: list[str]) -> Iterator[Output]:
        """Names of the sources by code, when there are new ones."""
        if len(names) > self._sources:
            self._sources = len(names)
            yield Output(self._topic, self._prefix + _SOURCES, self._encoder.encode(names), self._partition)

    def window(self, key: WindowKey, counts: WindowCounts | None) -> Output:
        """Counts that forgotten events left in a window; None once the window is forgotten."""
        value = encode(counts) if counts is not None else None
        return Output(self._topic, self._prefix + _WINDOW + encode(key), value, self._partition)

    def restore(self, newest: Mapping[bytes, bytes]) -> Restored:
        """Folds what the topic holds of this label.

        Raises:
            StateCorrupt: a record cannot be read.
        """
        start = len(self._prefix)
        mine = {key[start:]: value for key, value in newest.items() if key.startswith(self._prefix)}
        try:
            return self._fold(mine)
        except (msgspec.MsgspecError, ValueError) as error:
            raise unreadable(self._topic, str(error)) from error

    def _fold(self, newest: dict[bytes, bytes]) -> Restored:
        held: dict[str, list[Outcome]] = {}
        windows: dict[WindowKey, WindowCounts] = {}
        sources = msgspec.msgpack.decode(newest[_SOURCES], type=list[str]) if _SOURCES in newest else []
        self._sources = len(sources)
        for key, value in newest.items():
            if key.startswith(_HELD):
                held[key[len(_HELD) :].decode()] = self._outcomes.decode(value)
            elif key.startswith(_WINDOW):
                window = msgspec.json.decode(key[len(_WINDOW) :], type=WindowKey)
                windows[window] = msgspec.json.decode(value, type=WindowCounts)
            elif not key.startswith((_BATCH, _MONITOR, _WATERMARK, _LABEL, _SOURCES, _ERASED, _ERASING, TASK)):
                raise ValueError(f"key {key!r} is of another format than {FORMAT}")
        self._erased = np.frombuffer(newest.get(_ERASED, b""), np.int64)
        numbers = sorted(key for key in newest if key.startswith(_BATCH))
        decoder = msgspec.msgpack.Decoder(Batch)
        found = [decoder.decode(newest[key]) for key in numbers]
        expires = [batch.expires_ms for batch in found]
        self._expiring = deque(zip(expires, [self._prefix + key for key in numbers], strict=True))
        self._next = int(numbers[-1][len(_BATCH) :]) + 1 if numbers else 0
        table, heads = read_batches(found)
        outcomes = OutcomeTable()
        read_outcomes(found, table, outcomes)
        live = table.live()
        self._newest_ms = max(
            int(table.event_time_ms[live].max()) if live.size else -1,
            found[-1].expires_ms - self._horizon_ms if found else -1,
        )
        return Restored(table, np.asarray(heads), outcomes, held, windows, sources)


def newest_of(records: Iterable[tuple[bytes, bytes | None]]) -> dict[bytes, bytes]:
    """What the topic holds by key, as compaction will leave it."""
    newest: dict[bytes, bytes] = {}
    for key, value in records:
        if value is None:
            newest.pop(key, None)
        else:
            newest[key] = value
    return newest


def write_clock(topic: str, clock: Clock) -> Output:
    """Stream time and the monitor's state as a record of the topic."""
    return Output(topic, _MONITOR, encode(clock), 0)


def write_watermark(topic: str, watermark_ms: int) -> Output:
    """Stream time alone as a record of the topic: what is late must be late after a restart too."""
    return Output(topic, _WATERMARK, b"%d" % watermark_ms, 0)


def read_clock(topic: str, newest: Mapping[bytes, bytes], label: str) -> Clock | None:
    """Stream time and the monitor's state; None where nothing is kept yet.

    Args:
        topic: Name of the topic.
        newest: What it holds.
        label: Name of the label that judges the model.

    Raises:
        StateCorrupt: the record cannot be read, is of a later format, or another label judged the model.
    """
    try:
        reached_ms = int(newest.get(_WATERMARK, b"-1"))
        if _MONITOR not in newest:
            return Clock(reached_ms, MonitorSnapshot(), label) if reached_ms >= 0 else None
        clock = msgspec.json.decode(newest[_MONITOR], type=Clock)
    except (msgspec.MsgspecError, ValueError) as error:
        raise unreadable(topic, str(error)) from error
    clock.watermark_ms = max(clock.watermark_ms, reached_ms)
    if clock.format > FORMAT:
        raise unreadable(topic, f"format {clock.format}, this release writes {FORMAT}")
    if clock.label not in ("", label):
        raise unreadable(topic, f"it was kept for the label {clock.label!r}, the use case is judged by {label!r}")
    return clock


def write_erasing(topic: str, pending: list[EraseRequested]) -> Output:
    """Requests for erasure that wait, as a record of the topic."""
    return Output(topic, _ERASING, encode(pending) if pending else None, 0)


def read_erasing(topic: str, newest: Mapping[bytes, bytes]) -> list[EraseRequested]:
    """Requests for erasure that wait.

    Raises:
        StateCorrupt: the record cannot be read.
    """
    try:
        return msgspec.json.decode(newest.get(_ERASING, b"[]"), type=list[EraseRequested])
    except msgspec.MsgspecError as error:
        raise unreadable(topic, str(error)) from error


def abandoned(topic: str, newest: Mapping[bytes, bytes], labels: Iterable[str]) -> Iterator[Output]:
    """Deletes what is kept of auxiliary labels that are declared no more; `labels` are those that are."""
    known = tuple(_LABEL + label.encode() + b":" for label in labels)
    for key in newest:
        if key.startswith(_LABEL) and not key.startswith(known):
            yield Output(topic, key, None, 0)


def unreadable(topic: str, why: str) -> StateCorrupt:
    """What to say of a changelog that is not taken for one's own, and what to do."""
    return StateCorrupt(
        f"{topic} holds a record this release cannot read ({why}); delete the topic and rewind the "
        "group of feedback to the beginning, so that its state is made anew from predictions and outcomes"
    )
