"""Live metrics, as use cases name them: `tr.metrics.LogLoss("1d")`."""

from tailrace.core.monitors import (
    F1,
    PRAUC,
    ROCAUC,
    Accuracy,
    Brier,
    CalibrationError,
    LogLoss,
    Precision,
    Recall,
)

__all__ = ["F1", "PRAUC", "ROCAUC", "Accuracy", "Brier", "CalibrationError", "LogLoss", "Precision", "Recall"]
