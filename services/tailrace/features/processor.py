"""The core of the features service: records in, rows and outputs out, no Kafka."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tailrace.backends.codec import BatchDecoder, EventDecoder, encode
from tailrace.backends.ports import Message, Output
from tailrace.contracts.records import FeatureRow, LabelledPrediction, Source
from tailrace.contracts.topics import Topics
from tailrace.core.durations import milliseconds
from tailrace.core.plan import WindowView
from tailrace.core.requests import RequestColumns, numbers
from tailrace.core.watermarks import EventTimeBounds, watermark_of
from tailrace.core.windows import LabelState, WindowState, stable_hash
from tailrace.errors import BadRecord
from tailrace.runtime.dead_letters import Quarantine, dead_letter_header
from tailrace.usecase.declaration import UseCase

SEPARATOR = b"\x00"
"""Between view and entity key in the key of a changelog record; view names are identifiers."""


@dataclass
class RowWrite:
    """Rows of one view for the online store; arguments of `ports.OnlineStore.write`."""

    view: WindowView
    keys: list[str]
    values: NDArray[np.float64]
    timestamps_ms: NDArray[np.int64]
    state: list[bytes] | None = None


@dataclass
class Step:
    """What a fetch leads to, in the order in which it must become durable."""

    rows: list[RowWrite] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
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
    """

    def __init__(self, use_case: UseCase) -> None:
        plan = use_case.plan
        requests = use_case.requests
        self._plan = plan
        self._topics = Topics(use_case.name)
        self._requests = requests.name
        self._decoder = EventDecoder(requests)
        self._labels_decoder = BatchDecoder(LabelledPrediction)
        self._columns = RequestColumns(plan)
        self._bounds = EventTimeBounds(
            max_ahead_ms=milliseconds(requests.max_ahead), max_behind_ms=milliseconds(requests.max_behind)
        )
        self._fingerprint = plan.fingerprint
        self._windows: dict[int, dict[str, WindowState]] = {}
        self._labels = {view.name: LabelState(view) for view in plan.online_views}
        self._quarantine = Quarantine()

    @property
    def subscriptions(self) -> list[str]:
        """Topics to consume."""
        return [self._requests, *([self._topics.labels] if self._labels else [])]

    def assigned(self, partitions: Iterable[tuple[str, int]], changelog: Callable[[], Iterable[Message]]) -> None:
        """Takes over partitions.

        Args:
            partitions: Topic and partition.
            changelog: Gives all records of the changelog topic, oldest first in each partition.

        Raises:
            StateCorrupt: the changelog is of another format or plan.
        """
        newest: dict[tuple[str, int | None], dict[str, bytes]] = {}
        mine = {number for topic, number in partitions if topic == self._requests} - set(self._windows)
        for number in mine:
            self._windows[number] = {view.name: WindowState(view) for view in self._plan.event_views}
        for message in changelog() if mine or any(topic == self._topics.labels for topic, _ in partitions) else ():
            if message.key is None or message.value is None:
                continue
            view, _, key = message.key.partition(SEPARATOR)
            place = None if view.decode() in self._labels else message.partition
            newest.setdefault((view.decode(), place), {})[key.decode()] = message.value
        for (name, where), states in newest.items():
            if where is None and not self._labels[name].keys:
                self._labels[name].restore(states)
            elif where in mine and name in self._windows[where]:
                self._windows[where][name].restore(states)

    def revoked(self, partitions: Iterable[tuple[str, int]]) -> None:
        """Forgets partitions; `changelog` must have been written before."""
        for topic, number in partitions:
            if topic == self._requests:
                self._windows.pop(number, None)
                self._bounds.revoke(number)

    def label_rows(self) -> list[RowWrite]:
        """Rows of all entities with labels, to write them again after a restore: the store may be new."""
        return [self._label_write(name, state, state.keys) for name, state in self._labels.items() if state.keys]

    def process(self, batch: Sequence[Message], now_ms: int) -> Step:
        """Processes a fetch, in order within each partition.

        Args:
            batch: Records of the events topic and of LABELS.
            now_ms: Wall clock, for bounds on event times.

        Raises:
            QuarantineExceeded: nearly all records are bad.
        """
        step = Step()
        runs: dict[tuple[str, int], list[Message]] = {}
        for message in batch:
            runs.setdefault((message.topic, message.partition), []).append(message)
        for (topic, partition), messages in sorted(runs.items()):
            if topic == self._requests:
                self._events(partition, messages, now_ms, step)
            else:
                self._known(messages, step)
        for name, state in self._labels.items():
            dirty = state.take_changed()
            if dirty:
                step.rows.append(self._label_write(name, state, dirty))
        return step

    def changelog(self) -> list[Output]:
        """State of every key that changed since the last call."""
        topic = self._topics.features_changelog
        out = []
        for number, views in self._windows.items():
            for name, window in views.items():
                keys = window.take_dirty()
                for key, packed in zip(keys, window.snapshot(keys), strict=True):
                    out.append(Output(topic, name.encode() + SEPARATOR + key.encode(), packed, number))
        for name, state in self._labels.items():
            keys = state.take_dirty()
            for key, packed in zip(keys, state.snapshot(keys), strict=True):
                out.append(Output(topic, name.encode() + SEPARATOR + key.encode(), packed))
        return out

    def _events(self, partition: int, messages: list[Message], now_ms: int, step: Step) -> None:
        """Splits a run at its watermarks, which stay behind everything before them."""
        begin = 0
        for at, message in enumerate(messages):
            if watermark_of(message.value, message.headers) is None:
                continue
            self._run(partition, messages[begin:at], now_ms, step)
            step.outputs.append(Output(self._topics.features, message.key, None, partition, message.headers))
            begin = at + 1
        self._run(partition, messages[begin:], now_ms, step)

    def _run(self, partition: int, messages: list[Message], now_ms: int, step: Step) -> None:  # hot path
        if not messages:
            return
        step.events += len(messages)
        records = self._believable(partition, self._decoder.decode([m.value for m in messages]), now_ms)
        good = [at for at, record in enumerate(records) if not isinstance(record, BadRecord)]
        self._quarantine.observe(len(good), len(records) - len(good))
        outputs: list[Output | None] = [None] * len(messages)
        if good:
            self._rows(partition, [messages[at] for at in good], [records[at] for at in good], good, outputs, step)
        if len(good) < len(messages):
            for at, record in enumerate(records):
                if isinstance(record, BadRecord):
                    outputs[at] = self._letter(messages[at], record, now_ms)
                    step.bad.append(record.reason)
        step.outputs.extend(output for output in outputs if output is not None)

    def _believable(self, partition: int, records: list[Any], now_ms: int) -> list[Any]:
        good = [at for at, record in enumerate(records) if not isinstance(record, BadRecord)]
        times = np.array([getattr(records[at], self._plan.event_time) for at in good], np.int64)
        ahead, behind = self._bounds.check(partition, times, now_ms)
        for at in np.flatnonzero(ahead | behind).tolist():
            reason = "event_time_ahead" if ahead[at] else "event_time_behind"
            records[good[at]] = BadRecord(reason, f"{self._plan.event_time}={times[at]} is out of bounds")
        return records

    def _rows(
        self,
        partition: int,
        messages: list[Message],
        events: list[Any],
        places: list[int],
        outputs: list[Output | None],
        step: Step,
    ) -> None:
        plan = self._plan
        times = np.array([getattr(event, plan.event_time) for event in events], np.int64)
        offsets = np.array([message.offset for message in messages], np.int64)
        keys = [str(getattr(event, plan.key)) for event in events]
        matrices = [self._columns.compute(events, times)]
        for view in plan.event_views:
            state = self._windows[partition][view.name]
            columns = [numbers(events, name) for name in view.fields]
            fields = np.column_stack(columns) if columns else np.empty((len(events), 0))
            before = state.replayed
            values = state.update(keys, times, fields, offsets)
            step.duplicates += state.replayed - before
            matrices.append(values)
            step.rows.append(_newest(view, keys, values, times))
        matrix = np.concatenate(matrices, axis=1).astype(object)
        matrix[matrix != matrix] = None
        rows = matrix.tolist()
        for at, (message, event, row) in enumerate(zip(messages, events, rows, strict=True)):
            value = encode(
                FeatureRow(
                    event_id=str(getattr(event, plan.event_id)),
                    event_time_ms=getattr(event, plan.event_time),
                    key=keys[at],
                    entities={name: str(getattr(event, name)) for name in plan.entities},
                    slices={name: str(getattr(event, name)) for name in plan.slices},
                    values=row,
                    fingerprint=self._fingerprint,
                    source=Source(message.topic, message.partition, message.offset),
                    produced_at_ms=message.timestamp_ms,
                )
            )
            key = keys[at].encode() if message.key is None else message.key
            outputs[places[at]] = Output(self._topics.features, key, value, partition)

    def _letter(self, message: Message, error: BadRecord, now_ms: int) -> Output:
        header = dead_letter_header(self._plan.use_case, "features", message, error, now_ms)
        headers = [*message.headers, header]
        return Output(self._topics.features, message.key, message.value, message.partition, headers)

    def _known(self, messages: list[Message], step: Step) -> None:
        payloads = [message.value for message in messages if message.value is not None]
        for record in self._labels_decoder.decode(payloads):
            if isinstance(record, BadRecord):
                # Our own feedback wrote it: no dead letter, but it must show.
                step.bad.append(f"label_{record.reason}")
                continue
            if record.variant == "shadow":
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


def _newest(view: WindowView, keys: list[str], values: NDArray[np.float64], times_ms: NDArray[np.int64]) -> RowWrite:
    last = {key: at for at, key in enumerate(keys)}
    rows = np.fromiter(last.values(), np.int64, len(last))
    return RowWrite(view, list(last), values[rows], times_ms[rows])
