"""Readings of a window against naive loops over its predictions, their law, and what may not move them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from load_tests.studies.conversions import DAY_MS, HOUR_MS, START_MS, Stream, World, simulate, use_case
from tailrace.backends.codec import decode, encode
from tailrace.contracts.quality import Reading
from tailrace.core.influence import influences
from tailrace.core.label_delay import LEAST_SHARE, cell_of
from tailrace.core.label_free import estimate, failed
from tailrace.core.metrics import metrics_of, metrics_of_counts
from tailrace.core.provisional import Histogram
from tailrace.core.quality import QualityWindows
from tailrace.core.readings import Readings
from tailrace.core.scoring import bin_of, on_grid
from tailrace.core.window_counts import WindowCounts, WindowKey

WINDOW_MS = 2 * DAY_MS
FULL = [(0.05, True), (0.3, False), (0.3, True), (0.6, False), (0.9, True), (0.9, True)]
LABELS = st.lists(st.tuples(st.sampled_from([0.02, 0.2, 0.5, 0.7, 0.95]), st.booleans()), max_size=30)


def key(day: int) -> WindowKey:
    return WindowKey(START_MS + day * DAY_MS, "champion", "1", "")


def fed(seed: int = 0, *, if_absent: bool | None = False, days: float = 9.5) -> tuple[World, Stream]:
    stream = simulate(np.random.default_rng(seed), days=10, per_day=3_000, base=-1.5)
    stream = stream._replace(delay_ms=stream.delay_ms // 4)
    world = World(use_case(window="2d", if_absent=if_absent), stream, negatives_too=if_absent is None)
    for hour in range(6, int(24 * days) + 1, 6):
        world.advance(START_MS + hour * HOUR_MS)
    return world, stream


def naive_weights(
    readings: Readings, stream: Stream, mine: NDArray[np.int64], now_ms: int, *, by_absence: bool
) -> tuple[list[float], list[float], list[float]]:
    """Score, positive and negative weight of each prediction of a day, one after the other."""
    scores, positive, negative = [], [], []
    for at in mine.tolist():
        time_ms, came_ms = int(stream.time_ms[at]), int(stream.time_ms[at] + stream.delay_ms[at])
        in_time = stream.delay_ms[at] < WINDOW_MS
        reported = bool(in_time and came_ms <= now_ms and (stream.label[at] or not by_absence))
        label = bool(stream.label[at])
        curve = readings.curves[label if not by_absence else True]
        cell = cell_of(stream.score[at : at + 1])
        share = float(curve.at(cell, np.array([time_ms]), now_ms).share[0])
        if now_ms - time_ms >= WINDOW_MS:
            share = 1.0
        if share < LEAST_SHARE or (not by_absence and not reported):
            continue
        weight = 1.0 / share if reported else 0.0
        scores.append(float(stream.score[at]))
        positive.append(weight if label else 0.0)
        negative.append(1.0 - weight * label if by_absence else weight * (not label))
    return scores, positive, negative


@pytest.mark.parametrize("if_absent", [False, None])
@pytest.mark.parametrize("day", [7, 8, 9])
def test_provisional_is_the_naive_sum_of_weighted_losses(if_absent: bool | None, day: int) -> None:
    world, stream = fed(if_absent=if_absent)
    readings, now_ms = world.state.readings(), START_MS + int(9.5 * DAY_MS)
    found = readings.provisional(key(day))
    assert found is not None
    mine = np.flatnonzero((stream.time_ms // DAY_MS * DAY_MS == key(day).start_ms) & (stream.time_ms <= now_ms))
    rows = naive_weights(readings, stream, mine, now_ms, by_absence=if_absent is False)
    score, positive, negative = (np.array(column) for column in rows)
    total = positive.sum() + negative.sum()
    loss = -(positive @ np.log(score) + negative @ np.log1p(-score)) / total
    assert found.metrics["log_loss"] == pytest.approx(loss, rel=1e-6)
    assert found.metrics["base_rate"] == pytest.approx(positive.sum() / total, rel=1e-6)
    pairs = (score[:, None] > score[None, :]) + 0.5 * (score[:, None] == score[None, :])
    area = positive @ pairs @ negative / (positive.sum() * negative.sum())
    assert found.metrics["roc_auc"] == pytest.approx(area, rel=1e-6)


def test_provisional_corrects_what_is_seen_so_far_and_says_how_much_has_come() -> None:
    world, stream = fed(days=9.0)
    found, now_ms = world.state.readings().provisional(key(8)), START_MS + 9 * DAY_MS
    assert found is not None
    mine = stream.time_ms // DAY_MS * DAY_MS == key(8).start_ms
    final = stream.final(WINDOW_MS)[mine]
    come = final & (stream.time_ms + stream.delay_ms <= now_ms)[mine]
    truth, naive = (metrics_of(stream.score[mine], labels, 0.5) for labels in (final, come))
    for name in ("base_rate", "log_loss", "calibration", "brier"):
        value, wrong = truth[name] or 0.0, naive[name] or 0.0
        assert abs((found.metrics[name] or 0.0) - value) < 0.35 * abs(wrong - value)
        low, high = found.intervals[name]
        assert low <= value <= high
    assert found.arrived == pytest.approx(come.sum() / final.sum(), abs=0.05)


def test_window_whose_labels_are_all_there_has_no_provisional_reading() -> None:
    world, _ = fed()
    assert world.state.readings().provisional(key(5)) is None
    assert key(5) not in set(world.state.readings())


def test_before_any_window_has_closed_the_provisional_reading_is_withheld() -> None:
    world, _ = fed(days=1.5)
    found = world.state.readings().provisional(key(0))
    assert found is not None
    assert (found.metrics, "too few" in found.withheld) == ({}, True)


def test_reading_does_not_depend_on_the_rows_that_predictions_stand_in() -> None:
    calm, other = fed()[0], fed()[0]
    table = other.state.labels[0].table
    live = table.in_use()
    swapped = np.random.default_rng(0).permutation(live)
    rest = ("label", "status", "outcome", "value", "outcome_time_ms")
    for name in ("event_time_ms", "score", "bin", "cohort", "flags", *rest):
        column = getattr(table, name)
        column[live] = column[swapped]
    table.closed[live] = table.closed[swapped]
    one, two = calm.state.readings(), other.state.readings()
    assert one.provisional(key(8)) == two.provisional(key(8))
    assert one.estimate(key(8)) == two.estimate(key(8))


def test_delays_of_forgotten_predictions_are_stored_and_restored_exactly() -> None:
    world, _ = fed()
    settled, again = world.state.labels[0].counts.settled, QualityWindows()
    for window in settled:
        again.restore(window, decode(WindowCounts, encode(settled.counts(window))))
    before, after = settled.delays(True, 0), again.delays(True, 0)
    assert before.outcomes.sum() > 1_000
    assert all(np.array_equal(one, other) for one, other in zip(before, after, strict=True))


def histogram(rows: list[tuple[float, bool]]) -> Histogram:
    positions = bin_of(on_grid(np.array([score for score, _ in rows]))).astype(np.int64)
    hits = np.array([label for _, label in rows], dtype=bool)
    bins, n = np.unique(positions, return_counts=True)
    return Histogram(bins, n, np.array([int(hits[positions == at].sum()) for at in bins]))


@settings(max_examples=40, deadline=None)
@given(LABELS)
def test_influence_is_how_a_metric_moves_with_one_label(rows: list[tuple[float, bool]]) -> None:
    counts = histogram(FULL + rows)
    n, positives, step = counts.n.astype(float), counts.positives.astype(float), 1e-6
    for name, by in influences(counts.bins, n, positives, threshold=0.5).items():
        for at in range(len(n)):
            for moved, expected in ((1.0, by.positive[at]), (0.0, by.negative[at])):
                more, hits = n.copy(), positives.copy()
                more[at] += step
                hits[at] += step * moved
                was, now = (
                    metrics_of_counts(counts.bins, *c, threshold=0.5)[name] for c in ((n, positives), (more, hits))
                )
                assert ((now or 0.0) - (was or 0.0)) / step == pytest.approx(expected, abs=1e-4)


def test_interval_of_the_area_under_the_curve_is_delongs() -> None:
    rng = np.random.default_rng(5)
    label = rng.random(400) < 0.3
    score = on_grid(1.0 / (1.0 + np.exp(-(rng.normal(0.0, 1.0, 400) + label))))
    counts = histogram(list(zip(score.tolist(), label.tolist(), strict=True)))
    by = influences(counts.bins, counts.n.astype(float), counts.positives.astype(float), threshold=None)["roc_auc"]
    found = counts.positives @ by.positive**2 + (counts.n - counts.positives) @ by.negative**2
    pairs = (score[label][:, None] > score[~label]) + 0.5 * (score[label][:, None] == score[~label])
    delong = pairs.mean(axis=1).var() / label.sum() + pairs.mean(axis=0).var() / (~label).sum()
    assert found == pytest.approx(delong, rel=1e-9)


def test_estimate_expects_of_scores_what_older_labels_said_of_them() -> None:
    rng = np.random.default_rng(2)
    score = on_grid(rng.uniform(0.05, 0.95, 40_000))
    # The model is too sure of itself; older labels tell.
    truth = 1.0 / (1.0 + np.exp(-0.5 * np.log(score / (1.0 - score))))
    label = rng.random(len(score)) < truth
    older = histogram(list(zip(score[:30_000].tolist(), label[:30_000].tolist(), strict=True)))
    found = estimate(histogram([(s, False) for s in score[30_000:].tolist()]), older, threshold=0.5)
    final = metrics_of(score[30_000:], label[30_000:], 0.5)
    for name in ("accuracy", "roc_auc", "base_rate"):
        assert found.metrics[name] == pytest.approx(final[name], abs=0.02)
    assert failed([(found, final)]) == ""
    turned = metrics_of(score[30_000:], ~label[30_000:], 0.5)
    assert "was estimated" in failed([(found, final), (found, turned)])
    assert failed([(found, final)] * 3 + [(found, turned)]) == ""


def test_estimate_is_withdrawn_once_labels_have_contradicted_it_and_not_before() -> None:
    rng = np.random.default_rng(3)
    stream = simulate(rng, days=10, per_day=2_000, base=-0.5)
    turned = stream.time_ms >= START_MS + 6 * DAY_MS
    stream = stream._replace(label=stream.label ^ turned, delay_ms=np.minimum(stream.delay_ms, DAY_MS // 2))
    world = World(use_case(window="1d"), stream)
    said: dict[int, Reading] = {}
    for day in range(1, 9):
        world.advance(START_MS + day * DAY_MS)
        said[day] = world.state.readings().estimate(key(day - 1))
    assert [day for day, reading in said.items() if reading.withheld] == [8]
    # What was said of a day is what is said of it for ever, so that it can be compared.
    assert world.state.readings().estimate(key(4)) == said[5]
