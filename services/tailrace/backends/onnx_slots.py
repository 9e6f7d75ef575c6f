"""ONNX Runtime on buffers that stay where they are, on the processor or the GPU."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from tailrace.backends.fixed_shapes import Slot


class Network(NamedTuple):
    """A loaded model, the names of what it takes and gives, and how many columns it takes."""

    session: Any
    input: str
    output: str
    width: int

    def run(self, matrix: NDArray[np.float32]) -> NDArray[Any]:  # hot path
        """The model's output for float32 (n, d), of any shape and type."""
        [scores] = self.session.run([self.output], {self.input: np.ascontiguousarray(matrix)})
        given: NDArray[Any] = scores
        return given


class Device:
    """One model's part of the first GPU; made only where a driver answers.

    Attributes:
        compute: Stream of the kernels and of the copies back.
        copies: Stream of the copies to the device, which run beside the kernels.
        ready: Makes the calling thread one that may work while another captures; to be called in every thread.
        memory_limit: Bytes that the model may take: half of what is free, so that the next one finds room as well.
    """

    def __init__(self) -> None:
        from tailrace.backends import cuda_memory

        cuda_memory.allow_captures_elsewhere()
        self.ready = cuda_memory.allow_captures_elsewhere
        self.compute, self.copies = cuda_memory.Stream(), cuda_memory.Stream()
        self.memory_limit = cuda_memory.free_bytes() // 2
        self._graphs = itertools.count(1)

    def next_graph(self) -> int:
        """A number for a captured graph, unique within the model."""
        return next(self._graphs)


class BoundSlot(Slot):
    """A model bound to buffers for a fixed number of rows.

    On a GPU a batch is: rows to pinned memory → copy to the device on one stream → event → the model's graph on the
    other → copy of the scores to pinned memory → event. Nothing waits before `finish`.

    Args:
        network: The model.
        example: What the model gives for two rows.
        device: Streams of the GPU, of which the session computes on `compute`; None on the processor.
        rows: Rows of the slot.

    Raises:
        ValueError: the model does not give one number a row.
    """

    def __init__(self, network: Network, example: NDArray[Any], device: Device | None, rows: int) -> None:
        if example.shape[:1] != (2,) or example.size != 2:
            raise ValueError(f"the model gives {example.shape} for 2 rows; needed is one number a row")
        self._session, self._count = network.session, 0
        self._rows = _host((rows, network.width), np.dtype(np.float32), device)
        self._scores = _host((rows, *example.shape[1:]), example.dtype, device)
        self._taken, self._given = _bound(self._rows, device), _bound(self._scores, device)
        self._binding = network.session.io_binding()
        self._binding.bind_ortvalue_input(network.input, self._taken)
        self._binding.bind_ortvalue_output(network.output, self._given)
        self._options = ort.RunOptions()
        if device is not None:
            from tailrace.backends.cuda_memory import Event

            self._copied, self._done = Event(), Event()
            # Addresses are part of a captured graph, so each slot has its own; the runtime keeps 0 for itself.
            self._options.add_run_config_entry("gpu_graph_id", str(device.next_graph()))
            self._options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        # Last, hence let go last: the session must not outlive the streams it computes on.
        self._device = device

    def start(self, rows: NDArray[np.float32]) -> None:  # hot path
        """See `Slot.start`."""
        self._count = len(rows)
        self._rows[: self._count] = rows
        self._rows[self._count :] = 0
        if self._device is None:
            self._session.run_with_iobinding(self._binding, self._options)
            return
        self._device.ready()  # the thread that scores is not the one that loaded
        compute, copies = self._device.compute, self._device.copies
        copies.copy_in(self._taken.data_ptr(), self._rows)
        self._copied.record(copies)
        compute.wait_for(self._copied)
        self._session.run_with_iobinding(self._binding, self._options)
        compute.copy_out(self._scores, self._given.data_ptr())
        self._done.record(compute)

    def finish(self, scores: NDArray[np.float64]) -> None:  # hot path
        """See `Slot.finish`."""
        if self._device is not None:
            self._done.wait()
        scores[:] = self._scores[: self._count].reshape(-1)


def _host(shape: tuple[int, ...], dtype: np.dtype[Any], device: Device | None) -> NDArray[Any]:
    if device is None:
        return np.zeros(shape, dtype)
    from tailrace.backends.cuda_memory import pinned

    return pinned(shape, dtype)


def _bound(host: NDArray[Any], device: Device | None) -> Any:
    """A tensor for the model: the host's own memory, or as much on the GPU."""
    if device is None:
        return ort.OrtValue.ortvalue_from_numpy(host)
    return ort.OrtValue.ortvalue_from_shape_and_type(host.shape, host.dtype.type, "cuda", 0)
