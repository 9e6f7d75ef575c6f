"""The models in service, and swapping them without a pause."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tailrace.backends.artifacts import Bundle, open_bundle
from tailrace.backends.ports import Executor
from tailrace.contracts.records import RoutingTable, Variant
from tailrace.core.plan import Plan
from tailrace.core.routing import Router
from tailrace.errors import ArtifactInvalid, Fatal, PlanMismatch
from tailrace.inference.backoff import Backoff

WARM_ROWS = 256
FIRST_PAUSE_MS, LONGEST_PAUSE_MS = 5_000, 60_000
"""Pauses before a refused table is tried again: its bundle may be on a file system that is away for a while."""


class Serving(NamedTuple):
    """A routing table with everything it needs loaded."""

    table: RoutingTable
    router: Router
    executors: dict[str, Executor]

    def executor(self, variant: Variant) -> Executor:
        """The model of a variant."""
        return self.executors[variant.digest]


class ModelPool:
    """Loads the models of new routing tables beside the running ones, then hands them over whole.

    How a table comes into force:
      1. `refresh`, between two micro-batches, hears of it and starts a thread;
      2. the thread opens, checks and warms every model that is not loaded yet;
      3. when all are there, the next `refresh` puts table and models in force at once;
      4. when one is not, the table in force stays, the epoch with it, and it is tried again later.

    Args:
        plan: Plan of the service; models of another fingerprint are refused.
        make_executor: Makes a runnable model of a bundle.
        poll: Gives the newest routing table when there is a newer one.
        log: Structured logger.
        failed: Called with a reason when a model could not be taken up.
    """

    def __init__(
        self,
        plan: Plan,
        make_executor: Callable[[Bundle], Executor],
        poll: Callable[[], RoutingTable | None],
        log: Any,
        failed: Callable[[str], None],
    ) -> None:
        self._plan = plan
        self._make_executor = make_executor
        self._poll = poll
        self._log = log
        self._failed = failed
        self._serving: Serving | None = None
        self._loader: _Loader | None = None
        self._waiting: RoutingTable | None = None
        self._backoff = Backoff(FIRST_PAUSE_MS, LONGEST_PAUSE_MS)

    @property
    def serving(self) -> Serving | None:
        """What scores now; None before the first model."""
        return self._serving

    @property
    def epoch(self) -> int:
        """Epoch in force; 0 before the first."""
        return self._serving.table.epoch if self._serving is not None else 0

    def load(self, table: RoutingTable) -> None:
        """Takes up a table at once, blocking; for the start, when there is nothing to score with yet.

        Raises:
            ArtifactInvalid: a model that the table gives events to is damaged or missing.
            PlanMismatch: such a model was trained for another plan.
            ValueError: the table contradicts itself.
        """
        self._take_over(self._open_all(table))

    def refresh(self, now_ms: int) -> None:
        """Takes note of a new table and swaps in what has been loaded; called between micro-batches."""
        newer = self._poll()
        if newer is not None and newer.epoch > self.epoch:
            self._waiting = newer
            self._backoff.succeeded()
        if self._loader is not None and not self._loader.is_alive():
            self._finish(self._loader, now_ms)
            self._loader = None
        if self._waiting is not None and self._loader is None and self._backoff.due(now_ms):
            self._loader = _Loader(self._open_all, self._waiting)
            self._loader.start()

    def _finish(self, loader: _Loader, now_ms: int) -> None:
        if loader.loaded is not None:
            self._take_over(loader.loaded)
            self._backoff.succeeded()
            if self._waiting is loader.table:
                self._waiting = None
            return
        error = loader.error
        if not isinstance(error, Fatal | ValueError):
            raise RuntimeError(f"loading the models of epoch {loader.table.epoch} failed") from error
        self._refused(loader.table, error)
        if self._waiting is not loader.table:
            return
        if isinstance(error, ArtifactInvalid):
            self._backoff.failed(now_ms)
        else:
            # Neither a plan nor a table changes by waiting.
            self._waiting = None

    def _refused(self, table: RoutingTable, error: BaseException) -> None:
        self._failed(type(error).__name__)
        self._log.error("routing_refused", epoch=table.epoch, still_serving=self.epoch, why=str(error))

    def _take_over(self, loaded: Serving) -> None:
        self._serving = loaded
        self._log.info("models_swapped", epoch=self.epoch, variants=_names(loaded.table))

    def _open_all(self, table: RoutingTable) -> Serving:
        router = Router(table)
        executors: dict[str, Executor] = {}
        for variant in table.variants:
            self._open_into(executors, variant)
        for variant in table.warm:
            try:
                self._open_into(executors, variant)
            except Fatal as error:
                # A former model only saves a later load. After a change of plan it cannot be loaded at all, and
                # must not keep its successor out.
                self._failed(type(error).__name__)
                self._log.warning("model_not_kept_warm", version=variant.model_version, why=str(error))
        return Serving(table, router, executors)

    def _open_into(self, executors: dict[str, Executor], variant: Variant) -> None:
        known = self._serving.executors if self._serving is not None else {}
        if variant.digest not in executors:
            executors[variant.digest] = known.get(variant.digest) or self._open(variant)

    def _open(self, variant: Variant) -> Executor:
        bundle = open_bundle(variant.bundle_uri, variant.digest)
        if bundle.plan.fingerprint != self._plan.fingerprint:
            raise PlanMismatch(
                f"model {variant.model_version} was trained for plan {bundle.plan.fingerprint}, this worker serves "
                f"{self._plan.fingerprint}: retrain, or deploy the use case it was trained for"
            )
        executor = self._make_executor(bundle)
        executor.warm(WARM_ROWS)
        return executor


class _Loader(threading.Thread):
    """Loads the models of one table; holds what came of it when it has ended."""

    def __init__(self, open_all: Callable[[RoutingTable], Serving], table: RoutingTable) -> None:
        super().__init__(name="model-loader", daemon=True)
        self.table = table
        self.loaded: Serving | None = None
        self.error: BaseException | None = None
        self._open_all = open_all

    def run(self) -> None:
        try:
            self.loaded = self._open_all(self.table)
        except BaseException as error:  # noqa: BLE001  # handed over to the scoring thread, which judges it
            self.error = error


def scores_of(executor: Executor, matrix: NDArray[np.float32]) -> NDArray[np.float64]:
    """Scores rows so that one bad row spoils itself alone; float64 (n,), NaN where the model fails.

    What a row gets must not depend on the rows it happens to share a micro-batch with, or a replay would
    not come out alike. A failing batch is therefore halved until the rows that fail stand alone.
    """
    try:
        return executor.run(matrix)
    except ArtifactInvalid:
        if len(matrix) == 1:
            return np.full(1, np.nan)
    half = len(matrix) // 2
    return np.concatenate((scores_of(executor, matrix[:half]), scores_of(executor, matrix[half:])))


def executor_of(bundle: Bundle, threads: int) -> Executor:
    """A runnable model; torch is imported only for a bundle that needs it.

    Raises:
        ArtifactInvalid: the model cannot be loaded.
    """
    width = len(bundle.plan.order)
    if bundle.runtime == "torch":
        from tailrace.backends.runtime_torch import TorchExecutor

        return TorchExecutor(bundle.model, width=width, threads=threads)
    from tailrace.backends.runtime_onnx import OnnxExecutor

    return OnnxExecutor(bundle.model, width=width, threads=threads)


def _names(table: RoutingTable) -> dict[str, str]:
    return {variant.name: variant.model_version for variant in table.variants}
