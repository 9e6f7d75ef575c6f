"""The monitor of several tasks as a `Processor`: merges what they say of themselves, and decides at ticks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

import msgspec

from tailrace.backends.codec import encode
from tailrace.backends.ports import Assigned, Message, Output
from tailrace.backends.telemetry import Metrics
from tailrace.contracts.topics import Topics
from tailrace.core.monitor_state import Champion
from tailrace.errors import Retryable
from tailrace.feedback.merged import MergedState, Step
from tailrace.feedback.monitor_store import MonitorStore
from tailrace.feedback.publisher import Publisher
from tailrace.usecase.declaration import UseCase


class MonitorPosition(msgspec.Struct, frozen=True):
    """Commit metadata of a partition: the epoch of the routing table that is followed."""

    epoch: int = 0


class MonitorProcessor:
    """Counts and decides, over what tasks say. Whoever is assigned its partitions is the monitor; others stand by.

    Args:
        use_case: The use case.
        tasks: Numbers of the tasks.
        read_changelog: Gives the changelog from its beginning, as (key, value).
        read_observations: Gives OBSERVATIONS from the first record that is there.
        follow: Gives (epoch, champion) when a newer routing table is in force, else None.
        metrics: Prometheus handles.
    """

    def __init__(
        self,
        use_case: UseCase,
        tasks: Iterable[int],
        read_changelog: Callable[[], Iterable[tuple[bytes, bytes | None]]],
        read_observations: Callable[[], Iterable[Message]],
        follow: Callable[[], tuple[int, Champion] | None],
        metrics: Metrics,
    ) -> None:
        topics = Topics(use_case.name)
        self._observations, self._retraining = topics.observations, topics.retraining
        self._store = MonitorStore(use_case, tasks, read_changelog, read_observations)
        self._follow = follow
        self._metrics = metrics
        self._publisher = Publisher(use_case, metrics)
        self._assigned: dict[str, Assigned] = {}
        self._epochs: dict[str, int] = {}
        self._epoch = 0
        self._champion: Champion | None = None
        self._state: MergedState | None = None
        self._is_new = False
        self._offset = 0

    def assigned(self, partitions: Sequence[Assigned]) -> None:
        """Restores everything as of the last commit, once both partitions are there."""
        for at in partitions:
            if at.topic in self._assigned:
                # Given again without having been taken: the session began anew, and what was not committed is void.
                self._assigned, self._state = {}, None
            self._assigned[at.topic] = at
            known = msgspec.json.decode(at.metadata or "{}", type=MonitorPosition)
            self._epochs[at.topic] = known.epoch
        if self._is_whole() and self._state is None:
            self._state, self._offset = self._store.restore(self._assigned[self._observations].offset)
            # The table that is followed now may be newer than the one before the restart.
            self._is_new = self._champion is not None

    def revoked(self, partitions: Sequence[tuple[str, int]]) -> None:
        """Forgets partitions, and the state."""
        for topic, _ in partitions:
            self._assigned.pop(topic, None)
            self._epochs.pop(topic, None)
            self._state = None
        self._publisher.gauges.clear()

    def ended(self, partitions: Collection[tuple[str, int]]) -> None:
        """Of no account: nothing here waits for a partition."""

    def metadata(self, topic: str, partition: int) -> str:
        """A `MonitorPosition` as JSON."""
        self._epochs[topic] = self._epoch
        return encode(MonitorPosition(self._epoch)).decode()

    def unsettled(self) -> bool:
        """True until the followed epoch stands in the metadata of every partition."""
        return any(epoch != self._epoch for epoch in self._epochs.values())

    def process(self, batch: Sequence[Message], now_ms: int) -> list[Output]:
        """Takes a micro-batch and, where all tasks have come to a new hour, decides.

        Raises:
            Retryable: another worker has one of the two partitions.
        """
        followed = self._follow()
        if followed is not None:
            self._epoch, self._champion = followed
            self._is_new = True
        if not self._assigned:
            return []
        if self._state is None:
            raise Retryable("one of the monitor's partitions is with another worker; waiting for the group to settle")
        outputs, is_due = self._serve(self._state), self._is_new
        self._is_new = False
        for message in batch:
            if message.topic == self._retraining:
                is_due |= self._publisher.take_retraining(self._state.monitor, message)
        for message in batch:
            if message.topic != self._observations or message.offset < self._offset:
                continue
            self._offset = message.offset + 1
            if message.value is None:
                continue  # what was deleted, by the monitor itself
            for step in self._state.take(message.value, message.timestamp_ms):
                outputs += self._said(self._state, step)
                is_due |= step.ticked is not None
        self._metrics.tasks_left_out.set(self._state.left_out)
        if is_due:
            outputs += self._store.write(self._state, self._offset)
        return outputs

    def _serve(self, state: MergedState) -> list[Output]:
        if not self._is_new or self._champion is None:
            return []
        outputs = self._publisher.alarms(state.serve(self._champion))
        self._publisher.gauges.champion(self._epoch, state.monitor)
        return [*outputs, self._store.champion(self._champion)]

    def _said(self, state: MergedState, step: Step) -> list[Output]:
        outputs = self._publisher.alarms(step.alarms)
        if step.alarms:
            self._publisher.gauges.alarms(state.monitor)
        if step.ticked is not None:
            outputs += self._publisher.tick(state.overview, state.counts, step.tick_ms, step.since_ms, step.ticked)
            outputs += self._store.deleted(step.deleted)
        return outputs

    def _is_whole(self) -> bool:
        return {self._observations, self._retraining} <= set(self._assigned)
