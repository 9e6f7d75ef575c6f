"""The order of copies and runs on a GPU, with a CUDA runtime of the test's own that does nothing before it must."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import structlog
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper

from tailrace.backends import cuda_memory, onnx_slots, runtime_onnx
from tailrace.backends.fixed_shapes import FixedShapes
from tailrace.backends.onnx_slots import BoundSlot, Device, Network
from tailrace.backends.runtime_onnx import OnnxExecutor
from tailrace.errors import DeviceLost

WIDTH = 3
Answer = tuple[Any, ...]


def mean_of_rows() -> bytes:
    nodes = [helper.make_node("ReduceMean", ["rows"], ["scores"], axes=[1], keepdims=1)]
    taken = [helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["n", WIDTH])]
    given = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 1])]
    graph = helper.make_graph(nodes, "mean", taken, given)
    made: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    ).SerializeToString()
    return made


class LazyRuntime:
    """Streams keep what they are given until an event behind it is waited for."""

    cudaError_t = SimpleNamespace(cudaSuccess=0)  # noqa: N815  # CUDA's names, here and below
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice="in", cudaMemcpyDeviceToHost="out")  # noqa: N815
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeRelaxed="relaxed")  # noqa: N815
    cudaStreamNonBlocking, cudaEventDisableTiming, cudaHostAllocDefault = 1, 2, 0  # noqa: N815

    def __init__(self) -> None:
        self.streams: dict[int, list[Callable[[], object]]] = {}
        self.events: dict[int, int] = {}
        self.pinned: dict[int, Any] = {}

    def cudaStreamCreateWithFlags(self, flags: int) -> Answer:
        self.streams[len(self.streams) + 1] = []
        return 0, len(self.streams)

    def cudaEventCreateWithFlags(self, flags: int) -> Answer:
        self.events[len(self.events) + 1] = 0
        return 0, len(self.events)

    def cudaHostAlloc(self, size: int, flags: int) -> Answer:
        memory = (ctypes.c_byte * size)()
        ctypes.memset(memory, 0x7F, size)
        self.pinned[ctypes.addressof(memory)] = memory
        return 0, ctypes.addressof(memory)

    def cudaFreeHost(self, address: int) -> Answer:
        del self.pinned[address]
        return (0,)

    def cudaMemcpyAsync(self, target: int, source: int, size: int, kind: str, stream: int) -> Answer:
        assert (source if kind == "in" else target) in self.pinned
        self.streams[stream].append(functools.partial(ctypes.memmove, target, source, size))
        return (0,)

    def cudaEventRecord(self, event: int, stream: int) -> Answer:
        self.events[event] = stream
        return (0,)

    def cudaStreamWaitEvent(self, stream: int, event: int, flags: int) -> Answer:
        return self.cudaEventSynchronize(event)

    def cudaEventSynchronize(self, event: int) -> Answer:
        waiting = self.streams[self.events[event]]
        while waiting:
            waiting.pop(0)()
        return (0,)

    def cudaMemGetInfo(self) -> Answer:
        return 0, 6_000, 10_000

    def cudaThreadExchangeStreamCaptureMode(self, mode: str) -> Answer:
        return 0, "global"

    def cudaStreamDestroy(self, stream: int) -> Answer:
        return (0,)

    def cudaEventDestroy(self, event: int) -> Answer:
        return (0,)


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> LazyRuntime:
    def on_device(host: NDArray[Any], device: Device) -> Any:
        return ort.OrtValue.ortvalue_from_numpy(np.full_like(host, np.nan))

    made = LazyRuntime()
    monkeypatch.setattr(cuda_memory, "runtime", made)
    monkeypatch.setattr(onnx_slots, "_bound", on_device)
    return made


def network() -> Network:
    session = ort.InferenceSession(mean_of_rows(), providers=["CPUExecutionProvider"])
    return Network(session, "rows", "scores", WIDTH)


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 16, 17, 32, 33, 100])
def test_copies_and_runs_wait_for_each_other(runtime: LazyRuntime, size: int) -> None:
    model = network()
    slots = functools.partial(BoundSlot, model, model.run(np.zeros((2, WIDTH), np.float32)), Device())
    fixed = FixedShapes(slots, (4, 16))
    for seed in range(3):
        rows = np.random.default_rng(seed).normal(size=(size, WIDTH)).astype(np.float32)
        np.testing.assert_allclose(rows.mean(1), fixed.run(rows), rtol=1e-6, atol=1e-6)


def test_pinned_memory_is_freed_with_its_last_view(runtime: LazyRuntime) -> None:
    view = cuda_memory.pinned((4, 2), np.float32)[1:]
    assert 1 == len(runtime.pinned)
    assert 0.0 == view.sum()
    del view
    assert not runtime.pinned


def test_next_model_may_take_half_of_what_is_free(runtime: LazyRuntime) -> None:
    assert 3_000 == Device().memory_limit


def test_captured_graphs_have_numbers_of_their_own_and_not_0(runtime: LazyRuntime) -> None:
    device = Device()
    assert [1, 2, 3] == [device.next_graph() for _ in range(3)]


def test_answers_of_the_runtime_that_are_no_success_are_raised(
    runtime: LazyRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    failure = SimpleNamespace(name="cudaErrorMemoryAllocation")
    monkeypatch.setattr(runtime, "cudaHostAlloc", lambda size, flags: (failure, None))
    with pytest.raises(DeviceLost, match="cudaErrorMemoryAllocation"):
        cuda_memory.pinned((4, 2), np.float32)


def test_gpu_that_fails_is_not_taken_for_a_model_that_fails(
    runtime: LazyRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = network()
    slots = functools.partial(BoundSlot, model, model.run(np.zeros((2, WIDTH), np.float32)), Device())
    executor = OnnxExecutor(mean_of_rows(), width=WIDTH)
    monkeypatch.setattr(executor, "_fixed", FixedShapes(slots, (4,)))
    failure = SimpleNamespace(name="cudaErrorIllegalAddress")
    monkeypatch.setattr(runtime, "cudaEventSynchronize", lambda event: (failure,))
    with pytest.raises(DeviceLost, match="cudaErrorIllegalAddress"):
        executor.run(np.zeros((3, WIDTH), np.float32))


def test_model_that_does_not_give_one_number_a_row_is_refused() -> None:
    with pytest.raises(ValueError, match="one number a row"):
        BoundSlot(network(), np.zeros((2, 2), np.float32), None, 4)


@pytest.mark.skipif(torch.cuda.is_available(), reason="no provider refuses here")
def test_model_that_every_gpu_provider_refuses_runs_on_the_processor_and_a_warning_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    providers = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")
    monkeypatch.setattr(runtime_onnx, "usable_providers", lambda: providers)
    with structlog.testing.capture_logs() as logged:
        executor = OnnxExecutor(mean_of_rows(), width=WIDTH)
    assert ["CPUExecutionProvider"] == executor.providers
    assert not executor.fixed
    assert list(providers[:2]) == [each["provider"] for each in logged if each["event"] == "model_refused_by_provider"]
    np.testing.assert_allclose([0.5], executor.run(np.full((1, WIDTH), 0.5, np.float32)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_model_that_cuda_takes_is_captured() -> None:
    executor = OnnxExecutor(mean_of_rows(), width=WIDTH)
    assert "CPUExecutionProvider" != executor.providers[0]
    assert executor.fixed
