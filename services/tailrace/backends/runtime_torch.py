"""Runs models exported by torch; torch is imported only when such a bundle is loaded."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import structlog
import torch
from numpy.typing import NDArray
from torch.export.passes import move_to_device_pass

from tailrace.backends.fixed_shapes import SHAPES, FixedShapes, Slot
from tailrace.core.scoring import checked_probabilities
from tailrace.errors import ArtifactInvalid, DeviceLost

Module = Callable[[torch.Tensor], torch.Tensor]


class TorchExecutor:
    """A program made by `torch.export`, float32 (n, d) to n probabilities, on CUDA where there is one.

    On a GPU the program is compiled once for any number of rows, and batches run in fixed shapes: pinned buffers, and
    a CUDA graph for each shape. On the processor a batch runs as it is: there compiling gains little and takes
    seconds, padding costs work.

    For one thread at a time; several executors may run in several threads.

    Args:
        model: The serialised program (`torch.export.save`).
        width: Number of columns d of the plan.
        threads: CPU threads for one run.
        shapes: Rows of the fixed shapes; None lets the device decide.

    Raises:
        ArtifactInvalid: the bytes are no exported program, or it takes other rows.
    """

    def __init__(self, model: bytes, *, width: int, threads: int = 1, shapes: Sequence[int] | None = None) -> None:
        torch.set_num_threads(threads)
        self._width = width
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            program = torch.export.load(io.BytesIO(model))
        except Exception as error:  # the loader raises exceptions of many kinds
            raise ArtifactInvalid(f"torch cannot load the model: {error}. Export it anew.") from error
        if not _takes_any_rows(program, width):
            raise ArtifactInvalid(
                f"needed is one input float32 of any number of rows and the plan's {width} columns, the model takes "
                f"{_taken(program)}: retrain, or export it anew with torch.export.Dim for the rows"
            )
        if self._device == "cuda":
            # Moves constants and tensors made on the way too; a module's own `to` forgets both.
            program = move_to_device_pass(program, self._device)
        # What is checked above and in `run` need not be checked in every call: guards and hooks cost 100 µs of a batch.
        self._module: Module = program.module(check_guards=False).forward
        self._fixed: FixedShapes | None = None
        if self._device == "cuda":
            self._fixed = _captured(self._module, width, shapes or SHAPES)
        elif shapes is not None:
            self._fixed = FixedShapes(functools.partial(_HostSlot, self._module, width), shapes)

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
        try:
            scores = self._as_it_is(matrix) if self._fixed is None else self._fixed.run(matrix)
        except torch.AcceleratorError as error:
            raise DeviceLost(f"{error}: start the worker anew; if it comes again, ask nvidia-smi why") from error
        except Exception as error:  # kernels raise RuntimeErrors, and others
            raise ArtifactInvalid(f"the model failed on {matrix.shape} rows: {error}") from error
        return checked_probabilities(scores, len(matrix))

    def _as_it_is(self, matrix: NDArray[np.float32]) -> NDArray[Any]:
        if len(matrix) == 0:
            return np.empty(0)
        # Programs exported with an open number of rows take two or more unless their author asked for one.
        rows = np.ascontiguousarray(matrix if len(matrix) != 1 else np.repeat(matrix, 2, axis=0))
        with torch.inference_mode():
            scores: NDArray[Any] = self._module(torch.from_numpy(rows).to(self._device)).cpu().numpy()
        return _one_per_row(scores, len(rows))[: len(matrix)]


class _HostSlot(Slot):
    """A module on the processor, for a fixed number of rows."""

    def __init__(self, module: Module, width: int, rows: int) -> None:
        self._module, self._count = module, 0
        self._taken = torch.zeros(rows, width)
        self._rows = self._taken.numpy()

    def start(self, rows: NDArray[np.float32]) -> None:
        self._count = len(rows)
        self._rows[: self._count] = rows
        self._rows[self._count :] = 0
        with torch.inference_mode():
            self._scores = self._module(self._taken).numpy()

    def finish(self, scores: NDArray[np.float64]) -> None:
        scores[:] = _one_per_row(self._scores, len(self._rows))[: self._count]


class _GPU(NamedTuple):
    """What all models of the process share on the first GPU.

    Captured graphs draw on one pool of memory and on cuBLAS' work space, so no two may run at once: every kernel of
    every model runs on `compute`, that is one after the other. Captures run nothing, and have a stream of their own
    because what another thread sends to a capturing stream would become part of the graph.
    """

    compute: torch.cuda.Stream
    copies: torch.cuda.Stream
    captures: torch.cuda.Stream
    pool: Any


class _GPUSlot(Slot):
    """A module captured as a CUDA graph, for a fixed number of rows.

    A batch is: rows to pinned memory → copy to the device on one stream → event → graph on the other → copy of the
    scores to pinned memory → event. Nothing waits before `finish`.
    """

    def __init__(self, module: Module, width: int, gpu: _GPU, rows: int) -> None:
        self._gpu, self._count = gpu, 0
        self._pinned = torch.zeros(rows, width, pin_memory=True)
        self._rows = self._pinned.numpy()
        self._copied, self._done = torch.cuda.Event(), torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch's
        self._graph = torch.cuda.CUDAGraph()
        with torch.inference_mode():
            with torch.cuda.stream(gpu.compute):
                self._taken = torch.zeros(rows, width, device="cuda")
                for _ in range(3):  # lazy initialisation and the choice of kernels must not be captured
                    module(self._taken)
            gpu.compute.synchronize()
            # Other threads may go on allocating: they score with the models that serve now.
            with torch.cuda.graph(self._graph, gpu.pool, gpu.captures, capture_error_mode="thread_local"):
                self._given = module(self._taken)
        self._pinned_scores = torch.zeros(self._given.shape, dtype=self._given.dtype, pin_memory=True)
        self._scores = _one_per_row(self._pinned_scores.numpy(), rows)

    def start(self, rows: NDArray[np.float32]) -> None:  # hot path
        compute, copies = self._gpu.compute, self._gpu.copies
        self._count = len(rows)
        self._rows[: self._count] = rows
        self._rows[self._count :] = 0
        with torch.inference_mode():
            with torch.cuda.stream(copies):
                self._taken.copy_(self._pinned, non_blocking=True)
            self._copied.record(copies)
            compute.wait_event(self._copied)
            with torch.cuda.stream(compute):
                self._graph.replay()
                self._pinned_scores.copy_(self._given, non_blocking=True)
            self._done.record(compute)

    def finish(self, scores: NDArray[np.float64]) -> None:  # hot path
        self._done.synchronize()
        scores[:] = self._scores[: self._count]


@functools.cache
def _gpu() -> _GPU:
    stream: Callable[[], torch.cuda.Stream] = torch.cuda.Stream
    return _GPU(stream(), stream(), stream(), torch.cuda.graph_pool_handle())


def _captured(module: Module, width: int, shapes: Sequence[int]) -> FixedShapes | None:
    """The module in fixed shapes; None where it cannot be captured and runs as it is."""
    try:
        fixed = FixedShapes(functools.partial(_GPUSlot, _compiled(module, width), width, _gpu()), shapes)
        fixed.warm(width)
    except (RuntimeError, AssertionError, ValueError) as error:
        structlog.get_logger().warning("model_not_captured", why=str(error))
        return None
    return fixed


def _compiled(module: Module, width: int) -> Module:
    """The module compiled for any number of rows, or itself where this machine cannot compile it."""
    compiled: Module = torch.compile(module, dynamic=True)
    try:
        with torch.cuda.stream(_gpu().compute), torch.inference_mode():
            compiled(torch.zeros(64, width, device="cuda"))
    except RuntimeError as error:  # no C compiler, or an operation that the compiler does not know
        structlog.get_logger().warning("model_not_compiled", why=str(error))
        return module
    return compiled


def _takes_any_rows(program: torch.export.ExportedProgram, width: int) -> bool:
    inputs = _taken(program)
    if len(inputs) != 1 or inputs[0].dtype != torch.float32 or inputs[0].shape[1:] != (width,):
        return False
    rows = inputs[0].shape[0]
    if not isinstance(rows, torch.SymInt):
        return False
    allowed = program.range_constraints[rows.node.expr]
    return bool(allowed.lower <= 2) and bool(allowed.upper >= 2**31)


def _taken(program: torch.export.ExportedProgram) -> list[torch.Tensor]:
    """Stand-ins for the inputs of a program."""
    names = program.graph_signature.user_inputs
    return [node.meta["val"] for node in program.graph.nodes if node.op == "placeholder" and node.name in names]


def _one_per_row(scores: NDArray[Any], rows: int) -> NDArray[Any]:
    """The scores as (rows,).

    Raises:
        ValueError: there are more or fewer.
    """
    flat = scores.reshape(-1)
    if len(flat) != rows:
        raise ValueError(f"{rows} probabilities were needed, the model gave {scores.shape}")
    return flat
