"""The monitor of several tasks, killed anywhere: it says what one worker says that joins all."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
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
from tailrace.contracts.records import CandidateRefused, Quality, RetrainRequested
from tailrace.contracts.topics import Topics
from tailrace.core.monitor_state import Champion
from tailrace.errors import Retryable, StateCorrupt
from tailrace.feedback import kept_observations
from tailrace.feedback.monitor_processor import MonitorProcessor
from tailrace.feedback.observations import Header, Observation, key_of
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
        newest = self.champions[-1:]
        self.processor = MonitorProcessor(
            self.declared,
            range(self.tasks),
            lambda: [(o.key or b"", o.value) for o in self.outputs if o.topic == TOPICS.feedback_changelog],
            lambda: self.log,
            lambda: newest.pop() if newest else None,
            Metrics("disordered"),
        )
        self.follow = newest.append
        self.processor.assigned([Assigned(name, 0, *at) for name, at in self.committed.items()])

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

    def said(self) -> list[bytes]:
        """Decisions and windows, in order."""
        own = (TOPICS.feedback_changelog, TOPICS.observations)
        return [output.value or b"" for output in self.outputs if output.topic not in own]


@cache
def streams(tasks: int = TASKS) -> tuple[UseCase, list[list[bytes]], list[bytes]]:
    """A use case, what each task says, and what one worker says that joins all."""
    declared = use_case(Path(mkdtemp()))
    return declared, observed(declared, tasks, tasks), alone(declared, tasks)


def interleaved(parts: list[list[bytes]], seed: int) -> list[bytes]:
    threads = [iter(part) for part in parts]
    order = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    return [next(threads[task]) for task in np.random.default_rng(seed).permutation(order).tolist()]


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 99), st.data())
def test_monitor_killed_anywhere_says_what_one_worker_says_that_joins_all(seed: int, data: st.DataObject) -> None:
    declared, parts, expected = streams()
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
