"""The state of a use case in one sentence: rules over what is known, the worst first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from tailrace.contracts.quality import Alarm
from tailrace.ops.lag import Lag

LAG_S = 60.0
DEGRADED_SHARE = 0.01
DEAD_LETTER_SHARE = 0.01
ESSENTIAL = ("features", "inference", "feedback")
"""Without these no predictions are made, or nobody learns how good they are."""
INPUT_DETECTORS = frozenset({"PSI", "missing", "out_of_range", "unknown_category"})
"""Detectors of features and the score, told in one sentence."""

Level = Literal["healthy", "degraded", "down", "waiting"]


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What the sentence is made from; lags in seconds, latency in milliseconds, shares in [0, 1]."""

    unwell: list[tuple[str, str]]
    lags: Mapping[str, Lag]
    lags_unknown: str
    degraded_share: float
    degraded_reasons: dict[str, int]
    p99_ms: float | None
    budget_ms: float
    alarms: list[Alarm]
    failed_run: str
    champion: str
    predictions_seen: bool


class Status(msgspec.Struct, frozen=True):
    """A sentence, how bad it is, and everything that is amiss."""

    level: Level
    sentence: str
    findings: list[str]


def status_of(evidence: Evidence) -> Status:
    """Judges a use case."""
    broken = [f"{service} {why}" for service, why in evidence.unwell if service in ESSENTIAL]
    if evidence.lags_unknown:
        broken.insert(0, evidence.lags_unknown)
    amiss = [*_amiss(evidence)]
    if broken:
        return Status("down", f"Down: {broken[0]}", broken + amiss)
    if amiss:
        more = f" (and {len(amiss) - 1} more)" if len(amiss) > 1 else ""
        return Status("degraded", f"Degraded: {amiss[0]}{more}", amiss)
    if not evidence.predictions_seen:
        return Status("waiting", "Waiting for events: all services are ready", [])
    if not evidence.champion:
        return Status("waiting", "Collecting labels: predictions carry the default score until the first training", [])
    return Status("healthy", f"Healthy: version {evidence.champion} serves within its budget", [])


def _amiss(evidence: Evidence) -> list[str]:
    found = []
    if evidence.degraded_share > DEGRADED_SHARE:
        reason = max(evidence.degraded_reasons, key=lambda name: evidence.degraded_reasons[name])
        found.append(f"{evidence.degraded_share:.0%} of predictions use defaults ({reason})")
    for stage, lag in evidence.lags.items():
        if lag.seconds > LAG_S:
            found.append(f"{stage} is {lag.seconds:.0f} s behind ({lag.records:,} records)")
    found += [f"{service} {why}" for service, why in evidence.unwell if service not in ESSENTIAL]
    of_inputs = [alarm for alarm in evidence.alarms if alarm.detector in INPUT_DETECTORS]
    others = [alarm for alarm in evidence.alarms if alarm not in of_inputs]
    found += [f"{alarm.kind.replace('_', ' ')}: {alarm.detail}" for alarm in others]
    drifted = list(dict.fromkeys(alarm.subject for alarm in of_inputs))
    if drifted:
        found.append(f"drift: {len(drifted)} inputs are not as in training ({', '.join(drifted[:3])})")
    if evidence.failed_run:
        found.append(f"the last training was refused: {evidence.failed_run}")
    if evidence.p99_ms is not None and evidence.p99_ms > 10 * evidence.budget_ms:
        found.append(
            f"p99 latency is {evidence.p99_ms:,.0f} ms, the budget of a model run {evidence.budget_ms:,.0f} ms"
        )
    return found
