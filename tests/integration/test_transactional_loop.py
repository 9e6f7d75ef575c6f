import threading
from collections.abc import Callable, Collection, Sequence

import pytest
from confluent_kafka.admin import NewTopic

from tailrace.backends.kafka import admin, committed_offsets, end_offsets, producer, read_topic
from tailrace.backends.ports import Assigned, Message, Output
from tailrace.backends.settings import Settings
from tailrace.errors import StoreUnavailable
from tailrace.runtime import ends
from tailrace.runtime.loop import run_transactional
from tailrace.runtime.service import Lifecycle

COUNT = 3_000
PARTITIONS = 3


class Copy:
    """Copies every record, remembers in the metadata how many; fails now and then."""

    def __init__(self, target: str, stop_at: int, stop: Callable[[], None], fail_every: int = 0) -> None:
        self.target, self.stop_at, self.stop, self.fail_every = target, stop_at, stop, fail_every
        self.copied: dict[int, int] = {}
        self.calls = 0

    def assigned(self, partitions: Sequence[Assigned]) -> None:
        for at in partitions:
            self.copied[at.partition] = int(at.metadata or 0)

    def revoked(self, partitions: Sequence[tuple[str, int]]) -> None:
        for _, partition in partitions:
            self.copied.pop(partition, None)

    def process(self, batch: Sequence[Message], now_ms: int) -> list[Output]:
        if batch:
            self.calls += 1
            if self.fail_every and self.calls % self.fail_every == 0:
                raise StoreUnavailable("planted")
        for message in batch:
            self.copied[message.partition] += 1
        if sum(self.copied.values()) >= self.stop_at:
            self.stop()
        return [Output(self.target, message.key, message.value, message.partition) for message in batch]

    def ended(self, partitions: Collection[tuple[str, int]]) -> None:
        pass

    def metadata(self, topic: str, partition: int) -> str:
        return str(self.copied[partition])

    def unsettled(self) -> bool:
        return False


@pytest.fixture
def topics(settings: Settings, request: pytest.FixtureRequest) -> tuple[str, str]:
    source, target = (f"{request.node.name}.{end}" for end in ("source", "target"))
    client = admin(settings)
    for future in client.create_topics([NewTopic(name, PARTITIONS, 1) for name in (source, target)]).values():
        future.result(30)
    writer = producer(settings)
    for number in range(COUNT):
        writer.produce(source, str(number), str(number))
    assert writer.flush(30) == 0
    return source, target


def copy(
    settings: Settings, topics: tuple[str, str], stop_at: int, fail_every: int = 0, kind: type[Copy] = Copy
) -> None:
    source, target = topics
    lifecycle = Lifecycle("copy", "test")
    deadline = threading.Timer(60, lifecycle.stopping.set)
    deadline.start()
    work = kind(target, stop_at, lifecycle.stopping.set, fail_every)
    run_transactional(settings, f"{source}.copy", [source], f"{source}.copy", work, lifecycle)
    deadline.cancel()


def copied(settings: Settings, target: str) -> list[int]:
    return sorted(int(message.value or b"-1") for message in read_topic(settings, target))


def test_every_record_is_copied_once_over_restarts(settings: Settings, topics: tuple[str, str]) -> None:
    copy(settings, topics, COUNT // 3)
    copy(settings, topics, COUNT)
    assert copied(settings, topics[1]) == list(range(COUNT))


def test_failing_batch_leaves_nothing_behind_and_comes_again(settings: Settings, topics: tuple[str, str]) -> None:
    copy(settings, topics, COUNT, fail_every=2)
    # The last commit may itself be refused in a rebalance; what it held comes again at the next start.
    copy(settings, topics, COUNT)
    assert copied(settings, topics[1]) == list(range(COUNT))


def test_transaction_that_cannot_be_committed_comes_again(settings: Settings, topics: tuple[str, str]) -> None:
    fenced = []

    class Fenced(Copy):
        def process(self, batch: Sequence[Message], now_ms: int) -> list[Output]:
            if batch and not fenced:
                # Whoever takes up the same transactional id ends what is open under it.
                fenced.append(producer(settings, **{"transactional.id": f"{topics[0]}.copy"}))
                fenced[0].init_transactions(30)
            return super().process(batch, now_ms)

    copy(settings, topics, COUNT, kind=Fenced)
    assert fenced
    copy(settings, topics, COUNT)
    assert copied(settings, topics[1]) == list(range(COUNT))


def test_drained_group_of_a_transactional_topic_has_no_lag(settings: Settings, topics: tuple[str, str]) -> None:
    copy(settings, topics, COUNT)
    _, target = topics
    lifecycle = Lifecycle("drain", "test")
    sink = Copy(topics[0], COUNT, lambda: None)
    sink.process = lambda batch, now_ms: []  # type: ignore[method-assign]  # consumes without output
    client = admin(settings)
    group = f"{target}.drain"

    def stop_when_drained() -> None:
        while not lifecycle.stopping.is_set():
            found = {number: offset for number, (offset, _) in committed_offsets(settings, group, target).items()}
            if found == end_offsets(client, target):
                lifecycle.stopping.set()
            lifecycle.stopping.wait(0.05)

    watcher = threading.Thread(target=stop_when_drained)
    watcher.start()
    deadline = threading.Timer(30, lifecycle.stopping.set)
    deadline.start()
    run_transactional(settings, group, [target], group, sink, lifecycle)
    watcher.join()
    assert deadline.is_alive(), "the group never reached the end offsets"
    deadline.cancel()


def test_end_of_a_partition_is_told_after_the_records_before_it_and_not_while_more_wait(
    settings: Settings, topics: tuple[str, str]
) -> None:
    counts = {
        number: sum(1 for _ in read_topic(settings, topics[0], partitions=[number])) for number in range(PARTITIONS)
    }
    told: list[dict[int, int]] = []
    written = threading.Event()

    class Ended(Copy):
        def ended(self, partitions: Collection[tuple[str, int]]) -> None:
            told.append({number: self.copied[number] for _, number in partitions})
            if told[-1] == counts and not written.is_set():
                # One more in each partition, of which the end has been told already.
                writer = producer(settings)
                for number in range(PARTITIONS):
                    writer.produce(topics[0], str(COUNT + number), partition=number)
                assert writer.flush(30) == 0
                written.set()
            elif told[-1] == {number: end + 1 for number, end in counts.items()}:
                self.stop()

    lifecycle = Lifecycle("copy", "test")
    deadline = threading.Timer(60, lifecycle.stopping.set)
    deadline.start()
    work = Ended(topics[1], 10 * COUNT, lifecycle.stopping.set)
    run_transactional(settings, f"{topics[0]}.copy", [topics[0]], f"{topics[0]}.copy", work, lifecycle)
    assert deadline.is_alive(), "the ends were never told"
    deadline.cancel()
    assert all(count in (counts[number], counts[number] + 1) for call in told for number, count in call.items())


def test_end_behind_a_transaction_is_told_again_after_the_broker_was_asked(
    settings: Settings, topics: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    copy(settings, topics, COUNT)
    monkeypatch.setattr(ends, "CHECK_S", 0.0)
    told: list[int] = []

    class Ended(Copy):
        def ended(self, partitions: Collection[tuple[str, int]]) -> None:
            told.append(len(partitions))
            if told[-10:] == [PARTITIONS] * 10:
                self.stop()

    source, target = topics
    lifecycle = Lifecycle("copy", "test")
    deadline = threading.Timer(60, lifecycle.stopping.set)
    deadline.start()
    work = Ended(source, 10 * COUNT, lifecycle.stopping.set)
    run_transactional(settings, f"{target}.copy", [target], f"{target}.copy", work, lifecycle)
    assert deadline.is_alive(), f"the ends were not told again: {told[-20:]}"
    deadline.cancel()


def test_the_newest_of_each_partition_are_its_last_records_in_order(
    settings: Settings, topics: tuple[str, str]
) -> None:
    def numbers(newest: int | None) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        for message in read_topic(settings, topics[0], newest=newest):
            found.setdefault(message.partition, []).append(int(message.value or b"-1"))
        return found

    everything = numbers(None)
    assert numbers(10) == {partition: values[-10:] for partition, values in everything.items()}
    assert numbers(10 * COUNT) == everything


def test_reader_that_waits_for_open_transactions_finds_what_was_committed_behind_them(
    settings: Settings, topics: tuple[str, str]
) -> None:
    topic = topics[1]
    dead, alive = (producer(settings, **{"transactional.id": f"{topic}.{name}"}) for name in ("dead", "alive"))
    for writer in (dead, alive):
        writer.init_transactions(30)
        writer.begin_transaction()
        writer.produce(topic, b"lost" if writer is dead else b"kept", partition=0)
        assert writer.flush(30) == 0
    alive.commit_transaction(30)
    assert list(read_topic(settings, topic, partitions=[0])) == []
    ended = threading.Timer(1.0, dead.abort_transaction)
    ended.start()
    assert [message.value for message in read_topic(settings, topic, partitions=[0], settled=True)] == [b"kept"]
    ended.join()
