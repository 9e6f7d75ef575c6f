"""What all tasks come to together, by what they say of themselves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from tailrace.contracts.quality import Alarm
from tailrace.core.alignment import Alignment, AlignmentState, Said
from tailrace.core.join_watch import MINUTE_MS
from tailrace.core.monitor_state import Champion, MonitorSnapshot
from tailrace.core.monitoring import HOUR_MS, Monitor
from tailrace.core.window_counts import WindowCounts, WindowKey
from tailrace.errors import StateCorrupt
from tailrace.feedback.kept_observations import KeptObservations
from tailrace.feedback.label_counts import LabelCounts
from tailrace.feedback.observations import FORMAT, Header, Observation, Vectors
from tailrace.feedback.overview import Overview, Ticked
from tailrace.feedback.replica import Replica
from tailrace.feedback.specs import counted_of, join_spec, kept_ms
from tailrace.usecase.declaration import UseCase

_HEADERS = msgspec.msgpack.Decoder(Header)
_OBSERVATIONS = msgspec.msgpack.Decoder(Observation)


class Step(NamedTuple):
    """What came of stream time that went on: alarms, and where it came to a new hour, the tick and what it gave.

    `since_ms` is the tick before it; `deleted` are observations that are no longer needed, by task.
    """

    alarms: list[Alarm]
    tick_ms: int = -1
    since_ms: int = -1
    ticked: Ticked | None = None
    deleted: Mapping[int, range] = {}


class TaskMark(msgspec.Struct):
    """How far the observations of a task were taken, by number, -1 for none.

    `taken` is the last one, `ticked` the last that a tick has seen, `served` the last before the champion of now was
    taken up, `first` the first that is kept; `sources` are names by the task's codes, of each label.
    """

    taken: int = -1
    ticked: int = -1
    served: int = -1
    first: int = 0
    sources: list[list[str]] = []


class MergedSnapshot(msgspec.Struct):
    """State but for the windows of what is gone, and the tables, which follow from the observations that are kept.

    `changed` are windows to be published, and `sources` names of sources by code, by label each.
    """

    alignment: AlignmentState = msgspec.field(default_factory=AlignmentState)
    monitor: MonitorSnapshot = msgspec.field(default_factory=MonitorSnapshot)
    tasks: dict[int, TaskMark] = {}
    changed: list[list[WindowKey]] = []
    sources: list[list[str]] = []


class MergedState:
    """Counts and monitor of a use case whose predictions are joined task by task.

    Any interleaving of the same observations gives the same decisions: they are taken minute by minute, task by task,
    once all tasks have come to its end; that is how often joins are judged.

    Args:
        use_case: The use case.
        tasks: Numbers of the tasks.
        snapshot: Where to go on from, with `take_again` and `restore` to follow; None to begin.
    """

    def __init__(self, use_case: UseCase, tasks: Iterable[int], snapshot: MergedSnapshot | None = None) -> None:
        known = snapshot or MergedSnapshot()
        self._names = use_case.plan.order
        self._replicas = tuple(
            Replica(join_spec(label), kept_ms(use_case, label), counted_of(use_case, label))
            for label in use_case.labels
        )
        self._marks = {task: known.tasks.get(task, TaskMark()) for task in sorted(tasks)}
        for at, (replica, names) in enumerate(zip(self._replicas, known.sources, strict=False)):
            replica.restore_sources(names, {task: mark.sources[at] for task, mark in known.tasks.items()})
        self._read = {task: mark.taken for task, mark in self._marks.items()}
        self._kept = {task: KeptObservations(mark.first) for task, mark in self._marks.items()}
        self._changed = known.changed
        self.overview = Overview(use_case, self.counts, known.monitor)
        self._alignment: Alignment[bytes] = Alignment(self._marks, MINUTE_MS, known.alignment)

    @property
    def watermark_ms(self) -> int:
        """Stream time reached, epoch milliseconds; -1 before it begins."""
        return self._alignment.state.reached_ms

    @property
    def left_out(self) -> int:
        """Tasks that are not waited for."""
        return sum(stream.left_out for stream in self._alignment.state.streams.values())

    @property
    def counts(self) -> tuple[LabelCounts, ...]:
        """Counts of each label; the first judges the model."""
        return tuple(replica.counts for replica in self._replicas)

    @property
    def monitor(self) -> Monitor:
        """What decides at ticks."""
        return self.overview.monitor

    def serve(self, champion: Champion) -> list[Alarm]:
        """Takes up a champion; gives the alarms that this resolves."""
        if champion.version != self.monitor.version:
            for mark in self._marks.values():
                mark.served = mark.taken
        return self.overview.serve(champion)

    def take(self, value: bytes, told_ms: int) -> Iterator[Step]:
        """Takes what a task says; gives what comes of it, which is to be taken note of before the next is asked for.

        Args:
            value: An `Observation`.
            told_ms: Wall clock when it was told, epoch milliseconds.

        Raises:
            StateCorrupt: observations before this one are missing.
        """
        header = self._header(value)
        if header.number != self._read[header.task] + 1:
            last = self._read[header.task]
            raise StateCorrupt(
                f"task {header.task} of feedback speaks of batch {header.number} after {last}: what lies between is lost; "
                "delete the topics that hold the state of feedback and rewind its groups to the beginning"
            )
        self._read[header.task] = header.number
        said = Said(header.watermark_ms, told_ms, len(value), header.idle)
        for aligned in self._alignment.put(header.task, value, said):
            for one in aligned.items:
                self._apply(_OBSERVATIONS.decode(one))
            yield self._advance(aligned.reached_ms)

    def take_again(self, value: bytes, told_ms: int) -> None:
        """Takes after a restart what had been taken, or was waiting, when the snapshot was made; the champion serves."""
        header = self._header(value)
        mark = self._marks[header.task]
        if header.number < mark.first:
            return
        if header.number > mark.taken:
            self._read[header.task] = header.number
            self._alignment.wait(header.task, value, Said(header.watermark_ms, told_ms, len(value), header.idle))
            return
        observation = _OBSERVATIONS.decode(value)
        for at, (replica, observed) in enumerate(zip(self._replicas, observation.labels, strict=True)):
            changes = replica.take_again(header.task, observed)
            if at == 0 and header.number > mark.served:
                self.overview.changed_again(changes, ticked=header.number <= mark.ticked)
        self._keep(observation)

    def restore(self, windows: Sequence[Mapping[WindowKey, WindowCounts]]) -> None:
        """Takes back the windows of what is gone, by label, once everything was taken again."""
        for counts, of_label in zip(self.counts, windows, strict=True):
            counts.restore(of_label)
        self.overview.set_aside()
        for counts, changed in zip(self.counts, self._changed, strict=False):
            counts.windows.changed = set(changed)

    def snapshot(self) -> MergedSnapshot:
        """State to store, beside what `LabelCounts.store` gives."""
        for task, mark in self._marks.items():
            mark.first = self._kept[task].first
            mark.sources = [replica.codes(task) for replica in self._replicas]
        return MergedSnapshot(
            self._alignment.state,
            self.monitor.snapshot(),
            self._marks,
            [sorted(counts.windows.changed) for counts in self.counts],
            [counts.source_names for counts in self.counts],
        )

    def _header(self, value: bytes) -> Header:
        header = _HEADERS.decode(value)
        if header.format != FORMAT:
            raise StateCorrupt(f"an observation is of format {header.format}, this release reads {FORMAT}")
        if header.task not in self._marks:
            raise StateCorrupt(f"task {header.task} of feedback is new: the topics have more partitions than before")
        return header

    def _apply(self, observation: Observation) -> None:
        for at, (replica, observed) in enumerate(zip(self._replicas, observation.labels, strict=True)):
            rows, changes = replica.take(observation.task, observed)
            if at == 0:
                self.overview.predicted(rows)
                self.overview.changed(changes)
        for vectors in observation.vectors:
            self._see(vectors)
        self._marks[observation.task].taken = observation.number
        self._keep(observation)

    def _keep(self, observation: Observation) -> None:
        serials = [replica.next_serial(observation.task) for replica in self._replicas]
        self._kept[observation.task].taken(observation.number, serials)

    def _see(self, vectors: Vectors) -> None:
        if self.monitor.wants_vectors and vectors.version == self.monitor.version:
            matrix = np.frombuffer(vectors.matrix, np.float32).reshape(-1, len(self._names))
            self.monitor.vectors(matrix, np.frombuffer(vectors.scores, np.float64))

    def _advance(self, watermark_ms: int) -> Step:
        alarms = self.monitor.advance(watermark_ms)
        tick_ms, since_ms, ticked = watermark_ms // HOUR_MS * HOUR_MS, self.monitor.ticked_ms, None
        if tick_ms > since_ms:
            for replica in self._replicas:
                replica.forget(tick_ms)
            ticked = self.overview.tick(tick_ms, watermark_ms)
            for mark in self._marks.values():
                mark.ticked = mark.taken
        # What left a task's table at the hour was looked at by the tick of the hour.
        for replica in self._replicas:
            replica.free()
        return Step(alarms) if ticked is None else Step(alarms, tick_ms, since_ms, ticked, self._deleted())

    def _deleted(self) -> dict[int, range]:
        return {
            task: kept.delete([replica.lowest(task) for replica in self._replicas]) for task, kept in self._kept.items()
        }
