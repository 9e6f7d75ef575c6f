"""The lake: predictions as served and their labels as Parquet, partitioned by day of event time.

Files appear by rename, and the offsets behind them are written after. A crash in between writes the
same records again under other names; readers therefore keep one row per prediction and label version.
"""

from __future__ import annotations

import datetime as dt
import os
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from confluent_kafka import KafkaError, TopicPartition

from tailrace.backends.codec import BatchDecoder
from tailrace.backends.kafka import admin, consumer, end_offsets, partitions_of
from tailrace.backends.settings import Settings
from tailrace.contracts.retraining import EraseRequested
from tailrace.contracts.topics import READERS, Topics
from tailrace.errors import BadRecord, BrokerUnavailable
from tailrace.trainer.erasure import erase_files, spared

DAY_MS = 86_400_000
CHUNK = 50_000
"""Records of one topic gathered before files are written."""
IDLE_S = 60.0


class ServedRow(msgspec.Struct, frozen=True, gc=False):
    """The part of a `Prediction` that training needs."""

    prediction_id: str
    event_time_ms: int
    model_version: str
    score: float
    features: list[float | None]
    fingerprint: str
    entities: msgspec.Raw = msgspec.Raw(b"{}")


class LabelRow(msgspec.Struct, frozen=True, gc=False):
    """The part of a `LabelledPrediction` that training needs."""

    prediction_id: str
    event_time_ms: int
    label_version: int
    label: float | None
    status: str
    known_at_ms: int
    variant: str
    outcome_time_ms: int | None = None
    auxiliary: bool = False
    source: str = ""
    entities: msgspec.Raw = msgspec.Raw(b"{}")


class Lake:
    """Copies PREDICTIONS and LABELS into Parquet files.

    Args:
        settings: Broker address and `state_dir`.
        topics: Topics of the use case.

    Attributes:
        erasures: Entities of which nothing is copied, from the beginning of RETRAINING.
    """

    def __init__(self, settings: Settings, topics: Topics) -> None:
        self.erasures: list[EraseRequested] = []
        self._settings = settings
        self._topics = topics
        self.directory = settings.state_dir.expanduser() / "lake" / topics.use_case
        self._kinds: dict[str, type] = {topics.predictions: ServedRow, topics.labels: LabelRow}

    def catch_up(self) -> dict[str, str]:
        """Copies everything up to the present ends of both topics.

        Returns:
            Lineage: end offsets per topic, as text.

        Raises:
            BrokerUnavailable: the broker does not answer.
        """
        client = admin(self._settings)
        known = self._offsets()
        lineage = {}
        for topic, kind in self._kinds.items():
            ends = end_offsets(client, topic)
            start = {number: known.get(f"{topic}-{number}", 0) for number in ends}
            if any(start[number] < end for number, end in ends.items()):
                self._copy(topic, kind, start, ends)
                known |= {f"{topic}-{number}": end for number, end in ends.items()}
                self._write_offsets(known)
            lineage[f"{topic}.offsets"] = ",".join(f"{number}:{ends[number]}" for number in sorted(ends))
        return lineage

    def erase(self, request: EraseRequested) -> int:
        """Takes what there is of an entity out of the files, and copies no more of it; gives how many predictions went.

        O(lake). A second time changes nothing.
        """
        if request not in self.erasures:
            self.erasures.append(request)
        return erase_files(self.directory / "predictions", labels_of(self.directory), [request])

    def _copy(self, topic: str, kind: type, start: dict[int, int], ends: dict[int, int]) -> None:
        reader = consumer(self._settings, READERS, **{"group.protocol": "classic", "group.instance.id": ""})
        waiting = {number for number, end in ends.items() if start[number] < end}
        gathered: list[bytes] = []
        decoder = BatchDecoder(kind)
        try:
            partitions_of(reader, topic)
            reader.assign([TopicPartition(topic, number, start[number]) for number in waiting])
            part = 0
            silent_until = time.monotonic() + IDLE_S
            while waiting:
                # `consume` waits for all it was asked for, so that its time-out is what a short rest costs.
                records = reader.consume(10_000, timeout=0.05)
                if records:
                    silent_until = time.monotonic() + IDLE_S
                elif time.monotonic() > silent_until:
                    raise BrokerUnavailable(f"{topic} gave no record for {IDLE_S:.0f} s before its end; try again")
                for record in records:
                    error = record.error()
                    if error is None:
                        value = record.value()
                        if value is not None and record.offset() < ends[record.partition()]:
                            gathered.append(value)
                        if record.offset() + 1 >= ends[record.partition()]:
                            waiting.discard(record.partition())
                    elif error.code() == KafkaError._PARTITION_EOF:
                        waiting.discard(record.partition())
                if len(gathered) >= CHUNK or not waiting:
                    self.write(kind, decoder.decode(gathered), f"{min(start.values())}-{part}-{os.getpid()}", start)
                    gathered, part = [], part + 1
        finally:
            reader.close()

    def write(self, kind: type, rows: list[Any], name: str, start: dict[int, int]) -> None:
        """Writes decoded rows of one topic, those that could not be read left out.

        Args:
            kind: `ServedRow` or `LabelRow`.
            rows: Rows of that kind, or the `BadRecord` in the place of one.
            name: Of the files, besides where they begin.
            start: Offset by partition behind which the rows begin.
        """
        # Only Tailrace writes these topics. What cannot be read is of no use to training, and is left to the audit.
        good = spared([row for row in rows if not isinstance(row, BadRecord)], self.erasures)
        if kind is LabelRow:
            self._write_days(_labels(good), "labels", name, start)
            return
        # Rows of different plans have different widths, and are never trained on together.
        for plan in sorted({row.fingerprint for row in good}):
            of_plan = [row for row in good if row.fingerprint == plan]
            self._write_days(_predictions(of_plan), f"predictions/plan={plan}", name, start)

    def _write_days(self, table: pa.Table, folder_name: str, name: str, start: dict[int, int]) -> None:
        days = table["event_time_ms"].to_numpy() // DAY_MS
        begun = "_".join(str(start[number]) for number in sorted(start))
        for day in np.unique(days):
            folder = self.directory / folder_name / f"date={_date(int(day))}"
            folder.mkdir(parents=True, exist_ok=True)
            part = folder / f".{begun}-{name}.part"
            pq.write_table(table.filter(pa.array(days == day)), part, compression="lz4")
            part.rename(folder / f"{begun}-{name}.parquet")

    def _offsets(self) -> dict[str, int]:
        path = self.directory / "offsets.json"
        return msgspec.json.decode(path.read_bytes(), type=dict[str, int]) if path.exists() else {}

    def _write_offsets(self, offsets: dict[str, int]) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        part = self.directory / ".offsets.part"
        part.write_bytes(msgspec.json.encode(offsets))
        part.rename(self.directory / "offsets.json")


def predictions_of(lake: Path, fingerprint: str) -> Path:
    """Where a lake keeps the predictions of a plan."""
    return lake / "predictions" / f"plan={fingerprint}"


def labels_of(lake: Path) -> Path:
    """Where a lake keeps the labels."""
    return lake / "labels"


def read_days(root: Path, first_ms: int, last_ms: int) -> pa.Table | None:
    """Rows of the days from `first_ms` to `last_ms`, epoch milliseconds; None when there are none.

    Args:
        root: `predictions_of` or `labels_of` a lake.
        first_ms: First day.
        last_ms: Last day.
    """
    days = range(first_ms // DAY_MS, last_ms // DAY_MS + 1)
    files = [path for day in days for path in sorted((root / f"date={_date(day)}").glob("*.parquet"))]
    # Files of older releases lack columns that came later.
    return pa.concat_tables([pq.read_table(path) for path in files], promote_options="default") if files else None


def newest_day_ms(root: Path) -> int | None:
    """Start of the newest day below `root`, epoch milliseconds; None when there is none."""
    names = sorted(path.name for path in root.glob("date=*"))
    if not names:
        return None
    newest = dt.date.fromisoformat(names[-1].removeprefix("date="))
    return (newest - dt.date(1970, 1, 1)).days * DAY_MS


def _predictions(rows: list[ServedRow]) -> pa.Table:
    matrix = np.array([row.features for row in rows], dtype=np.float32)
    return pa.table(
        {
            "prediction_id": [row.prediction_id for row in rows],
            "event_time_ms": pa.array([row.event_time_ms for row in rows], pa.int64()),
            "model_version": [row.model_version for row in rows],
            "score": pa.array([row.score for row in rows], pa.float64()),
            "entities": pa.array([bytes(row.entities).decode() for row in rows], pa.string()),
            "features": pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), matrix.shape[1]),
        }
    )


def _labels(rows: list[LabelRow]) -> pa.Table:
    kept = [row for row in rows if row.variant != "shadow" and not row.auxiliary]
    return pa.table(
        {
            "prediction_id": pa.array([row.prediction_id for row in kept], pa.string()),
            "event_time_ms": pa.array([row.event_time_ms for row in kept], pa.int64()),
            "label_version": pa.array([row.label_version for row in kept], pa.int64()),
            "label": pa.array([row.label for row in kept], pa.float64()),
            "final": pa.array([row.status == "final" for row in kept], pa.bool_()),
            "censored": pa.array([row.status == "censored" for row in kept], pa.bool_()),
            "known_at_ms": pa.array([row.known_at_ms for row in kept], pa.int64()),
            "outcome_time_ms": pa.array([row.outcome_time_ms for row in kept], pa.int64()),
            "source": pa.array([row.source for row in kept], pa.string()),
        }
    )


def _date(day: int) -> str:
    return (dt.date(1970, 1, 1) + dt.timedelta(days=day)).isoformat()
