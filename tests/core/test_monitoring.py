"""What is decided at a tick: who may ask for a model, what holds it, and what an alarm says."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from tailrace.contracts.quality import Alarm
from tailrace.contracts.retraining import RetrainHeld, RetrainRequested
from tailrace.core.e_detector import Baseline
from tailrace.core.judged import Judged
from tailrace.core.label_delay import STEPS, Delays, bin_of_delay, learn
from tailrace.core.monitor_state import Champion, MonitorSnapshot, MonitorSpec, Suspicion
from tailrace.core.monitoring import Monitor
from tailrace.core.monitors import ADWIN, PSI, Detector, EDetector
from tailrace.core.quality import QualityWindows
from tailrace.core.retraining import RetrainSpec
from tailrace.core.scoring import on_grid
from tailrace.trainer.reference import Distribution, Reference

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
MINUTE_MS = 60_000
START_MS = 20_000 * DAY_MS
WINDOWS = QualityWindows()


def spec(*detectors: Detector) -> MonitorSpec:
    return MonitorSpec(
        use_case="u",
        names=("x",),
        threshold=0.5,
        metrics=(),
        metric_windows_ms=(),
        detectors=detectors,
        psi_every_ms=DAY_MS,
        retrain=RetrainSpec(on=frozenset({"drift"}), at_most_every_ms=0, at_least_every_ms=None, min_labels=0),
        training_window_ms=7 * DAY_MS,
    )


def champion(version: str = "1", errors: float = 0.1) -> Champion:
    even = Distribution(edges=[0.25, 0.5, 0.75], counts=[5_000] * 4, nulls=0, low=0.0, high=1.0, scale=0.5)
    losses = {"accuracy": Baseline(20_000, 20_000 * errors, 20_000 * errors)}
    known = Reference(format=2, rows=20_000, features={"x": even}, score=even, losses=losses)
    return Champion(version, {}, msgspec.to_builtins(known))


def labels(start_ms: int, span_ms: int, count: int, errors: float, seed: int = 0, channel: str = "web") -> Judged:
    """Final labels of events within a span, known an hour later; so many of the decisions are wrong."""
    rng = np.random.default_rng(seed)
    times = start_ms + np.arange(count, dtype=np.int64) * span_ms // count
    wrong = rng.random(count) < errors
    scores = on_grid(np.where(rng.random(count) < 0.5, 0.8, 0.2))
    positive = (scores >= 0.5) ^ wrong
    slices = [b'{"channel":"%s"}' % channel.encode()] * count
    return Judged(times + HOUR_MS, times, [b""] * count, scores, positive, slices, np.zeros(count, np.uint8))


def ticked(monitor: Monitor, hours: range, *suspicions: Suspicion) -> list[Any]:
    """What the ticks of some hours decide."""
    decided: list[Any] = []
    for hour in hours:
        decided += monitor.advance(START_MS + hour * HOUR_MS)
        decided += monitor.tick(START_MS + hour * HOUR_MS, WINDOWS, suspicions)
    return decided


def of(decided: list[Any], kind: type) -> list[Any]:
    return [one for one in decided if isinstance(one, kind)]


def begun(*detectors: Detector) -> Monitor:
    monitor = Monitor(spec(*detectors))
    monitor.retrain.requested_at_ms = START_MS
    monitor.serve(champion())
    return monitor


def worse(monitor: Monitor, hour: int = 0) -> None:
    monitor.judged(labels(START_MS + hour * HOUR_MS, 10 * HOUR_MS, 3_000, 0.1, 1))
    monitor.judged(labels(START_MS + (hour + 10) * HOUR_MS, 10 * HOUR_MS, 3_000, 0.3, 2))


def test_alarm_on_the_loss_says_since_when_how_far_and_where_and_asks_for_a_model() -> None:
    monitor = begun(EDetector("accuracy"))
    worse(monitor)
    decided = ticked(monitor, range(1, 24))
    whole, sliced = sorted(of(decided, Alarm), key=lambda alarm: alarm.slice)
    assert (whole.kind, whole.subject, whole.slice, sliced.slice) == ("drift", "accuracy", "", "channel=web")
    assert abs(whole.since_ms - (START_MS + 10 * HOUR_MS)) < HOUR_MS
    assert whole.raised_at_ms <= START_MS + 13 * HOUR_MS
    assert whole.value == pytest.approx(0.3, abs=0.1)
    assert whole.threshold == pytest.approx(0.1035, abs=0.002)
    assert whole.size == whole.value - whole.threshold
    [request] = of(decided, RetrainRequested)
    assert request.reason == whole.detail


def test_alarm_on_the_loss_is_resolved_when_the_loss_is_back() -> None:
    monitor = begun(EDetector("accuracy"))
    monitor.retrain.pending = "until then"
    worse(monitor)
    monitor.judged(labels(START_MS + 20 * HOUR_MS, 10 * HOUR_MS, 6_000, 0.1, 3))
    decided = ticked(monitor, range(1, 36))
    of_whole = [alarm.resolved for alarm in of(decided, Alarm) if not alarm.slice]
    assert of_whole == [False, True]
    monitor.retrain.pending = ""
    assert of(ticked(monitor, range(36, 40)), RetrainRequested) == []


def test_second_opinion_alarms_but_asks_for_nothing_while_the_e_detector_is_sure() -> None:
    both = begun(EDetector("accuracy", run_length=10**200), ADWIN("accuracy"))
    alone = begun(ADWIN("accuracy"))
    for monitor in (both, alone):
        worse(monitor)
    decided = [ticked(monitor, range(1, 15)) for monitor in (both, alone)]
    assert [[a.detector for a in of(one, Alarm) if not a.slice][:1] for one in decided] == [["ADWIN"], ["ADWIN"]]
    assert [len(of(one, RetrainRequested)) for one in decided] == [0, 1]


def test_drift_of_features_alarms_and_asks_for_nothing() -> None:
    monitor = begun(PSI(every="1d"))
    ticked(monitor, range(1, 2))
    monitor.vectors(np.full((2_000, 1), 0.9, np.float32), np.random.default_rng(1).random(2_000))
    decided = ticked(monitor, range(2, 27))
    assert [(alarm.subject, alarm.detector) for alarm in of(decided, Alarm)] == [("x", "PSI")]
    assert of(decided, RetrainRequested) == []


def test_suspect_labels_hold_a_model_that_would_be_asked_for_and_say_so_once() -> None:
    monitor = begun(EDetector("accuracy"))
    worse(monitor)
    suspicion = Suspicion("label_delay", "delay", "two estimators", 0.2, 0.1, 0.1, START_MS, "labels come later")
    held = ticked(monitor, range(1, 24), suspicion)
    assert of(held, RetrainRequested) == []
    [said] = of(held, RetrainHeld)
    assert (said.trigger, said.because) == ("drift", "labels come later")
    assert [alarm.detail for alarm in of(held, Alarm) if alarm.kind == "label_delay"] == ["labels come later"]
    after = ticked(monitor, range(24, 26))
    assert [alarm.resolved for alarm in of(after, Alarm)] == [True]
    assert len(of(after, RetrainRequested)) == 1


def traffic(monitor: Monitor, hour: int, share: float) -> None:
    """An hour of 90 predictions a minute, each answered within it with some probability."""
    minutes = START_MS + hour * HOUR_MS + np.repeat(np.arange(60) * MINUTE_MS, 90)
    monitor.predicted(minutes)
    came = minutes[np.random.default_rng(hour).random(len(minutes)) < share]
    monitor.joined(came, np.zeros(len(came), np.bool_))


def test_broken_join_alarms_in_minutes_holds_and_its_labels_are_no_evidence() -> None:
    monitor = begun(EDetector("accuracy"), ADWIN("accuracy"))
    decided: list[Any] = []
    for hour in range(60):
        broken = 40 <= hour < 43
        traffic(monitor, hour, 0.4 if broken else 0.8)
        # Without their outcomes half of the labels are wrong, and those of the outage alone.
        monitor.judged(labels(START_MS + hour * HOUR_MS, HOUR_MS, 500, 0.5 if broken else 0.1, hour))
        decided += ticked(monitor, range(hour + 1, hour + 2))
    assert [(alarm.kind, alarm.resolved) for alarm in of(decided, Alarm)] == [
        ("broken_join", False),
        ("broken_join", True),
    ]
    raised, over = of(decided, Alarm)
    assert START_MS + 40 * HOUR_MS < raised.raised_at_ms <= START_MS + 40 * HOUR_MS + 5 * MINUTE_MS
    assert START_MS + 43 * HOUR_MS < over.raised_at_ms <= START_MS + 43 * HOUR_MS + 10 * MINUTE_MS
    assert of(decided, RetrainRequested) == []


@pytest.mark.parametrize("knows_delays", [True, False])
def test_labels_of_events_that_lost_their_outcomes_are_no_evidence_half_a_day_later(*, knows_delays: bool) -> None:
    #   hour   39      40      41   ...   51      52      53   ...   70
    #          events of which     |      their labels: half of     | drift
    #          outcomes are lost   | ok   them wrong                |
    monitor = begun(EDetector("accuracy"))
    delays = np.random.default_rng(0).exponential(HOUR_MS / 3, 5_000).astype(np.int64)
    ones = np.ones(len(delays), np.int64)
    curve = learn(Delays(0 * ones, 0 * ones, bin_of_delay(delays), STEPS * ones, ones), 4 * HOUR_MS)
    assert curve is not None
    decided: list[Any] = []
    for hour in range(90):
        traffic(monitor, hour, 0.4 if hour == 40 else 0.8)
        errors = 0.5 if hour in (39, 40) or hour >= 58 else 0.1
        judged = labels(START_MS + hour * HOUR_MS, HOUR_MS, 500, errors, hour)
        monitor.judged(judged._replace(known_at_ms=judged.event_time_ms + 12 * HOUR_MS))
        now_ms = START_MS + (hour + 1) * HOUR_MS
        decided += monitor.advance(now_ms)
        if knows_delays:
            monitor.lost.tell(now_ms, [curve])
        decided += monitor.tick(now_ms, WINDOWS)
    asked = of(decided, RetrainRequested)[0]
    spans = [(span.since_ms, span.until_ms) for span in asked.lost]
    assert (asked.requested_at_ms >= START_MS + 70 * HOUR_MS) is knows_delays
    assert monitor.lost.spans == spans
    assert bool(spans) is knows_delays


def test_broken_join_stands_when_another_model_serves() -> None:
    monitor = begun(EDetector("accuracy"))
    suspicion = Suspicion("label_delay", "delay", "two estimators", 0.2, 0.1, 0.1, START_MS, "labels come later")
    ticked(monitor, range(1, 2), suspicion)
    assert monitor.serve(champion("2")) == []
    assert [alarm.kind for alarm in monitor.alarms] == ["label_delay"]


def test_restored_monitor_goes_on_as_the_one_that_ran() -> None:
    one, two = (begun(EDetector("accuracy"), ADWIN("accuracy"), PSI()) for _ in range(2))
    rng = np.random.default_rng(4)
    heard: list[list[Any]] = [[], []]
    for hour in range(40):
        rows, scores = rng.random((50, 1)).astype(np.float32), rng.random(50)
        for place, monitor in enumerate((one, two)):
            traffic(monitor, hour, 0.8)
            monitor.vectors(rows, scores)
            monitor.judged(labels(START_MS + hour * HOUR_MS, HOUR_MS, 300, 0.1 if hour < 30 else 0.4, hour))
            heard[place] += ticked(monitor, range(hour + 2, hour + 3))
        stored = msgspec.json.decode(msgspec.json.encode(two.snapshot()), type=MonitorSnapshot)
        two = Monitor(spec(EDetector("accuracy"), ADWIN("accuracy"), PSI()), stored)
        two.serve(champion())
    assert heard[0] == heard[1]
    assert msgspec.json.encode(one.snapshot()) == msgspec.json.encode(two.snapshot())
    assert of(heard[0], Alarm)


def test_snapshot_of_an_older_release_is_read() -> None:
    old = {
        "format": 1,
        "ticked_ms": START_MS,
        "version": "1",
        "psi": None,
        "losses": [{"rows": [[[0.25, 0.0625]]], "count": 1, "total": 0.25, "squares": 0.0625, "ticks": 1}],
        "drift": "",
        "alarms": {},
        "retrain": {"requested_at_ms": START_MS, "pending": ""},
    }
    monitor = Monitor(spec(ADWIN("accuracy")), msgspec.convert(old, MonitorSnapshot))
    assert monitor.serve(champion()) == []
    assert monitor.snapshot().detectors["ADWIN|accuracy"]["count"] == 1
