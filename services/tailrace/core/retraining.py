"""When a new model is asked for: triggers, cool-down and latch, on stream time alone."""

from __future__ import annotations

from typing import Literal

import msgspec

from tailrace.core.durations import duration

Trigger = Literal["initial", "schedule", "drift", "metric_drop"]


class RetrainSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The policy; spans in milliseconds. `on` names the triggers besides initial and schedule."""

    on: frozenset[str]
    at_most_every_ms: int
    at_least_every_ms: int | None
    min_labels: int


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
    """Memory of the policy; itself the snapshot. `pending` is the run asked for and not yet ended."""

    requested_at_ms: int | None = None
    pending: str = ""

    def decide(self, spec: RetrainSpec, evidence: Evidence) -> tuple[Trigger, str] | None:
        """Which trigger asks for a model now, and why; None for none. The caller calls `requested`."""
        if self.pending or evidence.labels < spec.min_labels:
            return None
        since_ms = None if self.requested_at_ms is None else evidence.now_ms - self.requested_at_ms
        if since_ms is not None and since_ms < spec.at_most_every_ms:
            return None
        if not evidence.has_champion:
            return "initial", f"no champion yet and {evidence.labels} labels"
        if evidence.drift and "drift" in spec.on:
            return "drift", evidence.drift
        if evidence.metric_drop and "metric_drop" in spec.on:
            return "metric_drop", evidence.metric_drop
        due_ms = spec.at_least_every_ms
        if due_ms is not None and since_ms is not None and since_ms >= due_ms:
            return "schedule", f"{duration(since_ms)} since the last request"
        return None

    def requested(self, run_id: str, now_ms: int) -> None:
        """Latches until `ended`."""
        self.requested_at_ms, self.pending = now_ms, run_id

    def ended(self, run_id: str) -> None:
        """Takes note of a run that was registered or refused."""
        if run_id == self.pending:
            self.pending = ""
