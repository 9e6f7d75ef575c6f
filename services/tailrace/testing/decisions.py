"""What a use case decided, as its topics tell it: on a broker, or in the simulator."""

from __future__ import annotations

import hashlib

import msgspec
import numpy as np

from tailrace.backends.codec import decode
from tailrace.contracts.quality import Alarm, Quality
from tailrace.contracts.records import RoutingTable
from tailrace.contracts.retraining import (
    CandidateRefused,
    CandidateRegistered,
    RetrainingRecord,
    RetrainRequested,
    TrainingStarted,
)
from tailrace.contracts.topics import Topics
from tailrace.core.metrics import merge
from tailrace.core.scoring import BINS, score_of

NO_MODEL = "0"
"""Version that stands for the default score, before the first model."""


class Decision(msgspec.Struct, frozen=True):
    """One thing that was decided; equal in every run of the same streams.

    `at_ms` is stream time, epoch milliseconds; `model` the version or digest it is about, "" for none; `value`
    the statistic behind an alarm.
    """

    at_ms: int
    what: str
    model: str
    why: str
    value: float | None = None


class DecisionLog:
    """QUALITY, ALARMS, RETRAINING and CONTROL of one use case.

    Args:
        use_case: Its name.

    Attributes:
        topics: Names of the topics to take from.
        quality_records: The newest record of each window, variant and version over all slices together.
        auxiliary_records: The same of auxiliary labels, by the name of the label too.
        alarms: Alarms, raised and resolved.
        retraining: Requests and what became of them.
        tables: Routing tables.
    """

    def __init__(self, use_case: str) -> None:
        names = Topics(use_case)
        self.topics = (names.quality, names.alarms, names.retraining, names.control)
        self.quality_records: dict[tuple[int, str, str], Quality] = {}
        self.auxiliary_records: dict[tuple[str, int, str, str], Quality] = {}
        self.alarms: list[Alarm] = []
        self.retraining: list[RetrainingRecord] = []
        self.tables: list[RoutingTable] = []

    def take(self, topic: str, value: bytes) -> None:
        """Takes in a record of one of `topics`; those of each in their order."""
        of_quality, of_alarms, of_retraining, _ = self.topics
        if topic == of_quality:
            quality = decode(Quality, value)
            key = (quality.window_start_ms, quality.variant, quality.model_version)
            if quality.auxiliary and not quality.slice:
                self.auxiliary_records[quality.label_name, *key] = quality
            elif not quality.slice:
                self.quality_records[key] = quality
        elif topic == of_alarms:
            self.alarms.append(decode(Alarm, value))
        elif topic == of_retraining:
            self.retraining.append(_RETRAINING.decode(value))
        else:
            self.tables.append(decode(RoutingTable, value))

    def log(self) -> list[Decision]:
        """Alarms, requests, candidates and routing tables in order of stream time, without wall-clock times."""
        asked_ms = {r.run_id: r.requested_at_ms for r in self.retraining if isinstance(r, RetrainRequested)}
        found = [_alarm(alarm) for alarm in self.alarms]
        for record in self.retraining:
            match record:
                case RetrainRequested():
                    found.append(Decision(record.requested_at_ms, f"retrain: {record.trigger}", "", record.reason))
                case CandidateRegistered():
                    why = f"{record.run_id}: {record.digest}"
                    found.append(Decision(record.registered_at_ms, "candidate", record.model_version, why))
                case CandidateRefused():
                    at_ms = asked_ms.get(record.run_id, record.refused_at_ms)
                    found.append(Decision(at_ms, "refused", "", f"{record.run_id}: {record.reason}"))
        found += [_routed(table) for table in self.tables]
        return sorted(found, key=lambda decision: decision.at_ms)

    def log_hash(self) -> str:
        """16 hex digits over `log`."""
        return hashlib.sha256(msgspec.json.encode(self.log())).hexdigest()[:16]

    @property
    def champion(self) -> str:
        """Version of the champion; "" while there is none."""
        return champion_of(self.tables[-1]) if self.tables else ""

    def decisions(self) -> list[dict[str, str]]:
        """Everything that was decided, without wall-clock times: equal in every run of the same replay."""
        return [_retraining(record) for record in self.retraining if not isinstance(record, TrainingStarted)] + [
            _routing(table) for table in self.tables
        ]

    def decisions_hash(self) -> str:
        """16 hex digits over `decisions`."""
        return hashlib.sha256(msgspec.json.encode(self.decisions())).hexdigest()[:16]

    def accuracy(self, from_ms: int, until_ms: int) -> dict[str, dict[str, float | None]]:
        """Metrics per version over the windows that begin in a span, from summed histograms.

        Returns:
            Version to metric to figure; "labelled" and "predictions" among them. Shadows are left out.
        """
        found: dict[str, list[Quality]] = {}
        for record in self.quality_records.values():
            if from_ms <= record.window_start_ms < until_ms and record.variant != "shadow":
                found.setdefault(record.model_version, []).append(record)
        return {version: summed(found[version]) for version in sorted(found, key=lambda text: (len(text), text))}

    def log_loss(self, from_ms: int, until_ms: int) -> float | None:
        """Log loss of the same over all versions that are models; None without labels."""
        rows = [row for version, row in self.accuracy(from_ms, until_ms).items() if version != NO_MODEL]
        known = [(row["log_loss"], row["labelled"]) for row in rows]
        weighed = [(loss, labelled) for loss, labelled in known if loss is not None and labelled]
        total = sum(labelled for _, labelled in weighed)
        return sum(loss * labelled for loss, labelled in weighed) / total if total else None


_RETRAINING = msgspec.json.Decoder(RetrainingRecord)


def champion_of(table: RoutingTable) -> str:
    """Version of a routing table's champion; "" where it has none."""
    return next((variant.model_version for variant in table.variants if variant.role == "champion"), "")


def summed(records: list[Quality]) -> dict[str, float | None]:
    """Metrics over several windows: exact, because histograms of integers add up.

    Returns:
        "predictions", "labelled", "log_loss", "pr_auc" and "f1" (best over thresholds); of numbers "predictions",
        "labelled" and those of `ERROR_METRICS`. None without data.
    """
    counted: dict[str, float | None] = {
        "predictions": sum(record.predictions for record in records),
        "labelled": sum(record.final for record in records),
    }
    if any("error_step" in record.metrics for record in records):
        return counted | merge(records)
    n, positives = np.zeros(BINS, np.int64), np.zeros(BINS, np.int64)
    for record in records:
        np.add.at(n, record.bins, record.n)
        np.add.at(positives, record.bins, record.positives)
    total, hits = int(n.sum()), int(positives.sum())
    out: dict[str, float | None] = {**counted, "log_loss": None, "pr_auc": None, "f1": None}
    if total:
        score = score_of(np.arange(BINS))
        out["log_loss"] = float(-(positives @ np.log(score) + (n - positives) @ np.log1p(-score)) / total)
    if hits:
        above, right = np.cumsum(n[::-1]), np.cumsum(positives[::-1])
        precision = right / np.maximum(above, 1)
        out["pr_auc"] = float(precision @ positives[::-1] / hits)
        out["f1"] = float(np.max(2 * right / (above + hits)))
    return out


def _alarm(alarm: Alarm) -> Decision:
    what = f"{'resolved' if alarm.resolved else 'alarm'}: {alarm.kind} {alarm.subject}"
    return Decision(alarm.raised_at_ms, what, "", alarm.detail, alarm.value)


def _routed(table: RoutingTable) -> Decision:
    variants = ", ".join(f"{v.role} {v.model_version}" for v in table.variants)
    return Decision(table.decided_at_ms, f"epoch {table.epoch}: {variants}", champion_of(table), table.reason)


def _retraining(record: RetrainingRecord) -> dict[str, str]:
    match record:
        case RetrainRequested():
            return {
                "what": f"retrain {record.trigger}",
                "run": record.run_id,
                "stream_ms": str(record.requested_at_ms),
                "model": "",
            }
        case CandidateRegistered():
            return {"what": f"registered {record.model_version}", "run": record.run_id, "model": record.digest}
        case CandidateRefused():
            return {"what": "refused", "run": record.run_id, "model": "", "reason": record.reason}
        case _:
            return {"what": type(record).__name__}


def _routing(table: RoutingTable) -> dict[str, str]:
    variants = ", ".join(f"{v.role} {v.model_version} {v.share:g}" for v in table.variants)
    return {"what": f"epoch {table.epoch}: {variants}", "stream_ms": str(table.decided_at_ms), "reason": table.reason}
