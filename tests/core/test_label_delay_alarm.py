"""A change of how late labels come raises one alarm, and is over when it is over."""

from __future__ import annotations

import numpy as np

from tailrace.contracts.quality import Alarm
from tailrace.core.delay_drift import DelayDrift
from tailrace.core.label_delay import CELLS, STEPS, DelayCurve
from tailrace.core.monitor_state import Champion, MonitorSpec, Suspicion
from tailrace.core.monitoring import Monitor
from tailrace.core.quality import QualityWindows
from tailrace.core.retraining import RetrainSpec

HOUR_MS = 3_600_000
SPEC = RetrainSpec(on=frozenset({"drift"}), at_most_every_ms=0, at_least_every_ms=HOUR_MS, min_labels=0)
CURVE = DelayCurve(np.zeros(CELLS, np.int64), 1, np.ones((1, STEPS + 1)), np.ones((1, STEPS)), np.zeros((1, STEPS)))
LATER = [Suspicion.of_delay(DelayDrift(2 * HOUR_MS, 90.0, 0.12, True, CURVE))]


def monitor() -> Monitor:
    spec = MonitorSpec(
        use_case="shop",
        names=(),
        threshold=0.5,
        metrics=(),
        metric_windows_ms=(),
        detectors=(),
        psi_every_ms=0,
        retrain=SPEC,
        training_window_ms=HOUR_MS,
    )
    watching = Monitor(spec)
    watching.serve(Champion("1", {}, {}))
    return watching


def test_later_labels_raise_one_alarm_that_says_since_when_and_how_much() -> None:
    watching, windows = monitor(), QualityWindows()
    [alarm] = [a for a in watching.tick(5 * HOUR_MS, windows, LATER) if isinstance(a, Alarm)]
    assert (alarm.subject, alarm.since_ms, alarm.value, alarm.resolved) == ("label_delay", 2 * HOUR_MS, 0.12, False)
    assert "later" in alarm.detail
    assert [a for a in watching.tick(6 * HOUR_MS, windows, LATER) if isinstance(a, Alarm)] == []
    # It speaks of the labels, not of a model.
    assert watching.serve(Champion("2", {}, {})) == []
    [over] = [a for a in watching.tick(7 * HOUR_MS, windows) if isinstance(a, Alarm)]
    assert (over.subject, over.resolved) == ("label_delay", True)
