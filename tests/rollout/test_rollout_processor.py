from collections.abc import Iterable

import pytest

from tailrace.backends.codec import decode, encode
from tailrace.backends.ports import Assigned, Message, Output
from tailrace.contracts.quality import Quality
from tailrace.contracts.records import AuditEntry, RoutingTable
from tailrace.contracts.retraining import CandidateRegistered, PromoteRequested
from tailrace.contracts.topics import AUDIT, Topics
from tailrace.core.rollouts import Rollout, RolloutState
from tailrace.rollout.processor import RolloutProcessor, audit_hash

DAY_MS = 86_400_000
TOPICS = Topics("uc")
SPEC = Rollout(use_case="uc", shadow=True, hold_ms=DAY_MS, min_predictions=100, max_disagreement=0.2, min_labels=50)


def candidate(version: str) -> CandidateRegistered:
    return CandidateRegistered(
        run_id=f"run-{version}",
        use_case="uc",
        model_version=version,
        bundle_uri=f"file:///bundles/{version}",
        digest=f"sha256:{version}",
        registered_at_ms=0,
        gates=[],
        metrics={},
        lineage={},
    )


def quality(variant: str, version: str, watermark_ms: int, loss: float) -> Quality:
    return Quality(
        use_case="uc",
        label_name="fraud",
        window_start_ms=0,
        window_end_ms=DAY_MS,
        variant=variant,
        model_version=version,
        slice="",
        predictions=1_000,
        labelled=60,
        final=60,
        maturity=0.06,
        bins=[],
        n=[],
        positives=[],
        metrics={"log_loss": loss},
        watermark_ms=watermark_ms,
        paired=1_000,
    )


PROMOTE_2 = PromoteRequested(use_case="uc", model_version="2", by="ana", reason="urgent", requested_at_ms=1)
# Version 2 goes into shadow and is refused there, for its log loss against the champion's.
INPUTS: list[CandidateRegistered | Quality | PromoteRequested] = [
    candidate("1"),
    candidate("2"),
    quality("champion", "1", 0, 0.10),
    quality("shadow", "2", DAY_MS, 0.50),
    PROMOTE_2,
]


class Log:
    """The topics: what was consumed, with its offsets, and what was committed by that."""

    def __init__(self) -> None:
        self.consumed: dict[str, list[Message]] = {TOPICS.retraining: [], TOPICS.quality: []}
        self.outputs: list[Output] = []

    def append(self, record: CandidateRegistered | Quality | PromoteRequested) -> Message:
        topic = TOPICS.quality if isinstance(record, Quality) else TOPICS.retraining
        message = Message(topic, 0, len(self.consumed[topic]), 0, None, encode(record), [])
        self.consumed[topic].append(message)
        return message

    def start(self, *, one_by_one: bool = False) -> RolloutProcessor:
        processor = RolloutProcessor(TOPICS, self._restore, self._history, lambda _: None)
        partitions = [Assigned(topic, 0, len(messages) or -1, "") for topic, messages in self.consumed.items()]
        for part in [[at] for at in partitions] if one_by_one else [partitions]:
            processor.assigned(part)
        return processor

    def tables(self) -> list[RoutingTable]:
        return [decode(RoutingTable, out.value or b"") for out in self.outputs if out.topic == TOPICS.control]

    def audited(self) -> list[bytes]:
        return [out.value or b"" for out in self.outputs if out.topic == AUDIT]

    def _restore(self) -> tuple[RolloutState, str]:
        tables, audited = self.tables(), self.audited()
        return SPEC.start(tables[-1] if tables else None), audit_hash(audited[-1]) if audited else ""

    def _history(self, at: Assigned) -> Iterable[Message]:
        return [message for message in self.consumed[at.topic] if message.offset < at.offset]


def run(restart_before: int | None, *, one_by_one: bool = False) -> Log:
    log = Log()
    processor = log.start()
    for number, record in enumerate(INPUTS):
        if number == restart_before:
            processor = log.start(one_by_one=one_by_one)
        log.outputs += processor.process([log.append(record)], 0)
    return log


def test_inputs_end_with_the_refused_version_promoted_by_a_person() -> None:
    entries = [decode(AuditEntry, value) for value in run(None).audited()]
    assert [entry.action for entry in entries] == ["promoted", "shadowed", "refused", "promoted"]


@pytest.mark.parametrize("one_by_one", [False, True])
@pytest.mark.parametrize("restart_before", range(len(INPUTS)))
def test_restarted_controller_writes_what_the_running_one_would_have(restart_before: int, one_by_one: bool) -> None:
    assert run(restart_before, one_by_one=one_by_one).outputs == run(None).outputs


def test_partition_that_comes_later_keeps_a_decision_not_yet_committed() -> None:
    log = Log()
    processor = RolloutProcessor(TOPICS, log._restore, log._history, lambda _: None)
    processor.assigned([Assigned(TOPICS.retraining, 0, -1, "")])
    first = processor.process([log.append(candidate("1"))], 0)
    processor.assigned([Assigned(TOPICS.quality, 0, -1, "")])
    second = processor.process([log.append(candidate("2"))], 0)
    epochs = [decode(RoutingTable, out.value or b"").epoch for out in first + second if out.topic == TOPICS.control]
    assert epochs == [1, 2]


def test_session_given_up_starts_again_from_what_is_committed() -> None:
    log = Log()
    processor = log.start()
    processor.process([log.append(candidate("1"))], 0)
    log.consumed[TOPICS.retraining].clear()
    processor.assigned([Assigned(TOPICS.retraining, 0, -1, ""), Assigned(TOPICS.quality, 0, -1, "")])
    outputs = processor.process([log.append(candidate("1"))], 0)
    assert [decode(RoutingTable, out.value or b"").epoch for out in outputs if out.topic == TOPICS.control] == [1]


def test_audit_entries_are_chained_by_the_hash_of_the_one_before() -> None:
    audited = run(3).audited()
    hashes = [decode(AuditEntry, value).previous_hash for value in audited]
    assert hashes == ["", *(audit_hash(value) for value in audited[:-1])]
