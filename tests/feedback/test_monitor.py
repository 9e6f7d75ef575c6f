"""The monitor of several tasks, killed anywhere: it says what one worker says that joins all."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import msgspec
import numpy as np
import pytest
from disordered import WALL_MS, use_case
from hypothesis import given, settings
from hypothesis import strategies as st
from test_merged import CHAMPION, alone, observed

from tailrace.backends.codec import decode, encode
from tailrace.backends.ports import Assigned, Message, Output
from tailrace.backends.telemetry import Metrics
from tailrace.contracts.quality import Quality
from tailrace.contracts.retraining import CandidateRefused
from tailrace.contracts.topics import Topics
from tailrace.core.monitor_state import Champion
from tailrace.errors import Retryable, StateCorrupt
from tailrace.feedback import kept_observations
from tailrace.feedback.monitor_processor import MonitorProcessor
from tailrace.feedback.observations import Header, Observation, Observed, key_of
from tailrace.usecase.declaration import UseCase

TOPICS = Topics("disordered")
TASKS = 3


class World:
    """A monitor over a log of observations; what it puts out counts once it is committed."""

    def __init__(self, declared: UseCase, tasks: int = TASKS) -> None:
        self.declared, self.tasks = declared, tasks
        self.log: list[Message] = []
        self.outputs: list[Output] = []
        self.committed = {TOPICS.observations: (-1, ""), TOPICS.retraining: (-1, "")}
        self.champions = [(1, CHAMPION)]
        self.restart()

    def restart(self) -> None:
        """What is left after a kill: the topics, and what is committed."""
        self.newer = self.champions[-1:]
        self.processor = MonitorProcessor(
            self.declared,
            range(self.tasks),
            lambda: [(o.key or b"", o.value) for o in self.outputs if o.topic == TOPICS.feedback_changelog],
            lambda: self.log,
            self.follow,
            Metrics("disordered"),
        )
        self.processor.assigned([Assigned(name, 0, *at) for name, at in self.committed.items()])

    def follow(self) -> tuple[int, Champion] | None:
        """The newest champion, once."""
        newer, self.newer = self.newer, []
        return newer[0] if newer else None

    def promote(self, champion: Champion) -> None:
        """Has another champion serve."""
        self.champions.append((len(self.champions) + 1, champion))
        self.newer = self.champions[-1:]

    def process(self, batch: Sequence[Message], *, committed: bool = True) -> None:
        """Takes a batch, and commits it."""
        outputs = self.processor.process(batch, WALL_MS)
        if not committed:
            return
        self.outputs += outputs
        for name in self.committed:
            ends = [message.offset + 1 for message in batch if message.topic == name]
            offset = max([self.committed[name][0], *ends])
            self.committed[name] = (offset, self.processor.metadata(name, 0))
        for output in outputs:
            if output.topic == TOPICS.observations:
                self.tell(output.value, output.key)

    def tell(self, value: bytes | None, key: bytes | None = None) -> Message:
        """Adds a record to OBSERVATIONS."""
        if key is None:
            header = msgspec.msgpack.decode(value or b"", type=Header)
            key = key_of(header.task, header.number)
        message = Message(TOPICS.observations, 0, len(self.log), WALL_MS, key, value, [])
        self.log.append(message)
        return message

    def compact(self) -> None:
        """What a broker may leave of OBSERVATIONS: the newest record of each key, and no deleted one."""
        newest = {message.key: message.offset for message in self.log}
        self.log = [
            message
            if newest[message.key] == message.offset and (message.value is not None)
            else message._replace(key=b"", value=None)
            for message in self.log
        ]

    def said(self) -> list[Output]:
        """Decisions and windows, in order."""
        own = (TOPICS.feedback_changelog, TOPICS.observations)
        return [output for output in self.outputs if output.topic not in own]

    def kept(self) -> int:
        """Observations that are not deleted."""
        newest = {message.key: message.value for message in self.log}
        return sum(value is not None for value in newest.values())


@cache
def streams(tasks: int = TASKS) -> tuple[UseCase, list[list[bytes]], list[Output]]:
    """A use case, what each task says, and what one worker says that joins all."""
    declared = use_case(Path(mkdtemp()))
    return declared, observed(declared, tasks, tasks), alone(declared, tasks)


def interleaved(parts: list[list[bytes]], seed: int) -> list[bytes]:
    threads = [iter(part) for part in parts]
    order = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    return [next(threads[task]) for task in np.random.default_rng(seed).permutation(order).tolist()]


@settings(max_examples=4)
@given(st.integers(0, 99), st.data())
def test_monitor_killed_anywhere_says_what_one_worker_says_that_joins_all(seed: int, data: st.DataObject) -> None:
    declared, parts, expected = streams()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kept_observations, "EVERY", 2)
        world, told = World(declared), interleaved(parts, seed)
        world.process([])
        at = 0
        while at < len(told):
            size = data.draw(st.integers(1, 12))
            messages = [world.tell(value) for value in told[at : at + size]]
            at += size
            kill = data.draw(st.sampled_from(["", "", "before", "after"]))
            if kill == "before":
                world.process(messages, committed=False)
                world.restart()
            world.process(messages)
            if kill == "after":
                world.compact()
                world.restart()
    assert world.said() == expected


def told_by_others(at: int) -> tuple[Champion | None, Message | None]:
    """What a monitor is told besides: after some batches another champion, and that a request was refused."""
    other = Champion("2", {"log_loss": 0.4, "roc_auc": 0.6}, CHAMPION.reference)
    refused = CandidateRefused(
        run_id=f"disordered-drift-{at}", use_case="disordered", reason="", refused_at_ms=WALL_MS, gates=[]
    )
    message = Message(TOPICS.retraining, 0, at, WALL_MS, b"k", encode(refused), [])
    return {4: other, 9: CHAMPION}.get(at), message if at in (6, 12) else None


@pytest.mark.parametrize("seed", range(3))
def test_monitor_that_is_told_of_champions_and_candidates_goes_on_after_a_kill_as_if_nothing_had_been(
    seed: int,
) -> None:
    declared, parts, unchanged = streams()
    said = []
    for kills in (0.0, 0.5):
        world, told, rng = World(declared), interleaved(parts, seed), np.random.default_rng(seed)
        for number, start in enumerate(range(0, len(told), 5)):
            champion, message = told_by_others(number)
            if champion is not None:
                world.promote(champion)
            batch = [world.tell(value) for value in told[start : start + 5]]
            world.process([*([message] if message is not None else []), *batch])
            if rng.random() < kills:
                world.compact()
                world.restart()
        said.append(world.said())
    assert said[0] == said[1]
    assert said[0] != unchanged


def test_observations_are_deleted_once_the_predictions_they_speak_of_are_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_observations, "EVERY", 2)
    declared, parts, _ = streams()
    world, told, kept = World(declared), interleaved(parts, 0), []
    for value in told:
        world.process([world.tell(value)])
        kept.append(world.kept())
    assert max(kept) > 40
    assert kept[-1] <= 4 * TASKS


def test_monitor_whose_group_has_forgotten_its_offsets_goes_on_from_its_checkpoint() -> None:
    declared, parts, expected = streams()
    world, told = World(declared), interleaved(parts, 1)
    world.process([])
    messages = [world.tell(value) for value in told]
    world.process(messages[:60])
    world.committed = dict.fromkeys(world.committed, (-1, ""))
    world.restart()
    world.process(messages)
    assert world.said() == expected


def test_monitor_that_stands_by_says_nothing_and_one_whose_partitions_are_torn_waits() -> None:
    world = World(streams()[0])
    world.restart()
    first, other = (Assigned(name, 0, -1, "") for name in world.committed)
    world.processor.revoked([(TOPICS.observations, 0), (TOPICS.retraining, 0)])
    assert world.processor.process([], WALL_MS) == []
    assert not world.processor.unsettled()
    world.processor.assigned([first])
    with pytest.raises(Retryable, match="another worker"):
        world.processor.process([], WALL_MS)
    world.processor.assigned([other])
    assert [TOPICS.feedback_changelog] * 2 == [output.topic for output in world.processor.process([], WALL_MS)]


def test_gap_in_what_a_task_says_is_not_passed_over() -> None:
    declared, parts, _ = streams()
    world = World(declared)
    world.process([world.tell(parts[0][0])])
    with pytest.raises(StateCorrupt, match="task 0 of feedback speaks of batch 2 after 0"):
        world.process([world.tell(parts[0][2])])


def test_changelog_of_one_worker_that_joins_all_is_refused_with_what_to_do() -> None:
    world = World(streams()[0])
    kept = Output(TOPICS.feedback_changelog, b"monitor", b'{"watermark_ms":1,"monitor":{},"label":"loss","format":4}')
    world.outputs.append(kept)
    with pytest.raises(StateCorrupt, match=r"format 4.*rewind"):
        world.restart()


def test_task_that_is_idle_is_not_waited_for() -> None:
    declared, parts, _ = streams()
    world = World(declared)
    for part in parts[1:]:
        world.process([world.tell(value) for value in part])
    assert not [output for output in world.said() if output.topic == TOPICS.quality]
    idle = Observation(0, -1, [Observed()], idle=True)
    world.process([world.tell(msgspec.msgpack.encode(idle))])
    quality = [decode(Quality, output.value or b"") for output in world.said() if output.topic == TOPICS.quality]
    assert max(window.watermark_ms for window in quality) >= 20_010 * 86_400_000
