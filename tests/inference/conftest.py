"""Builders shared by the tests of the inference service."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from tailrace.backends.artifacts import write_bundle
from tailrace.contracts.records import RoutingTable, Variant
from tailrace.core.plan import Plan, RequestColumn, WindowColumn, WindowView

BundleMaker = Callable[..., Variant]


@pytest.fixture
def plan() -> Plan:
    """Two columns that travel with the event, one that is read from the online store."""
    return Plan(
        use_case="uc",
        version=1,
        key="card",
        event_time="at_ms",
        event_id="id",
        entities=("card", "terminal"),
        slices=("channel",),
        request=(
            RequestColumn(name="a", kind="field", field="a"),
            RequestColumn(name="b", kind="field", field="b"),
        ),
        views=(
            WindowView(
                name="terminal_labels",
                source="labels",
                entity="terminal",
                columns=(WindowColumn(name="frauds", kind="sum", field="label", span_ms=1_000),),
            ),
        ),
        field_types={"a": "float", "b": "float"},
        threshold=0.5,
        default_score=0.1,
        latency_budget_ms=50,
    )


@pytest.fixture
def bundle(plan: Plan, tmp_path: Path) -> BundleMaker:
    """Makes a bundle of a logistic model and returns the variant that serves it."""

    def make(
        version: str, weights: Sequence[float] = (0, 0, 0), bias: float = 0.0, *, share: float = 1.0, **changes: Any
    ) -> Variant:
        served = msgspec.structs.replace(plan, **changes)
        directory = tmp_path / f"bundle-{version}"
        digest = write_bundle(
            directory, model=logistic(weights, bias), runtime="onnx", plan=served, reference={}, metrics={}
        )
        return Variant(
            name="champion",
            role="champion",
            model_version=version,
            bundle_uri=directory.as_uri(),
            digest=digest,
            share=share,
        )

    return make


def logistic(weights: Sequence[float], bias: float) -> bytes:
    """Probability of a weighted sum, in ONNX; NaN in, NaN out."""
    column = np.array(weights, np.float32).reshape(-1, 1)
    constants = [numpy_helper.from_array(column, "w"), numpy_helper.from_array(np.array([bias], np.float32), "b")]
    nodes = [helper.make_node("Gemm", ["rows", "w", "b"], ["y"]), helper.make_node("Sigmoid", ["y"], ["scores"])]
    graph = helper.make_graph(
        nodes,
        "logistic",
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["n", len(column)])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 1])],
        constants,
    )
    model: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    ).SerializeToString()
    return model


@pytest.fixture
def table() -> Callable[..., RoutingTable]:
    """Makes a routing table."""

    def make(epoch: int, *variants: Variant, warm: Sequence[Variant] = ()) -> RoutingTable:
        return RoutingTable(
            use_case="uc",
            epoch=epoch,
            decided_at_ms=0,
            reason="",
            salt="uc",
            variants=list(variants),
            warm=list(warm),
        )

    return make


class Log:
    """Keeps what was logged."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def info(self, event: str, **facts: Any) -> None:
        self.events.append((event, facts))

    warning = error = info

    def of(self, event: str) -> list[dict[str, Any]]:
        return [facts for name, facts in self.events if name == event]


@pytest.fixture
def log() -> Log:
    """A logger whose `of(event)` gives the facts of every such entry."""
    return Log()
