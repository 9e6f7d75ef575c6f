"""Feedback as it is deployed, shared by one, three and again one worker, killed on the way: it says what one worker says."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest

from load_tests.predictions import Stream, make_use_case, send, timetable
from load_tests.studies.join_workers import Workers
from tailrace.backends.kafka import read_topic
from tailrace.backends.settings import Settings
from tailrace.contracts.topics import Topics
from tailrace.local.barrier import Barrier
from tailrace.usecase.declaration import UseCase

pytestmark = pytest.mark.timeout(600)

OPEN, LIVE, SLICES, SETTLE_S = 2_000, 2_000, 12, 180.0


class Played(NamedTuple):
    """A use case, where it runs, and its workers."""

    settings: Settings
    declared: UseCase
    workers: Workers


@pytest.fixture
def make(settings: Settings, tmp_path: Path) -> Iterator[Callable[..., Played]]:
    made: list[Workers] = []

    def of(*, parallel: bool) -> Played:
        folder = tmp_path / ("shared" if parallel else "alone")
        folder.mkdir()
        own = settings.model_copy(update={"use_cases": folder, "state_dir": folder})
        declared = make_use_case(own, folder, parallel=parallel)
        made.append(Workers(own, declared.name))
        return Played(own, declared, made[-1])

    yield of
    for workers in made:
        workers.close()


def play(of: Played, stream: Stream, plan: dict[int, Callable[[], None]]) -> None:
    """Sends a stream in slices, each worked off before the next; what befalls the workers comes when one is sent."""
    barrier = Barrier(of.settings, of.declared, training=False)
    of.workers.start(0)
    cuts = np.linspace(0, OPEN + LIVE, SLICES + 1).astype(int).tolist()
    for number, (first, end) in enumerate(pairwise(cuts)):
        send(of.settings, of.declared, stream, first, end, last=True)
        plan.get(number, lambda: None)()
        barrier.wait(SETTLE_S, lambda: None, of.workers.check)
    barrier.close()


def said(of: Played, topic: str) -> dict[str, list[Any]]:
    """What a topic holds, by key in order, without the name of the use case."""
    found: dict[str, list[Any]] = defaultdict(list)
    name = of.declared.name
    for message in read_topic(of.settings, getattr(Topics(name), topic)):
        if message.value is not None:
            key = (message.key or b"").decode().replace(name, "USE-CASE")
            found[key].append(msgspec.json.decode(message.value.replace(name.encode(), b"USE-CASE")))
    return dict(found)


def newest(said: dict[str, list[Any]]) -> dict[str, Any]:
    return {key: records[-1] for key, records in said.items()}


def test_shared_by_one_to_three_workers_with_kills_feedback_says_what_one_worker_says(
    make: Callable[..., Played],
) -> None:
    stream = timetable(OPEN, LIVE, seed=3)
    alone, shared = make(parallel=False), make(parallel=True)
    workers = shared.workers
    play(alone, stream, {})

    def three() -> None:
        workers.start(1)
        workers.start(2)

    def again() -> None:
        workers.kill(0)
        workers.start(0)

    def one() -> None:
        workers.stop(1)
        workers.kill(2)

    play(shared, stream, {3: three, 5: again, 8: one, 10: again})
    labels = said(alone, "labels")
    assert len(labels) > OPEN
    assert labels == said(shared, "labels")
    quality = newest(said(alone, "quality"))
    assert len(quality) > 10
    assert quality == newest(said(shared, "quality"))
    decided = {topic: said(alone, topic) for topic in ("alarms", "drift", "retraining")}
    assert decided["alarms"]
    assert decided["drift"]
    assert decided == {topic: said(shared, topic) for topic in decided}
