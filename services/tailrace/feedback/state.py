"""Everything feedback keeps: the join, live quality, and the monitor, as one thing to advance and restore."""

from __future__ import annotations

from typing import Any

from tailrace.contracts.records import Alarm
from tailrace.core.durations import milliseconds
from tailrace.core.joins import Change, EventState, JoinSpec, JoinState, Outcome, Scored, Unattributed
from tailrace.core.monitoring import Champion, Monitor, MonitorSpec
from tailrace.core.monitors import PSI
from tailrace.core.quality import DAY_MS, QualityWindows, WindowCounts, WindowKey, pairs
from tailrace.core.retraining import RetrainSpec
from tailrace.feedback.changelog import Restored
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
        self._join = JoinState(join_spec(use_case), self.watermark_ms)
        self.windows = QualityWindows()
        self._settled = QualityWindows()
        self.monitor = Monitor(monitor_spec(use_case), clock.monitor if clock is not None else None)
        self._restarted = restored is not None
        if restored is not None:
            self._restore(restored)

    @property
    def open_events(self) -> int:
        """Events the join keeps."""
        return len(self._join.events)

    def event(self, event_id: str) -> EventState | None:
        """State of an event; None once it is forgotten."""
        return self._join.events.get(event_id)

    def serve(self, champion: Champion) -> list[Alarm]:
        """Takes up a champion; gives the alarms that this resolves."""
        resolved = self.monitor.serve(champion)
        if self._restarted:
            # Labels that no tick had fed to the detectors when the last process ended.
            self._restarted = False
            for state in self._join.events.values():
                for judged in state.judged:
                    if judged.final is not None:
                        self.monitor.judged_again(judged)
        return resolved

    def predict(self, scored: Scored) -> list[Change]:
        """Takes a prediction."""
        before = self._join.events.get(scored.event_id)
        known = len(before.judged) if before is not None else 0
        changes = self._join.predict(scored)
        judged = self._join.events[scored.event_id].judged
        if len(judged) > known:
            self.windows.predicted(scored)
            if known:
                pairs(self.windows, [j.prediction for j in judged], newest=known)
        return self._count(changes)

    def observe(self, event_id: str, outcome: Outcome) -> list[Change]:
        """Takes an outcome."""
        return self._count(self._join.observe(event_id, outcome))

    def advance(self, watermark_ms: int) -> list[Change]:
        """Moves stream time."""
        self.watermark_ms = watermark_ms
        return self._count(self._join.advance(watermark_ms))

    def forget(self, now_ms: int) -> list[tuple[WindowKey, WindowCounts | None]]:
        """Forgets what can no longer change; gives the stored windows that this changes, None for dropped ones."""
        for state in self._join.forget():
            self._settled.add_event(state)
        changed: list[tuple[WindowKey, WindowCounts | None]] = [
            (key, self._settled.counts(key)) for key in sorted(self._settled.changed)
        ]
        self._settled.changed.clear()
        self.windows.drop_before(now_ms - self._kept_ms)
        changed += [(key, None) for key in self._settled.drop_before(now_ms - self._kept_ms)]
        return changed

    def take_touched(self) -> set[str]:
        """Events whose state changed since the last call."""
        touched, self._join.touched = self._join.touched, set()
        return touched

    def take_side(self) -> list[Unattributed]:
        """Outcomes that judge nothing, since the last call."""
        side, self._join.side = self._join.side, []
        return side

    def take_changed_windows(self) -> list[WindowKey]:
        """Windows to publish: those that changed, and the newest of the traffic, so that stream time is seen."""
        changed = set(self.windows.changed)
        whole = [key for key in self.windows if key.slice == "" and key.variant != "shadow"]
        if whole:
            changed.add(max(whole))
        self.windows.changed.clear()
        return sorted(changed)

    def _count(self, changes: list[Change]) -> list[Change]:
        for change in changes:
            if change.previous is not None:
                self.windows.labelled(change.prediction, change.previous, -1)
            if change.status == "final" and change.label is not None:
                self.windows.labelled(change.prediction, change.label)
                if change.previous is None:
                    state = self._join.events[change.prediction.event_id]
                    self.monitor.judged(next(j for j in state.judged if j.prediction is change.prediction))
        return changes

    def _restore(self, restored: Restored) -> None:
        for key, counts in restored.windows.items():
            self._settled.restore(key, counts)
            self.windows.restore(key, counts)
        self._settled.changed.clear()
        for event_id, state in restored.events.items():
            self._join.restore(event_id, state)
            self.windows.add_event(state)
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
        ),
        training_window_ms=milliseconds(policy.window),
    )


def outcome_of(use_case: UseCase, record: Any) -> Outcome:
    """What an outcome record says, by the fields that the label names."""
    label = use_case.label
    time_ms = int(getattr(record, label.topic.event_time))
    return Outcome(
        revision=int(getattr(record, label.revision)) if label.revision else time_ms,
        retract=bool(getattr(record, label.retract)) if label.retract else False,
        value=float(getattr(record, label.value)),
        time_ms=time_ms,
    )


def label_of(use_case: UseCase, record: Any) -> str:
    """The event id that an outcome record judges."""
    return str(getattr(record, use_case.label.on))


def label_name(use_case: UseCase) -> str:
    """Name of the label in records: the field that holds it."""
    return use_case.label.value


def _kept_ms(use_case: UseCase) -> int:
    """How long windows are kept: corrections, the longest metric and the training span all look back at them."""
    spec = join_spec(use_case)
    longest = max((milliseconds(metric.window) for metric in use_case.metrics), default=0)
    horizon = spec.window_ms + spec.lateness_ms + spec.correction_ms
    return horizon + longest + milliseconds(use_case.retrain.window) + 2 * DAY_MS
