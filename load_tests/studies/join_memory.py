"""Memory of the join: bytes per prediction that waits, and that may only be corrected, and the hard cap at its real size.

Two million predictions go through the state of one label, changelog and windows included, where a million may be kept:
row 28 of the join's truth table. Memory is what the process holds resident beyond what it held when it began.
Then a million go through an hour's window into the tier of those that may only be corrected; their ids are random, so
that they cannot be told from one another in less than 16 bytes. What each takes is what the last three fifths added.
"""

from __future__ import annotations

import gc
import multiprocessing
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import psutil

from load_tests.studies.report import Figure, report
from tailrace.core.join_records import Arrivals, JoinSpec, Outcome, Reports
from tailrace.core.join_table import ACTIVATED, Cohort
from tailrace.core.scoring import on_grid
from tailrace.feedback.changelog import Changelog
from tailrace.feedback.label_state import LabelState

CAP = 1_000_000
FIRST = 2 * CAP // 5
"""Predictions from which on it is measured what a closed one takes: what is open and what waits is all there by then."""
BATCH = 4_000
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
COHORTS = [Cohort("champion", "1", b'{"channel":"%b"}' % name) for name in (b"web", b"pos", b"atm")]


class Held(NamedTuple):
    """Resident bytes beyond the beginning, with the cap reached and at the end of as many again; and counts."""

    full: int
    after: int
    counts: dict[str, int]
    told: int


def study(seeds: int) -> list[Figure]:
    """The worst of all seeds."""
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        found = pool.map(held, range(seeds), chunksize=1)
        closed = pool.map(closing, range(seeds), chunksize=1)
    unresolved = [abs(one.counts.get("evicted_unresolved", 0) - CAP) for one in found]
    return [
        Figure("bytes per open prediction", max(one.full for one in found) / CAP, 400.0),
        Figure("bytes per closed prediction", max(closed), 80.0),
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
    full, after = marks
    return Held(full, after, dict(counts), told)


def closing(seed: int) -> float:
    """Bytes of a prediction that may only be corrected; a tenth have an outcome."""
    rng = np.random.default_rng(seed)
    spec = JoinSpec(window_ms=HOUR_MS, lateness_ms=5_000, correction_ms=30 * DAY_MS, hold_ms=DAY_MS)
    state, changelog = LabelState(spec, 90 * DAY_MS), Changelog("changelog", 34 * DAY_MS)
    process, marks = psutil.Process(), []
    for start in range(0, CAP, BATCH):
        arrivals = _arrivals(start, rng, ids=[rng.bytes(16).hex().encode() for _ in range(BATCH)])
        state.predict(arrivals)
        judged = np.flatnonzero(rng.random(BATCH) < 0.1).tolist()
        times_ms = arrivals.event_time_ms[judged].tolist()
        outcomes = [Outcome(time_ms + 60_000, False, 1.0, time_ms + 60_000) for time_ms in times_ms]
        state.observe(Reports.of([arrivals.event_ids[at] for at in judged], outcomes))
        state.advance(int(arrivals.event_time_ms[-1]))
        state.store(changelog)
        if start + BATCH in (FIRST, CAP):
            gc.collect()
            marks.append(process.memory_info().rss)
    return (marks[1] - marks[0]) / (CAP - FIRST)


def _arrivals(start: int, rng: np.random.Generator, ids: Sequence[bytes] = ()) -> Arrivals:
    numbers = range(start, start + BATCH)
    texts = [
        b'["%b:champion","%b","c%d",{"card":"c%d","merchant":"m%d"}]' % (name, name, card, card, merchant)
        for name, card, merchant in zip(
            ids or [b"p%d" % at for at in numbers],
            rng.integers(100_000, size=BATCH).tolist(),
            rng.integers(1_000, size=BATCH).tolist(),
            strict=True,
        )
    ]
    times_ms = np.arange(start, start + BATCH, dtype=np.int64) * DAY_MS // (2 * CAP)
    scores = on_grid(rng.beta(1, 8, BATCH).clip(1e-4, 1 - 1e-4))
    flags = np.full(BATCH, ACTIVATED, np.uint8)
    names = [msgspec.json.decode(text)[1] for text in texts]
    return Arrivals(names, texts, times_ms, scores, flags, COHORTS, np.arange(BATCH) % len(COHORTS))


if __name__ == "__main__":
    report(study)
