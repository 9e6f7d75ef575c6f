"""A use case of 30 columns and a small MLP with FEATURES prefilled: what the inference scenarios run on."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import msgspec
import numpy as np
from confluent_kafka import TopicPartition
from confluent_kafka.admin import NewTopic
from onnx import TensorProto, helper, numpy_helper

from load_tests.bench import Bench
from tailrace.backends.artifacts import write_bundle
from tailrace.backends.feature_store import RedisOnlineStore
from tailrace.backends.kafka import admin, consumer, producer
from tailrace.backends.settings import Settings
from tailrace.contracts.records import FeatureRow, RoutingTable, Source, Variant
from tailrace.contracts.topics import READERS, Topics
from tailrace.core.windows import LabelState
from tailrace.usecase.declaration import UseCase
from tailrace.usecase.load import load_use_case

PARTITIONS = 4
WIDTH = 30
HIDDEN = 32
KEYS = 5_000
SPANS = ["1d", "7d", "14d", "30d"]
TERMINALS = 2_000
LABELS = 20
"""Known labels of each terminal, where the online store is read."""

_MODULE = """
import tailrace as tr


class Payment(tr.Event):
    payment_id: str
    card_id: str
    terminal_id: str
    channel: str
    at_ms: int
    {fields}


class Outcome(tr.Event):
    payment_id: str
    fraud: bool
    at_ms: int


label = tr.Label(
    tr.Topic("{name}.outcomes", Outcome, key="payment_id", event_time="at_ms"),
    on="payment_id",
    value="fraud",
    matures_after="7d",
)
usecase = tr.UseCase(
    name="{name}",
    requests=tr.Topic("{name}.payments", Payment, key="card_id", event_time="at_ms"),
    prediction_id="payment_id",
    features=[{columns}],
    label=label,
    slices=["channel"],
    model=tr.Binary(on_failure=tr.Default(0.02)),
)
"""


class ScoredStream:
    """Topics of a use case of its own name, its champion, and feature rows to score.

    Args:
        bench: Broker, scratch folder and seed.
        online: Whether the last columns are read from the online store, label windows of the event's terminal.
    """

    def __init__(self, bench: Bench, *, online: bool = False) -> None:
        self.name = f"b{uuid.uuid4().hex[:8]}"
        self.topics = Topics(self.name)
        folder = bench.directory / self.name
        (folder / self.name).mkdir(parents=True)
        self._own = WIDTH - len(SPANS) * online
        fields = "\n    ".join(f"f{number:02}: float" for number in range(self._own))
        columns = ", ".join(f'tr.Field("f{number:02}")' for number in range(self._own)) + ", "
        if online:
            columns += f'*tr.GroupBy(label, by="terminal_id", windows={SPANS}).aggregate(tr.Count())'
        (folder / self.name / "usecase.py").write_text(_MODULE.format(name=self.name, fields=fields, columns=columns))
        self.use_case: UseCase = load_use_case(folder, self.name)
        self.settings: Settings = bench.settings.model_copy(update={"use_cases": folder, "state_dir": folder})
        self.model = mlp(WIDTH, HIDDEN, bench.seed)
        self._seed = bench.seed
        self._sent = 0
        topics = self.topics
        wanted = [NewTopic(topic, PARTITIONS, 1) for topic in (topics.features, topics.predictions, topics.shadow)]
        wanted += [NewTopic(topic, 1, 1) for topic in (topics.control, topics.dead_letters, topics.heartbeats)]
        self._names = [each.topic for each in wanted]
        self._admin = admin(self.settings)
        for done in self._admin.create_topics(wanted).values():
            done.result(30)
        if online:
            self._fill_online_store()

    def decide(self) -> None:
        """Makes the model champion."""
        directory = self.settings.state_dir / "bundle"
        digest = write_bundle(
            directory, model=self.model, runtime="onnx", plan=self.use_case.plan, reference={}, metrics={}
        )
        variant = Variant(
            name="champion",
            role="champion",
            model_version="1",
            bundle_uri=directory.as_uri(),
            digest=digest,
            share=1.0,
        )
        table = RoutingTable(
            use_case=self.name, epoch=1, decided_at_ms=0, reason="", salt=self.name, variants=[variant]
        )
        writer = producer(self.settings)
        writer.produce(self.topics.control, msgspec.json.encode(table), self.name)
        writer.flush()

    def _fill_online_store(self) -> None:
        view = self.use_case.plan.online_views[0]
        known = LabelState(view)
        now_ms = time.time_ns() // 1_000_000
        names = [f"terminal-{number}" for number in range(TERMINALS)]
        for at, name in enumerate(names):
            for label in range(LABELS):
                known.apply(name, at * LABELS + label, 1, now_ms - label * 86_400_000, float(label % 2), fresh=True)
        values, times, packed = known.rows(names)
        store = RedisOnlineStore(self.settings.model_copy(update={"redis_timeout_ms": 10_000}))
        store.write(view.name, view.entity, [column.name for column in view.columns], names, values, times, packed)

    def rows(self, count: int) -> Iterator[tuple[int, bytes, bytes]]:
        """Feature rows as `features` writes them: partition, key, value."""
        generator = np.random.default_rng(self._seed)
        values = np.round(generator.normal(size=(min(count, 10_000), self._own)) * 100, 3).tolist()
        fingerprint = self.use_case.plan.fingerprint
        for number in range(self._sent, self._sent + count):
            partition, offset = number % PARTITIONS, number // PARTITIONS
            now_ms = time.time_ns() // 1_000_000
            key = f"card-{number * 7919 % KEYS}"
            row = FeatureRow(
                event_id=f"payment-{number:09}",
                event_time_ms=now_ms,
                key=key,
                entities={"card_id": key, "terminal_id": f"terminal-{number * 31 % TERMINALS}"},
                slices={"channel": "web" if number % 3 else "pos"},
                values=values[number % len(values)],
                fingerprint=fingerprint,
                source=Source(self.use_case.requests.name, partition, offset),
                produced_at_ms=now_ms,
            )
            yield partition, key.encode(), msgspec.json.encode(row)
        self._sent += count

    def prefill(self, count: int) -> None:
        """Writes `count` feature rows to FEATURES."""
        writer = producer(self.settings)
        for number, (partition, key, value) in enumerate(self.rows(count)):
            writer.produce(self.topics.features, value, key, partition=partition)
            if number % 1_000 == 0:
                writer.poll(0)
        writer.flush()

    def rate(self, wanted: int, limit_s: float = 60.0) -> float:
        """Events per second that become readable in PREDICTIONS, between the first fifth and 95 % of `wanted`."""
        watched = consumer(self.settings, READERS, **{"group.protocol": "classic", "group.instance.id": ""})
        places = [TopicPartition(self.topics.predictions, number) for number in range(PARTITIONS)]
        seen: list[tuple[float, int]] = []
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            ends = [watched.get_watermark_offsets(place, timeout=10, cached=False)[1] for place in places]
            seen.append((time.monotonic(), sum(ends)))
            if seen[-1][1] >= wanted:
                break
            time.sleep(0.02)
        watched.close()
        times, counts = np.array(seen).T
        if counts[-1] < wanted:
            raise RuntimeError(f"{counts[-1]:.0f} of {wanted} predictions after {limit_s:.0f} s")
        begin_s, end_s = np.interp([0.2 * wanted, 0.95 * wanted], counts, times)
        return float(0.75 * wanted / (end_s - begin_s))

    def check_each_once(self, wanted: int) -> None:
        """Counts every source offset in what is committed.

        Raises:
            RuntimeError: an event was predicted twice or never.
        """
        reader = consumer(self.settings, READERS, **{"group.protocol": "classic", "group.instance.id": ""})
        reader.assign([TopicPartition(self.topics.predictions, number, 0) for number in range(PARTITIONS)])
        decoder = msgspec.json.Decoder(_Spine)
        counts: Counter[tuple[int, int]] = Counter()
        deadline = time.monotonic() + 60
        while sum(counts.values()) < wanted and time.monotonic() < deadline:
            for record in reader.consume(10_000, timeout=0.05):
                value = record.value()
                if record.error() is None and value is not None:
                    source = decoder.decode(value).source
                    counts[source.partition, source.offset] += 1
        reader.close()
        doubled = sum(count > 1 for count in counts.values())
        if len(counts) != wanted or doubled:
            raise RuntimeError(f"{len(counts)} of {wanted} events predicted, {doubled} of them more than once")

    def close(self) -> None:
        """Deletes the topics, so that the next run finds the disk as this one did."""
        for done in self._admin.delete_topics(self._names).values():
            done.result(30)


class _Spine(msgspec.Struct, gc=False):
    source: Source


@contextmanager
def worker(stream: ScoredStream, command: Sequence[str] = ()) -> Iterator[subprocess.Popen[bytes]]:
    """A process of its own that scores the stream: `tailrace run inference`, or another command."""
    place = stream.settings
    environment = os.environ | {
        "TAILRACE_KAFKA_BOOTSTRAP": place.kafka_bootstrap,
        "TAILRACE_REDIS_URL": place.redis_url,
        "TAILRACE_USE_CASES": str(place.use_cases),
        "TAILRACE_STATE_DIR": str(place.state_dir),
        "TAILRACE_THREADS": "1",
        "TAILRACE_LOG_LEVEL": "WARNING",
    }
    service = [sys.executable, "-m", "tailrace", "run", "inference", "--use-case", stream.name]
    process = subprocess.Popen(list(command) or service, env=environment)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def mlp(width: int, hidden: int, seed: int) -> bytes:
    """A perceptron with two hidden layers in ONNX: float32 (n, width) to probabilities (n, 1)."""
    generator = np.random.default_rng(seed)
    sizes = [width, hidden, hidden, 1]
    constants = []
    nodes = []
    last = "rows"
    for layer, (taken, given) in enumerate(itertools.pairwise(sizes)):
        weights = generator.normal(size=(taken, given)).astype(np.float32) / np.float32(10 * taken)
        constants += [numpy_helper.from_array(weights, f"w{layer}")]
        constants += [numpy_helper.from_array(np.zeros(given, np.float32), f"b{layer}")]
        nodes.append(helper.make_node("Gemm", [last, f"w{layer}", f"b{layer}"], [f"y{layer}"]))
        last = "scores" if given == 1 else f"h{layer}"
        nodes.append(helper.make_node("Sigmoid" if given == 1 else "Relu", [f"y{layer}"], [last]))
    graph = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["n", width])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 1])],
        constants,
    )
    opsets = [helper.make_opsetid("", 17)]
    made: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()
    return made
