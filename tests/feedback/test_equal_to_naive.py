"""Feedback on columns puts out the bytes that feedback record by record puts out, killed or not."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from disordered import WALL_MS, batches, use_case
from naive_feedback import NaiveFeedback, Record

from tailrace.backends.codec import decode, encode
from tailrace.backends.ports import Assigned, Output
from tailrace.backends.telemetry import Metrics
from tailrace.contracts.quality import Drift, Quality
from tailrace.contracts.records import LabelledPrediction
from tailrace.contracts.topics import Topics
from tailrace.core import drift_findings, vector_sample
from tailrace.core.monitor_state import Champion
from tailrace.feedback.label_writer import LabelRecord
from tailrace.feedback.processor import FeedbackProcessor

REFERENCE = {
    "features": {"amount": {"edges": [-1.0, 0.0, 1.0], "counts": [10, 40, 40, 10], "nulls": 3}},
    "score": {"edges": [0.1, 0.3], "counts": [30, 30, 40], "nulls": 0},
}
CHAMPION = Champion("1", {"log_loss": 0.3, "roc_auc": 0.6}, REFERENCE)
TOPICS = Topics("disordered")


class Worker:
    """Feedback in memory; its changelog is what it restarts from."""

    def __init__(self, folder: Path, closes: str, if_absent: bool | None) -> None:
        self.use_case = use_case(folder, closes=closes, if_absent=if_absent)
        self.outputs: list[Output] = []
        self.restart()

    def restart(self) -> None:
        first = [(1, CHAMPION)]
        self.processor = FeedbackProcessor(
            self.use_case, self._changelog, lambda: first.pop() if first else None, Metrics("disordered")
        )
        names = (TOPICS.predictions, TOPICS.shadow, self.use_case.label.topic.name)
        self.processor.assigned([Assigned(name, at, -1, "") for name in names for at in range(2)])

    def _changelog(self) -> list[tuple[bytes, bytes | None]]:
        return [(o.key or b"", o.value) for o in self.outputs if o.topic == TOPICS.feedback_changelog]

    def said(self) -> list[Record]:
        said = [(o.topic, o.key, o.value) for o in self.outputs if o.topic != TOPICS.feedback_changelog]
        return [
            (topic, key, _counted(value) if topic == TOPICS.quality and value is not None else value)
            for topic, key, value in said
        ]


def _counted(value: bytes) -> bytes:
    """A window's record without what `tests/core/test_readings.py` and `test_fading.py` compare with twins of their own."""
    record = decode(Quality, value)
    return encode(msgspec.structs.replace(record, intervals={}, provisional=None, estimate=None, fading={}))


def digests(records: Iterable[Record]) -> dict[str, str]:
    """SHA-256 by topic of keys and values in order."""
    found: dict[str, str] = {}
    for topic, key, value in records:
        found[topic] = hashlib.sha256(b"%s|%r|%r" % (found.get(topic, "").encode(), key, value)).hexdigest()
    return found


@pytest.mark.parametrize(("closes", "if_absent"), [("window", False), ("outcome", False), ("window", None)])
@pytest.mark.parametrize("seed", range(3))
def test_every_record_is_the_one_that_the_naive_feedback_puts_out(
    tmp_path: Path, seed: int, closes: str, if_absent: bool | None
) -> None:
    worker = Worker(tmp_path, closes, if_absent)
    naive = NaiveFeedback(worker.use_case, CHAMPION)
    expected: list[Record] = []
    for at, batch in enumerate(batches(worker.use_case, seed)):
        expected += naive.process(batch, WALL_MS + at)
        worker.outputs += worker.processor.process(batch, WALL_MS + at)
    assert {TOPICS.labels, TOPICS.quality, TOPICS.drift, TOPICS.dead_letters} <= set(digests(expected))
    assert if_absent is None or TOPICS.alarms in digests(expected)
    assert digests(expected) == digests(worker.said())


def test_drift_is_judged_by_the_same_sample_as_record_by_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector_sample, "ENOUGH", 60)
    monkeypatch.setattr(drift_findings, "MIN_ROWS", 20)
    worker = Worker(tmp_path, "window", False)
    naive = NaiveFeedback(worker.use_case, CHAMPION)
    expected: list[Record] = []
    for at, batch in enumerate(batches(worker.use_case, 0)):
        expected += naive.process(batch, WALL_MS + at)
        worker.outputs += worker.processor.process(batch, WALL_MS + at)
    rows = [decode(Drift, value or b"").rows for topic, _, value in worker.said() if topic == TOPICS.drift]
    assert max(rows) > 3 * min(rows)
    assert digests(expected) == digests(worker.said())


@pytest.mark.parametrize("seed", range(3))
def test_worker_killed_between_any_two_batches_labels_as_if_nothing_had_happened(tmp_path: Path, seed: int) -> None:
    calm, killed = Worker(tmp_path / "calm", "window", False), Worker(tmp_path / "killed", "window", False)
    rng = np.random.default_rng(seed)
    for at, batch in enumerate(batches(calm.use_case, seed)):
        for worker in (calm, killed):
            worker.outputs += worker.processor.process(batch, WALL_MS + at)
        if rng.random() < 0.3:
            killed.restart()
    labels = [sorted((r for r in world.said() if r[0] == TOPICS.labels), key=str) for world in (calm, killed)]
    assert labels[0] == labels[1]


def test_changelog_of_a_batch_does_not_grow_with_what_waits_and_is_deleted_once_all_is_forgotten(
    tmp_path: Path,
) -> None:
    worker = Worker(tmp_path, "window", False)
    written = []
    for at, batch in enumerate(batches(worker.use_case, 1)):
        outputs = worker.processor.process(batch, WALL_MS + at)
        worker.outputs += outputs
        log = [o for o in outputs if o.topic == TOPICS.feedback_changelog and (o.key or b"").startswith(b"batch:")]
        written.append((len(batch), sum(len(o.value or b"") for o in log)))
    assert all(size <= 2_000 + 4_000 * records for records, size in written)
    newest = {o.key: o.value for o in worker.outputs if o.topic == TOPICS.feedback_changelog}
    assert [] == [key for key, value in newest.items() if value and (key or b"").startswith((b"batch:", b"held:"))]


def test_record_of_a_label_has_the_fields_of_the_contract_in_their_order() -> None:
    assert LabelledPrediction.__struct_fields__ == LabelRecord.__struct_fields__
