"""The work that all candidates are given: events, a use case, thirty features and a small network.

A card payment with 18 numbers; twelve windowed features over four spans of its card make thirty.
"""

from __future__ import annotations

import functools
import math
import time
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from load_tests.streams import PARTITIONS
from tailrace.backends import topics
from tailrace.backends.artifacts import write_bundle
from tailrace.backends.kafka import producer
from tailrace.backends.settings import Settings
from tailrace.contracts.records import FeatureRow, RoutingTable, Source, Variant
from tailrace.contracts.topics import Topics
from tailrace.usecase.declaration import UseCase
from tailrace.usecase.load import load_use_case

NUMBERS = 17
"""Numbers of an event beside its amount."""
WIDTH = 30
HIDDEN = 32
CARDS = 10_000
SPANS_MS = (60_000, 600_000, 3_600_000, 86_400_000)

_MODULE = '''"""Made for one run of a load test."""

import tailrace as tr


class Payment(tr.Event):
    """A card payment."""

    payment_id: str
    card: str
    amount: float
    at_ms: int
{fields}


class Outcome(tr.Event):
    """What became of it."""

    payment_id: str
    fraud: bool
    at_ms: int


payments = tr.Topic("{name}.payments", Payment, key="card", event_time="at_ms", lateness="1m")
outcomes = tr.Topic("{name}.outcomes", Outcome, key="payment_id", event_time="at_ms")
label = tr.Label(outcomes, on="payment_id", value="fraud", matures_after="1d")
usecase = tr.UseCase(
    name="{name}",
    requests=payments,
    prediction_id="payment_id",
    features=[
        tr.Field("amount"),
{columns}
        *tr.GroupBy(payments, by="card", windows=["1m", "10m", "1h", "1d"]).aggregate(
            tr.Count(), tr.Sum("amount"), tr.Mean("amount")
        ),
    ],
    label=label,
    model=tr.Binary(threshold=0.5, latency_budget="20ms", on_failure=tr.Default(0.02)),
)
'''


class Payment(msgspec.Struct, frozen=True):
    """What all candidates read of an event."""

    payment_id: str
    card: str
    amount: float
    at_ms: int


def use_case(settings: Settings, name: str) -> UseCase:
    """Writes a use case of this name into `settings.use_cases`, and makes its topics."""
    folder = settings.use_cases / name
    folder.mkdir(parents=True, exist_ok=True)
    numbers = [f"x{number:02d}" for number in range(NUMBERS)]
    fields = "\n".join(f"    {number}: float" for number in numbers)
    columns = "\n".join(f'        tr.Field("{number}"),' for number in numbers)
    (folder / "usecase.py").write_text(_MODULE.format(name=name, fields=fields, columns=columns))
    loaded = load_use_case(settings.use_cases, name)
    assert len(loaded.plan.order) == WIDTH
    topics.apply(settings, loaded)
    return loaded


def promote(settings: Settings, case: UseCase) -> None:
    """Makes the network champion of a use case."""
    directory = settings.state_dir / f"bundle-{case.name}"
    digest = write_bundle(directory, model=network(), runtime="onnx", plan=case.plan, reference={}, metrics={})
    champion = Variant(
        name="champion",
        role="champion",
        model_version="1",
        bundle_uri=directory.as_uri(),
        digest=digest,
        share=1.0,
    )
    table = RoutingTable(use_case=case.name, epoch=1, decided_at_ms=0, reason="", salt="s", variants=[champion])
    writer = producer(settings)
    writer.produce(Topics(case.name).control, msgspec.json.encode(table), case.name)
    writer.flush(30)


@functools.cache
def network() -> bytes:
    """A network of two hidden layers as ONNX: "rows" float32 (n, 30), NaN = missing -> "scores" float32 (n, 1)."""
    rng = np.random.default_rng(1)
    widths = (WIDTH, HIDDEN, HIDDEN, 1)
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
    taken = [helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["n", WIDTH])]
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


def payments(count: int, *, seed: int, at_ms: NDArray[np.int64]) -> list[tuple[bytes, bytes, int]]:
    """Events as (key, value, partition), about 330 bytes each; `payment_id` is the place in the list.

    Args:
        count: How many.
        seed: Same seed, same events.
        at_ms: int64 (count,), event times, epoch milliseconds.
    """
    rng = np.random.default_rng(seed)
    cards = (CARDS * rng.random(count) ** 1.3).astype(np.int64).tolist()
    amounts = np.round(rng.lognormal(3.3, 0.8, count), 2).tolist()
    numbers = _number_texts(rng)
    picks = rng.integers(0, len(numbers), count).tolist()
    times = at_ms.tolist()
    return [
        (
            b"c%d" % card,
            b'{"payment_id":"%d","card":"c%d","amount":%.2f,"at_ms":%d,%b}' % (place, card, amount, at, numbers[pick]),
            card % PARTITIONS,
        )
        for place, (card, amount, at, pick) in enumerate(zip(cards, amounts, times, picks, strict=True))
    ]


def probe(name: str, partition: int) -> tuple[bytes, bytes]:
    """Key and value of an event of this identity, of a card that nobody else has."""
    numbers = ",".join(f'"x{number:02d}":0.0' for number in range(NUMBERS))
    at_ms = time.time_ns() // 1_000_000
    card = f"probe{partition}"
    value = f'{{"payment_id":"{name}","card":"{card}","amount":1.0,"at_ms":{at_ms},{numbers}}}'
    return card.encode(), value.encode()


def event_times_ms(count: int) -> NDArray[np.int64]:
    """Event times, epoch milliseconds, int64 (count,): a thousand events per second of stream time, up to now."""
    return time.time_ns() // 1_000_000 - count + np.arange(count, dtype=np.int64)


def feature_rows(count: int, *, seed: int, fingerprint: str, topic: str) -> list[tuple[bytes, bytes, int]]:
    """Records of FEATURES as (key, value, partition), with thirty values each, about 500 bytes.

    Args:
        count: How many.
        seed: Same seed, same rows.
        fingerprint: Of the plan they are made for.
        topic: Name of the events topic they are said to come from.
    """
    rng = np.random.default_rng(seed)
    matrix = np.round(rng.normal(0, 1, (count, WIDTH)), 3).tolist()
    cards = (CARDS * rng.random(count) ** 1.3).astype(np.int64).tolist()
    now_ms = time.time_ns() // 1_000_000
    offsets = [0] * PARTITIONS
    rows = []
    for place, (values, card) in enumerate(zip(matrix, cards, strict=True)):
        partition = card % PARTITIONS
        row = FeatureRow(
            event_id=str(place),
            event_time_ms=now_ms,
            key=f"c{card}",
            entities={},
            slices={},
            values=values,
            fingerprint=fingerprint,
            source=Source(topic, partition, offsets[partition]),
            produced_at_ms=now_ms,
        )
        offsets[partition] += 1
        rows.append((b"c%d" % card, msgspec.json.encode(row), partition))
    return rows


def _number_texts(rng: np.random.Generator) -> list[bytes]:
    """A thousand variants of the numbers of an event: formatting each anew would take longer than the test."""
    rows = np.round(rng.normal(0, 1, (1_000, NUMBERS)), 3).tolist()
    return [b",".join(b'"x%02d":%.3f' % (number, value) for number, value in enumerate(row)) for row in rows]
