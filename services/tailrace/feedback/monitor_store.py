"""The state of the monitor of several tasks, kept on the changelog of feedback and taken back from it.

What the tasks have said is kept where they said it: the tables follow from OBSERVATIONS. The changelog holds the rest,
as it was at one offset of them: written at ticks, and whenever the monitor was told something by anybody else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import msgspec

from tailrace.backends.codec import encode
from tailrace.backends.ports import Message, Output
from tailrace.contracts.topics import Topics
from tailrace.core.monitor_state import Champion
from tailrace.feedback.changelog import Changelog, abandoned, newest_of, unreadable
from tailrace.feedback.merged import MergedSnapshot, MergedState
from tailrace.feedback.observations import key_of
from tailrace.feedback.specs import horizon_ms
from tailrace.usecase.declaration import UseCase

FORMAT = 6
"""Formats up to 4 hold a use case that one worker joins, tables included."""
_MONITOR, _CHAMPION = b"monitor", b"monitor-champion"


class Checkpoint(msgspec.Struct):
    """State of the monitor before the observation at `offset`; `labels` are their names, the one that judges first.

    `watermark_ms` is stream time reached, at which a release that knows no tasks would look.
    """

    offset: int
    watermark_ms: int
    labels: list[str]
    merged: MergedSnapshot
    format: int = FORMAT


class MonitorStore:
    """Keeps the state of one monitor.

    Args:
        use_case: The use case.
        tasks: Numbers of the tasks.
        read_changelog: Gives the changelog from its beginning, as (key, value).
        read_observations: Gives what the tasks have said, from the first record that is there.
    """

    def __init__(
        self,
        use_case: UseCase,
        tasks: Iterable[int],
        read_changelog: Callable[[], Iterable[tuple[bytes, bytes | None]]],
        read_observations: Callable[[], Iterable[Message]],
    ) -> None:
        self._use_case, self._tasks = use_case, list(tasks)
        self._read_changelog, self._read_observations = read_changelog, read_observations
        topics = Topics(use_case.name)
        self._topic, self._observations = topics.feedback_changelog, topics.observations
        self._changelogs = self._new()
        self._abandoned: list[Output] = []

    def restore(self, committed: int) -> tuple[MergedState, int]:
        """The state behind the last commit, and the offset of OBSERVATIONS from which to go on.

        Args:
            committed: Offset of OBSERVATIONS behind what was committed; below 1 where the group knows of none, as after
                a rest of weeks, when what the checkpoint says holds.

        Raises:
            StateCorrupt: what is kept cannot be read, or is of another declaration.
        """
        newest = newest_of(self._read_changelog())
        checkpoint = self._checkpoint(newest.get(_MONITOR))
        self._changelogs = self._new()
        auxiliary = [label.name for label in self._use_case.auxiliary_labels]
        self._abandoned = list(abandoned(self._topic, newest, auxiliary))
        windows = [changelog.restore(newest).windows for changelog in self._changelogs]
        state = MergedState(self._use_case, self._tasks, checkpoint.merged if checkpoint is not None else None)
        if _CHAMPION in newest:
            state.serve(msgspec.json.decode(newest[_CHAMPION], type=Champion))
        offset, is_restored = checkpoint.offset if checkpoint is not None else 0, False
        end = max(committed, offset)
        for message in self._read_observations():
            if message.value is None or message.offset >= end:
                continue
            if message.offset < offset:
                state.take_again(message.value, message.timestamp_ms)
                continue
            if not is_restored:
                state.restore(windows)
                is_restored = True
            # What came of it was committed with it.
            for _ in state.take(message.value, message.timestamp_ms):
                pass
        if not is_restored:
            state.restore(windows)
        return state, end

    def write(self, state: MergedState, offset: int) -> list[Output]:
        """What has changed since the last call, as of an offset of OBSERVATIONS up to which all was taken."""
        outputs = [
            output
            for counts, changelog in zip(state.counts, self._changelogs, strict=True)
            for output in counts.store(changelog)
        ]
        names = [label.name for label in self._use_case.labels]
        checkpoint = Checkpoint(offset, state.watermark_ms, names, state.snapshot())
        outputs, self._abandoned = outputs + self._abandoned, []
        return [*outputs, Output(self._topic, _MONITOR, encode(checkpoint), 0)]

    def champion(self, champion: Champion) -> Output:
        """The champion that serves, which what is replayed after a restart has to be judged by."""
        return Output(self._topic, _CHAMPION, encode(champion), 0)

    def deleted(self, numbers: Mapping[int, range]) -> list[Output]:
        """Deletes observations by task that are no longer needed."""
        return [
            Output(self._observations, key_of(task, number), None, 0)
            for task, of_task in numbers.items()
            for number in of_task
        ]

    def _checkpoint(self, kept: bytes | None) -> Checkpoint | None:
        if kept is None:
            return None
        try:
            form = msgspec.json.decode(kept, type=_Form)
            if form.format != FORMAT:
                raise unreadable(self._topic, f"format {form.format}, the monitor of several tasks writes {FORMAT}")
            checkpoint = msgspec.json.decode(kept, type=Checkpoint)
        except msgspec.MsgspecError as error:
            raise unreadable(self._topic, str(error)) from error
        names = [label.name for label in self._use_case.labels]
        if checkpoint.labels != names:
            why = f"it was kept for the labels {checkpoint.labels}, the use case declares {names}"
            raise unreadable(self._topic, why)
        return checkpoint

    def _new(self) -> list[Changelog]:
        first = self._use_case.label
        return [
            Changelog(self._topic, horizon_ms(label), "" if label is first else label.name)
            for label in self._use_case.labels
        ]


class _Form(msgspec.Struct):
    format: int
