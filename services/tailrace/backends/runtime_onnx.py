"""Runs models with ONNX Runtime, on the best device this machine has."""

from __future__ import annotations

import ctypes
import functools
import importlib
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
import structlog
from numpy.typing import NDArray

from tailrace.backends.fixed_shapes import SHAPES, FixedShapes
from tailrace.backends.onnx_slots import BoundSlot, Device, Network
from tailrace.core.scoring import checked_probabilities
from tailrace.errors import ArtifactInvalid, DeviceLost

CUDA, TENSORRT, CPU = "CUDAExecutionProvider", "TensorrtExecutionProvider", "CPUExecutionProvider"

Providers = Sequence[str | tuple[str, dict[str, str]]]


class OnnxExecutor:
    """An ONNX model with one input, float32 (n, d), and an output of n probabilities.

    On a GPU batches run in fixed shapes: pinned buffers, inputs and outputs bound once, each shape captured as a
    CUDA graph (with TensorRT: one engine for all shapes). A model that the GPU cannot run whole, trees for one, or
    that finds no room there, runs on the processor, and a warning says so. There a batch runs as it is: padding
    would cost work, and binding saves 4 µs.

    For one thread at a time; several executors may run in several threads.

    Args:
        model: The serialised model.
        width: Number of columns d of the plan.
        threads: CPU threads for one run.
        shapes: Rows of the fixed shapes; None lets the device decide.

    Raises:
        ArtifactInvalid: the bytes are no model, or it takes other rows.
    """

    def __init__(self, model: bytes, *, width: int, threads: int = 1, shapes: Sequence[int] | None = None) -> None:
        self._width = width
        self._network = _on_processor(model, width, threads)
        self._fixed: FixedShapes | None = None
        captured = _on_gpu(model, self._network, threads, shapes or SHAPES)
        if captured is not None:
            self._network, self._fixed = captured
        elif shapes is not None:
            self._fixed = FixedShapes(
                functools.partial(BoundSlot, self._network, _example(self._network), None), shapes
            )

    @property
    def providers(self) -> list[str]:
        """Execution providers in use, best first."""
        return list(self._network.session.get_providers())

    @property
    def fixed(self) -> bool:
        """Whether batches run in fixed shapes."""
        return self._fixed is not None

    def warm(self, rows: int) -> None:
        """Runs dummy batches: of every fixed shape, or else of 1 and `rows` rows."""
        if self._fixed is not None:
            self._fixed.warm(self._width)
        for count in (1, rows):
            self.run(np.zeros((count, self._width), dtype=np.float32))

    def run(self, matrix: NDArray[np.float32]) -> NDArray[np.float64]:
        """Scores float32 (n, d), NaN = missing; returns float64 (n,) in [0, 1].

        Raises:
            ArtifactInvalid: the model fails, or gives no probabilities.
            DeviceLost: the GPU fails.
        """
        if matrix.shape[1] != self._width:
            raise ArtifactInvalid(f"the model failed on {matrix.shape} rows: it takes {self._width} columns")
        if len(matrix) == 0:  # which not every operation takes
            return np.empty(0)
        try:
            scores = self._network.run(matrix) if self._fixed is None else self._fixed.run(matrix)
        except DeviceLost:
            raise
        except Exception as error:  # the runtime raises bare exceptions of its own
            raise ArtifactInvalid(f"the model failed on {matrix.shape} rows: {error}") from error
        return checked_probabilities(scores, len(matrix))


@functools.cache
def usable_providers() -> tuple[str, ...]:
    """Execution providers that can work here, best first.

    The GPU build names TensorRT and CUDA as available on every machine, and finds out only when a model
    is loaded, at length and on stderr. A driver that answers is what decides.
    """
    available = ort.get_available_providers()
    usable = [CPU]
    if CUDA in available and _has_gpu():
        # The CUDA libraries come as Python packages, where the loader does not look; without this the
        # session would fall back to the CPU and say so on stderr only.
        ort.preload_dlls()
        usable.insert(0, CUDA)
        if TENSORRT in available and _tensorrt_loads():
            usable.insert(0, TENSORRT)
    return tuple(usable)


def _on_processor(model: bytes, width: int, threads: int) -> Network:
    try:
        session = _session(model, threads, [CPU])
    except Exception as error:  # the runtime raises bare exceptions of its own
        raise ArtifactInvalid(f"ONNX Runtime cannot load the model: {error}. Export it anew.") from error
    inputs = session.get_inputs()
    found = [(each.name, each.type, each.shape) for each in inputs]
    if len(inputs) != 1 or not _takes(inputs[0].type, inputs[0].shape, width):
        raise ArtifactInvalid(
            f"the model takes {found}; needed is one input tensor(float) of any number of rows and the plan's "
            f"{width} columns: retrain, or export it anew"
        )
    return Network(session, inputs[0].name, session.get_outputs()[0].name, width)


def _on_gpu(model: bytes, known: Network, threads: int, shapes: Sequence[int]) -> tuple[Network, FixedShapes] | None:
    """The model in fixed shapes by the best provider that takes it; None where the processor must do."""
    for provider in usable_providers()[:-1]:
        try:
            device = Device()
            session = _session(model, threads, _gpu_providers(provider, known, device, shapes[-1]))
            if provider not in session.get_providers():
                raise RuntimeError("its libraries do not load")
            network = known._replace(session=session)
            fixed = FixedShapes(functools.partial(BoundSlot, network, _example(known), device), shapes)
            # Captures now: a model that does not fit beside those that serve must be found before it serves.
            fixed.warm(known.width)
        except Exception as error:  # noqa: BLE001  # bare exceptions again; the model is sound, the next provider runs it
            structlog.get_logger().warning("model_refused_by_provider", provider=provider, why=str(error))
        else:
            return network, fixed
    return None


def _example(network: Network) -> NDArray[Any]:
    """What the model gives for two rows."""
    return network.run(np.zeros((2, network.width), dtype=np.float32))


def _gpu_providers(best: str, model: Network, device: Device, rows: int) -> Providers:
    """Providers from the best down, with their options; docs/gpu.md says why each is set.

    An arena of its own for each model, not one for all: captured graphs keep writing to addresses that
    the arena believes to be free, which does no harm only as long as nobody else is given them.
    """
    cuda = {
        "user_compute_stream": str(device.compute.handle),
        "arena_extend_strategy": "kSameAsRequested",
        "gpu_mem_limit": str(device.memory_limit),
        "use_tf32": "0",
    }
    if best == CUDA:
        return [(CUDA, cuda | {"enable_cuda_graph": "1"}), CPU]
    # The only switch that reaches TensorRT's own choice of kernels; read when an engine is built.
    os.environ["NVIDIA_TF32_OVERRIDE"] = "0"
    tensorrt = {"user_compute_stream": cuda["user_compute_stream"]}
    for bound, count in (("min", 1), ("opt", min(256, rows)), ("max", rows)):
        tensorrt[f"trt_profile_{bound}_shapes"] = f"{model.input}:{count}x{model.width}"
    return [(TENSORRT, tensorrt), (CUDA, cuda), CPU]


def _session(model: bytes, threads: int, providers: Providers) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Threads that spin while they wait take the processor from the rest of the loop between micro-batches.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # A fallback of the runtime's own would drop the options, print, and go unnoticed.
    return ort.InferenceSession(model, options, providers=list(providers), enable_fallback=0)


def _has_gpu() -> bool:
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int(0)
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0


def _tensorrt_loads() -> bool:
    try:
        importlib.import_module("tensorrt")  # loads the libraries beside it, which the loader would not find
    except (ImportError, OSError):
        return False
    return True


def _takes(kind: str, shape: list[int | str | None], width: int) -> bool:
    if kind != "tensor(float)" or len(shape) != 2 or isinstance(shape[0], int):
        return False
    return not isinstance(shape[1], int) or shape[1] == width
