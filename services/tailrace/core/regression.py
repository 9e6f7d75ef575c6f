"""Live metrics of predicted numbers, as exact functions of integer histograms of their errors.

Published numbers lie on a grid of `STEPS` equal steps between the ends that the use case declares, and outcomes
are taken to the nearest step. An error is then a whole number of steps, and a histogram of errors holds all that
any metric of them can know: it adds up over days and workers, and takes back what is revised, exactly.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

STEPS = 4096
"""Steps of a grid: an outcome is off its own by at most 1/8192 of the range, an eighth of the 0.001 that is allowed."""
Z95 = 1.959963984540054
ERROR_METRICS = ("mae", "rmse", "bias", "pinball", "coverage")
"""Keys of `Quality.metrics` of a regression, in order; a value is None where the data cannot tell."""

Counts = NDArray[np.int64]
Masses = NDArray[np.int64] | NDArray[np.float64]


class ValueGrid(msgspec.Struct, frozen=True):
    """Where predicted numbers lie.

    `quantile` in (0, 1) is what the model predicts of the distribution of outcomes, None for its mean.

    Example:
        >>> grid = ValueGrid(0.0, 4096.0)
        >>> grid.positions(np.array([-3.0, 17.4])).tolist()
        [0, 17]
    """

    low: float
    high: float
    quantile: float | None = None

    @property
    def step(self) -> float:
        """Distance of two neighbours, in the unit of the numbers."""
        return (self.high - self.low) / STEPS

    def positions(self, values: NDArray[np.floating]) -> Counts:
        """Nearest positions, int64 (n,) in [0, STEPS], of numbers float (n,); those beyond an end lie on it.

        Raises:
            ValueError: a number is NaN.
        """
        numbers = np.asarray(values, dtype=np.float64)
        if bool(np.isnan(numbers).any()):
            raise ValueError("a number without a value has no place on the grid")
        steps = np.rint((np.clip(numbers, self.low, self.high) - self.low) / self.step)
        return steps.astype(np.int64)

    def values(self, positions: NDArray[np.integer]) -> NDArray[np.float64]:
        """Numbers of positions, float64 (n,)."""
        # Both ends are met exactly.
        return np.asarray(self.low + (self.high - self.low) * (positions / STEPS), dtype=np.float64)

    def errors(self, predicted: NDArray[np.float64], outcomes: NDArray[np.float64]) -> Counts:
        """Outcomes less what was predicted of them, in steps: int64 (n,) in [-STEPS, STEPS]."""
        return self.positions(outcomes) - self.positions(predicted)

    def absolute_losses(self, predicted: NDArray[np.float64], outcomes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Absolute errors as shares of the range: float64 (n,) in [0, 1], what loss detectors are fed with."""
        return np.abs(self.errors(predicted, outcomes)) / STEPS


def metrics_of_numbers(
    grid: ValueGrid, predicted: NDArray[np.float64], outcomes: NDArray[np.float64]
) -> dict[str, float | None]:
    """Metrics of numbers as they would be published: those of `metrics_of_errors`."""
    bins, n, above = counted_errors(grid, predicted, outcomes)
    return metrics_of_errors(bins, n, above, step=grid.step, quantile=grid.quantile)


def counted_errors(
    grid: ValueGrid, predicted: NDArray[np.float64], outcomes: NDArray[np.float64]
) -> tuple[Counts, Counts, Counts]:
    """Errors as a histogram: steps, how many there are of each, and how many of these outcomes lie above."""
    bins, which, n = np.unique(grid.errors(predicted, outcomes), return_inverse=True, return_counts=True)
    return bins, n, np.bincount(which[outcomes > predicted], minlength=len(bins))


def metrics_of_errors(
    bins: Counts, n: Masses, above: Masses, *, step: float, quantile: float | None
) -> dict[str, float | None]:
    """Metrics of a histogram of errors.

    Args:
        bins: int64 (k,), outcome less prediction in steps, distinct.
        n: (k,), how many there are of each; float64 where they are weighted.
        above: (k,), how many of these outcomes lie above their prediction, be it by less than half a step.
        step: Size of a step.
        quantile: What the model predicts; None for the mean, of which the pinball loss is that of the median.

    Returns:
        Every name of `ERROR_METRICS`. "pinball" is the loss whose least mean is at the quantile (Koenker and
        Bassett 1978); "coverage" the share of outcomes at or below the prediction, None where no quantile is
        predicted: a quantile that is right is covered as often as it says.
    """
    result: dict[str, float | None] = dict.fromkeys(ERROR_METRICS)
    total = n.sum().item()
    if total <= 0:
        return result
    # Whole numbers below 2**53 are added without error in whatever order they come.
    away, signed = float(n @ np.abs(bins)), float(n @ bins)
    result["mae"] = step * away / total
    result["rmse"] = step * float(np.sqrt(float(n @ bins**2) / total))
    result["bias"] = -step * signed / total
    level = 0.5 if quantile is None else quantile
    result["pinball"] = step * (away + (2.0 * level - 1.0) * signed) / 2.0 / total
    if quantile is not None:
        result["coverage"] = 1.0 - above.sum().item() / total
    return result


def error_intervals(
    bins: Counts, n: Counts, above: Counts, *, step: float, quantile: float | None
) -> dict[str, list[float]]:
    """95 % intervals of what the metrics of errors like these are in the long run; arguments as above."""
    values = metrics_of_errors(bins, n, above, step=step, quantile=quantile)
    total = int(n.sum())
    if total < 2:
        return {}
    size: NDArray[np.float64] = bins.astype(np.float64) * step
    level = 0.5 if quantile is None else quantile
    per_row: dict[str, NDArray[np.float64]] = {
        "mae": np.abs(size),
        "bias": -size,
        "pinball": (np.abs(size) + (2.0 * level - 1.0) * size) / 2.0,
    }
    found = {name: _around(values[name] or 0.0, n, rows, total) for name, rows in per_row.items()}
    share = values["coverage"]
    if share is not None:
        half = Z95 * float(np.sqrt(share * (1.0 - share) / (total - 1)))
        found["coverage"] = [share - half, share + half]
    low, high = _around(float(n @ size**2) / total, n, size**2, total)
    found["rmse"] = [float(np.sqrt(max(low, 0.0))), float(np.sqrt(high))]
    bounds: Mapping[str, tuple[float, float]] = {"bias": (-np.inf, np.inf), "coverage": (0.0, 1.0)}
    for name, (low, high) in found.items():
        least, most = bounds.get(name, (0.0, np.inf))
        found[name] = [float(max(low, least)), float(min(high, most))]
    return found


def _around(mean: float, n: Counts, rows: NDArray[np.float64], total: int) -> list[float]:
    half = Z95 * float(np.sqrt(float(n @ (rows - float(n @ rows) / total) ** 2) / (total - 1) / total))
    return [mean - half, mean + half]
