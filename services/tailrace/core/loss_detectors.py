"""Detectors of drift in the mean of a stream of losses. Only a rise is drift."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from tailrace.core.e_detector import Baseline, EDetectorData, EDetectorState
from tailrace.core.loss_kernels import COUNT, PH_MEAN, TOTAL, USED, adwin, empty_rows, page_hinkley
from tailrace.core.monitors import ADWIN, EDetector, LossSpec, PageHinkley

LOSS_CAP = 4.0
"""Losses are cut off here for ADWIN and the e-detector, whose bounds need values of known range: one event that
was thought impossible (log loss 16) would otherwise weigh as much as hundreds of ordinary misses."""
LOSSES = ("accuracy", "brier", "log_loss")
"""Metrics that are a mean over single predictions."""
LOSSES_OF_NUMBERS = ("absolute_error",)
"""The same of predicted numbers: absolute errors as shares of their range."""


class LossDetector(Protocol):
    """State of a detector."""

    @property
    def estimate(self) -> float:
        """Mean of the losses it holds; of an alarm that stands, since the change."""

    @property
    def limit(self) -> float:
        """Mean loss from which there is drift; 0 where the detector knows of none."""

    @property
    def standing(self) -> bool:
        """Whether the newest alarm is known to stand still; False where the detector forgets it."""

    @property
    def sure(self) -> bool:
        """Whether no other detector of the same losses need decide beside it."""

    def update(self, values: NDArray[np.float64], times_ms: NDArray[np.int64]) -> int | None:
        """Feeds losses in order.

        Args:
            values: float64 (n,), >= 0.
            times_ms: int64 (n,), epoch milliseconds, in whatever sense the caller wants to know since when.

        Returns:
            Time of the value at which the first drift that was detected began, or, where the detector
            cannot tell, at which it was detected; else None. The detector goes on with the rest.
        """

    def snapshot(self) -> dict[str, Any]:
        """Plain data from which `start_loss_detector` goes on exactly."""


def start_loss_detector(
    spec: LossSpec, snapshot: dict[str, Any] | None = None, baseline: Baseline | None = None
) -> LossDetector:
    """A detector that begins, against the losses known of the champion, or goes on from a snapshot."""
    detector: LossDetector
    if isinstance(spec, EDetector):
        cap = LOSS_CAP if spec.metric == "log_loss" else 1.0
        if snapshot:
            detector = EDetectorState(spec, msgspec.convert(snapshot, EDetectorData), cap)
        else:
            detector = EDetectorState.begun(spec, baseline or Baseline(), cap)
    elif isinstance(spec, ADWIN):
        detector = _AdwinState(spec, msgspec.convert(snapshot, _AdwinData) if snapshot else _AdwinData())
    else:
        data = msgspec.convert(snapshot, _PageHinkleyData) if snapshot else _PageHinkleyData()
        detector = _PageHinkleyState(spec, data)
    # Loads the compiled loop, most of a second, now and not at the first tick amid the traffic.
    detector.update(np.empty(0), np.empty(0, np.int64))
    return detector


def losses(
    metric: str, scores: NDArray[np.float64], positive: NDArray[np.bool_], threshold: float
) -> NDArray[np.float64]:
    """Loss of each prediction.

    Args:
        metric: One of `LOSSES`, or of `LOSSES_OF_NUMBERS`, where `scores` are the losses themselves.
        scores: float64 (n,), in (0, 1).
        positive: bool (n,).
        threshold: Decisions are positive from this score on.

    Returns:
        float64 (n,): larger is worse.
    """
    if metric in LOSSES_OF_NUMBERS:
        return scores
    if metric == "brier":
        return np.asarray((scores - positive) ** 2)
    if metric == "accuracy":
        return np.asarray((scores >= threshold) != positive, dtype=np.float64)
    return log_losses(scores, positive)


def log_losses(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Log loss of each prediction, float64 (n,), of scores float64 (n,) in (0, 1) and bool (n,)."""
    return np.asarray(-np.log(np.where(positive, scores, 1.0 - scores)))


def baselines(scores: NDArray[np.float64], positive: NDArray[np.bool_], threshold: float) -> dict[str, Baseline]:
    """What a champion's losses on held-out labels tell a detector, by metric; the log loss cut off at `LOSS_CAP`."""
    return {name: Baseline.of(np.minimum(losses(name, scores, positive, threshold), LOSS_CAP)) for name in LOSSES}


class _Forgetful:
    """What is the same of detectors that begin anew at an alarm."""

    limit = 0.0
    standing = False
    sure = True


class _PageHinkleyData(msgspec.Struct):
    count: int = 0
    mean: float = 0.0
    excess: float = 0.0


class _PageHinkleyState(_Forgetful):
    """Page (1954), Hinkley (1971), against the running mean.

    The sum of what each loss exceeds the mean by, less `delta`, never below 0; drift where it passes
    `threshold`. Without a forgetting factor: River's, applied to a sum that is mostly negative, draws
    it up towards 0 and so away from its minimum, and raises alarms on steady losses.
    """

    def __init__(self, spec: PageHinkley, data: _PageHinkleyData) -> None:
        self._spec = spec
        self._state = np.array([data.count, data.mean, data.excess], dtype=np.float64)

    @property
    def estimate(self) -> float:
        return float(self._state[PH_MEAN])

    def update(self, values: NDArray[np.float64], times_ms: NDArray[np.int64]) -> int | None:
        spec = self._spec
        first = page_hinkley(values, self._state, spec.min_instances, spec.delta, spec.threshold)
        return int(times_ms[first]) if first >= 0 else None

    def snapshot(self) -> dict[str, Any]:
        count, mean, excess = self._state.tolist()
        return dict(msgspec.to_builtins(_PageHinkleyData(int(count), mean, excess)))


class _AdwinData(msgspec.Struct):
    """Rows of buckets, the newest first; row i holds buckets of 2**i values as (sum, sum of squares)."""

    rows: list[list[tuple[float, float]]] = []
    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    ticks: int = 0


class _AdwinState(_Forgetful):
    """Adaptive windowing: Bifet and Gavaldà (2007), the variant with exponential histograms (section 4).

    A window is cut where the means of its two parts differ by more than a bound of Bernstein's kind
    allows at confidence `delta`. Here a cut counts as drift only where the newer part is the larger.
    """

    def __init__(self, spec: ADWIN, data: _AdwinData) -> None:
        self._spec = spec
        self._state = np.array([data.count, data.total, data.squares, data.ticks, len(data.rows)], dtype=np.float64)
        self._filled, self._sums, self._squares = empty_rows()
        for at, row in enumerate(data.rows):
            self._filled[at] = len(row)
            for place, (total, squares) in enumerate(reversed(row)):
                self._sums[at, place], self._squares[at, place] = total, squares

    @property
    def estimate(self) -> float:
        return float(self._state[TOTAL] / self._state[COUNT]) if self._state[COUNT] else 0.0

    def update(self, values: NDArray[np.float64], times_ms: NDArray[np.int64]) -> int | None:
        scaled = np.minimum(values, LOSS_CAP) / LOSS_CAP
        first = adwin(scaled, self._state, self._filled, self._sums, self._squares, self._spec.delta)
        return int(times_ms[first]) if first >= 0 else None

    def snapshot(self) -> dict[str, Any]:
        rows = [
            list(zip(self._sums[at, :n][::-1].tolist(), self._squares[at, :n][::-1].tolist(), strict=True))
            for at, n in enumerate(self._filled[: int(self._state[USED])].tolist())
        ]
        count, total, squares, ticks, _ = self._state.tolist()
        return dict(msgspec.to_builtins(_AdwinData(rows, int(count), total, squares, int(ticks))))
