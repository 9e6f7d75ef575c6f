"""Models to inject: small, known, and written without a trainer."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tailrace.core.plan import Plan

OPSET = 17


def logistic_model(plan: Plan, weights: Mapping[str, float], bias: float) -> bytes:
    """An ONNX model that scores sigmoid(weights · row + bias); missing values count as 0.

    Args:
        plan: Plan of the rows.
        weights: By column of the plan; columns left out weigh nothing.
        bias: Log-odds of a row of zeros.

    Raises:
        KeyError: the plan has no such column.
    """
    column = np.zeros((len(plan.order), 1), np.float32)
    places = {name: at for at, name in enumerate(plan.order)}
    for name, weight in weights.items():
        column[places[name]] = weight
    constants = {"weights": column, "bias": np.array([bias], np.float32), "zero": np.zeros(1, np.float32)}
    nodes = [
        helper.make_node("IsNaN", ["rows"], ["missing"]),
        helper.make_node("Where", ["missing", "zero", "rows"], ["filled"]),
        helper.make_node("Gemm", ["filled", "weights", "bias"], ["log_odds"]),
        helper.make_node("Sigmoid", ["log_odds"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "logistic",
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["n", len(column)])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 1])],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    model: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9
    ).SerializeToString()
    return model
