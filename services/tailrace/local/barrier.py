"""Waiting until a use case has digested everything that was sent to it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec

from tailrace.backends.kafka import admin, group_reader, partitions_of
from tailrace.backends.settings import Settings
from tailrace.contracts.topics import Topics
from tailrace.errors import BrokerUnavailable, TailraceError
from tailrace.usecase.declaration import UseCase
from tailrace.usecase.subscriptions import MONITOR, subscriptions

POLL_S = 0.03


class NotSettled(TailraceError):
    """A consumer group did not come to the end of its topics in time."""


class Barrier:
    """Tells when every consumer group of a use case has caught up.

    A group has caught up on a partition when its committed offset is the end that a reader of
    committed records sees. Groups commit after their outputs are durable, so that "all caught up,
    twice in a row, with the same ends" means that nothing is under way anywhere.

    Args:
        settings: Address of the broker.
        use_case: Whose groups to watch.
        training: Also wait for trainings in flight and what rollout makes of them.
    """

    def __init__(self, settings: Settings, use_case: UseCase, *, training: bool = True) -> None:
        self._admin = admin(settings)
        self._topics = topics = Topics(use_case.name)
        known = subscriptions(use_case)
        judges = ("trainer", "rollout")
        reads = {name: known[name] for name in known if training or name not in judges}
        self._reads = {
            topics.group(service): [(topic, n) for topic in names for n in partitions_of(self._admin, topic)]
            for service, names in reads.items()
        }
        self._settings = settings
        self._readers = self._connect()
        self._followers = [topics.group(name) for name in ("inference", MONITOR if MONITOR in reads else "feedback")]

    def wait(self, timeout_s: float, epoch: Callable[[], int | None], keep_going: Callable[[], None]) -> None:
        """Blocks until everything is settled.

        Args:
            timeout_s: Longest wait without any group making progress, seconds.
            epoch: Gives the newest epoch of the control topic; None while there is none.
            keep_going: Called between two looks; raises to give up.

        Raises:
            NotSettled: names the group, topic and partition that lag.
        """
        before: tuple[Any, ...] | None = None
        last_seen: Any = None
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                committed, ends = self._committed(), self._ends()
            except BrokerUnavailable as error:
                # A broker that restarts is no reason to give up a replay; one that stays away is.
                before = None
                # Clients that were connected when a broker went down have been seen to stay deaf after it is back.
                self.close()
                self._admin, self._readers = admin(self._settings), self._connect()
                if time.monotonic() > deadline:
                    raise NotSettled(f"the broker has been away for {timeout_s:.0f} s: {error}") from error
                keep_going()
                time.sleep(1.0)
                continue
            newest = epoch()
            lagging = self._lagging(committed, ends) or self._behind(committed, newest)
            seen = (ends, newest)
            if not lagging and before == seen:
                return
            before = None if lagging else seen
            if (progress := (ends, committed)) != last_seen:
                last_seen, deadline = progress, time.monotonic() + timeout_s
            if time.monotonic() > deadline:
                raise NotSettled(
                    f"nothing moved for {timeout_s:.0f} s: {lagging or 'offsets keep changing'}; "
                    "see the service's log (`tailrace status`)"
                )
            keep_going()
            time.sleep(POLL_S)

    def _connect(self) -> dict[str, Consumer]:
        return {group: group_reader(self._settings, group) for group in self._reads}

    def _committed(self) -> dict[tuple[str, str, int], tuple[int, str]]:
        found: dict[tuple[str, str, int], tuple[int, str]] = {}
        for group, reader in self._readers.items():
            try:
                known = reader.committed([TopicPartition(*at) for at in self._reads[group]], timeout=10)
            except KafkaException as error:
                if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
                    continue  # nobody of the group has committed yet
                raise BrokerUnavailable(f"committed offsets of {group} are not to be had: {error}") from error
            for at in known:
                found[group, at.topic, at.partition] = (at.offset, at.metadata or "")
        return found

    def _ends(self) -> dict[tuple[str, int], int]:
        asked = {TopicPartition(*at): OffsetSpec.latest() for reads in self._reads.values() for at in reads}
        answers = self._admin.list_offsets(asked, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=30)
        try:
            return {(at.topic, at.partition): answer.result().offset for at, answer in answers.items()}
        except KafkaException as error:
            raise BrokerUnavailable(f"end offsets are not to be had: {error}") from error

    def close(self) -> None:
        """Gives the connections back."""
        for reader in self._readers.values():
            reader.close()

    def _lagging(self, committed: dict[tuple[str, str, int], tuple[int, str]], ends: dict[tuple[str, int], int]) -> str:
        for group, reads in self._reads.items():
            for topic, partition in reads:
                end = ends[topic, partition]
                offset, _ = committed.get((group, topic, partition), (-1, ""))
                offset = max(offset, 0)
                if offset < end:
                    return f"group {group} is at {offset} of {end} in {topic}[{partition}]"
        return ""

    def _behind(self, committed: dict[tuple[str, str, int], tuple[int, str]], newest: int | None) -> str:
        if newest is None:
            return ""
        for follower in self._followers:
            epochs = [
                epoch_of(metadata) for (group, *_), (_, metadata) in committed.items() if group == follower and metadata
            ]
            if not epochs or min(epochs) < newest:
                return f"group {follower} follows epoch {min(epochs, default=-1)}, the newest is {newest}"
        return ""


def epoch_of(metadata: str) -> int:
    """Epoch in a commit's metadata; -1 where there is none."""
    try:
        content = json.loads(metadata)
    except ValueError:
        return -1
    epoch = content.get("epoch") if isinstance(content, dict) else None
    return epoch if isinstance(epoch, int) else -1
