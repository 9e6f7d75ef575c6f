"""Shell of the rollout service."""

from __future__ import annotations

import queue
import threading
from typing import Any

from tailrace.backends.codec import decode
from tailrace.backends.kafka import read_topic
from tailrace.backends.settings import Settings
from tailrace.contracts.records import CandidateRegistered, RetrainingRecord, RoutingTable
from tailrace.contracts.topics import AUDIT, Topics
from tailrace.core.durations import milliseconds
from tailrace.core.rollouts import Decided, Rollout, RolloutState
from tailrace.errors import RegistryUnavailable
from tailrace.rollout.processor import RolloutProcessor, audit_hash
from tailrace.runtime.loop import run_transactional
from tailrace.runtime.service import Lifecycle
from tailrace.usecase.declaration import UseCase
from tailrace.usecase.policies import Shadow

_RETRAINING: Any = RetrainingRecord


def run(settings: Settings, use_case: UseCase, lifecycle: Lifecycle) -> None:
    """Controls rollouts until the service is asked to stop."""
    topics = Topics(use_case.name)
    spec = spec_of(use_case)
    aliases = _Aliases(settings, use_case.name, lifecycle)
    aliases.start()

    def restore() -> tuple[RolloutState, str]:
        table = None
        for message in read_topic(settings, topics.control):
            if message.value is not None:
                table = decode(RoutingTable, message.value)
        known = () if table is None else _candidates_until(settings, topics, table)
        last = ""
        for message in read_topic(settings, AUDIT):
            if message.key == use_case.name.encode() and message.value is not None:
                last = audit_hash(message.value)
        return spec.start(table, known), last

    processor = RolloutProcessor(topics, restore, aliases.put)
    group = topics.group("rollout")
    run_transactional(settings, group, [topics.retraining, topics.quality], group, processor, lifecycle)


def spec_of(use_case: UseCase) -> Rollout:
    """The rollout of a use case in plain numbers."""
    policy = use_case.rollout
    if not isinstance(policy, Shadow):
        return Rollout(use_case=use_case.name, shadow=False)
    return Rollout(
        use_case=use_case.name,
        shadow=True,
        hold_ms=milliseconds(policy.hold),
        min_predictions=policy.min_predictions,
        max_disagreement=policy.max_disagreement,
    )


def _candidates_until(settings: Settings, topics: Topics, table: RoutingTable) -> list[CandidateRegistered]:
    """Candidates the newest table already takes account of; later ones are still to be consumed."""
    records = [decode(_RETRAINING, m.value) for m in read_topic(settings, topics.retraining) if m.value is not None]
    candidates = [record for record in records if isinstance(record, CandidateRegistered)]
    seen = {variant.model_version for variant in [*table.variants, *table.warm]}
    last = max((at for at, record in enumerate(candidates) if record.model_version in seen), default=-1)
    return candidates[: last + 1]


class _Aliases(threading.Thread):
    """Keeps the registry's aliases up to date, beside the loop: they are bookkeeping, CONTROL is the truth."""

    def __init__(self, settings: Settings, use_case: str, lifecycle: Lifecycle) -> None:
        super().__init__(name="aliases", daemon=True)
        self._settings = settings
        self._use_case = use_case
        self._lifecycle = lifecycle
        self._decisions: queue.SimpleQueue[Decided] = queue.SimpleQueue()
        self.put = self._decisions.put

    def run(self) -> None:
        """Takes decisions until the process ends; a registry that fails is asked again with the next one."""
        from tailrace.backends.registry import MlflowRegistry

        registry: MlflowRegistry | None = None
        while True:
            table = self._decisions.get().table
            wanted = {variant.name: variant.model_version for variant in table.variants}
            if table.warm:
                wanted["former"] = table.warm[0].model_version
            try:
                registry = registry or MlflowRegistry(self._settings)
                for name, version in wanted.items():
                    registry.alias(self._use_case, name, version)
            except RegistryUnavailable as error:
                self._lifecycle.log.warning("aliases_behind", error=str(error), epoch=table.epoch)
