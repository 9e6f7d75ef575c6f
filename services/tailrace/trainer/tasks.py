"""What a training has to know of what is predicted: probabilities or numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tailrace.contracts.retraining import GateResult
from tailrace.core.e_detector import Baseline
from tailrace.core.loss_detectors import LOSSES, LOSSES_OF_NUMBERS, baselines, losses
from tailrace.core.metrics import metrics_of
from tailrace.core.plan import Plan
from tailrace.core.regression import STEPS, ValueGrid, metrics_of_numbers
from tailrace.core.sampling import DataSet, Split
from tailrace.core.scoring import on_grid
from tailrace.core.validation import calibrated
from tailrace.core.window_spec import grid_of
from tailrace.trainer.models import Calibration
from tailrace.trainer.scaling import Scaling

Shares = NDArray[np.float64]
Figures = dict[str, float | None]


class Probabilities:
    """Models that say yes or no.

    Args:
        plan: Plan of the use case.
    """

    def __init__(self, plan: Plan) -> None:
        self._threshold = plan.threshold

    def is_uniform(self, part: DataSet) -> bool:
        """Whether there is nothing to tell apart."""
        return bool(part.labels.all() or not part.labels.any())

    def ending(self, shares: Shares, part: DataSet, *, log_r: float = 0.0) -> Calibration:
        """What stands behind a model, by what it says, float64 (n,), of rows that it was not fitted to."""
        return Calibration(shares, part.answers, log_r=log_r)

    def published(self, shares: Shares) -> NDArray[np.float64]:
        """What an exported model says, as it would be published: float64 (n,)."""
        return on_grid(shares)

    def metrics(self, said: NDArray[np.float64], part: DataSet) -> Figures:
        """Live metrics of published scores."""
        return metrics_of(said, part.answers, self._threshold)

    def proof(self, shares: Shares, split: Split, found: Figures) -> GateResult:  # numbers need them
        """A gate of its own: `shares` float64 (n,) are of the rows of the calibration."""
        return calibrated(shares, split.calibration.answers)

    def losses(self, shares: Shares, part: DataSet) -> NDArray[np.float64]:
        """Loss of each row, float64 (n,), by what an exported model says of it."""
        return self.losses_by("log_loss", on_grid(shares), part)

    def losses_by(self, metric: str, said: NDArray[np.float64], part: DataSet) -> NDArray[np.float64]:
        """What a metric is the mean of, larger is worse: float64 (n,); (0,) where it is no mean over rows."""
        if metric not in LOSSES:
            return np.empty(0)
        yes, no = (losses(metric, said, np.full(len(said), label), self._threshold) for label in (True, False))
        return np.asarray(part.answers * yes + (1.0 - part.answers) * no)

    def baselines(self, said: NDArray[np.float64], part: DataSet) -> dict[str, Baseline]:
        """What losses on rows that nothing was fitted to tell the detectors."""
        return baselines(said, part.labels, self._threshold)


class Numbers:
    """Models that give a number; methods as above.

    Args:
        grid: Where the numbers lie.
    """

    def __init__(self, grid: ValueGrid) -> None:
        self._grid = grid

    def is_uniform(self, part: DataSet) -> bool:
        """Whether there is nothing to tell apart."""
        return bool(np.ptp(part.answers) == 0.0)

    def ending(self, shares: Shares, part: DataSet, *, log_r: float = 0.0) -> Scaling:  # a calibration needs them
        """The number as a share of the range."""
        return Scaling(self._grid)

    def published(self, shares: Shares) -> NDArray[np.float64]:
        """Numbers on the grid: float64 (n,)."""
        return self._grid.values(np.rint(shares * STEPS).astype(np.int64))

    def metrics(self, said: NDArray[np.float64], part: DataSet) -> Figures:
        """Live metrics of published numbers."""
        return metrics_of_numbers(self._grid, said, part.answers.astype(np.float64))

    def proof(self, shares: Shares, split: Split, found: Figures) -> GateResult:  # of the calibration
        """Whether a candidate tells more than the best constant of the rows it was fitted to.

        By the loss that it was fitted by: root mean squared error, or pinball loss at its quantile.
        """
        grid, fitted = self._grid, split.fit.answers.astype(np.float64)
        name = "rmse" if grid.quantile is None else "pinball"
        constant = float(fitted.mean() if grid.quantile is None else np.quantile(fitted, grid.quantile))
        same = np.full(len(split.gates.labels), constant)
        value, bound = found[name] or 0.0, self.metrics(same, split.gates)[name] or 0.0
        return GateResult(
            name="skilled",
            passed=value < bound,
            candidate=value,
            champion=None,
            detail=f"{name} {value:.4g}; {bound:.4g} by saying {constant:.4g} of every row",
        )

    def losses(self, shares: Shares, part: DataSet) -> NDArray[np.float64]:
        """Absolute error of each row, float64 (n,), as a share of the range."""
        return self._grid.absolute_losses(self.published(shares), part.answers.astype(np.float64))

    def losses_by(self, metric: str, said: NDArray[np.float64], part: DataSet) -> NDArray[np.float64]:
        """Absolute errors, float64 (n,), where the metric is their mean; else (0,)."""
        return np.abs(said - part.answers) if metric == "mae" else np.empty(0)

    def baselines(self, said: NDArray[np.float64], part: DataSet) -> dict[str, Baseline]:
        """What absolute errors tell the detectors."""
        losses = Baseline.of(self._grid.absolute_losses(said, part.answers.astype(np.float64)))
        return dict.fromkeys(LOSSES_OF_NUMBERS, losses)


Task = Probabilities | Numbers


def task_of(plan: Plan) -> Task:
    """What the models of a plan predict."""
    grid = grid_of(plan)
    return Probabilities(plan) if grid is None else Numbers(grid)
