"""The records that travel between services.

Every record is a frozen msgspec Struct, encoded as one JSON object per Kafka record.
Times are integer epoch milliseconds, UTC. A float that is not a number travels as `null`.
`schemas/` is generated from this module; fields are only ever added, and always with a default.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from tailrace.contracts.spans import EventSpan

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


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a window's metrics before its labels are final.

    `intervals` holds [low, high] for some of `metrics`: with 95 % the final value will lie there. `effective`
    is the number of positive labels that would tell as much; `arrived` the share of the labels that matter
    (the positive ones, where a prediction without outcome becomes negative) that have come, in [0, 1], None
    where that cannot be told. `withheld` says why there are no metrics, "" where there are.
    """

    metrics: dict[str, float | None] = {}
    intervals: dict[str, list[float]] = {}
    effective: float = 0.0
    arrived: float | None = None
    withheld: str = ""


class TopPrediction(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A prediction among those with the highest scores of a window.

    `position` is that of its score on the grid of `core.scoring`, `key` the entity; `positive` its final label, None
    while there is none.
    """

    position: int
    prediction_id: str
    key: str
    positive: bool | None = None


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """How good one model was in one window (topic QUALITY, compacted, the newest holds).

    `bins`, `n` and `positives` are the sparse score histogram over labelled predictions: integers,
    so partial records add up exactly. `metrics` is derived from them; None means no data.
    `predictions` counts all predictions of the window; `maturity` = final labels / predictions.
    `slice` is "" for the whole, else "column=value". For a shadow, `paired` counts the events that
    the champion scored too, and `disagreements` those on which the two decisions differ. `auxiliary` says that
    `label_name` is not the label that judges models; such records are kept under keys of their own.

    There are three readings of a window. `metrics` speaks of final labels; its `intervals` of what as many others
    would show. `provisional`, None once every label is final, corrects for the labels that are still to come.
    `estimate` needs no labels of the window: it supposes that scores mean what they meant when older labels came.

    Where numbers are predicted, `bins` are errors, outcome less prediction in steps of `metrics["error_step"]`, and
    `positives` count outcomes above their prediction. Where the use case names an amount, `amounts` and
    `positive_amounts` are hundredths of it at each of `bins`, of all labels and of the positive ones. `top` holds the
    `top_size` predictions with the highest scores, the highest first, of each key at most one where `top_distinct`.
    `fading`, of the champion's newest window alone, speaks of the days before it as well, each counting less than the
    next, and compares the champion's decisions with the no-change classifier; see `core.fading`, `core.prequential`.
    """

    use_case: str
    label_name: str
    window_start_ms: int
    window_end_ms: int
    variant: str
    model_version: str
    slice: str
    predictions: int
    labelled: int
    final: int
    maturity: float
    bins: list[int]
    n: list[int]
    positives: list[int]
    metrics: dict[str, float | None]
    watermark_ms: int
    paired: int = 0
    disagreements: int = 0
    intervals: dict[str, list[float]] = {}
    provisional: Reading | None = None
    estimate: Reading | None = None
    auxiliary: bool = False
    amounts: list[int] = []
    positive_amounts: list[int] = []
    top: list[TopPrediction] = []
    top_size: int = 0
    fading: dict[str, float | None] = {}
    top_distinct: bool = False


AlarmKind = Literal[
    "drift", "metric_drop", "broken_join", "label_delay", "freshness", "no_data", "service", "label_source"
]


class Alarm(msgspec.Struct, frozen=True, kw_only=True):
    """Something a person or the retraining policy should know (topic ALARMS).

    `subject` is a metric, a feature, the score or a rate, `slice` "" for all of the traffic, else
    "column=value". `since_ms` is when it began, as far as is known, in event time; `raised_at_ms` when it was
    found. `value` passed `threshold`; `size` is how far it is from what was usual: the rise of a mean loss or
    of a share, for a distribution the shift in ranges between the quartiles; 0 where the detector cannot tell.
    While a `broken_join` or a `label_delay` stands, no new model is asked for. While a `label_source` does, labels of
    the source that is its subject are not trusted.
    """

    use_case: str
    kind: AlarmKind
    subject: str
    detector: str
    value: float
    threshold: float
    since_ms: int
    raised_at_ms: int
    detail: str
    resolved: bool = False
    slice: str = ""
    size: float = 0.0


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """How far one feature, or the score, is from the champion's training data (topic DRIFT, compacted).

    `value` is the detector's statistic over the `rows` predictions between `since_ms` and `measured_at_ms`,
    epoch milliseconds of stream time; above `threshold` it speaks of drift by itself. `edges` cut the line
    into bins; `reference` and `current` count rows by bin, the last bin holding the missing values; where
    `seasonal`, the reference is that of the same hours of the week. `ks` is the Kolmogorov-Smirnov distance,
    `shift` the first Wasserstein distance in ranges between the quartiles, `p_value` how seldom chance alone
    moves this subject as far. `signs` names what alarms: "PSI", "missing", "out_of_range", "unknown_category".
    Of `design_effect` rows that go together, by what the training data show, one counts.
    """

    use_case: str
    subject: str
    detector: str
    value: float
    threshold: float
    rows: int
    since_ms: int
    measured_at_ms: int
    model_version: str
    edges: list[float]
    reference: list[int]
    current: list[int]
    ks: float = 0.0
    shift: float = 0.0
    p_value: float = 1.0
    seasonal: bool = False
    signs: list[str] = []
    design_effect: float = 1.0


class Quarantined(msgspec.Struct, frozen=True, kw_only=True):
    """A source whose labels, of events from `since_ms` until `until_ms`, are not trusted; None: until it is cleared."""

    source: str
    since_ms: int
    until_ms: int | None = None


class RetrainRequested(msgspec.Struct, frozen=True, kw_only=True, tag="requested"):
    """The retraining policy, a schedule or a person asks for a new model (topic RETRAINING).

    `train_from_ms` is the event time at which the present concept began, None where none is known; `champion`
    the version that served at the request, "" before the first; `evidence` the figures that decided. Labels of those
    `quarantined` are not trusted, and outcomes of events in the spans of `lost` may have been lost.
    """

    run_id: str
    use_case: str
    trigger: Literal["initial", "schedule", "volume", "drift", "metric_drop", "refit", "manual"]
    reason: str
    requested_at_ms: int
    train_until_ms: int
    by: str = "feedback"
    train_from_ms: int | None = None
    champion: str = ""
    evidence: dict[str, str] = {}
    quarantined: list[Quarantined] = []
    lost: list[EventSpan] = []


class RetrainHeld(msgspec.Struct, frozen=True, kw_only=True, tag="held"):
    """A model would be asked for, but the data are suspect: `trigger` and `reason` say what for, `because` why not.

    Said once; the request follows when what holds it is over and there is still a reason.
    """

    use_case: str
    trigger: str
    reason: str
    because: str
    held_at_ms: int


class TrainingStarted(msgspec.Struct, frozen=True, kw_only=True, tag="started"):
    """The trainer has taken up a request."""

    run_id: str
    use_case: str
    started_at_ms: int


class GateResult(msgspec.Struct, frozen=True, kw_only=True):
    """One condition a candidate had to meet, with the figures that decided it."""

    name: str
    passed: bool
    candidate: float | None
    champion: float | None
    detail: str


class CandidateRegistered(msgspec.Struct, frozen=True, kw_only=True, tag="registered"):
    """A candidate passed every gate and stands in the registry.

    `recalled` is True for a former champion that was found as good as it used to be, so that nothing was
    trained. `seconds` is what the run took.
    """

    run_id: str
    use_case: str
    model_version: str
    bundle_uri: str
    digest: str
    registered_at_ms: int
    gates: list[GateResult]
    metrics: dict[str, float | None]
    lineage: dict[str, str]
    recalled: bool = False
    seconds: float = 0.0


class CandidateRefused(msgspec.Struct, frozen=True, kw_only=True, tag="refused"):
    """A candidate failed a gate, or training could not be done; the champion stays.

    `failed` is True where the training itself broke, so that waiting for more data is no help. `seconds` is
    what the run took.
    """

    run_id: str
    use_case: str
    refused_at_ms: int
    reason: str
    gates: list[GateResult]
    failed: bool = False
    seconds: float = 0.0


class PromoteRequested(msgspec.Struct, frozen=True, kw_only=True, tag="promote"):
    """A person asks to make a registered version champion now."""

    use_case: str
    model_version: str
    by: str
    reason: str
    requested_at_ms: int


class OperatorAction(msgspec.Struct, frozen=True, kw_only=True, tag="action"):
    """A person did something that changes no routing; `rollout` enters it into the audit trail."""

    use_case: str
    action: str
    by: str
    reason: str
    at_ms: int
    evidence: dict[str, str]


class RollbackRequested(msgspec.Struct, frozen=True, kw_only=True, tag="rollback"):
    """A person asks to go back to the previous champion."""

    use_case: str
    by: str
    reason: str
    requested_at_ms: int


RetrainingRecord = (
    RetrainRequested
    | RetrainHeld
    | TrainingStarted
    | CandidateRegistered
    | CandidateRefused
    | PromoteRequested
    | RollbackRequested
    | OperatorAction
)


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
