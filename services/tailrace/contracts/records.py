"""The records that travel between services; those of `quality` and `retraining` stand there.

Every record is a frozen msgspec Struct, encoded as one JSON object per Kafka record.
Times are integer epoch milliseconds, UTC. A float that is not a number travels as `null`.
`schemas/` is generated from these modules; fields are only ever added, and always with a default.
"""

from __future__ import annotations

from typing import Literal

import msgspec

WATERMARK_HEADER = "tailrace-watermark"
"""Header of a record without a value that promises: nothing older follows on this partition.

Its value is the watermark in epoch milliseconds as ASCII digits. Every service hands a
watermark on to the same partition of its output, behind the records it speaks of.
"""


class Source(msgspec.Struct, frozen=True, gc=False):
    """Position of the event a record stems from."""

    topic: str
    partition: int
    offset: int


class FeatureRow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One event with the feature values as of that event (topic FEATURES).

    `values` holds the request columns and the event key's own window columns, in the order of
    `Plan.own_order`; None is missing. `produced_at_ms` is the Kafka timestamp of the event, wall clock,
    from which end-to-end latency is counted. `entities` maps each entity column to its value.
    """

    event_id: str
    event_time_ms: int
    key: str
    entities: dict[str, str]
    slices: dict[str, str]
    values: list[float | None]
    fingerprint: str
    source: Source
    produced_at_ms: int


class Prediction(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One score with everything it was made from (topics PREDICTIONS and SHADOW).

    `score` in (0, 1) lies on the grid of `core.scoring`, or, where numbers are predicted, on that of `core.regression`; `features` are the model's inputs, float32
    in the order of `Plan.order`; `ages_ms` maps each online view to the age of its row at
    `event_time_ms`, None when there was no row. `propensity` is the probability with which the
    routing gave this event to `variant`. `degraded` names each view or model that was replaced by
    its default. `activated` is False where the score was not acted upon, `blocked` is True where
    the decision prevented the outcome from being seen: neither ever becomes a negative label.
    """

    prediction_id: str
    event_id: str
    use_case: str
    key: str
    entities: dict[str, str]
    slices: dict[str, str]
    event_time_ms: int
    predicted_at_ms: int
    variant: str
    model_version: str
    model_digest: str
    epoch: int
    score: float
    decision: bool
    threshold: float
    propensity: float
    features: list[float | None]
    ages_ms: dict[str, int | None]
    fingerprint: str
    degraded: list[str]
    source: Source
    produced_at_ms: int
    activated: bool = True
    blocked: bool = False


LabelStatus = Literal["pending", "provisional", "final", "censored"]
LabelReason = Literal["prediction", "outcome", "window_closed", "timeout", "correction", "retract", "censored"]


class LabelledPrediction(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one prediction's outcome; the highest `label_version` holds (topic LABELS).

    `label` is None while pending, after a retraction, or when censored. `known_at_ms` is the stream
    time at which this became known: the outcome's own time, or the watermark that closed the window.
    A use case may have several labels, told apart by `label_name`, each with versions of its own; models are
    trained on and judged by the one that is not `auxiliary`. `source` is who reported the outcome, "" for nobody or
    where outcomes do not say.
    """

    prediction_id: str
    event_id: str
    use_case: str
    label_name: str
    label_version: int
    label: float | None
    status: LabelStatus
    reason: LabelReason
    event_time_ms: int
    known_at_ms: int
    outcome_time_ms: int | None
    variant: str
    model_version: str
    score: float
    decision: bool
    key: str
    entities: dict[str, str]
    slices: dict[str, str]
    weight: float = 1.0
    auxiliary: bool = False
    source: str = ""


class Variant(msgspec.Struct, frozen=True, kw_only=True):
    """One model in service. `share` in [0, 1] is its part of the traffic; 0 for a shadow."""

    name: str
    role: Literal["champion", "canary", "shadow"]
    model_version: str
    bundle_uri: str
    digest: str
    share: float


class RoutingTable(msgspec.Struct, frozen=True, kw_only=True):
    """Which models score which share of the traffic (topic CONTROL, compacted, highest epoch holds).

    `warm` lists models to keep loaded without traffic, the former champion first, so that a
    rollback needs no load. Shares of the variants that are not shadows sum to 1. `in_shadow` says what
    a shadow is there for: as a candidate, or as the former champion that its successor is compared with.
    """

    use_case: str
    epoch: int
    decided_at_ms: int
    reason: str
    salt: str
    variants: list[Variant]
    warm: list[Variant] = []
    by: str = "rollout"
    in_shadow: Literal["candidate", "former"] = "candidate"


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A record that could not be used (topic DEAD_LETTERS). The original bytes are the Kafka value.

    This struct travels, encoded as JSON, in the header `tailrace-dead-letter`, so that the value and
    key can be replayed byte for byte.
    """

    use_case: str
    stage: str
    reason: str
    detail: str
    source: Source
    failed_at_ms: int


DEAD_LETTER_HEADER = "tailrace-dead-letter"


class DeadLettersReplayed(msgspec.Struct, frozen=True, kw_only=True):
    """A note among the dead letters (topic DEAD_LETTERS) that some of them have been sent again.

    `offsets` maps each partition of that topic, as digits, to offsets. The header `tailrace-replayed` marks
    the note, which has no header `tailrace-dead-letter`.
    """

    use_case: str
    offsets: dict[str, list[int]]
    by: str
    replayed_at_ms: int


REPLAYED_HEADER = "tailrace-replayed"


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """One worker speaks of itself, once a second (topic HEARTBEATS); counts are totals since it started.

    Times are wall clock. `not_ready` says why no work can be done, "" when it can. `latency_counts` counts
    predictions by the time from event produced to prediction made: one entry for each of `latency_bounds_ms`
    (upper bounds, milliseconds) and one for what was slower.
    """

    use_case: str
    service: str
    instance: str
    started_at_ms: int
    at_ms: int
    not_ready: str
    records: int
    dead_letters: int
    restarts: int
    predictions: int = 0
    degraded: dict[str, int] = {}
    latency_bounds_ms: list[float] = []
    latency_counts: list[int] = []


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One decision with its evidence (topic `tailrace.audit`); `previous_hash` chains the entries."""

    use_case: str
    action: str
    by: str
    reason: str
    at_ms: int
    evidence: dict[str, str]
    previous_hash: str
