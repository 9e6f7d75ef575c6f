"""The changelog of feedback: what is kept, by key, so that a restart goes on where the last commit was."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from tailrace.backends.codec import encode
from tailrace.backends.ports import Output
from tailrace.core.joins import EventState
from tailrace.core.monitoring import MonitorSnapshot
from tailrace.core.quality import WindowCounts, WindowKey
from tailrace.errors import StateCorrupt

FORMAT = 1
_EVENT = b"event:"
_WINDOW = b"window:"
_MONITOR = b"monitor"


class Clock(msgspec.Struct):
    """Stream time reached, beside the monitor's state."""

    watermark_ms: int
    monitor: MonitorSnapshot


class Restored(NamedTuple):
    """Everything a restart needs."""

    events: dict[str, EventState]
    windows: dict[WindowKey, WindowCounts]
    clock: Clock | None


class Changelog:
    """Writes and reads the changelog topic.

    Args:
        topic: Its name.
    """

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._event = msgspec.msgpack.Encoder()

    def event(self, event_id: str, state: EventState | None) -> Output:
        """State of one event; None once it is forgotten."""
        value = self._event.encode(state) if state is not None else None
        return Output(self._topic, _EVENT + event_id.encode(), value, 0)

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
        events, windows, clock = {}, {}, None
        event_decoder = msgspec.msgpack.Decoder(EventState)
        try:
            for key, value in newest.items():
                if key.startswith(_EVENT):
                    events[key[len(_EVENT) :].decode()] = event_decoder.decode(value)
                elif key.startswith(_WINDOW):
                    window = msgspec.json.decode(key[len(_WINDOW) :], type=WindowKey)
                    windows[window] = msgspec.json.decode(value, type=WindowCounts)
                elif key == _MONITOR:
                    clock = msgspec.json.decode(value, type=Clock)
        except msgspec.MsgspecError as error:
            raise StateCorrupt(
                f"{self._topic} holds a record this release cannot read ({error}); delete the topic and rewind the "
                "group of feedback to the beginning, so that its state is made anew from predictions and outcomes"
            ) from error
        return Restored(events, windows, clock)
