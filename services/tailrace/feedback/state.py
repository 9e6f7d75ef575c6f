"""Everything feedback keeps: labels, live quality, and the monitor, as one thing to advance and restore."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tailrace.contracts.records import Alarm
from tailrace.core.durations import milliseconds
from tailrace.core.join_table import Rows
from tailrace.core.joins import Arrivals, Changes, JoinSpec, Reports
from tailrace.core.judged import Judged
from tailrace.core.labels import FINAL, NO_TIME, OUTCOME
from tailrace.core.monitor_state import Champion, MonitorSpec, Suspicion
from tailrace.core.monitoring import Monitor
from tailrace.core.monitors import PSI, TopPrecision
from tailrace.core.number_readings import NumberReadings
from tailrace.core.quality import DAY_MS, QualityWindows, WindowKey
from tailrace.core.readings import Readings, ReadingSpec
from tailrace.core.retraining import RetrainSpec
from tailrace.core.source_blocks import recent, ripe
from tailrace.core.trust import tier_of
from tailrace.core.window_spec import PLAIN, WindowSpec, grid_of
from tailrace.feedback.changelog import Clock, Restored
from tailrace.feedback.label_state import LabelState, final_of
from tailrace.usecase.declaration import UseCase
from tailrace.usecase.sources import Label

ORPHAN_HOLD_MS = DAY_MS
"""How long an outcome waits for its prediction. Predictions lag events by seconds; a day survives an outage."""


class Fading(NamedTuple):
    """Metrics of a window and of the days before it, which fade; and of the champions' newest labels."""

    key: WindowKey
    metrics: dict[str, float | None]


class FeedbackState:
    """State of feedback for one use case.

    Args:
        use_case: The use case.
        restored: What the changelog holds of each label, in their order; empty to begin.
        clock: Stream time and the monitor's state; None to begin.

    Attributes:
        labels: What is kept of each label; the first judges the model.
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
        self._first = self.labels[0]
        self._grid = grid_of(use_case.plan)
        self._reading_spec = reading_spec(use_case)
        self.monitor = Monitor(monitor_spec(use_case), clock.monitor if clock is not None else None)
        self._restarted = bool(restored)
        self._first.set_aside(self.monitor.sources.quarantined)
        self._changes: list[list[Changes]] = [[] for _ in self.labels]

    @property
    def open_events(self) -> int:
        """Events the joins keep."""
        return sum(label.open_events for label in self.labels)

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
            self.monitor.judged_again(self._judged(final, table.known_at_ms[final], table.label[final]))
        return resolved

    def predict(self, arrivals: Arrivals) -> None:
        """Takes predictions."""
        for at, label in enumerate(self.labels):
            self._take(at, label.predict(arrivals))
        added = self._first.added
        self.monitor.predicted(self._first.table.event_time_ms[added[self._has_traffic(added)]])

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

    def fading(self, threshold: float) -> Fading | None:
        """The champion's newest window with the days before it fading; None before its first."""
        key = self.windows.newest("champion")
        if key is None:
            return None
        return Fading(key, self.windows.faded(key, threshold) | self.monitor.prequential.metrics())

    def forget(self, now_ms: int) -> None:
        """Forgets what can no longer change, and windows that nobody looks back at."""
        for label in self.labels:
            label.forget(now_ms)

    def readings(self) -> Readings | NumberReadings:
        """What can be said now of windows whose labels, of those that judge the model, are still coming."""
        return self._first.readings(self._reading_spec, self.watermark_ms)

    def judge_sources(self) -> list[Suspicion]:
        """Judges the sources of labels up to now; gives what is held against them."""
        book, watch = self._first.sources, self.monitor.sources
        if book is None:
            return []
        wait_ms = self._reading_spec.window_ms + self._reading_spec.lateness_ms
        for block in ripe(self._first.table, watch.data.judged_ms, self.watermark_ms, wait_ms):
            watch.judge(block, book)
        self._first.set_aside(watch.quarantined)
        return [Suspicion.of_source(finding) for finding in watch.standing]

    def accuse(self, since_ms: Sequence[int]) -> list[Suspicion]:
        """Which sources explain a rise of the loss since one of some event times; their labels are set aside."""
        book, watch = self._first.sources, self.monitor.sources
        if book is None:
            return []
        blocks = [recent(self._first.table, time_ms, self.watermark_ms) for time_ms in since_ms]
        found = [finding for block in blocks for finding in watch.accuse(block, book, len(blocks))]
        self._first.set_aside(watch.quarantined)
        return [Suspicion.of_source(finding) for finding in found]

    def _take(self, at: int, changes: Changes) -> None:
        if not changes.rows.size:
            return
        self._changes[at].append(changes)
        if at == 0:
            came = (changes.reason == OUTCOME) & (changes.outcome_time_ms != NO_TIME) & ~np.isnan(changes.label)
            joined = changes.taken(came & self._has_traffic(changes.rows))
            # A share of positive numbers says nothing of the joins.
            self.monitor.joined(joined.outcome_time_ms, (joined.label > 0.0) | (self._grid is not None))
            final = final_of(changes)
            first = final.taken(np.isnan(final.previous))
            mine = first.taken(self._is_champions(first.rows))
            self.monitor.judged(self._judged(mine.rows, mine.known_at_ms, mine.label))

    def _judged(self, rows: Rows, known_at_ms: NDArray[np.int64], labels: NDArray[np.float64]) -> Judged:
        """Labels for the loss detectors; where numbers are predicted, with their losses in place of the scores."""
        judged = Judged.of(self._first.table, rows, known_at_ms, labels)
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


def counted_of(use_case: UseCase, label: Label) -> WindowSpec:
    """What the windows of a label hold; those of auxiliary labels hold scores alone."""
    if label is not use_case.label:
        return PLAIN
    top = next((metric for metric in use_case.metrics if isinstance(metric, TopPrecision)), None)
    return WindowSpec(
        grid=grid_of(use_case.plan),
        weighted=bool(use_case.plan.amount),
        top=top.k if top is not None else 0,
        distinct=top is not None and top.distinct,
    )


def join_spec(label: Label) -> JoinSpec:
    """The join of a label in plain numbers."""
    return JoinSpec(
        window_ms=milliseconds(label.matures_after),
        lateness_ms=milliseconds(label.topic.lateness),
        correction_ms=milliseconds(label.corrected_within),
        hold_ms=ORPHAN_HOLD_MS,
        if_absent=label.if_absent,
        closes_at_outcome=label.closes == "outcome",
        reduce=label.reduce,
        entity=label.entity,
        attribution=label.attribution,
        trust=(label.trust or {}) if label.source is not None else None,
    )


def reading_spec(use_case: UseCase) -> ReadingSpec:
    """How the labels of a use case come, in plain numbers."""
    spec = join_spec(use_case.label)
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
        decides=use_case.plan.task == "binary",
    )


def reports_of(label: Label, records: Sequence[Any]) -> Reports:  # hot path
    """What outcome records say of a label, by the fields that it names; records that say nothing are left out."""
    values = [getattr(record, label.value) for record in records]
    retract, left = (_flags(field, records) for field in (label.retract, label.left))
    if None in values:
        says = [value is not None or retract[at] or left[at] for at, value in enumerate(values)]
        if not all(says):
            return reports_of(label, [record for record, said in zip(records, says, strict=True) if said])
        values = [0.0 if value is None else value for value in values]
    time_ms = np.array([getattr(record, label.topic.event_time) for record in records], dtype=np.int64)
    revision = time_ms
    if label.revision:
        revision = np.array([int(getattr(record, label.revision)) for record in records], dtype=np.int64)
    names = [str(getattr(record, label.on)) for record in records]
    reports = Reports(names, revision, retract, np.array(values, dtype=np.float64), time_ms)
    if label.source is not None:
        sources = [str(getattr(record, label.source)) for record in records]
        trust = label.trust or {}
        tiers = {source: tier_of(trust, source) for source in set(sources)}
        reports = reports._replace(
            sources=sources, tiers=np.array([tiers[source] for source in sources], dtype=np.int8)
        )
    if label.reduce is None:
        return reports
    ids = _outcome_ids(label, records, time_ms)
    # That nothing more can be seen of an event is no revision of what was seen.
    ids = [f"left {name}" if gone else name for name, gone in zip(ids, left.tolist(), strict=True)]
    return reports._replace(outcome_ids=ids, left=left)


def _flags(field: str | None, records: Sequence[Any]) -> NDArray[np.bool_]:
    if field is None:
        return np.zeros(len(records), np.bool_)
    return np.array([bool(getattr(record, field)) for record in records], dtype=np.bool_)


def _outcome_ids(label: Label, records: Sequence[Any], time_ms: NDArray[np.int64]) -> list[str]:
    if label.outcome_id is not None:
        return [str(getattr(record, label.outcome_id)) for record in records]
    # What befalls an entity at two times are two outcomes.
    return list(map(str, time_ms.tolist())) if label.entity is not None else [""] * len(records)


def horizon_ms(label: Label) -> int:
    """From a prediction's event to the end of its corrections, milliseconds."""
    spec = join_spec(label)
    return spec.window_ms + spec.lateness_ms + spec.correction_ms


def kept_ms(use_case: UseCase, label: Label) -> int:
    """How long windows are kept: corrections, the longest metric and the training span all look back at them."""
    longest = max((milliseconds(metric.window) for metric in use_case.metrics), default=0)
    return horizon_ms(label) + longest + milliseconds(use_case.retrain.window) + 2 * DAY_MS
