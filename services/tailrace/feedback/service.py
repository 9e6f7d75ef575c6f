"""Shell of the feedback service."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

from tailrace.backends.artifacts import open_bundle
from tailrace.backends.kafka import admin, partitions_of, read_topic
from tailrace.backends.settings import Settings
from tailrace.contracts.records import RoutingTable
from tailrace.contracts.topics import Topics
from tailrace.core.monitor_state import Champion
from tailrace.feedback.keys import check_keys
from tailrace.feedback.monitor_processor import MonitorProcessor
from tailrace.feedback.processor import FeedbackProcessor
from tailrace.feedback.task_processor import TaskProcessor
from tailrace.runtime.control import ControlFollower
from tailrace.runtime.loop import run_transactional
from tailrace.runtime.loops import run_loops
from tailrace.runtime.service import Lifecycle
from tailrace.runtime.standby import stand_by
from tailrace.usecase.declaration import UseCase
from tailrace.usecase.sharing import workers_of
from tailrace.usecase.subscriptions import MONITOR, subscriptions


def run(settings: Settings, use_case: UseCase, lifecycle: Lifecycle) -> None:
    """Joins and judges until the service is asked to stop.

    Where feedback is parallel, each worker has two loops: one joins the tasks that fall to it, and one of all workers'
    second loops is the monitor.
    """
    if not use_case.parallel_feedback:
        run_alone(settings, use_case, lifecycle)
        return
    check_keys(settings, use_case)
    loops = {"tasks": run_tasks, "monitor": run_monitor}
    run_loops(lifecycle, {name: partial(loop, settings, use_case) for name, loop in loops.items()})


def run_alone(settings: Settings, use_case: UseCase, lifecycle: Lifecycle) -> None:
    """Joins and judges as the only worker of the use case, once it is, until the service is asked to stop."""
    topics = Topics(use_case.name)
    group = topics.group("feedback")
    stand_by(settings, group, lifecycle, f"feedback of {use_case.name!r} is {workers_of(use_case)}")
    with _following(settings, topics) as follow, ThreadPoolExecutor(1, "sweep") as beside:
        read = partial(_read_changelog, settings, topics)
        processor = FeedbackProcessor(use_case, read, follow, lifecycle.metrics, beside)
        run_transactional(settings, group, subscriptions(use_case)["feedback"], group, processor, lifecycle)


def run_monitor(settings: Settings, use_case: UseCase, lifecycle: Lifecycle) -> None:
    """Merges and judges what the tasks say, or stands by for whoever does, until the service is asked to stop.

    The group of its own has one member that is assigned anything; it fences the one before.
    """
    topics = Topics(use_case.name)
    group = topics.group(MONITOR)
    tasks = partitions_of(admin(settings), topics.predictions)
    with _following(settings, topics) as follow:
        processor = MonitorProcessor(
            use_case,
            tasks,
            partial(_read_changelog, settings, topics),
            partial(read_topic, settings, topics.observations),
            follow,
            lifecycle.metrics,
        )
        run_transactional(
            settings,
            group,
            subscriptions(use_case)[MONITOR],
            f"{group}.{settings.instance}",
            processor,
            lifecycle,
            together=True,
        )


def run_tasks(settings: Settings, use_case: UseCase, lifecycle: Lifecycle) -> None:
    """Joins the tasks that fall to this worker until the service is asked to stop; topics have to be co-partitioned."""
    topics = Topics(use_case.name)

    def read_changelog(task: int) -> Iterator[tuple[bytes, bytes | None]]:
        for message in read_topic(settings, topics.join_changelog, partitions=[task], settled=True):
            if message.key is not None:
                yield message.key, message.value

    group = topics.group("feedback")
    run_transactional(
        settings,
        group,
        subscriptions(use_case)["feedback"],
        f"{group}.{settings.instance}",
        TaskProcessor(use_case, read_changelog, lifecycle.metrics),
        lifecycle,
        together=True,
    )


@contextmanager
def _following(settings: Settings, topics: Topics) -> Iterator[Callable[[], tuple[int, Champion] | None]]:
    """Gives what tells of a newer routing table, the one that is in force first."""
    follower = ControlFollower(settings, topics)
    known = follower.catch_up()
    first = [(known.epoch, champion_of(known))] if known is not None else []

    def follow() -> tuple[int, Champion] | None:
        if first:
            return first.pop()
        newer = follower.poll()
        return (newer.epoch, champion_of(newer)) if newer is not None else None

    try:
        yield follow
    finally:
        follower.close()


def _read_changelog(settings: Settings, topics: Topics) -> Iterator[tuple[bytes, bytes | None]]:
    for message in read_topic(settings, topics.feedback_changelog, settled=True):
        if message.key is not None:
            yield message.key, message.value


def champion_of(table: RoutingTable) -> Champion:
    """The champion of a routing table, with the figures of its bundle.

    Raises:
        ArtifactInvalid: the bundle is missing or damaged.
    """
    variant = next(variant for variant in table.variants if variant.role == "champion")
    bundle = open_bundle(variant.bundle_uri, variant.digest)
    shadow = next((v.model_version for v in table.variants if v.role == "shadow"), "")
    candidate = shadow if table.in_shadow == "candidate" else ""
    return Champion(variant.model_version, bundle.metrics, bundle.reference, candidate, table.decided_at_ms)
