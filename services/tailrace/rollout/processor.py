"""The rollout controller as a `Processor`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

from tailrace.backends.codec import decode, encode
from tailrace.backends.ports import Assigned, Message, Output
from tailrace.contracts.records import (
    AuditEntry,
    CandidateRegistered,
    PromoteRequested,
    Quality,
    RetrainingRecord,
    RollbackRequested,
)
from tailrace.contracts.topics import AUDIT, Topics
from tailrace.core.rollouts import Decided, RolloutState
from tailrace.core.watermarks import watermark_of

_RETRAINING: Any = RetrainingRecord


class RolloutProcessor:
    """Turns candidates, evidence and requests into routing tables, and writes down why.

    Args:
        topics: Topics of the use case.
        restore: Rebuilds the controller and the last audit hash from the topics.
        decided: Called with each decision, for bookkeeping that may fail.
    """

    def __init__(
        self,
        topics: Topics,
        restore: Callable[[], tuple[RolloutState, str]],
        decided: Callable[[Decided], None],
    ) -> None:
        self._topics = topics
        self._restore = restore
        self._decided = decided
        self._state: RolloutState | None = None
        self._audit_hash = ""

    def assigned(self, partitions: Sequence[Assigned]) -> None:
        """Rebuilds the controller from what is committed."""
        self._state, self._audit_hash = self._restore()

    def revoked(self, partitions: Sequence[tuple[str, int]]) -> None:
        """Nothing is kept per partition."""

    def metadata(self, topic: str, partition: int) -> str:
        """None is needed: CONTROL holds the state."""
        return ""

    def unsettled(self) -> bool:
        """Never: there is no metadata."""
        return False

    def process(self, batch: Sequence[Message], now_ms: int) -> list[Output]:
        """Takes events in their order and returns routing tables with their audit entries."""
        outputs = []
        for message in batch:
            if message.value is None or watermark_of(message.value, message.headers) is not None:
                continue
            decision = self._take(message.topic, message.value)
            if decision is not None:
                outputs += self._publish(decision)
        return outputs

    def _take(self, topic: str, value: bytes) -> Decided | None:
        assert self._state is not None
        if topic == self._topics.quality:
            return self._state.quality(decode(Quality, value))
        match decode(_RETRAINING, value):
            case CandidateRegistered() as record:
                return self._state.candidate(record)
            case PromoteRequested() as request:
                return self._state.promote(request)
            case RollbackRequested() as request:
                return self._state.roll_back(request)
        return None

    def _publish(self, decision: Decided) -> list[Output]:
        entry = AuditEntry(
            use_case=self._topics.use_case,
            action=decision.action,
            by=decision.by,
            reason=decision.table.reason,
            at_ms=decision.table.decided_at_ms,
            evidence=decision.evidence | {"epoch": str(decision.table.epoch)},
            previous_hash=self._audit_hash,
        )
        audited = encode(entry)
        self._audit_hash = audit_hash(audited)
        self._decided(decision)
        key = self._topics.use_case.encode()
        return [Output(self._topics.control, key, encode(decision.table)), Output(AUDIT, key, audited)]


def audit_hash(entry: bytes) -> str:
    """What the next entry of the chain holds of this one."""
    return hashlib.sha256(entry).hexdigest()
