"""What the detectors found, as alarms: what it is about, since when, how far, and in words."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from tailrace.contracts.quality import Alarm, Drift
from tailrace.core.alarm_book import AlarmBook
from tailrace.core.drift_findings import PSIFinding
from tailrace.core.join_watch import JoinFinding
from tailrace.core.loss_watch import LossFinding

JOIN_DETECTOR = "JoinWatch"


def join_alarms(book: AlarmBook, finding: JoinFinding) -> list[Alarm]:
    """Raises or resolves what is said of a join."""
    what = "outcomes that join, per prediction" if finding.subject == "join_rate" else "positives per joined outcome"
    since = _minute(finding.since_ms)
    return book.level(
        not finding.resolved,
        finding.found_ms,
        kind="broken_join",
        subject=finding.subject,
        detector=JOIN_DETECTOR,
        value=finding.value,
        threshold=finding.limit,
        size=finding.value - finding.usual,
        since_ms=finding.since_ms,
        detail=f"{finding.value:.4f} {what} since {since}, {finding.usual:.4f} in the last seven days",
    )


def loss_detail(finding: LossFinding, version: str) -> str:
    """What a detector says of a version, in words; the same for as long as its alarm stands."""
    spec, detector = finding.spec, finding.detector
    where = f" in {finding.slice}" if finding.slice else ""
    said = f"{type(spec).__name__} on {spec.metric} of version {version}{where}"
    if finding.since_ms is None or not detector.limit:
        return said
    since = _minute(finding.since_ms)
    return f"{said}: mean loss {detector.estimate:.4f} since {since}, at most {detector.limit:.4f} before"


def loss_alarms(book: AlarmBook, finding: LossFinding, version: str, now_ms: int) -> list[Alarm]:
    """Raises where a detector alarms, resolves where one that can tell says it is over.

    An alarm of a detector that begins anew stands until another model serves: it knows nothing of the old level.
    """
    spec, detector = finding.spec, finding.detector
    fields: dict[str, Any] = {"subject": spec.metric, "detector": type(spec).__name__, "slice": finding.slice}
    if finding.since_ms is None:
        over = bool(detector.limit) and not detector.standing
        return book.level(False, now_ms, **fields, value=detector.estimate, size=0.0) if over else []
    fields |= {"value": detector.estimate, "threshold": detector.limit, "detail": loss_detail(finding, version)}
    fields["size"] = detector.estimate - detector.limit if detector.limit else 0.0
    return book.again(now_ms, **fields, kind="drift", since_ms=finding.since_ms)


def feature_alarms(book: AlarmBook, finding: PSIFinding, since_ms: int, now_ms: int) -> list[Alarm]:
    """Raises and resolves what is said of a feature or the score after a look from `since_ms` to `now_ms`."""
    alarms = []
    for sign in finding.signs:
        fields: dict[str, Any] = {"kind": "drift", "subject": finding.subject, "detector": sign.detector}
        fields |= {"value": sign.value, "threshold": sign.limit, "size": sign.size, "detail": sign.detail}
        alarms += book.level(sign.drifted, now_ms, **fields, since_ms=since_ms)
    return alarms


def drift_record(use_case: str, version: str, finding: PSIFinding, since_ms: int, now_ms: int) -> Drift:
    """What DRIFT says of a feature or the score."""
    return Drift(
        use_case=use_case,
        subject=finding.subject,
        detector="PSI",
        value=finding.value,
        threshold=finding.threshold,
        rows=finding.rows,
        since_ms=since_ms,
        measured_at_ms=now_ms,
        model_version=version,
        edges=finding.edges,
        reference=finding.reference,
        current=finding.current,
        ks=finding.ks,
        shift=finding.shift,
        p_value=finding.p_value,
        seasonal=finding.seasonal,
        design_effect=finding.design_effect,
        signs=[sign.detector for sign in finding.signs if sign.drifted],
    )


def _minute(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")
