"""A second worker of a service of one worker stands by."""

from __future__ import annotations

import threading
import time
import uuid

from confluent_kafka.admin import NewTopic

from tailrace.backends.kafka import admin, consumer
from tailrace.backends.settings import Settings
from tailrace.runtime.service import Lifecycle
from tailrace.runtime.standby import stand_by


def test_a_second_worker_says_for_whom_it_stands_by_and_takes_over_once_that_is_gone(settings: Settings) -> None:
    name = f"standby.{uuid.uuid4().hex[:8]}"
    client = admin(settings)
    client.create_topics([NewTopic(name, 1, 1)], operation_timeout=30)[name].result(30)
    first = consumer(settings.model_copy(update={"instance": "first"}), name)
    first.subscribe([name])
    deadline = time.monotonic() + 60
    while not first.assignment():
        first.poll(0.1)
        assert time.monotonic() < deadline
    lifecycle = Lifecycle("feedback", "shop")
    second = threading.Thread(target=stand_by, args=(settings, name, lifecycle, "outcomes lie elsewhere"))
    second.start()
    while lifecycle.not_ready() != "stands by for worker 'first': outcomes lie elsewhere":
        first.poll(0.1)
        assert time.monotonic() < deadline
        assert second.is_alive()
    first.close()
    second.join(60)
    assert not second.is_alive()


def test_a_worker_that_comes_back_under_its_name_waits_for_nobody(settings: Settings) -> None:
    name = f"standby.{uuid.uuid4().hex[:8]}"
    client = admin(settings)
    client.create_topics([NewTopic(name, 1, 1)], operation_timeout=30)[name].result(30)
    before = consumer(settings, name)
    before.subscribe([name])
    deadline = time.monotonic() + 60
    while not before.assignment():
        before.poll(0.1)
        assert time.monotonic() < deadline
    lifecycle = Lifecycle("feedback", "shop")
    stand_by(settings, name, lifecycle, "")
    assert lifecycle.not_ready() == "starting"
    before.close()
