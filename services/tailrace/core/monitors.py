"""Specs of what is watched: live metrics and drift detectors. States live in `metrics` and `drift`."""

from __future__ import annotations

import msgspec


class Metric(msgspec.Struct, frozen=True, tag=True):
    """A live metric over a sliding window of event time, reported per version and slice.

    Args:
        window: Span, such as "7d".
        drop: How much worse than the champion's figure at its gates raises a `metric_drop` alarm, in the
            metric's own unit; None: watched, never alarming.
    """

    window: str
    drop: float | None = None

    @property
    def name(self) -> str:
        """Key in `Quality.metrics`."""
        return NAMES[type(self)]


class LogLoss(Metric, frozen=True, tag=True):
    """Mean negative log-likelihood; smaller is better."""


class ROCAUC(Metric, frozen=True, tag=True):
    """Area under the ROC curve, ties counted half."""


class PRAUC(Metric, frozen=True, tag=True):
    """Average precision, as scikit-learn defines it."""


class Brier(Metric, frozen=True, tag=True):
    """Mean squared error of the score; smaller is better."""


class CalibrationError(Metric, frozen=True, tag=True):
    """Expected calibration error over ten bins of equal width; smaller is better."""


class Accuracy(Metric, frozen=True, tag=True):
    """Share of right decisions at the threshold."""


class Precision(Metric, frozen=True, tag=True):
    """Share of positives among positive decisions."""


class Recall(Metric, frozen=True, tag=True):
    """Share of positives that were decided positive."""


class F1(Metric, frozen=True, tag=True):
    """Harmonic mean of precision and recall."""


NAMES: dict[type[Metric], str] = {
    LogLoss: "log_loss",
    ROCAUC: "roc_auc",
    PRAUC: "pr_auc",
    Brier: "brier",
    CalibrationError: "calibration_error",
    Accuracy: "accuracy",
    Precision: "precision",
    Recall: "recall",
    F1: "f1",
}
SMALLER_IS_BETTER = frozenset({"log_loss", "brier", "calibration_error"})


class PSI(msgspec.Struct, frozen=True, tag=True):
    """Population stability index of every feature and of the score, against the champion's training data.

    An alarm needs both: the index above `alarm`, and above the 1 - `false_alarms` quantile of its
    law without change, (1/n + 1/m) chi-square with bins - 1 degrees, Bonferroni-corrected.
    """

    every: str = "1d"
    bins: int = 20
    alarm: float = 0.2
    false_alarms: float = 0.001


class ADWIN(msgspec.Struct, frozen=True, tag=True):
    """Adaptive windowing on the loss of final labels (Bifet and Gavaldà 2007)."""

    metric: str = "log_loss"
    delta: float = 0.002


class PageHinkley(msgspec.Struct, frozen=True, tag=True):
    """Page-Hinkley test on the loss of final labels (Page 1954; Hinkley 1971)."""

    metric: str = "log_loss"
    min_instances: int = 30
    delta: float = 0.005
    threshold: float = 50.0


Detector = PSI | ADWIN | PageHinkley
