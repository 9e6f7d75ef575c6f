"""The join as FEEDBACK's semantics read: one record after the other, a dict of events. Twin of `core.joins`."""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass, field

import msgspec

from tailrace.core.joins import JoinSpec, Outcome, Scored, Unattributed


@dataclass
class Judged:
    """A prediction with the label last emitted for it."""

    prediction: Scored
    version: int = 0
    label: float | None = None
    status: str = "pending"

    @property
    def final(self) -> float | None:
        return self.label if self.status == "final" else None


@dataclass
class Event:
    """Everything kept of one event."""

    judged: list[Judged] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    closed: bool = False


@dataclass(frozen=True)
class Change:
    """A label that changed."""

    prediction: Scored
    version: int
    label: float | None
    status: str
    reason: str
    known_at_ms: int
    outcome_time_ms: int | None
    previous: float | None
    source: str


class NaiveJoin:
    """The same answers as `JoinState`, record by record, without a cap."""

    def __init__(self, spec: JoinSpec) -> None:
        self.spec = spec
        self.watermark_ms = -1
        self.events: dict[str, Event] = {}
        self.counts: Counter[str] = Counter()
        self.side: list[Unattributed] = []
        self._early: set[str] = set()
        self._due: list[tuple[int, str]] = []

    def predict(self, prediction: Scored) -> list[Change]:
        state = self.events.setdefault(prediction.event_id, Event())
        for judged in state.judged:
            if judged.prediction.prediction_id == prediction.prediction_id:
                self.counts["duplicate" if same(judged.prediction, prediction) else "conflict"] += 1
                return []
        judged = Judged(prediction)
        state.judged.append(judged)
        if len(state.judged) == 1:
            state.outcomes = self._eligible(prediction, state.outcomes)
            self._schedule(prediction.event_id, state)
        if state.outcomes:
            self._early.add(prediction.event_id)
            return []
        return self._settle(state, judged)

    def observe(self, event_id: str, outcome: Outcome) -> list[Change]:
        state = self.events.get(event_id)
        if state is None or not state.judged:
            self._hold(event_id, outcome)
            return []
        if state.closed and self._next_ms(state) <= self.watermark_ms:
            self._aside(event_id, [outcome], "too_late")
            return []
        if not self._eligible(state.judged[0].prediction, [outcome]):
            return []
        for held in state.outcomes:
            if held.outcome_id == outcome.outcome_id or self.spec.reduce is None:
                if not self._wins(outcome, held):
                    return []
                state.outcomes.remove(held)
                break
        state.outcomes.append(outcome)
        return [c for judged in state.judged for c in self._settle(state, judged)]

    def advance(self, watermark_ms: int) -> list[Change]:
        self.watermark_ms = max(self.watermark_ms, watermark_ms)
        changes: list[Change] = []
        for event_id in sorted(self._early):
            if (state := self.events.get(event_id)) is not None:
                changes += [c for judged in state.judged for c in self._settle(state, judged)]
        self._early.clear()
        while self._due and self._due[0][0] <= self.watermark_ms:
            due_ms, event_id = heapq.heappop(self._due)
            state = self.events.get(event_id)
            if state is None or state.closed or self._next_ms(state) != due_ms:
                continue
            if state.judged:
                state.closed = True
                for judged in sorted(state.judged, key=lambda j: j.prediction.prediction_id):
                    changes += self._settle(state, judged)
            else:
                del self.events[event_id]
                self._aside(event_id, state.outcomes, "orphan")
        return changes

    def forget(self) -> list[Event]:
        over = [
            event_id
            for event_id, state in self.events.items()
            if state.closed and self._next_ms(state) <= self.watermark_ms
        ]
        return [self.events.pop(event_id) for event_id in over]

    def erase(self, entity: str, value: str, before_ms: int) -> list[Scored]:
        gone = [
            event_id
            for event_id, state in self.events.items()
            for first in [judged.prediction for judged in state.judged[:1]]
            if msgspec.json.decode(first.entities)[entity] == value and first.event_time_ms <= before_ms
        ]
        return [judged.prediction for event_id in gone for judged in self.events.pop(event_id).judged]

    def _hold(self, event_id: str, outcome: Outcome) -> None:
        if outcome.time_ms + self.spec.hold_ms <= self.watermark_ms:
            horizon_ms = outcome.time_ms + self.spec.lateness_ms + self.spec.correction_ms
            self._aside(event_id, [outcome], "too_late" if horizon_ms <= self.watermark_ms else "orphan")
            return
        state = self.events.setdefault(event_id, Event())
        if outcome in state.outcomes:
            self.counts["duplicate"] += 1
            return
        state.outcomes.append(outcome)
        self._schedule(event_id, state)

    def _eligible(self, of: Scored, outcomes: list[Outcome]) -> list[Outcome]:
        first_ms, end_ms = of.event_time_ms - self.spec.skew_ms, of.event_time_ms + self.spec.window_ms
        last_ms = end_ms + self.spec.correction_ms
        inside = [o for o in outcomes if first_ms <= o.time_ms < (last_ms if o.retract else end_ms)]
        self._aside(of.event_id, [o for o in outcomes if o not in inside], "out_of_window")
        if self.spec.reduce is None:
            return [max(inside, key=rank)] if inside else []
        return list({o.outcome_id: o for o in sorted(inside, key=rank)}.values())

    def _wins(self, new: Outcome, held: Outcome) -> bool:
        if new == held:
            self.counts["duplicate"] += 1
        elif new.tier == held.tier and new.revision < held.revision:
            self.counts["stale_revision"] += 1
        elif new.tier == held.tier and new.revision == held.revision:
            self.counts["conflict"] += 1
        return rank(new) > rank(held)

    def _settle(self, state: Event, judged: Judged) -> list[Change]:
        prediction, outcome = judged.prediction, reduced(state.outcomes, self.spec.reduce)
        known = outcome is not None and not outcome.retract and not outcome.left
        latest_ms = max((o.time_ms for o in state.outcomes), default=0)
        label = outcome.value if outcome is not None and known else None
        status = "provisional" if known else "pending"
        if prediction.blocked or not prediction.activated:
            label, status = None, "censored" if state.closed else "pending"
        elif known and (state.closed or self.spec.closes_at_outcome):
            status = "final"
        elif state.closed:
            left = outcome is not None and outcome.left
            label, status = (None, "censored") if self.spec.if_absent is None or left else (0.0, "final")
        if (label, status) == (judged.label, judged.status):
            return []
        reason, previous = _reason(judged, status, outcome), judged.final
        judged.version, judged.label, judged.status = judged.version + 1, label, status
        end_ms = prediction.event_time_ms + self.spec.window_ms + self.spec.lateness_ms
        at_end = outcome is None or reason in ("timeout", "window_closed", "censored")
        known_ms = end_ms if at_end or outcome is None else latest_ms
        outcome_ms = outcome.time_ms if outcome is not None and known else None
        source = outcome.source if outcome is not None else ""
        return [Change(prediction, judged.version, label, status, reason, known_ms, outcome_ms, previous, source)]

    def _next_ms(self, state: Event) -> int:
        if not state.judged:
            return max(o.time_ms for o in state.outcomes) + self.spec.hold_ms
        end_ms = state.judged[0].prediction.event_time_ms + self.spec.window_ms + self.spec.lateness_ms
        return end_ms + self.spec.correction_ms if state.closed else end_ms

    def _schedule(self, event_id: str, state: Event) -> None:
        heapq.heappush(self._due, (self._next_ms(state), event_id))

    def _aside(self, event_id: str, outcomes: list[Outcome], reason: str) -> None:
        for outcome in outcomes:
            self.counts[reason] += 1
            self.side.append(Unattributed(event_id, outcome, reason))


def rank(outcome: Outcome) -> tuple[int, int, int, float, int, str]:
    """The greater counts."""
    kind = 2 if outcome.retract else 3 if outcome.left else 1
    return outcome.tier, outcome.revision, kind, outcome.value, outcome.time_ms, outcome.source


def reduced(outcomes: list[Outcome], rule: str | None) -> Outcome | None:
    """What several outcomes of an event come to together."""
    live = [o for o in outcomes if not o.retract and not o.left]
    left = [o for o in outcomes if o.left and not o.retract]
    if rule is None or not outcomes:
        return outcomes[0] if outcomes else None
    if not live:
        return (
            max(left or outcomes, key=lambda o: o.time_ms)
            if rule in ("sum", "last")
            else by_worth(left or outcomes, rule)
        )
    if rule == "sum":
        return Outcome(0, False, sum(o.value for o in live), max(o.time_ms for o in live))
    if rule == "last":
        return max(live, key=lambda o: (o.time_ms, o.outcome_id))
    best = by_worth(live, rule)
    return msgspec.structs.replace(best, value=float(best.value > 0)) if rule == "any" else best


def by_worth(outcomes: list[Outcome], rule: str) -> Outcome:
    """The earliest of the greatest."""
    return max(outcomes, key=lambda o: (o.value > 0 if rule == "any" else o.value, -o.time_ms))


def same(one: Scored, other: Scored) -> bool:
    """Whether two predictions say the same; JSON is compared as it came."""
    return [bytes(v) if isinstance(v, msgspec.Raw) else v for v in msgspec.structs.astuple(one)] == [
        bytes(v) if isinstance(v, msgspec.Raw) else v for v in msgspec.structs.astuple(other)
    ]


def _reason(judged: Judged, status: str, outcome: Outcome | None) -> str:
    if status == "censored":
        return "censored"
    if outcome is not None and (outcome.retract or outcome.left) and judged.version:
        return "retract"
    if judged.status in ("final", "censored"):
        return "correction"
    if status == "final" and outcome is None:
        return "timeout"
    return "window_closed" if judged.status == "provisional" and status == "final" else "outcome"
