"""A small use case and its streams, for simulations that end within a second or two."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from tailrace.backends.settings import Settings
from tailrace.usecase.declaration import UseCase
from tailrace.usecase.load import load_use_case

START_MS = 1_736_121_600_000
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
_MODULE = """
import tailrace as tr


class Reading(tr.Event):
    reading_id: str
    pump: str
    site: str
    heat: float
    at_ms: int


class Failure(tr.Event):
    reading_id: str
    failed: bool
    reporter: str
    at_ms: int


class Repair(tr.Event):
    reading_id: str
    repaired: bool
    at_ms: int


readings = tr.Topic("pumps.readings", Reading, key="pump", event_time="at_ms", lateness="2m")
failures = tr.Topic("pumps.failures", Failure, key="reading_id", event_time="at_ms", lateness="2m")
failed = tr.Label(
    failures,
    on="reading_id",
    value="failed",
    matures_after={matures_after},
    closes="outcome",
    source={source},
)
repairs = tr.Topic("pumps.repairs", Repair, key="reading_id", event_time="at_ms", lateness="2m")
repaired = tr.Label(repairs, on="reading_id", value="repaired", matures_after="12h", closes="outcome")
usecase = tr.UseCase(
    name="pumps",
    requests=readings,
    prediction_id="reading_id",
    features=[
        tr.Field("heat"),
        *tr.GroupBy(readings, by="pump", windows=["1h"]).aggregate(tr.Count(), tr.Mean("heat")),
        *tr.GroupBy(failed, by="site", windows=["1h"]).aggregate(tr.Mean("failed")),
    ],
    label=failed,
    auxiliary_labels={auxiliary_labels},
    model=tr.Binary(train="pumps.train:fit", threshold=0.5, on_failure=tr.Default(0.3)),
    monitor=[
        tr.metrics.LogLoss("1d", drop=0.4),
        tr.drift.PSI(every="1d"),
        tr.drift.ADWIN("log_loss"),
    ],
    retrain=tr.Retrain(on=["drift", "metric_drop"], at_most_every="12h", at_least_every={at_least_every}, min_labels=500, window="2d"),
    gates=[tr.NotWorse("log_loss", margin=0.02)],
    rollout=tr.Shadow(hold="6h", max_disagreement=0.9),
)
"""
_TRAINER = """
from onnx import TensorProto, helper, numpy_helper
import numpy as np


class Logistic:
    def __init__(self, weights, bias):
        self.weights, self.bias = weights.astype(np.float32), np.float32(bias)

    def predict(self, rows):
        return 1.0 / (1.0 + np.exp(-(np.nan_to_num(rows) @ self.weights + self.bias))).astype(np.float64)

    def to_onnx(self):
        names = [("w", self.weights.reshape(-1, 1)), ("b", np.array([self.bias])), ("zero", np.float32(0).reshape(1))]
        nodes = [
            helper.make_node("IsNaN", ["rows"], ["missing"]),
            helper.make_node("Where", ["missing", "zero", "rows"], ["filled"]),
            helper.make_node("Gemm", ["filled", "w", "b"], ["logit"]),
            helper.make_node("Sigmoid", ["logit"], ["p"]),
        ]
        graph = helper.make_graph(
            nodes,
            "logistic",
            [helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["n", len(self.weights)])],
            [helper.make_tensor_value_info("p", TensorProto.FLOAT, ["n", 1])],
            [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in names],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def fit(rows, labels, validation_rows, validation_labels, *, plan, seed):
    filled = np.nan_to_num(rows).astype(np.float64)
    mean, spread = filled.mean(axis=0), filled.std(axis=0) + 1e-6
    x = np.column_stack([(filled - mean) / spread, np.ones(len(filled))])
    w = np.zeros(x.shape[1])
    for _ in range(10):  # Newton's method, a little ridge
        p = 1.0 / (1.0 + np.exp(-(x @ w)))
        w -= np.linalg.solve((x * (p * (1 - p))[:, None]).T @ x + np.eye(len(w)), x.T @ (p - labels) + w)
    return Logistic(w[:-1] / spread, w[-1] - (w[:-1] * mean / spread).sum())
"""


def use_case(
    folder: Path,
    *,
    at_least_every: str | None = None,
    matures_after: str = "6h",
    source: str | None = None,
    with_repairs: bool = False,
) -> tuple[UseCase, Settings]:
    """Pumps that fail when they are hot, and settings that find their trainer."""
    (folder / "pumps").mkdir(parents=True)
    declared = _MODULE.format(
        at_least_every=repr(at_least_every),
        matures_after=repr(matures_after),
        source=repr(source),
        auxiliary_labels="[repaired]" if with_repairs else "[]",
    )
    (folder / "pumps" / "usecase.py").write_text(declared)
    (folder / "pumps" / "train.py").write_text(_TRAINER)
    return load_use_case(folder, "pumps"), Settings(use_cases=folder, partitions=2, threads=1)


def tables(*, days: float = 3, per_day: int = 500, seed: int = 1) -> tuple[pa.Table, pa.Table]:
    """Readings, and what became of each an hour or so later."""
    rng = np.random.default_rng(seed)
    n = round(days * per_day)
    at_ms = START_MS + np.sort(rng.integers(0, round(days * DAY_MS), n))
    heat = rng.normal(50.0, 10.0, n)
    pump, site = rng.integers(0, 20, n), rng.integers(0, 4, n)
    failed = rng.random(n) < 1.0 / (1.0 + np.exp(-(heat - 55.0) / 3.0))
    ids = np.array([f"r{at:06d}" for at in range(n)])
    readings = pa.table(
        {
            "reading_id": ids,
            "pump": np.char.add("p", pump.astype(str)),
            "site": np.char.add("s", site.astype(str)),
            "heat": np.round(heat, 3),
            "at_ms": at_ms,
        }
    )
    reported_ms = at_ms + rng.integers(HOUR_MS // 2, 2 * HOUR_MS, n)
    order = np.argsort(reported_ms, kind="stable")
    failures = pa.table(
        {
            "reading_id": ids[order],
            "failed": failed[order],
            "reporter": np.where(site == 0, "night", "day")[order],
            "at_ms": reported_ms[order],
        }
    )
    return readings, failures


def repairs(failures: pa.Table) -> pa.Table:
    """What was repaired, outcomes of the auxiliary label: every third of the pumps that failed, hours later."""
    failed = failures.filter(failures["failed"])
    every_third = failed.take(pa.array(np.arange(0, failed.num_rows, 3)))
    at_ms = every_third["at_ms"].to_numpy() + np.arange(every_third.num_rows) % 8 * HOUR_MS
    return pa.table(
        {"reading_id": every_third["reading_id"], "repaired": np.ones(len(at_ms), np.bool_), "at_ms": at_ms}
    )
