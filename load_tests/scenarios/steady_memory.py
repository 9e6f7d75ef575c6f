"""Resident memory of features, inference and feedback at steady load, in megabytes it grows by in an hour.

Events of 10,000 cards come at a constant rate by timetable, an outcome for a tenth of them, and stream time runs at a
week a minute. So everything that may fill up is full before anything is measured: the longest window after a minute,
predictions open to labels and their corrections after 17 seconds, windows of live metrics after two and a half minutes.
What grows from then on would grow for ever. The first ten minutes are not counted: until then allocators find their peak. Of each service the
notes say the slope of its memory over the minutes with a 95 % interval (Theil 1950, Sen 1968: the median of the slopes of
all pairs, so that a step or a peak does not decide it), and its memory at the end. The figure is the sum of the slopes.
The interval takes minutes for independent. `--minutes` sets the length, an hour where it is not given, which takes
some 15 GB of disk.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np
import psutil
from numpy.typing import NDArray
from scipy.stats import theilslopes

from load_tests import services, workload
from load_tests.bench import Bench, Candidate
from load_tests.events import START_MS, payments
from load_tests.feature_rows import WIDTH
from load_tests.generator import await_flow
from load_tests.streams import PARTITIONS
from tailrace.backends.kafka import producer
from tailrace.backends.settings import Settings
from tailrace.contracts.topics import Topics
from tailrace.trainer.reference import reference_of
from tailrace.usecase.declaration import UseCase

UNIT = "MB/h"
SHORT = False
RATE = 2_000.0
EVENTS = 7_200_000
STREAM_SPEED = 7 * 86_400 // 60
"""Stream seconds per second: a week passes in a minute."""
OUTCOME_SHARE = 0.1
WARM_UP_S = 600.0
CHUNK = 10_000
TURN_S = 0.02
SAMPLE_S = 5.0
START_S = 60.0
SERVICES = ("features", "inference", "feedback")


def tailrace(bench: Bench) -> float:
    """The three services as deployed."""
    with workload.declared(bench) as (settings, case):
        rng = np.random.default_rng(bench.seed)
        rows = rng.normal(size=(2_000, WIDTH)).astype(np.float32)
        reference = reference_of(case.plan, rows, rng.beta(1, 8, len(rows)))
        workload.promote(settings, case, reference=reference, metrics={"log_loss": 0.3})
        started = {name: services.service(name, case.name) for name in SERVICES}
        with services.measured(settings, started) as (alive, processes):
            samples = _sampled(bench, settings, case, alive, processes)
            await_flow(settings, case.requests.name, Topics(case.name).predictions, timeout_s=START_S, alive=alive)
    for name in SERVICES:
        slope, low, high = growth(samples["at_s"], samples[name])
        bench.notes |= {
            f"{name}_mb_per_hour": slope,
            f"{name}_low": low,
            f"{name}_high": high,
            f"{name}_mb": float(samples[name][-1]),
        }
    bench.notes["late_s"] = float(samples["late_s"].max())
    return sum(bench.notes[f"{name}_mb_per_hour"] for name in SERVICES)


def growth(at_s: NDArray[np.float64], mb: NDArray[np.float64]) -> tuple[float, float, float]:
    """Slope of memory behind the warm-up: median, lower and upper end of the 95 % interval, megabytes per hour.

    Args:
        at_s: float64 (n,), times of the samples, seconds since the start, ascending.
        mb: float64 (n,), megabytes.

    Raises:
        ValueError: less than three minutes are left behind the warm-up, so that there is no interval.
    """
    counted = at_s >= WARM_UP_S
    minutes = (at_s[counted] // 60).astype(np.int64)
    medians = [float(np.median(mb[counted][minutes == minute])) for minute in np.unique(minutes)]
    if len(medians) < 3:
        raise ValueError("too short: memory is compared by the minute behind ten of warm-up; say --minutes 13 or more")
    slope, _, low, high = theilslopes(medians, np.unique(minutes) / 60)
    return float(slope), float(low), float(high)


def _sampled(
    bench: Bench,
    settings: Settings,
    case: UseCase,
    alive: Callable[[], None],
    processes: Mapping[str, psutil.Process],
) -> dict[str, NDArray[np.float64]]:
    """Sends the events, and looks at the memory meanwhile; `late_s`: how far the generator was behind its timetable."""
    load = _Load(settings, case, bench.events, bench.seed)
    found: dict[str, list[float]] = {name: [] for name in ("at_s", "late_s", *SERVICES)}
    start = time.monotonic()
    while load.sent < bench.events:
        now = time.monotonic() - start
        load.send_until(now)
        if now >= SAMPLE_S * len(found["at_s"]):
            alive()
            found["at_s"].append(now)
            found["late_s"].append(time.monotonic() - start - now)
            for name, process in processes.items():
                found[name].append(process.memory_info().rss / 1e6)
        time.sleep(TURN_S)
    load.flush()
    return {name: np.array(values) for name, values in found.items()}


class _Load:
    """Events by timetable, and the outcomes of some when stream time has come to them."""

    def __init__(self, settings: Settings, case: UseCase, events: int, seed: int) -> None:
        self.sent = 0
        self._writer = producer(settings)
        self._payments, self._outcomes = case.requests.name, case.label.topic.name
        self._events = events
        self._rng = np.random.default_rng(seed)
        self._made: list[tuple[bytes, bytes, int]] = []
        self._judged = np.empty((0, 2), np.int64)

    def send_until(self, now_s: float) -> None:
        """Sends what is due at `now_s` seconds since the start."""
        due = min(int(now_s * RATE), self._events)
        while self.sent < due:
            at = self.sent % CHUNK
            if at == 0:
                self._make()
            end = min(at + due - self.sent, CHUNK)
            for key, value, partition in self._made[at:end]:
                self._writer.produce(self._payments, value, key, partition=partition)
            self.sent += end - at
            self._writer.poll(0)
        self._report(START_MS + int(1_000 * now_s * STREAM_SPEED))

    def flush(self) -> None:
        """Waits until the broker has everything."""
        self._writer.flush(60)

    def _make(self) -> None:
        numbers = np.arange(self.sent, self.sent + CHUNK)
        at_ms = START_MS + (numbers * (1_000 * STREAM_SPEED / RATE)).astype(np.int64)
        seed = int(self._rng.integers(2**31))
        self._made = payments(CHUNK, seed=seed, at_ms=at_ms, first=self.sent)
        chosen = self._rng.random(CHUNK) < OUTCOME_SHARE
        reported = at_ms[chosen] + self._rng.integers(1, 86_400_000, int(chosen.sum()))
        waiting = np.vstack([self._judged, np.column_stack([numbers[chosen], reported])])
        self._judged = waiting[np.argsort(waiting[:, 1], kind="stable")]

    def _report(self, stream_ms: int) -> None:
        due = int(np.searchsorted(self._judged[:, 1], stream_ms))
        for number, at_ms in self._judged[:due].tolist():
            value = b'{"payment_id":"%d","fraud":true,"at_ms":%d}' % (number, at_ms)
            self._writer.produce(self._outcomes, value, b"%d" % number, partition=number % PARTITIONS)
        self._judged = self._judged[due:]


CANDIDATES: dict[str, Candidate] = {"tailrace": tailrace}
FLOORS: dict[str, float] = {}
LIMITS = {f"{name}_low": 0.0 for name in SERVICES}
