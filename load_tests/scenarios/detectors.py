"""ADWIN and Page-Hinkley over a stream of losses, in losses per second: ours by the batch beside River's one by one.

Log losses of a model whose mean rises once, halfway. Both take every loss into both detectors, with the same parameters;
ours in batches of a thousand, as feedback feeds them at a tick, River's as its documentation shows. No servers are used.
"""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray
from river import drift

from load_tests.bench import Bench, Candidate
from tailrace.core.loss_detectors import LOSS_CAP, start_loss_detector
from tailrace.core.monitors import ADWIN, PageHinkley

UNIT = "losses/s"
SHORT = False
EVENTS = 200_000
BATCH = 1_000
SPECS = (ADWIN("log_loss"), PageHinkley("log_loss"))


def losses(count: int, seed: int) -> NDArray[np.float64]:
    """Log losses, float64 (count,), whose mean rises by half in the middle."""
    drawn = np.random.default_rng(seed).exponential(0.3, count)
    drawn[count // 2 :] *= 1.5
    return drawn


def tailrace(bench: Bench) -> float:
    """Our detectors."""
    values, times = losses(bench.events, bench.seed), np.arange(bench.events)
    detectors = [start_loss_detector(spec) for spec in SPECS]
    began = time.perf_counter()
    alarms = [
        detector.update(values[at : at + BATCH], times[at : at + BATCH])
        for at in range(0, bench.events, BATCH)
        for detector in detectors
    ]
    took_s = time.perf_counter() - began
    _check(any(alarm is not None for alarm in alarms))
    return bench.events / took_s


def river(bench: Bench) -> float:
    """River's."""
    adwin, page_hinkley = SPECS
    values = losses(bench.events, bench.seed).tolist()
    detectors = [
        drift.ADWIN(delta=adwin.delta),  # type: ignore[no-untyped-call]  # its constructor has no types
        drift.PageHinkley(
            min_instances=page_hinkley.min_instances,
            delta=page_hinkley.delta,
            threshold=page_hinkley.threshold,
            mode="up",
        ),
    ]
    alarms = 0
    began = time.perf_counter()
    for value in values:
        for detector in detectors:
            detector.update(min(value, LOSS_CAP) / LOSS_CAP if detector is detectors[0] else value)
            alarms += detector.drift_detected
    took_s = time.perf_counter() - began
    _check(alarms > 0)
    return bench.events / took_s


def _check(alarmed: bool) -> None:
    if not alarmed:
        raise AssertionError("the rise of the losses was not noticed, so the detectors did not do their work")


CANDIDATES: dict[str, Candidate] = {"tailrace": tailrace, "river": river}
FLOORS: dict[str, float] = {}
