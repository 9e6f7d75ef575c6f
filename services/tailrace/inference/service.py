"""Shell of the inference service."""

from __future__ import annotations

from tailrace.backends.artifacts import Bundle
from tailrace.backends.feature_store import RedisOnlineStore
from tailrace.backends.ports import Executor
from tailrace.backends.settings import Settings
from tailrace.contracts.topics import Topics
from tailrace.inference.models import ModelPool, executor_of
from tailrace.inference.processor import ScoringProcessor
from tailrace.runtime.control import ControlFollower
from tailrace.runtime.loop import run_transactional
from tailrace.runtime.service import Lifecycle
from tailrace.usecase.declaration import UseCase


def run(settings: Settings, use_case: UseCase, lifecycle: Lifecycle) -> None:
    """Scores until the service is asked to stop."""
    topics = Topics(use_case.name)
    follower = ControlFollower(settings, topics)

    def make_executor(bundle: Bundle) -> Executor:
        return executor_of(bundle, settings.threads)

    def failed(reason: str) -> None:
        lifecycle.metrics.model_failures.labels(reason).inc()

    pool = ModelPool(use_case.plan, make_executor, follower.poll, lifecycle.log, failed)
    # A worker that comes back must not score with the default while there is a champion.
    table = follower.catch_up()
    if table is not None:
        pool.load(table)
    processor = ScoringProcessor(use_case.plan, pool, RedisOnlineStore(settings), lifecycle.metrics)
    run_transactional(
        settings,
        topics.group("inference"),
        [topics.features],
        f"{topics.group('inference')}.{settings.instance}",
        processor,
        lifecycle,
    )
    follower.close()
