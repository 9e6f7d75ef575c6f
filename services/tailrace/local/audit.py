"""Recounting a use case's guarantees from its topics alone, as `tailrace audit` does."""

from __future__ import annotations

import hashlib
import time
import zlib
from collections.abc import Iterator, Sequence
from itertools import islice

import msgspec
import numpy as np
from numpy.typing import NDArray

from tailrace.backends.codec import BatchDecoder, EventDecoder, decode
from tailrace.backends.kafka import read_topic
from tailrace.backends.ports import Message
from tailrace.backends.settings import Settings
from tailrace.contracts.records import AuditEntry, RoutingTable, Source
from tailrace.contracts.topics import AUDIT, Topics
from tailrace.core.auditing import (
    Finding,
    Ints,
    Positions,
    audit_chain,
    audit_counts,
    audit_epochs,
    audit_events,
    audit_identity,
    audit_labels,
    audit_repeats,
)
from tailrace.core.watermarks import watermark_of
from tailrace.errors import BadRecord
from tailrace.runtime.dead_letters import dead_letter_of
from tailrace.usecase.declaration import UseCase

CHUNK = 20_000
"""Records decoded at a time; bounds memory to the arrays that are kept and one chunk."""


class AuditReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was counted and what is wrong; clean when there are no findings."""

    use_case: str
    events: int
    predictions: int
    shadow_predictions: int
    dead_letters: int
    labels: int
    windows_recounted: int
    routing_tables: int
    audit_entries: int
    findings: list[Finding]
    took_s: float

    @property
    def clean(self) -> bool:
        """Whether every guarantee holds."""
        return not self.findings


class Scored(msgspec.Struct, frozen=True):
    """The part of a prediction that is recounted."""

    prediction_id: str
    event_id: str
    source: Source


class _Row(msgspec.Struct, frozen=True):
    values: list[float | None]
    source: Source


class _Label(msgspec.Struct, frozen=True):
    prediction_id: str
    label_name: str
    label_version: int


class _Events:
    """The events topic as columns. Unreadable records have a position and no id, key or time."""

    def __init__(self, settings: Settings, use_case: UseCase) -> None:
        topic, plan = use_case.requests, use_case.plan
        decoder = EventDecoder(topic)
        places, readable, ids, keys, times = [], [], [], [], []
        numbers: dict[str, int] = {}
        for chunk in _chunks(settings, topic.name):
            records = [m for m in chunk if watermark_of(m.value, m.headers) is None]
            events = decoder.decode([m.value for m in records])
            good = np.array([not isinstance(event, BadRecord) for event in events], np.bool_)
            kept = [event for event in events if not isinstance(event, BadRecord)]
            places.append(_places([(m.partition, m.offset) for m in records]))
            readable.append(good)
            ids.append(_bytes([str(getattr(event, plan.event_id)) for event in kept]))
            keys.append(np.array([numbers.setdefault(str(getattr(e, plan.key)), len(numbers)) for e in kept], np.int64))
            # A time beyond 64 bits ends as a dead letter; here it only must not stop the count.
            times.append(np.array([min(getattr(e, plan.event_time), 2**62) for e in kept], np.int64))
        self.all = _joined(places)
        good = np.concatenate([np.empty(0, np.bool_), *readable])
        self.readable = Positions.of(self.all.codes[good])
        self.ids = np.concatenate([_bytes([]), *ids])
        self.keys = np.concatenate([np.empty(0, np.int64), *keys])
        self.times_ms = np.concatenate([np.empty(0, np.int64), *times])


class _Rows:
    """FEATURES as columns: source, window counts, and a checksum over all values."""

    def __init__(self, settings: Settings, use_case: UseCase) -> None:
        order = use_case.plan.own_order
        self.columns = [c for view in use_case.plan.event_views for c in view.columns if c.kind == "count"]
        wanted = [order.index(column.name) for column in self.columns]
        decoder = BatchDecoder(_Row)
        places, counts = [], []
        for chunk in _chunks(settings, Topics(use_case.name).features):
            records = [m.value for m in chunk if m.value is not None and dead_letter_of(m.headers) is None]
            rows = decoder.decode(records)
            values = np.array([row.values for row in rows], np.float64).reshape(len(rows), len(order))
            places.append(_places([(row.source.partition, row.source.offset) for row in rows]))
            checks = np.array([zlib.crc32(row.tobytes()) for row in values], np.float64)
            counts.append(np.column_stack([checks, values[:, wanted]]))
        self.sources = _joined(places)
        self.values = np.concatenate([np.empty((0, 1 + len(wanted))), *counts])


def audit(settings: Settings, use_case: UseCase) -> AuditReport:
    """Reads all topics of a use case under read_committed and recounts what they promise.

    Only meaningful when the use case is at rest: what is still under way shows as a hole.

    Raises:
        BrokerUnavailable: the broker does not answer, or a topic is missing.
    """
    began = time.monotonic()
    topics, name = Topics(use_case.name), use_case.requests.name
    events = _Events(settings, use_case)
    predicted, prediction_ids, event_ids = _predictions(settings, topics.predictions)
    _, shadow_ids, _ = _predictions(settings, topics.shadow)
    dead = _dead(settings, topics.dead_letters, name)
    labels = _labels(settings, topics.labels)
    known_ids = np.concatenate([prediction_ids, shadow_ids])
    rows = _Rows(settings, use_case)
    offsets, epochs = _epochs(settings, topics.control)
    claimed, actual = _chain(settings)
    findings = [
        *audit_events(name, events.all, predicted, dead),
        *audit_identity(name, events.readable, events.ids, predicted, event_ids),
        *(finding for ids, versions in labels for finding in audit_labels(ids, versions, known_ids)),
        *audit_repeats(name, rows.sources, rows.values),
        *_audit_windows(name, events, rows),
        *audit_epochs(offsets, epochs),
        *audit_chain(claimed, actual),
    ]
    return AuditReport(
        use_case=use_case.name,
        events=len(events.all.offsets),
        predictions=len(predicted.offsets),
        shadow_predictions=len(shadow_ids),
        dead_letters=len(dead.offsets),
        labels=sum(len(versions) for _, versions in labels),
        windows_recounted=len(rows.sources.offsets) * len(rows.columns),
        routing_tables=len(epochs),
        audit_entries=len(claimed),
        findings=findings,
        took_s=round(time.monotonic() - began, 2),
    )


def _audit_windows(topic: str, events: _Events, rows: _Rows) -> list[Finding]:
    codes, first = np.unique(rows.sources.codes, return_index=True)
    at = np.searchsorted(codes, events.readable.codes)
    served = at < len(codes)
    served[served] = codes[at[served]] == events.readable.codes[served]
    counts = rows.values[first][at[served]]
    sources = Positions.of(events.readable.codes[served])
    return [
        finding
        for number, column in enumerate(rows.columns, 1)
        for finding in audit_counts(
            topic,
            sources,
            events.keys[served],
            events.times_ms[served],
            counts[:, number],
            column.span_ms,
            column.name,
        )
    ]


def _predictions(settings: Settings, topic: str) -> tuple[Positions, NDArray[np.bytes_], NDArray[np.bytes_]]:
    decoder = BatchDecoder(Scored)
    places, ids, event_ids = [], [_bytes([])], [_bytes([])]
    for chunk in _chunks(settings, topic):
        found = decoder.decode([m.value for m in chunk if m.value is not None])
        places.append(_places([(one.source.partition, one.source.offset) for one in found]))
        ids.append(_bytes([one.prediction_id for one in found]))
        event_ids.append(_bytes([one.event_id for one in found]))
    return _joined(places), np.concatenate(ids), np.concatenate(event_ids)


def _labels(settings: Settings, topic: str) -> list[tuple[NDArray[np.bytes_], Ints]]:
    """Prediction id and version of every record, label by label."""
    decoder = BatchDecoder(_Label)
    parts: dict[str, list[tuple[NDArray[np.bytes_], Ints]]] = {}
    for chunk in _chunks(settings, topic):
        found = decoder.decode([m.value for m in chunk if m.value is not None])
        for name in sorted({one.label_name for one in found}):
            mine = [one for one in found if one.label_name == name]
            versions = np.array([one.label_version for one in mine], np.int64)
            parts.setdefault(name, []).append((_bytes([one.prediction_id for one in mine]), versions))
    joined = (zip(*part, strict=True) for part in parts.values())
    return [(np.concatenate(ids), np.concatenate(versions)) for ids, versions in joined]


def _dead(settings: Settings, topic: str, events_topic: str) -> Positions:
    places = []
    for message in read_topic(settings, topic):
        letter = dead_letter_of(message.headers)
        if letter is not None and letter.source.topic == events_topic:
            places.append((letter.source.partition, letter.source.offset))
    return _places(places)


def _epochs(settings: Settings, topic: str) -> tuple[Ints, Ints]:
    found = [(m.offset, decode(RoutingTable, m.value).epoch) for m in read_topic(settings, topic) if m.value]
    table = np.array(found, np.int64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def _chain(settings: Settings) -> tuple[list[str], list[str]]:
    entries = [message.value for message in read_topic(settings, AUDIT) if message.value]
    claimed = [decode(AuditEntry, entry).previous_hash for entry in entries]
    return claimed, [hashlib.sha256(entry).hexdigest() for entry in entries]


def _chunks(settings: Settings, topic: str) -> Iterator[list[Message]]:
    messages = read_topic(settings, topic)
    while chunk := list(islice(messages, CHUNK)):
        yield chunk


def _places(places: Sequence[tuple[int, int]]) -> Positions:
    table = np.array(places, np.int64).reshape(-1, 2)
    return Positions(table[:, 0], table[:, 1])


def _joined(parts: Sequence[Positions]) -> Positions:
    codes = np.concatenate([np.empty(0, np.int64), *(part.codes for part in parts)])
    return Positions.of(codes)


def _bytes(texts: Sequence[str]) -> NDArray[np.bytes_]:
    # Without an entry numpy would take float64; and a zero-width type cannot be joined.
    return np.array([text.encode() for text in texts] or [b""], np.bytes_)[: len(texts)]
