"""Loss drift: false alarms on steady errors and delay after a rise, ours beside River's detectors on the same streams.

Each stream has 100,000 steady errors, on which false alarms are counted, and then more of them. Ours knows the
errors of the champion on 20,000 labels drawn beside the stream, as from the gates of a training ("gates"), its
true rate ("known"), or nothing but the stream ("first labels"). River's begin with the stream.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from river import drift
from river.drift import binary

from load_tests.studies.report import Figure, report
from tailrace.core.e_detector import Baseline, EDetectorState
from tailrace.core.monitors import EDetector

STEADY, RISEN = 100_000, 20_000
GATES, KNOWN = 20_000, 10**9
CHANGES = ((0.1, 0.15, 500), (0.02, 0.05, 450), (0.3, 0.5, 120))
STEP = 5
"""Labels that ours takes at a time after the rise: its delays are rounded up to them."""
OURS = 100
STREAMS = 2
"""Numbers these streams: the detector was chosen on others."""
KSWIN_STREAMS = 1
"""It sees 17,000 errors a second."""

Errors = NDArray[np.float64]
Measured = tuple[int, int]


class Updated(Protocol):
    """A detector of River."""

    @property
    def drift_detected(self) -> bool:
        """Whether the last value brought an alarm."""

    def update(self, x: bool, /) -> object:
        """Takes a value."""


RIVER: dict[str, Callable[[], Updated]] = {
    "ADWIN": drift.ADWIN,
    "PageHinkley": drift.PageHinkley,
    "DDM": binary.DDM,
    "EDDM": binary.EDDM,
    "HDDM_A": binary.HDDMA,
    "HDDM_W": binary.HDDMW,
    "FHDDM": binary.FHDDM,
    "KSWIN": drift.KSWIN,
}


def study(seeds: int) -> list[Figure]:
    """River's detectors see as many streams as there are seeds, ours `OURS` times as many."""
    figures = []
    for name, gates in (("gates", GATES), ("known", KNOWN), ("first labels", 0)):
        figures += _rows(f"ours, {name}", partial(_ours, gates), OURS * seeds, judged=gates > 0)
    for name, make in RIVER.items():
        streams = min(seeds, KSWIN_STREAMS) if name == "KSWIN" else seeds
        figures += _rows(f"river {name}", partial(_river, make), streams, judged=False)
    return figures


def _rows(name: str, detector: Callable[[Errors, float, int], Measured], streams: int, *, judged: bool) -> list[Figure]:
    """Figures of one detector; judged by the bars or not."""
    figures = []
    for before, after, bar in CHANGES:
        measured = []
        for seed in range(streams):
            rng = np.random.default_rng([STREAMS, seed, int(1_000 * before)])
            errors = np.concatenate([rng.random(STEADY) < before, rng.random(RISEN) < after]).astype(np.float64)
            measured.append(detector(errors, before, seed))
        false, delays = zip(*measured, strict=True)
        alarms = f"{name}: false alarms in 100,000 at {before:g}"
        delay = f"{name}: median delay {before:g} -> {after:g} ({RISEN}: none)"
        figures.append(Figure(alarms, float(np.mean(false)), 1.0 if judged else None))
        figures.append(Figure(delay, float(np.median(delays)), bar if judged else None))
    return figures


def _ours(gates: int, errors: Errors, rate: float, seed: int) -> Measured:
    hits = rate * gates if gates == KNOWN else float(np.random.default_rng([STREAMS, seed, 7]).binomial(gates, rate))
    detector = EDetectorState.begun(EDetector("accuracy"), Baseline(gates, hits, hits), 1.0)
    times, false = np.arange(len(errors)), 0
    for at in range(0, STEADY, 1_000):
        false += detector.update(errors[at : at + 1_000], times[at : at + 1_000]) is not None
    for at in range(STEADY, len(errors), STEP):
        if detector.update(errors[at : at + STEP], times[at : at + STEP]) is not None:
            return false, at + STEP - STEADY
    return false, RISEN


def _river(make: Callable[[], Updated], errors: Errors, rate: float, seed: int) -> Measured:
    detector, false = make(), 0
    for at, error in enumerate((errors > 0.0).tolist()):
        detector.update(error)
        if detector.drift_detected:
            if at >= STEADY:
                return false, at + 1 - STEADY
            false += 1
    return false, RISEN


if __name__ == "__main__":
    report(study)
