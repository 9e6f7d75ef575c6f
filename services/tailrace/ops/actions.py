"""What people may do to a running use case; every action carries its author and a reason into the audit trail."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from confluent_kafka import Producer

from tailrace.backends.codec import decode, encode
from tailrace.backends.kafka import producer, read_topic
from tailrace.backends.settings import Settings
from tailrace.contracts.retraining import (
    EraseRequested,
    OperatorAction,
    PromoteRequested,
    RetrainRequested,
    RollbackRequested,
)
from tailrace.contracts.topics import Topics
from tailrace.core.erasure import digest_of
from tailrace.errors import BrokerUnavailable
from tailrace.ops.dead_letters import replay

ACKNOWLEDGED_S = 10.0
NEWEST = 1_000
"""Offsets at the end of each partition in which its newest event is looked for: records come in disorder."""


class _Predicted(msgspec.Struct):
    event_time_ms: int


class Actions:
    """Sends requests of people to the loop.

    Args:
        settings: Address of the broker.
        topics: Topics of the use case.
    """

    def __init__(self, settings: Settings, topics: Topics) -> None:
        self._settings = settings
        self._topics = topics
        self._producer: Producer = producer(settings)

    def promote(self, version: str, by: str, reason: str) -> None:
        """Asks to make a registered version champion."""
        self._send(
            PromoteRequested(
                use_case=self._topics.use_case, model_version=version, by=by, reason=reason, requested_at_ms=_now_ms()
            )
        )

    def roll_back(self, by: str, reason: str) -> None:
        """Asks to go back to the former champion."""
        self._send(RollbackRequested(use_case=self._topics.use_case, by=by, reason=reason, requested_at_ms=_now_ms()))

    def retrain(self, by: str, reason: str, until_ms: int) -> str:
        """Asks for a new model, trained on what is known at `until_ms`, stream time; returns the run's id."""
        run_id = f"{self._topics.use_case}-manual-{until_ms}"
        request = RetrainRequested(
            run_id=run_id,
            use_case=self._topics.use_case,
            trigger="manual",
            reason=reason,
            requested_at_ms=until_ms,
            train_until_ms=until_ms,
            by=by,
        )
        self._send(request, self._note("retrain_requested", by, reason, {"run_id": run_id}))
        return run_id

    def erase(self, entity: str, value: str, by: str, reason: str) -> int | None:
        """Asks that what is kept of an entity be erased, of events up to the newest prediction.

        Returns:
            That time, epoch milliseconds; None, and nothing is asked for, where there is no prediction.
        """
        newest = read_topic(self._settings, self._topics.predictions, newest=NEWEST)
        times_ms = [decode(_Predicted, message.value).event_time_ms for message in newest if message.value is not None]
        if not times_ms:
            return None
        request = EraseRequested(
            use_case=self._topics.use_case,
            entity=entity,
            value=value,
            before_ms=max(times_ms),
            by=by,
            reason=reason,
            requested_at_ms=_now_ms(),
        )
        evidence = {"entity": entity, "digest": digest_of(entity, value), "before_ms": str(request.before_ms)}
        self._send(request, self._note("erasure_requested", by, reason, evidence))
        return request.before_ms

    def replay_dead_letters(self, by: str, reason: str, letters: str) -> int:
        """Sends dead letters with the reason code `letters`, or all for "", to their topics again; returns how many."""
        sent = replay(self._settings, self._topics, reason=letters, by=by)
        self._send(self._note("dead_letters_replayed", by, reason, {"records": str(sent), "code": letters or "all"}))
        return sent

    def _note(self, action: str, by: str, reason: str, evidence: dict[str, str]) -> OperatorAction:
        return OperatorAction(
            use_case=self._topics.use_case, action=action, by=by, reason=reason, at_ms=_now_ms(), evidence=evidence
        )

    def _send(self, *records: Any) -> None:
        for record in records:
            self._producer.produce(self._topics.retraining, encode(record), self._topics.use_case.encode())
        if self._producer.flush(ACKNOWLEDGED_S):
            raise BrokerUnavailable(
                "the broker has not acknowledged the request; check it with `tailrace doctor`, then look whether the "
                "request has arrived before you repeat it"
            )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
