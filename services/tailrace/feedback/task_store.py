"""The state of one task, kept on its partition of the changelog and taken back from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from tailrace.backends.codec import encode
from tailrace.backends.ports import Output
from tailrace.contracts.topics import Topics
from tailrace.core.monitoring import HOUR_MS
from tailrace.core.vector_sample import VectorSample
from tailrace.feedback.changelog import TASK, Changelog, abandoned, newest_of, unreadable
from tailrace.feedback.observations import Observation, key_of
from tailrace.feedback.specs import horizon_ms
from tailrace.feedback.task import TaskState
from tailrace.usecase.declaration import UseCase

FORMAT = 5
"""Formats up to 4 hold a use case that one worker joins, monitor and windows included, on one partition."""


class TaskClock(msgspec.Struct, frozen=True):
    """Stream time of a task, its sample of inputs, and the names of its labels, the one that judges the model first.

    `serials` are the next serial numbers in the tables of the labels: what is observed goes by them, and none may come
    again once all that is kept of a task was forgotten. `told` observations were made.
    """

    watermark_ms: int
    sample: VectorSample
    labels: list[str]
    serials: list[int]
    told: int = 0
    format: int = FORMAT


class TaskStore:
    """Keeps the state of one task.

    Args:
        use_case: The use case.
        task: Its number, that of its partition.
        read: Gives the partition from its beginning, as (key, value).
    """

    def __init__(self, use_case: UseCase, task: int, read: Callable[[], Iterable[tuple[bytes, bytes | None]]]) -> None:
        self._use_case, self._task, self._read = use_case, task, read
        self._topics = Topics(use_case.name)
        topic, first = self._topics.join_changelog, use_case.label
        self._changelogs = [
            Changelog(topic, horizon_ms(label), "" if label is first else label.name, task) for label in use_case.labels
        ]
        self._stored: bytes | None = None
        self._forgot_ms = -1
        self._abandoned: list[Output] = []

    def restore(self) -> TaskState:
        """The state as of the last commit.

        Raises:
            StateCorrupt: what is kept cannot be read, or is of another declaration.
        """
        newest = newest_of(self._read())
        clock = self._clock(newest.get(TASK))
        restored = [changelog.restore(newest) for changelog in self._changelogs]
        state = TaskState(self._use_case, self._task, restored, clock.watermark_ms)
        known = dict(zip(clock.labels, clock.serials, strict=True))
        for declared, label in zip(self._use_case.labels, state.labels, strict=True):
            label.table.next_serial = max(label.table.next_serial, known.get(declared.name, 0))
        state.sample, state.told, self._forgot_ms = clock.sample, clock.told, clock.watermark_ms
        auxiliary = [label.name for label in self._use_case.auxiliary_labels]
        gone = abandoned(self._topics.join_changelog, newest, auxiliary)
        self._abandoned = [output._replace(partition=self._task) for output in gone]
        return state

    def write(self, state: TaskState) -> list[Output]:
        """What has changed since the last call, and what is to be observed of it; frees what is gone."""
        topics, task = self._topics, self._task
        expired: list[Output] = []
        if state.watermark_ms // HOUR_MS > self._forgot_ms // HOUR_MS:
            # As often as the state forgets: what it still holds has to be found by a restart.
            self._forgot_ms = state.watermark_ms
            expired = [output for changelog in self._changelogs for output in changelog.expired(state.watermark_ms)]
        outputs, observed = state.store(self._changelogs)
        outputs = expired + outputs
        names = [label.name for label in self._use_case.labels]
        serials = [label.table.next_serial for label in state.labels]
        clock = encode(TaskClock(state.watermark_ms, state.sample, names, serials, state.told))
        if clock != self._stored and (outputs or observed):
            self._stored = clock
            outputs.append(Output(topics.join_changelog, TASK, clock, task))
        outputs += [Output(topics.observations, key_of(task, one.number), _pack(one), 0) for one in observed]
        outputs, self._abandoned = [*outputs, *self._abandoned], []
        return outputs

    def _clock(self, kept: bytes | None) -> TaskClock:
        first = self._use_case.label.name
        if kept is None:
            return TaskClock(-1, VectorSample(), [first], [0])
        try:
            clock = msgspec.json.decode(kept, type=TaskClock)
        except msgspec.MsgspecError as error:
            raise unreadable(self._topics.join_changelog, str(error)) from error
        if clock.format != FORMAT:
            raise unreadable(self._topics.join_changelog, f"format {clock.format}, this release writes {FORMAT}")
        if clock.labels[:1] != [first]:
            why = f"it was kept for the label {clock.labels[0]!r}, the use case is judged by {first!r}"
            raise unreadable(self._topics.join_changelog, why)
        return clock


def _pack(observation: Observation) -> bytes:
    return msgspec.msgpack.encode(observation)
