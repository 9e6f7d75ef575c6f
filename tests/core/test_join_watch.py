"""Broken joins: found within minutes, quiet while traffic goes up and down."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
import pytest

from tailrace.core.join_watch import JoinFinding, JoinWatch, JoinWatchData

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
MINUTE_MS = 60_000
START_MS = 20_000 * DAY_MS
Stream = tuple[np.ndarray, np.ndarray, np.ndarray]


def stream(seed: int, days: float, per_minute: float, share: float = 0.5, positive: float = 0.2) -> Stream:
    """Event times with a daily and a weekly rhythm, outcomes some hours later, and what they say."""
    rng = np.random.default_rng(seed)
    minutes = np.arange(int(days * 1_440))
    rhythm = (1.0 + 0.7 * np.sin(2 * np.pi * minutes / 1_440)) * np.where(minutes // 1_440 % 7 >= 5, 0.6, 1.0)
    counts = rng.poisson(per_minute * rhythm)
    times = START_MS + np.repeat(minutes, counts) * MINUTE_MS + rng.integers(0, MINUTE_MS, counts.sum())
    judged = times[rng.random(len(times)) < share]
    outcomes = judged + rng.exponential(4 * HOUR_MS, len(judged)).astype(np.int64)
    return times, outcomes, rng.random(len(outcomes)) < positive


def played(
    watch: JoinWatch, of: Stream, *, step_ms: int = MINUTE_MS, restart: bool = False, seen: np.ndarray | None = None
) -> list[JoinFinding]:
    """Feeds a stream in order of time, or outcomes when they are `seen`, and advances after each step."""
    times, outcomes, positive = of
    seen = outcomes if seen is None else seen
    order = np.argsort(seen)
    outcomes, positive, seen = outcomes[order], positive[order], seen[order]
    found = []
    for at in range(START_MS, int(times.max()), step_ms):
        watch.predicted(times[slice(*np.searchsorted(times, [at, at + step_ms]))])
        taken = slice(*np.searchsorted(seen, [at, at + step_ms]))
        watch.joined(outcomes[taken], positive[taken])
        found += watch.advance(at + step_ms)
        if restart:
            watch = JoinWatch(msgspec.json.decode(msgspec.json.encode(watch.snapshot()), type=JoinWatchData))
    return found


def dropped(of: Stream, since_ms: int, until_ms: int, share: float, seed: int = 1) -> Stream:
    times, outcomes, positive = of
    lost = (outcomes >= since_ms) & (outcomes < until_ms) & (np.random.default_rng(seed).random(len(outcomes)) < share)
    return times, outcomes[~lost], positive[~lost]


def in_nightly_files(outcomes: np.ndarray, _: np.random.Generator) -> np.ndarray:
    return (outcomes // DAY_MS + 1) * DAY_MS + 2 * HOUR_MS


def out_of_order(outcomes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return outcomes + rng.choice([0, 0, 2 * HOUR_MS, DAY_MS, 4 * DAY_MS], len(outcomes))


@pytest.mark.parametrize("late", [in_nightly_files, out_of_order])
def test_outcomes_that_come_late_are_no_broken_join_and_are_told_later(
    late: Callable[[np.ndarray, np.random.Generator], np.ndarray],
) -> None:
    whole = stream(11, 16, 60.0)
    seen = late(whole[1], np.random.default_rng(12))
    assert [] == played(JoinWatch(), whole, step_ms=10 * MINUTE_MS, seen=seen)

    broken_ms = START_MS + 9 * DAY_MS + 10 * HOUR_MS
    lost = (whole[1] >= broken_ms) & (whole[1] < broken_ms + 2 * HOUR_MS)
    lost &= np.random.default_rng(13).random(len(lost)) < 0.7
    less = whole[0], whole[1][~lost], whole[2][~lost]
    raised, over = played(JoinWatch(), less, step_ms=10 * MINUTE_MS, seen=seen[~lost])
    assert abs(raised.since_ms - broken_ms) <= 10 * MINUTE_MS
    assert broken_ms + 2 * HOUR_MS < over.found_ms <= broken_ms + 4 * HOUR_MS


@pytest.mark.parametrize("hour", [3, 10, 20])
@pytest.mark.parametrize("seed", [1])
def test_half_of_the_outcomes_missing_is_found_within_five_minutes_and_over_when_they_are_back(
    seed: int, hour: int
) -> None:
    broken_ms = START_MS + 3 * DAY_MS + hour * HOUR_MS
    whole = stream(seed, 3.95, 400.0)
    found = played(JoinWatch(), dropped(whole, broken_ms, broken_ms + HOUR_MS, 0.5), step_ms=5 * MINUTE_MS)
    assert [(finding.subject, finding.resolved) for finding in found] == [("join_rate", False), ("join_rate", True)]
    raised, over = found
    assert broken_ms < raised.found_ms <= broken_ms + 5 * MINUTE_MS
    assert abs(raised.since_ms - broken_ms) <= 2 * MINUTE_MS
    assert raised.value < raised.limit < raised.usual
    assert broken_ms + HOUR_MS < over.found_ms <= broken_ms + HOUR_MS + 30 * MINUTE_MS


@pytest.mark.parametrize(("per_minute", "share"), [(50.0, 0.5), (5.0, 0.2), (2.0, 0.02)])
def test_rhythms_of_traffic_and_few_outcomes_are_no_broken_join(per_minute: float, share: float) -> None:
    assert played(JoinWatch(), stream(3, 12, per_minute, share), step_ms=HOUR_MS) == []


def test_surge_and_lull_of_traffic_are_no_broken_join() -> None:
    times, outcomes, positive = stream(4, 12, 40.0)
    rng = np.random.default_rng(5)
    surge = times[(times >= START_MS + 9 * DAY_MS) & (times < START_MS + 9 * DAY_MS + 2 * HOUR_MS)]
    late = surge + rng.exponential(4 * HOUR_MS, len(surge)).astype(np.int64)
    lull = (times >= START_MS + 10 * DAY_MS) & (times < START_MS + 10 * DAY_MS + 4 * HOUR_MS)
    times = np.sort(np.concatenate([times[~lull | (rng.random(len(times)) < 0.3)], surge]))
    outcomes, positive = np.concatenate([outcomes, late]), np.concatenate([positive, rng.random(len(late)) < 0.2])
    assert played(JoinWatch(), (times, outcomes, positive), step_ms=HOUR_MS) == []


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_positives_that_come_in_runs_are_no_broken_join(seed: int) -> None:
    rng = np.random.default_rng(seed)
    times = START_MS + np.arange(40 * 48) * HOUR_MS // 2
    days = rng.random(41) < 0.5
    positive = np.where(
        rng.random(len(times)) < 0.95, days[(np.arange(len(times)) + 20) // 48], rng.random(len(times)) < 0.5
    )
    assert played(JoinWatch(), (times, times + HOUR_MS // 2, positive), step_ms=HOUR_MS) == []


@pytest.mark.parametrize("positives", [0, 14, 27, 100])
def test_a_day_by_itself_says_nothing_of_runs(positives: int) -> None:
    times = START_MS + np.arange(26 * 60) * MINUTE_MS
    outcomes = START_MS + np.arange(100) * 12 * MINUTE_MS
    assert [] == played(JoinWatch(), (times, outcomes, np.arange(100) < positives), step_ms=HOUR_MS)


@pytest.mark.parametrize("share", [0.0, 0.9])
def test_share_of_positives_that_is_back_is_told_even_of_few_outcomes(share: float) -> None:
    times, outcomes, positive = stream(6, 6.0, 1.0, 0.3)
    broken = (outcomes >= START_MS + 4 * DAY_MS) & (outcomes < START_MS + 4 * DAY_MS + 12 * HOUR_MS)
    positive[broken] = np.random.default_rng(7).random(int(broken.sum())) < share
    found = played(JoinWatch(), (times, outcomes, positive), step_ms=HOUR_MS)
    assert [(finding.subject, finding.resolved) for finding in found] == [
        ("positive_rate", False),
        ("positive_rate", True),
    ]


@pytest.mark.parametrize("share", [0.0, 0.6])
def test_share_of_positives_far_from_the_week_is_found(share: float) -> None:
    times, outcomes, positive = stream(6, 4.5, 40.0)
    since_ms = START_MS + 4 * DAY_MS
    later = outcomes >= since_ms
    positive[later] = np.random.default_rng(7).random(int(later.sum())) < share
    raised = played(JoinWatch(), (times, outcomes, positive), step_ms=HOUR_MS)[0]
    assert (raised.subject, raised.resolved) == ("positive_rate", False)
    assert since_ms < raised.found_ms <= since_ms + HOUR_MS
    assert raised.value == pytest.approx(share, abs=0.15)


def test_new_level_is_taken_up_within_the_week() -> None:
    halved = dropped(stream(8, 18, 20.0), START_MS + 9 * DAY_MS, START_MS + 99 * DAY_MS, 0.5)
    found = played(JoinWatch(), halved, step_ms=HOUR_MS)
    assert [finding.resolved for finding in found] == [False, True]
    assert found[1].found_ms <= START_MS + 17 * DAY_MS


def test_steps_of_the_watermark_and_restarts_change_nothing() -> None:
    broken_ms = START_MS + 3 * DAY_MS + 12 * HOUR_MS
    whole = dropped(stream(9, 3.7, 60.0), broken_ms, broken_ms + HOUR_MS, 0.5)
    calm = played(JoinWatch(), whole)
    assert len(calm) == 2
    assert calm == played(JoinWatch(), whole, step_ms=7 * MINUTE_MS)
    assert calm == played(JoinWatch(), whole, step_ms=11 * MINUTE_MS, restart=True)


def test_late_and_far_apart_times_leave_no_state_behind() -> None:
    watch = JoinWatch()
    for day in (0, 40, 400):
        watch.predicted(np.array([START_MS + day * DAY_MS]))
        watch.joined(np.array([START_MS, START_MS + day * DAY_MS]), np.array([True, False]))
        watch.advance(START_MS + day * DAY_MS + HOUR_MS)
    data = watch.snapshot()
    assert not data.minutes
    assert all(hour >= data.hour - 168 for hour in data.hours)
