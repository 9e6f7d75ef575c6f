"""The six services, each as a user of its own, on a broker and a Redis that refuse everything else."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from confluent_kafka import OFFSET_END, TopicPartition

from tailrace.backends import access, topics
from tailrace.backends.codec import decode, encode
from tailrace.backends.kafka import admin, producer, read_topic
from tailrace.backends.recordings import to_recording
from tailrace.backends.redis import client
from tailrace.backends.settings import Settings
from tailrace.contracts.access import MATRIX, PREFIX
from tailrace.contracts.retraining import CandidateRefused, CandidateRegistered, RetrainingRecord, RetrainRequested
from tailrace.contracts.topics import AUDIT, Topics
from tailrace.local.audit import audit
from tailrace.local.broker import Broker
from tailrace.local.broker_security import add_users
from tailrace.local.online_store import OnlineStoreServer
from tailrace.local.permissions import missing
from tailrace.local.processes import Child, spawn
from tailrace.local.replay import Replay
from tailrace.ops.dead_letters import replay
from tailrace.runtime.service import SERVICES
from tailrace.testing.streams import DAY_MS, CardFraudStream
from tailrace.usecase.load import load_use_case

USE_CASE = "card_fraud"
REDIS_RIGHTS = {
    "features": ["+hget", "+hset", "+hmget", "+script|load", "+evalsha"],
    "inference": ["+hmget"],
}
MALFORMED = 3


class Secured:
    """Settings of each user, and the services that run with them."""

    def __init__(self, broker: Broker, store: OnlineStoreServer, directory: Path) -> None:
        self._broker = broker
        self._directory = directory
        self.use_case = load_use_case(Path("feature_repo"), USE_CASE)
        places = {"redis_url": store.url, "state_dir": directory, "use_cases": Path("feature_repo").resolve()}
        self.administrator = broker.connect(Settings(partitions=2)).model_copy(update=places)
        self.children: list[Child] = []

    def user(self, principal: str) -> Settings:
        assert self._broker.security is not None
        found = self._broker.security.user(self.administrator, PREFIX + principal, _password(principal))
        if principal not in REDIS_RIGHTS:
            return found
        secret = type(found.kafka_password)(_password(principal))
        return found.model_copy(update={"redis_username": PREFIX + principal, "redis_password": secret})

    def start(self) -> None:
        for service in SERVICES:
            values = self.user(service).model_copy(update={"ops_port": 0})
            secrets = {"kafka_password": _password(service)}
            secrets["redis_password"] = _password(service) if service in REDIS_RIGHTS else ""
            environment = {f"TAILRACE_{k.upper()}": str(v) for k, v in (values.model_dump() | secrets).items()}
            command = [sys.executable, "-m", "tailrace", "run", service, "--use-case", USE_CASE]
            self.children.append(spawn(service, command, self._directory / f"{service}.log", environment))

    def check(self) -> None:
        for child in self.children:
            assert child.running, (self._directory / f"{child.name}.log").read_text()[-3000:]

    def logs(self) -> dict[str, str]:
        return {child.name: (self._directory / f"{child.name}.log").read_text() for child in self.children}


@pytest.fixture
def secured(secured_broker: Broker, tmp_path: Path) -> Iterator[Secured]:
    store = OnlineStoreServer(tmp_path)
    store.start()
    _close(store)
    system = Secured(secured_broker, store, tmp_path)
    topics.apply(system.administrator, system.use_case)
    # The audit trail is one for all use cases, and who may write it has been tried on this broker.
    client = admin(system.administrator)
    for purged in client.delete_records([TopicPartition(AUDIT, 0, OFFSET_END)]).values():
        purged.result(30)
    add_users(system.administrator, {PREFIX + principal: _password(principal) for principal in MATRIX})
    access.apply(system.administrator, [access.streams_of(system.use_case)])
    system.start()
    yield system
    for child in system.children:
        child.process.terminate()
    for child in system.children:
        child.stop(10)
    store.stop()


@pytest.mark.timeout(200)
def test_loop_closes_with_services_that_may_do_nothing_else(secured: Secured) -> None:
    """Events, outcomes, training, promotion, dead letters: each right is used by the one who has it."""
    events, outcomes = CardFraudStream(seed=3, days=3, per_day=400, drift_day=3).tables()
    streams = access.streams_of(secured.use_case)
    _send_malformed(secured.user("producer"), streams.requests)
    _send_malformed(secured.user("labeller"), streams.outcomes)
    recordings = to_recording(events, secured.use_case.requests), to_recording(outcomes, secured.use_case.label.topic)
    play = Replay(secured.user("ops"), secured.use_case, *recordings, keep_going=secured.check)
    reached = play.play(DAY_MS)
    _ask_for_training(secured.user("ops"), reached.stream_ms)
    play.settle()
    assert replay(secured.user("ops"), Topics(USE_CASE), by="ops") == 2 * MALFORMED
    play.settle()

    [answer] = [record for record in _retraining(secured) if isinstance(record, CandidateRegistered | CandidateRefused)]
    assert isinstance(answer, CandidateRegistered), answer
    report = audit(secured.user("auditor"), secured.use_case)
    assert report.findings == []
    assert (report.predictions, report.dead_letters) == (
        len(events),
        2 * MALFORMED,
    )  # the events'; outcomes do not count
    assert play.control.champion() == answer.model_version

    # Asked while the services run: their groups and transactions stay as they are.
    lacking = {principal: missing(secured.user(principal), principal, streams) for principal in MATRIX}
    assert lacking == {principal: [] for principal in MATRIX}
    play.settle()
    play.close()
    refusals = {name: [line for line in log.splitlines() if "uthoriz" in line] for name, log in secured.logs().items()}
    assert refusals == {name: [] for name in SERVICES}
    with pytest.raises(redis.exceptions.NoPermissionError):
        client(secured.user("inference"), timeout_s=1).hset("tailrace", "field", "value")


def _send_malformed(settings: Settings, topic: str) -> None:
    writer = producer(settings)
    for _ in range(MALFORMED):
        writer.produce(topic, b"no JSON", b"key")
    assert writer.flush(30) == 0


def _ask_for_training(settings: Settings, until_ms: int) -> None:
    request = RetrainRequested(
        run_id="r1",
        use_case=USE_CASE,
        trigger="manual",
        reason="a person asked",
        requested_at_ms=until_ms,
        train_until_ms=until_ms,
        by="ops",
    )
    writer = producer(settings)
    writer.produce(Topics(USE_CASE).retraining, encode(request), USE_CASE)
    assert writer.flush(30) == 0


def _retraining(secured: Secured) -> list[object]:
    topic = Topics(USE_CASE).retraining
    values = (message.value for message in read_topic(secured.user("auditor"), topic))
    return [decode(RetrainingRecord, value) for value in values if value is not None]  # type: ignore[arg-type]  # a union


def _close(store: OnlineStoreServer) -> None:
    """Lets two users in, with what they need, and nobody else."""
    administrator = redis.Redis.from_url(store.url)
    for principal, rights in REDIS_RIGHTS.items():
        words = ["on", f">{_password(principal)}", "~*tailrace", "-@all", "+@connection", *rights]
        administrator.execute_command("ACL", "SETUSER", PREFIX + principal, *words)
    administrator.execute_command("ACL", "SETUSER", "default", "off")
    administrator.close()


def _password(principal: str) -> str:
    return f"password of {principal}"
