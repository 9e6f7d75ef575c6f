"""The shell's share of the latency budget."""

from __future__ import annotations

import pytest

from tailrace.features.shell import linger_ms_of


@pytest.mark.parametrize(("budget_ms", "linger_ms"), [(10, 0.25), (20, 0.5), (200, 5.0), (60_000, 5.0)])
def test_records_wait_for_a_fortieth_of_the_budget_and_never_for_long(budget_ms: int, linger_ms: float) -> None:
    assert linger_ms == linger_ms_of(budget_ms)
