"""Shell of the inference service."""

from __future__ import annotations

from tailrace.backends.artifacts import Bundle
from tailrace.backends.feature_store import RedisOnlineStore
from tailrace.backends.ports import Executor
from tailrace.backends.settings import Settings
from tailrace.contracts.topics import Topics
from tailrace.errors import ArtifactInvalid, PlanMismatch, Retryable
from tailrace.inference.models import ModelPool, executor_of
from tailrace.inference.processor import ScoringProcessor
from tailrace.runtime.control import ControlFollower
from tailrace.runtime.loop import run_transactional
from tailrace.runtime.service import Lifecycle
from tailrace.usecase.declaration import UseCase

START_PAUSE_S = 1.0
"""Between two looks for a champion that can be loaded, at the start."""


def run(settings: Settings, use_case: UseCase, lifecycle: Lifecycle) -> None:
    """Scores until the service is asked to stop."""
    topics = Topics(use_case.name)
    follower = ControlFollower(settings, topics)

    def make_executor(bundle: Bundle) -> Executor:
        return executor_of(bundle, settings.threads)

    def failed(reason: str) -> None:
        lifecycle.metrics.model_failures.labels(reason).inc()

    try:
        pool = ModelPool(use_case.plan, make_executor, follower.poll, lifecycle.log, failed)
        _wait_for_models(pool, follower, lifecycle)
        store = RedisOnlineStore(settings)
        processor = ScoringProcessor(use_case.plan, pool, store, lifecycle.metrics, lifecycle.log)
        run_transactional(
            settings,
            topics.group("inference"),
            [topics.features],
            f"{topics.group('inference')}.{settings.instance}",
            processor,
            lifecycle,
            cut_ms=cut_ms_of(use_case.plan.latency_budget_ms),
        )
    finally:
        follower.close()


def cut_ms_of(latency_budget_ms: int) -> int:
    """How long a transaction stays open, milliseconds, for a prediction to be readable within the budget.

    An event waits half of that on average, then for the commit, which takes some 10 ms. Below 10 ms the broker has
    more work with the transactions than with the records; above 100 ms nothing is gained any more.
    """
    return min(max(latency_budget_ms * 2 // 5, 10), 100)


def _wait_for_models(pool: ModelPool, follower: ControlFollower, lifecycle: Lifecycle) -> None:
    """Blocks until the models of the newest routing table are loaded, if one was ever written.

    A worker that comes back must not answer with the default while there is a champion. Where its bundle
    cannot be read, the worker waits, says so, and takes up whatever is promoted or restored. Where the
    champion was trained for another plan, only the default is left: without its predictions there would
    never be labels to train a successor on.
    """
    said = ""
    while not lifecycle.stopping.is_set():
        try:
            table = follower.catch_up()
            if table is not None:
                pool.load(table)
            return
        except PlanMismatch as error:
            lifecycle.metrics.model_failures.labels("PlanMismatch").inc()
            lifecycle.log.error("champion_of_another_plan", serving="defaults", why=str(error))
            return
        except (Retryable, ArtifactInvalid, ValueError) as error:
            lifecycle.ready(False, str(error))
            lifecycle.metrics.model_failures.labels(type(error).__name__).inc()
            if str(error) != said:
                said = str(error)
                lifecycle.log.error("no_champion_to_start_with", why=said, retry_in_s=START_PAUSE_S)
            lifecycle.stopping.wait(START_PAUSE_S)
