"""Workers of one service over the partitions of one topic: what they do in a second, and in a second of processor time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import psutil
from confluent_kafka import KafkaException

from load_tests import services
from load_tests.services import Alive
from load_tests.streams import PARTITIONS
from tailrace.backends.kafka import admin, end_offsets
from tailrace.backends.settings import Settings

BEGIN, END = 0.1, 0.9
"""Shares of the outputs between which is measured: before, workers start; behind, partitions run dry one by one."""
LEAST = 0.3
"""Least share of the outputs that must be measured."""
SAMPLE_S = 0.05
ASSIGNED_S = 60.0
SLICE_S = 0.02


class Rates(NamedTuple):
    """What a group of workers came to.

    Events per second by the clock; events per second of processor time of all workers together; processor time of all
    workers per event, microseconds; processors that the workers kept busy; processors of the machine left idle;
    resident megabytes of all workers together; processor time of broker and Redis per event, microseconds.
    """

    by_clock: float
    by_core: float
    cpu_us: float
    busy_cores: float
    idle_cores: float
    resident_mb: float
    broker_us: float
    redis_us: float

    def notes(self) -> dict[str, float]:
        """The figures by name."""
        return {f"events_s_{name}" if name.startswith("by_") else name: value for name, value in self._asdict().items()}


class _Sample(NamedTuple):
    at_s: float
    outputs: int
    cpu_s: float
    idle_s: float
    broker_s: float
    redis_s: float


@contextmanager
def running(
    settings: Settings, service: str, use_case: str, count: int, group: str
) -> Iterator[tuple[Alive, dict[str, psutil.Process]]]:
    """Workers of a service as deployed, from the moment when each has its share of the partitions.

    Raises:
        TimeoutError: the partitions were not shared out.
    """
    commands = {f"{service}-{number}": services.service(service, use_case) for number in range(count)}
    with services.measured(settings, commands) as (alive, processes):
        _await_shares(settings, group, count, alive)
        yield alive, processes


def rates(
    settings: Settings,
    sink: str,
    events: int,
    alive: Alive,
    processes: Mapping[str, psutil.Process],
    *,
    before: int = 0,
) -> Rates:
    """Waits until a topic holds `events` records, and says what the workers that write them needed.

    Nothing but end offsets is asked for meanwhile; markers of transactions, a few in a thousand, count as records.
    `before` is how many records the topic held before; they do not count.

    Raises:
        TimeoutError: fewer records came.
        ValueError: most of them were there before the measurement began.
    """
    samples = list(_samples(settings, sink, events, alive, processes, before))
    counted = [sample for sample in samples if BEGIN * events <= sample.outputs <= END * events]
    if len(counted) < 2 or counted[-1].outputs - counted[0].outputs < LEAST * events:
        raise ValueError("too few events: most of them were done before all workers had their partitions")
    first, last = counted[0], counted[-1]
    took_s, outputs, cpu_s = (last.at_s - first.at_s, last.outputs - first.outputs, last.cpu_s - first.cpu_s)
    resident = sum(process.memory_info().rss for process in processes.values())
    return Rates(
        by_clock=outputs / took_s,
        by_core=outputs / cpu_s,
        cpu_us=1e6 * cpu_s / outputs,
        busy_cores=cpu_s / took_s,
        idle_cores=(last.idle_s - first.idle_s) / took_s,
        resident_mb=resident / 1e6,
        broker_us=1e6 * (last.broker_s - first.broker_s) / outputs,
        redis_us=1e6 * (last.redis_s - first.redis_s) / outputs,
    )


@contextmanager
def in_turns(processes: Mapping[str, psutil.Process], turns: int) -> Iterator[None]:
    """Lets each process run for one of `turns` slices of time only, no two of them at once; 0: as they like.

    So several workers find the machine as a single one does, which has cores for all of them.
    """
    if not turns:
        yield
        return
    over = threading.Event()

    def take_turns() -> None:
        slots = [*processes.values(), *[None] * (turns - len(processes))]
        while not over.is_set():
            for process in slots:
                if process is not None:
                    process.resume()
                time.sleep(SLICE_S)
                if process is not None:
                    process.suspend()

    for process in processes.values():
        process.suspend()
    thread = threading.Thread(target=take_turns)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        for process in processes.values():
            process.resume()


def _samples(
    settings: Settings, sink: str, events: int, alive: Alive, processes: Mapping[str, psutil.Process], before: int
) -> Iterator[_Sample]:
    client, found = admin(settings), services.servers()
    deadline = time.monotonic() + services.TIMEOUT_S
    outputs = 0
    while outputs < events:
        alive()
        if time.monotonic() > deadline:
            raise TimeoutError(f"{outputs:,} of {events:,} outputs after {services.TIMEOUT_S:.0f} s")
        outputs = sum(end_offsets(client, sink).values()) - before
        spent = sum(services.spent_s(process) for process in processes.values())
        beside = tuple(services.spent_s(found[name]) for name in ("broker", "redis"))
        yield _Sample(time.monotonic(), outputs, spent, psutil.cpu_times().idle, *beside)
        time.sleep(SAMPLE_S)


def _await_shares(settings: Settings, group: str, count: int, alive: Alive) -> None:
    """Waits until every worker has as many partitions as every other."""
    client = admin(settings)
    deadline = time.monotonic() + ASSIGNED_S
    while time.monotonic() < deadline:
        alive()
        try:
            found = client.describe_consumer_groups([group], request_timeout=10)[group].result()
        except KafkaException:  # the group's coordinator is not up yet
            time.sleep(0.2)
            continue
        shares = [len(m.assignment.topic_partitions) if m.assignment else 0 for m in found.members]
        if shares and sum(shares) >= PARTITIONS and len(shares) == count and len(set(shares)) == 1:
            return
        time.sleep(0.05)
    raise TimeoutError(f"the partitions were not shared out among {count} workers within {ASSIGNED_S:.0f} s")
