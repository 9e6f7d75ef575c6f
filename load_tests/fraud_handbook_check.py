"""Checks a finished replay of the fraud handbook against its answer key, from the topics alone.

    python load_tests/fraud_handbook_check.py --data DIR [--from 2018-05-15] [--until 2018-08-15]

Compares the features as served with the authors' own, but for payments that a customer made in the same
instant, whose order the key leaves open (they are counted apart), and the live metrics of QUALITY with
scikit-learn on the joined predictions and labels. Exits 1 when a figure misses its bound.
"""

from __future__ import annotations

import datetime as dt
import json
import sys
from pathlib import Path
from typing import Annotated, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import typer
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

from tailrace.backends.codec import BatchDecoder
from tailrace.backends.kafka import read_topic
from tailrace.backends.settings import Settings, load_settings
from tailrace.contracts.quality import Quality
from tailrace.contracts.records import LabelledPrediction, Prediction
from tailrace.contracts.topics import Topics
from tailrace.core.metrics import merge
from tailrace.usecase.load import load_use_case

NAMES = {
    "TX_DURING_WEEKEND": "is_weekend",
    "TX_DURING_NIGHT": "is_night",
    **{f"CUSTOMER_ID_NB_TX_{n}DAY_WINDOW": f"customer_id_count_{n}d" for n in (1, 7, 30)},
    **{f"CUSTOMER_ID_AVG_AMOUNT_{n}DAY_WINDOW": f"customer_id_mean_amount_{n}d" for n in (1, 7, 30)},
    **{f"TERMINAL_ID_NB_TX_{n}DAY_WINDOW": f"terminal_id_count_{n}d" for n in (1, 7, 30)},
    **{f"TERMINAL_ID_RISK_{n}DAY_WINDOW": f"terminal_id_mean_label_{n}d" for n in (1, 7, 30)},
}
USE_CASE = "fraud_handbook"

Record = TypeVar("Record")


def main(
    data: Annotated[Path, typer.Option(help="Folder of the data set.")],
    since: Annotated[str, typer.Option("--from", help="First day judged, ISO date.")] = "2018-05-15",
    until: Annotated[str, typer.Option(help="First day no longer judged.")] = "2018-08-15",
) -> None:
    """Prints one JSON object; exit code 1 when a bound is missed."""
    settings = load_settings()
    topics = Topics(USE_CASE)
    plan = load_use_case(settings.use_cases, USE_CASE).plan
    expected = pq.read_table(data / "expected_features.parquet")
    served = {}
    ids, times, scores, versions = [], [], [], []
    for batch in _decoded(settings, topics.predictions, Prediction):
        for record in batch:
            ids.append(int(record.event_id))
            times.append(record.event_time_ms)
            scores.append(record.score)
            versions.append(record.model_version)
            served[ids[-1]] = np.array(record.features, dtype=np.float32)
    report: dict[str, object] = {"predictions": len(ids), "distinct": len(set(ids))}
    expected = expected.filter(pa.array([event_id in served for event_id in expected["event_id"].to_pylist()]))
    wanted = expected["event_id"].to_numpy()
    tied = _tied(data, set(wanted.tolist()))
    report["rows_tied"] = len(tied)
    expected = expected.filter(pa.array([event_id not in tied for event_id in wanted.tolist()]))
    wanted = expected["event_id"].to_numpy()
    report["rows_compared"] = len(wanted)
    served_matrix = np.array([served[int(event_id)] for event_id in wanted])
    report["features"] = {
        theirs: _equal_share(served_matrix[:, plan.order.index(ours)], expected[theirs].to_numpy())
        for theirs, ours in NAMES.items()
    }
    span = [int(dt.datetime.fromisoformat(day).replace(tzinfo=dt.UTC).timestamp() * 1000) for day in (since, until)]
    labels = _final_labels(settings, topics)
    known = [
        (labels[i], s) for i, t, s in zip(ids, times, scores, strict=True) if span[0] <= t < span[1] and i in labels
    ]
    y, p = (np.array(column) for column in zip(*known, strict=True))
    recomputed = {
        "roc_auc": float(roc_auc_score(y, p)),
        "pr_auc": float(average_precision_score(y, p)),
        "log_loss": float(log_loss(y, p)),
    }
    newest: dict[bytes, Quality] = {}
    for message in read_topic(settings, topics.quality):
        if message.key is not None and message.value is None:
            newest.pop(message.key, None)
        elif message.key is not None:
            newest[message.key] = BatchDecoder(Quality).decode([message.value])[0]
    judged = [
        q
        for q in newest.values()
        if q.slice == "" and q.variant in ("champion", "default") and span[0] <= q.window_start_ms < span[1]
    ]
    live = merge(judged)
    report["rows_judged"] = len(known)
    report["quality"] = {name: live[name] for name in recomputed}
    report["recomputed"] = recomputed
    report["versions"] = len(set(versions))
    misses = _misses(report)
    report["misses"] = misses
    print(json.dumps(report, indent=2))  # noqa: T201  # the result of the command
    sys.exit(1 if misses else 0)


def _tied(data: Path, wanted: set[int]) -> set[int]:
    """Events that share customer and instant with another."""
    events = pq.read_table(data / "events.parquet", columns=["event_id", "customer_id", "event_time"])
    places: dict[tuple[int, object], list[int]] = {}
    for event_id, customer, at in zip(*(column.to_pylist() for column in events.columns), strict=True):
        places.setdefault((customer, at), []).append(event_id)
    return {event_id for shared in places.values() if len(shared) > 1 for event_id in shared} & wanted


def _decoded(settings: Settings, topic: str, kind: type[Record]) -> list[list[Record]]:
    decoder = BatchDecoder(kind)
    values = [m.value for m in read_topic(settings, topic) if m.value is not None]
    return [decoder.decode(values[at : at + 10_000]) for at in range(0, len(values), 10_000)]


def _final_labels(settings: Settings, topics: Topics) -> dict[int, float]:
    newest: dict[int, tuple[int, float | None]] = {}
    for batch in _decoded(settings, topics.labels, LabelledPrediction):
        for record in batch:
            if record.variant not in ("champion", "default"):
                continue
            value = record.label if record.status == "final" else None
            event_id = int(record.event_id)
            if event_id not in newest or newest[event_id][0] < record.label_version:
                newest[event_id] = (record.label_version, value)
    return {event_id: value for event_id, (_, value) in newest.items() if value is not None}


def _equal_share(ours: NDArray[np.float32], theirs: NDArray[np.float64]) -> float:
    # Features are logged as float32: equal means equal to that precision.
    return float(np.isclose(ours, theirs.astype(np.float32), rtol=1e-6, atol=1e-6).mean())


def _misses(report: dict[str, object]) -> list[str]:
    features, live, again = report["features"], report["quality"], report["recomputed"]
    assert isinstance(features, dict)
    assert isinstance(live, dict)
    assert isinstance(again, dict)
    found = [
        f"{name}: {share:.6f} of the rows are equal"
        for name, share in features.items()
        if share < (0.99 if name.startswith("TERMINAL") else 1.0)
    ]
    found += [
        f"{name}: QUALITY says {live[name]}, recomputed {again[name]}"
        for name in again
        if abs(live[name] - again[name]) > 1e-6
    ]
    found += [
        f"{name}: {live[name]:.4f} < {least}"
        for name, least in (("roc_auc", 0.90), ("pr_auc", 0.70))
        if live[name] < least
    ]
    if report["predictions"] != report["distinct"]:
        found.append("an event has more than one prediction")
    return found


if __name__ == "__main__":
    typer.run(main)
