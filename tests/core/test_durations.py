import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.core.durations import duration, milliseconds


@given(st.integers(0, 10**12))
def test_what_is_written_is_read_back(span_ms: int) -> None:
    assert span_ms == milliseconds(duration(span_ms))


def test_the_largest_unit_that_holds_it_whole_is_taken() -> None:
    assert ["7d", "36h", "90s", "250ms"] == [duration(ms) for ms in (604_800_000, 129_600_000, 90_000, 250)]


@pytest.mark.parametrize("text", ["", "7", "1.5h", "-1d", "7 days", "1h30m"])
def test_text_that_is_no_duration_is_refused_with_the_form_to_write(text: str) -> None:
    with pytest.raises(ValueError, match="write a whole number and a unit"):
        milliseconds(text)
