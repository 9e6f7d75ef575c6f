"""What is decided at a tick of stream time: alarms raised and resolved, and whether to ask for a new model.

Everything decided here depends on what is known at the tick, not on the order in which it came: counts
commute, and losses are fed to the detectors sorted by the time they became known.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from tailrace.contracts.quality import Alarm, AlarmKind, Drift
from tailrace.contracts.retraining import RetrainHeld, RetrainRequested
from tailrace.contracts.spans import EventSpan
from tailrace.core.alarm_book import AlarmBook
from tailrace.core.drift import PSIState
from tailrace.core.drift_alarms import (
    JOIN_DETECTOR,
    drift_record,
    feature_alarms,
    join_alarms,
    loss_alarms,
    loss_detail,
)
from tailrace.core.e_detector import EDetectorState
from tailrace.core.join_watch import JoinFinding, JoinWatch
from tailrace.core.judged import Judged
from tailrace.core.label_sources import LabelSources
from tailrace.core.loss_watch import LossFinding, LossWatch, named
from tailrace.core.lost_outcomes import LostOutcomes, within
from tailrace.core.metric_watch import labels_within, metric_drops
from tailrace.core.monitor_state import FORMAT, Champion, MonitorSnapshot, MonitorSpec, Suspicion
from tailrace.core.monitors import PSI, EDetector
from tailrace.core.prequential import Prequential
from tailrace.core.quality import DAY_MS, QualityWindows
from tailrace.core.quarantine import distrusted
from tailrace.core.reference import Reference
from tailrace.core.retraining import Evidence, RetrainState, Trigger
from tailrace.core.vector_sample import VectorSample

HOUR_MS = 3_600_000
HOLDS: frozenset[AlarmKind] = frozenset({"broken_join", "label_delay"})
"""Kinds of alarms that speak of the labels and not of a model: while one stands, no model is asked for, whichever
model serves."""
SUSPECT: frozenset[AlarmKind] = HOLDS | {"label_source"}
"""Kinds of alarms that stand for as long as they are handed in, whichever model serves."""
PERFORMANCE: frozenset[Trigger] = frozenset({"drift", "metric_drop", "refit"})
"""Triggers by what labels say of the model: a source that lies can bring them about."""
MAY_SINCE_MS = (DAY_MS, 6 * HOUR_MS)
"""How far back a change may be: a detector dates it late, or not at all."""
MOST_LOOK_MS = 7 * DAY_MS
"""A look at the features that would be longer than a week is spoken of as a week: time leapt."""


class Monitor:
    """State of the monitoring of one use case.

    Args:
        spec: What to watch.
        snapshot: Where to go on from; None to begin.

    Attributes:
        sources: Who reports labels, and whether they are to be trusted.
        waiting: Labels of the champion that the next ticks feed to its detectors.
        lost: Which events may have lost their outcomes.
        drops: By metric, at the last tick: how much worse the champion was than at its gates, and the limit.
    """

    def __init__(self, spec: MonitorSpec, snapshot: MonitorSnapshot | None = None) -> None:
        self._spec = spec
        self._state = snapshot or MonitorSnapshot()
        self._state.format = FORMAT
        self._champion: Champion | None = None
        self.waiting: list[Judged] = []
        self._psi_spec = next((d for d in spec.detectors if isinstance(d, PSI)), None)
        self._loss_specs = [d for d in spec.detectors if not isinstance(d, PSI)]
        self._psi: PSIState | None = None
        self._losses: LossWatch | None = None
        self._joins = JoinWatch(self._state.joins)
        self.sources = LabelSources(self._state.sources)
        self.lost = LostOutcomes(self._state.lost)
        self._book = AlarmBook(spec.use_case, self._state.alarms)
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
    def prequential(self) -> Prequential:
        """How good the champions were lately, label by label."""
        return self._state.prequential

    @property
    def wants_vectors(self) -> bool:
        """Whether feature vectors are compared with a reference."""
        return self._psi is not None

    @property
    def sample(self) -> VectorSample:
        """Which of the champion's vectors are wanted."""
        return self._state.sample

    def serve(self, champion: Champion) -> list[Alarm]:
        """Takes up a champion; one of another version starts the detectors anew and resolves what spoke of the old."""
        self._state.retrain.routed(champion.version, champion.shadow, champion.decided_at_ms)
        same = champion.version == self._state.version
        if same and self._champion is not None:
            return []
        self._champion = champion
        stored = self._state.detectors or named(self._loss_specs, self._state.losses)
        known = Reference.read(champion.reference)
        self._losses = LossWatch(self._loss_specs, self._spec.threshold, known.losses, stored if same else {})
        self._state.losses = []
        if self._psi_spec is not None:
            counts = self._state.psi if same else None
            self._psi = PSIState(self._psi_spec, self._spec.names, champion.reference, counts)
        if same:
            return []
        self._state.version = champion.version
        self._state.drift = ""
        self._state.psi_since_ms = self._state.ticked_ms
        self._state.sample.rows = 0
        self.waiting = []
        gone = {name: alarm for name, alarm in self._state.alarms.items() if alarm.kind not in SUSPECT}
        for name in gone:
            del self._state.alarms[name]
        return [msgspec.structs.replace(alarm, resolved=True) for alarm in gone.values()]

    def vectors(self, matrix: NDArray[np.float32], scores: NDArray[np.float64]) -> None:
        """Takes the champion's inputs, float32 (n, d) in plan order, and its scores, float64 (n,), of a `sample`."""
        if self._psi is not None:
            self._psi.observe(matrix, scores)

    def judged(self, labels: Judged) -> None:
        """Takes the champion's labels that have just become final; their losses are fed at the next tick."""
        if self._champion is not None and labels.texts:
            self.waiting.append(labels)

    def judged_again(self, labels: Judged) -> None:
        """Takes labels again after a restart, but for those that a tick has fed already."""
        self.judged(labels.taken(np.flatnonzero(labels.known_at_ms > self._state.ticked_ms)))

    def predicted(self, times_ms: NDArray[np.int64]) -> None:
        """Takes the times of events that were scored by models with traffic, int64 (n,)."""
        self._joins.predicted(times_ms)

    def joined(self, times_ms: NDArray[np.int64], positive: NDArray[np.bool_]) -> None:
        """Takes outcomes that found their prediction: their own times int64 (n,), and bool (n,) what they say."""
        self._joins.joined(times_ms, positive)

    def advance(self, watermark_ms: int) -> list[Alarm]:
        """Judges the joins minute by minute up to a watermark; a broken one cannot wait for the next tick."""
        return [alarm for finding in self._joins.advance(watermark_ms) for alarm in self._take_join(finding)]

    def tick(
        self,
        now_ms: int,
        windows: QualityWindows,
        suspicions: Sequence[Suspicion] = (),
        names: Sequence[str] = (),
        accuse: Callable[[Sequence[int]], list[Suspicion]] = lambda _: [],
    ) -> list[Alarm | Drift | RetrainRequested | RetrainHeld]:
        """Decides at `now_ms`, epoch milliseconds of stream time.

        Args:
            now_ms: The tick.
            windows: Live quality.
            suspicions: What is known to be wrong with the labels now.
            names: Sources of labels by code, where outcomes name them.
            accuse: Gives the sources that explain a rise of the loss since one of some event times, epoch milliseconds.
        """
        self._state.ticked_ms = now_ms
        decided: list[Alarm | Drift | RetrainRequested | RetrainHeld] = [*self._take(suspicions, now_ms)]
        decided += self._doubt(decided, now_ms)
        decided += self._feed_losses(now_ms, names)
        decided += self._watch_metrics(now_ms, windows)
        decided += self._watch_features(now_ms)
        return [*decided, *self._ask(now_ms, windows, accuse)]

    def snapshot(self) -> MonitorSnapshot:
        """State to store."""
        self._state.psi = self._psi.snapshot() if self._psi is not None else self._state.psi
        self._state.detectors = self._losses.snapshot() if self._losses is not None else self._state.detectors
        self._state.joins = self._joins.snapshot()
        return self._state

    def _take(self, suspicions: Sequence[Suspicion], now_ms: int) -> list[Alarm]:
        alarms = []
        for suspicion in suspicions:
            alarms += self._book.level(True, now_ms, **suspicion._asdict())
        there = {(suspicion.detector, suspicion.subject) for suspicion in suspicions}
        for alarm in [alarm for alarm in self.alarms if alarm.kind in SUSPECT and alarm.detector != JOIN_DETECTOR]:
            if (alarm.detector, alarm.subject) not in there:
                alarms += self._book.level(False, now_ms, detector=alarm.detector, subject=alarm.subject)
        return alarms

    def _doubt(self, raised: Sequence[object], now_ms: int) -> list[Alarm | RetrainHeld]:
        """What was found on labels of a source that has just become suspect is found no longer."""
        fresh = [a for a in raised if isinstance(a, Alarm) and a.kind == "label_source" and not a.resolved]
        if not fresh:
            return []
        held: list[Alarm | RetrainHeld] = []
        if self._state.drift and "drift" in self._spec.retrain.on:
            held += self._hold("drift", self._state.drift, "; ".join(alarm.detail for alarm in fresh), now_ms)
        return [*held, *self._begin_anew(now_ms)]

    def _begin_anew(self, now_ms: int) -> list[Alarm]:
        """Forgets what the loss detectors and metrics have found of the champion; they begin as on its first day."""
        if self._champion is None:
            return []
        known = Reference.read(self._champion.reference)
        self._losses = LossWatch(self._loss_specs, self._spec.threshold, known.losses, {})
        self._state.drift = ""
        self._state.retrain.forget_change()
        own = {type(spec).__name__ for spec in self._loss_specs} | {"gates"}
        gone = [alarm for alarm in self.alarms if alarm.detector in own]
        return [
            resolved
            for alarm in gone
            for resolved in self._book.level(
                False, now_ms, detector=alarm.detector, subject=alarm.subject, slice=alarm.slice
            )
        ]

    def _take_join(self, finding: JoinFinding) -> list[Alarm]:
        self.lost.take(finding)
        return join_alarms(self._book, finding)

    def _feed_losses(self, now_ms: int, names: Sequence[str]) -> list[Alarm]:
        waiting = Judged.joined(self.waiting)
        due = waiting.known_at_ms <= now_ms
        self.waiting = [waiting.taken(np.flatnonzero(~due))]
        # What such labels say is not what happened.
        for spans in (self.lost.spans, self.lost.doubtful(now_ms, self._spec.attribution_ms)):
            due &= ~within(spans, waiting.event_time_ms)
        due &= ~distrusted(self.sources.quarantined, names, waiting.source, waiting.event_time_ms)
        if self._losses is None or not due.any():
            return []
        taken = waiting.taken(np.flatnonzero(due)).in_order()
        self._state.retrain.observe(taken.event_time_ms)
        if self._spec.decides:
            self._state.prequential.feed(taken.scores >= self._spec.threshold, taken.positive)
        found = self._losses.feed(taken)
        decided = self._losses.decided
        return [alarm for finding in found for alarm in self._take_loss(finding, decided, now_ms)]

    def _take_loss(self, finding: LossFinding, decided: Collection[str], now_ms: int) -> list[Alarm]:
        alarms = loss_alarms(self._book, finding, self._state.version, now_ms)
        second_opinion = not isinstance(finding.spec, EDetector) and finding.spec.metric in decided
        said = loss_detail(finding, self._state.version)
        if finding.slice or second_opinion:
            return alarms
        if finding.since_ms is not None:
            self._state.drift = said
            if isinstance(finding.detector, EDetectorState):
                self._state.retrain.changed(self._spec.retrain, finding.since_ms, finding.detector.changed)
        elif any(alarm.resolved for alarm in alarms) and self._state.drift.startswith(said):
            self._state.drift = ""
        return alarms

    def _watch_metrics(self, now_ms: int, windows: QualityWindows) -> list[Alarm]:
        doubtful = self.lost.doubtful(now_ms, self._spec.attribution_ms)
        found = list(metric_drops(self._spec, self._champion, windows, doubtful)) if self._champion is not None else []
        self.drops = {drop.metric: (drop.worse, drop.limit) for drop in found}
        alarms = []
        for name, worse, limit, detail in found:
            fields: dict[str, Any] = {"kind": "metric_drop", "subject": name, "detector": "gates"}
            fields |= {"value": worse, "threshold": limit, "size": worse, "since_ms": now_ms, "detail": detail}
            alarms += self._book.level(worse > limit, now_ms, **fields)
        return alarms

    def _watch_features(self, now_ms: int) -> list[Alarm | Drift]:
        since_ms = max(self._state.psi_since_ms, now_ms - MOST_LOOK_MS)
        if self._psi is None or now_ms - since_ms < self._spec.psi_every_ms:
            return []
        if self._state.psi_since_ms < 0:
            since_ms = now_ms - self._spec.psi_every_ms
        self._state.psi_since_ms = now_ms
        self._state.sample.next_period()
        found: list[Alarm | Drift] = []
        for finding in self._psi.evaluate(since_ms, now_ms):
            found.append(drift_record(self._spec.use_case, self._state.version, finding, since_ms, now_ms))
            found += feature_alarms(self._book, finding, since_ms, now_ms)
        self._psi.reset()
        return found

    def _ask(
        self, now_ms: int, windows: QualityWindows, accuse: Callable[[Sequence[int]], list[Suspicion]]
    ) -> Iterator[Alarm | RetrainRequested | RetrainHeld]:
        drops = [alarm.detail for alarm in self._state.alarms.values() if alarm.kind == "metric_drop"]
        evidence = Evidence(
            now_ms=now_ms,
            has_champion=self._champion is not None,
            labels=labels_within(self._spec.training_window_ms, windows),
            drift=self._state.drift,
            metric_drop="; ".join(drops),
        )
        decided = self._state.retrain.decide(self._spec.retrain, evidence)
        because = "; ".join(alarm.detail for alarm in self._state.alarms.values() if alarm.kind in HOLDS)
        if decided is None or not because:
            self._state.held = ""
        if decided is None:
            return
        trigger, reason = decided
        if because:
            yield from self._hold(trigger, reason, because, now_ms)
            return
        change_ms = self._state.retrain.change_ms
        since_ms = [now_ms - span_ms for span_ms in MAY_SINCE_MS] + ([change_ms] if change_ms is not None else [])
        if trigger in PERFORMANCE and (accused := accuse(since_ms)):
            yield from (alarm for one in accused for alarm in self._book.level(True, now_ms, **one._asdict()))
            yield from self._hold(trigger, reason, "; ".join(one.detail for one in accused), now_ms)
            yield from self._begin_anew(now_ms)
            return
        run_id = f"{self._spec.use_case}-{trigger}-{now_ms}"
        self._state.retrain.requested(self._spec.retrain, evidence, run_id)
        self._state.drift = ""
        state = self._state.retrain
        yield RetrainRequested(
            run_id=run_id,
            use_case=self._spec.use_case,
            trigger=trigger,
            reason=reason,
            requested_at_ms=now_ms,
            train_until_ms=now_ms,
            train_from_ms=state.change_ms,
            champion=self._state.version,
            evidence=self._evidence(evidence),
            quarantined=self.sources.quarantined,
            lost=[EventSpan(since_ms=since_ms, until_ms=until_ms) for since_ms, until_ms in self.lost.spans],
        )

    def _hold(self, trigger: str, reason: str, because: str, now_ms: int) -> Iterator[RetrainHeld]:
        """Says once per trigger that a model would be asked for now."""
        if self._state.held == trigger:
            return
        self._state.held = trigger
        yield RetrainHeld(
            use_case=self._spec.use_case, trigger=trigger, reason=reason, because=because, held_at_ms=now_ms
        )

    def _evidence(self, evidence: Evidence) -> dict[str, str]:
        """Figures that stood behind a request."""
        state = self._state.retrain
        found = {"labels": str(evidence.labels)}
        if state.change_ms is not None:
            found |= {"change_ms": str(state.change_ms), "labels_since_change": str(state.since_change)}
        for name, (worse, limit) in self.drops.items():
            found[f"{name}_drop"] = f"{worse:.6f} of {limit:g}"
        alarms = self._state.alarms.values()
        return found | {f"{alarm.detector} on {alarm.subject}": f"{alarm.value:.6f}" for alarm in alarms}
