"""The models in service, and swapping them without a pause."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from tailrace.backends.artifacts import Bundle, open_bundle
from tailrace.backends.ports import Executor
from tailrace.contracts.records import RoutingTable, Variant
from tailrace.core.plan import Plan
from tailrace.core.routing import Router
from tailrace.errors import ArtifactInvalid, Fatal, PlanMismatch

WARM_ROWS = 256


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

    Args:
        plan: Plan of the service; models of another fingerprint are refused.
        make_executor: Makes a runnable model of a bundle.
        poll: Gives the newest routing table when there is a newer one.
        log: Structured logger.
        failed: Called with a reason when a table could not be taken up.
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
        self._loaded: Serving | None = None
        self._loader: threading.Thread | None = None
        self._waiting: RoutingTable | None = None

    @property
    def serving(self) -> Serving | None:
        """What scores now; None before the first model."""
        return self._serving

    @property
    def epoch(self) -> int:
        """Epoch in force; 0 before the first."""
        return self._serving.table.epoch if self._serving is not None else 0

    def load(self, table: RoutingTable) -> None:
        """Takes up a table at once, blocking; for the start, when there is nothing to score with yet."""
        self._load(table)
        self._take_over()

    def refresh(self) -> None:
        """Takes note of a new table and swaps in what has been loaded; called between micro-batches."""
        newer = self._poll()
        if newer is not None:
            self._waiting = newer
        if self._loader is not None and not self._loader.is_alive():
            self._loader = None
            self._take_over()
        if self._waiting is not None and self._loader is None:
            table, self._waiting = self._waiting, None
            self._loader = threading.Thread(target=self._load, args=(table,), name="model-loader", daemon=True)
            self._loader.start()

    def _take_over(self) -> None:
        if self._loaded is not None:
            self._serving, self._loaded = self._loaded, None
            self._log.info("models_swapped", epoch=self.epoch, variants=_names(self._serving.table))

    def _load(self, table: RoutingTable) -> None:
        known = self._serving.executors if self._serving is not None else {}
        try:
            wanted = {variant.digest: variant for variant in [*table.variants, *table.warm]}
            executors = {
                digest: known[digest] if digest in known else self._open(variant) for digest, variant in wanted.items()
            }
            self._loaded = Serving(table, Router(table), executors)
        except (Fatal, ValueError) as error:
            self._failed(type(error).__name__)
            self._log.error("routing_refused", epoch=table.epoch, still_serving=self.epoch, why=str(error))

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


def executor_of(bundle: Bundle, threads: int) -> Executor:
    """A runnable model; torch is imported only for a bundle that needs it.

    Raises:
        ArtifactInvalid: the model cannot be loaded.
    """
    width = len(bundle.plan.order)
    if bundle.runtime == "onnx":
        from tailrace.backends.runtime_onnx import OnnxExecutor

        return OnnxExecutor(bundle.model, width=width, threads=threads)
    if bundle.runtime == "torch":
        from tailrace.backends.runtime_torch import TorchExecutor

        return TorchExecutor(bundle.model, width=width, threads=threads)
    raise ArtifactInvalid(f"no runtime for {bundle.runtime!r}")


def _names(table: RoutingTable) -> dict[str, str]:
    return {variant.name: variant.model_version for variant in table.variants}
