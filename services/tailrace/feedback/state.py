"""Everything feedback keeps: the join, live quality, and the monitor, as one thing to advance and restore."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tailrace.backends.ports import Output
from tailrace.contracts.records import Alarm
from tailrace.core.durations import milliseconds
from tailrace.core.join_table import JoinTable, Rows
from tailrace.core.joins import Arrivals, Changes, JoinSpec, JoinState, Outcome, Reports, Unattributed
from tailrace.core.judged import Judged
from tailrace.core.labels import FINAL, NO_TIME, OUTCOME
from tailrace.core.monitoring import Champion, Monitor, MonitorSpec
from tailrace.core.monitors import PSI
from tailrace.core.quality import DAY_MS, QualityWindows, WindowKey, pairs
from tailrace.core.readings import Readings, ReadingSpec
from tailrace.core.retraining import RetrainSpec
from tailrace.feedback.changelog import Changelog, Restored
from tailrace.usecase.declaration import UseCase

ORPHAN_HOLD_MS = DAY_MS
"""How long an outcome waits for its prediction. Predictions lag events by seconds; a day survives an outage."""


class FeedbackState:
    """State of feedback for one use case.

    Windows are kept twice: `windows` counts everything and is what is published; a second set counts
    events that the join has forgotten. Only the second is stored: the rest follows from the events.

    Args:
        use_case: The use case.
        restored: What the changelog holds; None to begin.
    """

    def __init__(self, use_case: UseCase, restored: Restored | None) -> None:
        clock = restored.clock if restored is not None else None
        self.watermark_ms = clock.watermark_ms if clock is not None else -1
        self._kept_ms = _kept_ms(use_case)
        self._reading_spec = reading_spec(use_case)
        self._join = JoinState(join_spec(use_case), self.watermark_ms)
        self.windows = QualityWindows()
        self._settled = QualityWindows()
        self.monitor = Monitor(monitor_spec(use_case), clock.monitor if clock is not None else None)
        self._restarted = restored is not None
        self._dropped: list[WindowKey] = []
        if restored is not None:
            self._restore(restored)

    @property
    def open_events(self) -> int:
        """Events the join keeps."""
        return len(self._join)

    @property
    def table(self) -> JoinTable:
        """Predictions the join keeps."""
        return self._join.table

    def held(self, event_id: str) -> list[Outcome] | None:
        """Outcomes that wait for a prediction of an event; None where there are none."""
        return self._join.held.get(event_id)

    def serve(self, champion: Champion) -> list[Alarm]:
        """Takes up a champion; gives the alarms that this resolves."""
        resolved = self.monitor.serve(champion)
        if self._restarted:
            # Labels that no tick had fed to the detectors when the last process ended.
            self._restarted = False
            table, live = self.table, self.table.live()
            final = self._champions(live[(table.status[live] == FINAL)])
            self.monitor.judged_again(Judged.of(table, final, table.known_at_ms[final], table.label[final]))
        return resolved

    def predict(self, arrivals: Arrivals) -> Changes:
        """Takes predictions."""
        changes = self._join.predict(arrivals)
        table, rows = self.table, self._join.added[-1]
        self.windows.predicted(table, rows)
        self.monitor.predicted(table.event_time_ms[rows[self._has_traffic(rows)]])
        chained = rows[table.head[rows] != rows]
        if chained.size:
            self.windows.paired(table, *pairs(table, chained))
        return self._count(changes)

    def observe(self, reports: Reports) -> Changes:
        """Takes outcomes."""
        return self._count(self._join.observe(reports))

    def advance(self, watermark_ms: int) -> Changes:
        """Moves stream time."""
        self.watermark_ms = watermark_ms
        return self._count(self._join.advance(watermark_ms))

    def forget(self, now_ms: int) -> None:
        """Forgets what can no longer change, and windows that nobody looks back at."""
        self._join.forget()
        self.windows.drop_before(now_ms - self._kept_ms)
        self._dropped += self._settled.drop_before(now_ms - self._kept_ms)

    def store(self, changelog: Changelog) -> list[Output]:
        """What the changelog has to be told since the last call; frees what is gone."""
        join, table = self._join, self.table
        gone = join.take_gone()
        self._settled.add_rows(table, gone)
        self._settled.add_delays(table, gone)
        added, touched = (np.concatenate([np.empty(0, np.int64), *rows]) for rows in (join.added, join.touched))
        outputs = list(changelog.batch(table, added, np.unique(touched), gone))
        table.remove(gone)
        outputs += [changelog.held(event_id, self.held(event_id)) for event_id in sorted(join.held.touched)]
        join.added, join.touched, join.held.touched = [], [], set()
        outputs += [changelog.window(key, self._settled.counts(key)) for key in sorted(self._settled.changed)]
        outputs += [changelog.window(key, None) for key in self._dropped]
        self._settled.changed.clear()
        self._dropped = []
        return outputs

    def readings(self) -> Readings:
        """What can be said now of windows whose labels are still coming."""
        return Readings(self._reading_spec, self.windows, self._settled, self.table, self.watermark_ms)

    def take_side(self) -> list[Unattributed]:
        """Outcomes that judge nothing, since the last call."""
        side, self._join.side = self._join.side, []
        return side

    def take_changed_windows(self, waiting: Iterable[WindowKey] = ()) -> list[WindowKey]:
        """Windows to publish: those that changed, and the newest of the traffic, so that stream time is seen.

        Args:
            waiting: Others to be published as well.
        """
        changed = self.windows.changed | set(waiting)
        whole = [key for key in self.windows if key.slice == "" and key.variant != "shadow"]
        if whole:
            changed.add(max(whole))
        self.windows.changed.clear()
        return sorted(changed)

    def _count(self, changes: Changes) -> Changes:
        if not changes.rows.size:
            return changes
        table = self.table
        replaced = changes.taken(~np.isnan(changes.previous))
        self.windows.labelled(table, replaced.rows, replaced.previous, -1)
        final = changes.taken((changes.status == FINAL) & ~np.isnan(changes.label))
        self.windows.labelled(table, final.rows, final.label)
        came = (changes.reason == OUTCOME) & (changes.outcome_time_ms != NO_TIME) & ~np.isnan(changes.label)
        joined = changes.taken(came & self._has_traffic(changes.rows))
        self.monitor.joined(joined.outcome_time_ms, joined.label > 0.0)
        first = final.taken(np.isnan(final.previous))
        mine = first.taken(self._is_champions(first.rows))
        self.monitor.judged(Judged.of(table, mine.rows, mine.known_at_ms, mine.label))
        return changes

    def _has_traffic(self, rows: Rows) -> NDArray[np.bool_]:
        """Which rows are predictions that apps see: bool (n,)."""
        seen = [cohort.variant != "shadow" for cohort in self.table.cohorts]
        return np.array(seen, dtype=np.bool_)[self.table.cohort[rows]]

    def _champions(self, rows: Rows) -> Rows:
        return rows[self._is_champions(rows)]

    def _is_champions(self, rows: Rows) -> NDArray[np.bool_]:
        """Which rows are predictions of the model that serves as champion now: bool (n,)."""
        version = self.monitor.version
        mine = [c.variant == "champion" and c.model_version == version for c in self.table.cohorts]
        return np.array(mine, dtype=np.bool_)[self.table.cohort[rows]]

    def _restore(self, restored: Restored) -> None:
        for key, counts in restored.windows.items():
            self._settled.restore(key, counts)
            self.windows.restore(key, counts)
        self._settled.changed.clear()
        self._join.table = restored.table
        self._join.restore(restored.heads)
        for event_id, outcomes in restored.held.items():
            self._join.held.restore(event_id, outcomes)
        self.windows.add_rows(restored.table, restored.table.live())
        # What was published already would be published again: harmless, the newest record of a key holds.


def join_spec(use_case: UseCase) -> JoinSpec:
    """The join of a use case in plain numbers."""
    label = use_case.label
    return JoinSpec(
        window_ms=milliseconds(label.matures_after),
        lateness_ms=milliseconds(label.topic.lateness),
        correction_ms=milliseconds(label.corrected_within),
        hold_ms=ORPHAN_HOLD_MS,
        if_absent=label.if_absent,
        closes_at_outcome=label.closes == "outcome",
    )


def reading_spec(use_case: UseCase) -> ReadingSpec:
    """How the labels of a use case come, in plain numbers."""
    spec = join_spec(use_case)
    return ReadingSpec(spec.window_ms, spec.lateness_ms, spec.if_absent is not None, use_case.plan.threshold)


def monitor_spec(use_case: UseCase) -> MonitorSpec:
    """The monitoring of a use case in plain numbers."""
    policy = use_case.retrain
    every = [milliseconds(d.every) for d in use_case.detectors if isinstance(d, PSI)]
    return MonitorSpec(
        use_case=use_case.name,
        names=use_case.plan.order,
        threshold=use_case.plan.threshold,
        metrics=use_case.metrics,
        metric_windows_ms=tuple(milliseconds(metric.window) for metric in use_case.metrics),
        detectors=use_case.detectors,
        psi_every_ms=every[0] if every else 0,
        retrain=RetrainSpec(
            on=frozenset(policy.on),
            at_most_every_ms=milliseconds(policy.at_most_every),
            at_least_every_ms=milliseconds(policy.at_least_every) if policy.at_least_every else None,
            min_labels=policy.min_labels,
            window_ms=milliseconds(policy.window),
            every_labels=policy.every_labels,
            budget=policy.budget.trainings if policy.budget else None,
            budget_ms=milliseconds(policy.budget.per) if policy.budget else 0,
        ),
        training_window_ms=milliseconds(policy.window),
    )


def reports_of(use_case: UseCase, records: Sequence[Any]) -> Reports:  # hot path
    """What outcome records say, by the fields that the label names."""
    label = use_case.label
    time_ms = np.array([getattr(record, label.topic.event_time) for record in records], dtype=np.int64)
    revision, retract = time_ms, np.zeros(len(records), np.bool_)
    if label.revision:
        revision = np.array([int(getattr(record, label.revision)) for record in records], dtype=np.int64)
    if label.retract:
        retract = np.array([bool(getattr(record, label.retract)) for record in records], dtype=np.bool_)
    value = np.array([float(getattr(record, label.value)) for record in records], dtype=np.float64)
    return Reports([str(getattr(record, label.on)) for record in records], revision, retract, value, time_ms)


def horizon_ms(use_case: UseCase) -> int:
    """From a prediction's event to the end of its corrections, milliseconds."""
    spec = join_spec(use_case)
    return spec.window_ms + spec.lateness_ms + spec.correction_ms


def label_name(use_case: UseCase) -> str:
    """Name of the label in records: the field that holds it."""
    return use_case.label.value


def _kept_ms(use_case: UseCase) -> int:
    """How long windows are kept: corrections, the longest metric and the training span all look back at them."""
    longest = max((milliseconds(metric.window) for metric in use_case.metrics), default=0)
    return horizon_ms(use_case) + longest + milliseconds(use_case.retrain.window) + 2 * DAY_MS
