"""A training from lake to registry: what a sampling of negatives changes of a candidate's record, and what it must not."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tailrace.backends.artifacts import open_bundle
from tailrace.backends.memory import MemoryRegistry
from tailrace.contracts.retraining import CandidateRegistered, RetrainRequested
from tailrace.core import negative_sampling
from tailrace.trainer.job import Job, run_job
from tailrace.trainer.lake import LabelRow, ServedRow, _date, _labels, _predictions, labels_of, predictions_of

sys.path.insert(0, str(Path(__file__).parents[1] / "testing"))
from loops import DAY_MS, START_MS, use_case

ROWS = 12_000


def lake(root: Path, fingerprint: str) -> None:
    """Two days of which every label is final, one in ten positive."""
    rng = np.random.default_rng(1)
    features = rng.normal(size=(ROWS, 4)).astype(np.float32)
    positive = rng.random(ROWS) < 1.0 / (1.0 + np.exp(2.6 - 1.2 * features[:, 0]))
    times = START_MS + np.arange(ROWS) * (2 * DAY_MS // ROWS)
    served = [ServedRow(f"p{at}", int(times[at]), "1", 0.1, features[at].tolist(), fingerprint) for at in range(ROWS)]
    labels = [
        LabelRow(f"p{at}", int(times[at]), 1, float(positive[at]), "final", int(times[at]) + 1_000, "champion")
        for at in range(ROWS)
    ]
    written = ((predictions_of(root, fingerprint), _predictions(served)), (labels_of(root), _labels(labels)))
    for folder, table in written:
        days = np.asarray(table["event_time_ms"].to_numpy()) // DAY_MS
        for day in np.unique(days).tolist():
            place = folder / f"date={_date(day)}"
            place.mkdir(parents=True)
            pq.write_table(table.filter(pa.array(days == day)), place / "0.parquet")


def test_metrics_rows_and_the_reference_of_drift_are_of_all_rows_whatever_is_fitted_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(negative_sampling, "LEAST_NEGATIVES", 1_000)
    declared, settings = use_case(tmp_path / "repo")
    settings = settings.model_copy(update={"state_dir": tmp_path})
    lake(tmp_path / "lake" / declared.name, declared.plan.fingerprint)
    until_ms = START_MS + 4 * DAY_MS
    request = RetrainRequested(
        run_id="r",
        use_case=declared.name,
        trigger="manual",
        reason="",
        requested_at_ms=until_ms,
        train_until_ms=until_ms,
    )
    found = []
    for rate in (1.0, 0.2):
        declared.retrain = dataclasses.replace(declared.retrain, negative_sampling_rate=rate)
        registry = MemoryRegistry(tmp_path / f"registry-{rate}")
        answer = run_job(
            settings, Job(request=request, champion=None, offsets={}), use_case=declared, registry=registry
        )
        assert isinstance(answer, CandidateRegistered), answer
        found.append((answer, open_bundle(answer.bundle_uri, answer.digest).reference))
    (full, whole), (sampled, reference) = found
    own = {"negative_sampling_rate", "log_r", "negatives_left_out"}
    assert own == sampled.lineage.keys() - full.lineage.keys()
    for name in ("rows", "positives", "gate_rows"):
        assert full.lineage[name] == sampled.lineage[name]
    assert whole["rows"] == reference["rows"] == ROWS
    for column in whole["features"]:
        for part in ("edges", "counts", "nulls"):
            assert whole["features"][column][part] == reference["features"][column][part]
    assert full.metrics["base_rate"] == sampled.metrics["base_rate"]
    assert sampled.metrics["calibration"] == pytest.approx(full.metrics["calibration"], rel=0.02)
    assert sampled.metrics["roc_auc"] == pytest.approx(full.metrics["roc_auc"], abs=0.005)
