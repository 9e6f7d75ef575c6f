import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tailrace.core.watermarks import IDLE_AFTER_MS, EventTimeBounds, Watermarks, watermark_of

NOW = 1_700_000_000_000


def test_watermark_trails_the_newest_event_by_the_lateness() -> None:
    marks = Watermarks({"t": 5_000})
    marks.assign("t", 0, NOW)
    marks.observe("t", 0, NOW, NOW)
    assert marks.current(NOW) == NOW - 5_000


def test_partition_without_record_holds_the_watermark_back_until_it_is_idle() -> None:
    marks = Watermarks({"t": 0})
    marks.assign("t", 0, NOW)
    marks.assign("t", 1, NOW)
    marks.observe("t", 0, NOW, NOW + IDLE_AFTER_MS)
    assert marks.current(NOW + 1) is None
    assert marks.current(NOW + IDLE_AFTER_MS) == NOW


def test_punctuated_partition_ignores_event_times_and_is_never_idle() -> None:
    marks = Watermarks({"t": 0})
    marks.punctuate("t", 0, 100, NOW)
    marks.observe("t", 0, 900, NOW)
    assert marks.current(NOW + 10 * IDLE_AFTER_MS) == 100


def test_old_replay_does_not_leap_to_the_wall_clock_when_idle() -> None:
    marks = Watermarks({"t": 0})
    marks.observe("t", 0, 1_000, NOW)
    assert marks.current(NOW) == 1_000
    assert marks.current(NOW + 2 * IDLE_AFTER_MS) == 1_000


def test_live_stream_that_stops_goes_on_with_the_wall_clock() -> None:
    marks = Watermarks({"t": 0})
    marks.observe("t", 0, NOW, NOW)
    assert marks.current(NOW) == NOW
    assert marks.current(NOW + 3 * IDLE_AFTER_MS) == NOW + 2 * IDLE_AFTER_MS


def test_after_a_restart_no_topic_runs_ahead_of_those_that_were_read_before() -> None:
    marks = Watermarks({"t": 0, "u": 0})
    marks.restore(100, [("t", 0), ("u", 0)])
    marks.punctuate("u", 0, 900, NOW)
    assert marks.current(NOW) == 100
    marks.punctuate("t", 0, 800, NOW)
    assert marks.current(NOW) == 800
    silent = Watermarks({"t": 0, "u": 0})
    silent.restore(100, [("t", 0), ("u", 0)])
    silent.punctuate("u", 0, 900, NOW)
    assert silent.current(NOW) == 100
    assert silent.current(NOW + IDLE_AFTER_MS) == 900


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 10_000)), max_size=60))
def test_watermark_never_falls(steps: list[tuple[int, int]]) -> None:
    marks = Watermarks({"t": 10})
    for partition in range(4):
        marks.assign("t", partition, NOW)
    seen: list[int] = []
    for partition, time_ms in steps:
        marks.observe("t", partition, time_ms, NOW)
        current = marks.current(NOW)
        if current is not None:
            seen.append(current)
    assert seen == sorted(seen)


def test_watermark_record_is_recognised_by_header_and_missing_value() -> None:
    header = [("tailrace-watermark", b"42")]
    assert watermark_of(None, header) == 42
    assert watermark_of(b"{}", header) is None
    assert watermark_of(None, []) is None


def test_event_times_ahead_of_the_clock_or_far_behind_their_partition_are_refused() -> None:
    bounds = EventTimeBounds(max_ahead_ms=1_000, max_behind_ms=10_000)
    times = np.array([NOW - 500_000, NOW, NOW + 2_000, NOW - 9_999, NOW - 10_001])
    ahead, behind = bounds.check(0, times, NOW)
    assert ahead.tolist() == [False, False, True, False, False]
    assert behind.tolist() == [False, False, False, False, True]
    _, behind = bounds.check(0, np.array([NOW - 10_001]), NOW)
    assert behind.tolist() == [True]
