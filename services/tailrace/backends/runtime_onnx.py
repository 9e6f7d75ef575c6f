"""Runs models with ONNX Runtime, on the best device this machine has."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from tailrace.core.scoring import checked_probabilities
from tailrace.errors import ArtifactInvalid

PREFERRED = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")


class OnnxExecutor:
    """An ONNX model with input "rows" float32 (n, d) and an output of n probabilities.

    Args:
        model: The serialised model.
        width: Number of columns d of the plan.
        threads: CPU threads for one run.

    Raises:
        ArtifactInvalid: the bytes are no model, or it takes other rows.
    """

    def __init__(self, model: bytes, *, width: int, threads: int = 1) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        available = ort.get_available_providers()
        try:
            self._session = ort.InferenceSession(
                model, options, providers=[provider for provider in PREFERRED if provider in available]
            )
        except Exception as error:  # noqa: BLE001  # the runtime raises bare exceptions of its own
            raise ArtifactInvalid(f"ONNX Runtime cannot load the model: {error}") from error
        [taken] = self._session.get_inputs()
        if len(taken.shape) != 2 or (isinstance(taken.shape[1], int) and taken.shape[1] != width):
            raise ArtifactInvalid(f"the model takes {taken.name} {taken.shape}, the plan has {width} columns: retrain")
        self._input = taken.name
        self._output = self._session.get_outputs()[0].name
        self._width = width

    @property
    def providers(self) -> list[str]:
        """Execution providers in use, best first."""
        return list(self._session.get_providers())

    def warm(self, rows: int) -> None:
        """Runs dummy batches of 1 and `rows` rows."""
        for count in (1, rows):
            self.run(np.zeros((count, self._width), dtype=np.float32))

    def run(self, matrix: NDArray[np.float32]) -> NDArray[np.float64]:
        """Scores float32 (n, d), NaN = missing; returns float64 (n,) in [0, 1].

        Raises:
            ArtifactInvalid: the model fails, or gives no probabilities.
        """
        try:
            [scores] = self._session.run([self._output], {self._input: np.ascontiguousarray(matrix)})
        except Exception as error:  # noqa: BLE001  # as above
            raise ArtifactInvalid(f"the model failed on {matrix.shape} rows: {error}") from error
        return checked_probabilities(scores, len(matrix))
