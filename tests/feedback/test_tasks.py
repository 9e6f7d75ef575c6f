"""Workers that share the tasks of a use case label what one worker labels, whoever owns which, and whoever is killed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from zlib import crc32

import msgspec
import numpy as np
import pytest
from declared import prediction
from disordered import START_MS, WALL_MS, batches, use_case
from naive_feedback import NaiveFeedback
from test_merged import CHAMPION

from tailrace.backends.codec import encode
from tailrace.backends.ports import Assigned, Message, Output
from tailrace.backends.telemetry import Metrics
from tailrace.contracts.records import LabelledPrediction
from tailrace.contracts.topics import Topics
from tailrace.core.watermarks import IDLE_AFTER_MS
from tailrace.errors import Retryable, StateCorrupt
from tailrace.feedback.observations import Header
from tailrace.feedback.task_processor import TaskProcessor
from tailrace.usecase.declaration import UseCase

TASKS = 6
TOPICS = Topics("disordered")


class _Event(msgspec.Struct):
    event_id: str = ""
    payment_id: object = ""


class Cluster:
    """Workers over one log: what they put out counts once the offsets behind it are committed."""

    def __init__(self, declared: UseCase) -> None:
        self.declared = declared
        self.names = (TOPICS.predictions, TOPICS.shadow, declared.label.topic.name)
        self.log: list[tuple[int, Output]] = []
        self.metadata: dict[tuple[str, int], str] = {}
        self.workers: list[tuple[TaskProcessor, list[int]]] = []

    def share(self, workers: int) -> None:
        """Hands the tasks to so many new workers; those of before are gone, as after a kill."""
        parts = [part.tolist() for part in np.array_split(np.arange(TASKS), workers)]
        self.workers = [
            (TaskProcessor(self.declared, self.changelog, Metrics("disordered")), part) for part in parts if part
        ]
        for worker, part in self.workers:
            worker.assigned(self.partitions(part))

    def hand_over(self, task: int, of: int, to: int) -> None:
        """A rebalance: a task goes from one worker to another, after a commit."""
        self.workers[of][0].revoked([(name, task) for name in self.names])
        self.workers[of][1].remove(task)
        self.workers[to][0].assigned(self.partitions([task]))
        self.workers[to][1].append(task)

    def step(self, at: int, by_task: dict[int, list[Message]], *, killed: bool = False) -> None:
        """Every worker processes what there is of its tasks; where it is killed, nothing of it is committed."""
        for worker, part in self.workers:
            outputs = worker.process([message for task in part for message in by_task.get(task, [])], WALL_MS + at)
            if killed:
                continue
            self.log += [(at, output) for output in outputs]
            self.metadata |= {(name, task): worker.metadata(name, task) for task in part for name in self.names}

    def changelog(self, task: int) -> list[tuple[bytes, bytes | None]]:
        mine = [o for _, o in self.log if o.topic == TOPICS.join_changelog and o.partition == task]
        return [(output.key or b"", output.value) for output in mine]

    def partitions(self, part: Sequence[int]) -> list[Assigned]:
        return [Assigned(name, task, 0, self.metadata.get((name, task), "")) for name in self.names for task in part]

    def said(self) -> dict[int, list[tuple[str, bytes | None, bytes | None]]]:
        """Labels, dead letters and observations of each task, in order."""
        found: dict[int, list[tuple[str, bytes | None, bytes | None]]] = {task: [] for task in range(TASKS)}
        for _, output in self.log:
            if output.topic == TOPICS.observations:
                found[int((output.key or b"").partition(b":")[0])].append((output.topic, output.key, output.value))
            elif output.topic == TOPICS.labels:
                event = msgspec.json.decode(output.value or b"", type=_Event).event_id
                found[_task_of(event)].append((output.topic, output.key, output.value))
        return found


def _task_of(event_id: object) -> int:
    return crc32(str(event_id).encode()) % TASKS


def dealt(declared: UseCase, seed: int) -> Iterator[dict[int, list[Message]]]:
    """Batches of a stream by task: events by their id, watermarks to all."""
    for batch in batches(declared, seed, events=600):
        found: dict[int, list[Message]] = {task: [] for task in range(TASKS)}
        for message in batch:
            if message.value is None:
                if message.partition == 0:
                    for task in found:
                        found[task].append(message._replace(partition=task))
                continue
            event = msgspec.json.decode(message.value, type=_Event)
            task = _task_of(event.event_id or event.payment_id)
            found[task].append(message._replace(partition=task))
        yield found


def calm(declared: UseCase, seed: int, workers: int = 1) -> Cluster:
    cluster = Cluster(declared)
    cluster.share(workers)
    for at, by_task in enumerate(dealt(declared, seed)):
        cluster.step(at, by_task)
    return cluster


def test_labels_and_observations_of_a_task_are_the_same_bytes_whoever_owns_it(tmp_path: Path) -> None:
    declared = use_case(tmp_path)
    one, rng = calm(declared, 0), np.random.default_rng(0)
    moved = Cluster(declared)
    moved.share(1)
    for at, by_task in enumerate(dealt(declared, 0)):
        if rng.random() < 0.15:
            moved.step(at, by_task, killed=True)
            moved.share(int(rng.integers(1, 5)))
        if len(moved.workers) > 1 and rng.random() < 0.5:
            of, to = rng.choice(len(moved.workers), 2, replace=False).tolist()
            if moved.workers[of][1]:
                moved.hand_over(moved.workers[of][1][0], of, to)
        moved.step(at, by_task)
    assert one.said() == moved.said()
    assert all(len(said) > 100 for said in one.said().values())


def test_final_labels_of_all_tasks_are_those_of_the_naive_feedback(tmp_path: Path) -> None:
    declared = use_case(tmp_path)
    naive, expected = NaiveFeedback(declared, CHAMPION), []
    for at, batch in enumerate(batches(declared, 1, events=600)):
        expected += naive.process(batch, WALL_MS + at)
    found = [(o.topic, o.key, o.value) for _, o in calm(declared, 1, workers=3).log]
    finals = [
        {label.prediction_id: label for label in map(_label, records) if label is not None}
        for records in (expected, found)
    ]
    assert finals[0] == finals[1]
    assert len(finals[0]) > 600


def _label(record: tuple[str, bytes | None, bytes | None]) -> LabelledPrediction | None:
    return msgspec.json.decode(record[2] or b"", type=LabelledPrediction) if record[0] == TOPICS.labels else None


def test_task_says_once_that_nothing_comes_for_it(tmp_path: Path) -> None:
    cluster = Cluster(use_case(tmp_path))
    worker = TaskProcessor(cluster.declared, cluster.changelog, Metrics("disordered"))
    worker.assigned(cluster.partitions([0, 1]))

    def said(messages: list[Message], now_ms: int) -> list[tuple[int, int, bool]]:
        outputs = [o for o in worker.process(messages, now_ms) if o.topic == TOPICS.observations]
        worker.ended([(at.topic, at.partition) for at in cluster.partitions([0, 1])])
        headers = [msgspec.msgpack.decode(output.value or b"", type=Header) for output in outputs]
        return [(header.task, header.number, header.idle) for header in headers]

    assert said([], WALL_MS) == [(0, 0, True), (1, 0, True)]
    assert said([], WALL_MS) == []
    record = encode(prediction(cluster.declared, "a", START_MS))
    first = Message(TOPICS.predictions, 0, 0, START_MS, b"k", record, [])
    assert said([first], WALL_MS) == [(0, 1, False)]
    assert said([], WALL_MS) == []
    assert said([], WALL_MS + IDLE_AFTER_MS - 1) == []
    assert said([], WALL_MS + IDLE_AFTER_MS) == [(0, 2, True)]
    assert said([], WALL_MS + 2 * IDLE_AFTER_MS) == []


def test_task_whose_partitions_are_with_two_workers_is_not_processed(tmp_path: Path) -> None:
    cluster = Cluster(use_case(tmp_path))
    worker = TaskProcessor(cluster.declared, cluster.changelog, Metrics("disordered"))
    first, *others = cluster.partitions([0])
    worker.assigned([first])
    with pytest.raises(Retryable, match=r"tasks \[0\]"):
        worker.process([], WALL_MS)
    worker.assigned(others)
    assert [o.topic for o in worker.process([], WALL_MS)] == [TOPICS.join_changelog, TOPICS.observations]
    worker.revoked([(first.topic, 0)])
    with pytest.raises(Retryable, match=r"tasks \[0\]"):
        worker.process([], WALL_MS)


def test_task_that_is_assigned_again_knows_nothing_of_what_was_not_committed(tmp_path: Path) -> None:
    declared = use_case(tmp_path)
    cluster, by_task = Cluster(declared), next(dealt(declared, 0))
    cluster.share(1)
    worker, _ = cluster.workers[0]
    messages = [message for task in range(TASKS) for message in by_task[task]]
    first = worker.process(messages, WALL_MS)
    assert {TOPICS.observations, TOPICS.join_changelog} <= {output.topic for output in first}
    assert worker.process(messages, WALL_MS) != first
    worker.assigned(cluster.partitions(list(range(TASKS))))
    assert worker.process(messages, WALL_MS) == first


def test_changelog_of_a_task_is_deleted_once_all_is_forgotten(tmp_path: Path) -> None:
    cluster = calm(use_case(tmp_path), 2)
    newest = [dict(cluster.changelog(task)) for task in range(TASKS)]
    kept = [key for log in newest for key, value in log.items() if value is not None]
    assert kept == [b"task"] * TASKS


@pytest.mark.parametrize(
    ("clock", "why"),
    [
        (b'{"watermark_ms":1,"sample":{},"labels":["loss"],"serials":[0],"format":6}', "format 6"),
        (b'{"watermark_ms":1,"sample":{},"labels":["churn"],"serials":[0],"format":5}', "label 'churn'"),
        (b"{", "cannot read"),
    ],
)
def test_changelog_of_a_later_format_or_another_label_is_refused_with_what_to_do(
    tmp_path: Path, clock: bytes, why: str
) -> None:
    cluster = Cluster(use_case(tmp_path))
    kept = [(b"task", clock)]
    worker = TaskProcessor(cluster.declared, partial(lambda log, _: log, kept), Metrics("disordered"))
    with pytest.raises(StateCorrupt, match=f"{why}.*rewind"):
        worker.assigned(cluster.partitions([0]))
