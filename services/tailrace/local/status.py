"""What `tailrace status` shows: processes, and how far each consumer group is behind."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import psutil
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from tailrace.backends.kafka import consumer
from tailrace.backends.settings import Settings
from tailrace.contracts.topics import Topics
from tailrace.errors import BrokerUnavailable
from tailrace.local.system_state import ProcessState
from tailrace.usecase.subscriptions import MONITOR

STATUS_COLUMNS = ("name", "state", "pid", "restarts", "uptime_s", "rss_mb")
CONSUMERS = ("features", "inference", "feedback", MONITOR, "trainer", "rollout")
ANSWER_S = 5.0
LOADING_S = 10.0
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
        Lag by group; None for a group that has committed nothing yet. Few use cases have a group of monitors: it is left
        out until it has committed something.

    Raises:
        BrokerUnavailable: the broker does not answer.
    """
    groups = [Topics(use_case).group(service) for use_case in use_cases for service in CONSUMERS]
    try:
        lags = {group: _lag(settings, group) for group in groups}
    except KafkaException as error:
        raise BrokerUnavailable(f"the broker does not say: {error.args[0].str()}") from error
    return {group: lag for group, lag in lags.items() if lag is not None or not group.endswith(MONITOR)}


def _lag(settings: Settings, group: str) -> int | None:
    # Asked through a consumer that never subscribes, so it joins nothing. The admin client's call of the same
    # purpose crashes the process (librdkafka 2.15.1) while the broker still loads the group's coordinator.
    reader = consumer(settings, group, **{"group.protocol": "classic", "group.instance.id": "", "log_level": 0})
    try:
        topics = reader.list_topics(timeout=ANSWER_S).topics.values()
        asked = [TopicPartition(topic.topic, number) for topic in topics for number in topic.partitions]
        committed = [at for at in _committed(reader, asked) if at.offset >= 0] if asked else []
        return sum(max(0, _end(reader, at) - at.offset) for at in committed) if committed else None
    finally:
        reader.close()


def _committed(reader: Consumer, asked: list[TopicPartition]) -> list[TopicPartition]:
    deadline = time.monotonic() + LOADING_S
    while True:
        try:
            return list(reader.committed(asked, timeout=ANSWER_S))
        except KafkaException as error:
            if error.args[0].code() not in LOADING or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _end(reader: Consumer, at: TopicPartition) -> int:
    """End that a reader of committed records sees."""
    return int(reader.get_watermark_offsets(TopicPartition(at.topic, at.partition), timeout=ANSWER_S)[1])
