"""Gates: what a candidate must show, on rows nobody was fitted to, before it is registered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tailrace.contracts.retraining import GateResult
from tailrace.core.monitors import SMALLER_IS_BETTER
from tailrace.core.paired import LEAST_ROWS, difference

BASE_RATE_BOUNDS = (0.5, 2.0)
"""Mean prediction over base rate on the gate rows, which nothing was fitted to. Base rates move between one week and
the next (on Elec2 by more than a quarter in one of ten), so that closer bounds would refuse the honest."""
CALIBRATED_BOUNDS = (0.95, 1.05)
"""Mean prediction over observed rate on the rows it was calibrated on, where nothing has moved. Outside, the labels or
their weights do not mean what the candidate says."""
MAX_PARITY_GAP = 1e-4
ALPHA = 0.05
"""Chance that a gate refuses a candidate that is just within its bounds."""


class GateSpec(NamedTuple):
    """One declared gate: no worse than the champion by `margin`, or, where `value` is set, at least that good."""

    metric: str
    margin: float = 0.0
    value: float | None = None


Figures = Mapping[str, float | None]


def judge(
    gates: list[GateSpec],
    candidate: Figures,
    champion: Figures | None,
    scores: NDArray[np.float64],
    *,
    answers: NDArray[np.float64] | None = None,
    worse: Mapping[str, NDArray[np.float64]] | None = None,
) -> list[GateResult]:
    """Judges a candidate.

    Few rows, and such as come in runs, tell little: where a figure is a mean over rows, a candidate is refused for what
    is out of bounds with confidence 1 - `ALPHA`, and not for what chance makes of equals in every second case.

    Args:
        gates: The use case's gates.
        candidate: Metrics of the candidate on the gate rows.
        champion: Metrics of the champion on the same rows; None: there is no champion for this plan.
        scores: float64 (n,), scores of the candidate on them, in time order.
        answers: float64 (n,), labels or targets; None: the ratio of means alone is judged.
        worse: By metric that is a mean over rows, float64 (n,), the candidate's losses less the champion's.
    """
    results = [_sane(scores)]
    if "calibration" in candidate:
        results.append(_calibrated(candidate, scores, answers))
    for gate in gates:
        if gate.value is not None:
            results.append(_at_least(gate, candidate))
        else:
            results.append(_not_worse(gate, candidate, champion, (worse or {}).get(gate.metric, np.empty(0))))
    return results


def parity(ours: NDArray[np.float64], exported: NDArray[np.float64]) -> GateResult:
    """Whether the exported model gives the scores of the trained one."""
    gap = float(np.max(np.abs(ours - exported))) if len(ours) else 0.0
    return GateResult(
        name="export_parity",
        passed=gap <= MAX_PARITY_GAP,
        candidate=gap,
        champion=None,
        detail=f"largest difference of a score between trained and exported model {gap:.2e}, allowed {MAX_PARITY_GAP:.0e}",
    )


def calibrated(scores: NDArray[np.float64], answers: NDArray[np.bool_] | NDArray[np.float64]) -> GateResult:
    """Whether a candidate predicts as many positive labels as there are, or are estimated to come.

    Args:
        scores: float64 (n,), of the exported model on the rows it was calibrated on.
        answers: (n,), their labels or targets.
    """
    rate = float(answers.mean()) if len(answers) else 0.0
    ratio = float(scores.mean()) / rate if rate > 0.0 else None
    low, high = CALIBRATED_BOUNDS
    shown = "unknown" if ratio is None else f"{ratio:.3f}"
    return GateResult(
        name="calibrated",
        passed=ratio is not None and low <= ratio <= high,
        candidate=ratio,
        champion=None,
        detail=f"mean prediction over observed rate {shown} on the rows of its calibration, allowed {low} to {high}",
    )


def _sane(scores: NDArray[np.float64]) -> GateResult:
    finite = bool(np.all(np.isfinite(scores)))
    spread = float(np.ptp(scores)) if finite and len(scores) else 0.0
    return GateResult(
        name="sane_scores",
        passed=finite and spread > 0.0,
        candidate=spread,
        champion=None,
        detail="scores are finite and differ" if finite and spread > 0.0 else "scores are not finite, or all the same",
    )


def _calibrated(candidate: Figures, scores: NDArray[np.float64], answers: NDArray[np.float64] | None) -> GateResult:
    ratio = candidate.get("calibration")
    low, high = BASE_RATE_BOUNDS
    passed = ratio is not None and low <= ratio <= high
    if ratio is not None and not passed and answers is not None:
        beyond = low * answers - scores if ratio < low else scores - high * answers
        passed = len(beyond) >= LEAST_ROWS and difference(beyond).above(ALPHA) <= 0.0
    shown = "unknown" if ratio is None else f"{ratio:.3f}"
    return GateResult(
        name="base_rate",
        passed=passed,
        candidate=ratio,
        champion=None,
        detail=f"mean prediction over base rate {shown}, allowed {low} to {high}, or what chance may make of them",
    )


def _at_least(gate: GateSpec, candidate: Figures) -> GateResult:
    value, bound = candidate.get(gate.metric), gate.value
    smaller = gate.metric in SMALLER_IS_BETTER
    passed = value is not None and bound is not None and (value <= bound if smaller else value >= bound)
    word = "at most" if smaller else "at least"
    return GateResult(
        name=f"{gate.metric}_{word.replace(' ', '_')}",
        passed=passed,
        candidate=value,
        champion=None,
        detail=f"{gate.metric} {_figure(value)}, {word} {_figure(bound)} asked for",
    )


def _not_worse(
    gate: GateSpec, candidate: Figures, champion: Figures | None, differences: NDArray[np.float64]
) -> GateResult:
    value = candidate.get(gate.metric)
    held = champion.get(gate.metric) if champion is not None else None
    name = f"{gate.metric}_not_worse"
    if held is None:
        return GateResult(name=name, passed=True, candidate=value, champion=None, detail="no champion to compare with")
    if value is None:
        return GateResult(
            name=name, passed=False, candidate=None, champion=held, detail=f"no {gate.metric} on these rows"
        )
    worse = value - held if gate.metric in SMALLER_IS_BETTER else held - value
    detail = f"{gate.metric} {value:.4f} against the champion's {held:.4f} on the same rows, margin {gate.margin:g}"
    if len(differences) >= LEAST_ROWS:
        found = difference(differences)
        worse = found.above(ALPHA)
        detail += (
            f"; worse by at least {worse:.4f} at {1.0 - ALPHA:.0%} confidence, {found.effective:.0f} effective rows"
        )
    return GateResult(name=name, passed=worse <= gate.margin, candidate=value, champion=held, detail=detail)


def _figure(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f}"
