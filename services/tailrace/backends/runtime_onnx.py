"""Runs models with ONNX Runtime, on the best device this machine has."""

from __future__ import annotations

import ctypes
import functools
import importlib.util

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from tailrace.core.scoring import checked_probabilities
from tailrace.errors import ArtifactInvalid


class OnnxExecutor:
    """An ONNX model with one input, float32 (n, d), and an output of n probabilities.

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
        # Threads that spin while they wait take the processor from the rest of the loop between micro-batches.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = ort.InferenceSession(model, options, providers=list(usable_providers()))
        except Exception as error:  # the runtime raises bare exceptions of its own
            raise ArtifactInvalid(f"ONNX Runtime cannot load the model: {error}. Export it anew.") from error
        inputs = self._session.get_inputs()
        found = [(each.name, each.type, each.shape) for each in inputs]
        if len(inputs) != 1 or not _takes(inputs[0].type, inputs[0].shape, width):
            raise ArtifactInvalid(
                f"the model takes {found}; needed is one input tensor(float) of any number of rows and the plan's "
                f"{width} columns: retrain, or export it anew"
            )
        self._input = inputs[0].name
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
        except Exception as error:  # as above
            raise ArtifactInvalid(f"the model failed on {matrix.shape} rows: {error}") from error
        return checked_probabilities(scores, len(matrix))


@functools.cache
def usable_providers() -> tuple[str, ...]:
    """Execution providers that can work here, best first.

    The GPU build names TensorRT and CUDA as available on every machine, and finds out only when a model
    is loaded, at length and on stderr. A driver that answers is what decides.
    """
    available = ort.get_available_providers()
    usable = ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" in available and _has_gpu():
        # The CUDA libraries come as Python packages, where the loader does not look; without this the
        # session would fall back to the CPU and say so on stderr only.
        ort.preload_dlls()
        usable.insert(0, "CUDAExecutionProvider")
        if "TensorrtExecutionProvider" in available and importlib.util.find_spec("tensorrt") is not None:
            usable.insert(0, "TensorrtExecutionProvider")
    return tuple(usable)


def _has_gpu() -> bool:
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int(0)
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0


def _takes(kind: str, shape: list[int | str | None], width: int) -> bool:
    if kind != "tensor(float)" or len(shape) != 2 or isinstance(shape[0], int):
        return False
    return not isinstance(shape[1], int) or shape[1] == width
