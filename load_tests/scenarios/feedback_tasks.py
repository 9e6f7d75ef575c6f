"""What parallel feedback costs one worker: the same stream joined as tasks, with the monitor beside it, and alone.

The scenario `feedback` otherwise. A worker that joins tasks is done when its monitor is.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

from prometheus_client import Counter

from load_tests.bench import Bench, Candidate
from load_tests.scenarios.feedback import Progress, measured, tailrace
from tailrace.backends.settings import Settings
from tailrace.contracts.topics import Topics
from tailrace.feedback.service import run
from tailrace.runtime.service import Lifecycle
from tailrace.usecase.load import load_use_case

UNIT = "predictions/s"
FLOORS: dict[str, float] = {}
EVENTS = 1_000_000
SHORT = False


def tasks(bench: Bench) -> float:
    """One worker of parallel feedback."""
    return measured(bench, serve_tasks, parallel=True)


CANDIDATES: dict[str, Candidate] = {"tailrace": tailrace, "tasks": tasks}


def serve_tasks(settings: Settings, directory: Path, name: str, progress: Progress) -> None:
    """Runs the service until tasks and monitor have done the last record."""
    lifecycle, topics = Lifecycle("feedback", name), Topics(name)

    def watch() -> None:
        while not progress.done(_done(lifecycle, topics, progress.expected)):
            time.sleep(0.02)
        lifecycle.stopping.set()

    threading.Thread(target=watch, daemon=True).start()
    run(settings, load_use_case(directory, name), lifecycle)


def _done(lifecycle: Lifecycle, topics: Topics, expected: int) -> int:
    read, written = _by_topic(lifecycle.metrics.records), _by_topic(lifecycle.metrics.produced)
    said, heard = written.get(topics.observations, 0), read.pop(topics.observations, 0)
    joined = sum(count for topic, count in read.items() if topic != topics.retraining)
    return joined if heard >= said else min(joined, expected - 1)


def _by_topic(counter: Counter) -> dict[str, int]:
    samples = [sample for metric in counter.collect() for sample in metric.samples]
    return {sample.labels["topic"]: int(sample.value) for sample in samples}
