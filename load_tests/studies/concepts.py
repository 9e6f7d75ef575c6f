"""A stream whose concept is known: what happens to machines depends on two readings, each concept in its own way."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

import tailrace as tr

START_MS = 1_736_121_600_000
"""2025-01-06 00:00 UTC."""
DAY_MS = 86_400_000
WEIGHTS = {"A": (2.5, 0.5), "B": (-0.5, 2.5)}
"""Weight of each reading in the log-odds, by concept."""
BIAS = -2.0
MEAN_DELAY_MS = 20 * 60_000


class Reading(tr.Event):
    """What a machine shows; both readings are standard normal."""

    event_id: str
    machine: str
    heat: float
    strain: float
    at_ms: int


class Report(tr.Event):
    """What became of it."""

    event_id: str
    failed: bool
    reported_ms: int


def use_case(retrain: tr.Retrain, *, reports: str = "all", rollout: tr.Shadow | None = None) -> tr.UseCase:
    """Machines that fail.

    Args:
        retrain: The policy.
        reports: "all", where every reading has its outcome, or "failures", where the rest fail by silence.
        rollout: How candidates become champion; None for at once.
    """
    readings = tr.Topic("concepts.readings", Reading, key="machine", event_time="at_ms")
    outcomes = tr.Topic("concepts.reports", Report, key="event_id", event_time="reported_ms")
    closes = "outcome" if reports == "all" else "window"
    return tr.UseCase(
        name="concepts",
        requests=readings,
        prediction_id="event_id",
        features=[tr.Field("heat"), tr.Field("strain")],
        label=tr.Label(
            outcomes, on="event_id", value="failed", matures_after="4h", closes=closes, corrected_within="1d"
        ),
        model=tr.Binary(train="boosting", threshold=0.5, on_failure=tr.Default(0.2)),
        monitor=[
            tr.metrics.LogLoss("1d", drop=0.05),
            tr.metrics.PRAUC("1d"),
            tr.drift.EDetector("accuracy"),
            tr.drift.EDetector("log_loss"),
        ],
        retrain=retrain,
        gates=[tr.NotWorse("log_loss")],
        rollout=rollout or tr.Immediate(),
    )


def tables(
    seed: int, phases: Sequence[tuple[str, float]], per_day: int, *, reports: str = "all"
) -> tuple[pa.Table, pa.Table, NDArray[np.float64], NDArray[np.bool_]]:
    """Readings, reports, and the truth behind them.

    Args:
        seed: Same seed, same stream.
        phases: Concepts in turn, each with its length in days.
        per_day: Readings per day.
        reports: See `use_case`.

    Returns:
        Both tables, sorted in time; float64 (n,), the probabilities that the failures were drawn from; bool (n,),
        the failures.
    """
    rng = np.random.default_rng(seed)
    days = sum(length for _, length in phases)
    n = int(days * per_day)
    at_ms = START_MS + np.sort(rng.integers(0, int(days * DAY_MS), n))
    x = rng.normal(size=(n, 2))
    ends_ms = START_MS + np.cumsum([length for _, length in phases]) * DAY_MS
    weights = np.array([WEIGHTS[concept] for concept, _ in phases])[np.searchsorted(ends_ms, at_ms, side="right")]
    probability = 1.0 / (1.0 + np.exp(-((x * weights).sum(axis=1) + BIAS)))
    failed = rng.random(n) < probability
    ids = np.char.add("e", np.arange(n).astype(str))
    machines = np.char.add("m", rng.integers(0, 200, n).astype(str))
    readings = pa.table({"event_id": ids, "machine": machines, "heat": x[:, 0], "strain": x[:, 1], "at_ms": at_ms})
    reported_ms = at_ms + rng.exponential(MEAN_DELAY_MS, n).astype(np.int64)
    order = np.argsort(reported_ms, kind="stable")
    order = order if reports == "all" else order[failed[order]]
    columns = {"event_id": ids[order], "failed": failed[order], "reported_ms": reported_ms[order]}
    return readings, pa.table(columns), probability, failed
