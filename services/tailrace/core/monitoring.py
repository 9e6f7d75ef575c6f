"""What is decided at a tick of stream time: alarms raised and resolved, and whether to ask for a new model.

Everything decided here depends on what is known at the tick, not on the order in which it came: counts
commute, and losses are fed to the detectors sorted by the time they became known.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from tailrace.contracts.records import Alarm, Drift, RetrainRequested
from tailrace.core.delay_drift import MATERIAL, DelayDrift
from tailrace.core.drift import LossDetector, PSIFinding, PSIState, start_loss_detector
from tailrace.core.judged import Judged
from tailrace.core.monitors import ADWIN, PSI, SMALLER_IS_BETTER, Detector, Metric, PageHinkley
from tailrace.core.quality import DAY_MS, QualityWindows, WindowKey
from tailrace.core.retraining import Evidence, RetrainSpec, RetrainState

HOUR_MS = 3_600_000
MATURE = 0.5
"""Share of final labels from which a day takes part in a comparison with the champion's figures.
Below it a day would mostly speak of whatever kind of outcome is reported first."""
MIN_FINAL = 200
"""Final labels below which a metric is too uncertain to raise an alarm."""
_DELAY = "log_rank|label_delay"
"""Name of the alarm that speaks of the labels, and of no model: it stands whatever model serves."""


class MonitorSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What to watch and when to ask for a new model; spans in milliseconds."""

    use_case: str
    names: tuple[str, ...]
    threshold: float
    metrics: tuple[Metric, ...]
    metric_windows_ms: tuple[int, ...]
    detectors: tuple[Detector, ...]
    psi_every_ms: int
    retrain: RetrainSpec
    training_window_ms: int


class Champion(msgspec.Struct, frozen=True):
    """What feedback needs to know of the model that serves, and of the routing table that says so.

    `shadow` is the version of the candidate in shadow, "" for none.
    """

    version: str
    metrics: dict[str, float | None]
    reference: dict[str, Any]
    shadow: str = ""
    decided_at_ms: int = 0


class MonitorSnapshot(msgspec.Struct, kw_only=True):
    """State of a monitor as it is stored."""

    format: int = 1
    ticked_ms: int = -1
    version: str = ""
    psi_since_ms: int = -1
    psi: dict[str, Any] | None = None
    losses: list[dict[str, Any]] = []
    drift: str = ""
    alarms: dict[str, Alarm] = {}
    retrain: RetrainState = msgspec.field(default_factory=RetrainState)


class Monitor:
    """State of the monitoring of one use case.

    Args:
        spec: What to watch.
        snapshot: Where to go on from; None to begin.

    Attributes:
        drops: By metric, at the last tick: how much worse the champion was than at its gates, and the limit.
    """

    def __init__(self, spec: MonitorSpec, snapshot: MonitorSnapshot | None = None) -> None:
        self._spec = spec
        self._state = snapshot or MonitorSnapshot()
        self._champion: Champion | None = None
        self._waiting: list[Judged] = []
        self._psi_spec = next((d for d in spec.detectors if isinstance(d, PSI)), None)
        self._loss_specs = [d for d in spec.detectors if isinstance(d, ADWIN | PageHinkley)]
        self._psi: PSIState | None = None
        self._detectors: list[LossDetector] = []
        self.drops: dict[str, tuple[float, float]] = {}

    @property
    def ticked_ms(self) -> int:
        """Stream time of the last tick; -1 before the first."""
        return self._state.ticked_ms

    @property
    def retrain(self) -> RetrainState:
        """Memory of the retraining policy."""
        return self._state.retrain

    @property
    def version(self) -> str:
        """Version of the champion; "" before the first."""
        return self._state.version

    @property
    def alarms(self) -> Collection[Alarm]:
        """Alarms that stand."""
        return self._state.alarms.values()

    @property
    def wants_vectors(self) -> bool:
        """Whether feature vectors are compared with a reference."""
        return self._psi is not None

    def serve(self, champion: Champion) -> list[Alarm]:
        """Takes up a champion; one of another version starts the detectors anew and resolves what spoke of the old."""
        self._state.retrain.routed(champion.version, champion.shadow, champion.decided_at_ms)
        same = champion.version == self._state.version
        if same and self._champion is not None:
            return []
        self._champion = champion
        stored = self._state.losses if same else []
        self._detectors = [
            start_loss_detector(spec, stored[at] if at < len(stored) else None)
            for at, spec in enumerate(self._loss_specs)
        ]
        if self._psi_spec is not None:
            counts = self._state.psi if same else None
            self._psi = PSIState(self._psi_spec, self._spec.names, champion.reference, counts)
        if same:
            return []
        self._state.version = champion.version
        self._state.drift = ""
        self._state.psi_since_ms = self._state.ticked_ms
        self._waiting = []
        over = {name: alarm for name, alarm in self._state.alarms.items() if name != _DELAY}
        self._state.alarms = {name: alarm for name, alarm in self._state.alarms.items() if name not in over}
        return [msgspec.structs.replace(alarm, resolved=True) for alarm in over.values()]

    def vectors(self, matrix: NDArray[np.float32], scores: NDArray[np.float64]) -> None:
        """Takes the champion's inputs, float32 (n, d) in plan order, and its scores, float64 (n,)."""
        if self._psi is not None:
            self._psi.observe(matrix, scores)

    def judged(self, labels: Judged) -> None:
        """Takes the champion's labels that have just become final; their losses are fed at the next tick."""
        if self._champion is not None and labels.texts:
            self._waiting.append(labels)

    def judged_again(self, labels: Judged) -> None:
        """Takes labels again after a restart, but for those that a tick has fed already."""
        self.judged(labels.taken(np.flatnonzero(labels.known_at_ms > self._state.ticked_ms)))

    def tick(
        self, now_ms: int, windows: QualityWindows, delay: DelayDrift | None = None
    ) -> list[Alarm | Drift | RetrainRequested]:
        """Decides at `now_ms`, epoch milliseconds of stream time; `delay` is a change of how late labels come."""
        self._state.ticked_ms = now_ms
        found = self._feed_losses(now_ms)
        decided: list[Alarm | Drift | RetrainRequested] = [*found, *self._watch_metrics(now_ms, windows)]
        decided += self._watch_features(now_ms)
        decided += self._watch_delay(now_ms, delay)
        request = self._ask(now_ms, windows)
        return [*decided, request] if request is not None else decided

    def snapshot(self) -> MonitorSnapshot:
        """State to store."""
        self._state.psi = self._psi.snapshot() if self._psi is not None else None
        self._state.losses = [detector.snapshot() for detector in self._detectors]
        return self._state

    def _feed_losses(self, now_ms: int) -> list[Alarm]:
        waiting = Judged.joined(self._waiting)
        due = waiting.known_at_ms <= now_ms
        self._waiting = [waiting.taken(np.flatnonzero(~due))]
        if not due.any():
            return []
        taken = waiting.taken(np.flatnonzero(due)).in_order()
        times, scores, positive = taken.known_at_ms, taken.scores, taken.positive
        self._state.retrain.observe(taken.event_time_ms)
        alarms = []
        for spec, detector in zip(self._loss_specs, self._detectors, strict=True):
            at_ms = detector.update(_losses(spec.metric, scores, positive, self._spec.threshold), times)
            if at_ms is not None:
                name = type(spec).__name__
                self._state.drift = f"{name} on {spec.metric} of version {self._state.version}"
                alarm = self._alarm(
                    "drift", spec.metric, name, detector.estimate, 0.0, at_ms, now_ms, self._state.drift
                )
                # It stands until another model serves: a detector that began anew knows nothing of the old level.
                self._state.alarms[f"{name}|{spec.metric}"] = alarm
                alarms.append(alarm)
        return alarms

    def _watch_metrics(self, now_ms: int, windows: QualityWindows) -> list[Alarm]:
        alarms = []
        self.drops = {}
        spans: dict[int, dict[str, float | None]] = {}
        for metric, span_ms in zip(self._spec.metrics, self._spec.metric_windows_ms, strict=True):
            if metric.drop is None or self._champion is None:
                continue
            baseline = self._champion.metrics.get(metric.name)
            if span_ms not in spans:
                spans[span_ms] = self._sliding(span_ms, windows)
            value = spans[span_ms].get(metric.name)
            if baseline is None or value is None:
                continue
            worse = value - baseline if metric.name in SMALLER_IS_BETTER else baseline - value
            self.drops[metric.name] = (worse, metric.drop)
            detail = f"{metric.name} {value:.4f} over {metric.window}, {baseline:.4f} at the gates"
            alarm = self._level("metric_drop", metric.name, "gates", worse, metric.drop, now_ms, detail)
            alarms += [alarm] if alarm is not None else []
        return alarms

    def _sliding(self, span_ms: int, windows: QualityWindows) -> dict[str, float | None]:
        """Metrics of the champion over its newest mature days; none without enough final labels."""
        mature = [
            key
            for key in windows
            if key.slice == ""
            and key.variant == "champion"
            and key.model_version == self._state.version
            and windows.maturity(key) >= MATURE
        ]
        if not mature:
            return {}
        newest_ms = max(key.start_ms for key in mature)
        taken = [key for key in mature if key.start_ms > newest_ms - span_ms]
        if sum(windows.final(key) for key in taken) < MIN_FINAL:
            return {}
        return windows.metrics(taken, self._spec.threshold)

    def _watch_features(self, now_ms: int) -> list[Alarm | Drift]:
        since_ms = self._state.psi_since_ms
        if self._psi is None or now_ms - since_ms < self._spec.psi_every_ms:
            return []
        self._state.psi_since_ms = now_ms
        found: list[Alarm | Drift] = []
        for psi in self._psi.evaluate():
            found.append(self._drift(psi, since_ms, now_ms))
            detail = f"{psi.subject}: population stability index {psi.value:.3f} against the training data"
            alarm = self._level("drift", psi.subject, "PSI", psi.value, psi.threshold, now_ms, detail)
            found += [alarm] if alarm is not None else []
        self._psi.reset()
        return found

    def _watch_delay(self, now_ms: int, delay: DelayDrift | None) -> list[Alarm]:
        """Raises when labels come later or sooner than they did, resolves when they no longer do."""
        standing = self._state.alarms.get(_DELAY)
        if delay is not None and standing is None:
            alarm = self._alarm(
                "drift",
                "label_delay",
                "log_rank",
                delay.size,
                MATERIAL,
                delay.since_ms,
                now_ms,
                f"labels come {'later' if delay.later else 'sooner'} than they did: the older delays misjudge how many "
                f"are still to come by {delay.size:.1%} on average",
            )
            self._state.alarms[_DELAY] = alarm
            return [alarm]
        if delay is None and standing is not None:
            del self._state.alarms[_DELAY]
            return [msgspec.structs.replace(standing, value=0.0, raised_at_ms=now_ms, resolved=True)]
        return []

    def _drift(self, psi: PSIFinding, since_ms: int, now_ms: int) -> Drift:
        return Drift(
            use_case=self._spec.use_case,
            subject=psi.subject,
            detector="PSI",
            value=psi.value,
            threshold=psi.threshold,
            rows=psi.rows,
            since_ms=since_ms,
            measured_at_ms=now_ms,
            model_version=self._state.version,
            edges=psi.edges,
            reference=psi.reference,
            current=psi.current,
        )

    def _level(
        self,
        kind: Literal["drift", "metric_drop"],
        subject: str,
        detector: str,
        value: float,
        limit: float,
        now_ms: int,
        detail: str,
    ) -> Alarm | None:
        """Raises when a value passes its limit, resolves when it is back; None while nothing changes."""
        name = f"{detector}|{subject}"
        active = self._state.alarms.get(name)
        if value > limit and active is None:
            alarm = self._alarm(kind, subject, detector, value, limit, now_ms, now_ms, detail)
            self._state.alarms[name] = alarm
            return alarm
        if value <= limit and active is not None:
            del self._state.alarms[name]
            return msgspec.structs.replace(active, value=value, raised_at_ms=now_ms, detail=detail, resolved=True)
        return None

    def _alarm(
        self,
        kind: Literal["drift", "metric_drop"],
        subject: str,
        detector: str,
        value: float,
        limit: float,
        since_ms: int,
        now_ms: int,
        detail: str,
    ) -> Alarm:
        return Alarm(
            use_case=self._spec.use_case,
            kind=kind,
            subject=subject,
            detector=detector,
            value=value,
            threshold=limit,
            since_ms=since_ms,
            raised_at_ms=now_ms,
            detail=detail,
        )

    def _ask(self, now_ms: int, windows: QualityWindows) -> RetrainRequested | None:
        drops = [alarm.detail for alarm in self._state.alarms.values() if alarm.kind == "metric_drop"]
        evidence = Evidence(
            now_ms=now_ms,
            has_champion=self._champion is not None,
            labels=self._labels(windows),
            drift=self._state.drift,
            metric_drop="; ".join(drops),
            hold=self._state.alarms[_DELAY].detail if _DELAY in self._state.alarms else "",
        )
        decided = self._state.retrain.decide(self._spec.retrain, evidence)
        if decided is None:
            return None
        trigger, reason = decided
        run_id = f"{self._spec.use_case}-{trigger}-{now_ms}"
        self._state.retrain.requested(self._spec.retrain, evidence, run_id)
        self._state.drift = ""
        state = self._state.retrain
        return RetrainRequested(
            run_id=run_id,
            use_case=self._spec.use_case,
            trigger=trigger,
            reason=reason,
            requested_at_ms=now_ms,
            train_until_ms=now_ms,
            train_from_ms=state.change_ms,
            champion=self._state.version,
            evidence=self._evidence(evidence),
        )

    def _evidence(self, evidence: Evidence) -> dict[str, str]:
        """Figures that stood behind a request."""
        state = self._state.retrain
        found = {"labels": str(evidence.labels)}
        if state.change_ms is not None:
            found |= {"change_ms": str(state.change_ms), "labels_since_change": str(state.since_change)}
        for name, (worse, limit) in self.drops.items():
            found[f"{name}_drop"] = f"{worse:.6f} of {limit:g}"
        for alarm in self._state.alarms.values():
            found[f"{alarm.detector} on {alarm.subject}"] = f"{alarm.value:.6f}"
        return found

    def _labels(self, windows: QualityWindows) -> int:
        """Final labels in the span that a model would be trained on now."""
        counted: dict[WindowKey, int] = {
            key: windows.final(key) for key in windows if key.slice == "" and key.variant != "shadow"
        }
        newest_ms = max((key.start_ms for key, final in counted.items() if final), default=0)
        return sum(
            final for key, final in counted.items() if key.start_ms + DAY_MS > newest_ms - self._spec.training_window_ms
        )


def _losses(
    metric: str, scores: NDArray[np.float64], positive: NDArray[np.bool_], threshold: float
) -> NDArray[np.float64]:
    """Loss of each prediction, float64 (n,): larger is worse."""
    if metric == "brier":
        return np.asarray((scores - positive) ** 2)
    if metric == "accuracy":
        return np.asarray((scores >= threshold) != positive, dtype=np.float64)
    return np.asarray(-np.log(np.where(positive, scores, 1.0 - scores)))
