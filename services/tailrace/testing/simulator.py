"""The whole loop in one process, on virtual time: for asking of a policy what it would have done.

    loop = simulate("card_fraud", *CardFraudStream(seed=7).tables(), faults=[drift := ConceptShift(at="20d")])
    assert loop.detects(drift, within="3d")
    assert loop.recovers(drift, within="7d")

The services' own processors run, over topics, an online store and a model registry in memory. Time is that of
the streams; nothing waits, reads a clock or runs beside anything else, so that the same streams, faults and seed
give the same decisions. They are those of a replay of the same streams on a broker (`tailrace replay`).
"""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from tailrace.backends.recordings import Recording, to_recording
from tailrace.backends.settings import Settings, load_settings
from tailrace.core.durations import milliseconds
from tailrace.core.partitioning import partitions_of
from tailrace.feedback.specs import join_spec
from tailrace.testing.faults import (
    AnyFault,
    Candidate,
    ConceptShift,
    CovariateShift,
    Crash,
    Disorder,
    Drop,
    Duplicate,
    Erasure,
    LabelDelay,
    Malformed,
    Poison,
    Silence,
    check,
)
from tailrace.testing.injection import inject
from tailrace.testing.sent_streams import Stream, stream_of, streams_of
from tailrace.testing.shells import Features, Transactional, feedback, inference, rollout
from tailrace.testing.simulation import Counts, Simulation, Verdict, run_of
from tailrace.testing.training import Training
from tailrace.testing.world import Crashes, World
from tailrace.usecase.declaration import UseCase
from tailrace.usecase.load import load_use_case

__all__ = [
    "Candidate",
    "ConceptShift",
    "CovariateShift",
    "Crash",
    "Disorder",
    "Drop",
    "Duplicate",
    "Erasure",
    "LabelDelay",
    "Malformed",
    "Poison",
    "Progress",
    "Silence",
    "Simulation",
    "Verdict",
    "simulate",
]

GC_EVERY = 100_000
"""Allocations between two looks of the garbage collector: records of a batch are no garbage, and form no cycles."""


class Progress(NamedTuple):
    """Where a simulation is. `stream_ms` is the end of the step that was played last."""

    stream_ms: int
    events: int
    events_total: int
    champion: str


def simulate(
    use_case: UseCase | str,
    events: pa.Table | Recording,
    outcomes: pa.Table | Recording,
    *,
    auxiliary: Sequence[Recording] = (),
    faults: Sequence[AnyFault] = (),
    seed: int = 0,
    step: str = "1h",
    settings: Settings | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Simulation:
    """Plays events and outcomes through the loop of a use case.

    Each step of stream time:
      1. its outcomes, of every topic of them, then the watermark "nothing older than the step's end follows" on every
         partition;
      2. every service takes turns until nothing is left to do, trainings included;
      3. its events, then the same watermark;
      4. again until nothing is left.

    Args:
        use_case: The use case, or its name in the folder of the settings.
        events: What is scored: a table or recording with the fields of the requests topic.
        outcomes: What is reported.
        auxiliary: Outcomes of auxiliary labels that have topics of their own; faults spare them. A topic of which nothing
            is recorded is silent, but holds stream time back as well.
        faults: What befalls streams and services, in the order in which streams are changed.
        seed: Of everything random in the faults.
        step: Stream time played at once: decisions fall at its end, at most once an hour.
        settings: Partitions, threads, folder of the use cases; None: from the environment.
        on_progress: Called after each step.

    Raises:
        ConfigError: a fault is wrong.
        UseCaseError: the declaration, or the columns of a stream.
        Fatal: what would stop a service on a broker, too.
    """
    settings = settings or load_settings()
    case = load_use_case(settings.use_cases, use_case) if isinstance(use_case, str) else use_case
    recorded = [
        given if isinstance(given, Recording) else to_recording(given, topic)
        for given, topic in ((events, case.requests), (outcomes, case.label.topic))
    ]
    step_ms = milliseconds(step)
    played = [one for one in (*recorded, *auxiliary) if len(one)]
    first_ms = min((int(one.times_ms[0]) for one in played), default=0)
    begin_ms = first_ms - first_ms % step_ms
    check(faults, begin_ms)
    streams = inject(streams_of(*recorded), faults, case, begin_ms, seed)
    with tempfile.TemporaryDirectory(prefix="tailrace-simulation-") as folder, _spared_collector():
        world = World(case, settings.model_copy(update={"state_dir": Path(folder)}))
        reported = [streams.outcomes, *map(stream_of, auxiliary)]
        loop = _Loop(world, (reported, [streams.events]), tuple(faults), begin_ms)
        # To the end of what was recorded, whatever is lost of it.
        last_ms = max((int(one.times_ms[-1]) for one in played), default=begin_ms)
        return loop.play(step_ms, last_ms, on_progress)


class _Loop:
    """Services, producers and what they are to meet; `turns` are streams sent before the services take theirs."""

    def __init__(
        self, world: World, turns: tuple[list[Stream], list[Stream]], faults: tuple[AnyFault, ...], begin_ms: int
    ) -> None:
        self._world = world
        self._faults = faults
        self._states_time = not any(isinstance(fault, Silence) for fault in faults)
        self._turns = [
            [_Producer(world, stream, states_time=self._states_time) for stream in streams] for streams in turns
        ]
        spoken = {stream.topic.name for streams in turns for stream in streams}
        self._silent = [topic.name for topic in world.use_case.outcome_topics if topic.name not in spoken]
        label = join_spec(world.use_case.label)
        self._result = Simulation(world.use_case.name, begin_ms, faults, label.window_ms + label.lateness_ms)
        self._sink = world.topics.group("simulation")
        world.log.subscribe(self._sink, [*self._result.topics, world.topics.labels])
        self._trainer = Training(world, self._crashes("trainer"))
        self._shells: list[Features | Transactional] = [
            Features(world, self._crashes("features")),
            inference(world, self._crashes("inference")),
            feedback(world, self._crashes("feedback")),
            rollout(world, self._crashes("rollout")),
        ]

    def play(self, step_ms: int, last_ms: int, on_progress: Callable[[Progress], None]) -> Simulation:
        """Plays everything; see `simulate`."""
        result, begin_ms = self._result, self._result.begin_ms
        reported, [events] = self._turns
        producers = [*reported, events]
        for producer in producers:
            producer.punctuate(begin_ms, begin_ms)
        self._punctuate_silent(begin_ms)
        self._settle(begin_ms)
        last_ms = max(last_ms, *(producer.last_ms for producer in producers))
        # Whole steps: a watermark inside a step would be one that no other run has.
        for at_ms in range(begin_ms, last_ms + 1, step_ms):
            upto_ms = at_ms + step_ms
            self._intervene(at_ms, upto_ms)
            self._punctuate_silent(upto_ms)
            for turn in self._turns:
                for producer in turn:
                    producer.send(at_ms, upto_ms)
                self._settle(upto_ms)
            result.end_ms = upto_ms
            on_progress(Progress(upto_ms, events.sent, events.total, result.champion))
        topics, written = self._world.topics, self._world.log.written
        result.counts = Counts(
            events.sent,
            sum(producer.sent for producer in reported),
            written[topics.predictions],
            written[topics.shadow],
            written[topics.labels],
            written[topics.dead_letters],
        )
        return result

    def _punctuate_silent(self, now_ms: int) -> None:
        for topic in self._silent if self._states_time else ():
            self._world.log.punctuate(topic, now_ms, now_ms)

    def _settle(self, now_ms: int) -> None:
        """Steps every service, in a fixed order, until none has anything to do.

        A training answers when everything else has come to rest: it takes longer than anything else.
        """
        while True:
            moved = [shell.step(now_ms) for shell in self._shells]
            if not any(moved) and not self._trainer.step(now_ms):
                break
        self._collect(now_ms)
        self._world.log.trim()

    def _collect(self, now_ms: int) -> None:
        log, labels = self._world.log, self._world.topics.labels
        for number, part in enumerate(log.partitions(labels)):
            offset, _ = log.committed(self._sink, labels, number)
            self._result.take_labels(part.values[offset - part.begin :], now_ms)
            log.commit(self._sink, labels, number, part.end, "")
        for topic in self._result.topics:
            offset, _ = log.committed(self._sink, topic, 0)
            end = log.partitions(topic)[0].end
            for message in log.read(topic, 0, offset, end - offset):
                if message.value is not None:
                    self._result.take(topic, message.value)
            log.commit(self._sink, topic, 0, end, "")

    def _crashes(self, service: str) -> Crashes:
        begin_ms = self._result.begin_ms
        mine = [fault for fault in self._faults if isinstance(fault, Crash) and fault.service == service]
        return Crashes([fault.span_ms(begin_ms)[0] for fault in mine])

    def _intervene(self, from_ms: int, until_ms: int) -> None:
        """Lets people do what they do in a step, at its begin."""
        for number, fault in enumerate(self._faults):
            if not from_ms <= fault.span_ms(self._result.begin_ms)[0] < until_ms:
                continue
            if isinstance(fault, Candidate):
                self._trainer.register(Path(fault.model).read_bytes(), run_of(number), from_ms)
            elif isinstance(fault, Erasure):
                self._trainer.ask_erasure(fault.entity, fault.value, from_ms)


class _Producer:
    """Sends a stream to its topic, in order of arrival."""

    def __init__(self, world: World, stream: Stream, *, states_time: bool) -> None:
        self._log = world.log
        self._states_time = states_time
        self._topic = stream.topic.name
        self._trailing_ms = stream.trailing_ms
        self._recording = stream.recording()
        self._malformed = sorted(stream.malformed, key=lambda bad: bad[0])
        self._numbers = range(len(self._log.partitions(self._topic)))
        self.total = len(self._recording)
        self.sent = 0

    @property
    def last_ms(self) -> int:
        """Arrival of the last record; -1 for none."""
        return int(self._recording.times_ms[-1]) if self.total else -1

    def send(self, from_ms: int, until_ms: int) -> None:
        """Sends what arrives in a step, then the watermark on every partition."""
        rows = self._recording.between(from_ms, until_ms)
        bad = [(key, value) for at, key, value in self._malformed if from_ms <= at < until_ms]
        records = list(chain(self._recording.encoded(rows), bad))
        self.sent += rows.stop - rows.start
        if records:
            places = partitions_of([key for key, _ in records], len(self._numbers)).tolist()
            for number in self._numbers:
                mine = [record for record, place in zip(records, places, strict=True) if place == number]
                part = self._log.partitions(self._topic)[number]
                part.extend([key for key, _ in mine], [value for _, value in mine], until_ms)
        self.punctuate(until_ms - self._trailing_ms, until_ms)

    def punctuate(self, watermark_ms: int, now_ms: int) -> None:
        """States a watermark on every partition, if this producer does."""
        if self._states_time:
            self._log.punctuate(self._topic, watermark_ms, now_ms)


@contextmanager
def _spared_collector() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(GC_EVERY, 20, 20)
    try:
        yield
    finally:
        gc.set_threshold(*before)
