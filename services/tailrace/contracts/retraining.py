"""Records of the topic RETRAINING: requests for a model, what became of them, and what persons ask for."""

from __future__ import annotations

from typing import Literal

import msgspec

from tailrace.contracts.spans import EventSpan


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


class EraseRequested(msgspec.Struct, frozen=True, kw_only=True, tag="erase"):
    """A person asks that what is kept of an entity, of events up to `before_ms` of event time, be erased.

    The record names the entity for as long as the topic keeps it: whoever copies the topics later has to know.
    """

    use_case: str
    entity: str
    value: str
    before_ms: int
    by: str
    reason: str
    requested_at_ms: int


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
    | EraseRequested
)
