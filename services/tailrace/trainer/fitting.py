"""Fitting a candidate: to which rows, calibrated on which, and exported as it will be served."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tailrace.backends.runtime_onnx import OnnxExecutor
from tailrace.backends.settings import Settings
from tailrace.contracts.retraining import GateResult
from tailrace.core.negative_sampling import NegativeSampling
from tailrace.core.paired import difference
from tailrace.core.plan import Plan
from tailrace.core.sampling import HELD_ROWS, DataSet, Split
from tailrace.core.validation import parity
from tailrace.trainer.models import Calibration, TrainedModel
from tailrace.trainer.scaling import Scaling
from tailrace.trainer.tasks import Task
from tailrace.usecase.declaration import UseCase
from tailrace.usecase.load import load_trainer

ALPHA = 0.05
"""Chance that a model which saw labels that are not trusted is taken, though it is no better."""
EVEN = 0.5
"""The same of rows nothing speaks against: the lower mean loss decides."""
FOLDS = 4


class Recipe(NamedTuple):
    """How models are fitted.

    `stops_early`: whether fits look at the validation rows, so that these are lost to them. `negatives`: the share of
    the negatives that fits see, as declared.
    """

    fit: Callable[..., TrainedModel]
    stops_early: bool
    plan: Plan
    seed: int
    negatives: float = 1.0


class Choice(NamedTuple):
    """Rows that a model could be fitted to instead: taken where it is better with confidence 1 - `alpha`."""

    name: str
    rows: DataSet
    alpha: float


class Taken(NamedTuple):
    """A model with what stands behind it, and why it was taken.

    `held` are rows that what is said of them was not fitted to, `shares` float64 (n,) what a calibrated model says of
    them. `lineage` has how negatives were sampled, and the loss of each choice and which was taken, where there were any.
    """

    model: TrainedModel
    ending: Calibration | Scaling
    held: DataSet
    shares: NDArray[np.float64]
    lineage: dict[str, str]


class Fitted(NamedTuple):
    """A model as it will be served, its scores of the gate rows, float64 (n,), and whether its export says the same.

    `calibration` and `shares` are the rows it was calibrated on, and what was said of them.
    """

    exported: bytes
    executor: OnnxExecutor
    scores: NDArray[np.float64]
    parity: GateResult
    calibration: DataSet
    shares: NDArray[np.float64]


def candidate(
    settings: Settings, use_case: UseCase, task: Task, data: DataSet, split: Split, window: DataSet | None = None
) -> tuple[Fitted, dict[str, str]]:
    """The model to be judged, and what its lineage says of the rows it could have been fitted to.

    Args:
        settings: Threads, and where trainers are.
        use_case: The use case.
        task: What is predicted.
        data: All rows of the present concept.
        split: Its trusted rows, in time order.
        window: Rows of the concepts before as well, None for none.
    """
    choices = [Choice("concept", data.trusted, EVEN)]
    if window is not None and len(window.labels) > len(data.labels):
        choices.append(Choice("window", window.trusted, EVEN))
    if data.distrusted is not None:
        # In doubt the model without them is taken: a poison may well leave the rows it is judged on alone.
        choices.append(Choice("distrusted", data, ALPHA))
    retrain, seed = use_case.retrain, use_case.model.seed
    recipe = Recipe(*_trainer(settings, use_case), use_case.plan, seed, retrain.negative_sampling_rate)
    taken = take(recipe, task, choices, split)
    exported = taken.ending.append_to(taken.model.to_onnx())
    executor = OnnxExecutor(exported, width=len(use_case.plan.order), threads=settings.threads)
    scores = executor.run(split.gates.rows)
    same = parity(taken.ending(taken.model.predict(split.gates.rows)), scores)
    said = {"distrusted_rows": str(int(data.distrusted.sum()))} if data.distrusted is not None else {}
    return Fitted(exported, executor, scores, same, taken.held, taken.shares), said | taken.lineage


def take(recipe: Recipe, task: Task, choices: list[Choice], split: Split) -> Taken:
    """The best of the models that each choice of rows gives, by rows that none of them was fitted to.

    The gates see neither. Each later choice has to beat the first that was taken, on the same rows, one by one.

    Args:
        recipe: How to fit.
        task: What is predicted.
        choices: The first is the usual one; each holds the trusted rows of the split, and others.
        split: What is held back from all of them.
    """
    best = _fitted(recipe, task, choices[0].rows, split)
    least = task.losses(best.shares, best.held)
    lineage, name = {f"loss_{choices[0].name}": f"{least.mean():.6f}"}, choices[0].name
    for choice in choices[1:]:
        other = _fitted(recipe, task, choice.rows, split)
        losses = task.losses(other.shares, other.held)
        lineage[f"loss_{choice.name}"] = f"{losses.mean():.6f}"
        if difference(least - losses).above(choice.alpha) > 0.0:
            best, least, name = other, losses, choice.name
    if len(choices) == 1:
        return best
    return best._replace(lineage=best.lineage | lineage | {"fitted_to": name})


def _fitted(recipe: Recipe, task: Task, rows: DataSet, split: Split) -> Taken:
    """A model fitted to rows older than the gates' and calibrated on rows that what speaks of them was not fitted to.

    Where many rows are held back, those of the calibration. Few rows would calibrate nothing, and be missed by the fit:
    there the rows are cut into spans, and a model fitted to the rest speaks of each (Stone 1974; calibrated as by Platt
    1999, section 2.1), while the model that serves is fitted to all.
    """
    held = split.calibration
    sampling = NegativeSampling.of(rows.where(rows.times_ms < held.times_ms[0]), recipe.negatives)
    if recipe.stops_early or len(held.labels) >= HELD_ROWS:
        return _held_out(recipe, task, rows, held, sampling)
    known = DataSet.joined(split.fit, held)
    older = rows.where(rows.times_ms < split.gates.times_ms[0])
    shares = np.empty(len(known.labels))
    for span in np.array_split(np.arange(len(known.labels)), FOLDS):
        first_ms, last_ms = known.times_ms[span[0]], known.times_ms[span[-1]]
        rest = sampling.sample(older.where((older.times_ms < first_ms) | (older.times_ms > last_ms)))
        if not len(rest.labels) or task.is_uniform(rest):
            return _held_out(recipe, task, rows, held, sampling)
        left_out = known.where(slice(span[0], span[-1] + 1))
        shares[span] = _model(recipe, rest, sampling.sample(left_out)).predict(left_out.rows)
    ending = task.ending(shares, known, log_r=sampling.log_r)
    model = _model(recipe, sampling.sample(older), sampling.sample(held))
    return Taken(model, ending, known, ending(shares), _said(recipe, sampling, older))


def _held_out(recipe: Recipe, task: Task, rows: DataSet, held: DataSet, sampling: NegativeSampling) -> Taken:
    older = rows.where(rows.times_ms < held.times_ms[0])
    # A trainer that stops early has to look at rows as those it fits to; what is said of the model has not.
    model = _model(recipe, sampling.sample(older), sampling.sample(held))
    said = model.predict(held.rows)
    ending = task.ending(said, held, log_r=sampling.log_r)
    return Taken(model, ending, held, ending(said), _said(recipe, sampling, older))


def _model(recipe: Recipe, rows: DataSet, held: DataSet) -> TrainedModel:
    return recipe.fit(rows.rows, rows.answers, held.rows, held.answers, plan=recipe.plan, seed=recipe.seed)


def _said(recipe: Recipe, sampling: NegativeSampling, rows: DataSet) -> dict[str, str]:
    """How the rows that a model was to be fitted to were sampled; empty where a use case asks for no sampling."""
    if recipe.negatives >= 1.0:
        return {}
    return {
        "negative_sampling_rate": f"{sampling.rate:.6g}",
        "log_r": f"{sampling.log_r:.6f}",
        "negatives_left_out": str(int((sampling.times(rows) == 0).sum())),
    }


def _trainer(settings: Settings, use_case: UseCase) -> tuple[Callable[..., TrainedModel], bool]:
    """The fit, and whether it may look at the validation rows."""
    name = use_case.model.train
    if name == "boosting":
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # it ships none

        from tailrace.trainer.boosting import fit as fit_boosting
        from tailrace.trainer.boosting import fit_numbers

        # OpenMP takes a thread for every core and lets them spin: on a busy machine a fit of 1 s then took minutes.
        threadpool_limits(limits=settings.threads, user_api="openmp")
        return (fit_numbers if use_case.plan.task == "regression" else fit_boosting), False
    if name == "torch":
        import torch

        from tailrace.trainer.torch_tabular import fit as fit_torch

        torch.set_num_threads(settings.threads)
        return fit_torch, True
    return load_trainer(settings.use_cases, name), True
