"""The age of unread records, against a twin that knows when each record was written."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tailrace.core.lags import OffsetHistory

EVERY_MS = 1_000


@given(
    st.lists(st.integers(0, 60_000), min_size=1, max_size=300).map(sorted),
    st.integers(0, 400),
    st.integers(0, 999),
)
def test_age_is_right_to_within_one_interval(written_ms: list[int], offset: int, phase_ms: int) -> None:
    history = OffsetHistory()
    now_ms = 61_000 + phase_ms
    for at_ms in range(phase_ms - EVERY_MS, now_ms + 1, EVERY_MS):
        history.observe(sum(written <= at_ms for written in written_ms), at_ms)
    age_ms = history.age_ms(offset, now_ms)
    if offset >= len(written_ms):
        assert 0 == age_ms
    else:
        assert abs(now_ms - written_ms[offset] - age_ms) <= EVERY_MS


def test_backlog_older_than_the_history_is_as_old_as_the_history_at_least() -> None:
    history = OffsetHistory()
    history.observe(100, 5_000)
    assert 3_000 == history.age_ms(10, 8_000)


def test_silence_is_not_held_against_a_record_that_ends_it() -> None:
    history = OffsetHistory()
    for at_ms in range(0, 60_000, EVERY_MS):
        history.observe(7, at_ms)
    history.observe(8, 60_000)
    assert history.age_ms(7, 60_000) <= EVERY_MS


def test_memory_is_bounded_by_the_span_kept() -> None:
    history = OffsetHistory(keep_ms=10_000)
    for at_ms in range(0, 1_000_000, EVERY_MS):
        history.observe(at_ms, at_ms)
    assert len(history._ends) <= 12
    assert history.age_ms(0, 1_000_000) >= 10_000


def test_topic_made_anew_begins_a_new_history() -> None:
    history = OffsetHistory()
    history.observe(100, 0)
    history.observe(5, 1_000)
    assert 0 == history.age_ms(5, 2_000)
    assert 1_000 == history.age_ms(2, 2_000)
