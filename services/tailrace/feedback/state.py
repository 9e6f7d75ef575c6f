"""Everything feedback keeps: labels, live quality, and the monitor, as one thing to advance and restore."""

from __future__ import annotations

from collections.abc import Sequence

from tailrace.contracts.quality import Alarm
from tailrace.contracts.topics import Topics
from tailrace.core.joins import Arrivals, Changes, Reports
from tailrace.core.monitor_state import Champion
from tailrace.core.monitoring import Monitor
from tailrace.core.number_readings import NumberReadings
from tailrace.core.quality import QualityWindows
from tailrace.core.readings import Readings
from tailrace.feedback.changelog import Clock, Restored
from tailrace.feedback.erasing import Erasing
from tailrace.feedback.label_state import LabelState
from tailrace.feedback.overview import Overview, Ticked
from tailrace.feedback.specs import counted_of, join_spec, kept_ms
from tailrace.usecase.declaration import UseCase


class FeedbackState:
    """State of feedback for one use case, where one worker joins all.

    Args:
        use_case: The use case.
        restored: What the changelog holds of each label, in their order; empty to begin.
        clock: Stream time and the monitor's state; None to begin.

    Attributes:
        labels: What is kept of each label; the first judges the model.
        overview: Windows and monitor, over the tables of the joins.
        erasing: What is to be erased.
    """

    def __init__(self, use_case: UseCase, restored: Sequence[Restored] = (), clock: Clock | None = None) -> None:
        self.watermark_ms = clock.watermark_ms if clock is not None else -1
        found: Sequence[Restored | None] = restored or [None] * len(use_case.labels)
        self.labels = tuple(
            LabelState(
                join_spec(label), kept_ms(use_case, label), of_label, self.watermark_ms, counted_of(use_case, label)
            )
            for label, of_label in zip(use_case.labels, found, strict=True)
        )
        snapshot = clock.monitor if clock is not None else None
        counts = [label.counts for label in self.labels]
        self.erasing = Erasing(Topics(use_case.name))
        self.overview = Overview(use_case, counts, snapshot, restarted=bool(restored))
        self._changes: list[list[Changes]] = [[] for _ in self.labels]

    @property
    def open_events(self) -> int:
        """Events the joins keep."""
        return sum(label.open_events for label in self.labels)

    @property
    def windows(self) -> QualityWindows:
        """Live quality by the label that judges the model."""
        return self.overview.windows

    @property
    def monitor(self) -> Monitor:
        """What decides at ticks."""
        return self.overview.monitor

    def serve(self, champion: Champion) -> list[Alarm]:
        """Takes up a champion; gives the alarms that this resolves."""
        return self.overview.serve(champion)

    def predict(self, arrivals: Arrivals) -> None:
        """Takes predictions."""
        for at, label in enumerate(self.labels):
            self._take(at, label.predict(arrivals))
        self.overview.predicted(self.labels[0].added)

    def observe(self, at: int, reports: Reports) -> None:
        """Takes outcomes of one label."""
        self._take(at, self.labels[at].observe(reports))

    def advance(self, watermark_ms: int) -> None:
        """Moves stream time."""
        self.watermark_ms = watermark_ms
        for at, label in enumerate(self.labels):
            self._take(at, label.advance(watermark_ms))

    def take_changes(self) -> list[Changes]:
        """What has changed of each label since the last call."""
        changes = [Changes.joined(parts) if parts else Changes.none() for parts in self._changes]
        self._changes = [[] for _ in self.labels]
        return changes

    def forget(self, now_ms: int) -> None:
        """Forgets what can no longer change, and windows that nobody looks back at."""
        for label in self.labels:
            label.forget(now_ms)

    def readings(self) -> Readings | NumberReadings:
        """What can be said now of windows whose labels, of those that judge the model, are still coming."""
        return self.overview.readings(self.watermark_ms)

    def tick(self, tick_ms: int) -> Ticked:
        """Decides at a tick that stream time has come to."""
        return self.overview.tick(tick_ms, self.watermark_ms)

    def _take(self, at: int, changes: Changes) -> None:
        if not changes.rows.size:
            return
        self._changes[at].append(changes)
        if at == 0:
            self.overview.changed(changes)
