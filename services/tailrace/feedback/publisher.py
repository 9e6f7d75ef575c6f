"""What the monitor says, as records and gauges, whether one worker joins all or several tasks are merged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tailrace.backends.codec import decode, encode
from tailrace.backends.ports import Message, Output
from tailrace.backends.telemetry import Metrics
from tailrace.contracts.quality import Alarm, Drift
from tailrace.contracts.retraining import CandidateRefused, CandidateRegistered, RetrainingRecord, RetrainRequested
from tailrace.contracts.topics import Topics
from tailrace.core.monitoring import HOUR_MS, Monitor
from tailrace.core.number_readings import NumberReadings
from tailrace.core.readings import Readings
from tailrace.feedback.gauges import Gauges
from tailrace.feedback.label_counts import LabelCounts
from tailrace.feedback.overview import Fading, Overview, Ticked
from tailrace.usecase.declaration import UseCase
from tailrace.usecase.sources import Label

_RETRAINING: Any = RetrainingRecord
READ_EVERY_MS = 6 * HOUR_MS
"""How often windows that wait for labels are published though nothing in them changed but their age."""


class Publisher:
    """Makes records of what a monitor decides, and exports it.

    Args:
        use_case: The use case.
        metrics: Prometheus handles.

    Attributes:
        gauges: What is exported of a tick.
    """

    def __init__(self, use_case: UseCase, metrics: Metrics) -> None:
        self._use_case = use_case
        self._topics = Topics(use_case.name)
        self._metrics = metrics
        self.gauges = Gauges(metrics)

    def alarms(self, alarms: Sequence[Alarm]) -> list[Output]:
        """Alarms that were raised or resolved."""
        for alarm in alarms:
            if not alarm.resolved:
                self._metrics.alarms.labels(alarm.kind).inc()
        return [Output(self._topics.alarms, alarm.subject.encode(), encode(alarm)) for alarm in alarms]

    def tick(
        self, overview: Overview, counts: Sequence[LabelCounts], tick_ms: int, since_ms: int, ticked: Ticked
    ) -> list[Output]:
        """What a tick gave: decisions, then windows.

        Args:
            overview: What was looked at.
            counts: Counts of each label; the first judges the model.
            tick_ms: The tick, epoch milliseconds.
            since_ms: The tick before it.
            ticked: What it gave.
        """
        outputs: list[Output] = []
        for decided in ticked.decided:
            if isinstance(decided, Alarm):
                outputs += self.alarms([decided])
            elif isinstance(decided, Drift):
                self.gauges.drift(decided)
                outputs.append(Output(self._topics.drift, decided.subject.encode(), encode(decided)))
            else:
                outputs.append(Output(self._topics.retraining, decided.use_case.encode(), encode(decided)))
        use_case, readings = self._use_case, ticked.readings
        is_due = tick_ms // READ_EVERY_MS > since_ms // READ_EVERY_MS
        fading = overview.fading(use_case.plan.threshold)
        outputs += self._quality(use_case.label, counts[0], tick_ms, readings, fading, is_due=is_due)
        for declared, of_label in zip(use_case.auxiliary_labels, counts[1:], strict=True):
            outputs += self._quality(declared, of_label, tick_ms)
        self.gauges.tick(overview, use_case.plan.threshold, readings, fading)
        return outputs

    def take_retraining(self, monitor: Monitor, message: Message) -> bool:
        """Tells the monitor what became of a request; gives whether that changed anything."""
        record = decode(_RETRAINING, message.value or b"")
        if isinstance(record, RetrainRequested):
            self._metrics.retrain_requests.labels(record.trigger).inc()
        elif isinstance(record, CandidateRegistered):
            monitor.retrain.ended(
                record.run_id, record.model_version, record.registered_at_ms, recalled=record.recalled
            )
            return True
        elif isinstance(record, CandidateRefused):
            monitor.retrain.ended(record.run_id)
            return True
        return False

    def _quality(
        self,
        declared: Label,
        counts: LabelCounts,
        tick_ms: int,
        readings: Readings | NumberReadings | None = None,
        fading: Fading | None = None,
        *,
        is_due: bool = False,
    ) -> list[Output]:
        """Windows that changed and, where it `is_due`, those whose readings did; those of auxiliary labels have none.

        Windows that were forgotten are deleted: a compacted topic would keep them for ever.
        """
        auxiliary = readings is None
        prefix = f"{declared.name}|" if auxiliary else ""
        forgotten = [f"{prefix}{key.text()}".encode() for key in counts.take_forgotten_windows()]
        outputs = [Output(self._topics.quality, name, None) for name in forgotten]
        for key in counts.take_changed_windows(readings if readings is not None and is_due else ()):
            record = counts.windows.record(
                key,
                use_case=self._use_case.name,
                label_name=declared.name,
                threshold=self._use_case.plan.threshold,
                watermark_ms=tick_ms,
                auxiliary=auxiliary,
                provisional=readings.provisional(key) if readings is not None else None,
                estimate=readings.estimate(key) if readings is not None else None,
                fading=fading.metrics if fading is not None and key == fading.key else None,
            )
            outputs.append(Output(self._topics.quality, f"{prefix}{key.text()}".encode(), encode(record)))
        return outputs
