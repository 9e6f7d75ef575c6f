"""One suite for every executor, and what is particular to each."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tailrace.backends.ports import Executor
from tailrace.backends.runtime_onnx import OnnxExecutor, usable_providers
from tailrace.backends.runtime_torch import TorchExecutor
from tailrace.core.scoring import on_grid
from tailrace.errors import ArtifactInvalid

WIDTH = 5
GENERATOR = np.random.default_rng(7)
WEIGHTS = [GENERATOR.normal(size=shape).astype(np.float32) for shape in ((WIDTH, 16), (16,), (16, 1), (1,))]
ROWS = GENERATOR.normal(size=(300, WIDTH)).astype(np.float32)
ROWS[::7, 2] = np.nan


def onnx_bytes(
    *, link: str = "Sigmoid", width: int = WIDTH, kind: int = TensorProto.FLOAT, rows: int | str = "n", inputs: int = 1
) -> bytes:
    """A network of one hidden layer that takes a missing value for 0."""
    names = ("w0", "b0", "w1", "b1")
    constants = [numpy_helper.from_array(array, name) for name, array in zip(names, WEIGHTS, strict=True)]
    constants += [numpy_helper.from_array(np.array(0, np.float32), "zero")]
    constants += [numpy_helper.from_array(np.array([-1]), "flat")]
    nodes = [
        helper.make_node("Cast", ["rows"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("IsNaN", ["cast"], ["missing"]),
        helper.make_node("Where", ["missing", "zero", "cast"], ["x0"]),
        helper.make_node("Gemm", ["x0", "w0", "b0"], ["y0"]),
        helper.make_node("Relu", ["y0"], ["x1"]),
        helper.make_node("Gemm", ["x1", "w1", "b1"], ["y1"]),
        helper.make_node(link, ["y1"], ["x2"]),
        helper.make_node("Reshape", ["x2", "flat"], ["scores"]),
    ]
    taken = [helper.make_tensor_value_info("rows", kind, [rows, width])]
    taken += [helper.make_tensor_value_info(f"more{at}", kind, [rows, width]) for at in range(1, inputs)]
    given = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "network", taken, given, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    made: bytes = model.SerializeToString()
    return made


class Network(torch.nn.Module):
    """The same network."""

    def __init__(self, link: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.link = link
        self.weights = torch.nn.ParameterList([torch.nn.Parameter(torch.from_numpy(array)) for array in WEIGHTS])

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        w0, b0, w1, b1 = self.weights
        hidden = torch.relu(torch.where(torch.isnan(rows), 0.0, rows) @ w0 + b0)
        return self.link(hidden @ w1 + b1).squeeze(1)


ANY_ROWS = torch.export.Dim("n")


def torch_bytes(
    link: Callable[[torch.Tensor], torch.Tensor] = torch.sigmoid, *, rows: torch.export.Dim | None = ANY_ROWS
) -> bytes:
    shapes = {"rows": {0: rows}} if rows is not None else None
    program = torch.export.export(Network(link).eval(), (torch.zeros(4, WIDTH),), dynamic_shapes=shapes)
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


def expected(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """The same network once more, by hand."""
    w0, b0, w1, b1 = (array.astype(np.float64) for array in WEIGHTS)
    hidden = np.maximum(np.nan_to_num(rows.astype(np.float64)) @ w0 + b0, 0.0)
    made: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-(hidden @ w1 + b1)))[:, 0]
    return made


SHAPES = (4, 16, 64)
"""Small enough that the rows go through in several pieces."""

MAKERS: dict[str, Callable[[], Executor]] = {
    "onnx": lambda: OnnxExecutor(onnx_bytes(), width=WIDTH, threads=2),
    "onnx, fixed shapes": lambda: OnnxExecutor(onnx_bytes(), width=WIDTH, shapes=SHAPES),
    "torch": lambda: TorchExecutor(torch_bytes(), width=WIDTH, threads=2),
    "torch, fixed shapes": lambda: TorchExecutor(torch_bytes(), width=WIDTH, shapes=SHAPES),
}
# Outputs that are no probabilities: below 0, and the square root of a negative number.
LIARS: dict[str, Sequence[Callable[[], Executor]]] = {
    "onnx": [lambda link=link: OnnxExecutor(onnx_bytes(link=link), width=WIDTH) for link in ("Identity", "Sqrt")],  # type: ignore[misc]  # bound at once
    "torch": [lambda link=link: TorchExecutor(torch_bytes(link), width=WIDTH) for link in (torch.neg, torch.sqrt)],  # type: ignore[misc]  # as above
}
JUNK: dict[str, Callable[[], Executor]] = {
    "onnx": lambda: OnnxExecutor(b"junk", width=WIDTH),
    "torch": lambda: TorchExecutor(b"junk", width=WIDTH),
}


@pytest.fixture(scope="module", params=sorted(MAKERS))
def runtime(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def executor(runtime: str) -> Executor:
    return MAKERS[runtime]()


def test_scores_are_those_of_the_model_and_missing_values_reach_it(executor: Executor) -> None:
    scores = executor.run(ROWS)
    assert np.float64 == scores.dtype
    # ONNX Runtime approximates the sigmoid: absolute error about 1e-7, and 0 below log-odds of -18.
    np.testing.assert_allclose(scores, expected(ROWS), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("size", [1, 2, 3, 64, 299])
def test_score_of_a_row_does_not_depend_on_its_batch(executor: Executor, size: int) -> None:
    parts = [executor.run(ROWS[at : at + size]) for at in range(0, len(ROWS), size)]
    np.testing.assert_array_equal(on_grid(np.concatenate(parts)), on_grid(executor.run(ROWS)))


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 15, 16, 17, 63, 64, 65, 128, 129, 193, 300])
def test_batch_of_any_size_gets_the_scores_of_its_rows_alone(executor: Executor, size: int) -> None:
    alone = [executor.run(ROWS[at : at + 1]) for at in range(size)]
    together = executor.run(ROWS[:size])
    assert (size,) == together.shape
    np.testing.assert_allclose(together, np.concatenate([np.empty(0), *alone]), rtol=0, atol=1e-6)


def test_scores_of_one_batch_survive_the_next(executor: Executor) -> None:
    first = executor.run(ROWS[:16])
    kept = first.copy()
    executor.run(ROWS[16:32])
    np.testing.assert_array_equal(kept, first)


def test_executors_of_two_models_do_not_disturb_each_other(runtime: str) -> None:
    one, other = MAKERS[runtime](), MAKERS[runtime]()
    other.warm(8)
    np.testing.assert_array_equal(one.run(ROWS[:100]), other.run(ROWS[:100]))


def test_model_is_loaded_in_one_thread_while_another_scores_with_its_predecessor(runtime: str) -> None:
    serving, wanted = MAKERS[runtime](), expected(ROWS)
    loader = threading.Thread(target=lambda: MAKERS[runtime]().warm(64))
    loader.start()
    try:
        while loader.is_alive():
            np.testing.assert_allclose(serving.run(ROWS), wanted, rtol=1e-4, atol=1e-6)
    finally:
        loader.join()
    np.testing.assert_allclose(serving.run(ROWS), wanted, rtol=1e-4, atol=1e-6)


def test_rows_need_not_be_contiguous(executor: Executor) -> None:
    np.testing.assert_array_equal(executor.run(ROWS[::2]), executor.run(ROWS[::2].copy()))


def test_warming_needs_no_rows(executor: Executor) -> None:
    executor.warm(8)


def test_rows_of_another_width_are_refused(executor: Executor) -> None:
    with pytest.raises(ArtifactInvalid, match="failed on"):
        executor.run(np.zeros((3, WIDTH + 1), np.float32))


def test_outputs_that_are_no_probabilities_are_refused(runtime: str) -> None:
    for make in LIARS[runtime.partition(",")[0]]:
        with pytest.raises(ArtifactInvalid, match="probabilities"):
            make().run(ROWS)


def test_bytes_that_are_no_model_are_refused(runtime: str) -> None:
    with pytest.raises(ArtifactInvalid, match="cannot load the model"):
        JUNK[runtime.partition(",")[0]]()


@pytest.mark.parametrize(
    "model",
    [
        onnx_bytes(kind=TensorProto.DOUBLE),
        onnx_bytes(rows=1),
        onnx_bytes(inputs=2),
    ],
    ids=["double", "one row only", "two inputs"],
)
def test_onnx_model_that_takes_other_inputs_is_refused_when_loaded(model: bytes) -> None:
    with pytest.raises(ArtifactInvalid, match="needed is one input"):
        OnnxExecutor(model, width=WIDTH)


def test_onnx_model_of_another_plan_is_refused_when_loaded() -> None:
    with pytest.raises(ArtifactInvalid, match=f"plan's {WIDTH + 1} columns"):
        OnnxExecutor(onnx_bytes(), width=WIDTH + 1)


@pytest.mark.parametrize("rows", [None, torch.export.Dim("n", max=64), torch.export.Dim("n", min=3)])
def test_torch_program_of_a_limited_number_of_rows_is_refused_when_loaded(rows: torch.export.Dim | None) -> None:
    with pytest.raises(ArtifactInvalid, match="needed is one input"):
        TorchExecutor(torch_bytes(rows=rows), width=WIDTH)


def test_torch_program_of_another_plan_is_refused_when_loaded() -> None:
    with pytest.raises(ArtifactInvalid, match=f"plan's {WIDTH + 1} columns"):
        TorchExecutor(torch_bytes(), width=WIDTH + 1)


def test_providers_end_with_the_processor_and_are_in_use() -> None:
    found = OnnxExecutor(onnx_bytes(), width=WIDTH).providers
    assert "CPUExecutionProvider" == usable_providers()[-1]
    assert set(found) <= set(usable_providers())


@pytest.mark.skipif("CUDAExecutionProvider" not in onnxruntime.get_available_providers(), reason="built without CUDA")
def test_libraries_that_the_cuda_provider_needs_are_installed() -> None:
    loading = [sys.executable, "-c", "import onnxruntime; onnxruntime.preload_dlls()"]
    found = subprocess.run(loading, capture_output=True, text=True, check=True)
    assert "Failed to load" not in found.stdout + found.stderr
