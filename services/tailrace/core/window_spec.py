"""What is counted in windows of live quality besides the scores of probabilities."""

from __future__ import annotations

from typing import NamedTuple

from tailrace.core.plan import Plan
from tailrace.core.regression import ValueGrid


class WindowSpec(NamedTuple):
    """What windows hold.

    `grid` is set where numbers are predicted. `weighted`: rows carry an amount of money. `top` is how many of the
    predictions with the highest scores of a window are known by name, 0 for none; `distinct`: one of each key.
    """

    grid: ValueGrid | None = None
    weighted: bool = False
    top: int = 0
    distinct: bool = False


PLAIN = WindowSpec()
"""Scores and no more."""


def grid_of(plan: Plan) -> ValueGrid | None:
    """Where the plan's predictions lie; None where they are probabilities."""
    if plan.task != "regression":
        return None
    return ValueGrid(plan.low, plan.high, plan.quantile)
