"""Whether requests and outcomes lie together as their declaration says, by a sample of what is in their topics.

Where they do not, no outcome finds its prediction, and nothing but orphans would tell of it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tailrace.backends.codec import EventDecoder
from tailrace.backends.kafka import admin, partitions_of, read_topic
from tailrace.backends.ports import Message
from tailrace.backends.settings import Settings
from tailrace.core import partitioning
from tailrace.errors import BadRecord, ConfigError
from tailrace.usecase.declaration import UseCase
from tailrace.usecase.sharing import sharing_of
from tailrace.usecase.sources import Topic

SAMPLE = 100
"""Records of each partition that are looked at; a topic that is keyed otherwise shows in the first few."""


def check_keys(settings: Settings, use_case: UseCase) -> None:
    """Looks at the newest requests and outcomes; blocks while they are read.

    Raises:
        BrokerUnavailable: the broker does not answer, or a topic is missing.
        ConfigError: as `check_samples`.
    """
    topics = (use_case.requests, *use_case.outcome_topics)
    samples = {topic.name: list(read_topic(settings, topic.name, newest=SAMPLE)) for topic in topics}
    check_samples(use_case, samples, len(partitions_of(admin(settings), use_case.requests.name)))


def check_samples(use_case: UseCase, samples: Mapping[str, Sequence[Message]], count: int) -> None:
    """Looks at requests and outcomes by topic, each of `count` partitions; topics that are empty say nothing.

    Raises:
        ConfigError: most records of a topic are keyed otherwise than declared, or its partitions are chosen unlike those
            of the requests.
    """
    fields = sharing_of(use_case).fields
    for topic in (use_case.requests, *use_case.outcome_topics):
        _check_field(topic, fields.get(topic.name, topic.key), samples[topic.name])
    chosen = {name: partitioner_of(messages, count) for name, messages in samples.items() if _keyed(messages)}
    asked = chosen.pop(use_case.requests.name, None)
    for name, partitioner in chosen.items():
        if asked is not None and partitioner != asked:
            raise ConfigError(
                f"partitions of {name!r} are chosen by {partitioner}, those of {use_case.requests.name!r} by {asked}, so "
                "that an outcome lies elsewhere than its request; give their producers the same `partitioner`"
            )


def partitioner_of(messages: Sequence[Message], count: int) -> str:
    """How the partitions of records with keys were chosen among `count`: by which partitioner, or "something else"."""
    keyed = _keyed(messages)
    keys, places = [message.key or b"" for message in keyed], np.array([message.partition for message in keyed])
    shares = {name: float(np.mean(places == choose(keys, count))) for name, choose in _PARTITIONERS.items()}
    best = max(shares, key=lambda name: shares[name])
    return best if shares[best] > 0.5 or count == 1 else "something else"


def _crc32(keys: Sequence[bytes], count: int) -> np.ndarray:
    return np.array([zlib.crc32(key) % count for key in keys])


_PARTITIONERS: Mapping[str, Callable[[Sequence[bytes], int], np.ndarray]] = {
    "murmur2, as of Java": partitioning.partitions_of,
    "CRC32, as of librdkafka": _crc32,
}


def _keyed(messages: Sequence[Message]) -> list[Message]:
    return [message for message in messages if message.key and message.value is not None]


def _check_field(topic: Topic, field: str, messages: Sequence[Message]) -> None:
    said = [message for message in messages if message.value is not None]
    records = EventDecoder(topic).decode([message.value for message in said])
    good = [(m.key, r) for m, r in zip(said, records, strict=True) if not isinstance(r, BadRecord)]
    wrong = [(key, record) for key, record in good if key != str(getattr(record, field)).encode()]
    if 2 * len(wrong) > len(good):
        key, record = wrong[0]
        raise ConfigError(
            f"records of {topic.name!r} are not keyed by {field!r}, as several feedback workers need: the key of one is "
            f"{key!r}, the field says {getattr(record, field)!r}; let producers use the field's text as the key, or take "
            "`parallel_feedback` out of the declaration"
        )
