"""How far each service is behind, in records and in seconds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec

from tailrace.backends.kafka import admin, group_reader, partitions_of
from tailrace.backends.settings import Settings
from tailrace.contracts.topics import Topics
from tailrace.core.lags import OffsetHistory
from tailrace.errors import BrokerUnavailable
from tailrace.usecase.declaration import UseCase

ANSWER_S = 5.0
STAGES = ("features", "inference", "feedback")
"""Services an event passes, in order."""

At = tuple[str, int]


class LagProbe:
    """Asks the broker where consumer groups stand and where topics end. One thread at a time.

    Args:
        settings: Address of the broker.
        use_case: Whose groups to watch.
    """

    def __init__(self, settings: Settings, use_case: UseCase) -> None:
        topics = Topics(use_case.name)
        self._reads: dict[str, list[str]] = {
            "features": [use_case.requests.name],
            "inference": [topics.features],
            "feedback": [topics.predictions, use_case.label.topic.name],
        }
        self._settings = settings
        self._admin = admin(settings)
        self._readers = {stage: group_reader(settings, topics.group(stage)) for stage in STAGES}
        self._history: dict[At, OffsetHistory] = {}
        self._partitions: dict[str, list[int]] = {}
        self._ends: dict[At, int] = {}
        self._produced: list[tuple[int, int]] = []

    def close(self) -> None:
        """Lets go of the broker."""
        for reader in self._readers.values():
            reader.close()

    def measure(self, now_ms: int) -> dict[str, dict[str, Any]]:
        """Lag by stage: "lag_records", and "lag_s", the age of the oldest record not yet committed.

        A group that has committed nothing yet is behind by everything there is.

        Raises:
            BrokerUnavailable: the broker does not answer.
        """
        try:
            self._ends = self._end_offsets()
            for at, end in self._ends.items():
                self._history.setdefault(at, OffsetHistory()).observe(end, now_ms)
            return {stage: self._lag(stage, now_ms) for stage in STAGES}
        except KafkaException as error:
            raise BrokerUnavailable(f"the broker does not say where consumers stand: {error}") from error

    def events_per_s(self, now_ms: int, span_ms: int = 10_000) -> float | None:
        """Events produced per second over the last seconds, as of the last `measure`; None at first."""
        events = sum(end for (topic, _), end in self._ends.items() if topic in self._reads["features"])
        self._produced = [(at, total) for at, total in self._produced if at >= now_ms - span_ms]
        self._produced.append((now_ms, events))
        (then_ms, then), took_ms = self._produced[0], now_ms - self._produced[0][0]
        return max(1_000 * (events - then) / took_ms, 0.0) if took_ms > 0 and then_ms < now_ms else None

    def _lag(self, stage: str, now_ms: int) -> dict[str, Any]:
        asked = [TopicPartition(*at) for at in self._ends if at[0] in self._reads[stage]]
        records, oldest_ms = 0, 0
        for known in self._readers[stage].committed(asked, timeout=ANSWER_S):
            at, offset = (known.topic, known.partition), max(known.offset, 0)
            behind = self._ends[at] - offset
            if behind > 0:
                records += behind
                oldest_ms = max(oldest_ms, self._history[at].age_ms(offset, now_ms))
        return {"lag_records": records, "lag_s": round(oldest_ms / 1_000, 1)}

    def _end_offsets(self) -> dict[At, int]:
        asked = [TopicPartition(*at) for at in self._places()]
        answers = self._admin.list_offsets(
            dict.fromkeys(asked, OffsetSpec.latest()),
            isolation_level=IsolationLevel.READ_COMMITTED,
            request_timeout=ANSWER_S,
        )
        return {(at.topic, at.partition): answer.result().offset for at, answer in answers.items()}

    def _places(self) -> Iterable[At]:
        for topic in sorted({name for names in self._reads.values() for name in names}):
            if topic not in self._partitions:
                self._partitions[topic] = partitions_of(self._admin, topic)
            for number in self._partitions[topic]:
                yield topic, number
