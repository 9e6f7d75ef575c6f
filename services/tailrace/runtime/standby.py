"""Services of one worker: a second one stands by until the first is gone."""

from __future__ import annotations

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tailrace.backends.kafka import admin
from tailrace.backends.settings import Settings
from tailrace.runtime.service import Lifecycle

LOOK_S = 1.0
ANSWER_S = 10.0


def stand_by(settings: Settings, group: str, lifecycle: Lifecycle, why: str) -> None:
    """Waits while a worker of another name is a member of the group: side by side they would fence each other for ever.

    A worker of the same name is this one before it was killed, or is meant to be followed: that one is fenced.

    Args:
        settings: Where the broker is, and which instance this is.
        group: The group that has one member.
        lifecycle: Told that no work is done; says when to stop.
        why: Why one worker has to do, and what to do for more; a sentence.
    """
    client, is_told = admin(settings), False
    while not lifecycle.stopping.is_set():
        others = _others(client, group, f"{group}.{settings.instance}")
        if not others:
            return
        lifecycle.ready(False, f"stands by for worker {others[0]!r}: {why}")
        if not is_told:
            is_told = True
            lifecycle.log.warning("stands_by", worker=others[0], why=why)
        lifecycle.stopping.wait(LOOK_S)


def _others(client: AdminClient, group: str, own: str) -> list[str]:
    try:
        found = client.describe_consumer_groups([group], request_timeout=ANSWER_S)[group].result()
    except KafkaException:
        return []  # a broker that is away is for the session to wait for
    return sorted(
        member.group_instance_id.removeprefix(f"{group}.")
        for member in found.members
        if member.group_instance_id and member.group_instance_id != own
    )
