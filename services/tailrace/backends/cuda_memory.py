"""Streams, events, pinned memory and copies of the first GPU; imported only where a driver answers.

Everything here raises `DeviceLost` where CUDA reports a failure: of this call, or of any work before it.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from typing import Any

import numpy as np
from cuda.bindings import runtime
from numpy.typing import DTypeLike, NDArray

from tailrace.errors import DeviceLost

_thread = threading.local()


class Stream:
    """Work in order, beside the default stream. Not thread-safe."""

    def __init__(self) -> None:
        self.handle = int(_checked(runtime.cudaStreamCreateWithFlags(runtime.cudaStreamNonBlocking)))
        weakref.finalize(self, runtime.cudaStreamDestroy, self.handle)

    def wait_for(self, event: Event) -> None:
        """Holds back what comes after until the event."""
        _checked(runtime.cudaStreamWaitEvent(self.handle, event.handle, 0))

    def copy_in(self, device_address: int, host: NDArray[Any]) -> None:
        """Copies pinned memory to the device; returns before it is done."""
        kind = runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        _checked(runtime.cudaMemcpyAsync(device_address, host.ctypes.data, host.nbytes, kind, self.handle))

    def copy_out(self, host: NDArray[Any], device_address: int) -> None:
        """Copies from the device to pinned memory; returns before it is done."""
        kind = runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        _checked(runtime.cudaMemcpyAsync(host.ctypes.data, device_address, host.nbytes, kind, self.handle))


class Event:
    """A point in a stream."""

    def __init__(self) -> None:
        self.handle = int(_checked(runtime.cudaEventCreateWithFlags(runtime.cudaEventDisableTiming)))
        weakref.finalize(self, runtime.cudaEventDestroy, self.handle)

    def record(self, stream: Stream) -> None:
        """Moves the event to the end of what the stream has been given."""
        _checked(runtime.cudaEventRecord(self.handle, stream.handle))

    def wait(self) -> None:
        """Blocks until the event; at once when it was never recorded."""
        _checked(runtime.cudaEventSynchronize(self.handle))


def pinned(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """A zeroed array that the GPU copies from and to without a detour; freed with its last view."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    address = int(_checked(runtime.cudaHostAlloc(size, runtime.cudaHostAllocDefault)))
    buffer = (ctypes.c_byte * size).from_address(address)
    weakref.finalize(buffer, runtime.cudaFreeHost, address)
    array = np.ctypeslib.as_array(buffer).view(dtype).reshape(shape)
    array[...] = 0
    return array


def free_bytes() -> int:
    """Memory of the device that nobody holds now."""
    free, _ = _checked(runtime.cudaMemGetInfo())
    return int(free)


def allow_captures_elsewhere() -> None:
    """Lets the calling thread allocate and wait while another thread captures a graph.

    One thread loads the next model while another scores with the last. ONNX Runtime captures in the mode
    that forbids such calls to every thread of the process, and a call that comes anyway spoils the capture.
    A thread in relaxed mode is exempt (CUDA Runtime API, cudaThreadExchangeStreamCaptureMode).
    """
    if not getattr(_thread, "relaxed", False):
        _checked(
            runtime.cudaThreadExchangeStreamCaptureMode(runtime.cudaStreamCaptureMode.cudaStreamCaptureModeRelaxed)
        )
        _thread.relaxed = True


def _checked(answer: tuple[Any, ...]) -> Any:
    error, *values = answer
    if error != runtime.cudaError_t.cudaSuccess:
        raise DeviceLost(f"CUDA answered {error.name}: start the worker anew; if it comes again, ask nvidia-smi why")
    if len(values) == 1:
        return values[0]
    return values
