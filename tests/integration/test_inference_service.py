"""The inference service on a real broker and store."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from onnx import TensorProto, helper, numpy_helper

from tailrace.backends.artifacts import write_bundle
from tailrace.backends.feature_store import RedisOnlineStore
from tailrace.backends.kafka import admin, committed_offsets, end_offsets, producer, read_topic
from tailrace.backends.settings import Settings
from tailrace.contracts.records import (
    DEAD_LETTER_HEADER,
    WATERMARK_HEADER,
    DeadLetter,
    FeatureRow,
    Prediction,
    RoutingTable,
    Source,
    Variant,
)
from tailrace.contracts.topics import Topics
from tailrace.core.windows import LabelState
from tailrace.inference.service import run
from tailrace.runtime.service import Lifecycle
from tailrace.usecase.declaration import UseCase
from tailrace.usecase.load import load_use_case

PARTITIONS = 2
T0 = 17_000 * 86_400_000
pytestmark = pytest.mark.timeout(180)

MODULE = """
import tailrace as tr


class Payment(tr.Event):
    payment_id: int
    card: str
    terminal: str
    amount: float
    at_ms: int


class Outcome(tr.Event):
    payment_id: int
    fraud: bool
    at_ms: int


payments = tr.Topic("{name}.payments", Payment, key="card", event_time="at_ms")
label = tr.Label(
    tr.Topic("{name}.outcomes", Outcome, key="payment_id", event_time="at_ms"),
    on="payment_id",
    value="fraud",
    matures_after="7d",
)
usecase = tr.UseCase(
    name="{name}",
    requests=payments,
    prediction_id="payment_id",
    features=[
        tr.Field("amount"),
        *tr.GroupBy(label, by="terminal", windows=["30d"]).aggregate(tr.Count()),
    ],
    label=label,
    model=tr.Binary(on_failure=tr.Default(0.02)),
)
"""


class Bench:
    """A use case with topics of its own, and what a test does to it."""

    def __init__(self, settings: Settings, use_case: UseCase, folder: Path) -> None:
        self.settings = settings
        self.use_case = use_case
        self.topics = Topics(use_case.name)
        self.writer = producer(settings)
        self.sent = 0
        self._folder = folder

    def send(self, count: int) -> None:
        """Sends feature rows of `count` events; each tenth twice, as `features` does after a crash."""
        for offset in range(self.sent, self.sent + count):
            for partition in range(PARTITIONS):
                self.writer.produce(self.topics.features, self.row(partition, offset), "k", partition=partition)
                if offset % 10 == 9:
                    again = self.row(partition, offset - 4)
                    self.writer.produce(self.topics.features, again, "k", partition=partition)
            self.writer.poll(0)
        self.sent += count
        self.writer.flush()

    def row(self, partition: int, offset: int) -> bytes:
        return msgspec.json.encode(
            FeatureRow(
                event_id=f"{partition}-{offset}",
                event_time_ms=T0 + offset,
                key=f"c{offset % 10}",
                entities={"terminal": "t"},
                slices={},
                values=[float(offset % 3)],
                fingerprint=self.use_case.plan.fingerprint,
                source=Source(self.use_case.requests.name, partition, offset),
                produced_at_ms=time.time_ns() // 1_000_000,
            )
        )

    def decide(self, epoch: int, *, bias: float = 0.0, damaged: bool = False) -> None:
        """Writes a routing table whose champion is version `epoch`."""
        directory = self._folder / f"bundle-{epoch}"
        plan = self.use_case.plan
        model = logistic(len(plan.order), bias)
        digest = write_bundle(directory, model=model, runtime="onnx", plan=plan, reference={}, metrics={})
        if damaged:
            (directory / "model.onnx").write_bytes(b"damaged")
        variant = Variant(
            name="champion",
            role="champion",
            model_version=str(epoch),
            bundle_uri=directory.as_uri(),
            digest=digest,
            share=1.0,
        )
        table = RoutingTable(
            use_case=plan.use_case, epoch=epoch, decided_at_ms=0, reason="", salt="s", variants=[variant]
        )
        self.writer.produce(self.topics.control, msgspec.json.encode(table), plan.use_case)
        self.writer.flush()

    def predictions(self) -> list[Prediction]:
        found = read_topic(self.settings, self.topics.predictions)
        return [msgspec.json.decode(m.value, type=Prediction) for m in found if m.value is not None]

    def committed(self) -> list[tuple[int, str]]:
        """Committed offset and metadata per partition; empty while the coordinator is loading."""
        found = committed_offsets(self.settings, self.topics.group("inference"), self.topics.features)
        return [found[number] for number in sorted(found)]

    def settled(self, epoch: int) -> bool:
        """Whether everything is consumed, and the epoch stands in the metadata of every partition."""
        ends = end_offsets(client_of(self.settings.kafka_bootstrap), self.topics.features)
        committed = self.committed()
        return [offset for offset, _ in committed] == [end for _, end in sorted(ends.items())] and all(
            msgspec.json.decode(metadata)["epoch"] == epoch for _, metadata in committed
        )

    def expect_each_event_once(self) -> None:
        counts = Counter(prediction.event_id for prediction in self.predictions())
        wanted = {f"{partition}-{offset}" for partition in range(PARTITIONS) for offset in range(self.sent)}
        assert wanted == set(counts)
        assert {1} == set(counts.values())


def logistic(width: int, bias: float) -> bytes:
    """Probability that depends on the bias alone, so that a score names its model."""
    constants = [
        numpy_helper.from_array(np.zeros((width, 1), np.float32), "w"),
        numpy_helper.from_array(np.array([bias], np.float32), "b"),
    ]
    nodes = [helper.make_node("Gemm", ["rows", "w", "b"], ["y"]), helper.make_node("Sigmoid", ["y"], ["scores"])]
    taken = [helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["n", width])]
    given = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 1])]
    graph = helper.make_graph(nodes, "logistic", taken, given, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    made: bytes = model.SerializeToString()
    return made


@functools.cache
def client_of(bootstrap: str) -> AdminClient:
    return admin(Settings(kafka_bootstrap=bootstrap))


@pytest.fixture
def bench(settings: Settings, tmp_path: Path) -> Bench:
    name = f"u{uuid.uuid4().hex[:8]}"
    folder = tmp_path / "use_cases" / name
    folder.mkdir(parents=True)
    (folder / "usecase.py").write_text(MODULE.format(name=name))
    use_case = load_use_case(folder.parent, name)
    topics = Topics(name)
    wanted = [NewTopic(topic, PARTITIONS, 1) for topic in (topics.features, topics.predictions, topics.shadow)]
    wanted += [NewTopic(topic, 1, 1) for topic in (topics.control, topics.dead_letters)]
    for done in client_of(settings.kafka_bootstrap).create_topics(wanted).values():
        done.result(30)
    return Bench(settings.model_copy(update={"use_cases": folder.parent}), use_case, tmp_path)


@contextmanager
def running(bench: Bench) -> Iterator[Lifecycle]:
    lifecycle = Lifecycle("inference", bench.use_case.name)
    failures: list[BaseException] = []

    def target() -> None:
        try:
            run(bench.settings, bench.use_case, lifecycle)
        except BaseException as error:  # noqa: BLE001  # raised again below
            failures.append(error)

    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    try:
        yield lifecycle
    finally:
        lifecycle.stopping.set()
        thread.join(30)
    assert not thread.is_alive()
    assert not failures, failures


def eventually(check: Callable[[], bool], what: str, limit_s: float = 30) -> None:
    deadline = time.monotonic() + limit_s
    while not check():
        assert time.monotonic() < deadline, f"not within {limit_s} s: {what}"
        time.sleep(0.05)


def consumed(bench: Bench, lifecycle: Lifecycle, epoch: int) -> None:
    # Asked for a group that no coordinator has yet, confluent-kafka's admin client can crash the process.
    eventually(lambda: lifecycle.not_ready() == "", "assignment")
    eventually(lambda: bench.settled(epoch), f"lag 0 at epoch {epoch}")


def test_each_event_becomes_one_prediction_or_dead_letter_behind_it_the_watermark(bench: Bench) -> None:
    view = bench.use_case.plan.online_views[0]
    known = LabelState(view)
    known.apply("t", 1, 1, T0 - 5, 1.0, fresh=True)
    values, times, packed = known.rows(["t"])
    store = RedisOnlineStore(bench.settings)
    store.write(view.name, view.entity, [column.name for column in view.columns], ["t"], values, times, packed)
    bench.decide(1)
    bench.send(500)
    letter = DeadLetter(
        use_case=bench.use_case.name,
        stage="features",
        reason="not_json",
        detail="",
        source=Source(bench.use_case.requests.name, 0, 500),
        failed_at_ms=0,
    )
    headers = [(DEAD_LETTER_HEADER, msgspec.json.encode(letter))]
    for _ in range(2):
        bench.writer.produce(bench.topics.features, b"{broken", b"k", partition=0, headers=headers)
    for partition in range(PARTITIONS):
        mark = [(WATERMARK_HEADER, str(T0 + 500).encode())]
        bench.writer.produce(bench.topics.features, None, None, partition=partition, headers=mark)
    bench.writer.flush()
    with running(bench) as lifecycle:
        consumed(bench, lifecycle, 1)
    bench.expect_each_event_once()
    made = bench.predictions()
    assert {("champion", "1", 1)} == {(p.variant, p.model_version, p.epoch) for p in made}
    assert all([float(int(p.event_id.split("-")[1]) % 3), 1.0] == p.features for p in made)
    assert all(p.degraded == [] and p.ages_ms[view.name] == p.event_time_ms - T0 + 5 for p in made)
    assert [b"{broken"] == [m.value for m in read_topic(bench.settings, bench.topics.dead_letters)]
    for topic in (bench.topics.predictions, bench.topics.shadow):
        last = {m.partition: m for m in read_topic(bench.settings, topic)}
        assert [None] * PARTITIONS == [last[number].value for number in range(PARTITIONS)]


def test_models_are_swapped_while_events_flow_and_a_damaged_one_is_left_out(bench: Bench) -> None:
    bench.decide(1, bias=-1)
    with running(bench) as lifecycle:
        bench.send(200)
        consumed(bench, lifecycle, 1)
        bench.decide(2, bias=1)

        def swapped() -> bool:
            bench.send(20)
            return any(made.epoch == 2 for made in bench.predictions())

        eventually(swapped, "epoch 2 scores")
        consumed(bench, lifecycle, 2)
        bench.decide(3, bias=2, damaged=True)
        refused = {"reason": "ArtifactInvalid"}
        counted = lifecycle.metrics.registry.get_sample_value
        eventually(
            lambda: bool(counted("tailrace_inference_model_failures_total", refused)), "the damaged one was tried"
        )
        bench.send(100)
        consumed(bench, lifecycle, 2)
        bench.decide(4, bias=3)
        consumed(bench, lifecycle, 4)
        bench.send(10)
        consumed(bench, lifecycle, 4)
    bench.expect_each_event_once()
    assert {1, 2, 4} == {made.epoch for made in bench.predictions()}
    assert 3 == len({made.score for made in bench.predictions()})


def test_worker_waits_for_a_champion_that_can_be_loaded(bench: Bench) -> None:
    bench.decide(1, damaged=True)
    bench.send(50)
    with running(bench) as lifecycle:
        eventually(lambda: "model.onnx" in lifecycle.not_ready(), "not ready, and why")
        bench.decide(2)
        consumed(bench, lifecycle, 2)
    bench.expect_each_event_once()
    assert {2} == {made.epoch for made in bench.predictions()}


def test_before_the_first_model_the_default_is_published(bench: Bench) -> None:
    bench.send(50)
    with running(bench) as lifecycle:
        consumed(bench, lifecycle, 0)
        bench.decide(1)
        consumed(bench, lifecycle, 1)
        bench.send(50)
        consumed(bench, lifecycle, 1)
    bench.expect_each_event_once()
    assert {("default", 0), ("champion", 1)} == {(made.variant, made.epoch) for made in bench.predictions()}


@contextmanager
def worker(bench: Bench) -> Iterator[subprocess.Popen[bytes]]:
    """`tailrace run inference` as a process of its own."""
    place = bench.settings
    environment = os.environ | {
        "TAILRACE_KAFKA_BOOTSTRAP": place.kafka_bootstrap,
        "TAILRACE_REDIS_URL": place.redis_url,
        "TAILRACE_USE_CASES": str(place.use_cases),
        "TAILRACE_STATE_DIR": str(place.state_dir),
    }
    command = [sys.executable, "-m", "tailrace", "run", "inference", "--use-case", bench.use_case.name]
    process = subprocess.Popen(command, env=environment)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(30)


def test_killed_in_mid_stream_each_event_is_still_predicted_once(bench: Bench) -> None:
    bench.decide(1)
    bench.send(500)
    hit = 0
    for _ in range(2):
        before = len(bench.predictions())
        with worker(bench) as process:
            eventually(lambda: len(bench.predictions()) >= before + 400, "400 more predictions", 60)  # noqa: B023  # waits here
            bench.send(4_000)
            # Somewhere in the middle of a transaction, or between two; the audit must not care.
            process.send_signal(signal.SIGKILL)
        hit += len(bench.predictions()) < bench.sent * PARTITIONS
    assert hit, "the worker was never killed while there was work to do"
    with worker(bench) as process:
        eventually(lambda: len(bench.predictions()) >= bench.sent * PARTITIONS, "everything predicted", 90)
        eventually(lambda: bench.settled(1), "lag 0")
        process.send_signal(signal.SIGTERM)
        assert 0 == process.wait(30)
    bench.expect_each_event_once()
    assert {"champion"} == {made.variant for made in bench.predictions()}
