"""The score sketch: area under the curve against exact ranks, merging, taking back, and speed.

Scores are not on the grid when they are ranked exactly, so that the grid's rounding is part of the error.
"""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from load_tests.studies.report import Figure, report
from tailrace.core.metrics import ScoreHistogram
from tailrace.core.scoring import bin_of

EVENTS = 1_000_000
SHARDS = 64
POPULATIONS = (("balanced", 0.5, 1.0), ("2 % positive", 0.02, 1.2), ("0.2 % positive", 0.002, 2.5))
"""Name, share of positives, and by how much their log-odds lie above those of the others, in their spreads."""
SPEED_CHUNK, SPEED_S = 100_000, 1.0


def study(seeds: int) -> list[Figure]:
    """The worst of all seeds; events a second on one core."""
    figures = []
    for name, share, apart in POPULATIONS:
        worst = max(_auc_error(seed, share, apart) for seed in range(seeds))
        figures.append(Figure(f"{name}: error of ROC AUC, millionths", 1e6 * worst, 100.0))
    differ = sum(not _merges(seed) for seed in range(seeds))
    figures.append(Figure(f"merges of {SHARDS} shards that differ from one", differ, 0.0))
    figures.append(Figure("retractions that leave a trace", sum(not _restores(seed) for seed in range(seeds)), 0.0))
    figures.append(Figure("million events a second", _speed(), 50.0, ">="))
    return figures


def _population(seed: int, share: float, apart: float) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    rng = np.random.default_rng(seed)
    positive = rng.random(EVENTS) < share
    logits = rng.normal(np.log(share / (1.0 - share)), 1.2, EVENTS) + 1.2 * apart * positive
    return 1.0 / (1.0 + np.exp(-logits)), positive


def _auc_error(seed: int, share: float, apart: float) -> float:
    scores, positive = _population(seed, share, apart)
    hits = int(positive.sum())
    ranks = float(rankdata(scores)[positive].sum())
    exact = (ranks - hits * (hits + 1) / 2) / (hits * (EVENTS - hits))
    histogram = ScoreHistogram()
    histogram.add(bin_of(scores), positive)
    return abs((histogram.metrics(threshold=0.5)["roc_auc"] or 0.0) - exact)


def _merges(seed: int) -> bool:
    scores, positive = _population(seed, 0.02, 1.2)
    positions, shard = bin_of(scores), np.random.default_rng(seed).integers(0, SHARDS, EVENTS)
    one, merged = ScoreHistogram(), ScoreHistogram()
    one.add(positions, positive)
    for at in range(SHARDS):
        part = ScoreHistogram()
        part.add(positions[shard == at], positive[shard == at])
        merged.add_histogram(part)
    return one.sparse() == merged.sparse() and one.metrics(threshold=0.5) == merged.metrics(threshold=0.5)


def _restores(seed: int) -> bool:
    scores, positive = _population(seed, 0.02, 1.2)
    positions, later = bin_of(scores), np.random.default_rng(seed).random(EVENTS) < 0.3
    whole, kept = ScoreHistogram(), ScoreHistogram()
    whole.add(positions, positive)
    whole.add(positions[later], positive[later], -1)
    kept.add(positions[~later], positive[~later])
    return whole.sparse() == kept.sparse() and whole.metrics(threshold=0.5) == kept.metrics(threshold=0.5)


def _speed() -> float:
    scores, positive = _population(0, 0.02, 1.2)
    positions = bin_of(scores)
    histogram, rounds, began = ScoreHistogram(), 0, time.perf_counter()
    while time.perf_counter() - began < SPEED_S:
        at = rounds % (EVENTS // SPEED_CHUNK) * SPEED_CHUNK
        histogram.add(positions[at : at + SPEED_CHUNK], positive[at : at + SPEED_CHUNK])
        rounds += 1
    return rounds * SPEED_CHUNK / (time.perf_counter() - began) / 1e6


if __name__ == "__main__":
    report(study)
