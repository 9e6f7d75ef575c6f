"""The monitor of several tasks on a real broker, killed while it works, and taken over by the one that stands by."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka.admin import NewTopic
from disordered import use_case
from test_merged import CHAMPION, alone, observed

from load_tests.services import environment
from tailrace.backends.artifacts import write_bundle
from tailrace.backends.codec import encode
from tailrace.backends.kafka import admin, committed_offsets, end_offsets, producer, read_topic
from tailrace.backends.settings import Settings
from tailrace.backends.topics import apply
from tailrace.contracts.records import RoutingTable, Variant
from tailrace.contracts.topics import Topics
from tailrace.feedback.observations import key_of
from tailrace.local.processes import Child, spawn
from tailrace.usecase.declaration import UseCase

pytestmark = pytest.mark.timeout(400)
TASKS, TOPICS = 3, Topics("disordered")
SAID = (TOPICS.quality, TOPICS.alarms, TOPICS.drift, TOPICS.retraining)
WORKER = """
import signal
import sys
from pathlib import Path

from tailrace.backends.logs import configure_logs
from tailrace.backends.settings import Settings
from tailrace.feedback.service import run_monitor
from tailrace.runtime.service import Lifecycle
from tailrace.usecase.load import load_use_case

settings, lifecycle = Settings(), Lifecycle("feedback", "disordered")
configure_logs(settings)
signal.signal(signal.SIGTERM, lambda *_: lifecycle.stopping.set())
declared = load_use_case(Path(sys.argv[1]), "disordered")
declared.parallel_feedback = True  # its outcomes could not be shared, but nobody joins here
run_monitor(settings, declared, lifecycle)
"""


def prepare(settings: Settings, declared: UseCase) -> None:
    """Makes the topics, and a champion that serves."""
    apply(settings, declared)
    client = admin(settings)
    known = client.list_topics(timeout=30).topics
    missing = [NewTopic(TOPICS.observations, 1, 1, config={"cleanup.policy": "compact"})]
    for future in client.create_topics([topic for topic in missing if topic.topic not in known]).values():
        future.result(30)
    bundle = settings.state_dir / "bundle"
    digest = write_bundle(
        bundle,
        model=b"",
        runtime="onnx",
        plan=declared.plan,
        reference=CHAMPION.reference,
        metrics=CHAMPION.metrics,
    )
    variant = Variant(
        name="champion", role="champion", model_version="1", bundle_uri=bundle.as_uri(), digest=digest, share=1.0
    )
    table = RoutingTable(use_case="disordered", epoch=1, decided_at_ms=0, reason="", salt="", variants=[variant])
    writer = producer(settings)
    writer.produce(TOPICS.control, encode(table), b"disordered")
    assert writer.flush(30) == 0


def start(settings: Settings, folder: Path, instance: int, log: str) -> Child:
    own = environment(settings) | {"TAILRACE_INSTANCE": str(instance)}
    command = [sys.executable, "-c", WORKER, str(folder)]
    return spawn(f"monitor-{instance}", command, settings.state_dir / f"{log}.log", own)


def wait_until(reached: Callable[[], bool], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def committed(settings: Settings) -> int:
    found = committed_offsets(settings, TOPICS.group("feedback-monitor"), TOPICS.observations)
    return max((offset for offset, _ in found.values()), default=0)


def test_monitor_that_is_killed_and_taken_over_says_what_one_worker_says_that_joins_all(
    settings: Settings, tmp_path: Path
) -> None:
    folder = tmp_path / "use-cases"
    declared = use_case(folder)
    prepare(settings.model_copy(update={"partitions": TASKS}), declared)
    parts, expected = observed(declared, 3, TASKS), alone(declared, 3)
    writer, sent = producer(settings), 0

    def tell(share: float) -> None:
        nonlocal sent
        longest = max(map(len, parts))
        upto = round(share * longest)
        for number in range(sent, upto):
            for task, part in enumerate(parts):
                if number < len(part):
                    writer.produce(TOPICS.observations, part[number], key_of(task, number))
        sent = upto
        assert writer.flush(30) == 0

    def caught_up() -> bool:
        return committed(settings) >= sum(end_offsets(admin(settings), TOPICS.observations).values())

    first = start(settings, folder, 0, "first")
    standby = None
    try:
        tell(0.3)
        wait_until(lambda: committed(settings) > 0)
        first.kill()
        first = start(settings, folder, 0, "again")
        tell(0.6)
        wait_until(caught_up)
        standby = start(settings, folder, 1, "standby")
        tell(0.8)
        wait_until(lambda: committed(settings) >= 2 * TASKS)
        first.kill()
        tell(1.0)
        wait_until(caught_up, 240.0)
    finally:
        for child in filter(None, (first, standby)):
            child.stop(30)
    for topic in SAID:
        found = [(message.key, message.value) for message in read_topic(settings, topic)]
        assert found == [(output.key, output.value) for output in expected if output.topic == topic]
