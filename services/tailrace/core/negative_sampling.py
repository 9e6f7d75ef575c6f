"""Fitting to all positives and a share of the negatives, and what that does to the log-odds."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tailrace.core.sampling import DataSet

LEAST_NEGATIVES = 30_000
"""Negatives that are kept where there are as many, whatever the rate: a fit to so many takes seconds. A third of them
is fitted to 1.5 times as fast, and loses 5 to 7 % of the average precision in place of 2 to 3 %
(`python -m load_tests.studies.negative_sampling`)."""


class NegativeSampling(NamedTuple):
    """Negative down-sampling (He et al. 2014, Practical Lessons from Predicting Clicks on Ads at Facebook, section 6.3).

    Of rows whose odds are o, a sample with all positives and the share r of the negatives has odds of o / r: what a
    model that was fitted to it says has to be moved by log r to hold for all rows.

    Attributes:
        rate: The share r, in (0, 1]; 1 keeps all rows.
    """

    rate: float = 1.0

    @staticmethod
    def of(data: DataSet, declared: float) -> NegativeSampling:
        """The declared rate, or the one that keeps `LEAST_NEGATIVES`, or all there are, if that is higher."""
        if declared >= 1.0 or data.draws is None:
            return NegativeSampling()
        negatives = int((data.answers == 0.0).sum())
        return NegativeSampling(min(max(declared, LEAST_NEGATIVES / max(negatives, 1)), 1.0))

    @property
    def log_r(self) -> float:
        """What is added to the log-odds of a model that was fitted to the sample."""
        return math.log(self.rate)

    def times(self, data: DataSet) -> NDArray[np.int64]:
        """How often each row is taken, int64 (n,): positives once, and negatives once or never.

        Follows from the row's draw and the rate alone. A higher rate keeps all rows that a lower one keeps.

        A target q (see `DataSet`) means a loss of q as a positive and of 1 - q as a negative, of which the sample
        shall hold all and the share r: q + r (1 - q) together. That is more than 1 where q is: such a row is taken
        once or more often, that often on average.
        """
        if self.rate >= 1.0 or data.draws is None:
            return np.ones(len(data.labels), np.int64)
        return np.floor(self._weights(data) + data.draws).astype(np.int64)

    def sample(self, data: DataSet) -> DataSet:
        """The rows to fit to, in the same order, with targets q / (q + r (1 - q)) where there are targets."""
        if self.rate >= 1.0 or data.draws is None:
            return data
        taken = np.repeat(np.arange(len(data.labels)), self.times(data))
        targets = None if data.targets is None else data.targets / self._weights(data)
        return data._replace(targets=targets).where(taken)

    def _weights(self, data: DataSet) -> NDArray[np.float64]:
        # Written so that a positive weighs 1.0 to the last bit.
        return np.asarray(data.answers + self.rate * (1.0 - data.answers), dtype=np.float64)
