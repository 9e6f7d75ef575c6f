"""What an operator sees of the models, folded from the topics of a use case."""

from __future__ import annotations

from collections import Counter, deque
from typing import Any

import msgspec

from tailrace.backends.codec import decode
from tailrace.backends.ports import Message
from tailrace.contracts.quality import Alarm, Drift, Quality
from tailrace.contracts.records import AuditEntry, DeadLettersReplayed, Heartbeat, RoutingTable
from tailrace.contracts.retraining import (
    CandidateRefused,
    CandidateRegistered,
    RetrainHeld,
    RetrainingRecord,
    RetrainRequested,
    TrainingStarted,
)
from tailrace.contracts.topics import AUDIT, Topics
from tailrace.ops.vitals import Vitals
from tailrace.runtime.dead_letters import dead_letter_of

KEPT = 200
"""Newest records of each kind that are shown; the topics keep the rest."""
KEPT_QUALITY = 4_000


class LoopView:
    """The state of the loop, as JSON-ready data. Not thread-safe: one thread at a time applies and reads.

    Args:
        topics: Topics of the use case.
    """

    def __init__(self, topics: Topics) -> None:
        self.vitals = Vitals()
        self.routing: RoutingTable | None = None
        self.watermark_ms: int | None = None
        self._topics = topics
        self._quality: dict[bytes, Quality] = {}
        self._drift: dict[str, Drift] = {}
        self._active: dict[tuple[str, str, str, str], Alarm] = {}
        self._alarms: deque[Alarm] = deque(maxlen=KEPT)
        self._runs: dict[str, dict[str, Any]] = {}
        self._registered: dict[str, CandidateRegistered] = {}
        self._audit: deque[AuditEntry] = deque(maxlen=KEPT)
        self._dead_letters: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._reasons: Counter[str] = Counter()
        self._replayed = 0

    @property
    def subscriptions(self) -> tuple[str, ...]:
        """Topics to feed to `apply`."""
        t = self._topics
        return (t.control, t.quality, t.drift, t.alarms, t.retraining, t.dead_letters, t.heartbeats, AUDIT)

    def apply(self, message: Message) -> None:
        """Takes one record of a subscribed topic."""
        t, value = self._topics, message.value
        if message.topic == t.dead_letters:
            self._take_dead_letter(message)
        elif value is None:
            if message.topic == t.quality:
                self._quality.pop(message.key or b"", None)
        elif message.topic == t.heartbeats:
            self.vitals.apply(decode(Heartbeat, value))
        elif message.topic == t.control:
            self.routing = decode(RoutingTable, value)
        elif message.topic == t.quality:
            self._take_quality(message.key or b"", decode(Quality, value))
        elif message.topic == t.drift:
            drift = decode(Drift, value)
            self._drift[drift.subject] = drift
        elif message.topic == t.alarms:
            self._take_alarm(decode(Alarm, value))
        elif message.topic == t.retraining:
            self._take_retraining(decode(RetrainingRecord, value))  # type: ignore[arg-type]  # a union
        elif message.topic == AUDIT:
            entry = decode(AuditEntry, value)
            if entry.use_case == t.use_case:
                self._audit.append(entry)
                graded = self._runs.get(entry.evidence.get("run_id", "")) if entry.action == "graded" else None
                if graded is not None and "gain" in entry.evidence:
                    graded["gain"] = float(entry.evidence["gain"])

    @property
    def versions(self) -> frozenset[str]:
        """Registered model versions."""
        return frozenset(self._registered)

    @property
    def active_alarms(self) -> list[Alarm]:
        """Alarms that have not been resolved, the newest first."""
        return sorted(self._active.values(), key=lambda alarm: -alarm.raised_at_ms)

    @property
    def failed_run(self) -> str:
        """Why the newest training was refused; "" when it was not."""
        ended = [run for run in self._runs.values() if run["state"] in ("registered", "refused")]
        return str(ended[-1]["outcome"]) if ended and ended[-1]["state"] == "refused" else ""

    def panels(self) -> dict[str, Any]:
        """Quality, drift, models, retraining, alarms, dead letters and audit. Times are epoch milliseconds."""
        return {
            "quality": self.quality(),
            "drift": self.drift(),
            "models": self.models(),
            "retraining": list(self._runs.values())[: -KEPT - 1 : -1],
            "alarms": msgspec.to_builtins(list(self._alarms)[::-1]),
            "dead_letters": {
                "total": sum(self._reasons.values()),
                "replayed": self._replayed,
                "by_reason": dict(self._reasons.most_common()),
                "newest": list(self._dead_letters)[::-1],
            },
            "audit": msgspec.to_builtins(list(self._audit)[::-1]),
        }

    def quality(self) -> list[dict[str, Any]]:
        """Live metrics of every day window and version, over all slices, the oldest first."""
        whole = [record for record in self._quality.values() if record.slice == "" and not record.auxiliary]
        return [_summary(q) for q in sorted(whole, key=lambda q: (q.window_start_ms, q.variant))[-2 * KEPT :]]

    def drift(self) -> list[dict[str, Any]]:
        """Newest measurement of every subject, the furthest beyond its threshold first."""
        champion = self.routing.variants[0].model_version if self.routing is not None else ""
        current = [drift for drift in self._drift.values() if drift.model_version == champion]
        ordered = sorted(current, key=lambda drift: -drift.value / drift.threshold)
        return [dict(msgspec.to_builtins(drift)) for drift in ordered]

    def models(self) -> list[dict[str, Any]]:
        """Registered versions with their role, traffic, gates and lineage, the newest first."""
        table = self.routing
        roles = {v.model_version: (v.name, v.share) for v in table.variants} if table is not None else {}
        former = table.warm[0].model_version if table is not None and table.warm else ""
        rows = []
        for version, record in reversed(self._registered.items()):
            role, share = roles.get(version, ("former" if version == former else "", 0.0))
            row = msgspec.to_builtins(record)
            rows.append({"version": version, "role": role, "share": share, **row})
        return rows

    def _take_quality(self, key: bytes, record: Quality) -> None:
        self._quality[key] = record
        self.watermark_ms = max(self.watermark_ms or 0, record.watermark_ms)
        if len(self._quality) > KEPT_QUALITY:
            oldest = min(self._quality, key=lambda k: self._quality[k].window_start_ms)
            del self._quality[oldest]

    def _take_alarm(self, alarm: Alarm) -> None:
        self._alarms.append(alarm)
        name = (alarm.kind, alarm.subject, alarm.detector, alarm.slice)
        if alarm.resolved:
            self._active.pop(name, None)
        else:
            self._active[name] = alarm

    def _take_retraining(self, record: Any) -> None:
        match record:
            case RetrainRequested():
                self._runs.setdefault(record.run_id, {**msgspec.to_builtins(record), "state": "requested"})
                if len(self._runs) > 5 * KEPT:
                    del self._runs[next(iter(self._runs))]
            case RetrainHeld():
                run_id = f"held-{record.held_at_ms}"
                held = {"run_id": run_id, "requested_at_ms": record.held_at_ms, "outcome": f"held: {record.because}"}
                self._runs[run_id] = {**msgspec.to_builtins(record), **held, "state": "held"}
            case TrainingStarted():
                self._run(record.run_id, "training", started_at_ms=record.started_at_ms)
            case CandidateRegistered():
                self._registered.setdefault(record.model_version, record)
                outcome = (
                    f"former version {record.model_version}" if record.recalled else f"version {record.model_version}"
                )
                self._run(record.run_id, "registered", outcome=outcome, gates=record.gates, seconds=record.seconds)
            case CandidateRefused():
                self._run(record.run_id, "refused", outcome=record.reason, gates=record.gates, seconds=record.seconds)

    def _run(self, run_id: str, state: str, **fields: Any) -> None:
        if run_id in self._runs:
            self._runs[run_id] |= {"state": state, **msgspec.to_builtins(fields)}

    def _take_dead_letter(self, message: Message) -> None:
        letter = dead_letter_of(message.headers)
        if letter is not None:
            where = {"partition": message.partition, "offset": message.offset}
            self._dead_letters.append(dict(msgspec.to_builtins(letter)) | where)
            self._reasons[letter.reason] += 1
        elif message.value:
            self._replayed += sum(map(len, decode(DeadLettersReplayed, message.value).offsets.values()))


def _summary(record: Quality) -> dict[str, Any]:
    """A quality record without its histogram, which no person reads."""
    shown = msgspec.to_builtins(record)
    for name in ("bins", "n", "positives", "amounts", "positive_amounts", "top"):
        del shown[name]
    return dict(shown)
