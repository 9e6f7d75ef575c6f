"""What a trainer returns, and how its scores are calibrated and exported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from scipy.optimize import brentq, minimize
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

CLIP = 1e-6
"""Probabilities are kept this far from 0 and 1 before their log-odds are taken."""
OPSET = 17


class TrainedModel(Protocol):
    """A fitted model.

    A trainer is a function `fit(rows, labels, validation_rows, validation_labels, *, plan, seed)`:
    float32 (n, d) in plan order with NaN for missing values, and bool (n,), in time order. Where the use case
    weights immature labels, float64 (n,) targets stand in their place: how many positive labels a row stands for,
    possibly more than 1, of which as many negative ones are to be taken away. Where the use case predicts numbers,
    float64 (n,) numbers between its `low` and `high` stand there, and `predict` and the graph give numbers too.
    """

    def predict(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Probabilities, float64 (n,), uncalibrated."""

    def to_onnx(self) -> onnx.ModelProto:
        """The same as a graph: input "rows" float32 (n, d), first output (n,) of probabilities, of any type of float."""


class Calibration:
    """Platt scaling on the log-odds: sigmoid(a * logit + b), a > 0 (Platt 1999).

    Args:
        scores: float64 (n,), uncalibrated probabilities of rows that the model was not fitted to.
        labels: bool (n,), both classes; or targets, float64 (n,), as `TrainedModel` has them.
        log_r: What a sampling of negatives asks to be added to the log-odds before (`core/negative_sampling.py`).
    """

    def __init__(
        self, scores: NDArray[np.float64], labels: NDArray[np.bool_] | NDArray[np.float64], *, log_r: float = 0.0
    ) -> None:
        slope, intercept = _platt(_logits(scores) + log_r, labels)
        # A slope of 0 or less would turn the order of the scores around; then only the mean is moved.
        if slope <= 0.05:
            slope, offset = 1.0, _offset(scores, labels)
        else:
            offset = intercept + slope * log_r
        self.slope = slope
        self.offset = offset

    def __call__(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Calibrated probabilities, float64 (n,)."""
        return np.asarray(1.0 / (1.0 + np.exp(-(self.slope * _logits(scores) + self.offset))))

    def append_to(self, model: onnx.ModelProto) -> bytes:
        """The model with the calibration behind it, and "scores" as its only output, float64 (n,).

        In float64: a logarithm of float32 may end otherwise in the last rows of a batch, which vector instructions do
        not reach, and a score near a step of the grid would depend on the batch that the row came in.
        """
        graph = model.graph
        raw = graph.output[0].name
        constants = {
            "calibration_low": CLIP,
            "calibration_high": 1.0 - CLIP,
            "calibration_one": 1.0,
            "calibration_slope": self.slope,
            "calibration_offset": self.offset,
        }
        for name, value in constants.items():
            graph.initializer.append(numpy_helper.from_array(np.array(value, dtype=np.float64), name))
        flat = numpy_helper.from_array(np.array([-1], dtype=np.int64), "calibration_flat")
        graph.initializer.append(flat)
        steps = (
            ("Reshape", [raw, "calibration_flat"], "calibration_raw"),
            ("Cast", ["calibration_raw"], "calibration_exact"),
            ("Clip", ["calibration_exact", "calibration_low", "calibration_high"], "calibration_p"),
            ("Sub", ["calibration_one", "calibration_p"], "calibration_q"),
            ("Div", ["calibration_p", "calibration_q"], "calibration_odds"),
            ("Log", ["calibration_odds"], "calibration_logit"),
            ("Mul", ["calibration_logit", "calibration_slope"], "calibration_scaled"),
            ("Add", ["calibration_scaled", "calibration_offset"], "calibration_moved"),
            ("Sigmoid", ["calibration_moved"], "scores"),
        )
        return in_chain(model, steps, TensorProto.DOUBLE)


def in_chain(model: onnx.ModelProto, steps: Sequence[tuple[str, list[str], str]], kind: int) -> bytes:
    """A model with operators behind it, each with its inputs and its output.

    The last gives its only output, "scores", of the type `kind`, which is also what a `Cast` gives.
    """
    for operator, inputs, output in steps:
        cast_to: dict[str, Any] = {"to": kind} if operator == "Cast" else {}
        model.graph.node.append(helper.make_node(operator, inputs, [output], **cast_to))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("scores", kind, ["n"]))
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _logits(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    p = np.clip(np.asarray(scores, dtype=np.float64), CLIP, 1.0 - CLIP)
    return np.asarray(np.log(p) - np.log1p(-p))


def _platt(logits: NDArray[np.float64], labels: NDArray[np.bool_] | NDArray[np.float64]) -> tuple[float, float]:
    """Slope and intercept of greatest likelihood."""
    if labels.dtype == np.bool_:
        fitted = LogisticRegression(C=1e3).fit(logits.reshape(-1, 1), labels)
        return float(fitted.coef_[0, 0]), float(fitted.intercept_[0])

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        # log(1 + exp(z)) - q z stays convex in z for targets q above 1, which a library's weights would not allow.
        z = parameters[0] * logits + parameters[1]
        gap = expit(z) - labels
        value = float((np.logaddexp(0.0, z) - labels * z).mean())
        return value, np.array([float((gap * logits).mean()), float(gap.mean())])

    found = minimize(loss, np.array([1.0, 0.0]), jac=True, method="BFGS")
    return float(found.x[0]), float(found.x[1])


def _offset(scores: NDArray[np.float64], labels: NDArray[np.bool_] | NDArray[np.float64]) -> float:
    """What moves the log-odds so that the mean score is the rate of positive labels."""
    rate, logits = float(np.clip(labels.mean(), CLIP, 1.0 - CLIP)), _logits(scores)
    reach = 2.0 * float(-np.log(CLIP)) + 1.0
    return float(brentq(lambda offset: float(expit(logits + offset).mean()) - rate, -reach, reach))
