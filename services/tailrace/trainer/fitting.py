"""Fitting a candidate; where labels of some sources are not trusted, once without and once with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tailrace.backends.runtime_onnx import OnnxExecutor
from tailrace.backends.settings import Settings
from tailrace.contracts.records import GateResult
from tailrace.core.sampling import DataSet, Split
from tailrace.core.validation import parity
from tailrace.trainer.models import TrainedModel
from tailrace.trainer.tasks import Task
from tailrace.usecase.declaration import UseCase
from tailrace.usecase.load import load_trainer

ALPHA = 0.05
"""Chance that a model which saw labels that are not trusted is taken, though it is no better."""


class Fitted(NamedTuple):
    """A model as it will be served, its scores of the gate rows, float64 (n,), and whether its export says the same."""

    exported: bytes
    executor: OnnxExecutor
    scores: NDArray[np.float64]
    parity: GateResult


def candidate(
    settings: Settings, use_case: UseCase, task: Task, data: DataSet, split: Split
) -> tuple[Fitted, dict[str, str]]:
    """The model to be judged, and what its lineage says of labels that are not trusted.

    Without such labels it is fitted to the rows of the split. With them two are, one without and one with those of the
    same span; the one that saw them is taken where its loss on the gate rows, all of them trusted, is lower with 95 %
    confidence. In doubt the one without is: a poison may well leave these rows alone.

    Args:
        settings: Threads, and where trainers are.
        use_case: The use case.
        task: What is predicted.
        data: All rows.
        split: Its trusted rows, in time order.
    """
    without = _fit(settings, use_case, task, split.fit, split)
    if data.distrusted is None:
        return without, {}
    seen = data.where(data.times_ms < split.calibration.times_ms[0])
    with_them = _fit(settings, use_case, task, seen, split)
    losses = [task.losses(one.scores, split.gates) for one in (without, with_them)]
    gain = losses[0] - losses[1]
    error = float(gain.std(ddof=1)) / len(gain) ** 0.5
    better = float(gain.mean()) - float(stats.t.ppf(1.0 - ALPHA, len(gain) - 1)) * error > 0.0
    return with_them if better else without, {
        "distrusted_rows": str(int(data.distrusted.sum())),
        "distrusted_taken": "with" if better else "without",
        "loss_without": f"{losses[0].mean():.6f}",
        "loss_with": f"{losses[1].mean():.6f}",
    }


def _fit(settings: Settings, use_case: UseCase, task: Task, rows: DataSet, split: Split) -> Fitted:
    held = split.calibration
    fit = _trainer(settings, use_case)
    model = fit(rows.rows, rows.answers, held.rows, held.answers, plan=use_case.plan, seed=use_case.model.seed)
    ending = task.ending(model, held)
    exported = ending.append_to(model.to_onnx())
    executor = OnnxExecutor(exported, width=len(use_case.plan.order), threads=settings.threads)
    scores = executor.run(split.gates.rows)
    return Fitted(exported, executor, scores, parity(ending(model.predict(split.gates.rows)), scores))


def _trainer(settings: Settings, use_case: UseCase) -> Callable[..., TrainedModel]:
    name = use_case.model.train
    if name == "boosting":
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # it ships none

        from tailrace.trainer.boosting import fit as fit_boosting
        from tailrace.trainer.boosting import fit_numbers

        # OpenMP takes a thread for every core and lets them spin: on a busy machine a fit of 1 s then took minutes.
        threadpool_limits(limits=settings.threads, user_api="openmp")
        return fit_numbers if use_case.plan.task == "regression" else fit_boosting
    if name == "torch":
        import torch

        from tailrace.trainer.torch_tabular import fit as fit_torch

        torch.set_num_threads(settings.threads)
        return fit_torch
    return load_trainer(settings.use_cases, name)
