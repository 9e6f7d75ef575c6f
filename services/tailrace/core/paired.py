"""By how much the mean loss of one model differs from another's on the same rows, and how sure that is.

Rows in time order are not independent: prices stay up for hours, a fraud comes in a series. The mean of such rows is
known less well than of as many independent ones, by the long-run variance of the differences.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft, stats

LEAST_ROWS = 10
"""Fewer rows tell nothing about how they vary."""
WAVES = 0.4
"""Waves that the long-run variance is taken from, as a multiple of n^(2/3) (Lazarus et al. 2018, equation 4)."""


class Difference(NamedTuple):
    """A mean with what is known of it.

    Attributes:
        mean: Mean of the values.
        error: Its standard error; infinite where there are fewer than `LEAST_ROWS` values.
        rows: Number of values.
        effective: Number of independent values that the mean would be known as well from; 0 for too few.
        freedom: Degrees of freedom of the error.
    """

    mean: float
    error: float
    rows: int
    effective: float
    freedom: int

    def above(self, alpha: float) -> float:
        """What the mean is above with confidence 1 - `alpha`; minus infinity where nothing is known."""
        if not self.freedom:
            return -np.inf
        return self.mean - float(stats.t.ppf(1.0 - alpha, self.freedom)) * self.error


def difference(values: NDArray[np.float64]) -> Difference:
    """Mean of values in time order, its error by their long-run variance.

    The test of Diebold and Mariano (1995), with the variance from the lowest cosine waves and the t law of Lazarus,
    Lewis, Stock and Watson (2018, "HAR inference: recommendations for practice", section 2): with few correlated
    values it holds its level far better than the kernels do.

    Args:
        values: float64 (n,), in time order, all finite.

    >>> found = difference(np.repeat(np.random.default_rng(2).normal(size=300), 5))
    >>> found.rows, round(found.effective, -1), found.freedom
    (1500, 320.0, 52)
    """
    n = len(values)
    mean = float(values.mean()) if n else 0.0
    if n < LEAST_ROWS:
        return Difference(mean, np.inf, n, 0.0, 0)
    waves = int(WAVES * n ** (2.0 / 3.0))
    long_run = float(np.square(fft.dct(values - mean, norm="ortho")[1 : waves + 1]).mean())
    variance = float(values.var())
    effective = min(variance / long_run, 1.0) * n if long_run > 0.0 else float(n)
    return Difference(mean, (long_run / n) ** 0.5, n, effective, waves)
