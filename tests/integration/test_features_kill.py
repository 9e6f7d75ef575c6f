"""The features service, killed while it works."""

from __future__ import annotations

import sys
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from confluent_kafka.admin import NewTopic

from tailrace.backends.feature_store import RedisOnlineStore
from tailrace.backends.kafka import admin, committed_offsets, end_offsets, producer, read_topic
from tailrace.backends.ports import ReadRequest
from tailrace.backends.settings import Settings
from tailrace.contracts.records import FeatureRow
from tailrace.contracts.topics import Topics
from tailrace.errors import BrokerUnavailable
from tailrace.local.processes import Child, spawn
from tailrace.usecase.load import load_use_case

pytestmark = pytest.mark.timeout(240)
EVENTS, CARDS, PARTITIONS = 60_000, 500, 2
T0, SPAN_MS = 1_700_000_000_000, 3_600_000
USE_CASE = """
import tailrace as tr

class Payment(tr.Event):
    payment_id: int
    card: str
    amount: float
    at_ms: int

class Outcome(tr.Event):
    payment_id: int
    fraud: bool
    at_ms: int

payments = tr.Topic("{name}.payments", Payment, key="card", event_time="at_ms")
outcomes = tr.Topic("{name}.outcomes", Outcome, key="payment_id", event_time="at_ms")
usecase = tr.UseCase(
    name="{name}", requests=payments, prediction_id="payment_id",
    features=tr.GroupBy(payments, by="card", windows=["1h"]).aggregate(tr.Count(), tr.Sum("amount")),
    label=tr.Label(outcomes, on="payment_id", value="fraud", matures_after="7d"),
    model=tr.Binary(train="{name}.train:fit"),
)
"""


def eventually(check: Callable[[], bool], what: str, limit_s: float = 90) -> None:
    deadline = time.monotonic() + limit_s
    while not check():
        assert time.monotonic() < deadline, f"not within {limit_s} s: {what}"
        time.sleep(0.05)


def started(settings: Settings, name: str, instance: int, log: Path) -> Child:
    environment = {
        "TAILRACE_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
        "TAILRACE_REDIS_URL": settings.redis_url,
        "TAILRACE_STATE_DIR": str(settings.state_dir),
        "TAILRACE_USE_CASES": str(settings.use_cases),
        "TAILRACE_REDIS_TIMEOUT_MS": "5000",
        "TAILRACE_INSTANCE": str(instance),
    }
    command = [sys.executable, "-m", "tailrace", "run", "features", "--use-case", name]
    return spawn(name, command, log, environment)


def feed(settings: Settings, topic: str, cards: np.ndarray, times: np.ndarray) -> None:
    """Produces by timetable, 4,000 a second, so that workers die and join with work at hand."""
    sink, clock, began = producer(settings), threading.Event(), time.monotonic()
    for at, (card, at_ms) in enumerate(zip(cards.tolist(), times.tolist(), strict=True)):
        event = {"payment_id": at, "card": f"c{card}", "amount": at % 64 / 8, "at_ms": at_ms}
        sink.produce(topic, msgspec.json.encode(event), b"c%d" % card, card % PARTITIONS)
        if at % 100 == 0:
            sink.poll(0)
            clock.wait(max(0.0, began + at / 4_000 - time.monotonic()))
    assert sink.flush(30) == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_rows_are_those_of_an_undisturbed_run_however_often_it_is_killed(
    settings: Settings, tmp_path: Path, workers: int
) -> None:
    name = f"u{uuid.uuid4().hex[:8]}"
    (tmp_path / "use_cases" / name).mkdir(parents=True)
    (tmp_path / "use_cases" / name / "usecase.py").write_text(USE_CASE.format(name=name))
    settings = settings.model_copy(update={"use_cases": tmp_path / "use_cases"})
    use_case, topics, client = load_use_case(settings.use_cases, name), Topics(name), admin(settings)
    made = [use_case.requests.name, topics.features, topics.features_changelog, topics.heartbeats]
    for done in client.create_topics([NewTopic(topic, PARTITIONS, 1) for topic in made]).values():
        done.result()
    rng = np.random.default_rng(7)
    cards, times = rng.integers(0, CARDS, EVENTS), T0 + np.arange(EVENTS) * 500 - rng.integers(0, 30_000, EVENTS)
    feeder = threading.Thread(target=feed, args=(settings, use_case.requests.name, cards, times), daemon=True)
    feeder.start()

    def out() -> int:
        try:
            return sum(end_offsets(client, topics.features).values())
        except BrokerUnavailable:  # a topic that has just been created
            return 0

    log = tmp_path / "features.log"
    children = [started(settings, name, 0, log)]
    for share in (0.05, 0.3, 0.5):
        eventually(lambda share=share: out() > EVENTS * share, f"{share} of the rows")  # type: ignore[misc]
        if len(children) == workers:
            for child in children:
                child.kill()
            children = []
        # A second worker joins while the first one works, and takes a partition over.
        before = log.read_text().count("partitions_assigned")
        children += [started(settings, name, instance, log) for instance in range(len(children), workers)]
        eventually(lambda before=before: log.read_text().count("partitions_assigned") > before, "assignment")  # type: ignore[misc]
    feeder.join()
    ends = end_offsets(client, use_case.requests.name)
    group = topics.group("features")
    eventually(
        lambda: (
            {at: end for at, (end, _) in committed_offsets(settings, group, use_case.requests.name).items()} == ends
        ),
        "everything committed",
    )
    for child in children:
        child.stop(20)
        assert child.exit_code == 0

    found: dict[int, list[tuple[float | None, ...]]] = defaultdict(list)
    for message in read_topic(settings, topics.features):
        row = msgspec.json.decode(message.value or b"", type=FeatureRow)
        found[int(row.event_id)].append(tuple(row.values))
    history: dict[int, list[tuple[int, float]]] = defaultdict(list)
    expected = {}
    for at, (card, at_ms) in enumerate(zip(cards.tolist(), times.tolist(), strict=True)):
        history[card].append((at_ms, at % 64 / 8))
        inside = [amount for time_ms, amount in history[card] if at_ms - SPAN_MS < time_ms <= at_ms]
        expected[at] = (float(len(inside)), sum(inside))
    assert {at: {row} for at, row in expected.items()} == {at: set(rows) for at, rows in found.items()}
    # By card the newest event, and of equally new ones the last: never the one that came last but is older.
    by_time = np.argsort(times, kind="stable").tolist()
    newest = {f"c{cards[at]}": (int(times[at]), list(expected[at])) for at in by_time}
    view = use_case.plan.event_views[0]
    request = ReadRequest(view.name, view.entity, [column.name for column in view.columns], list(newest))
    store = RedisOnlineStore(settings.model_copy(update={"redis_timeout_ms": 5_000}))
    (rows,) = store.read([request])
    stored = zip(rows.timestamps_ms.tolist(), rows.values.tolist(), strict=True)
    assert list(newest.values()) == list(stored)
