"""Which events a broken join has befallen, against a loop over events, and whether those that are left are fair."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from tailrace.core.join_watch import JoinFinding
from tailrace.core.label_delay import CELLS, DAY_MS, EDGES_MS, STEPS, DelayCurve, Delays, bin_of_delay, curve_of, learn
from tailrace.core.lost_outcomes import MATERIAL, LostOutcomes, LostOutcomesData, Span, exposed, united, within

HOUR_MS, MINUTE_MS = 3_600_000, 60_000
WINDOW_MS = 4 * HOUR_MS
SPANS = st.lists(st.tuples(st.integers(0, 50), st.integers(1, 20)).map(lambda at: (at[0], at[0] + at[1])), max_size=8)


def learnt(delay_ms: NDArray[np.int64], window_ms: int) -> DelayCurve:
    """What is learnt from closed predictions with such delays."""
    delay_ms = delay_ms[delay_ms < window_ms]
    n = np.ones(len(delay_ms), np.int64)
    curve = learn(Delays(0 * n, 0 * n, bin_of_delay(delay_ms), STEPS * n, n), window_ms)
    assert curve is not None
    return curve


def exponential(mean_ms: float, window_ms: int) -> DelayCurve:
    return learnt(np.random.default_rng(0).exponential(mean_ms, 50_000).astype(np.int64), window_ms)


def share_by(curve: DelayCurve, law: NDArray[np.float64], age_ms: int) -> float:
    """Share of the outcomes that have come by an age, edge by edge."""
    edges = [min(int(edge), curve.window_ms) for edge in EDGES_MS]
    for at in range(STEPS):
        if edges[at] <= age_ms < edges[at + 1]:
            part = (age_ms - edges[at]) / (edges[at + 1] - edges[at])
            return float(law[at] + part * (law[at + 1] - law[at]))
    return 1.0 if age_ms >= curve.window_ms else float(law[0])


def lost_of(curve: DelayCurve, breaks: list[Span], time_ms: int) -> list[float]:
    """Share of an event's outcomes that come during breaks, by each stratum of a curve."""
    return [
        sum(share_by(curve, law, until - time_ms) - share_by(curve, law, since - time_ms) for since, until in breaks)
        for law in curve.shares
    ]


def random_curve(seed: int, window_ms: int) -> DelayCurve:
    """Any steps at all, those that a change of the delays leaves included."""
    rng = np.random.default_rng(seed)
    used = int(np.searchsorted(EDGES_MS, window_ms))
    curves = []
    for _ in range(2):
        events = np.zeros((2, STEPS), np.int64)
        events[:, :used] = rng.integers(0, 9, (2, used)) * (rng.random((2, used)) < 0.3)
        curves.append(curve_of(np.zeros(CELLS, np.int64), window_ms, events, np.cumsum(events, axis=1)))
    return curves[0].after(curves[1], 5 * HOUR_MS) if seed % 2 else curves[0]


@given(
    st.integers(0, 999),
    st.sampled_from([HOUR_MS, WINDOW_MS, 3 * DAY_MS]),
    st.lists(st.tuples(st.integers(0, 200), st.integers(1, 90)), min_size=1, max_size=3),
    st.lists(st.integers(-4 * 1440, 300), min_size=1, max_size=40),
)
@settings(max_examples=60, deadline=None)
def test_events_are_left_out_where_a_loop_over_them_finds_more_than_is_material(
    seed: int, window_ms: int, minutes: list[tuple[int, int]], times: list[int]
) -> None:
    curve = random_curve(seed, window_ms)
    breaks = [(since * MINUTE_MS, (since + span) * MINUTE_MS) for since, span in minutes]
    times_ms = np.array(times, dtype=np.int64) * MINUTE_MS + 17
    found = within(exposed([curve], breaks), times_ms)
    for time_ms, is_left_out in zip(times_ms.tolist(), found.tolist(), strict=True):
        most = max(lost_of(curve, breaks, time_ms))
        # Ends are rounded to whole milliseconds, outwards.
        if abs(most - MATERIAL) > 1e-6:
            assert is_left_out == (most > MATERIAL)


@given(SPANS)
def test_united_spans_hold_the_same_moments_and_lie_apart(spans: list[Span]) -> None:
    found, moments = united(spans), np.arange(-5, 80)
    assert [any(s <= at < e for s, e in spans) for at in moments.tolist()] == within(found, moments).tolist()
    assert all(one[1] < other[0] for one, other in pairwise(found))


@pytest.mark.parametrize("mean_ms", [20 * MINUTE_MS, 2 * HOUR_MS])
def test_of_the_events_that_count_hardly_a_positive_is_missing_and_the_others_are_few(mean_ms: int) -> None:
    rng = np.random.default_rng(1)
    n, break_ms = 200_000, (2 * DAY_MS, 2 * DAY_MS + HOUR_MS)
    times = rng.integers(0, 3 * DAY_MS, n)
    positive, delay = rng.random(n) < 0.2, rng.exponential(mean_ms, n)
    truth = positive & (delay < WINDOW_MS)
    came = times + delay
    lost = (break_ms[0] <= came) & (came < break_ms[1]) & (rng.random(n) < 0.5)
    out = within(exposed([exponential(mean_ms, WINDOW_MS)], [break_ms]), times)
    assert (truth & lost & out).sum() / (truth & lost).sum() > 0.9
    near = ~out & (times > break_ms[0] - WINDOW_MS) & (times < break_ms[1])
    assert (truth & lost & near).sum() <= stats.binom.ppf(0.9999, (truth & near).sum(), MATERIAL)
    assert out.sum() < n * (WINDOW_MS + HOUR_MS) / (3 * DAY_MS)
    # Whole events are left out, so that the labels of the rest are those of a fair sample.
    assert (truth & ~out).sum() / (~out).sum() == pytest.approx(truth.mean(), rel=0.02)


def test_an_hour_lost_of_outcomes_that_take_weeks_leaves_out_no_month() -> None:
    window_ms = 30 * DAY_MS
    rng = np.random.default_rng(2)
    slow = learnt(rng.integers(DAY_MS, window_ms, 20_000), window_ms)
    assert exposed([slow], [(100 * DAY_MS, 100 * DAY_MS + HOUR_MS)]) == []
    both = learnt(
        np.concatenate([rng.exponential(HOUR_MS, 10_000).astype(np.int64), rng.integers(DAY_MS, window_ms, 10_000)]),
        window_ms,
    )
    spans = exposed([both], [(100 * DAY_MS, 100 * DAY_MS + HOUR_MS)])
    assert [(100 * DAY_MS - 4 * HOUR_MS <= start, end) for start, end in spans] == [(True, spans[0][1])]
    assert 100 * DAY_MS < spans[0][1] <= 100 * DAY_MS + HOUR_MS


def test_breaks_that_are_small_one_by_one_add_up() -> None:
    window_ms = 10 * DAY_MS
    slow = learnt(np.random.default_rng(3).integers(0, window_ms, 20_000), window_ms)
    one = (20 * DAY_MS, 20 * DAY_MS + 3 * HOUR_MS)
    other = (22 * DAY_MS, 22 * DAY_MS + 3 * HOUR_MS)
    assert exposed([slow], [one]) == []
    assert exposed([slow], [one, other])


def finding(since_ms: int, found_ms: int, *, resolved: bool) -> JoinFinding:
    return JoinFinding("join_rate", since_ms, found_ms, 0.1, 0.2, 0.25, resolved=resolved)


def test_spans_grow_while_a_break_stands_and_are_done_with_when_it_is_over() -> None:
    curve, lost = exponential(20 * MINUTE_MS, WINDOW_MS), LostOutcomes()
    begin_ms = DAY_MS
    lost.take(finding(begin_ms, begin_ms + 3 * MINUTE_MS, resolved=False))
    seen = []
    for hour in (1, 2, 3):
        assert lost.tell(begin_ms + hour * HOUR_MS, [curve])
        seen.append(lost.spans[-1])
        lost = LostOutcomes(msgspec.json.decode(msgspec.json.encode(lost.snapshot()), type=LostOutcomesData))
    starts, ends = zip(*seen, strict=True)
    # Dated back by the three minutes that it took to tell, and then by the delays.
    assert exposed([curve], [(begin_ms - 3 * MINUTE_MS, begin_ms + 3 * HOUR_MS)])[0] == seen[-1]
    assert list(starts) == sorted(starts, reverse=True)
    assert list(ends) == sorted(set(ends))
    lost.take(finding(begin_ms, begin_ms + 3 * HOUR_MS + 8 * MINUTE_MS, resolved=True))
    assert lost.tell(begin_ms + 4 * HOUR_MS, [curve])
    assert lost.spans[-1][1] <= begin_ms + 3 * HOUR_MS + 8 * MINUTE_MS
    assert not lost.tell(begin_ms + 5 * HOUR_MS, [exponential(2 * HOUR_MS, WINDOW_MS)])
    # What is remembered of it for the sake of later ones is forgotten with the next, a window later.
    spans, later_ms = lost.spans, begin_ms + DAY_MS
    lost.take(finding(later_ms, later_ms + MINUTE_MS, resolved=False))
    assert lost.tell(later_ms + HOUR_MS, [curve])
    assert [(later_ms - MINUTE_MS, 2**62)] == lost.snapshot().breaks
    assert spans == lost.spans[:-1]


def test_without_a_curve_whatever_could_have_been_lost_is_in_doubt_until_there_is_one() -> None:
    lost, now_ms = LostOutcomes(), DAY_MS + HOUR_MS
    lost.take(finding(DAY_MS, DAY_MS + 2 * MINUTE_MS, resolved=False))
    lost.take(finding(DAY_MS, DAY_MS + 30 * MINUTE_MS, resolved=True))
    assert not lost.tell(now_ms, [])
    assert [(DAY_MS - 2 * MINUTE_MS - WINDOW_MS, DAY_MS + 30 * MINUTE_MS)] == lost.doubtful(now_ms, WINDOW_MS)
    assert [] == lost.spans
    assert lost.tell(now_ms + HOUR_MS, [exponential(20 * MINUTE_MS, WINDOW_MS)])
    assert [] == lost.doubtful(now_ms + HOUR_MS, WINDOW_MS)
    assert lost.spans


def test_a_shift_of_what_outcomes_say_loses_none() -> None:
    lost = LostOutcomes()
    lost.take(finding(DAY_MS, DAY_MS + MINUTE_MS, resolved=False)._replace(subject="positive_rate"))
    assert not lost.tell(2 * DAY_MS, [exponential(20 * MINUTE_MS, WINDOW_MS)])
