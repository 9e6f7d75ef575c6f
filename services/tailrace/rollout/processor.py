"""The rollout controller as a `Processor`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from tailrace.backends.codec import decode, encode
from tailrace.backends.ports import Assigned, Message, Output
from tailrace.contracts.quality import Quality
from tailrace.contracts.records import AuditEntry
from tailrace.contracts.retraining import (
    CandidateRegistered,
    OperatorAction,
    PromoteRequested,
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
        restore: Gives the controller as of the newest routing table, and the last audit hash.
        history: Gives the records of a partition that were consumed before, that is, below its
            committed offset.
        decided: Called with each decision, for bookkeeping that may fail.
    """

    def __init__(
        self,
        topics: Topics,
        restore: Callable[[], tuple[RolloutState, str]],
        history: Callable[[Assigned], Iterable[Message]],
        decided: Callable[[Decided], None],
    ) -> None:
        self._topics = topics
        self._restore = restore
        self._history = history
        self._decided = decided
        self._state: RolloutState | None = None
        self._held: set[tuple[str, int]] = set()
        self._audit_hash = ""

    def assigned(self, partitions: Sequence[Assigned]) -> None:
        """Rebuilds the controller from what is committed.

        Partitions may come one after another. Only the first of a session restores the routing table:
        a later one could meet a transaction of our own that is still open, and would lose its decision.
        """
        taken = {(at.topic, at.partition) for at in partitions}
        if self._state is None or taken & self._held:
            self._held = set()
            self._state, self._audit_hash = self._restore()
        self._held |= taken
        for at in partitions:
            for message in self._history(at):
                record = self._decoded(message)
                if isinstance(record, CandidateRegistered | Quality):
                    self._state.remember(record)

    def revoked(self, partitions: Sequence[tuple[str, int]]) -> None:
        """Forgets the controller once nothing is held any more."""
        self._held -= set(partitions)
        if not self._held:
            self._state = None

    def ended(self, partitions: Collection[tuple[str, int]]) -> None:
        """Of no account: nothing here waits for a partition."""

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
            record = self._decoded(message)
            if isinstance(record, OperatorAction):
                outputs.append(self._audited(record.action, record.by, record.reason, record.at_ms, record.evidence))
                continue
            decision = self._take(record)
            if decision is not None:
                outputs += self._publish(decision)
        return outputs

    def _decoded(self, message: Message) -> Any:
        """The record of a message; None for a watermark."""
        if message.value is None or watermark_of(message.value, message.headers) is not None:
            return None
        return decode(Quality if message.topic == self._topics.quality else _RETRAINING, message.value)

    def _take(self, record: Any) -> Decided | None:
        assert self._state is not None
        match record:
            case Quality():
                return self._state.quality(record)
            case CandidateRegistered():
                return self._state.candidate(record)
            case PromoteRequested():
                return self._state.promote(record)
            case RollbackRequested():
                return self._state.roll_back(record)
        return None

    def _publish(self, decision: Decided) -> list[Output]:
        table, evidence = decision.table, decision.evidence | {"epoch": str(decision.table.epoch)}
        audited = self._audited(decision.action, decision.by, table.reason, table.decided_at_ms, evidence)
        self._decided(decision)
        return [Output(self._topics.control, self._topics.use_case.encode(), encode(table)), audited]

    def _audited(self, action: str, by: str, reason: str, at_ms: int, evidence: dict[str, str]) -> Output:
        entry = AuditEntry(
            use_case=self._topics.use_case,
            action=action,
            by=by,
            reason=reason,
            at_ms=at_ms,
            evidence=evidence,
            previous_hash=self._audit_hash,
        )
        audited = encode(entry)
        self._audit_hash = audit_hash(audited)
        return Output(AUDIT, self._topics.use_case.encode(), audited)


def audit_hash(entry: bytes) -> str:
    """What the next entry of the chain holds of this one."""
    return hashlib.sha256(entry).hexdigest()
