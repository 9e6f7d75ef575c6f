"""The access matrix against a real authorizer: what it allows works, its complement is refused."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import get_args

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import NewTopic

from tailrace.backends import access, topics
from tailrace.backends.kafka import admin, consumer, group_reader, producer
from tailrace.backends.settings import Settings
from tailrace.contracts.access import MATRIX, Grant, Principal, Stream, Streams, grants
from tailrace.contracts.topics import AUDIT, READERS, Topics
from tailrace.errors import ConfigError
from tailrace.local.broker import Broker
from tailrace.local.broker_security import add_users
from tailrace.local.permissions import missing
from tailrace.usecase.load import load_use_case

USE_CASE = "elec2"
PREFIX = "matrix-"
STRANGER = "stranger"
PASSWORD = "a password"
USERS = [STRANGER, *(PREFIX + principal for principal in MATRIX)]
REFUSED = {
    "topic": "TOPIC_AUTHORIZATION_FAILED",
    "group": "GROUP_AUTHORIZATION_FAILED",
    "transactional id": "TRANSACTIONAL_ID_AUTHORIZATION_FAILED",
}
GROUPS = [Topics(USE_CASE).group(name) for name in ("features", "inference", "feedback", "trainer", "rollout", "app.x")]
TRANSACTIONAL_IDS = [
    Topics(USE_CASE).group(name) for name in ("inference.0", "inference.7", "feedback", "rollout", "dead-letters")
]
ANSWER_S = 20.0


@pytest.fixture(scope="module")
def streams(secured_broker: Broker) -> Streams:
    """A use case with all topics, users and ACLs, and no services."""
    administrator = secured_broker.connect(Settings(partitions=1))
    use_case = load_use_case(Path("feature_repo"), USE_CASE)
    found = access.streams_of(use_case)
    topics.apply(administrator, use_case)
    add_users(administrator, dict.fromkeys(USERS, PASSWORD))
    access.apply(administrator, [found], PREFIX)
    # Else the client would stop at the group, and the way to the topics would not be tried.
    knows = Grant("group", READERS, "DESCRIBE")
    _add(administrator, [access.UserGrant(user, knows) for user in USERS])
    return found


def _as(broker: Broker, user: str) -> Settings:
    assert broker.security is not None
    return broker.security.user(broker.connect(Settings()), user, PASSWORD)


def _rights(user: str, streams: Streams) -> list[Grant]:
    principal = next((name for name in MATRIX if user == PREFIX + name), None)
    return [] if principal is None else grants(principal, streams)


def _allowed(user: str, streams: Streams, kind: str, operation: str) -> Callable[[str], bool]:
    found = [right for right in _rights(user, streams) if (right.kind, right.operation) == (kind, operation)]
    return lambda name: any(name.startswith(r.name) if r.prefixed else name == r.name for r in found)


def _expected(names: Iterable[str], kind: str, allowed: Callable[[str], bool]) -> dict[str, str]:
    return {name: "done" if allowed(name) else REFUSED[kind] for name in names}


def _names(streams: Streams) -> list[str]:
    return [name for stream in get_args(Stream) for name in streams.topics(stream)[:1]]


@pytest.mark.parametrize("user", USERS)
def test_user_writes_the_topics_of_its_row_and_no_other(secured_broker: Broker, streams: Streams, user: str) -> None:
    names = _names(streams)
    outcome: dict[str, str] = {}
    writer = producer(_as(secured_broker, user), **{"enable.idempotence": False, "log_level": 0})
    for name in names:
        # Compacted topics take no record without a key.
        writer.produce(
            name, b"{}", b"key", on_delivery=lambda error, _, name=name: outcome.update({name: _word(error)})
        )
    assert writer.flush(ANSWER_S) == 0
    assert outcome == _expected(names, "topic", _allowed(user, streams, "topic", "WRITE"))


@pytest.mark.parametrize("user", USERS)
def test_user_reads_the_topics_of_its_row_and_no_other(secured_broker: Broker, streams: Streams, user: str) -> None:
    names = _names(streams)
    reader = group_reader(_as(secured_broker, user), READERS)
    outcome: dict[str, str] = {}
    try:
        # The client would wait for ever for a topic whose very existence is kept from it.
        seen = {name: reader.list_topics(name, timeout=ANSWER_S).topics[name].error for name in names}
        outcome |= {name: _word(error) for name, error in seen.items() if error is not None}
        reader.assign([TopicPartition(name, 0, 0) for name, error in seen.items() if error is None])
        deadline = time.monotonic() + ANSWER_S
        while len(outcome) < len(names) and time.monotonic() < deadline:
            record = reader.poll(0.1)
            if record is not None:
                error = record.error()
                at_end = error is not None and error.code() == KafkaError._PARTITION_EOF
                outcome[record.topic()] = "done" if at_end else _word(error)
    finally:
        reader.close()
    assert outcome == _expected(names, "topic", _allowed(user, streams, "topic", "READ"))


@pytest.mark.parametrize("user", USERS)
def test_user_joins_its_own_group_and_no_other(secured_broker: Broker, streams: Streams, user: str) -> None:
    settings = _as(secured_broker, user)
    readable = next((right.name for right in _rights(user, streams) if right.operation == "READ"), streams.requests)
    outcome = {group: _join(settings, group, readable) for group in GROUPS}
    assert outcome == _expected(GROUPS, "group", _allowed(user, streams, "group", "READ"))


@pytest.mark.parametrize("user", USERS)
def test_user_opens_transactions_under_its_own_name_and_no_other(
    secured_broker: Broker, streams: Streams, user: str
) -> None:
    settings = _as(secured_broker, user)
    outcome = {name: _attempt(lambda name=name: _transact(settings, name)) for name in TRANSACTIONAL_IDS}
    allowed = _allowed(user, streams, "transactional id", "WRITE")
    assert outcome == _expected(TRANSACTIONAL_IDS, "transactional id", allowed)


@pytest.mark.parametrize("user", USERS)
def test_no_user_creates_topics_or_gives_rights(secured_broker: Broker, streams: Streams, user: str) -> None:
    settings = _as(secured_broker, user)
    client = admin(settings)
    created = client.create_topics([NewTopic(f"{USE_CASE}.more", 1, 1)])
    deleted = client.delete_topics([streams.topics("predictions")[0]])
    outcome = {_attempt(future.result) for future in [*created.values(), *deleted.values()]}
    assert outcome == {REFUSED["topic"]}
    with pytest.raises(ConfigError, match="DESCRIBE and ALTER on the cluster"):
        access.plan(settings, [streams], PREFIX)
    gift = access.binding(access.UserGrant(user, Grant("topic", streams.topics("labels")[0], "WRITE")))
    given = {_attempt(future.result) for future in client.create_acls([gift]).values()}
    assert given == {"CLUSTER_AUTHORIZATION_FAILED"}


@pytest.mark.parametrize("principal", MATRIX)
def test_user_of_one_use_case_has_no_right_on_another(
    secured_broker: Broker, streams: Streams, principal: Principal
) -> None:
    other = Streams("elec", "elec.events", "elec.outcomes")
    settings = _as(secured_broker, PREFIX + principal)
    # One for all use cases: the audit topic, and the group of those who have none.
    lacking = [right.grant for right in missing(settings, principal, other)]
    assert lacking == [right for right in grants(principal, other) if right.name not in (AUDIT, READERS)]


def test_acls_are_added_once_and_what_goes_beyond_the_matrix_is_named(secured_broker: Broker, streams: Streams) -> None:
    administrator = secured_broker.connect(Settings())
    first = access.plan(administrator, [streams], "fresh-")
    assert access.apply(administrator, [streams], "fresh-") == first
    assert first.missing == access.wanted([streams], "fresh-")
    beyond = access.UserGrant("fresh-app", Grant("topic", streams.topics("labels")[0], "READ"))
    _add(administrator, [beyond])
    again = access.apply(administrator, [streams], "fresh-")
    assert again == access.AccessPlan(missing=[], present=first.missing, extra=[beyond])


def test_broker_without_an_authorizer_is_told_from_a_refusal(settings: Settings, streams: Streams) -> None:
    with pytest.raises(ConfigError, match="no authorizer"):
        access.apply(settings, [streams])


def _join(settings: Settings, group: str, topic: str) -> str:
    answers: list[str] = []
    reader = consumer(settings, group, log_level=0)
    try:
        reader.subscribe([topic], on_assign=lambda *_: answers.append("done"))
        deadline = time.monotonic() + ANSWER_S
        while not answers and time.monotonic() < deadline:
            record = reader.poll(0.05)
            if record is not None and record.error() is not None:
                error = record.error()
                # Where the group may be seen, the refusal to join it comes wrapped in a fatal error.
                refused = error.code() == KafkaError._FATAL and "Group authorization failed" in error.str()
                answers.append(REFUSED["group"] if refused else _word(error))
    finally:
        reader.close()
    return answers[0] if answers else "no answer"


def _transact(settings: Settings, transactional_id: str) -> None:
    producer(settings, **{"transactional.id": transactional_id, "log_level": 0}).init_transactions(ANSWER_S)


def _add(settings: Settings, rights: list[access.UserGrant]) -> None:
    client = admin(settings)
    for answer in client.create_acls([access.binding(right) for right in rights]).values():
        answer.result()


def _attempt(action: Callable[[], object]) -> str:
    try:
        action()
    except KafkaException as error:
        return _word(error.args[0])
    return "done"


def _word(error: KafkaError | None) -> str:
    return "done" if error is None else error.name()
