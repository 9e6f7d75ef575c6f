"""The Shiryaev-Roberts e-detector: a rise of the mean loss over what the champion has shown, since when and how far.

Shin, Ramdas and Rinaldo (2023, arXiv 2203.03532, section 4): the sum over all possible change points of the
wealth of a bettor who begins there. While the conditional mean of the losses stays below the baseline the
expected wealth of each does not grow, so the mean time to a false alarm is at least the threshold, whatever
the distribution of the losses and however they depend on one another.

The bets are 1 + b (x - m) for losses x in [0, 1] and the baseline m (Waudby-Smith and Ramdas 2024, section
4). For 0-1 losses that is the likelihood ratio of two Bernoulli laws. For others it stays an e-value, where a
likelihood ratio would need the distribution; so one detector serves accuracy, the Brier score, and the log loss
once it is cut off.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from tailrace.core.loss_kernels import CUSUM, SINCE_COUNT, SINCE_TOTAL, e_detector, e_recovery
from tailrace.core.monitors import EDetector

RATIOS = np.array([1.25, 1.6, 2.4])
"""Rises over the baseline that are betted on, with equal parts of the wealth: a bet that is off by a third loses little,
and one more of them costs every other a part of its speed. Five from 1.1 to 3 took 1 to 4 % longer from .1 to .15."""
Z = 1.96
"""Quantile of the one-sided 97.5 % upper bound. At 95 % the lowest of the bounds of many looks was too low so often that
detectors which began with few labels alarmed 1.4 to 1.9 times in 100,000 without a change; so it is 0.8 to 1."""
LOOK = 1.25
"""Growth of the number of labels from one look at the baseline to the next."""
LEAST_LABELS = 500
"""Labels without which nothing is known of the losses."""
SURE_EVENTS = 40.0
"""Baseline labels times their mean from which the bound is close enough to see a rise by half. Below, rises of
rare errors are missed, and another detector should speak too."""
MOST_BET = 0.9
"""Share of what may be lost in one step without ruin that is betted at most."""
SELECTION = 3.0
"""Part of the logarithm of the wealth at an alarm that comes of choosing the best beginning and the moment: means since
the change were .193 for .15 and .161 for .12; less that part of their rise they are .163 and .139."""
RECOVERED_AT = 1_000.0
"""Statistic of the same kind at which the loss is known to be below half of its rise again."""


class Baseline(msgspec.Struct, frozen=True):
    """Moments of a champion's losses on labels it was not fitted to: their number, sum and sum of squares."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0

    @staticmethod
    def of(losses: NDArray[np.float64]) -> Baseline:
        """Moments of losses, float64 (n,)."""
        return Baseline(len(losses), float(losses.sum()), float(losses @ losses))


class EDetectorData(msgspec.Struct):
    """State as it is stored: a row of `started` and an entry of `since` for each alternative.

    `alarm` holds the mean of the losses since the change, shrunken by what choosing the moment made of it, the bound
    that held then, and their number.
    """

    baseline: Baseline = Baseline()
    bound: float = 1.0
    spread: float = 1.0
    look_at: int = LEAST_LABELS
    started: list[list[float]] = []
    since: list[int] = []
    total: float = 0.0
    alarm: tuple[float, float, int] | None = None
    recovery: tuple[float, float, float] = (0.0, 0.0, 0.0)


class EDetectorState:
    """State of the detector. Armed until it alarms, and again once the loss is back.

    The baseline is the upper bound of the champion's losses at its gates; without those, of its first labels.
    Each time the number of labels has grown by a quarter the bound is taken anew over all of them, and kept if it
    is lower: what the champion has shown it can do holds, and a slow rise is never learned.

    Args:
        spec: Mean time to a false alarm.
        data: Where to begin.
        cap: Losses are cut off here.
    """

    def __init__(self, spec: EDetector, data: EDetectorData, cap: float) -> None:
        self._spec, self._data, self._cap = spec, data, cap
        self._alarm_at = 0.0
        self.share(1)
        # An older release may have betted on other rises: what it had won says nothing of these.
        same = len(data.started) == len(RATIOS)
        self._started = np.array(data.started if same else np.zeros((len(RATIOS), 4)), dtype=np.float64)
        self._since = np.array(data.since if same else np.zeros(len(RATIOS)), dtype=np.int64)
        self._total = np.array([data.total if same else 0.0])
        self._recovery = np.array(data.recovery)
        if not data.started:
            self._look()
        # Loads the compiled loops now and not amid the traffic.
        none = np.empty(0)
        e_detector(none, np.empty(0, np.int64), none, 0.5, 1.0, self._started, self._since, self._total)
        e_recovery(none, 1.0, 0.5, 1.0, self._recovery)

    @staticmethod
    def begun(spec: EDetector, baseline: Baseline, cap: float) -> EDetectorState:
        """A detector against losses that are known."""
        scaled = Baseline(baseline.count, baseline.total / cap, baseline.squares / (cap * cap))
        return EDetectorState(spec, EDetectorData(scaled), cap)

    @property
    def estimate(self) -> float:
        """Mean loss since the change of an alarm that stands, the less shrunken the older the alarm; else of all labels."""
        if self._data.alarm is not None:
            level, _, changed = self._data.alarm
            _, count, total = self._recovery.tolist()
            return float((level * changed + total) / (changed + count) * self._cap)
        return self._data.baseline.total / max(self._data.baseline.count, 1) * self._cap

    @property
    def limit(self) -> float:
        """Upper bound of the mean loss without a change."""
        return (self._data.alarm[1] if self._data.alarm is not None else self._data.bound) * self._cap

    @property
    def standing(self) -> bool:
        """Whether there was an alarm and the loss is not back."""
        return self._data.alarm is not None

    @property
    def changed(self) -> int:
        """Labels between the change and the alarm that stands; 0 where none does."""
        return self._data.alarm[2] if self._data.alarm is not None else 0

    @property
    def sure(self) -> bool:
        """Whether the baseline holds enough labels for this detector to be the only one."""
        known = self._data.baseline
        return known.count >= LEAST_LABELS and known.total / self._data.spread >= SURE_EVENTS

    def share(self, family: int) -> None:
        """Takes its part of the false alarms of so many detectors, which together may make those of one."""
        self._alarm_at = float(self._spec.run_length * len(RATIOS) * family)

    def update(self, values: NDArray[np.float64], times_ms: NDArray[np.int64]) -> int | None:
        """Feeds losses in order; gives the time of the change if there is an alarm, and goes on."""
        scaled, since, at = np.minimum(values, self._cap) / self._cap, None, 0
        while at < len(scaled):
            if self._data.alarm is not None:
                at += self._recover(scaled[at:])
                continue
            known = self._data.baseline
            part = scaled[at : at + max(self._data.look_at - known.count, 1)]
            taken = self._watch(part, times_ms[at : at + len(part)])
            seen = part[:taken]
            self._data.baseline = Baseline(
                known.count + taken, known.total + float(seen.sum()), known.squares + float(seen @ seen)
            )
            at += taken
            if self._total[0] >= self._alarm_at:
                found = self._alarm()
                since = found if since is None else since
            elif self._data.baseline.count >= self._data.look_at:
                self._look()
        return since

    def snapshot(self) -> dict[str, Any]:
        """Plain data from which it goes on exactly."""
        data = self._data
        data.started, data.since = self._started.tolist(), self._since.tolist()
        data.total = float(self._total[0])
        data.recovery = (float(self._recovery[0]), float(self._recovery[1]), float(self._recovery[2]))
        return dict(msgspec.to_builtins(data))

    def _watch(self, values: NDArray[np.float64], times_ms: NDArray[np.int64]) -> int:
        """Number of values taken; without a baseline all, as part of it."""
        if self._data.baseline.count < LEAST_LABELS:
            return len(values)
        bound = self._data.bound
        bets = np.minimum((RATIOS - 1.0) / (self._data.spread * (1.0 - bound)), MOST_BET / bound)
        return int(e_detector(values, times_ms, bets, bound, self._alarm_at, self._started, self._since, self._total))

    def _alarm(self) -> int:
        """Writes the alarm down and begins to wait for its end; gives the time of the change."""
        likeliest = int(self._started[:, CUSUM].argmax())
        level = self._started[likeliest, SINCE_TOTAL] / self._started[likeliest, SINCE_COUNT]
        since = int(self._since[likeliest])
        kept = max(1.0 - SELECTION / math.log(self._started[likeliest, CUSUM]), 0.0)
        level = self._data.bound + kept * (level - self._data.bound)
        self._data.alarm = (float(level), self._data.bound, int(self._started[likeliest, SINCE_COUNT]))
        self._started[:], self._total[:], self._recovery[:] = 0.0, 0.0, 0.0
        return since

    def _recover(self, values: NDArray[np.float64]) -> int:
        level, bound, _ = self._data.alarm or (1.0, 1.0, 0)
        half = bound + (max(level, bound) - bound) / 2.0
        # The likelihood ratio of the baseline to the half way, for 0-1 losses.
        bet = min((half - bound) / (self._data.spread * half * (1.0 - half)), MOST_BET / (1.0 - half))
        taken = int(e_recovery(values, bet, half, RECOVERED_AT, self._recovery))
        if self._recovery[0] >= RECOVERED_AT:
            self._data.alarm = None
        return taken

    def _look(self) -> None:
        """Takes the bound anew over all labels."""
        data, known = self._data, self._data.baseline
        if known.count >= LEAST_LABELS:
            mean = known.total / known.count
            variance = max(known.squares / known.count - mean * mean, 0.0)
            # Losses spread less than 0-1 losses of their mean: by this factor, at any mean near.
            spread = min(max(variance / (mean * (1.0 - mean)), 0.01), 1.0) if 0.0 < mean < 1.0 else 1.0
            bound = min(wilson_upper(mean, known.count / spread), 1.0 - 1e-9)
            if bound < data.bound:
                data.bound, data.spread = bound, spread
        data.look_at = int(LOOK * known.count) if known.count >= LEAST_LABELS else LEAST_LABELS


def wilson_upper(share: float, count: float) -> float:
    """One-sided 97.5 % upper bound of a share (Wilson 1927).

    Example:
        >>> round(wilson_upper(0.1, 500.0), 4)
        0.1294
    """
    middle = share + Z * Z / (2.0 * count)
    reach = Z * math.sqrt(share * (1.0 - share) / count + Z * Z / (4.0 * count * count))
    return (middle + reach) / (1.0 + Z * Z / count)
