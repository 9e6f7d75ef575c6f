"""Whether a former champion should come back: on the newest labels, is it better than the champion, and as good as ever?

Concepts recur (Gama and Kosina 2009, "Tracking recurring concepts with meta-learners"): a model that served an
old concept needs no training when that concept returns, only a proof.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tailrace.contracts.retraining import GateResult
from tailrace.core.loss_detectors import log_losses
from tailrace.core.sampling import DataSet, split_by_time

CHANGES = ("drift", "metric_drop")
"""Triggers that say that the concept has changed."""
ASKED_AT = (*CHANGES, "refit")
"""Triggers at which former champions are looked at: what a change came too early for, more of its labels may tell."""
LEAST_ROWS = 100
LEAST_POSITIVES = 5
"""Rows, and rows of the rarer class, below which the normal law of a mean loss is not to be trusted."""
ALPHA = 0.01
"""Chance that some former champion passes as better than the champion, where none is; and that one which is as good
as ever does not pass as that."""


class Past(NamedTuple):
    """The log loss that a former champion had when it passed its own gates, and on how many rows."""

    log_loss: float
    rows: int


class Recalled(NamedTuple):
    """A former champion that passed, with its gates."""

    name: str
    gates: list[GateResult]


def recall(
    scores: Mapping[str, NDArray[np.float64]],
    past: Mapping[str, Past],
    champion: NDArray[np.float64],
    labels: NDArray[np.bool_],
) -> Recalled | None:
    """The best of the former champions that pass; None where none does.

    Args:
        scores: By former champion, float64 (n,), scores in (0, 1) of the newest rows.
        past: By former champion, how good it was when it passed its own gates.
        champion: float64 (n,), scores of the present champion of the same rows.
        labels: bool (n,).
    """
    rarer = min(int(labels.sum()), int((~labels).sum()))
    if len(labels) < LEAST_ROWS or rarer < LEAST_POSITIVES or not scores:
        return None
    present = log_losses(champion, labels)
    passed: list[tuple[float, str, list[GateResult]]] = []
    for name, of_former in scores.items():
        losses = log_losses(of_former, labels)
        gates = [
            _is_better(losses, present, ALPHA / len(scores)),
            _is_as_good_as_ever(losses, past[name]),
        ]
        if all(gate.passed for gate in gates):
            passed.append((float(losses.mean()), name, gates))
    if not passed:
        return None
    _, name, gates = min(passed, key=lambda entry: entry[:2])
    return Recalled(name, gates)


def newest_of(data: DataSet, since_ms: int | None) -> DataSet:
    """The rows to judge former champions on: the newer half of the present concept's, else those of the gates.

    A change is dated somewhat before or after it happened, so that the older half may hold rows of the old concept.

    Args:
        data: Rows that could be trained on.
        since_ms: Event time with which the present concept began, epoch milliseconds; None where none is known.
    """
    if since_ms is None or not (data.times_ms >= since_ms).any():
        return split_by_time(data).gates
    own = data.since(since_ms)
    return own.newest(max(len(own.labels) // 2, LEAST_ROWS))


def pool(served: Sequence[tuple[str, bool]], size: int) -> list[str]:
    """Former champions worth remembering: those that served when a concept ended, the newest `size`.

    Args:
        served: Of each request in order, the champion of that moment, "" for none, and whether it was asked for
            because the concept had changed.
        size: How many at most.
    """
    newest_first = dict.fromkeys(version for version, changed in reversed(served) if changed and version)
    return list(newest_first)[:size]


def _is_better(losses: NDArray[np.float64], present: NDArray[np.float64], alpha: float) -> GateResult:
    gain = present - losses
    error = float(gain.std(ddof=1)) / len(gain) ** 0.5
    bound = float(gain.mean()) - float(stats.t.ppf(1.0 - alpha, len(gain) - 1)) * error
    return GateResult(
        name="recall_better_than_champion",
        passed=bound > 0.0,
        candidate=float(losses.mean()),
        champion=float(present.mean()),
        detail=f"log loss {losses.mean():.4f} against the champion's {present.mean():.4f} on {len(gain)} newest rows; "
        f"better by at least {bound:.4f} at {1.0 - alpha:.2%} confidence",
    )


def _is_as_good_as_ever(losses: NDArray[np.float64], past: Past) -> GateResult:
    # Both figures are of samples; the spread of the losses then is taken to be that of now.
    error = float(losses.std(ddof=1)) * (1.0 / len(losses) + 1.0 / past.rows) ** 0.5
    bound = float(losses.mean()) - float(stats.t.ppf(1.0 - ALPHA, len(losses) - 1)) * error
    return GateResult(
        name="recall_as_good_as_ever",
        passed=bound <= past.log_loss,
        candidate=float(losses.mean()),
        champion=past.log_loss,
        detail=f"log loss {losses.mean():.4f} on the newest rows, {past.log_loss:.4f} when it passed its own gates; "
        f"worse by at least {max(bound - past.log_loss, 0.0):.4f} at {1.0 - ALPHA:.0%} confidence",
    )
