import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tailrace.core.watermarks import IDLE_AFTER_MS, EventTimeBounds, Watermarks, watermark_of

NOW = 1_700_000_000_000


def test_watermark_trails_the_newest_event_by_the_lateness() -> None:
    marks = Watermarks({"t": 5_000})
    marks.assign("t", 0)
    marks.observe("t", 0, NOW, NOW)
    assert marks.current(NOW) == NOW - 5_000


def test_partition_without_record_holds_the_watermark_back_until_it_is_idle() -> None:
    marks = Watermarks({"t": 0})
    marks.assign("t", 0)
    marks.assign("t", 1)
    marks.ended([("t", 1)])
    assert marks.current(NOW) is None
    marks.observe("t", 0, NOW, NOW + IDLE_AFTER_MS)
    assert marks.current(NOW + IDLE_AFTER_MS - 1) is None
    assert marks.current(NOW + IDLE_AFTER_MS) == NOW


def test_partition_is_idle_only_so_long_after_its_end_was_reached_and_is_told_still() -> None:
    # partition 1:  record   (unread)   end          withdrawn     end, again
    # time, in I:   0        9          10     11    12            13           14
    marks = Watermarks({"t": 0})
    marks.observe("t", 1, 100, NOW)

    def reached(waits: int) -> int | None:
        marks.observe("t", 0, 1_000 * waits, NOW + waits * IDLE_AFTER_MS)
        return marks.current(NOW + waits * IDLE_AFTER_MS)

    assert [reached(0), reached(9)] == [0, 100]
    marks.ended([("t", 1)])
    assert [reached(10), reached(11)] == [100, 11_000]
    marks.ended([])
    marks.observe("t", 1, 11_500, NOW + 11 * IDLE_AFTER_MS)
    assert reached(12) == 11_500
    marks.ended([("t", 1)])
    marks.ended([("t", 1)])
    assert [reached(13), reached(14)] == [11_500, 14_000]


def test_punctuated_partition_ignores_event_times_and_is_never_idle() -> None:
    marks = Watermarks({"t": 0})
    marks.punctuate("t", 0, 100, NOW)
    marks.observe("t", 0, 900, NOW)
    marks.ended([("t", 0)])
    assert marks.current(NOW) == 100
    assert marks.current(NOW + 10 * IDLE_AFTER_MS) == 100


def test_old_replay_does_not_leap_to_the_wall_clock_when_idle() -> None:
    marks = Watermarks({"t": 0})
    marks.observe("t", 0, 1_000, NOW)
    marks.ended([("t", 0)])
    assert marks.current(NOW) == 1_000
    assert marks.current(NOW + 2 * IDLE_AFTER_MS) == 1_000


def test_live_stream_that_stops_goes_on_with_the_wall_clock() -> None:
    marks = Watermarks({"t": 0})
    marks.observe("t", 0, NOW, NOW)
    marks.ended([("t", 0)])
    assert marks.current(NOW) == NOW
    assert marks.current(NOW + 3 * IDLE_AFTER_MS) == NOW + 2 * IDLE_AFTER_MS


def test_live_stream_that_stopped_before_a_restart_goes_on_with_the_wall_clock() -> None:
    marks = Watermarks({"t": 0})
    marks.observe("t", 0, NOW, NOW)
    again = Watermarks({"t": 0})
    again.restore(marks.current(NOW))
    again.assign("t", 0, marks.known("t", 0))
    late = NOW + 100 * IDLE_AFTER_MS
    assert again.current(NOW + 50 * IDLE_AFTER_MS) == NOW
    again.ended([("t", 0)])
    assert again.current(late) == NOW
    assert again.current(late + IDLE_AFTER_MS) == late


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 100), st.booleans(), st.booleans()), max_size=40),
)
def test_restart_between_any_two_records_changes_no_watermark(steps: list[tuple[int, int, bool, bool]]) -> None:
    calm, restarted = Watermarks({"t": 10}), Watermarks({"t": 10})
    for partition in range(3):
        calm.assign("t", partition)
        restarted.assign("t", partition)
    for partition, time_ms, stated, restart in steps:
        if restart:
            known = [restarted.known("t", at) for at in range(3)]
            reached = restarted.current(NOW)
            restarted = Watermarks({"t": 10})
            restarted.restore(reached)
            for at in range(3):
                restarted.assign("t", at, known[at])
        for marks in (calm, restarted):
            (marks.punctuate if stated else marks.observe)("t", partition, time_ms, NOW)
        assert restarted.current(NOW) == calm.current(NOW)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 10_000)), max_size=60))
def test_watermark_never_falls(steps: list[tuple[int, int]]) -> None:
    marks = Watermarks({"t": 10})
    for partition in range(4):
        marks.assign("t", partition)
    seen: list[int] = []
    for partition, time_ms in steps:
        marks.observe("t", partition, time_ms, NOW)
        current = marks.current(NOW)
        if current is not None:
            seen.append(current)
    assert seen == sorted(seen)


_STEPS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 100), st.sampled_from((0, 1_000, IDLE_AFTER_MS)), st.booleans()),
    max_size=40,
)


@given(_STEPS)
def test_stream_time_never_passes_a_partition_whose_end_was_not_reached(
    steps: list[tuple[int, int, int, bool]],
) -> None:
    # The twin: a log in which each record is put before it is read, and what is unread is looked up.
    marks, unread = Watermarks({"t": 0}), {partition: [0] for partition in range(3)}
    for partition in unread:
        marks.assign("t", partition)
    now_ms, newest_ms, reached = NOW, 0, None
    for partition, forward_ms, wait_ms, is_read in steps:
        now_ms, newest_ms = now_ms + wait_ms, newest_ms + forward_ms
        if is_read and unread[partition]:
            marks.observe("t", partition, unread[partition].pop(0), now_ms)
        elif not is_read:
            unread[partition].append(newest_ms)
        marks.ended([("t", at) for at, records in unread.items() if not records])
        reached = marks.current(now_ms)
        assert reached is None or all(reached <= time_ms for records in unread.values() for time_ms in records)


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
