"""The loop of `make demo` in processes of its own, killed in the middle: it closes all the same, as its audit says."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import demo_loop
import pytest

from tailrace.backends.codec import decode
from tailrace.backends.kafka import producer, read_topic
from tailrace.backends.settings import Settings
from tailrace.contracts.records import DEAD_LETTER_HEADER, DeadLetter
from tailrace.contracts.topics import Topics
from tailrace.local.demo import USE_CASE, play_demo
from tailrace.local.supervisor import Embedded
from tailrace.testing.malformed import malformed_records
from tailrace.testing.streams import START_MS, CardFraudStream
from tailrace.usecase.load import load_use_case

MALFORMED = 10_000
RECORD = {
    "transaction_id": "m",
    "card_id": "c",
    "merchant_id": "m",
    "amount_eur": 1.0,
    "channel": "web",
    "occurred_at_ms": START_MS,
}


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Embedded]:
    system = Embedded(tmp_path, settings=Settings(use_cases=Path("feature_repo")))
    system.start([USE_CASE])
    yield system
    system.stop()


@pytest.mark.timeout(900)
def test_the_demo_closes_its_loop_and_decides_as_the_simulator_though_every_worker_and_the_broker_are_killed(
    embedded: Embedded,
) -> None:
    use_case = load_use_case(Path("feature_repo"), USE_CASE)
    letters = _send_malformed(embedded.settings, use_case.requests.name)
    kills = _Kills(embedded)
    # Beside the demo, in a process of its own: it takes less long.
    with ProcessPoolExecutor(1, get_context("spawn")) as beside:
        simulation = beside.submit(demo_loop.decided)
        result, seen = play_demo(embedded.settings, use_case, CardFraudStream(), look=kills.next_if_due)
        expected = simulation.result()
    assert kills.left == []
    assert result.open == []
    assert all(stage.at_ms is not None for stage in result.stages)
    assert result.predictions == CardFraudStream().tables()[0].num_rows
    assert result.audit.dead_letters == letters
    assert seen.log() == expected
    reasons = [
        decode(DeadLetter, dict(message.headers)[DEAD_LETTER_HEADER]).reason
        for message in read_topic(embedded.settings, Topics(USE_CASE).dead_letters)
    ]
    assert len(reasons) == letters
    assert all(reasons)


def _send_malformed(settings: Settings, topic: str) -> int:
    writer = producer(settings)
    count = 0
    for record in malformed_records(5, MALFORMED, RECORD, "occurred_at_ms"):
        writer.produce(topic, record.value, str(count))
        count += 1
    assert writer.flush(30) == 0
    return count


class _Kills:
    """Kills every worker and the broker, one every three seconds, between two looks of the replay."""

    def __init__(self, embedded: Embedded) -> None:
        self.left = ["broker", "trainer", "rollout", "feedback", "features", "inference"]
        self._embedded = embedded
        self._due_s = time.monotonic() + 3

    def next_if_due(self) -> None:
        self._embedded.check()
        if self.left and time.monotonic() > self._due_s:
            victim = self.left.pop()
            if victim == "broker":
                self._embedded.restart_broker()
            else:
                self._embedded.kill(victim)
            self._due_s = time.monotonic() + 3
