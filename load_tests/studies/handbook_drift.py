"""Detectors of loss on the fraud handbook's payments, which hardly drift: how often they would ask for a model.

    TAILRACE_DATA=... python -m load_tests.studies.handbook_drift [--seeds 1] [--json]

A model is trained on the thirty days whose outcomes are known ninety days before the last payment, and judged on every
payment since as its outcome becomes known, a week later; at an alarm another is trained on the thirty days known then.
Each metric has a run of its own. The features are those of the handbook's authors. The bar is what the detector grants:
an alarm in 100,000 labels, of which ninety days have 860,000. Whether alarms are more than chance is told by the first
model, kept for all ninety days: its losses in their order against the same ones shuffled, which have no change.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from load_tests.studies.report import Figure, report
from tailrace.core.e_detector import Baseline
from tailrace.core.loss_detectors import baselines, losses, start_loss_detector
from tailrace.core.monitors import EDetector
from tailrace.core.plan import Plan
from tailrace.core.sampling import DataSet, split_by_time
from tailrace.trainer.boosting import fit

DAY_MS = 86_400_000
DAYS, TRAINED, DELAY = 90, 30, 7
WINDOWS = (1, 7, 30)
METRICS = ("accuracy", "log_loss")
THRESHOLD = 0.5
TICK, FEW = 2_000, 500
"""Labels that are judged at a time; `FEW`, where alarms are counted one by one."""
SHUFFLES = 100
PLAN: Plan = None  # type: ignore[assignment]  # trees do not look at it

Times = NDArray[np.int64]
Floats = NDArray[np.float64]


def study(seeds: int) -> list[Figure]:
    """Alarms in ninety days of the worst of some seeds of the training, and of the first model if it is kept."""
    data = payments(Path(os.environ["TAILRACE_DATA"]) / "fraud_handbook")
    figures = []
    for metric in METRICS:
        granted = int((data.times_ms >= _begin(data)).sum()) / EDetector(metric).run_length
        alarms = max(_alarms(data, metric, seed) for seed in range(seeds))
        in_order, shuffled = _kept(data, metric)
        figures += [
            Figure(f"alarms in {DAYS} days, {metric}", alarms, granted),
            Figure(f"alarms in {DAYS} days, {metric}, first model kept", in_order, granted),
            Figure(f"mean of {SHUFFLES} shuffles of its losses", float(shuffled.mean()), granted),
            Figure("share of shuffles with as many alarms", float((shuffled >= in_order).mean()), 0.05, ">="),
        ]
    return figures


def payments(folder: Path) -> DataSet:
    """Features, labels and times of every payment, in the order of time."""
    events = pq.read_table(folder / "events.parquet").to_pydict()
    outcomes = pq.read_table(folder / "outcomes.parquet")
    known = dict(zip(outcomes["event_id"].to_pylist(), outcomes["label"].to_pylist(), strict=True))
    labels = np.array([known[event] for event in events["event_id"]], dtype=np.bool_)
    times = np.array([int(at.timestamp() * 1_000) for at in events["event_time"]], dtype=np.int64)
    customers, terminals = (
        np.unique(np.array(events[name]), return_inverse=True)[1] for name in ("customer_id", "terminal_id")
    )
    amount = np.array(events["amount"], dtype=np.float64)
    day, hour = times // DAY_MS, times // 3_600_000 % 24
    columns: list[NDArray[np.generic]] = [amount, (day + 3) % 7 >= 5, hour <= 6]
    for days in WINDOWS:
        columns += _window(customers, times, amount, 0, days)
        columns += _window(terminals, times, labels.astype(np.float64), DELAY, days)
    return DataSet(np.column_stack(columns).astype(np.float32), labels, times)


def _window(keys: NDArray[np.int64], times: Times, values: Floats, delay: int, days: int) -> list[Floats]:
    """Count and mean of the values of the same key in (t - delay - days, t - delay]; 0 where there are none."""
    span = 200 * DAY_MS
    place = keys * span + (times - times[0]) + 60 * DAY_MS
    order = np.argsort(place, kind="stable")
    sums = np.concatenate([[0.0], np.cumsum(values[order])])
    last = np.searchsorted(place[order], place - delay * DAY_MS, side="right")
    first = np.searchsorted(place[order], place - (delay + days) * DAY_MS, side="right")
    count = (last - first).astype(np.float64)
    return [count, np.where(count, (sums[last] - sums[first]) / np.maximum(count, 1), 0.0)]


def _begin(data: DataSet) -> int:
    return int(data.times_ms[-1]) - DAYS * DAY_MS


def _alarms(data: DataSet, metric: str, seed: int) -> int:
    """Alarms; each has a new model trained on what is known by then."""
    now, alarms = _begin(data), 0
    while now < data.times_ms[-1]:
        values, times, known = _losses(data, metric, now, seed)
        detector = start_loss_detector(EDetector(metric), None, known)
        for at in range(0, len(values), TICK):
            if detector.update(values[at : at + TICK], times[at : at + TICK]) is not None:
                now = int(times[min(at + TICK, len(times)) - 1]) + DELAY * DAY_MS
                break
        else:
            return alarms
        alarms += 1
    return alarms


def _kept(data: DataSet, metric: str) -> tuple[int, NDArray[np.int64]]:
    """Alarms of the first model where it is kept, and of each shuffle of its losses."""
    values, times, known = _losses(data, metric, _begin(data), 0)
    rng = np.random.default_rng(0)

    def count(losses_in_order: Floats) -> int:
        detector = start_loss_detector(EDetector(metric), None, known)
        ticks = range(0, len(times), FEW)
        return sum(detector.update(losses_in_order[at : at + FEW], times[at : at + FEW]) is not None for at in ticks)

    return count(values), np.array([count(rng.permutation(values)) for _ in range(SHUFFLES)])


def _losses(data: DataSet, metric: str, now: int, seed: int) -> tuple[Floats, Times, Baseline]:
    """Losses of a model of what is known at a time on all payments since, their times, and its losses at the gates."""
    trained = slice(*np.searchsorted(data.times_ms, [now - (DELAY + TRAINED) * DAY_MS, now - DELAY * DAY_MS]).tolist())
    split = split_by_time(data.where(trained))
    model = fit(split.fit.rows, split.fit.labels, *split.calibration[:2], plan=PLAN, seed=seed)
    known = baselines(model.predict(split.gates.rows), split.gates.labels, THRESHOLD)[metric]
    served = slice(int(np.searchsorted(data.times_ms, now)), len(data.labels))
    values = losses(metric, model.predict(data.rows[served]), data.labels[served], THRESHOLD)
    return values, data.times_ms[served], known


if __name__ == "__main__":
    report(study)
