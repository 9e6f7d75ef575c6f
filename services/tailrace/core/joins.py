"""Joins outcomes to predictions on event time, so that arrival order cannot change the final table.

One winning outcome per event: the eligible one of highest revision, ties broken by content. A label
moves pending -> provisional -> final, and may be corrected until the horizon ends. Held per event,
not per prediction: champion and shadow share the outcome.
"""

from __future__ import annotations

import heapq
from collections import Counter

import msgspec

from tailrace.contracts.records import LabelReason, LabelStatus


class JoinSpec(msgspec.Struct, frozen=True, kw_only=True):
    """How outcomes of one label are attributed; all spans in milliseconds.

    `closes_at_outcome` makes the first outcome final at once; `if_absent` False makes a prediction
    without outcome negative, None censors it; `max_events` is the hard cap of the state.
    """

    window_ms: int
    lateness_ms: int
    correction_ms: int
    hold_ms: int
    skew_ms: int = 5_000
    if_absent: bool | None = False
    closes_at_outcome: bool = False
    max_events: int = 2_000_000


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """What was reported of an event. Field order is the order in which conflicts are decided."""

    revision: int
    retract: bool
    value: float
    time_ms: int


class Scored(msgspec.Struct, frozen=True, gc=False):
    """The part of a `Prediction` that its label and the metrics need; decoded from the same bytes."""

    prediction_id: str
    event_id: str
    key: str
    entities: dict[str, str]
    slices: dict[str, str]
    event_time_ms: int
    variant: str
    model_version: str
    score: float
    decision: bool
    activated: bool = True
    blocked: bool = False


class Change(msgspec.Struct, frozen=True, gc=False):
    """A label that changed; `prediction` says whose, `previous` is the final label it replaces, if any."""

    prediction: Scored
    version: int
    label: float | None
    status: LabelStatus
    reason: LabelReason
    known_at_ms: int
    outcome_time_ms: int | None
    previous: float | None = None


class Unattributed(msgspec.Struct, frozen=True, gc=False):
    """An outcome that judges nothing; `reason` is orphan, too_late, out_of_window or evicted_unresolved."""

    event_id: str
    outcome: Outcome | None
    reason: str


class Judged(msgspec.Struct):
    """A prediction with the label last emitted for it."""

    prediction: Scored
    version: int = 0
    label: float | None = None
    status: LabelStatus = "pending"
    known_at_ms: int = -1

    @property
    def final(self) -> float | None:
        """The label that metrics count; None while there is none."""
        return self.label if self.status == "final" else None


class EventState(msgspec.Struct):
    """Everything kept of one event. `outcomes` holds early ones until a prediction comes, then the winner."""

    judged: list[Judged] = []
    outcomes: list[Outcome] = []
    closed: bool = False


class JoinState:
    """Streaming join. Not thread-safe. O(log n) per record, O(due) per watermark.

    Attributes:
        counts: Duplicates, conflicts, stale revisions and unattributed outcomes by name.
        touched: Event ids whose state changed since the caller last cleared it, for the changelog.
        side: Outcomes that judge nothing, since the caller last cleared it.
    """

    def __init__(self, spec: JoinSpec, watermark_ms: int = -1) -> None:
        self.spec = spec
        self.watermark_ms = watermark_ms
        self.events: dict[str, EventState] = {}
        self.counts: Counter[str] = Counter()
        self.touched: set[str] = set()
        self.side: list[Unattributed] = []
        self._early: set[str] = set()
        self._due: list[tuple[int, str]] = []
        self._expiring: list[tuple[int, str]] = []
        self._evicted: list[EventState] = []

    def restore(self, event_id: str, state: EventState) -> None:
        """Takes back an event from the changelog."""
        self.events[event_id] = state
        self._schedule(event_id, state)
        if state.outcomes and any(judged.version == 0 for judged in state.judged):
            self._early.add(event_id)

    def predict(self, prediction: Scored) -> list[Change]:
        """Takes a prediction; gives the changes it causes.

        An outcome that was there before it judges it at the next `advance`: what is known of a stream then
        follows from its watermarks, and not from which of two topics was read faster.
        """
        state = self._event(prediction.event_id)
        for judged in state.judged:
            if judged.prediction.prediction_id == prediction.prediction_id:
                self._again(judged, prediction)
                return []
        judged = Judged(prediction)
        state.judged.append(judged)
        self.touched.add(prediction.event_id)
        if len(state.judged) == 1:
            state.outcomes = self._eligible(prediction, state.outcomes)
            self._schedule(prediction.event_id, state)
        if state.outcomes:
            self._early.add(prediction.event_id)
            return []
        # A prediction behind the watermark is closed by the next `advance`, as if it had been in time.
        return self._settle(state, judged, closed=state.closed)

    def observe(self, event_id: str, outcome: Outcome) -> list[Change]:
        """Takes an outcome; gives the changes it causes. One without prediction is held."""
        state = self.events.get(event_id)
        if state is None or not state.judged:
            self._hold(event_id, outcome)
            return []
        if state.closed and self._next_ms(state) <= self.watermark_ms:
            self._aside(event_id, [outcome], "too_late")
            return []
        if not self._eligible(state.judged[0].prediction, [outcome], event_id):
            return []
        held = state.outcomes[0] if state.outcomes else None
        if held is not None and not self._wins(outcome, held):
            return []
        state.outcomes = [outcome]
        self.touched.add(event_id)
        return [c for judged in state.judged for c in self._settle(state, judged, closed=state.closed)]

    def advance(self, watermark_ms: int) -> list[Change]:
        """Moves stream time: judges by outcomes that came first, closes windows and drops orphans."""
        self.watermark_ms = max(self.watermark_ms, watermark_ms)
        changes: list[Change] = []
        for event_id in sorted(self._early):
            if (state := self.events.get(event_id)) is not None:
                self.touched.add(event_id)
                changes += [c for judged in state.judged for c in self._settle(state, judged, closed=state.closed)]
        self._early.clear()
        while self._due and self._due[0][0] <= self.watermark_ms:
            due_ms, event_id = heapq.heappop(self._due)
            state = self.events.get(event_id)
            if state is None or state.closed or self._next_ms(state) != due_ms:
                continue
            self.touched.add(event_id)
            if state.judged:
                state.closed = True
                for judged in sorted(state.judged, key=lambda j: j.prediction.prediction_id):
                    changes += self._settle(state, judged, closed=True)
                self._schedule(event_id, state)
            else:
                del self.events[event_id]
                self._aside(event_id, state.outcomes, "orphan")
        return changes

    def forget(self) -> list[EventState]:
        """Forgets events that can no longer be corrected, and hands them over."""
        forgotten, self._evicted = self._evicted, []
        while self._expiring and self._expiring[0][0] <= self.watermark_ms:
            _, event_id = heapq.heappop(self._expiring)
            state = self.events.pop(event_id, None)
            if state is not None:
                self.touched.add(event_id)
                forgotten.append(state)
        return forgotten

    def _event(self, event_id: str) -> EventState:
        state = self.events.get(event_id)
        if state is None:
            if len(self.events) >= self.spec.max_events:
                self._evict()
            state = self.events[event_id] = EventState()
        return state

    def _evict(self) -> None:
        # What can only be corrected goes before what still waits for its outcome.
        while self._expiring:
            _, event_id = heapq.heappop(self._expiring)
            if (state := self.events.pop(event_id, None)) is not None:
                self.touched.add(event_id)
                self._evicted.append(state)
                self.counts["evicted_closed"] += 1
                return
        while self._due:
            due_ms, event_id = heapq.heappop(self._due)
            state = self.events.get(event_id)
            if state is not None and self._next_ms(state) == due_ms:
                del self.events[event_id]
                self.touched.add(event_id)
                self._evicted.append(state)
                self._aside(event_id, [None], "evicted_unresolved")
                return

    def _hold(self, event_id: str, outcome: Outcome) -> None:
        if outcome.time_ms + self.spec.hold_ms <= self.watermark_ms:
            # The earliest event it can belong to ended its horizon by then: it came too late for one.
            horizon_ms = outcome.time_ms + self.spec.lateness_ms + self.spec.correction_ms
            self._aside(
                event_id,
                [outcome],
                "too_late" if horizon_ms <= self.watermark_ms else "orphan",
            )
            return
        state = self._event(event_id)
        if outcome in state.outcomes:
            self.counts["duplicate"] += 1
            return
        state.outcomes = [*state.outcomes, outcome]
        self.touched.add(event_id)
        self._schedule(event_id, state)

    def _eligible(self, of: Scored, outcomes: list[Outcome], event_id: str = "") -> list[Outcome]:
        first_ms, end_ms = of.event_time_ms - self.spec.skew_ms, of.event_time_ms + self.spec.window_ms
        # Taking an outcome back is no outcome: it may come as late as a correction may.
        last_ms = end_ms + self.spec.correction_ms
        inside = [o for o in outcomes if first_ms <= o.time_ms < (last_ms if o.retract else end_ms)]
        self._aside(
            event_id or of.event_id,
            [o for o in outcomes if o not in inside],
            "out_of_window",
        )
        return [max(inside, key=_rank)] if inside else []

    def _wins(self, new: Outcome, held: Outcome) -> bool:
        if new == held:
            self.counts["duplicate"] += 1
        elif new.revision < held.revision:
            self.counts["stale_revision"] += 1
        elif new.revision == held.revision:
            self.counts["conflict"] += 1
        return _rank(new) > _rank(held)

    def _again(self, judged: Judged, prediction: Scored) -> None:
        # Predictions come exactly once per event record; two of one id mean that a producer used an
        # event id twice. The first keeps its label, or windows already counted would have to move.
        self.counts["duplicate" if judged.prediction == prediction else "conflict"] += 1

    def _settle(self, state: EventState, judged: Judged, *, closed: bool) -> list[Change]:
        """What the label is now; a change only where it differs from what was said last."""
        prediction, outcome = (
            judged.prediction,
            state.outcomes[0] if state.outcomes else None,
        )
        known = outcome is not None and not outcome.retract
        label = float(outcome.value) if outcome is not None and known else None
        status: LabelStatus = "provisional" if known else "pending"
        if prediction.blocked or not prediction.activated:
            label, status = None, "censored" if closed else "pending"
        elif known and (closed or self.spec.closes_at_outcome):
            status = "final"
        elif closed:
            label, status = (None, "censored") if self.spec.if_absent is None else (0.0, "final")
        if (label, status) == (judged.label, judged.status):
            return []
        reason = _reason(judged, status, outcome)
        previous = judged.final
        judged.version, judged.label, judged.status = judged.version + 1, label, status
        end_ms = prediction.event_time_ms + self.spec.window_ms + self.spec.lateness_ms
        at_end = outcome is None or reason in ("timeout", "window_closed", "censored")
        known_at_ms = end_ms if at_end or outcome is None else outcome.time_ms
        outcome_ms = outcome.time_ms if outcome is not None and known else None
        judged.known_at_ms = known_at_ms
        return [
            Change(
                prediction,
                judged.version,
                label,
                status,
                reason,
                known_at_ms,
                outcome_ms,
                previous,
            )
        ]

    def _next_ms(self, state: EventState) -> int:
        if not state.judged:
            return max(o.time_ms for o in state.outcomes) + self.spec.hold_ms
        end_ms = state.judged[0].prediction.event_time_ms + self.spec.window_ms + self.spec.lateness_ms
        return end_ms + self.spec.correction_ms if state.closed else end_ms

    def _schedule(self, event_id: str, state: EventState) -> None:
        heapq.heappush(self._expiring if state.closed else self._due, (self._next_ms(state), event_id))

    def _aside(self, event_id: str, outcomes: list[Outcome] | list[None], reason: str) -> None:
        for outcome in outcomes:
            self.counts[reason] += 1
            self.side.append(Unattributed(event_id, outcome, reason))


def _rank(outcome: Outcome) -> tuple[int, bool, float, int]:
    return outcome.revision, outcome.retract, outcome.value, outcome.time_ms


def _reason(judged: Judged, status: LabelStatus, outcome: Outcome | None) -> LabelReason:
    if status == "censored":
        return "censored"
    if outcome is not None and outcome.retract and judged.version:
        return "retract"
    if judged.status in ("final", "censored"):
        return "correction"
    if status == "final" and outcome is None:
        return "timeout"
    return "window_closed" if judged.status == "provisional" and status == "final" else "outcome"
