"""How good a model is lately, and whether the last label would have done as well: labels in order, old ones fading.

Where labels come in runs, most models look good and repeating the last label looks better (Žliobaitė et al. 2015,
Evaluation methods and decision theory for classification of streaming data with temporal dependence, section 3):
the share of right decisions says little, its gain over the no-change classifier says all.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

FADING = 0.999
"""Weight of a label against the next one: about the last thousand speak (Gama, Sebastião and Rodrigues 2013, On
evaluating stream learning algorithms, section 3.2)."""
LEAST_LABELS = 200
"""Labels from which anything is said."""


class Prequential(msgspec.Struct):
    """Fading sums over a champion's final labels, in the order in which they became known.

    `last` is the newest label, -1 before the first; `labels` how many there were. The sums are of weights, of wrong
    decisions and of labels unlike the one before, all over labels that have one before them.

    Example:
        >>> state = Prequential()
        >>> state.feed(np.array([True, False]), np.array([True, True]))
        >>> (state.labels, state.weight, state.wrong, state.changed)
        (2, 1.0, 1.0, 0.0)
    """

    last: int = -1
    labels: int = 0
    weight: float = 0.0
    wrong: float = 0.0
    changed: float = 0.0

    def feed(self, decided: NDArray[np.bool_], positive: NDArray[np.bool_]) -> None:
        """Takes decisions and labels in order, bool (n,) each."""
        if not len(positive):
            return
        first = 0 if self.last >= 0 else 1
        before = np.concatenate([[self.last > 0], positive[:-1]])[first:]
        decided, now = decided[first:], positive[first:]
        weights = FADING ** np.arange(len(now) - 1, -1, -1)
        older = FADING ** len(now)
        self.weight = self.weight * older + float(weights.sum())
        self.wrong = self.wrong * older + float(weights @ (decided != now))
        self.changed = self.changed * older + float(weights @ (before != now))
        self.last = int(positive[-1])
        self.labels += len(positive)

    def metrics(self) -> dict[str, float | None]:
        """Shares of right decisions, of the model and of the no-change classifier, and what is gained by the model.

        "kappa_temporal" is 1 where the model is always right, 0 where it is as good as the last label, below 0
        where it is worse; None where the last label is always right.
        """
        if self.labels < LEAST_LABELS:
            return {}
        return {
            "fading_accuracy": 1.0 - self.wrong / self.weight,
            "no_change_accuracy": 1.0 - self.changed / self.weight,
            "kappa_temporal": 1.0 - self.wrong / self.changed if self.changed > 0.0 else None,
        }
