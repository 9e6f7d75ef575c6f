"""What stands behind a model of numbers when it is exported."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from tailrace.core.regression import ValueGrid
from tailrace.trainer.models import in_chain


class Scaling:
    """How far numbers are on the way from `low` to `high`, and no further.

    All that runs models reads shares in [0, 1] then, be they probabilities or numbers.

    Args:
        grid: Where the numbers lie.
    """

    def __init__(self, grid: ValueGrid) -> None:
        self._grid = grid

    def __call__(self, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        """Shares, float64 (n,) in [0, 1]."""
        low, high = self._grid.low, self._grid.high
        return np.asarray(np.clip((numbers - low) / (high - low), 0.0, 1.0), dtype=np.float64)

    def append_to(self, model: onnx.ModelProto) -> bytes:
        """The model with the scaling behind it, and "scores" as its only output."""
        grid, graph = self._grid, model.graph
        constants = {"low": grid.low, "range": grid.high - grid.low, "zero": 0.0, "one": 1.0}
        for name, value in constants.items():
            graph.initializer.append(numpy_helper.from_array(np.array(value, dtype=np.float64), f"scaling_{name}"))
        graph.initializer.append(numpy_helper.from_array(np.array([-1], dtype=np.int64), "scaling_flat"))
        steps = (
            ("Reshape", [graph.output[0].name, "scaling_flat"], "scaling_raw"),
            ("Cast", ["scaling_raw"], "scaling_exact"),
            ("Sub", ["scaling_exact", "scaling_low"], "scaling_above"),
            ("Div", ["scaling_above", "scaling_range"], "scaling_share"),
            ("Clip", ["scaling_share", "scaling_zero", "scaling_one"], "scores"),
        )
        return in_chain(model, steps, TensorProto.DOUBLE)
