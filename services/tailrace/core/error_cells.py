"""What errors have been where the prediction was like this: what they should be before the outcomes are there.

Direct loss estimation (NannyML 2022), with the prediction as the one feature: outcomes that are known say how
large errors are in each cell of predictions, and how often predictions of a window fall into each cell does the
rest. Like every reading without labels it supposes that outcomes still spread around a prediction as they did.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tailrace.contracts.quality import Reading
from tailrace.core.regression import STEPS, Z95

CELLS = 32
LEAST_LABELS = 200
"""Outcomes of older windows below which nothing is estimated."""
ALLOWANCE = 0.05
"""What an estimate may be wrong by besides chance, as a share of itself; as for estimates of probabilities."""
PREDICTED, LABELLED, AWAY, SQUARES, SIGNED, FOURTH = range(6)

Ints = NDArray[np.int64]


class ErrorCells:
    """Integer sums by cell of the prediction. Not thread-safe.

    Attributes:
        sums: int64 (6, CELLS): predictions, outcomes, and sums of |e|, e squared, e and e to the fourth over cells,
            e in steps; the last in units of `STEPS` squared, so that it cannot overflow.
    """

    __slots__ = ("sums",)

    def __init__(self) -> None:
        self.sums: Ints = np.zeros((6, CELLS), np.int64)

    def predicted(self, cells: Ints) -> None:
        """Counts predictions: int64 (n,), their cells."""
        self.sums[PREDICTED] += np.bincount(cells, minlength=CELLS)

    def labelled(self, cells: Ints, errors: Ints, times: int = 1) -> None:
        """Counts errors, int64 (n,) in steps, or takes them back with `times` -1."""
        parts = (np.ones(len(errors), np.int64), np.abs(errors), errors**2, errors, errors**4 // STEPS**2)
        for row, part in enumerate(parts, start=LABELLED):
            np.add.at(self.sums[row], cells, times * part)

    def add(self, sums: Ints) -> None:
        """Adds others."""
        self.sums += sums

    def stored(self) -> list[int]:
        """As it is stored: row by row."""
        return [int(value) for value in self.sums.ravel()]

    @staticmethod
    def read(stored: list[int]) -> Ints:
        """What `stored` gave."""
        return np.array(stored, dtype=np.int64).reshape(6, CELLS)


def cell_of(positions: Ints) -> Ints:
    """Cells, int64 (n,) in [0, CELLS), of positions of predictions."""
    return np.minimum(positions * CELLS // STEPS, CELLS - 1)


def estimated(window: Ints, older: Ints, *, step: float) -> Reading:
    """Mean absolute and root mean squared error of a window's predictions, before their outcomes.

    Args:
        window: int64 (6, CELLS), of which only the numbers of predictions are looked at.
        older: int64 (6, CELLS), windows of the same model that had their outcomes by then.
        step: Size of a step.

    Returns:
        Metrics with intervals; none, and why, where predictions fall where too little is known.
    """
    n, labels = window[PREDICTED].astype(np.float64), older[LABELLED].astype(np.float64)
    total = float(n.sum())
    if not total:
        return Reading(withheld="no predictions")
    if labels.sum() < LEAST_LABELS:
        return Reading(withheld=f"{int(labels.sum())} older outcomes, {LEAST_LABELS} needed")
    # A cell that no outcome is known of takes those of the nearest that has some.
    known = np.flatnonzero(labels >= 2)
    nearest = known[np.argmin(np.abs(np.arange(CELLS)[:, None] - known[None, :]), axis=1)]
    size = labels[nearest]
    found, values = {}, {}
    for name, first, second, unit in (("mae", AWAY, SQUARES, 1.0), ("mse", SQUARES, FOURTH, float(STEPS) ** 2)):
        mean = older[first][nearest] / size
        spread = np.maximum(older[second][nearest] * unit / size - mean**2, 0.0)
        variance = float((n / total) ** 2 @ (spread / size) + n @ spread / total**2)
        value = float(n @ mean) / total
        half = Z95 * float(np.sqrt(variance)) + ALLOWANCE * value
        values[name], found[name] = value, [max(value - half, 0.0), value + half]
    root = {"rmse": float(np.sqrt(values["mse"]))}
    metrics: dict[str, float | None] = {"mae": step * values["mae"], "rmse": step * root["rmse"]}
    intervals = {
        "mae": [step * end for end in found["mae"]],
        "rmse": [step * float(np.sqrt(end)) for end in found["mse"]],
    }
    return Reading(metrics=metrics, intervals=intervals, effective=float(labels.sum()))
