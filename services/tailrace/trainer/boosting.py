"""Gradient-boosted trees: fast to train, good on tables, at home with missing values."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from skl2onnx.common.data_types import DoubleTensorType
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from tailrace.core.plan import Plan
from tailrace.trainer.models import OPSET

_SIZES: dict[str, Any] = {
    "learning_rate": 0.05,
    "max_iter": 150,
    "max_leaf_nodes": 15,
    "min_samples_leaf": 50,
    "l2_regularization": 5.0,
    "early_stopping": False,
}
"""Small trees favour rare positives: with 31 leaves and a rate of 0.08 the average precision on the fraud handbook was
0.012 lower (docs/adr/0007)."""


class Boosting:
    """A fitted ensemble."""

    def __init__(self, model: HistGradientBoostingClassifier, width: int) -> None:
        self._model = model
        self._width = width

    def predict(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Probabilities, float64 (n,)."""
        return np.asarray(self._model.predict_proba(rows)[:, 1], dtype=np.float64)

    def to_onnx(self) -> onnx.ModelProto:
        """The ensemble as a graph whose first output is the probability of the positive class."""
        model = _exported(self._model, self._width, {"zipmap": False})
        graph = model.graph
        probabilities = graph.output[1].name
        graph.initializer.append(numpy_helper.from_array(np.array(1, dtype=np.int64), "positive_class"))
        graph.node.append(helper.make_node("Gather", [probabilities, "positive_class"], ["positive"], axis=1))
        del graph.output[:]
        graph.output.append(helper.make_tensor_value_info("positive", TensorProto.FLOAT, ["n"]))
        return model


def fit(
    rows: NDArray[np.float32],
    labels: NDArray[np.bool_] | NDArray[np.float64],
    validation_rows: NDArray[np.float32],  # noqa: ARG001  # every trainer takes them; this one never stops early
    validation_labels: NDArray[np.bool_] | NDArray[np.float64],  # noqa: ARG001  # as above
    *,
    plan: Plan,  # noqa: ARG001  # trees need not know which columns are categories
    seed: int,
) -> Boosting:
    """Fits 150 small trees; see `TrainedModel` for the arguments."""
    model = HistGradientBoostingClassifier(**_SIZES, random_state=seed)
    if labels.dtype == np.bool_:
        return Boosting(_on_float32(model.fit(rows, labels)), rows.shape[1])
    # A target is a positive row of its weight and a negative one of what is missing to 1. Trees take no weights
    # below 0; what that adds to the negatives, the calibration on targets takes away again.
    both = np.concatenate([np.flatnonzero(labels > 0.0), np.flatnonzero(labels < 1.0)])
    positive = np.arange(len(both)) < int((labels > 0.0).sum())
    weights = np.where(positive, labels[both], 1.0 - labels[both])
    return Boosting(_on_float32(model.fit(rows[both], positive, sample_weight=weights)), rows.shape[1])


class NumberTrees:
    """A fitted ensemble that gives numbers."""

    def __init__(self, model: HistGradientBoostingRegressor, width: int) -> None:
        self._model = model
        self._width = width

    def predict(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Numbers, float64 (n,)."""
        return np.asarray(self._model.predict(rows), dtype=np.float64)

    def to_onnx(self) -> onnx.ModelProto:
        """The ensemble as a graph whose only output is the number."""
        return _exported(self._model, self._width, {})


def fit_numbers(
    rows: NDArray[np.float32],
    numbers: NDArray[np.float64],
    validation_rows: NDArray[np.float32],  # noqa: ARG001  # as above
    validation_numbers: NDArray[np.float64],  # noqa: ARG001  # as above
    *,
    plan: Plan,
    seed: int,
) -> NumberTrees:
    """Fits as many trees as for probabilities, by squared error, or by the pinball loss of the plan's quantile."""
    loss: dict[str, Any] = {"loss": "squared_error"}
    if plan.quantile is not None:
        loss = {"loss": "quantile", "quantile": plan.quantile}
    model = HistGradientBoostingRegressor(**loss, **_SIZES, random_state=seed)
    return NumberTrees(_on_float32(model.fit(rows, numbers)), rows.shape[1])


def _on_float32(model: Any) -> Any:
    """The same trees with thresholds that float32 can hold, so that the exported ones part rows as they do.

    Rounded to the nearest, a threshold half-way between neighbours can land on the upper one, whose rows would then
    go the other way. A row is float32, so that the greatest float32 below parts them as the threshold did.
    """
    for trees in model._predictors:
        for tree in trees:
            exact = tree.nodes["num_threshold"]
            with np.errstate(over="ignore"):
                nearest = exact.astype(np.float32)
            below = np.nextafter(nearest, np.float32(-np.inf))
            tree.nodes["num_threshold"] = np.where(nearest > exact, below, nearest)
    return model


def _exported(model: Any, width: int, options: dict[str, Any]) -> onnx.ModelProto:
    """The ensemble as a graph that adds up its trees in float64, whatever the batch and the number of threads.

    Small batches are shared out by trees and large ones by rows, so that sums of float32 would depend on the batch.
    """
    exported: onnx.ModelProto = to_onnx(
        model,
        initial_types=[("exact_rows", DoubleTensorType([None, width]))],
        target_opset={"": OPSET, "ai.onnx.ml": 3},
        options=options,
        name="boosting",
    )
    graph = exported.graph
    graph.output[-1].type.tensor_type.elem_type = TensorProto.FLOAT  # sums are rounded at last; the exporter errs
    graph.input[0].name, graph.input[0].type.tensor_type.elem_type = "rows", TensorProto.FLOAT
    graph.node.insert(0, helper.make_node("Cast", ["rows"], ["exact_rows"], to=TensorProto.DOUBLE))
    return exported
