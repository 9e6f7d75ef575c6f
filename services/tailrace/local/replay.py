"""Replaying recorded events and outcomes through a running use case."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import confluent_kafka
from confluent_kafka import TopicPartition

from tailrace.backends.codec import decode
from tailrace.backends.kafka import admin, consumer, partitions_of, producer
from tailrace.backends.recordings import Recording
from tailrace.backends.settings import Settings
from tailrace.contracts.records import WATERMARK_HEADER, RoutingTable
from tailrace.contracts.topics import READERS, Topics
from tailrace.errors import BrokerUnavailable, ConfigError
from tailrace.local.barrier import Barrier
from tailrace.usecase.declaration import UseCase

BATCH_S = 0.02
"""How finely a timed replay is cut; finer costs processor time, coarser adds to latency."""


@dataclass(frozen=True)
class Progress:
    """Where a replay is. `stream_ms` is the end of the slice that was sent last."""

    stream_ms: int
    events: int
    outcomes: int
    events_total: int
    elapsed_s: float
    champion: str


class ControlReader:
    """Newest routing table of a use case, read without a consumer group."""

    def __init__(self, settings: Settings, topics: Topics) -> None:
        self._reader = consumer(
            settings,
            READERS,
            **{"group.protocol": "classic", "group.instance.id": "", "fetch.wait.max.ms": 10},
        )
        self._reader.assign([TopicPartition(topics.control, 0, 0)])
        self.newest: RoutingTable | None = None
        self._ended = False

    def poll(self) -> RoutingTable | None:
        """The newest table; None while there is none."""
        deadline = time.monotonic() + 10
        while not self._ended and time.monotonic() < deadline:
            self._take(0.1)
        self._take(0.0)
        return self.newest

    def epoch(self) -> int | None:
        """Epoch of the newest table."""
        table = self.poll()
        return None if table is None else table.epoch

    def champion(self) -> str:
        """Version of the champion; "" while there is none."""
        variants = self.newest.variants if self.newest is not None else []
        return next((variant.model_version for variant in variants if variant.role == "champion"), "")

    def close(self) -> None:
        """Closes the connection."""
        self._reader.close()

    def _take(self, timeout_s: float) -> None:
        for record in self._reader.consume(1_000, timeout=timeout_s):
            error = record.error()
            if error is not None:
                self._ended = self._ended or error.code() == confluent_kafka.KafkaError._PARTITION_EOF
            elif (value := record.value()) is not None:
                table = decode(RoutingTable, value)
                if self.newest is None or table.epoch >= self.newest.epoch:
                    self.newest = table


class Replay:
    """Plays recordings into the topics of a use case whose services run.

    Args:
        settings: Address of the broker.
        use_case: What runs.
        recordings: What is played, each into its topic: requests, outcomes, outcomes of auxiliary labels. A topic of the
            use case of which nothing is recorded is silent, but holds stream time back as well.
        wait_for_training: Let a training in flight, and what rollout decides on it, finish before
            the next slice. Without it a replay is faster than the trainer, and decisions fall later.
        stall_s: Give up when no group moves for so long, seconds.
        keep_going: Called now and then; raises to give up (a dead service, say).

    Raises:
        ConfigError: a recording is of a topic that the use case does not read, or two are of one topic.
    """

    def __init__(
        self,
        settings: Settings,
        use_case: UseCase,
        *recordings: Recording,
        wait_for_training: bool = True,
        stall_s: float = 180.0,
        keep_going: Callable[[], None] = lambda: None,
    ) -> None:
        outcomes = [topic.name for topic in use_case.outcome_topics]
        self._recorded = _by_topic(recordings, [*outcomes, use_case.requests.name])
        self._turns = (outcomes, [use_case.requests.name])
        self._stall_s = stall_s
        self._keep_going = keep_going
        self._barrier = Barrier(settings, use_case, training=wait_for_training)
        self._producer = producer(settings, **{"linger.ms": 20})
        client = admin(settings)
        self._partitions = {topic: partitions_of(client, topic) for topics in self._turns for topic in topics}
        self._failed: str = ""
        self._began = time.monotonic()
        self._sent = [0, 0]
        self.control = ControlReader(settings, Topics(use_case.name))

    def play(
        self,
        slice_ms: int,
        *,
        from_ms: int | None = None,
        until_ms: int | None = None,
        on_progress: Callable[[Progress], None] = lambda _: None,
    ) -> Progress:
        """Plays as fast as the use case digests; every run decides alike.

        First all topics are told the watermark at which the replay begins. Then each slice of stream time:
          1. its outcomes, of every topic of them, then the watermark "nothing older than the slice's end follows" on
             every partition;
          2. wait until every consumer group has caught up and follows the newest routing table;
          3. its events, then the same watermark;
          4. wait again.
        So every decision falls between two slices, whatever the machine is doing.

        Args:
            slice_ms: Length of a slice, stream milliseconds.
            from_ms: First event time to send; None for the recording's first.
            until_ms: Time to stop before; None for the end of all recordings.
            on_progress: Called after each slice.

        Raises:
            NotSettled: a consumer group stands still.
        """
        begin, end = self._span(from_ms, until_ms, slice_ms)
        progress = self._progress(begin)
        for topic in self._partitions:
            self._punctuate(topic, begin)
        self.settle()
        for at in range(begin, end, slice_ms):
            upto = min(at + slice_ms, end)
            for turn, topics in enumerate(self._turns):
                self._send_slice(turn, at, upto)
                for topic in topics:
                    self._punctuate(topic, upto)
                self.settle()
            progress = self._progress(upto)
            on_progress(progress)
        return progress

    def play_timed(
        self,
        speed: float,
        *,
        from_ms: int | None = None,
        until_ms: int | None = None,
        on_progress: Callable[[Progress], None] = lambda _: None,
    ) -> Progress:
        """Plays by timetable, as a live producer would: no watermark records, no waiting.

        Stream time is then the newest event time minus the declared lateness, and decisions depend
        on how fast the machine is.

        Args:
            speed: Stream seconds per second.
            from_ms: First event time to send; None for the recording's first.
            until_ms: Time to stop before; None for the end of all recordings.
            on_progress: Called once per second.
        """
        begin, end = self._span(from_ms, until_ms, 1)
        started, reported, at = time.monotonic(), 0.0, begin
        while at < end:
            upto = min(end, begin + int((time.monotonic() - started) * speed * 1_000))
            for turn in range(len(self._turns)):
                self._send_slice(turn, at, upto)
            self._producer.poll(0)
            at = max(at, upto)
            self._keep_going()
            if time.monotonic() - reported > 1:
                reported = time.monotonic()
                self.control.poll()
                on_progress(self._progress(at))
            time.sleep(BATCH_S)
        self._flush()
        return self._progress(end)

    def settle(self) -> None:
        """Blocks until everything that was sent is digested.

        Raises:
            NotSettled: a consumer group stands still.
        """
        self._flush()
        self._barrier.wait(self._stall_s, self.control.epoch, self._keep_going)

    def close(self) -> None:
        """Closes the connections."""
        self.control.close()
        self._barrier.close()

    def _span(self, from_ms: int | None, until_ms: int | None, slice_ms: int) -> tuple[int, int]:
        times = [recording.times_ms for recording in self._recorded.values() if len(recording)]
        if not times:
            return 0, 0
        first = min(int(t[0]) for t in times) if from_ms is None else from_ms
        begin = first - first % slice_ms
        # Whole slices: a watermark inside a slice would be one that no other run has.
        end = -(-(max(int(t[-1]) for t in times) + 1) // slice_ms) * slice_ms
        return begin, end if until_ms is None else min(until_ms, end)

    def _send_slice(self, turn: int, from_ms: int, until_ms: int) -> None:
        for topic in self._turns[turn]:
            recording = self._recorded.get(topic)
            if recording is not None:
                rows = recording.between(from_ms, until_ms)
                self._send(topic, recording.encoded(rows))
                self._sent[turn] += rows.stop - rows.start

    def _send(self, topic: str, records: Iterable[tuple[bytes, bytes]]) -> None:
        produce, poll = self._producer.produce, self._producer.poll
        for count, (key, value) in enumerate(records):
            while True:
                try:
                    produce(topic, value, key, on_delivery=self._delivered)
                    break
                except BufferError:
                    poll(0.05)
            if count % 1_000 == 0:
                poll(0)

    def _punctuate(self, topic: str, watermark_ms: int) -> None:
        headers: list[tuple[str, str | bytes | None]] = [(WATERMARK_HEADER, str(watermark_ms).encode())]
        for partition in self._partitions[topic]:
            self._producer.produce(topic, None, None, partition, headers=headers, on_delivery=self._delivered)

    def _flush(self) -> None:
        left = self._producer.flush(60)
        if left or self._failed:
            raise BrokerUnavailable(f"{left} records were not acknowledged: {self._failed or 'time-out'}")

    def _delivered(self, error: confluent_kafka.KafkaError | None, _: object) -> None:
        if error is not None:
            self._failed = error.str()

    def _progress(self, stream_ms: int) -> Progress:
        outcomes, events = self._sent
        [requests] = self._turns[1]
        total = len(self._recorded.get(requests, ()))
        elapsed_s = time.monotonic() - self._began
        return Progress(stream_ms, events, outcomes, total, elapsed_s, self.control.champion())


def _by_topic(recordings: Sequence[Recording], topics: Sequence[str]) -> dict[str, Recording]:
    found: dict[str, Recording] = {}
    for recording in recordings:
        name = recording.topic.name
        if name not in topics:
            raise ConfigError(f"{name!r} is no topic of the use case; those are {', '.join(topics)}")
        if name in found:
            raise ConfigError(f"two recordings are of topic {name!r}")
        found[name] = recording
    return found
