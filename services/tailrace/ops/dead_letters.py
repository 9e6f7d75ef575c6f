"""Dead letters after the fact: what was set aside and why, and sending it again once the cause is mended."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from confluent_kafka import KafkaException, Producer

from tailrace.backends.codec import decode, encode
from tailrace.backends.kafka import producer, read_topic
from tailrace.backends.ports import Message
from tailrace.backends.settings import Settings
from tailrace.contracts.records import DEAD_LETTER_HEADER, REPLAYED_HEADER, DeadLetter, DeadLettersReplayed
from tailrace.contracts.topics import Topics
from tailrace.errors import TailraceError
from tailrace.runtime.dead_letters import dead_letter_of

BATCH = 5_000
"""Letters sent again in one transaction; bounds what a note of it must hold."""


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
