"""The core of the features service: records in, rows and outputs out, no Kafka."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tailrace.backends.codec import BatchDecoder
from tailrace.backends.ports import Headers, Message
from tailrace.contracts.records import LabelledPrediction
from tailrace.contracts.topics import Topics
from tailrace.core.durations import milliseconds
from tailrace.core.plan import WindowView
from tailrace.core.requests import RequestColumns, numbers
from tailrace.core.watermarks import EventTimeBounds, watermark_of
from tailrace.core.windows import InMemory, LabelState, Room, WindowState, stable_hash
from tailrace.errors import BadRecord
from tailrace.features.decoding import RunDecoder
from tailrace.features.encoding import RowEncoder
from tailrace.features.rows import RowWrite, Update, newest
from tailrace.features.runs import OutputRun, Run
from tailrace.runtime.dead_letters import Quarantine, dead_letter_header
from tailrace.usecase.declaration import UseCase

SEPARATOR = b"\x00"
"""Between view and entity key in the key of a changelog record; view names are identifiers."""
RESTORED_AT_ONCE = 20_000
"""Records of the changelog held before they are taken over, so that a restore needs little more memory than the state."""

Changelog = Callable[[set[int] | None], Iterable[Message]]
"""Gives all records of some partitions of the changelog topic, of all for None, oldest first in each partition."""


@dataclass
class Step:
    """What a fetch leads to, in the order in which it must become durable; `rows` are made of `updates`, by view."""

    rows: list[RowWrite] = field(default_factory=list)
    updates: dict[str, list[Update]] = field(default_factory=dict)
    outputs: list[OutputRun] = field(default_factory=list)
    events: int = 0
    duplicates: int = 0
    bad: list[str] = field(default_factory=list)


class FeatureProcessor:
    """Windows of all assigned partitions.

    Windows of events live with the partition their events come from. Windows of labels are kept by
    entity, while LABELS is keyed by prediction: one features worker holds all of them, so a use case
    with label views runs one features worker.

    Args:
        use_case: What is computed.
        room: Makes the place where the windows of one view and partition lie.
    """

    def __init__(self, use_case: UseCase, room: Callable[[], Room] = InMemory) -> None:
        plan = use_case.plan
        requests = use_case.requests
        self._plan = plan
        self._topics = Topics(use_case.name)
        self._requests = requests.name
        self._decoder = RunDecoder(requests)
        self._encoder = RowEncoder(plan)
        self._key, self._time = attrgetter(plan.key), attrgetter(plan.event_time)
        self._labels_decoder = BatchDecoder(LabelledPrediction)
        self._columns = RequestColumns(plan)
        self._bounds = EventTimeBounds(
            max_ahead_ms=milliseconds(requests.max_ahead), max_behind_ms=milliseconds(requests.max_behind)
        )
        self._room = room
        self._max_behind_ms = milliseconds(requests.max_behind)
        self._windows: dict[int, dict[str, WindowState]] = {}
        self._labels = {view.name: LabelState(view) for view in plan.online_views}
        self._quarantine = Quarantine()
        for view in plan.event_views:
            # Loads the compiled code now and not while the first event waits.
            WindowState(view).update(
                [""], np.zeros(1, np.int64), np.zeros((1, len(view.fields))), np.zeros(1, np.int64)
            )

    @property
    def subscriptions(self) -> list[str]:
        """Topics to consume."""
        return [self._requests, *([self._topics.labels] if self._labels else [])]

    def assigned(self, partitions: Iterable[tuple[str, int]], changelog: Changelog) -> None:
        """Takes over partitions.

        Args:
            partitions: Topic and partition.
            changelog: Reads partitions of the changelog topic.

        Raises:
            StateCorrupt: the changelog is of another format or plan.
        """
        newest: dict[tuple[str, int | None], dict[str, bytes | None]] = {}
        mine = {number for topic, number in partitions if topic == self._requests} - set(self._windows)
        for number in mine:
            self._windows[number] = {view.name: self._window(view) for view in self._plan.event_views}
        # Windows of labels lie in all partitions, by entity.
        whole = any(topic == self._topics.labels for topic, _ in partitions)
        for message in changelog(None if whole else mine) if whole or mine else ():
            if message.key is None:
                continue
            view, _, key = message.key.partition(SEPARATOR)
            place = None if view.decode() in self._labels else message.partition
            if place is not None and place not in mine:
                continue
            states = newest.setdefault((view.decode(), place), {})
            states[key.decode()] = message.value
            if place is not None and len(states) >= RESTORED_AT_ONCE:
                self._restore(view.decode(), place, states)
                states.clear()
        known = {name for name, state in self._labels.items() if state.keys}
        for (name, where), states in newest.items():
            if where is not None:
                self._restore(name, where, states)
            elif name not in known:
                self._labels[name].restore({key: state for key, state in states.items() if state is not None})

    def _window(self, view: WindowView) -> WindowState:
        return WindowState(view, room=self._room(), max_behind_ms=self._max_behind_ms)

    def _restore(self, view: str, partition: int, states: dict[str, bytes | None]) -> None:
        # The changelog may hold views that are no more.
        if view in self._windows[partition]:
            self._windows[partition][view].restore(states)

    def revoked(self, partitions: Iterable[tuple[str, int]]) -> None:
        """Forgets partitions; `changelog` must have been written before."""
        for topic, number in partitions:
            if topic == self._requests:
                self._windows.pop(number, None)
                self._bounds.revoke(number)

    def label_rows(self) -> list[RowWrite]:
        """Rows of all entities with labels, to write them again after a restore: the store may be new."""
        return [self._label_write(name, state, state.keys) for name, state in self._labels.items() if state.keys]

    def process(self, runs: Iterable[Run], now_ms: int) -> Step:
        """Processes a fetch, in order within each partition.

        Args:
            runs: Records of the events topic and of LABELS, one run per partition.
            now_ms: Wall clock, for bounds on event times.

        Raises:
            QuarantineExceeded: nearly all records are bad.
        """
        step = Step()
        for run in sorted(runs, key=lambda run: (run.topic, run.partition)):
            if run.topic == self._requests:
                # A partition that went while its records waited: whoever has it now reads them again.
                if run.partition in self._windows:
                    self._events(run, now_ms, step)
            else:
                self._known(run, step)
        for view in self._plan.event_views:
            if view.name in step.updates:
                step.rows.append(newest(view, step.updates[view.name]))
        for name, state in self._labels.items():
            dirty = state.take_changed()
            if dirty:
                step.rows.append(self._label_write(name, state, dirty))
        return step

    def changelog(self) -> list[OutputRun]:
        """State of every key that changed since the last call."""
        out = []
        for number, views in self._windows.items():
            for name, window in views.items():
                out.append(self._states(name, number, window))
        for name, state in self._labels.items():
            out.append(self._states(name, None, state))
        return [run for run in out if run.keys]

    def _states(self, view: str, partition: int | None, state: WindowState | LabelState) -> OutputRun:
        keys = state.take_dirty()
        head = view.encode() + SEPARATOR
        packed: list[bytes | None] = list(state.snapshot(keys))
        gone = state.take_forgotten() if isinstance(state, WindowState) else []
        named = [head + key.encode() for key in [*keys, *gone]]
        return OutputRun(self._topics.features_changelog, partition, named, [*packed, *[None] * len(gone)])

    def _events(self, run: Run, now_ms: int, step: Step) -> None:
        """Splits a run at its watermarks, which stay behind everything before them."""
        begin = 0
        marks = [at for at, value in enumerate(run.values) if value is None] if None in run.values else []
        for at in marks:
            if watermark_of(None, run.headers[at]) is None:
                continue
            self._run(run.part(begin, at), now_ms, step)
            mark = OutputRun(self._topics.features, run.partition, [run.keys[at]], [None], [list(run.headers[at])])
            step.outputs.append(mark)
            begin = at + 1
        self._run(run.part(begin, len(run.offsets)), now_ms, step)

    def _run(self, run: Run, now_ms: int, step: Step) -> None:  # hot path
        n = len(run.offsets)
        if not n:
            return
        step.events += n
        records, clean = self._decoder.decode(run.values)
        if not clean:
            self._mixed(run, records, now_ms, step)
            return
        times = np.fromiter(map(self._time, records), np.int64, n)
        ahead, behind = self._bounds.check(run.partition, times, now_ms)
        if ahead.any() or behind.any():
            self._mixed(run, self._dated(records, list(range(n)), times, ahead, behind), now_ms, step, dated=True)
            return
        self._quarantine.observe(n, 0)
        step.outputs.append(OutputRun(self._topics.features, run.partition, *self._rows(run, records, times, step)))

    def _mixed(self, run: Run, records: list[Any], now_ms: int, step: Step, *, dated: bool = False) -> None:
        """A run with records that cannot be used: they travel in their place, with the reason."""
        good = [at for at, record in enumerate(records) if not isinstance(record, BadRecord)]
        if not dated:
            times = np.fromiter((self._time(records[at]) for at in good), np.int64, len(good))
            records = self._dated(records, good, times, *self._bounds.check(run.partition, times, now_ms))
            good = [at for at in good if not isinstance(records[at], BadRecord)]
        self._quarantine.observe(len(good), len(records) - len(good))
        keys, values = list(run.keys), list(run.values)
        headers: list[Headers] = [[] for _ in records]
        if good:
            events = [records[at] for at in good]
            times = np.fromiter(map(self._time, events), np.int64, len(good))
            rows = self._rows(run.take(good), events, times, step)
            for at, key, value in zip(good, *rows, strict=True):
                keys[at], values[at] = key, value
        for at, record in enumerate(records):
            if isinstance(record, BadRecord):
                message = run.message(at)
                header = dead_letter_header(self._plan.use_case, "features", message, record, now_ms)
                headers[at] = [*message.headers, header]
                step.bad.append(record.reason)
        step.outputs.append(OutputRun(self._topics.features, run.partition, keys, values, headers))

    def _dated(
        self,
        records: list[Any],
        good: list[int],
        times: NDArray[np.int64],
        ahead: NDArray[np.bool_],
        behind: NDArray[np.bool_],
    ) -> list[Any]:
        for at in np.flatnonzero(ahead | behind).tolist():
            reason = "event_time_ahead" if ahead[at] else "event_time_behind"
            records[good[at]] = BadRecord(reason, f"{self._plan.event_time}={times[at]} is out of bounds")
        return records

    def _rows(
        self, run: Run, events: list[Any], times: NDArray[np.int64], step: Step
    ) -> tuple[list[bytes], list[bytes]]:
        """Updates the windows; keys and values of the FEATURES records."""
        plan = self._plan
        offsets = np.array(run.offsets, np.int64)
        keys = list(map(str, map(self._key, events)))
        matrices = [self._columns.compute(events, times)]
        for view in plan.event_views:
            state = self._windows[run.partition][view.name]
            columns = [numbers(events, name) for name in view.fields]
            fields = np.column_stack(columns) if columns else np.empty((len(events), 0))
            before = state.replayed
            values = state.update(keys, times, fields, offsets)
            step.duplicates += state.replayed - before
            matrices.append(values)
            step.updates.setdefault(view.name, []).append((keys, values, times))
        encoded = self._encoder.encode(run, events, keys, times, np.concatenate(matrices, axis=1))
        named = [name.encode() if key is None else key for key, name in zip(run.keys, keys, strict=True)]
        return named, encoded

    def _known(self, run: Run, step: Step) -> None:
        payloads = [value for value in run.values if value is not None]
        for record in self._labels_decoder.decode(payloads):
            if isinstance(record, BadRecord):
                # Our own feedback wrote it: no dead letter, but it must show.
                step.bad.append(f"label_{record.reason}")
                continue
            if record.variant == "shadow" or record.auxiliary:
                continue
            prediction = stable_hash(record.prediction_id)
            fresh = record.reason not in ("correction", "retract")
            for state in self._labels.values():
                entity = record.entities.get(state.view.entity)
                if entity is not None:
                    state.apply(entity, prediction, record.label_version, record.known_at_ms, record.label, fresh)

    def _label_write(self, name: str, state: LabelState, keys: list[str]) -> RowWrite:
        values, times, packed = state.rows(keys)
        return RowWrite(state.view, list(keys), values, times, packed)
