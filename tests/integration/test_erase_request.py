"""The request for an erasure on a real broker: what is refused, what is written, and what the command line says."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
from declared import payments, prediction
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from tailrace.backends.codec import decode, encode
from tailrace.backends.kafka import producer, read_topic
from tailrace.backends.settings import Settings
from tailrace.backends.topics import apply
from tailrace.cli import app
from tailrace.contracts.retraining import EraseRequested, OperatorAction, RetrainingRecord
from tailrace.contracts.topics import Topics
from tailrace.core.erasure import digest_of
from tailrace.local.admin_client import AdminClient
from tailrace.ops.api import create_app
from tailrace.ops.auth import Doorkeeper
from tailrace.ops.follower import Follower
from tailrace.runtime.service import Lifecycle
from tailrace.usecase.declaration import UseCase

TOKEN = "t" * 40
BODY = {"entity": "card", "value": "c17", "reason": "request 4711"}
RETRAINING: Any = RetrainingRecord


class Ops(NamedTuple):
    """A running admin API's parts."""

    settings: Settings
    declared: UseCase
    follower: Follower

    def client(self) -> TestClient:
        api = create_app(self.settings, self.declared, self.follower, Doorkeeper({"ana": TOKEN}))
        return TestClient(api, headers={"Authorization": f"Bearer {TOKEN}"})

    def requests(self) -> list[Any]:
        found = read_topic(self.settings, Topics(self.declared.name).retraining)
        return [decode(RETRAINING, message.value) for message in found if message.value]


@pytest.fixture
def ops(settings: Settings, tmp_path: Path) -> Iterator[Ops]:
    declared = payments(tmp_path, f"uc{uuid4().hex[:8]}", label="", policies="")
    apply(settings, declared)
    lifecycle = Lifecycle("ops", declared.name)
    follower = Follower(settings, declared, lifecycle)
    follower.start()
    deadline = time.monotonic() + 30
    while lifecycle.not_ready():
        assert time.monotonic() < deadline, lifecycle.not_ready()
        time.sleep(0.05)
    yield Ops(settings, declared, follower)
    lifecycle.stopping.set()
    follower.join(10)


def test_request_names_the_entity_and_the_audit_trail_a_digest_of_it(ops: Ops) -> None:
    client = ops.client()
    assert "nothing to erase" in client.post("/api/v1/erase", json=BODY).text
    writer = producer(ops.settings)
    for at_ms in (5, 9, 7):
        made = prediction(ops.declared, f"p{at_ms}", at_ms)
        writer.produce(Topics(ops.declared.name).predictions, encode(made), b"k")
    assert 0 == writer.flush(10)
    answer = client.post("/api/v1/erase", json=BODY)
    assert (202, {"status": "requested", "by": "ana", "before_ms": 9}) == (answer.status_code, answer.json())
    request, note = ops.requests()
    assert isinstance(request, EraseRequested)
    assert ("card", "c17", 9, "ana") == (request.entity, request.value, request.before_ms, request.by)
    assert isinstance(note, OperatorAction)
    assert ("erasure_requested", digest_of("card", "c17")) == (note.action, note.evidence["digest"])
    assert "c17" not in str(note)


def test_what_cannot_be_erased_is_refused_with_what_to_do(ops: Ops) -> None:
    unknown = ops.client().post("/api/v1/erase", json=BODY | {"entity": "iban"})
    assert 404 == unknown.status_code
    assert "card" in unknown.text
    ops.declared.parallel_feedback = True
    refused = ops.client().post("/api/v1/erase", json=BODY)
    assert 409 == refused.status_code
    assert "docs/erasure.md" in refused.text
    assert [] == ops.requests()


def test_command_says_up_to_when_and_json_is_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"status": "requested", "by": "ana", "before_ms": 1_736_121_600_000}
    monkeypatch.setattr(AdminClient, "__init__", lambda *_: None)
    monkeypatch.setattr(AdminClient, "post", lambda _, path, **body: said if (path, body) == ("/erase", BODY) else None)
    words = ["erase", "--use-case", "shop", "--entity", "card", "--value", "c17", "--reason", "request 4711"]
    assert "2025-01-06 00:00:00 UTC" in CliRunner().invoke(app, words).output
    assert said == json.loads(CliRunner().invoke(app, [*words, "--json"]).output)
