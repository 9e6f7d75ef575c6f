"""What is said of all labels together: live quality, readings, sources, and what the monitor decides at ticks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tailrace.contracts.quality import Alarm, Drift
from tailrace.contracts.retraining import RetrainHeld, RetrainRequested
from tailrace.core.join_table import Rows
from tailrace.core.joins import Changes
from tailrace.core.judged import Judged
from tailrace.core.labels import FINAL, NO_TIME, OUTCOME
from tailrace.core.monitor_state import Champion, MonitorSnapshot, Suspicion
from tailrace.core.monitoring import Monitor
from tailrace.core.number_readings import NumberReadings
from tailrace.core.quality import QualityWindows
from tailrace.core.readings import Readings
from tailrace.core.source_blocks import recent, ripe
from tailrace.core.window_counts import WindowKey
from tailrace.core.window_spec import grid_of
from tailrace.feedback.label_counts import LabelCounts, final_of
from tailrace.feedback.specs import monitor_spec, reading_spec
from tailrace.usecase.declaration import UseCase


class Fading(NamedTuple):
    """Metrics of a window and of the days before it, which fade; and of the champions' newest labels."""

    key: WindowKey
    metrics: dict[str, float | None]


class Ticked(NamedTuple):
    """What a tick gave."""

    decided: list[Alarm | Drift | RetrainRequested | RetrainHeld]
    readings: Readings | NumberReadings


class Overview:
    """Counts and monitor of one use case, over tables that somebody else keeps.

    Args:
        use_case: The use case.
        counts: Counts of each label, in their order; the first judges the model.
        snapshot: Where the monitor goes on from; None to begin.
        restarted: Whether the table holds labels from before a restart.
    """

    def __init__(
        self,
        use_case: UseCase,
        counts: Sequence[LabelCounts],
        snapshot: MonitorSnapshot | None = None,
        *,
        restarted: bool = False,
    ) -> None:
        self.counts = tuple(counts)
        self.monitor = Monitor(monitor_spec(use_case), snapshot)
        self._first = self.counts[0]
        self._grid = grid_of(use_case.plan)
        self._reading_spec = reading_spec(use_case)
        self._restarted = restarted
        self.set_aside()

    @property
    def windows(self) -> QualityWindows:
        """Live quality by the label that judges the model."""
        return self._first.windows

    def serve(self, champion: Champion) -> list[Alarm]:
        """Takes up a champion; gives the alarms that this resolves."""
        resolved = self.monitor.serve(champion)
        if self._restarted:
            # Labels that no tick had fed to the detectors when the last process ended.
            self._restarted = False
            table = self._first.table
            live = table.live()
            final = live[(table.status[live] == FINAL)]
            final = final[self._is_champions(final)]
            told_by = table.told_by[final]
            self.monitor.judged_again(self._judged(final, table.known_at_ms[final], table.label[final], told_by))
        return resolved

    def predicted(self, rows: Rows) -> None:
        """Takes predictions that have come into the table of the first label: int64 (n,)."""
        self.monitor.predicted(self._first.table.event_time_ms[rows[self._has_traffic(rows)]])

    def changed(self, changes: Changes) -> None:
        """Takes changes of the first label."""
        if not changes.rows.size:
            return
        came = (changes.reason == OUTCOME) & (changes.outcome_time_ms != NO_TIME) & ~np.isnan(changes.label)
        joined = changes.taken(came & self._has_traffic(changes.rows))
        # A share of positive numbers says nothing of the joins.
        self.monitor.joined(joined.outcome_time_ms, (joined.label > 0.0) | (self._grid is not None))
        self.monitor.judged(self._judged_by(changes))

    def changed_again(self, changes: Changes, *, ticked: bool) -> None:
        """Takes after a restart changes of the first label since the champion serves; `ticked`: a tick has seen them."""
        if changes.rows.size:
            (self.monitor.judged_again if ticked else self.monitor.judged)(self._judged_by(changes))

    def set_aside(self) -> None:
        """Takes labels out of the windows that are not trusted, or whose like may have been lost; after a restart too."""
        self._first.set_aside(self.monitor.sources.quarantined, self.monitor.lost.spans)

    def readings(self, watermark_ms: int) -> Readings | NumberReadings:
        """What can be said at a stream time of windows whose labels, of those that judge the model, are still coming."""
        return self._first.readings(self._reading_spec, watermark_ms)

    def tick(self, tick_ms: int, watermark_ms: int) -> Ticked:
        """Decides.

        Args:
            tick_ms: The tick, epoch milliseconds.
            watermark_ms: Stream time, which has come to the tick.
        """
        readings = self.readings(watermark_ms)
        suspicions = [Suspicion.of_delay(readings.drift)] if readings.drift is not None else []
        suspicions += self._judge_sources(watermark_ms)
        if self.monitor.lost.tell(tick_ms, readings.curves.values()):
            self.set_aside()

        def accuse(since_ms: Sequence[int]) -> list[Suspicion]:
            return self._accuse(since_ms, watermark_ms)

        names = self._first.source_names
        return Ticked(self.monitor.tick(tick_ms, self.windows, suspicions, names, accuse), readings)

    def fading(self, threshold: float) -> Fading | None:
        """The champion's newest window with the days before it fading; None before its first."""
        key = self.windows.newest("champion")
        if key is None:
            return None
        return Fading(key, self.windows.faded(key, threshold) | self.monitor.prequential.metrics())

    def _judge_sources(self, watermark_ms: int) -> list[Suspicion]:
        """Judges the sources of labels up to now; gives what is held against them."""
        book, watch = self._first.sources, self.monitor.sources
        if book is None:
            return []
        wait_ms = self._reading_spec.window_ms + self._reading_spec.lateness_ms
        for block in ripe(self._first.table, watch.data.judged_ms, watermark_ms, wait_ms):
            watch.judge(block, book)
        self.set_aside()
        return [Suspicion.of_source(finding) for finding in watch.standing]

    def _accuse(self, since_ms: Sequence[int], watermark_ms: int) -> list[Suspicion]:
        """Which sources explain a rise of the loss since one of some event times; their labels are set aside."""
        book, watch = self._first.sources, self.monitor.sources
        if book is None:
            return []
        blocks = [recent(self._first.table, time_ms, watermark_ms) for time_ms in since_ms]
        found = [finding for block in blocks for finding in watch.accuse(block, book, len(blocks))]
        self.set_aside()
        return [Suspicion.of_source(finding) for finding in found]

    def _judged_by(self, changes: Changes) -> Judged:
        """The champion's labels that have become final for the first time."""
        final = final_of(changes)
        first = final.taken(np.isnan(final.previous))
        mine = first.taken(self._is_champions(first.rows))
        return self._judged(mine.rows, mine.known_at_ms, mine.label, mine.source)

    def _judged(
        self, rows: Rows, known_at_ms: NDArray[np.int64], labels: NDArray[np.float64], source: NDArray[np.uint8]
    ) -> Judged:
        """Labels for the loss detectors; where numbers are predicted, with their losses in place of the scores."""
        judged = Judged.of(self._first.table, rows, known_at_ms, labels)._replace(source=source)
        if self._grid is None:
            return judged
        return judged._replace(scores=self._grid.absolute_losses(judged.scores, labels))

    def _has_traffic(self, rows: Rows) -> NDArray[np.bool_]:
        """Which rows are predictions that apps see: bool (n,)."""
        table = self._first.table
        seen = [cohort.variant != "shadow" for cohort in table.cohorts]
        return np.array(seen, dtype=np.bool_)[table.cohort[rows]]

    def _is_champions(self, rows: Rows) -> NDArray[np.bool_]:
        """Which rows are predictions of the model that serves as champion now: bool (n,)."""
        version, table = self.monitor.version, self._first.table
        mine = [c.variant == "champion" and c.model_version == version for c in table.cohorts]
        return np.array(mine, dtype=np.bool_)[table.cohort[rows]]
