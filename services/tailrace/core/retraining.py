"""When a new model is asked for: triggers, cool-down, latch and budget, on stream time alone.

A concept begins with the stream, and with each change that is detected: it is trained on from its change point,
first with the few labels there are and again each time they have doubled, until they fill the training window, or a
former champion has come back that knows it. One candidate is under way at a time: from its request to the end of its
rollout nothing else is asked for.
"""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from tailrace.core.durations import duration

LEAST_SINCE = 200
"""Labels of a new concept before a model is asked for it: with fewer there is nothing to train on, nor enough to tell
whether a former champion is back in its element, and a model of the old concept would be all that comes of it."""

Trigger = Literal["initial", "schedule", "volume", "drift", "metric_drop", "refit"]


class RetrainSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The policy; spans in milliseconds.

    `on` names the triggers by evidence; `every_labels` is the volume trigger and `budget` the most requests within
    `budget_ms`, None for none.
    """

    on: frozenset[str]
    at_most_every_ms: int
    at_least_every_ms: int | None
    min_labels: int
    window_ms: int = 0
    every_labels: int | None = None
    budget: int | None = None
    budget_ms: int = 0


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What is known at a tick.

    `labels` counts final labels within the training window; `drift` and `metric_drop` hold the reason
    in words, "" where there is none.
    """

    now_ms: int
    has_champion: bool
    labels: int
    drift: str = ""
    metric_drop: str = ""


class RetrainState(msgspec.Struct):
    """Memory of the policy; itself the snapshot.

    Attributes:
        requested_at_ms: Stream time of the newest request.
        pending: The run asked for and not yet ended.
        on_trial: Version of its candidate while it is in rollout, registered at `registered_at_ms`.
        recalled: Whether that is a former champion that may come back.
        labels: Labels that became final since the newest request.
        change_ms: Event time of the change with which the present concept began; None where none is known.
        unmet: Whether no model has been asked for since that change was found.
        since_change: Labels of the concept's events.
        fitted: How many of them there were when it was last asked for a model; 0 while it fills the training window.
        filled_ms: Event time from which on the concept fills the training window.
        asked_ms: Requests within the budget's span; none where there is no budget.
    """

    requested_at_ms: int | None = None
    pending: str = ""
    on_trial: str = ""
    registered_at_ms: int = 0
    recalled: bool = False
    labels: int = 0
    change_ms: int | None = None
    unmet: bool = False
    since_change: int = 0
    fitted: int = 0
    filled_ms: int = 0
    asked_ms: list[int] = []

    def decide(self, spec: RetrainSpec, evidence: Evidence) -> tuple[Trigger, str] | None:
        """Which trigger asks for a model now, and why; None for none. The caller calls `requested`."""
        if self.pending or self.on_trial or evidence.labels < spec.min_labels:
            return None
        since_ms = None if self.requested_at_ms is None else evidence.now_ms - self.requested_at_ms
        if since_ms is not None and since_ms < spec.at_most_every_ms:
            return None
        if spec.budget is not None:
            self.asked_ms = [at_ms for at_ms in self.asked_ms if at_ms > evidence.now_ms - spec.budget_ms]
            if len(self.asked_ms) >= spec.budget:
                return None
        if evidence.now_ms >= self.filled_ms:
            # Every row that would be trained on is of the present concept by now.
            self.change_ms, self.fitted = None, 0
        return self._trigger(spec, evidence, since_ms)

    def _trigger(self, spec: RetrainSpec, evidence: Evidence, since_ms: int | None) -> tuple[Trigger, str] | None:
        if not evidence.has_champion:
            return "initial", f"no champion yet and {evidence.labels} labels"
        if self.change_ms is None or self.since_change >= LEAST_SINCE:
            if evidence.drift and "drift" in spec.on:
                return "drift", evidence.drift
            if evidence.metric_drop and "metric_drop" in spec.on:
                return "metric_drop", evidence.metric_drop
        if "drift" in spec.on and self.fitted and self.since_change >= max(2 * self.fitted, LEAST_SINCE):
            return "refit", f"{self.since_change} labels since the change, {self.fitted} at the last request"
        if spec.every_labels is not None and self.labels >= spec.every_labels:
            return "volume", f"{self.labels} labels since the last request"
        due_ms = spec.at_least_every_ms
        if due_ms is not None and since_ms is not None and since_ms >= due_ms:
            return "schedule", f"{duration(since_ms)} since the last request"
        return None

    def observe(self, event_time_ms: NDArray[np.int64]) -> None:
        """Counts labels of the champion's predictions that have become final; int64 (n,), times of their events."""
        self.labels += len(event_time_ms)
        since = event_time_ms if self.change_ms is None else event_time_ms[event_time_ms >= self.change_ms]
        self.since_change += len(since)

    def changed(self, spec: RetrainSpec, change_ms: int, labels: int) -> None:
        """A new concept began at an event time; so many labels of its events are final already.

        Until a model has been asked for, an alarm that is raised again, by a champion that came into service meanwhile
        or by one whose detector has begun anew, speaks of the same change, which that detector cannot see begin.
        """
        if self.unmet and self.change_ms is not None and self.change_ms <= change_ms:
            return
        self.change_ms, self.unmet, self.since_change, self.fitted = change_ms, True, labels, 0
        self.filled_ms = change_ms + spec.window_ms

    def forget_change(self) -> None:
        """The change that was found was none: its evidence is not trusted."""
        self.change_ms, self.unmet, self.fitted = None, False, 0

    def requested(self, spec: RetrainSpec, evidence: Evidence, run_id: str) -> None:
        """Latches until `ended`."""
        if not evidence.has_champion:
            self.since_change, self.filled_ms = evidence.labels, evidence.now_ms + spec.window_ms
        self.requested_at_ms, self.pending = evidence.now_ms, run_id
        self.labels, self.unmet = 0, False
        recent = [at_ms for at_ms in self.asked_ms if at_ms > evidence.now_ms - spec.budget_ms]
        self.asked_ms = [*recent, evidence.now_ms] if spec.budget is not None else []
        self.fitted = max(self.since_change, 1) if evidence.now_ms < self.filled_ms else 0

    def ended(self, run_id: str, model_version: str = "", at_ms: int = 0, *, recalled: bool = False) -> None:
        """Takes note of a run that was refused, or registered as a version, new or `recalled`, that goes into rollout."""
        if run_id == self.pending:
            self.pending = ""
            self.on_trial, self.registered_at_ms, self.recalled = model_version, at_ms, recalled

    def routed(self, champion: str, shadow: str, decided_at_ms: int) -> None:
        """Takes note of a routing table; a candidate that it no longer tries out is under way no more."""
        if (
            self.on_trial
            and self.on_trial != shadow
            and (self.on_trial == champion or decided_at_ms > self.registered_at_ms)
        ):
            if self.recalled and self.on_trial == champion:
                # It knows the concept from before: no need to refit to a few more of its labels each time.
                self.fitted = 0
            self.on_trial = ""
