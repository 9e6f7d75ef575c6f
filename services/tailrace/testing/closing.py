"""Whether a loop closed behind a drift: the stages it must go through, and accuracy around them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

import msgspec

from tailrace.contracts.records import RoutingTable
from tailrace.contracts.retraining import CandidateRefused, CandidateRegistered, RetrainRequested
from tailrace.testing.decisions import DecisionLog, champion_of
from tailrace.testing.streams import DAY_MS

RECOVERED = 0.5
"""Share of the log loss that the drift cost which the new model must win back for the loop to count as closed."""


class Stage(msgspec.Struct, frozen=True):
    """A stage of the loop. `at_ms` is the stream time at which it was first reached; None where it never was."""

    name: str
    at_ms: int | None = None
    model: str = ""


class Phase(msgspec.Struct, frozen=True):
    """Accuracy of one version in one part of the stream."""

    name: str
    version: str
    metrics: dict[str, float | None]


class Closing(msgspec.Struct, frozen=True, kw_only=True):
    """How far a loop came: what the demo shows and what its tests hold it to.

    Attributes:
        stages: A champion before the drift, then what came because of it: alarm, retraining, candidate, shadow,
            promotion.
        phases: Accuracy before, during and after the drift.
        missing: What keeps the loop from being closed, in order; empty when it closed.
    """

    stages: list[Stage]
    phases: list[Phase]
    missing: list[str]


def closing(log: DecisionLog, *, begin_ms: int, drift_ms: int, end_ms: int) -> Closing:
    """Judges the decisions of a loop in whose stream a drift was planted.

    Args:
        log: What was decided, on a broker or in the simulator.
        begin_ms: Begin of the stream, epoch milliseconds.
        drift_ms: Event time at which the drift begins.
        end_ms: End of what is judged.
    """
    asked = {
        record.run_id: record.requested_at_ms
        for record in log.retraining
        if isinstance(record, RetrainRequested)
        and record.trigger in ("drift", "metric_drop")
        and record.requested_at_ms >= drift_ms
    }
    candidates = {
        record.model_version: asked[record.run_id]
        for record in log.retraining
        if isinstance(record, CandidateRegistered) and record.run_id in asked
    }
    promoted = _promotions(log.tables, candidates)
    stages = [
        _first("a champion before the drift", ((t.decided_at_ms, champion_of(t)) for t in log.tables), drift_ms),
        _first("an alarm after it", ((at_ms, "") for at_ms in _alarmed(log, drift_ms))),
        _first("retraining because of it", ((at_ms, "") for at_ms in asked.values())),
        _first("a candidate past its gates", ((at_ms, version) for version, at_ms in candidates.items())),
        _first("the candidate in shadow", _shadowed(log.tables, candidates)),
        _first("the candidate as champion", ((at_ms, version) for version, at_ms in promoted.items())),
    ]
    phases, not_recovered = _phases(log, sorted(promoted.values()), begin_ms, drift_ms, end_ms)
    missing = [f"{stage.name}: never" for stage in stages if stage.at_ms is None] or not_recovered
    refused = [r.reason for r in log.retraining if isinstance(r, CandidateRefused) and r.run_id in asked]
    if missing and refused:
        missing.append(f"candidates refused because of it: {len(refused)}, the last: {refused[-1]}")
    return Closing(stages=stages, phases=phases, missing=missing)


def _first(name: str, found: Iterable[tuple[int, str]], until_ms: int | None = None) -> Stage:
    known = [one for one in found if until_ms is None or (one[1] and one[0] <= until_ms)]
    return Stage(name, *min(known)) if known else Stage(name)


def _alarmed(log: DecisionLog, drift_ms: int) -> Iterator[int]:
    for alarm in log.alarms:
        if alarm.kind in ("drift", "metric_drop") and not alarm.resolved and alarm.raised_at_ms >= drift_ms:
            yield alarm.raised_at_ms


def _shadowed(tables: Iterable[RoutingTable], candidates: Collection[str]) -> Iterator[tuple[int, str]]:
    for table in tables:
        for variant in table.variants if table.in_shadow == "candidate" else ():
            if variant.role == "shadow" and variant.model_version in candidates:
                yield table.decided_at_ms, variant.model_version


def _promotions(tables: Iterable[RoutingTable], candidates: Collection[str]) -> dict[str, int]:
    """When each candidate first became champion."""
    first: dict[str, int] = {}
    for table in tables:
        if champion_of(table) in candidates:
            first.setdefault(champion_of(table), table.decided_at_ms)
    return first


def _phases(
    log: DecisionLog, promoted_ms: list[int], begin_ms: int, drift_ms: int, end_ms: int
) -> tuple[list[Phase], list[str]]:
    """Accuracy before, during and after the drift, and whether it recovered.

    A first candidate may know too little of the new pattern: the drift counts as over at the first
    promotion behind which accuracy has recovered, else at the last.
    """
    spans: dict[str, tuple[int, int]] = {}
    missing: list[str] = []
    for at_ms in promoted_ms or [end_ms]:
        new_ms = min(-(-at_ms // DAY_MS) * DAY_MS, end_ms)
        spans = {"before": (begin_ms, drift_ms), "during": (drift_ms, new_ms), "after": (new_ms, end_ms)}
        missing = _not_recovered(*(log.log_loss(*span) for span in spans.values()))
        if not missing:
            break
    phases = [
        Phase(name, version, metrics)
        for name, span in spans.items()
        for version, metrics in log.accuracy(*span).items()
    ]
    return phases, missing


def _not_recovered(before: float | None, during: float | None, after: float | None) -> list[str]:
    if before is None or during is None:
        return [f"log loss is not known {'before' if before is None else 'during'} the drift"]
    if after is None:
        return ["the candidate became champion so late that log loss is not known after it"]
    if during <= before or after > during - RECOVERED * (during - before):
        return [f"log loss did not recover: {before:.4f} before, {during:.4f} during, {after:.4f} after"]
    return []
