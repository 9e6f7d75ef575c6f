"""Kafka clients. Options that carry a guarantee are set here and nowhere else."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import confluent_kafka
from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from tailrace.backends.ports import Message, Output
from tailrace.backends.settings import Settings
from tailrace.contracts.topics import READERS
from tailrace.errors import BrokerUnavailable, ConfigError

MAX_MESSAGE_BYTES = 3_000_000
"""Largest record. Above the broker's usual 1 MB, because a dead letter is the original plus its reason."""
OPEN_TRANSACTION_S = 90
"""How long the end of an open transaction is waited for: the broker ends those of the dead after 60 s, and looks for
them every 10."""

if confluent_kafka.libversion()[1] == 0x021000FF:
    raise ConfigError(
        "librdkafka 2.16.0 can hang in send_offsets_to_transaction after a network fault; install confluent-kafka 2.15.1"
    )


def client_options(settings: Settings) -> dict[str, Any]:
    """Address and security of every client."""
    options: dict[str, Any] = {
        "bootstrap.servers": settings.kafka_bootstrap,
        "security.protocol": settings.kafka_security,
        "socket.keepalive.enable": True,
        "broker.address.family": "v4",
        "log_level": 3,
    }
    if settings.kafka_username:
        options |= {
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": settings.kafka_username,
            "sasl.password": settings.kafka_password.get_secret_value(),
        }
    if settings.kafka_ca:
        options["ssl.ca.location"] = settings.kafka_ca
    return options


def consumer(settings: Settings, group: str, **overrides: Any) -> Consumer:
    """A consumer that sees committed records only and commits nothing by itself.

    Static membership in the new group protocol: a killed worker that comes back stalls its
    partitions for half a second instead of five.
    """
    options = client_options(settings) | {
        "group.id": group,
        "group.protocol": "consumer",
        "group.instance.id": f"{group}.{settings.instance}",
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "earliest",
        "enable.partition.eof": True,
        "fetch.wait.max.ms": 20,
        "fetch.message.max.bytes": MAX_MESSAGE_BYTES,
        "queued.min.messages": 20_000,
        "queued.max.messages.kbytes": 32_768,
        # How long a partition is left alone once enough records wait. The client's second is longer than what
        # waits lasts for a reader of 60,000 records per second, which then stands idle for the rest of it.
        "fetch.queue.backoff.ms": 10,
    }
    return Consumer(options | overrides)


def producer(settings: Settings, **overrides: Any) -> Producer:
    """An idempotent producer: acknowledged by all replicas, in order, without doubles."""
    return Producer(producer_options(settings) | overrides)


def producer_options(settings: Settings) -> dict[str, Any]:
    """Options of `producer`."""
    return client_options(settings) | {
        "acks": "all",
        "enable.idempotence": True,
        "linger.ms": 5,
        "compression.type": "lz4",
        "message.max.bytes": MAX_MESSAGE_BYTES,
        "queue.buffering.max.messages": 500_000,
        # The partitioner of the Java client: a key must land where other producers put it.
        "partitioner": "murmur2_random",
    }


def produce(client: Producer, outputs: Iterable[Output]) -> None:  # hot path
    """Produces outputs in their order; waits while the client's queue is full."""
    send = client.produce
    for topic, key, value, partition, headers in outputs:
        number = -1 if partition is None else partition  # -1: the one the key decides on
        while True:
            try:
                if headers:
                    send(topic, value, key, number, headers=headers)
                else:  # the keyword alone costs a quarter of the call
                    send(topic, value, key, number)
                break
            except BufferError:
                client.poll(0.05)


def admin(settings: Settings, **overrides: Any) -> AdminClient:
    """An admin client."""
    return AdminClient(client_options(settings) | overrides)


def is_waiting(client: Consumer, at: TopicPartition) -> bool:
    """Whether a partition holds records behind a committed offset; blocks for a round trip.

    Raises:
        KafkaException: the broker does not say.
    """
    first, end = client.get_watermark_offsets(at, timeout=30)
    return bool(end > max(at.offset, first))


def to_messages(records: Iterable[confluent_kafka.Message]) -> list[Message]:  # hot path
    """`to_message` of each record."""
    new = tuple.__new__  # half the cost of the constructor of a NamedTuple
    return [
        new(Message, (r.topic(), r.partition(), r.offset(), r.timestamp()[1], r.key(), r.value(), r.headers() or []))
        for r in records
    ]


def to_message(record: confluent_kafka.Message) -> Message:
    """Takes a consumed record out of the client's type."""
    return Message(
        record.topic(),
        record.partition(),
        record.offset(),
        record.timestamp()[1],
        record.key(),
        record.value(),
        record.headers() or [],
    )


def partitions_of(client: AdminClient | Consumer, topic: str, timeout_s: float = 10.0) -> list[int]:
    """Partition numbers of a topic.

    Raises:
        BrokerUnavailable: the broker does not answer, or the topic does not exist.
    """
    try:
        found = client.list_topics(topic, timeout=timeout_s).topics[topic]
    except KafkaException as error:
        raise BrokerUnavailable(
            f"the broker does not answer ({error.args[0].str()}); `tailrace up` starts one on this machine, "
            "`tailrace doctor` names what is wrong with yours"
        ) from error
    if found.error is not None and found.error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
        raise BrokerUnavailable(
            f"topic {topic!r} is kept from this user; `tailrace doctor` prints the ACL that is missing"
        )
    if found.error is not None:
        raise BrokerUnavailable(f"topic {topic!r}: {found.error.str()}; create it with `tailrace topics apply`")
    return sorted(found.partitions)


def end_offsets(
    client: AdminClient, topic: str, partitions: list[int] | None = None, *, committed_only: bool = True
) -> dict[int, int]:
    """Offset behind the last record of each partition, transaction markers included.

    Where it is `committed_only`, that is before the first open transaction.
    """
    numbers = partitions if partitions is not None else partitions_of(client, topic)
    asked = {TopicPartition(topic, number): OffsetSpec.latest() for number in numbers}
    level = IsolationLevel.READ_COMMITTED if committed_only else IsolationLevel.READ_UNCOMMITTED
    answers = client.list_offsets(asked, isolation_level=level, request_timeout=10)
    try:
        return {at.partition: answer.result().offset for at, answer in answers.items()}
    except KafkaException as error:
        raise BrokerUnavailable(f"end offsets of {topic!r} are not to be had: {error}") from error


def group_reader(settings: Settings, group: str, **overrides: Any) -> Consumer:
    """A consumer that asks for what a group has committed, and never joins it.

    The admin client's call for the same thing ends the whole process with a segmentation fault while
    the coordinator of the group is loading or away (confluent-kafka 2.15.1).
    """
    return consumer(settings, group, **({"group.protocol": "classic", "group.instance.id": ""} | overrides))


def committed_offsets(settings: Settings, group: str, topic: str) -> dict[int, tuple[int, str]]:
    """Offset and metadata a group has committed for each partition of a topic; empty while that cannot be said."""
    reader = group_reader(settings, group)
    try:
        asked = [TopicPartition(topic, number) for number in partitions_of(reader, topic)]
        return {
            at.partition: (at.offset, at.metadata or "") for at in reader.committed(asked, timeout=10) if at.offset >= 0
        }
    except KafkaException:
        return {}
    finally:
        reader.close()


def read_topic(
    settings: Settings,
    topic: str,
    *,
    committed_only: bool = True,
    partitions: Collection[int] | None = None,
    newest: int | None = None,
    settled: bool = False,
) -> Iterator[Message]:
    """Reads some partitions of a topic, or all, from the beginning to the end as of the call, in order within each.

    Args:
        settings: Where the broker is.
        topic: The topic.
        committed_only: Leave out records of open and aborted transactions.
        partitions: Which to read; None: all.
        newest: Begin that many offsets before the end of each partition; None: at the beginning.
        settled: Wait for transactions that are open: what was committed stands behind the records of a dead producer
            until its transaction has timed out.

    Raises:
        BrokerUnavailable: the broker does not answer, or the topic does not exist.
    """
    reader = consumer(
        settings,
        READERS,
        **{
            # A reader belongs to no group; the classic protocol then joins none.
            "group.protocol": "classic",
            "group.instance.id": "",
            "isolation.level": "read_committed" if committed_only else "read_uncommitted",
        },
    )
    try:
        open_partitions = set(partitions_of(reader, topic) if partitions is None else partitions)
        reader.assign([TopicPartition(topic, at, _start(reader, topic, at, newest)) for at in open_partitions])
        client = admin(settings) if settled else None
        ends = end_offsets(client, topic, list(open_partitions), committed_only=False) if client is not None else {}
        patience_s = OPEN_TRANSACTION_S if settled else 60
        silent_until = time.monotonic() + patience_s
        while open_partitions:
            records = reader.consume(10_000, timeout=0.05)
            for record in records:
                error = record.error()
                if error is None:
                    yield to_message(record)
                elif error.code() == KafkaError._PARTITION_EOF:
                    if record.offset() >= ends.get(record.partition(), 0):
                        open_partitions.discard(record.partition())
                elif not error.retriable():
                    raise BrokerUnavailable(f"reading {topic!r} failed: {error.str()}")
            if records:
                silent_until = time.monotonic() + patience_s
            elif time.monotonic() > silent_until:
                raise BrokerUnavailable(
                    f"reading {topic!r}: no answer for {patience_s} s; check the broker with `tailrace doctor`"
                )
    finally:
        reader.close()


def _start(reader: Consumer, topic: str, partition: int, newest: int | None) -> int:
    if newest is None:
        return 0
    low, end = reader.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)
    return int(max(end - newest, low))
