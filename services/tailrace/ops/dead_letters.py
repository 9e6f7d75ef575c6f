"""Dead letters after the fact: what was set aside and why, and sending it again once the cause is mended."""

from __future__ import annotations

import base64
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
from confluent_kafka import KafkaException, Producer, TopicPartition

from tailrace.backends.codec import decode, encode
from tailrace.backends.kafka import group_reader, partitions_of, producer, read_topic, to_message
from tailrace.backends.ports import Message
from tailrace.backends.settings import Settings
from tailrace.contracts.records import DEAD_LETTER_HEADER, REPLAYED_HEADER, DeadLetter, DeadLettersReplayed
from tailrace.contracts.topics import Topics
from tailrace.errors import TailraceError
from tailrace.runtime.dead_letters import dead_letter_of

BATCH = 5_000
"""Letters sent again in one transaction; bounds what a note of it must hold."""
SHOWN = 20_000
"""Bytes of a record that are shown to a person."""
PATIENCE_S = 10.0


class HeldRecord(NamedTuple):
    """A record in quarantine: the original bytes, and why they could not be used."""

    message: Message
    letter: DeadLetter


def held_records(settings: Settings, topics: Topics, reason: str = "") -> Iterator[HeldRecord]:
    """Reads the dead letters that have not been sent again, in order within each partition.

    Args:
        settings: Where the broker is.
        topics: Topics of the use case.
        reason: Only letters with this reason; empty for all.
    """
    replayed: defaultdict[int, set[int]] = defaultdict(set)
    for message in read_topic(settings, topics.dead_letters):
        if message.value and _is_note(message):
            for partition, offsets in decode(DeadLettersReplayed, message.value).offsets.items():
                replayed[int(partition)].update(offsets)
    for message in read_topic(settings, topics.dead_letters):
        letter = dead_letter_of(message.headers)
        if letter and reason in ("", letter.reason) and message.offset not in replayed[message.partition]:
            yield HeldRecord(message, letter)


def held_by_reason(settings: Settings, topics: Topics) -> list[dict[str, Any]]:
    """Dead letters that have not been sent again: one row per stage and reason with "records" and an "example"."""
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    for _, letter in held_records(settings, topics):
        new = {"stage": letter.stage, "reason": letter.reason, "records": 0}
        row = groups.setdefault((letter.stage, letter.reason), new)
        row["records"] += 1
        row["example"] = f"{letter.source.topic}[{letter.source.partition}]@{letter.source.offset}: {letter.detail}"
    return sorted(groups.values(), key=lambda row: -int(row["records"]))


def replay(settings: Settings, topics: Topics, *, reason: str = "", by: str) -> int:
    """Sends dead letters to the topic they came from, byte for byte, each of them once.

    A batch and the note that it was sent are one transaction; so a replay that was cut short goes on where it
    stopped, and a second one sends nothing twice.

    Returns:
        How many were sent.

    Raises:
        TailraceError: the broker gave up, or another replay of this use case has begun meanwhile.
    """
    writer = producer(settings, **{"transactional.id": f"tailrace.{topics.use_case}.dead-letters"})
    sent = 0
    try:
        # Fences a replay under way elsewhere, before its notes are read.
        writer.init_transactions(30)
        batch: list[HeldRecord] = []
        for record in held_records(settings, topics, reason):
            # An outcome that judged nothing is kept as read: there are no original bytes to send.
            if record.letter.source.offset < 0:
                continue
            batch.append(record)
            if len(batch) == BATCH:
                sent += _send(writer, topics, batch, by)
                batch = []
        if batch:
            sent += _send(writer, topics, batch, by)
    except KafkaException as error:
        raise TailraceError(
            f"{sent} record(s) sent, then the broker refused: {error}; check it with `tailrace doctor`, then repeat: "
            "nothing is sent twice"
        ) from error
    return sent


def _is_note(message: Message) -> bool:
    names = {name for name, _ in message.headers}
    return REPLAYED_HEADER in names and DEAD_LETTER_HEADER not in names


def _send(writer: Producer, topics: Topics, batch: list[HeldRecord], by: str) -> int:
    offsets: defaultdict[str, list[int]] = defaultdict(list)
    writer.begin_transaction()
    for message, letter in batch:
        headers = list(message.headers)
        # Only the last one is ours; see `dead_letter_of`.
        del headers[max(at for at, (name, _) in enumerate(headers) if name == DEAD_LETTER_HEADER)]
        writer.produce(letter.source.topic, message.value, message.key, headers=headers)
        writer.poll(0)
        offsets[str(message.partition)].append(message.offset)
    note = DeadLettersReplayed(
        use_case=topics.use_case, offsets=offsets, by=by, replayed_at_ms=time.time_ns() // 1_000_000
    )
    writer.produce(topics.dead_letters, encode(note), headers=[(REPLAYED_HEADER, b"")])
    writer.commit_transaction(60)
    return len(batch)


def inspect(settings: Settings, topics: Topics, partition: int, offset: int) -> dict[str, Any] | None:
    """One dead letter with its original bytes, as text where they are UTF-8, else as base64; None where there is none."""
    reader = group_reader(settings, "tailrace.reader")
    try:
        if partition not in partitions_of(reader, topics.dead_letters):
            return None
        reader.assign([TopicPartition(topics.dead_letters, partition, offset)])
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            for record in reader.consume(1, timeout=0.2):
                found = to_message(record) if record.error() is None and record.offset() == offset else None
                letter = dead_letter_of(found.headers) if found is not None else None
                if found is None or letter is None:
                    return None
                return {**msgspec.to_builtins(letter), **_text("key", found.key), **_text("value", found.value)}
        return None
    finally:
        reader.close()


def _text(name: str, content: bytes | None) -> dict[str, str | None]:
    if content is None:
        return {name: None}
    try:
        return {name: content[:SHOWN].decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(content[:SHOWN]).decode()}
