"""Feedback's join and live metrics with an attribution window full of open predictions, in predictions per second.

`events` predictions of 30 features are open when the clock starts. Then half as many more come, each as
one of the open ones matures; a tenth of all predictions has an outcome. One process, exactly-once on, live
metrics, drift and changelog on. Between the two phases the process is restarted, so that what is measured
runs on restored state. The labels are counted afterwards. `inference` is how many predictions a second our
inference service makes of as many events: the join shall follow it. `naive` runs with the peers.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import psutil

from load_tests import ours
from load_tests.bench import Bench, Candidate
from load_tests.feedback_naive import serve_naive
from load_tests.predictions import make_use_case, matured, send, timetable
from tailrace.backends.kafka import read_topic
from tailrace.backends.settings import Settings
from tailrace.contracts.topics import Topics
from tailrace.feedback.service import run
from tailrace.runtime.service import Lifecycle, spare_collector
from tailrace.usecase.load import load_use_case

UNIT = "predictions/s"
LIMIT_S = 240.0


class Phase(NamedTuple):
    """What a process did between its first and its last record.

    Records per second, CPU microseconds per record, bytes of resident memory it grew by, and seconds until the first.
    """

    rate: float
    cpu_us: float
    grown_bytes: int
    restore_s: float


Serve = Callable[[Settings, Path, str, "Progress"], None]


class Mark(NamedTuple):
    """Where a process stands."""

    at_s: float
    records: int
    cpu_s: float
    rss: int

    @staticmethod
    def now(records: int) -> Mark:
        """Now, with this many records done."""
        return Mark(time.perf_counter(), records, time.process_time(), psutil.Process().memory_info().rss)


class Progress:
    """Counts what a process has done, and says when that is all.

    Args:
        expected: Records until the end.
    """

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self._began = time.perf_counter()
        self._first: Mark | None = None
        self._end: Mark | None = None

    def done(self, records: int) -> bool:
        """Takes note of how many records are done; True when all are."""
        if records and self._first is None:
            self._first = Mark.now(records)
        if records >= self.expected and self._end is None:
            self._end = Mark.now(records)
        return self._end is not None or time.perf_counter() - self._began > LIMIT_S

    def phase(self) -> Phase:
        """What was measured."""
        first, end = self._first, self._end
        if first is None or end is None:
            raise TimeoutError(f"feedback did not do {self.expected} records within {LIMIT_S} s")
        records = max(end.records - first.records, 1)
        return Phase(
            records / max(end.at_s - first.at_s, 1e-9),
            1e6 * (end.cpu_s - first.cpu_s) / records,
            end.rss - first.rss,
            first.at_s - self._began,
        )


def tailrace(bench: Bench) -> float:
    """The feedback service."""
    return measured(bench, serve_tailrace)


def naive(bench: Bench) -> float:
    """A loop as one writes it: a dict of predictions, one record after the other, changelog by key."""
    return measured(bench, serve_naive)


CANDIDATES: dict[str, Candidate] = {"tailrace": tailrace, "inference": ours.scoring}
PEERS: dict[str, Candidate] = {"naive": naive}
FLOORS = {"inference": 0.5}
EVENTS = 1_000_000
"""Fewer take hours of stream time to a batch, and are mostly ticks."""
SHORT = False


def serve_tailrace(settings: Settings, directory: Path, name: str, progress: Progress) -> None:
    """Runs the service until the last record is done."""
    lifecycle = Lifecycle("feedback", name)
    records = lifecycle.metrics.records

    def watch() -> None:
        while not progress.done(int(sum(s.value for m in records.collect() for s in m.samples))):
            time.sleep(0.02)
        lifecycle.stopping.set()

    threading.Thread(target=watch, daemon=True).start()
    run(settings, load_use_case(directory, name), lifecycle)


def measured(bench: Bench, serve: Serve, *, parallel: bool = False) -> float:
    """Live predictions per second of one process that serves a use case, whose feedback may be parallel."""
    open_predictions, live = bench.events, bench.events // 2
    use_case = make_use_case(bench.settings, bench.directory, parallel=parallel)
    stream = timetable(open_predictions, live, bench.seed)
    filled = _in_child(
        bench, serve, use_case.name, send(bench.settings, use_case, stream, 0, open_predictions, last=False)
    )
    end = open_predictions + live
    records = send(bench.settings, use_case, stream, open_predictions, end, last=True)
    steady = _in_child(bench, serve, use_case.name, records)
    # By prediction: a label that was final and is then corrected is final twice.
    final = len(
        {
            message.key
            for message in read_topic(bench.settings, Topics(use_case.name).labels)
            if message.value is not None and b'"status":"final"' in message.value
        }
    )
    if final != matured(stream, end):
        raise AssertionError(f"{final} predictions with a final label, {matured(stream, end)} expected")
    bench.notes["opening_records_s"] = filled.rate
    bench.notes["records_s"] = steady.rate
    bench.notes["bytes_per_open_prediction"] = filled.grown_bytes / open_predictions
    bench.notes["opening_cpu_us"] = filled.cpu_us
    bench.notes["cpu_us"] = steady.cpu_us
    bench.notes["restore_s"] = steady.restore_s
    return steady.rate * live / records


def _in_child(bench: Bench, serve: Serve, name: str, expected: int) -> Phase:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    child = context.Process(target=_child, args=(serve, bench.settings, bench.directory, name, expected, there))
    child.start()
    there.close()
    try:
        found: Phase | str = here.recv()
    except EOFError:
        found = "the process ended without a result"
    child.join()
    if isinstance(found, str):
        raise RuntimeError(found)
    return Phase(*found)


def _child(serve: Serve, settings: Settings, directory: Path, name: str, expected: int, out: Connection) -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    progress = Progress(expected)
    spare_collector()  # as every service does when it starts
    try:
        serve(settings, directory, name, progress)
        out.send(progress.phase())
    except BaseException as error:
        out.send(f"{type(error).__name__}: {error}")
        raise
