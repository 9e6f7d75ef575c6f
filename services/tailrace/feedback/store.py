"""The state of feedback, kept on its changelog topic and taken back from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future
from functools import partial

from tailrace.backends.ports import Output
from tailrace.contracts.retraining import EraseRequested
from tailrace.contracts.topics import Topics
from tailrace.feedback.changelog import (
    Changelog,
    Clock,
    abandoned,
    newest_of,
    read_clock,
    read_erasing,
    write_clock,
    write_erasing,
    write_watermark,
)
from tailrace.feedback.specs import horizon_ms
from tailrace.feedback.state import FeedbackState
from tailrace.feedback.sweeping import Sweep, swept
from tailrace.usecase.declaration import UseCase


class StateStore:
    """Keeps the state of one use case: a changelog for each label, stream time, and the monitor.

    Args:
        use_case: The use case.
        read: Gives the topic from its beginning, as (key, value).
        beside: Reads it beside the worker, where predictions were erased whose records are to be swept; None: at once.
    """

    def __init__(
        self,
        use_case: UseCase,
        read: Callable[[], Iterable[tuple[bytes, bytes | None]]],
        beside: Executor | None = None,
    ) -> None:
        self._use_case = use_case
        self._read = read
        self._beside = beside
        self._sweeping: Future[list[Sweep | None]] | None = None
        self._erasing: list[EraseRequested] = []
        self._topic = Topics(use_case.name).feedback_changelog
        self._changelogs = self._new()
        self._abandoned: list[Output] = []
        self._watermark_ms = -1

    def restore(self) -> FeedbackState:
        """The state as of the last commit.

        Raises:
            StateCorrupt: what is kept cannot be read, or is of another declaration.
        """
        use_case, newest = self._use_case, newest_of(self._read())
        self._changelogs = self._new()
        restored = [changelog.restore(newest) for changelog in self._changelogs]
        state = FeedbackState(use_case, restored, read_clock(self._topic, newest, use_case.label.name))
        self._abandoned = list(abandoned(self._topic, newest, [label.name for label in use_case.auxiliary_labels]))
        self._watermark_ms = state.watermark_ms
        self._erasing = read_erasing(self._topic, newest)
        state.erasing.pending = list(self._erasing)
        self._sweeping = None
        return state

    def write(self, state: FeedbackState) -> list[Output]:
        """What has changed of labels and stream time since the last call; frees what is gone."""
        outputs = [
            output
            for label, changelog in zip(state.labels, self._changelogs, strict=True)
            for output in label.store(changelog)
        ]
        if state.watermark_ms > self._watermark_ms:
            self._watermark_ms = state.watermark_ms
            outputs.append(write_watermark(self._topic, state.watermark_ms))
        if state.erasing.pending != self._erasing:
            self._erasing = list(state.erasing.pending)
            outputs.append(write_erasing(self._topic, self._erasing))
        return outputs

    def sweep(self) -> list[Output]:
        """Takes predictions that were erased, once that is committed, out of the records that told of them."""
        if self._sweeping is None:
            sweeps = [changelog.sweep() for changelog in self._changelogs]
            if not any(sweeps):
                return []
            self._sweeping = self._begin(sweeps)
        if not self._sweeping.done():
            return []
        found, self._sweeping = self._sweeping.result(), None
        return [
            output
            for changelog, sweep in zip(self._changelogs, found, strict=True)
            if sweep is not None
            for output in changelog.swept(sweep)
        ]

    def write_clock(self, state: FeedbackState) -> list[Output]:
        """The monitor's state, which is large and need not be kept with every batch."""
        clock = Clock(state.watermark_ms, state.monitor.snapshot(), self._use_case.label.name)
        outputs = [write_clock(self._topic, clock), *self._abandoned]
        self._abandoned = []
        return outputs

    def expired(self, watermark_ms: int) -> list[Output]:
        """Deletes what speaks only of what is forgotten at this time."""
        return [output for changelog in self._changelogs for output in changelog.expired(watermark_ms)]

    def _begin(self, sweeps: list[Sweep | None]) -> Future[list[Sweep | None]]:
        read = partial(swept, self._topic, self._read, sweeps)
        if self._beside is not None:
            return self._beside.submit(read)
        done: Future[list[Sweep | None]] = Future()
        done.set_result(read())
        return done

    def _new(self) -> list[Changelog]:
        first = self._use_case.label
        return [
            Changelog(self._topic, horizon_ms(label), "" if label is first else label.name)
            for label in self._use_case.labels
        ]
