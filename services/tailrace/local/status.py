"""What `tailrace status` shows: processes, and how far each consumer group is behind."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import psutil
from confluent_kafka import (
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec

from tailrace.backends.kafka import client_options
from tailrace.backends.settings import Settings
from tailrace.contracts.topics import Topics
from tailrace.errors import BrokerUnavailable
from tailrace.local.supervisor import ProcessState

STATUS_COLUMNS = ("name", "state", "pid", "restarts", "uptime_s", "rss_mb")
CONSUMERS = ("features", "inference", "feedback", "trainer", "rollout")
ANSWER_S = 2.0
LOADING_S = 5.0
LOADING = (KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.NOT_COORDINATOR)
"""What a broker says for a moment after its start, and of the first group ever asked for."""


def look(process: ProcessState) -> dict[str, Any]:
    """One row per process, by `STATUS_COLUMNS`: memory in MB, uptime in seconds, both 0 unless it runs."""
    uptime_s = rss_mb = 0
    try:
        found = psutil.Process(process.pid)
        alive = found.status() != psutil.STATUS_ZOMBIE
        if alive:
            uptime_s = int(time.time() - found.create_time())
            rss_mb = found.memory_info().rss // 2**20
    except psutil.NoSuchProcess:
        alive = False
    word = "given up" if process.gave_up else "running" if alive else "restarting"
    return {
        "name": process.name,
        "state": word,
        "pid": process.pid,
        "restarts": process.restarts,
        "uptime_s": uptime_s,
        "rss_mb": rss_mb,
    }


def group_lags(settings: Settings, use_cases: Sequence[str]) -> dict[str, int | None]:
    """Records that each consumer group has still to read, over the partitions it has committed for.

    Returns:
        Lag by group; None for a group that has committed nothing yet.

    Raises:
        BrokerUnavailable: the broker does not answer.
    """
    client = AdminClient(client_options(settings) | {"log_level": 0})
    try:
        groups = [Topics(use_case).group(service) for use_case in use_cases for service in CONSUMERS]
        committed = {group: _committed(client, group) for group in groups}
        ends = _ends(client, {at for offsets in committed.values() for at in offsets})
    except KafkaException as error:
        raise BrokerUnavailable(f"the broker does not say: {error.args[0].str()}") from error
    return {
        group: sum(max(0, ends[at] - offset) for at, offset in offsets.items()) if offsets else None
        for group, offsets in committed.items()
    }


def _committed(client: AdminClient, group: str) -> dict[tuple[str, int], int]:
    deadline = time.monotonic() + LOADING_S
    while True:
        asked = client.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)], request_timeout=ANSWER_S)
        try:
            found = asked[group].result().topic_partitions or []
            return {(at.topic, at.partition): at.offset for at in found if at.offset >= 0}
        except KafkaException as error:
            code = error.args[0].code()
            if code == KafkaError.GROUP_ID_NOT_FOUND:
                return {}
            if code not in LOADING or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _ends(client: AdminClient, partitions: set[tuple[str, int]]) -> dict[tuple[str, int], int]:
    if not partitions:
        return {}
    asked = {TopicPartition(*at): OffsetSpec.latest() for at in partitions}
    answers = client.list_offsets(asked, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=ANSWER_S)
    return {(at.topic, at.partition): answer.result().offset for at, answer in answers.items()}
