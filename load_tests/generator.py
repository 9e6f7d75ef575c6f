"""Open loop: several processes send by timetable, several read, and latency counts from the intended send time.

A system that falls behind cannot slow this generator down, so its latencies show the queue that it made
(coordinated omission, Tene 2013). All processes read the same monotonic clock, which Linux has one of.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from multiprocessing.queues import Queue
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from typing import NamedTuple

import msgspec
import numpy as np

from load_tests import events, streams
from load_tests.latency import Latencies
from load_tests.timetable import Law, arrivals, share_of
from tailrace.backends.kafka import producer
from tailrace.backends.settings import Settings

LEAD_S = 0.5
"""Between the moment when all processes are ready and the first event: they make their events meanwhile."""
READY_S = 60.0
"""Longest time that a process may take to import, connect and find its offsets."""
PATIENCE_S = 15.0
"""How long the readers wait behind the last intended send time."""
QUIET_S = 5.0
"""Behind the last intended send time, this long without a record means that nothing more comes."""
PROBE = "probe"


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent, and what of it is measured.

    Attributes:
        source: Topic to send to.
        sink: Topic in which one record per event appears, with its `event_id`.
        rate: Events per second.
        duration_s: Length, seconds.
        warm_up_s: Events intended before this are sent and not measured, seconds.
        law: Law of the arrivals.
        seed: Of arrivals and events.
        senders: Sending processes.
        readers: Reading processes; each takes some of the partitions.
    """

    source: str
    sink: str
    rate: float
    duration_s: float
    warm_up_s: float
    law: Law = "poisson"
    seed: int = 7
    senders: int = 2
    readers: int = 2


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a load, warm-up left out.

    `latencies` run from intended send time to read, `lateness` from intended to true send time: where that
    is long, the generator was short of processor time, and the latencies count it.
    """

    latencies: Latencies
    lateness: Latencies
    sent: int
    missing: int
    twice: int


class _Reply(msgspec.Struct, frozen=True):
    """What a process reports: a histogram and how much it saw."""

    histogram: bytes
    count: int
    twice: int = 0


class _Named(msgspec.Struct, frozen=True):
    event_id: str


def run_load(settings: Settings, load: Load, *, alive: Callable[[], None]) -> Outcome:
    """Sends a load and measures what becomes of it.

    Args:
        settings: The broker.
        load: What to send.
        alive: Raises when the system under test has ended.

    Raises:
        TimeoutError: a process of the generator did not report in time.
    """
    context = multiprocessing.get_context("spawn")
    gate = _Gate(context.Queue(), context.Event(), context.Value("d", 0.0))
    parts = [("sent", send, part, load.senders) for part in range(load.senders)]
    parts += [("read", read, part, load.readers) for part in range(load.readers)]
    processes = [
        context.Process(target=_reporting, args=(gate, kind, work, settings, load, part, of), daemon=True)
        for kind, work, part, of in parts
    ]
    for process in processes:
        process.start()
    _collect(gate, ["ready"] * len(parts), READY_S, alive)
    gate.start.value = time.monotonic() + LEAD_S
    gate.opened.set()
    longest_s = LEAD_S + load.duration_s + PATIENCE_S + READY_S
    found = _collect(gate, [kind for kind, *_ in parts], longest_s, alive)
    for process in processes:
        process.join(10)
    return _outcome(found["sent"], found["read"])


class _Gate(NamedTuple):
    """What the processes share: their reports, and when the timetable begins, once that is known."""

    reports: Queue[tuple[str, _Reply]]
    opened: Event
    start: Synchronized[float]


def _collect(gate: _Gate, awaited: list[str], limit_s: float, alive: Callable[[], None]) -> dict[str, list[_Reply]]:
    """Waits for one report of each kind that is awaited."""
    found: dict[str, list[_Reply]] = {kind: [] for kind in awaited}
    deadline = time.monotonic() + limit_s
    for _ in awaited:
        while gate.reports.empty():
            alive()
            if time.monotonic() > deadline:
                raise TimeoutError("a process of the generator did not report")
            time.sleep(0.05)
        kind, reply = gate.reports.get()
        found[kind].append(reply)
    return found


def _outcome(sent: Sequence[_Reply], read: Sequence[_Reply]) -> Outcome:
    count = sum(reply.count for reply in sent)
    return Outcome(
        latencies=Latencies.merged(Latencies(reply.histogram) for reply in read),
        lateness=Latencies.merged(Latencies(reply.histogram) for reply in sent),
        sent=count,
        missing=count - sum(reply.count for reply in read),
        twice=sum(reply.twice for reply in read),
    )


def send(settings: Settings, load: Load, part: int, parts: int, ready: Callable[[], float]) -> _Reply:
    """Sends this process's share of the timetable, each event when its time has come.

    `ready` is called once connected, and gives the start of the timetable on the monotonic clock.
    """
    due = arrivals(load.rate, load.duration_s, law=load.law, seed=load.seed)
    writer = producer(settings, **{"linger.ms": 0})
    writer.list_topics(load.source, timeout=10)
    start = ready()
    wall_ms = time.time_ns() // 1_000_000 + int(1000 * (start - time.monotonic()))
    payments = events.payments(len(due), seed=load.seed, at_ms=wall_ms + (1000 * due).astype(np.int64))
    late, measured = Latencies(), 0
    for place in share_of(len(due), part, parts):
        intended = start + due[place]
        while (wait_s := intended - time.monotonic()) > 0:
            # Short sleeps overshoot by little, and the client's callbacks are served in between.
            time.sleep(min(wait_s, 0.001))
            writer.poll(0)
        key, value, partition = payments[place]
        writer.produce(load.source, value, key, partition=partition)
        if due[place] >= load.warm_up_s:
            late.record(time.monotonic() - intended)
            measured += 1
    writer.flush(30)
    return _Reply(late.encode(), measured)


def read(settings: Settings, load: Load, part: int, parts: int, ready: Callable[[], float]) -> _Reply:
    """Reads some partitions of the sink, committed records only, until nothing comes any more; `ready` as above."""
    due = arrivals(load.rate, load.duration_s, law=load.law, seed=load.seed)
    reader = streams.tail(settings, load.sink, part, parts)
    start = ready()
    seen = np.zeros(len(due), np.bool_)
    latencies, measured, twice = Latencies(), 0, 0
    decode = msgspec.json.Decoder(_Named).decode
    over = start + load.duration_s
    last = now = time.monotonic()
    while now < max(over, last) + QUIET_S and now < over + PATIENCE_S:
        record = reader.poll(0.1)
        now = time.monotonic()
        if record is None or record.error() is not None or record.value() is None:
            continue
        last = now
        name = decode(record.value()).event_id
        if name.startswith(PROBE):
            continue
        place = int(name)
        if seen[place]:
            twice += 1
            continue
        seen[place] = True
        if due[place] >= load.warm_up_s:
            latencies.record(now - start - due[place])
            measured += 1
    reader.close()
    return _Reply(latencies.encode(), measured, twice)


def await_flow(settings: Settings, source: str, sink: str, *, timeout_s: float, alive: Callable[[], None]) -> None:
    """Sends probes until one has come out of every partition: then the system under test is up.

    Raises:
        TimeoutError: it did not come up.
    """
    reader = streams.tail(settings, sink, 0, 1)
    writer = producer(settings, **{"linger.ms": 0})
    decode = msgspec.json.Decoder(_Named).decode
    awaited = set(range(streams.PARTITIONS))
    deadline = time.monotonic() + timeout_s
    asked = 0.0
    try:
        while awaited:
            alive()
            now = time.monotonic()
            if now > deadline:
                raise TimeoutError(f"nothing came out of {sink} within {timeout_s:.0f} s")
            if now - asked > 0.5:
                asked = now
                for partition in awaited:
                    key, value = events.probe(f"{PROBE}{partition}", partition)
                    writer.produce(source, value, key, partition=partition)
                writer.flush(10)
            record = reader.poll(0.1)
            if record is not None and record.error() is None and record.value() is not None:
                name = decode(record.value()).event_id
                awaited.discard(int(name.removeprefix(PROBE)))
    finally:
        reader.close()


def _reporting(
    gate: _Gate,
    kind: str,
    work: Callable[[Settings, Load, int, int, Callable[[], float]], _Reply],
    settings: Settings,
    load: Load,
    part: int,
    parts: int,
) -> None:
    def ready() -> float:
        gate.reports.put(("ready", _Reply(b"", 0)))
        gate.opened.wait()
        return gate.start.value

    gate.reports.put((kind, work(settings, load, part, parts, ready)))
