"""Shell of the rollout service."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator
from typing import Any

from tailrace.backends.kafka import read_topic
from tailrace.backends.ports import Assigned, Message
from tailrace.backends.settings import Settings
from tailrace.contracts.records import RoutingTable
from tailrace.contracts.topics import AUDIT, Topics
from tailrace.core.durations import milliseconds
from tailrace.core.rollouts import Decided, Rollout, RolloutState
from tailrace.errors import RegistryUnavailable
from tailrace.rollout.processor import RolloutProcessor, audit_hash
from tailrace.runtime.control import newest_table
from tailrace.runtime.loop import run_transactional
from tailrace.runtime.service import Lifecycle
from tailrace.usecase.declaration import UseCase
from tailrace.usecase.policies import Shadow

RETRY_S = 10.0
"""Pause before a registry that failed is asked again."""
NUMBERS_GAP = 0.02
"""Share of their range by which a candidate's mean absolute error of numbers may exceed the champion's in shadow."""


def run(settings: Settings, use_case: UseCase, lifecycle: Lifecycle) -> None:
    """Controls rollouts until the service is asked to stop."""
    topics = Topics(use_case.name)
    spec = spec_of(use_case)
    aliases = _Aliases(settings, use_case.name, lifecycle)
    aliases.start()

    def restore() -> tuple[RolloutState, str]:
        table = newest_table(settings, topics)
        last = ""
        for message in read_topic(settings, AUDIT):
            if message.key == use_case.name.encode() and message.value is not None:
                last = audit_hash(message.value)
        lifecycle.metrics.epoch.set(table.epoch if table is not None else 0)
        return spec.start(table), last

    def decided(decision: Decided) -> None:
        lifecycle.metrics.epoch.set(decision.table.epoch)
        aliases.put(decision)

    def history(at: Assigned) -> Iterator[Message]:
        for message in read_topic(settings, at.topic):
            if message.partition == at.partition and message.offset < at.offset:
                yield message

    processor = RolloutProcessor(topics, restore, history, decided)
    group = topics.group("rollout")
    run_transactional(settings, group, [topics.retraining, topics.quality], group, processor, lifecycle)


def spec_of(use_case: UseCase) -> Rollout:
    """The rollout of a use case in plain numbers."""
    policy = use_case.rollout
    if not isinstance(policy, Shadow):
        return Rollout(use_case=use_case.name, shadow=False)
    plan = use_case.plan
    of_numbers: dict[str, Any] = {"loss": "mae", "max_loss_gap": NUMBERS_GAP * (plan.high - plan.low)}
    return Rollout(
        use_case=use_case.name,
        shadow=True,
        hold_ms=milliseconds(policy.hold),
        min_predictions=policy.min_predictions,
        max_disagreement=policy.max_disagreement,
        **(of_numbers if plan.task == "regression" else {}),
    )


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
        """Takes decisions until the process ends; one that fails is tried again until a newer one comes."""
        from tailrace.backends.registry import MlflowRegistry

        registry: MlflowRegistry | None = None
        decision = self._decisions.get()
        while True:
            table = decision.table
            try:
                registry = registry or MlflowRegistry(self._settings)
                for name, version in _aliases_of(table).items():
                    registry.alias(self._use_case, name, version)
            except RegistryUnavailable as error:
                self._lifecycle.log.warning("aliases_behind", error=str(error), epoch=table.epoch)
                with contextlib.suppress(queue.Empty):
                    decision = self._decisions.get(timeout=RETRY_S)
            else:
                decision = self._decisions.get()


def _aliases_of(table: RoutingTable) -> dict[str, str]:
    aliases = {variant.name: variant.model_version for variant in table.variants}
    return aliases | {"former": table.warm[0].model_version} if table.warm else aliases
