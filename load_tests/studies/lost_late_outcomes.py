"""Outcomes that take days or weeks, half of which are lost for some hours: what of it is left in the labels.

    python -m load_tests.studies.lost_late_outcomes [--seeds 8] [--json]

Conversions within 7 days and chargebacks within 30, of which positives alone are reported, through the real join and
monitor. Half of what should have come within an hour, or half a day, is lost; its events end as negatives up to a
whole attribution window later. Told are, of all days that were befallen, the share of the positives that is missing
among the events that count, beside that among all events; how much traffic is left out; and the alarms of loss
detectors after the break, none of which would be honest.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

import tailrace as tr
from load_tests.studies.conversions import DAY_MS, HOUR_MS, START_MS, Stream, World, simulate, use_case
from load_tests.studies.report import Figure, report
from tailrace.contracts.retraining import RetrainRequested
from tailrace.core.durations import milliseconds
from tailrace.core.e_detector import Baseline
from tailrace.core.lost_outcomes import MATERIAL, within
from tailrace.core.monitor_state import Champion
from tailrace.core.reference import Distribution, Reference

DETECTORS = (tr.drift.EDetector("accuracy"), tr.drift.EDetector("log_loss"))
SHARE = 0.5
GATE_ROWS = 20_000
"""Labels by which the usual loss is known. By all, detectors would alarm once in 100,000 labels, as they promise."""
LEAST_POSITIVES = 100
"""Positives of a day among the events that count below which the share that is missing says nothing."""


class Law(NamedTuple):
    """How late outcomes come: the attribution window, and by how much longer delays are than those of conversions."""

    window: str
    slower: int
    per_day: int
    every_h: int


# Some seven positives a minute: of less, half may be missing for an hour, and nobody can tell.
LAWS = {"7 d": Law("7d", 1, 20_000, 1), "30 d": Law("30d", 4, 20_000, 6)}


class Left(NamedTuple):
    """What a break left: worst shares of a day's positives missing, hours of traffic left out, and what was caused."""

    missing: float
    would_be_missing: float
    left_out_h: float
    caused: int


def broken(seed: int, law: Law, hours: int) -> Left:
    """One stream with a break, five days after its first labels are final."""
    window_ms = milliseconds(law.window)
    stream = _stream(seed, law, days=2 * window_ms // DAY_MS + 8)
    rng = np.random.default_rng(seed + 1_000)
    begin_ms = START_MS + window_ms + 5 * DAY_MS + (5 * seed) % 24 * HOUR_MS
    came_ms = stream.time_ms + stream.delay_ms
    lost = stream.label & (begin_ms <= came_ms) & (came_ms < begin_ms + hours * HOUR_MS)
    lost &= rng.random(len(lost)) < SHARE
    world = World(use_case(window=law.window, monitor=DETECTORS), stream._replace(label=stream.label & ~lost))
    world.state.serve(champion(stream))
    asked = _played(world, begin_ms + window_ms + (hours + 1) * HOUR_MS, law.every_h)
    spans = world.state.monitor.lost.spans
    truth, out = stream.final(window_ms), within(spans, stream.time_ms)
    near = (begin_ms - window_ms < stream.time_ms) & (stream.time_ms < begin_ms + hours * HOUR_MS)
    day = stream.time_ms // DAY_MS
    return Left(
        _missing(day, truth & near & ~out, lost),
        _missing(day, truth & near, lost),
        sum(end - start for start, end in spans) / HOUR_MS,
        sum(at_ms >= begin_ms for at_ms in asked),
    )


def champion(stream: Stream) -> Champion:
    """A model that is as good as can be: its scores are the probabilities that labels are drawn from."""
    p, label = stream.score[:GATE_ROWS], stream.label[:GATE_ROWS]
    losses = {
        "accuracy": ((p >= 0.5) != label).astype(np.float64),
        "log_loss": -np.log(np.where(label, p, 1.0 - p)),
    }
    even = Distribution(edges=[0.25, 0.5, 0.75], counts=[5_000] * 4, nulls=0, low=0.0, high=1.0, scale=0.5)
    known = {name: Baseline.of(loss) for name, loss in losses.items()}
    reference = Reference(format=2, rows=GATE_ROWS, features={"bid": even}, score=even, losses=known)
    return Champion("1", {}, msgspec.to_builtins(reference))


def figures(seeds: int) -> list[Figure]:
    """The worst of all seeds."""
    found = []
    for name, law in LAWS.items():
        for hours in (1, 12):
            runs = [broken(seed, law, hours) for seed in range(1, seeds + 1)]
            text = f"{name}, {hours} h lost:"
            found += [
                Figure(f"{text} share of a day's positives missing", max(run.missing for run in runs), MATERIAL),
                Figure(f"{text} share with all events", max(run.would_be_missing for run in runs)),
                Figure(f"{text} hours of traffic left out", max(run.left_out_h for run in runs)),
                Figure(f"{text} retrainings caused", sum(run.caused for run in runs), 0),
            ]
    return found


def _stream(seed: int, law: Law, days: int) -> Stream:
    stream = simulate(np.random.default_rng(seed), days=days, per_day=law.per_day, base=0.0)
    # Positives are those that come in time: what comes later is no outcome, and the scores know.
    delay_ms = stream.delay_ms * law.slower
    return stream._replace(label=stream.label & (delay_ms < milliseconds(law.window)), delay_ms=delay_ms)


def _played(world: World, end_ms: int, every_h: int) -> list[int]:
    """Feeds a stream to its end; gives the times at which a new model was asked for."""
    asked, state = [], world.state
    for now_ms in range(START_MS + every_h * HOUR_MS, end_ms + 1, every_h * HOUR_MS):
        world.advance(now_ms)
        state.monitor.advance(now_ms)
        decided = state.tick(now_ms).decided
        asked += [one.requested_at_ms for one in decided if isinstance(one, RetrainRequested)]
    return asked


def _missing(day: NDArray[np.int64], truth: NDArray[np.bool_], lost: NDArray[np.bool_]) -> float:
    """Worst share of a day's positives, bool (n,) `truth`, that is lost."""
    first = int(day.min())
    positives, gone = (np.bincount(day[which] - first, minlength=1) for which in (truth, truth & lost))
    gone = np.pad(gone, (0, len(positives) - len(gone)))
    told = positives >= LEAST_POSITIVES
    return float((gone[told] / positives[told]).max(initial=0.0))


if __name__ == "__main__":
    report(figures)
