"""Memory of the join: bytes per prediction that waits, and that may only be corrected, and the hard cap at its real size.

Two million predictions go through the state of one label, changelog and windows included, where a million may be kept:
row 28 of the join's truth table. Memory is what the process holds resident beyond what it held when it began.
"""

from __future__ import annotations

import gc
import multiprocessing
from collections import Counter
from typing import NamedTuple

import msgspec
import numpy as np
import psutil

from load_tests.studies.report import Figure, report
from tailrace.core.join_records import Arrivals, JoinSpec
from tailrace.core.join_table import ACTIVATED, Cohort
from tailrace.core.scoring import on_grid
from tailrace.feedback.changelog import Changelog
from tailrace.feedback.label_state import LabelState

CAP = 1_000_000
BATCH = 4_000
DAY_MS = 86_400_000
COHORTS = [Cohort("champion", "1", b'{"channel":"%b"}' % name) for name in (b"web", b"pos", b"atm")]


class Held(NamedTuple):
    """Resident bytes beyond the beginning, with the cap reached, at the end of as many again, and closed; and counts."""

    full: int
    after: int
    closed: int
    counts: dict[str, int]
    told: int


def study(seeds: int) -> list[Figure]:
    """The worst of all seeds."""
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        found = pool.map(held, range(seeds), chunksize=1)
    unresolved = [abs(one.counts.get("evicted_unresolved", 0) - CAP) for one in found]
    return [
        Figure("bytes per open prediction", max(one.full for one in found) / CAP, 400.0),
        Figure("bytes per closed prediction", max(one.closed for one in found) / CAP, 500.0),
        Figure("memory after two million over that after one", max(one.after / one.full for one in found), 1.2),
        Figure("evicted_unresolved beside a million", max(unresolved), 0.0),
        Figure("evictions that nobody is told of", max(abs(one.told - CAP) for one in found), 0.0),
    ]


def held(seed: int) -> Held:
    """What the state holds."""
    rng = np.random.default_rng(seed)
    spec = JoinSpec(window_ms=3 * DAY_MS, lateness_ms=5_000, correction_ms=30 * DAY_MS, hold_ms=DAY_MS, max_events=CAP)
    state, changelog = LabelState(spec, 90 * DAY_MS), Changelog("changelog", 34 * DAY_MS)
    process, counts, told = psutil.Process(), Counter[str](), 0
    began, marks = process.memory_info().rss, []
    for start in range(0, 2 * CAP, BATCH):
        state.predict(_arrivals(start, rng))
        state.store(changelog)
        told += sum(side.reason == "evicted_unresolved" for side in state.take_side())
        counts += state.take_counts()
        if start + BATCH in (CAP, 2 * CAP):
            gc.collect()
            marks.append(process.memory_info().rss - began)
    state.advance(4 * DAY_MS)
    state.store(changelog)
    gc.collect()
    return Held(*marks, process.memory_info().rss - began, dict(counts), told)


def _arrivals(start: int, rng: np.random.Generator) -> Arrivals:
    numbers = range(start, start + BATCH)
    texts = [
        b'["p%d:champion","p%d","c%d",{"card":"c%d","merchant":"m%d"}]' % (at, at, at % 10_007, at % 10_007, at % 997)
        for at in numbers
    ]
    times_ms = np.arange(start, start + BATCH, dtype=np.int64) * DAY_MS // (2 * CAP)
    scores = on_grid(rng.beta(1, 8, BATCH).clip(1e-4, 1 - 1e-4))
    flags = np.full(BATCH, ACTIVATED, np.uint8)
    names = [msgspec.json.decode(text)[1] for text in texts]
    return Arrivals(names, texts, times_ms, scores, flags, COHORTS, np.arange(BATCH) % len(COHORTS))


if __name__ == "__main__":
    report(study)
