"""Compares a finished replay of Elec2 with the first model left in service for ever, from the topics alone.

    python load_tests/elec2_check.py --data DIR

Exits 1 unless retraining is at least 10 points of accuracy better than the static model. Also quotes the
accuracy of repeating the last label, which no model of this data should be praised without.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow.parquet as pq
import typer

from tailrace.backends.artifacts import open_bundle
from tailrace.backends.codec import BatchDecoder, decode
from tailrace.backends.kafka import read_topic
from tailrace.backends.runtime_onnx import OnnxExecutor
from tailrace.backends.settings import load_settings
from tailrace.contracts.records import Prediction
from tailrace.contracts.retraining import CandidateRegistered, RetrainingRecord
from tailrace.contracts.topics import Topics

USE_CASE = "elec2"
_RETRAINING: Any = RetrainingRecord


def main(
    data: Annotated[Path, typer.Option(help="Folder of the data set.")],
    until: Annotated[str, typer.Option(help="Taken for the drill's sake; what was replayed is what is judged.")] = "",
) -> None:
    """Prints one JSON object."""
    settings, topics = load_settings(), Topics(USE_CASE)
    outcomes = pq.read_table(data / "outcomes.parquet")
    truth = dict(zip(outcomes["event_id"].to_pylist(), outcomes["label"].to_pylist(), strict=True))
    decoder = BatchDecoder(Prediction)
    values = [message.value for message in read_topic(settings, topics.predictions) if message.value is not None]
    served = sorted(decoder.decode(values), key=lambda record: record.event_time_ms)
    candidates = [
        record
        for message in read_topic(settings, topics.retraining)
        if message.value is not None and isinstance(record := decode(_RETRAINING, message.value), CandidateRegistered)
    ]
    judged = [record for record in served if record.model_version != "0"]
    labels = np.array([truth[int(record.event_id)] for record in judged], dtype=bool)
    decisions = np.array([record.decision for record in judged])
    first = open_bundle(candidates[0].bundle_uri, candidates[0].digest)
    model = OnnxExecutor(first.model, width=len(first.plan.order))
    rows = np.array([record.features for record in judged], dtype=np.float32)
    static = model.run(rows) >= first.plan.threshold
    report = {
        "predictions": len(served),
        "judged": len(judged),
        "models": len(candidates),
        "retrained_accuracy": float((decisions == labels).mean()),
        "static_accuracy": float((static == labels).mean()),
        "last_label_accuracy": float((labels[1:] == labels[:-1]).mean()),
    }
    print(json.dumps(report, indent=2))  # noqa: T201  # the result of the command
    sys.exit(0 if report["retrained_accuracy"] - report["static_accuracy"] >= 0.10 else 1)


if __name__ == "__main__":
    typer.run(main)
