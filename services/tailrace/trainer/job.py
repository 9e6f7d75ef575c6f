"""One training, from data set to registered candidate or refusal. Runs in a process of its own."""

from __future__ import annotations

import tempfile
import time
import traceback
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from tailrace.backends.artifacts import Bundle, open_bundle, write_bundle
from tailrace.backends.ports import DIGEST_TAG, Registry
from tailrace.backends.runtime_onnx import OnnxExecutor
from tailrace.backends.settings import Settings
from tailrace.contracts.records import Variant
from tailrace.contracts.retraining import CandidateRefused, CandidateRegistered, GateResult, RetrainRequested
from tailrace.core.e_detector import Baseline
from tailrace.core.recall import ASKED_AT, Past, newest_of, recall
from tailrace.core.sampling import DataSet, Split, split_by_time
from tailrace.core.validation import GateSpec, judge
from tailrace.errors import ImmatureLabels, TailraceError
from tailrace.trainer.dataset import Window, load
from tailrace.trainer.fitting import candidate
from tailrace.trainer.reference import reference_of
from tailrace.trainer.tasks import Task, task_of
from tailrace.usecase.declaration import UseCase
from tailrace.usecase.load import load_use_case
from tailrace.usecase.policies import AtLeast

LEAST_ROWS = 200


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a training needs to know; plain data, so that it can cross into another process."""

    request: RetrainRequested
    champion: Variant | None
    offsets: dict[str, str]
    former: list[CandidateRegistered] = []


class _Refused(TailraceError):
    """The candidate is refused; `gates` holds what was judged by then."""

    def __init__(self, reason: str, gates: list[GateResult] | None = None) -> None:
        self.gates = gates or []
        super().__init__(reason)


def run_job(
    settings: Settings, job: Job, *, use_case: UseCase | None = None, registry: Registry | None = None
) -> CandidateRegistered | CandidateRefused:
    """Trains, proves and registers; whatever goes wrong becomes a refusal that says so.

    Args:
        settings: Where the lake, the use cases and the registry are.
        job: What is asked for.
        use_case: The declaration; None: that of the settings' folder.
        registry: Where a candidate is registered; None: MLflow of the settings.
    """
    request = job.request
    began = time.monotonic()
    answer: CandidateRegistered | CandidateRefused
    try:
        answer = _candidate(settings, job, use_case or load_use_case(settings.use_cases, request.use_case), registry)
    except _Refused as refusal:
        answer = _refused(request, str(refusal), refusal.gates)
    except Exception as error:  # noqa: BLE001  # a trainer is the user's code: its faults must not end the service
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}:{place.lineno}"
        answer = _refused(request, f"training failed with {type(error).__name__} at {where}: {error}", [], failed=True)
    return msgspec.structs.replace(answer, seconds=round(time.monotonic() - began, 3))


def _candidate(settings: Settings, job: Job, use_case: UseCase, registry: Registry | None) -> CandidateRegistered:
    data = _data(settings, use_case, job.request, weighted=use_case.retrain.immature == "weight")
    recalled = _recall(settings, use_case, job, data)
    return recalled or _train(settings, use_case, job, data, registry)


def _recall(settings: Settings, use_case: UseCase, job: Job, data: DataSet) -> CandidateRegistered | None:
    """A former champion that is as good as ever and better than the champion on the newest rows; None for none."""
    former = {record.model_version: record for record in job.former if "gate_rows" in record.lineage}
    if job.champion is None or not former or job.request.trigger not in ASKED_AT:
        return None
    if use_case.plan.task == "regression":
        # Former champions are compared by log losses.
        return None
    if data.targets is not None:
        # Losses one by one are compared, and a label that is still to come has none yet.
        data = _data(settings, use_case, job.request, weighted=False)
    newest = newest_of(data.trusted, job.request.train_from_ms)
    scores = {version: _scores_of(settings, use_case, it, newest.rows) for version, it in former.items()}
    champion = _scores_of(settings, use_case, job.champion, newest.rows)
    if champion is None:
        return None
    known = {version: found for version, found in scores.items() if found is not None}
    past = {v: Past(former[v].metrics.get("log_loss") or 0.0, int(former[v].lineage["gate_rows"])) for v in known}
    recalled = recall(known, past, champion, newest.labels)
    if recalled is None:
        return None
    record, request = former[recalled.name], job.request
    return msgspec.structs.replace(
        record,
        run_id=request.run_id,
        registered_at_ms=request.requested_at_ms,
        gates=recalled.gates,
        lineage=record.lineage | {"recalled_by": request.run_id},
        recalled=True,
    )


def _of_concept(data: DataSet, request: RetrainRequested, task: Task) -> DataSet:
    """Rows of the present concept, where there are enough to train on; else all."""
    if request.train_from_ms is None:
        return data
    own = data.since(request.train_from_ms)
    trusted = own.trusted
    return own if len(trusted.labels) >= LEAST_ROWS and not task.is_uniform(trusted) else data


def _train(
    settings: Settings, use_case: UseCase, job: Job, window: DataSet, registry: Registry | None
) -> CandidateRegistered:
    task = task_of(use_case.plan)
    data = _of_concept(window, job.request, task)
    split = split_by_time(data.trusted)
    for name, part in zip(Split._fields, split, strict=True):
        if task.is_uniform(part):
            raise _Refused(f"the {len(part.labels)} rows to {name} have one label only; wait for more labels")
    fitted, chosen = candidate(settings, use_case, task, data, split, window)
    said = task.published(fitted.scores)
    metrics = task.metrics(said, split.gates)
    gates = [fitted.parity, task.proof(fitted.shares, split._replace(calibration=fitted.calibration), metrics)]
    gates += _judged(settings, use_case, job.champion, split.gates, said, metrics)
    failed = [gate for gate in gates if not gate.passed]
    if failed:
        raise _Refused("; ".join(f"{gate.name}: {gate.detail}" for gate in failed), gates)
    losses = task.baselines(said, split.gates)
    own, rows = registry or _mlflow(settings), len(split.gates.labels)
    job = msgspec.structs.replace(job, offsets=job.offsets | chosen)
    return _register(own, use_case, job, fitted.exported, fitted.executor, data, metrics, gates, rows, losses)


def _data(settings: Settings, use_case: UseCase, request: RetrainRequested, *, weighted: bool) -> DataSet:
    lost = [(span.since_ms, span.until_ms) for span in request.lost]
    window = Window.of(use_case, request.train_until_ms, weighted=weighted, lost=lost)
    folder = settings.state_dir.expanduser() / "lake" / use_case.name
    try:
        data = load(folder, fingerprint=use_case.plan.fingerprint, window=window, quarantined=request.quarantined)
    except ImmatureLabels as error:
        raise _Refused(str(error)) from error
    rows = len(data.trusted.labels)
    if rows < LEAST_ROWS:
        raise _Refused(f"{rows} rows with a final label that is trusted; at least {LEAST_ROWS} are needed")
    return data


def _gates(use_case: UseCase) -> list[GateSpec]:
    return [
        GateSpec(gate.metric, value=gate.value) if isinstance(gate, AtLeast) else GateSpec(gate.metric, gate.margin)
        for gate in use_case.gates
    ]


def _judged(
    settings: Settings,
    use_case: UseCase,
    champion: Variant | None,
    rows: DataSet,
    said: NDArray[np.float64],
    metrics: dict[str, float | None],
) -> list[GateResult]:
    """The declared gates; the champion is asked about the same rows, unless there is none, or it serves another plan."""
    task = task_of(use_case.plan)
    held = _scores_of(settings, use_case, champion, rows.rows) if champion is not None else None
    champions, worse = None, {}
    if held is not None:
        champions = task.metrics(held, rows)
        for gate in use_case.gates:
            worse[gate.metric] = task.losses_by(gate.metric, said, rows) - task.losses_by(gate.metric, held, rows)
    answers = rows.answers.astype(np.float64)
    return judge(_gates(use_case), metrics, champions, said, answers=answers, worse=worse)


def _scores_of(
    settings: Settings, use_case: UseCase, model: Variant | CandidateRegistered, rows: NDArray[np.float32]
) -> NDArray[np.float64] | None:
    """What a registered model says of rows; None where it was trained for another plan."""
    bundle = open_bundle(model.bundle_uri, model.digest)
    if bundle.plan.fingerprint != use_case.plan.fingerprint:
        return None
    return task_of(bundle.plan).published(_executor(bundle, settings).run(rows))


def _executor(bundle: Bundle, settings: Settings) -> Any:
    width = len(bundle.plan.order)
    if bundle.runtime == "onnx":
        return OnnxExecutor(bundle.model, width=width, threads=settings.threads)
    from tailrace.backends.runtime_torch import TorchExecutor

    return TorchExecutor(bundle.model, width=width, threads=settings.threads)


def _mlflow(settings: Settings) -> Registry:
    # Slow to import, and of no use where another registry is given.
    from tailrace.backends.registry import MlflowRegistry

    return MlflowRegistry(settings)


def _register(
    registry: Registry,
    use_case: UseCase,
    job: Job,
    exported: bytes,
    executor: OnnxExecutor,
    data: DataSet,
    metrics: dict[str, float | None],
    gates: list[GateResult],
    gate_rows: int,
    losses: dict[str, Baseline],
) -> CandidateRegistered:
    request, plan = job.request, use_case.plan
    scores = task_of(plan).published(executor.run(data.rows))
    lineage = job.offsets | {
        "train_from_ms": str(data.times_ms[0]),
        "train_until_ms": str(request.train_until_ms),
        "rows": str(len(data.labels)),
        "positives": str(int(data.labels.sum())),
        "gate_rows": str(gate_rows),
        "immature": use_case.retrain.immature,
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
        registered = registry.register(
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
