"""Live metrics, as use cases name them: `tr.metrics.LogLoss("1d")`."""

from tailrace.core.monitors import (
    F1,
    MAE,
    PRAUC,
    RMSE,
    ROCAUC,
    Accuracy,
    Brier,
    CalibrationError,
    LogLoss,
    Pinball,
    Precision,
    Recall,
    TopPrecision,
)

__all__ = [
    "F1",
    "MAE",
    "PRAUC",
    "RMSE",
    "ROCAUC",
    "Accuracy",
    "Brier",
    "CalibrationError",
    "LogLoss",
    "Pinball",
    "Precision",
    "Recall",
    "TopPrecision",
]
