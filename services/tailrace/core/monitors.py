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


class TopPrecision(Metric, frozen=True, tag=True):
    """Share of positives among the k predictions of a day with the highest scores, mean over the days of the window.

    Args:
        k: Predictions of a day that somebody looks at, at most 1,000.
        distinct: Count of each key of the requests only the prediction with the highest score, as the card
            precision of Le Borgne et al. (2022, section 4.3) does; the label is that of this prediction.
    """

    k: int = 100
    distinct: bool = False


class MAE(Metric, frozen=True, tag=True):
    """Mean absolute error of predicted numbers; smaller is better."""


class RMSE(Metric, frozen=True, tag=True):
    """Root mean squared error of predicted numbers; smaller is better."""


class Pinball(Metric, frozen=True, tag=True):
    """Mean pinball loss at the quantile that is predicted, or at the median; smaller is better."""


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
    TopPrecision: "top_precision",
    MAE: "mae",
    RMSE: "rmse",
    Pinball: "pinball",
}
SMALLER_IS_BETTER = frozenset({"log_loss", "brier", "calibration_error", "mae", "rmse", "pinball"})
OF_NUMBERS = frozenset({"mae", "rmse", "pinball"})
"""Metrics of predicted numbers; all others are of probabilities."""


class PSI(msgspec.Struct, frozen=True, tag=True):
    """Every feature and the score against the champion's training data, at the same hours of the week if those tell.

    Population stability index over twenty bins and Kolmogorov-Smirnov distance, each by its own law, together
    with counters of missing values, of values outside the known range and of unknown categories. An alarm
    needs both: more than chance explains, over all features and looks, and enough to matter.

    Args:
        every: Span of a look.
        alarm: Index from which a change matters; so does a shift by a twentieth of the range between the quartiles.
        false_alarms: Largest share of spans of 30 days with a false alarm on anything, in (0, 1).
    """

    every: str = "1d"
    alarm: float = 0.02
    false_alarms: float = 0.05


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


class EDetector(msgspec.Struct, frozen=True, tag=True):
    """Shiryaev-Roberts e-detector on the loss of final labels (Shin, Ramdas and Rinaldo 2023).

    It alarms where the mean loss rises over the upper bound of the champion's losses at its gates, says since
    when and how far, and resolves the alarm once the loss is back.

    Args:
        metric: "accuracy", "brier" or "log_loss", which counts at most 4; of predicted numbers "absolute_error", as a
            share of their range.
        run_length: Mean number of labels to a false alarm, at least.
    """

    metric: str = "accuracy"
    run_length: int = 100_000


LossSpec = EDetector | ADWIN | PageHinkley
Detector = PSI | LossSpec
