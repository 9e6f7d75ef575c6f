"""Creating the topics of a use case, and checking those that exist."""

from __future__ import annotations

import time

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from tailrace.backends.kafka import MAX_MESSAGE_BYTES, admin, partitions_of
from tailrace.backends.settings import Settings
from tailrace.contracts.topics import Topics, TopicSpec
from tailrace.errors import BrokerUnavailable, ConfigError
from tailrace.usecase.declaration import UseCase

KNOWN_S = 10.0


def specs_of(use_case: UseCase) -> list[TopicSpec]:
    """Every topic of a use case: the user's, then Tailrace's own."""
    users = [TopicSpec(topic.name) for topic in (use_case.requests, *use_case.outcome_topics)]
    owned = Topics(use_case.name).owned()
    return users + [spec for spec in owned if use_case.parallel_feedback or not spec.parallel]


def apply(settings: Settings, use_case: UseCase) -> list[str]:
    """Creates what is missing.

    Returns:
        Names of the topics that were created.

    Raises:
        BrokerUnavailable: the broker does not answer.
        ConfigError: topics that must have the same number of partitions have not.
    """
    client = admin(settings)
    wanted = [_new(spec, settings) for spec in specs_of(use_case)]
    created = []
    for name, future in client.create_topics(wanted, operation_timeout=30, request_timeout=30).items():
        try:
            future.result()
            created.append(name)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise BrokerUnavailable(f"topic {name!r} could not be created: {error.args[0].str()}") from error
    _await(client, created)
    _check(settings, use_case)
    return created


def _await(client: AdminClient, created: list[str]) -> None:
    """Waits until the broker tells of topics that it has just made: its answer comes before its metadata are updated."""
    deadline = time.monotonic() + KNOWN_S
    while set(created) - client.list_topics(timeout=KNOWN_S).topics.keys() and time.monotonic() < deadline:
        time.sleep(0.02)


def _new(spec: TopicSpec, settings: Settings) -> NewTopic:
    config = {
        "cleanup.policy": "compact" if spec.compacted else "delete",
        "retention.ms": str(spec.retention_ms),
        "max.message.bytes": str(MAX_MESSAGE_BYTES),
    }
    return NewTopic(
        spec.name,
        num_partitions=spec.partitions or settings.partitions,
        replication_factor=settings.replication,
        config=config,
    )


def _check(settings: Settings, use_case: UseCase) -> None:
    client = admin(settings)
    topics = Topics(use_case.name)
    count = len(partitions_of(client, use_case.requests.name))
    names = [topics.features, topics.features_changelog, topics.predictions, topics.shadow]
    if use_case.parallel_feedback:
        names += [topics.join_changelog, *(topic.name for topic in use_case.outcome_topics)]
    for name in names:
        found = len(partitions_of(client, name))
        if found != count:
            raise ConfigError(
                f"topic {name!r} has {found} partitions, the requests topic {use_case.requests.name!r} has {count}; a row "
                f"keeps the partition of its event, so they must agree: add partitions with "
                f"`kafka-topics.sh --alter --topic {name} --partitions {count}`"
            )
