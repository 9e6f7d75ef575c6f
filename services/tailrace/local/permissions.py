"""Which rights of the access matrix a user lacks, asked with that user's own credentials."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, get_args

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from tailrace.backends.access import UserGrant
from tailrace.backends.kafka import admin, producer
from tailrace.backends.settings import Settings
from tailrace.contracts.access import Grant, Principal, Streams, grants
from tailrace.errors import BrokerUnavailable
from tailrace.local.status import LOADING

ANSWER_S = 5.0
PROBE = ".doctor"
"""Ending of the group and the transactional id that are asked for where a right goes by its beginning: asking
with a service's own transactional id would fence that service."""

_DENIED = (
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
)
_ABSENT = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC)


def principal_of(user: str) -> Principal | None:
    """The row of the matrix that a user's name ends with; None when it ends with none."""
    found: Principal | None = next(
        (principal for principal in get_args(Principal) if user == principal or user.endswith(f"-{principal}")), None
    )
    return found


def missing(settings: Settings, principal: Principal, streams: Streams) -> list[UserGrant]:
    """Rights of a row that the user of the settings does not have.

    A topic that does not exist counts as allowed where the broker says so, which it does to those who may see it.

    Raises:
        BrokerUnavailable: the broker does not answer.
    """
    asked = grants(principal, streams)
    held = _held(settings, asked)
    lacking = [
        grant
        for grant in asked
        if not (
            _transacts(settings, _name(grant))
            if grant.kind == "transactional id"
            else grant.operation in held[grant.kind, _name(grant)]
        )
    ]
    return [UserGrant(settings.kafka_username, grant) for grant in lacking]


def _held(settings: Settings, asked: Sequence[Grant]) -> dict[tuple[str, str], set[str]]:
    client = admin(settings, log_level=0)
    deadline = time.monotonic() + ANSWER_S
    while True:
        try:
            held = _topics(client, [grant.name for grant in asked if grant.kind == "topic"])
            return held | _groups(client, [_name(grant) for grant in asked if grant.kind == "group"])
        except KafkaException as error:
            if error.args[0].code() not in LOADING or time.monotonic() > deadline:
                raise BrokerUnavailable(f"the broker does not say who may do what: {error.args[0]}") from error
            time.sleep(0.05)


def _name(grant: Grant) -> str:
    return grant.name + PROBE if grant.prefixed else grant.name


def _topics(client: AdminClient, names: Sequence[str]) -> dict[tuple[str, str], set[str]]:
    answers = client.describe_topics(
        TopicCollection(sorted(set(names))), include_authorized_operations=True, request_timeout=ANSWER_S
    )
    return {("topic", name): _operations(answer) for name, answer in answers.items()}


def _groups(client: AdminClient, names: Sequence[str]) -> dict[tuple[str, str], set[str]]:
    if not names:
        return {}
    answers = client.describe_consumer_groups(list(names), include_authorized_operations=True, request_timeout=ANSWER_S)
    return {("group", name): _operations(answer) for name, answer in answers.items()}


def _operations(answer: Future[Any]) -> set[str]:
    try:
        return {operation.name for operation in answer.result().authorized_operations or []}
    except KafkaException as error:
        code = error.args[0].code()
        if code in _ABSENT:
            return {"READ", "WRITE", "DESCRIBE"}
        if code in _DENIED:
            return set()
        raise


def _transacts(settings: Settings, transactional_id: str) -> bool:
    # Kafka's protocol tells no rights on these; opening a transaction is the only question there is.
    client = producer(settings, **{"transactional.id": transactional_id, "log_level": 0})
    try:
        client.init_transactions(ANSWER_S)
    except KafkaException as error:
        if error.args[0].code() in _DENIED:
            return False
        raise BrokerUnavailable(f"no transaction can be opened: {error.args[0].str()}") from error
    return True
