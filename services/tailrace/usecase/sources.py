"""Where records come from: event types, topics and labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from tailrace.core.reductions import Reduction, Touch
from tailrace.core.trust import Trust

# Subclasses are frozen too, but type checkers do not see options inherited and would refuse every
# event type that does not repeat them.
_EVENT_OPTIONS: Any = {"frozen": True, "kw_only": True}


class Event(msgspec.Struct, **_EVENT_OPTIONS):
    """Base of a user's event type: one annotated field per payload column.

    Unknown fields of a record are ignored, missing or mistyped ones dead-letter it.
    """


class Topic:
    """A Kafka topic with the type of its records.

    Args:
        name: Topic name.
        schema: Event type of the records.
        key: Field that keys the records; windows of the requests topic are kept per value of it.
        event_time: Field with the event time, integer epoch milliseconds.
        lateness: How far behind the newest event of its partition a record may be and still be in order.
        max_ahead: Records dated further ahead of the wall clock than this are dead-lettered.
        max_behind: Records older than the newest event of their partition by more than this are dead-lettered. A key
            silent for this and its longest window is forgotten, so it bounds memory where keys come and go.
    """

    def __init__(
        self,
        name: str,
        schema: type[Event],
        *,
        key: str,
        event_time: str,
        lateness: str = "5s",
        max_ahead: str = "5m",
        max_behind: str = "400d",
    ) -> None:
        self.name = name
        self.schema = schema
        self.key = key
        self.event_time = event_time
        self.lateness = lateness
        self.max_ahead = max_ahead
        self.max_behind = max_behind

    def __repr__(self) -> str:
        return f"Topic({self.name!r}, {self.schema.__name__})"


@dataclass(frozen=True)
class Label:
    """What outcomes say of a prediction.

    Args:
        topic: Outcomes topic.
        on: Field of the outcome that holds the event id it judges, or the entity, where `entity` is given.
        value: Field with the outcome: bool or number; positive when truthy. A record without it, where it may be
            None, says nothing of this label.
        matures_after: Attribution window W: an outcome counts when it happened within W of its event.
        name: What records, metrics and pages call the label; the value's field where it is empty.
        if_absent: What a prediction without outcome becomes when W has passed: False, or None for censored.
        closes: "window": an outcome stays provisional until W has passed. "outcome": the first outcome
            is final at once, for sources that report every event exactly once.
        corrected_within: How long after W a revision still corrects the label.
        revision: Field with the revision number; the event time of the outcome where it is None.
        retract: Boolean field that takes the outcome back; None where outcomes are never taken back.
        outcome_id: Field that tells several outcomes of one event apart; None where all are revisions of one.
        reduce: How several outcomes become one label: "any" is 1 where one is positive, "sum", "max", or "last",
            the value of the newest.
        left: Boolean field that says that the event, or entity, left observation: predictions whose window this
            cuts short, and of which nothing else is known, are censored.
        entity: Field of the requests that `on` refers to, instead of the event id: an outcome then judges the
            predictions of its entity in the W before it.
        attribution: Which of these get the credit: "every_touch", "last_touch", "first_touch", or "linear",
            where each gets an equal share of the value.
        source: Field of the outcome that names who reports it; None where there is one source, or nobody knows. Sources
            are watched for labels that are not true.
        trust: Tier of each source, "human", "system" or "user"; "*" stands for those not named, which are "user"
            otherwise. Of two sources that contradict each other the more trusted one is believed.
    """

    topic: Topic
    on: str = field(kw_only=True)
    value: str = field(kw_only=True)
    matures_after: str = field(kw_only=True)
    name: str = field(default="", kw_only=True)
    if_absent: bool | None = field(default=False, kw_only=True)
    closes: str = field(default="window", kw_only=True)
    corrected_within: str = field(default="30d", kw_only=True)
    revision: str | None = field(default=None, kw_only=True)
    retract: str | None = field(default=None, kw_only=True)
    outcome_id: str | None = field(default=None, kw_only=True)
    reduce: Reduction | None = field(default=None, kw_only=True)
    left: str | None = field(default=None, kw_only=True)
    entity: str | None = field(default=None, kw_only=True)
    attribution: Touch = field(default="every_touch", kw_only=True)
    source: str | None = field(default=None, kw_only=True)
    trust: Mapping[str, Trust] | None = field(default=None, kw_only=True, hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name or self.value)


def fields_of(schema: type[Event]) -> dict[str, Any]:
    """Field names of an event type with their annotations, in declaration order."""
    return {info.name: info.type for info in msgspec.structs.fields(schema)}
