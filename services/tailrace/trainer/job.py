"""One training, from data set to registered candidate or refusal. Runs in a process of its own."""

from __future__ import annotations

import tempfile
import traceback
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from tailrace.backends.artifacts import Bundle, open_bundle, write_bundle
from tailrace.backends.registry import DIGEST_TAG, MlflowRegistry
from tailrace.backends.runtime_onnx import OnnxExecutor
from tailrace.backends.settings import Settings
from tailrace.contracts.records import CandidateRefused, CandidateRegistered, GateResult, RetrainRequested, Variant
from tailrace.core.durations import milliseconds
from tailrace.core.e_detector import Baseline
from tailrace.core.loss_detectors import baselines
from tailrace.core.metrics import metrics_of
from tailrace.core.sampling import DataSet, Split, split_by_time
from tailrace.core.scoring import on_grid
from tailrace.core.validation import GateSpec, judge, parity
from tailrace.errors import TailraceError
from tailrace.trainer.dataset import load
from tailrace.trainer.models import Calibration, TrainedModel
from tailrace.trainer.reference import reference_of
from tailrace.usecase.declaration import UseCase
from tailrace.usecase.load import load_trainer, load_use_case
from tailrace.usecase.policies import AtLeast

LEAST_ROWS = 200


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a training needs to know; plain data, so that it can cross into another process."""

    request: RetrainRequested
    champion: Variant | None
    offsets: dict[str, str]


class _Refused(TailraceError):
    """The candidate is refused; `gates` holds what was judged by then."""

    def __init__(self, reason: str, gates: list[GateResult] | None = None) -> None:
        self.gates = gates or []
        super().__init__(reason)


def run_job(settings: Settings, job: Job) -> CandidateRegistered | CandidateRefused:
    """Trains, proves and registers; whatever goes wrong becomes a refusal that says so."""
    request = job.request
    try:
        return _train(settings, job)
    except _Refused as refusal:
        return _refused(request, str(refusal), refusal.gates)
    except Exception as error:  # noqa: BLE001  # a trainer is the user's code: its faults must not end the service
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}:{place.lineno}"
        return _refused(request, f"training failed with {type(error).__name__} at {where}: {error}", [], failed=True)


def _train(settings: Settings, job: Job) -> CandidateRegistered:
    use_case = load_use_case(settings.use_cases, job.request.use_case)
    data = _data(settings, use_case, job.request)
    split = split_by_time(data)
    for name, part in zip(Split._fields, split, strict=True):
        if part.labels.all() or not part.labels.any():
            raise _Refused(f"the {len(part.labels)} rows to {name} hold one class only; wait for more labels")
    model = _trainer(settings, use_case)(
        split.fit.rows,
        split.fit.labels,
        split.calibration.rows,
        split.calibration.labels,
        plan=use_case.plan,
        seed=use_case.model.seed,
    )
    calibration = Calibration(model.predict(split.calibration.rows), split.calibration.labels)
    exported = calibration.append_to(model.to_onnx())
    executor = OnnxExecutor(exported, width=len(use_case.plan.order), threads=settings.threads)
    scores = executor.run(split.gates.rows)
    gates = [parity(calibration(model.predict(split.gates.rows)), scores)]
    metrics = metrics_of(on_grid(scores), split.gates.labels, use_case.plan.threshold)
    gates += judge(_gates(use_case), metrics, _champion_metrics(settings, use_case, job.champion, split.gates), scores)
    failed = [gate for gate in gates if not gate.passed]
    if failed:
        raise _Refused("; ".join(f"{gate.name}: {gate.detail}" for gate in failed), gates)
    losses = baselines(on_grid(scores), split.gates.labels, use_case.plan.threshold)
    return _register(settings, use_case, job, exported, executor, data, metrics, gates, losses)


def _data(settings: Settings, use_case: UseCase, request: RetrainRequested) -> DataSet:
    label = use_case.label
    data = load(
        settings.state_dir.expanduser() / "lake" / use_case.name,
        fingerprint=use_case.plan.fingerprint,
        until_ms=request.train_until_ms,
        span_ms=milliseconds(use_case.retrain.window),
        longest_wait_ms=milliseconds(label.matures_after) + milliseconds(label.topic.lateness),
    )
    if len(data.labels) < LEAST_ROWS:
        raise _Refused(f"{len(data.labels)} rows with a final label; at least {LEAST_ROWS} are needed")
    return data


def _trainer(settings: Settings, use_case: UseCase) -> Callable[..., TrainedModel]:
    name = use_case.model.train
    if name == "boosting":
        from tailrace.trainer.boosting import fit as fit_boosting

        return fit_boosting
    if name == "torch":
        import torch

        from tailrace.trainer.torch_tabular import fit as fit_torch

        torch.set_num_threads(settings.threads)
        return fit_torch
    return load_trainer(settings.use_cases, name)


def _gates(use_case: UseCase) -> list[GateSpec]:
    return [
        GateSpec(gate.metric, value=gate.value) if isinstance(gate, AtLeast) else GateSpec(gate.metric, gate.margin)
        for gate in use_case.gates
    ]


def _champion_metrics(
    settings: Settings, use_case: UseCase, champion: Variant | None, gates: DataSet
) -> dict[str, float | None] | None:
    """Metrics of the champion on the gate rows; None where there is none, or it serves another plan."""
    if champion is None:
        return None
    bundle = open_bundle(champion.bundle_uri, champion.digest)
    if bundle.plan.fingerprint != use_case.plan.fingerprint:
        return None
    scores = on_grid(_executor(bundle, settings).run(gates.rows))
    return metrics_of(scores, gates.labels, use_case.plan.threshold)


def _executor(bundle: Bundle, settings: Settings) -> Any:
    width = len(bundle.plan.order)
    if bundle.runtime == "onnx":
        return OnnxExecutor(bundle.model, width=width, threads=settings.threads)
    from tailrace.backends.runtime_torch import TorchExecutor

    return TorchExecutor(bundle.model, width=width, threads=settings.threads)


def _register(
    settings: Settings,
    use_case: UseCase,
    job: Job,
    exported: bytes,
    executor: OnnxExecutor,
    data: DataSet,
    metrics: dict[str, float | None],
    gates: list[GateResult],
    losses: dict[str, Baseline],
) -> CandidateRegistered:
    request, plan = job.request, use_case.plan
    scores: NDArray[np.float64] = on_grid(executor.run(data.rows))
    lineage = job.offsets | {
        "train_from_ms": str(data.times_ms[0]),
        "train_until_ms": str(request.train_until_ms),
        "rows": str(len(data.labels)),
        "positives": str(int(data.labels.sum())),
        "plan": plan.fingerprint,
        "use_case_version": str(use_case.version),
        "trainer": use_case.model.train,
        "seed": str(use_case.model.seed),
        "tailrace": version("tailrace"),
        "trigger": request.trigger,
    }
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        digest = write_bundle(
            bundle,
            model=exported,
            runtime="onnx",
            plan=plan,
            reference=reference_of(plan, data.rows, scores, data.times_ms, losses),
            metrics=metrics,
        )
        known = {name: value for name, value in metrics.items() if value is not None}
        registered = MlflowRegistry(settings).register(
            use_case.name, request.run_id, str(bundle), known, lineage | {DIGEST_TAG: digest}
        )
    return CandidateRegistered(
        run_id=request.run_id,
        use_case=use_case.name,
        model_version=registered.version,
        bundle_uri=registered.bundle_uri,
        digest=registered.digest,
        registered_at_ms=request.requested_at_ms,
        gates=gates,
        metrics=metrics,
        lineage=lineage,
    )


def _refused(
    request: RetrainRequested, reason: str, gates: list[GateResult], *, failed: bool = False
) -> CandidateRefused:
    return CandidateRefused(
        run_id=request.run_id,
        use_case=request.use_case,
        refused_at_ms=request.requested_at_ms,
        reason=reason,
        gates=gates,
        failed=failed,
    )
