"""Dead letters sent again: byte for byte, once, and through the whole loop after the declaration was mended."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from uuid import uuid4

import pytest
from confluent_kafka.admin import NewTopic

from tailrace.backends.kafka import admin, producer, read_topic
from tailrace.backends.ports import Message
from tailrace.backends.settings import Settings
from tailrace.contracts.records import DEAD_LETTER_HEADER, REPLAYED_HEADER
from tailrace.contracts.topics import Topics
from tailrace.errors import BadRecord
from tailrace.local.audit import audit
from tailrace.local.supervisor import Embedded
from tailrace.ops.dead_letters import BATCH, held_records, replay
from tailrace.runtime.dead_letters import dead_letter
from tailrace.testing.streams import START_MS
from tailrace.usecase.load import load_use_case

EVENTS = 300
WITHIN_S = 180
"""More than the 60 s after which a broker ends the transaction of a worker that was killed while it stopped."""


@pytest.fixture
def topics(settings: Settings) -> Topics:
    """Topics of a use case of the test's own; `payments` is where its dead letters came from."""
    topics = Topics(f"uc{uuid4().hex[:8]}")
    client = admin(settings)  # kept: a client that goes away takes its answers with it
    for future in client.create_topics(
        [NewTopic(topics.dead_letters, 1, 1), NewTopic(payments(topics), 1, 1)]
    ).values():
        future.result(30)
    return topics


def payments(topics: Topics) -> str:
    return f"{topics.use_case}.payments"


def put_aside(settings: Settings, topics: Topics, reasons: list[str]) -> list[Message]:
    """Records of a hostile producer, which sends our own headers too, as `features` puts them aside."""
    writer = producer(settings)
    originals = []
    for number, reason in enumerate(reasons):
        headers = [("trace", b"abc"), (DEAD_LETTER_HEADER, b"a producer's own"), (REPLAYED_HEADER, b"")]
        key, value = (None, None) if number % 7 == 0 else (b"k%d" % number, b"\xff\x00 %d" % number)
        originals.append(Message(payments(topics), 0, number, 0, key, value, headers))
        letter = dead_letter(topics, "features", originals[-1], BadRecord(reason, "it says"), 1)
        writer.produce(letter.topic, letter.value, letter.key, headers=letter.headers)
    assert writer.flush(30) == 0
    return originals


def test_letters_are_sent_again_byte_for_byte_and_once(settings: Settings, topics: Topics) -> None:
    originals = put_aside(settings, topics, ["invalid_json", "late"] * (BATCH // 2 + 10))
    assert BATCH + 20 == len(list(held_records(settings, topics)))
    assert BATCH // 2 + 10 == replay(settings, topics, reason="late", by="ana")
    assert {"invalid_json"} == {letter.reason for _, letter in held_records(settings, topics)}
    assert BATCH // 2 + 10 == replay(settings, topics, by="ana")
    assert 0 == replay(settings, topics, by="ana")
    assert [] == list(held_records(settings, topics))
    sent = [(m.key, m.value, m.headers) for m in read_topic(settings, payments(topics))]
    assert [(m.key, m.value, m.headers) for m in [*originals[1::2], *originals[::2]]] == sent


def test_letter_that_fails_again_is_held_again(settings: Settings, topics: Topics) -> None:
    put_aside(settings, topics, ["late"])
    replay(settings, topics, by="ana")
    put_aside(settings, topics, ["late"])
    assert 1 == len(list(held_records(settings, topics)))
    assert 1 == replay(settings, topics, by="ana")


@pytest.mark.timeout(600)
def test_events_refused_by_a_wrong_declaration_are_predicted_after_it_was_mended(tmp_path: Path) -> None:
    right = Path("feature_repo/card_fraud/usecase.py").read_text()
    declaration = tmp_path / "use_cases" / "card_fraud" / "usecase.py"
    declaration.parent.mkdir(parents=True)
    declaration.write_text(right.replace("amount_eur: float", "amount_eur: int"))
    settings = Settings(use_cases=tmp_path / "use_cases")
    topics = Topics("card_fraud")

    embedded = Embedded(tmp_path / "state", settings=settings)
    embedded.start(["card_fraud"])
    try:
        writer = producer(embedded.settings)
        for number in range(EVENTS):
            writer.produce("payments.transactions", json.dumps(_payment(number)).encode(), f"c{number % 9}")
        assert writer.flush(30) == 0
        _await(embedded, topics.dead_letters, EVENTS)
    finally:
        embedded.stop()

    declaration.write_text(right)
    embedded = Embedded(tmp_path / "state", settings=settings)
    embedded.start(["card_fraud"])
    try:
        [listed] = json.loads(_command(tmp_path / "state", "list", "--json"))
        assert EVENTS == listed["records"]
        assert "amount_eur" in listed["example"]
        assert f"{EVENTS} record(s) sent again\n" == _command(
            tmp_path / "state", "replay", "--reason", "amounts have cents"
        )
        _await(embedded, topics.predictions, EVENTS)
        report = audit(embedded.settings, load_use_case(settings.use_cases, "card_fraud"))
        assert report.findings == []
        assert (EVENTS, EVENTS) == (report.predictions, report.dead_letters)
    finally:
        embedded.stop()


def _command(state_dir: Path, *words: str) -> str:
    command = [sys.executable, "-m", "tailrace", "dead-letters", *words, "--use-case", "card_fraud"]
    ran = subprocess.run([*command, "--dir", str(state_dir)], capture_output=True, text=True, timeout=WITHIN_S)
    assert 0 == ran.returncode, ran.stderr
    return ran.stdout


def _payment(number: int) -> dict[str, object]:
    return {
        "transaction_id": f"t{number}",
        "card_id": f"c{number % 9}",
        "merchant_id": "m",
        "amount_eur": number + 0.5,
        "channel": "web",
        "occurred_at_ms": START_MS + number * 1_000,
    }


def _await(embedded: Embedded, topic: str, records: int) -> None:
    deadline = time.monotonic() + WITHIN_S
    while (found := sum(m.value is not None for m in read_topic(embedded.settings, topic))) < records:
        embedded.check()
        assert time.monotonic() < deadline, f"{found} of {records} records in {topic} after {WITHIN_S} s"
        time.sleep(0.2)
