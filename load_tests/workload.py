"""What all candidates run: a use case of card payments, and a small network."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from onnx import TensorProto, helper, numpy_helper

from load_tests import streams
from load_tests.bench import Bench
from load_tests.events import Payment
from load_tests.feature_rows import WIDTH
from tailrace.backends import topics
from tailrace.backends.artifacts import write_bundle
from tailrace.backends.kafka import producer
from tailrace.backends.settings import Settings
from tailrace.contracts.records import RoutingTable, Variant
from tailrace.contracts.topics import Topics
from tailrace.usecase.declaration import UseCase
from tailrace.usecase.load import load_use_case

HIDDEN = 32
ALL = 18
"""Fields of an event that are columns too, where a use case has thirty: twelve are windows."""

_MODULE = '''"""Made for one run of a load test."""

import tailrace as tr


class Payment(tr.Event):
    """A card payment."""

{declared}


class Outcome(tr.Event):
    """What became of it."""

    payment_id: str
    fraud: bool
    at_ms: int


payments = tr.Topic("{events}", Payment, key="card", event_time="at_ms", lateness="1m")
outcomes = tr.Topic("{name}.outcomes", Outcome, key="payment_id", event_time="at_ms")
label = tr.Label(outcomes, on="payment_id", value="fraud", matures_after="1d", corrected_within="1d")
usecase = tr.UseCase(
    name="{name}",
    requests=payments,
    prediction_id="payment_id",
    features=[
        {columns}
    ],
    label=label,
    slices=["channel"],
    model=tr.Binary(threshold=0.5, latency_budget="20ms", on_failure=tr.Default(0.02)),
    monitor=[tr.metrics.LogLoss("1d"), tr.metrics.PRAUC("7d"), tr.drift.PSI(every="1d"), tr.drift.ADWIN("log_loss")],
    retrain=tr.Retrain(on=["drift"], at_most_every="1d", min_labels=1_000_000_000, window="7d"),
)
'''
_WINDOWS = """*tr.GroupBy(payments, by="card", windows=["10m", "1h", "1d", "7d"]).aggregate(
            tr.Count(), tr.Sum("amount"), tr.Mean("amount")
        ),"""
_LABELS = '*tr.GroupBy(label, by="terminal", windows=["1d", "7d", "14d", "30d"]).aggregate(tr.Count()),'


@contextmanager
def declared(
    bench: Bench, *, events: str = "", fields: int = ALL, windows: bool = True, labels: bool = False
) -> Iterator[tuple[Settings, UseCase]]:
    """A use case of a new name with topics and folders of its own, for the length of the block.

    Args:
        bench: Broker and scratch folder.
        events: Topic of its events; "": one of its own.
        fields: Fields of the event that are columns.
        windows: Whether twelve windows over events are columns too.
        labels: Whether four windows over labels, read online, are columns too.

    Yields:
        Settings that find it, and the use case. FEATURES and PREDICTIONS carry the broker's times.
    """
    name = streams.fresh("bench").replace(".", "_")
    numbers = [f"x{number:02d}" for number in range(fields - 1)]
    typed = {field.name: field.type.__name__ for field in msgspec.structs.fields(Payment)}
    typed |= dict.fromkeys(numbers, "float")
    columns = [f'tr.Field("{field}"),' for field in (["amount", *numbers] if fields else [])]
    text = _MODULE.format(
        name=name,
        events=events or f"{name}.payments",
        declared="\n".join(f"    {field}: {kind}" for field, kind in typed.items()),
        columns="\n        ".join([*columns, *[_LABELS] * labels, *[_WINDOWS] * windows]),
    )
    folder = bench.directory / "use_cases"
    (folder / name).mkdir(parents=True)
    (folder / name / "usecase.py").write_text(text)
    settings = bench.settings.model_copy(
        update={"use_cases": folder, "state_dir": bench.directory / "state" / name, "threads": 1}
    )
    # Made first, because the broker's times are wanted; what is missing is made with the use case.
    with streams.made(settings, [Topics(name).features, Topics(name).predictions]):
        use_case = load_use_case(folder, name)
        others = topics.apply(settings, use_case)
        try:
            yield settings, use_case
        finally:
            streams.delete(settings, [topic for topic in others if topic.startswith(f"{name}.")])


def promote(
    settings: Settings,
    use_case: UseCase,
    *,
    reference: Mapping[str, Any] | None = None,
    metrics: Mapping[str, float] | None = None,
) -> None:
    """Makes the network champion of a use case; `reference` and `metrics` are of its training."""
    table = routing(settings, use_case, reference=reference, metrics=metrics)
    writer = producer(settings)
    writer.produce(Topics(use_case.name).control, msgspec.json.encode(table), use_case.name)
    writer.flush(30)


def routing(
    settings: Settings,
    use_case: UseCase,
    *,
    models: int = 1,
    epoch: int = 1,
    reference: Mapping[str, Any] | None = None,
    metrics: Mapping[str, float] | None = None,
) -> RoutingTable:
    """A routing table that gives each of several networks an equal share; their bundles are written.

    Args:
        settings: Folder of the bundles.
        use_case: Whose models.
        models: How many.
        epoch: Of the table; the networks of two epochs differ.
        reference: What the training data looked like.
        metrics: Figures of the training.
    """
    variants = []
    for number in range(models):
        directory = settings.state_dir / f"bundle-{use_case.name}-{epoch}-{number}"
        digest = write_bundle(
            directory,
            model=network(len(use_case.plan.order), seed=epoch + 1_000 * number),
            runtime="onnx",
            plan=use_case.plan,
            reference=dict(reference or {}),
            metrics=dict(metrics or {}),
        )
        variant = Variant(
            name=f"canary-{number}" if number else "champion",
            role="canary" if number else "champion",
            model_version=str(number + 1),
            bundle_uri=directory.as_uri(),
            digest=digest,
            share=1 / models,
        )
        variants.append(variant)
    return RoutingTable(use_case=use_case.name, epoch=epoch, decided_at_ms=0, reason="", salt="s", variants=variants)


@functools.cache
def network(width: int = WIDTH, *, seed: int = 1) -> bytes:
    """A network of two hidden layers as ONNX: "rows" float32 (n, width), NaN = missing -> "scores" float32 (n, 1)."""
    rng = np.random.default_rng(seed)
    widths = (width, HIDDEN, HIDDEN, 1)
    constants, nodes = [], [helper.make_node("IsNaN", ["rows"], ["absent"])]
    constants.append(numpy_helper.from_array(np.zeros(1, np.float32), "zero"))
    nodes.append(helper.make_node("Where", ["absent", "zero", "rows"], ["h0"]))
    for layer in range(3):
        shape = (widths[layer], widths[layer + 1])
        weights = rng.normal(0, 1 / math.sqrt(shape[0]), shape).astype(np.float32)
        constants.append(numpy_helper.from_array(weights, f"w{layer}"))
        constants.append(numpy_helper.from_array(np.zeros(shape[1], np.float32), f"b{layer}"))
        nodes.append(helper.make_node("Gemm", [f"h{layer}", f"w{layer}", f"b{layer}"], [f"y{layer}"]))
        activation, out = ("Relu", f"h{layer + 1}") if layer < 2 else ("Sigmoid", "scores")
        nodes.append(helper.make_node(activation, [f"y{layer}"], [out]))
    taken = [helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["n", width])]
    given = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 1])]
    graph = helper.make_graph(nodes, "network", taken, given, constants)
    made: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    ).SerializeToString()
    return made


def network_file(directory: Path) -> Path:
    """The network as a file, for candidates in other environments."""
    path = directory / "network.onnx"
    if not path.exists():
        path.write_bytes(network())
    return path
